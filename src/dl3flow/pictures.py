"""Which picture a file has: its product, and the name of the plot that draws it."""

from pathlib import Path
from typing import Any

from dl3flow.data.observation import Observation
from dl3flow.data.products import Butterfly, FluxPoints, LightCurve
from dl3flow.errors import InputError
from dl3flow.io.fits_datasets import read_fits_dataset
from dl3flow.io.fits_files import open_fits
from dl3flow.io.gadf_file import read_dl3_file
from dl3flow.io.hdf5 import read_dataset
from dl3flow.io.ogip import read_ogip
from dl3flow.io.products import read_fit, read_table
from dl3flow.io.skymaps import read_sky_map

_TABLES = {FluxPoints: "flux_points", LightCurve: "light_curve", Butterfly: "butterfly"}
_DRAWN = (".ecsv", ".fits", ".fits.gz", ".h5", ".json")


def read_for_picture(path: Path) -> tuple[str, Any]:
    """Name of the plot for a DL3, DL4 or DL5 file, and the product that it draws.

    Raises
    ------
    InputError
        If the file is missing or damaged, or nothing is drawn of its kind.
    """
    if path.name.endswith(".h5"):
        return "dataset", read_dataset(path)
    if path.name.endswith(".json"):
        return "fit", read_fit(path)
    if path.name.endswith(".ecsv"):
        table = read_table(path)
        return _TABLES.get(type(table)) or str(getattr(table, "kind", "")), table
    if not path.name.endswith((".fits", ".fits.gz", ".fit", ".fit.gz")):
        raise InputError(f"{path}: nothing is drawn of such a file: name one of {', '.join(_DRAWN)}")
    with open_fits(path) as hdus:
        names = {hdu.name.upper() for hdu in hdus}
        tables = [hdu for hdu in hdus if hasattr(hdu, "columns")]
        columns = {c.lower() for hdu in tables for c in hdu.columns.names}
        classes = {str(hdu.header.get("HDUCLAS1", hdu.name)).upper() for hdu in tables}
    if {"COUNTS", "EXPOSURE"} <= names:
        return "dataset", read_fits_dataset(path)
    if "SPECTRUM" in names:
        return "dataset", read_ogip(path)
    if {"e_ref", "norm"} <= columns:
        table = read_table(path)
        return _TABLES[type(table)], table
    if classes & {"EVENTS", "RESPONSE"}:
        found = read_dl3_file(path)
        return "observation" if isinstance(found, Observation) else "responses", found
    maps = read_sky_map(path)
    return str(maps.meta.get("estimator", "")), maps
