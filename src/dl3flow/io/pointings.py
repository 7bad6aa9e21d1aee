"""Tables of pointings: what a survey observes, when and for how long."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from dl3flow.errors import InputError, choices

_FORMATS = {
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".txt": "ascii",
    ".dat": "ascii",
    ".fits": "fits",
    ".gz": "fits",
}
_FRAMES = {"icrs": ("RA", "DEC"), "galactic": ("GLON", "GLAT")}
_SHORT = {
    "RA": ("RA_PNT",),
    "DEC": ("DEC_PNT",),
    "TARGET": ("OBJECT", "TARGET_NAME"),
    "DURATION": ("ONTIME",),
}


def read_pointings(path: Path) -> list[dict[str, Any]]:
    """Observations of a table, as the list ``observations`` of a simulation says them.

    Parameters
    ----------
    path : Path
        ``.ecsv``, ``.csv``, ``.txt`` or ``.fits`` with the columns RA and DEC or GLON and GLAT (deg unless they have a
        unit), START (UTC text, or MJD as numbers) and DURATION (s unless it has a unit); optionally OBS_ID (else 1, 2 ...)
        and TARGET. Capitals make no difference.

    Returns
    -------
    observations : list of mapping
        obs_id, target, pointing {lon, lat} (ICRS), start and duration.

    Raises
    ------
    InputError
        Naming the column that is missing or wrong.
    """
    table = _read(path)
    columns = {name.upper(): name for name in table.colnames}

    def column(name: str) -> Any:
        found = next((columns[n] for n in (name, *_SHORT.get(name, ())) if n in columns), None)
        return None if found is None else table[found]

    frame = next((f for f, names in _FRAMES.items() if all(column(n) is not None for n in names)), None)
    if frame is None:
        raise InputError(
            f"{path}: has neither the columns RA and DEC nor GLON and GLAT (it has {', '.join(table.colnames)})"
        )
    for name in ("START", "DURATION"):
        if column(name) is None:
            raise InputError(f"{path}: has no column {name} (it has {', '.join(table.colnames)}): add it")
    if not len(table):
        raise InputError(f"{path}: the table has no row: add at least one pointing")
    lon, lat = (_numbers(column(name), u.deg, f"{path}: column {name}") for name in _FRAMES[frame])
    if frame != "icrs":  # all at once, as one by one thousands would take seconds
        at = SkyCoord(lon * u.deg, lat * u.deg, frame=frame).icrs
        lon, lat = at.ra.deg.tolist(), at.dec.deg.tolist()
    duration = _numbers(column("DURATION"), u.s, f"{path}: column DURATION")
    start = _moments(column("START"), f"{path}: column START")
    obs_id, target = column("OBS_ID"), column("TARGET")
    return [
        {
            "obs_id": n + 1 if obs_id is None else _whole(obs_id[n], f"{path}: column OBS_ID, row {n + 1}"),
            "target": f"pointing {n + 1}" if target is None else str(target[n]),
            "pointing": {"lon": f"{lon[n]!r} deg", "lat": f"{lat[n]!r} deg"},
            "start": start[n],
            "duration": f"{duration[n]!r} s",
        }
        for n in range(len(table))
    ]


def _moments(column: Any, where: str) -> list[str]:
    """Moments as text that a configuration holds."""
    if isinstance(column, Time):
        return [str(text) for text in np.atleast_1d(column.utc.isot)]
    if column.dtype.kind not in "if":
        return [str(text) for text in column]
    if column.unit not in (None, u.d):
        raise InputError(f"{where}: has the unit '{column.unit}', expected UTC text, or MJD in days")
    return [f"MJD {value!r}" for value in _numbers(column, u.d, where)]


def _read(path: Path) -> Table:
    kind = _FORMATS.get(Path(path).suffix)
    if kind is None:
        raise InputError(
            f"{path}: a table of pointings is no '{Path(path).suffix}' file: {choices(Path(path).suffix, _FORMATS)}"
        )
    try:
        return Table.read(path, format=kind)
    except Exception as error:  # noqa: BLE001  the parser's errors are of many kinds
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: the table of pointings cannot be read ({reason}): correct it") from None


def _numbers(column: Any, unit: u.UnitBase, where: str) -> list[float]:
    values = np.ma.filled(np.ma.asarray(column), np.nan) if column.dtype.kind == "f" else np.asarray(column)
    if values.ndim != 1 or values.dtype.kind not in "if" or not np.isfinite(values).all():
        raise InputError(f"{where}: expected one finite number per row")
    own = unit if column.unit is None else column.unit
    if not own.is_equivalent(unit):
        raise InputError(f"{where}: has the unit '{own}', expected one such as '{unit}'")
    return [float(value) for value in (values * own).to_value(unit)]


def _whole(value: Any, where: str) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError):
        found = -1
    if found != value:
        raise InputError(f"{where}: expected a whole number, found {value}")
    return found
