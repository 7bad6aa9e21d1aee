"""Files that models are read from: light curves and phase curves here, other kinds by their own readers.

A model names the kind of file that can hold its options in its companion ``reads``. A reader returns the options by
name, and under ``defaults`` the values of parameters that the file states, in internal units.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import astropy.units as u
import numpy as np
from astropy.time import Time

from dl3flow.errors import InputError, choices
from dl3flow.io.ebl import EBL_FILES, find_ebl, read_ebl
from dl3flow.io.fits_files import find_table, number_column, open_fits, reference_mjd, text_key
from dl3flow.io.template_maps import read_template_map
from dl3flow.models.temporal import Scale

Reader = Callable[[Path, Mapping[str, Any]], Mapping[str, Any]]


def find_file(name: Any, folder: Path, where: str) -> Path:
    """File of that name below the folder of the model file, else below the working directory; ``$NAME`` is expanded.

    Raises
    ------
    InputError
        If there is none.
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: expected the name of a file, found {name!r}")
    text = os.path.expandvars(name)
    places = list(dict.fromkeys([folder / text, Path(text)]))
    for place in places:
        if place.is_file():
            return place
    looked = " nor ".join(f"'{place}'" for place in places)
    hint = " (the variable is not set)" if text == name and "$" in name else ""
    raise InputError(f"{where}: there is no file {looked}{hint}: name one beside the model file")


def find_source(kind: str, entry: Mapping[str, Any], folder: Path, where: str) -> tuple[Path, str] | None:
    """File from which a model's options are read, and the name under which a model file can name it; None for none.

    Raises
    ------
    InputError
        If it is missing.
    """
    if entry.get("filename") is not None:
        name = str(entry["filename"])
        # the peer writes the place of a public table on the machine of the writer
        if kind == "ebl" and Path(name).name in EBL_FILES.values() and not _exists(name, folder):
            return find_ebl(Path(name).name, f"{where}.filename"), name
        return find_file(entry["filename"], folder, f"{where}.filename"), name
    if kind == "ebl" and entry.get("reference") is not None:
        path = find_ebl(entry["reference"], f"{where}.reference")
        return path, f"$DL3FLOW_DATA/ebl/{path.name}"
    return None


def _exists(name: str, folder: Path) -> bool:
    text = os.path.expandvars(name)
    return any(place.is_file() for place in (folder / text, Path(text)))


def read_options(kind: str, path: Path, entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options of a model from its file.

    Raises
    ------
    InputError
        If the file is damaged or holds something else.
    """
    if kind not in READERS:
        raise InputError(f"{where}: no reader for a file of the kind '{kind}': {choices(kind, READERS)}")
    return dict(READERS[kind](path, entry))


def _read_light_curve(path: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Columns TIME and NORM, and the MJDREFI, MJDREFF and TIMESYS of their header."""
    if entry.get("format", "table") != "table":
        raise InputError(
            f"{path}: a light curve in the format '{entry['format']}' (a map, with energies) is not read: "
            "write it as a table of TIME and NORM"
        )
    with open_fits(path) as hdus:
        table = _first_table(hdus, path)
        where = f"{path}: HDU {table.name or 1}"
        time, norm = (number_column(table, _column(table, name, where), where) for name in ("TIME", "NORM"))
        unit = _time_unit(table, where)
        whole, part = reference_mjd(table.header, where)
        scale = text_key(table.header, "TIMESYS", "utc", where).lower()
    _check_nodes(time, norm, "TIME", where)
    if scale not in get_args(Scale):
        raise InputError(f"{where}: unknown time scale TIMESYS '{scale}': {choices(scale, get_args(Scale))}")
    reference = Time(whole, part, format="mjd", scale=scale)
    # whatever the file's scale, the parameter is in that of the model: UTC unless the model says otherwise
    t_ref = float(getattr(reference, str(entry.get("scale", "utc"))).mjd)
    return {"time": time * float(unit.to(u.d)), "norm": norm, "defaults": {"t_ref": t_ref}}


def _read_phase_curve(path: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Columns PHASE, from 0 to 1, and NORM."""
    with open_fits(path) as hdus:
        table = _first_table(hdus, path)
        where = f"{path}: HDU {table.name or 1}"
        phase, norm = (number_column(table, _column(table, name, where), where) for name in ("PHASE", "NORM"))
    _check_nodes(phase, norm, "PHASE", where)
    if phase[0] < 0 or phase[-1] > 1:
        raise InputError(
            f"{where}: PHASE goes from {phase[0]:g} to {phase[-1]:g}: write it in turns, from 0 to 1"
        )
    return {"phase": phase, "norm": norm}


def _first_table(hdus: Any, path: Path) -> Any:
    names = [hdu.name for hdu in hdus if hasattr(hdu, "columns")]
    if not names:
        raise InputError(f"{path}: holds no table: name the file of a light curve or phase curve")
    return find_table(hdus, names[0], str(path))


def _column(table: Any, name: str, where: str) -> str:
    found = [column for column in table.columns.names if column.upper() == name]
    if not found:
        raise InputError(f"{where}: has no column {name} (it has {', '.join(table.columns.names)}): add it")
    return str(found[0])


def _time_unit(table: Any, where: str) -> u.UnitBase:
    text = table.columns[_column(table, "TIME", where)].unit or ""
    for candidate in (text, text_key(table.header, "TIMEUNIT", "", where)):
        try:
            unit = u.Unit(candidate)
        except ValueError:
            continue
        if unit.is_equivalent(u.d):
            return unit
    raise InputError(f"{where}: the column TIME has the unit '{text}': write one such as 'd'")


def _check_nodes(x: np.ndarray, y: np.ndarray, name: str, where: str) -> None:
    if x.ndim != 1 or y.shape != x.shape or x.size < 2:
        raise InputError(
            f"{where}: {name} and NORM need one number per row and at least two rows, found {x.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (np.diff(x) > 0).all()):
        raise InputError(f"{where}: {name} must be finite and increasing, and NORM finite: sort the rows")


READERS: Mapping[str, Reader] = {
    "ebl": read_ebl,
    "light_curve": _read_light_curve,
    "phase_curve": _read_phase_curve,
    "sky_template": read_template_map,
}
