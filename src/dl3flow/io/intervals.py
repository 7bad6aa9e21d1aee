"""Tables of time intervals, such as those of a published light curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table
from astropy.time import Time

from dl3flow.errors import InputError, choices

_COLUMNS = (("time_min", "time_max"), ("start", "stop"))


def read_intervals(path: Path) -> list[list[str]]:
    """Intervals from a table in ECSV, CSV or FITS, as pairs of UTC text.

    The columns are ``time_min`` and ``time_max``, numbers being MJD (TT) as in a light curve, or ``start`` and ``stop``, UTC
    text. Numbers with a unit are in it, and count from the header's MJDREFI and MJDREFF if it has them.

    Raises
    ------
    InputError
        If the file cannot be read, has neither pair of columns, or what stands there is no time.
    """
    form = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv"}.get(path.suffix)
    try:
        table = QTable(Table.read(path, format=form, **({} if form else {"hdu": 1})))
    except Exception as error:  # noqa: BLE001  the parsers' errors are of many kinds
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: cannot be read as a table of intervals ({reason}): write ECSV, CSV or FITS"
        ) from None
    pair = next((names for names in _COLUMNS if set(names) <= set(table.colnames)), None)
    if pair is None:
        raise InputError(
            f"{path}: has neither the columns 'time_min' and 'time_max' nor 'start' and 'stop': {choices('', table.colnames)}"
        )
    try:
        low, high = (_times(table[name], table.meta) for name in pair)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: the columns '{pair[0]}' and '{pair[1]}' hold no times ({error}): write MJD (TT) or UTC text"
        ) from None
    return [[str(a), str(b)] for a, b in zip(low, high, strict=True)]


def _times(column: Any, meta: Mapping[str, Any]) -> np.ndarray:
    if not isinstance(column, Time):
        unit = getattr(column, "unit", None)
        values = np.asarray(getattr(column, "value", column))
        if values.dtype.kind in "US":
            column = Time(values.astype(str), scale="utc")
        else:
            if unit is not None:
                values = (values * unit).to_value(u.d)
            if not np.isfinite(values).all():
                raise ValueError("not all are finite")
            header = {str(key).upper(): value for key, value in meta.items()}
            reference = float(header.get("MJDREFI", 0)) + float(header.get("MJDREFF", 0))
            scale = str(header.get("TIMESYS", "tt")).lower()
            column = Time(reference, values.astype(float), format="mjd", scale=scale)
    utc = column.utc
    utc.precision = 9
    return np.asarray(utc.isot)
