"""Spectra of a region as FITS (the field's layout): a table of values, a table of its bands, and the region.

``<NAME>`` holds CHANNEL and DATA, one row per bin of the slowest axis; ``<NAME>_BANDS`` the bins of all axes; and
``<NAME>_REGION`` the shapes with the WCS of their pixels. Values are float64.
"""

import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS, FITSFixedWarning, WcsError

from dl3flow.data.maps import Map
from dl3flow.errors import InputError
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.region_shapes import shape_table, text_of_shapes
from dl3flow.io.fits_axes import axis_keys, bands_hdu, read_axes
from dl3flow.io.fits_files import number_column, raw_column
from dl3flow.io.fits_products import find_named_table
from dl3flow.io.skymaps import wcs_header

_COLUMNS = ("SHAPE", "X", "Y", "R", "ROTANG", "COMPONENT")


def spectrum_hdus(name: str, values: Map, region: str | None = None) -> list[fits.BinTableHDU]:
    """Three tables of one map on a region.

    Parameters
    ----------
    name : str
    values : Map on a RegionGeometry
    region : str, optional
        DS9 text of the region to write; default that of the map. Empty is none.
    """
    axes = values.axes[::-1]
    data = values.data.astype(bool) if values.data.dtype == np.uint8 else values.data.astype(float)
    n_rows, *inner = data.shape
    size = int(np.prod(inner))
    code = "L" if data.dtype == bool else "D"
    columns = [
        fits.Column("CHANNEL", "J", array=np.arange(n_rows)),
        fits.Column(
            "DATA",
            f"{size if size > 1 else ''}{code}",
            values.unit.to_string("fits") or None,
            dim=str(tuple(inner[::-1])).replace(" ", ""),
            array=data,
        ),
    ]
    table = fits.BinTableHDU.from_columns(columns, name=name)
    table.header.update(axis_keys(axes))
    text = values.geom.text if region is None and isinstance(values.geom, RegionGeometry) else region
    places = [region_hdu(f"{name}_REGION", text)] if text else []
    return [table, bands_hdu(f"{name}_BANDS", axes), *places]


def region_hdu(name: str, text: str) -> fits.BinTableHDU:
    """Table of the shapes of DS9 region text.

    Raises
    ------
    InputError
        If the text has no region, or one that FITS has no word for.
    """
    table, pixels = shape_table(text)
    hdu = fits.table_to_hdu(table)
    hdu.name = name
    hdu.header.update(wcs_header(pixels))
    hdu.header["WCSSHAPE"] = f"({pixels.shape[1]},{pixels.shape[0]})"
    return hdu


def read_region(hdus: fits.HDUList, name: str, path: Path) -> str:
    """DS9 text of the region in a table of shapes.

    Raises
    ------
    InputError
        If the table is missing or makes no sense.
    """
    where = f"{path}: HDU {name}"
    hdu = find_named_table(hdus, name, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(hdu.header, naxis=2).celestial
        except (WcsError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{where}: its WCS keywords cannot be understood ({str(error).splitlines()[0]})"
            ) from None
    if not wcs.has_celestial:
        raise InputError(f"{where}: has no celestial WCS, so its shapes have no place on the sky")
    table = QTable()
    for column in hdu.columns.names:
        if column.upper() not in _COLUMNS:
            raise InputError(f"{where}: the column '{column}' is not one of a region ({', '.join(_COLUMNS)})")
        values = raw_column(hdu, column, where)
        unit = str(hdu.columns[column].unit or "")
        if column.upper() in ("X", "Y", "R") and unit not in ("", "pix", "pixel"):
            raise InputError(f"{where}: the column '{column}' has the unit '{unit}', expected pixels")
        table[column.upper()] = values * u.deg if column.upper() == "ROTANG" else values
    return text_of_shapes(table, wcs, where)


def read_spectrum(
    hdus: fits.HDUList, name: str, path: Path, geom: RegionGeometry, expected: tuple[str, ...] | None
) -> Map:
    """Values of one spectrum HDU, on the region that the caller knows.

    Raises
    ------
    InputError
        If the HDU is missing, damaged, or on other axes.
    """
    where = f"{path}: HDU {name}"
    table = find_named_table(hdus, name, path)
    data = number_or_bool(table, "DATA", where)
    axes = read_axes(
        find_named_table(hdus, f"{name}_BANDS", path),
        data.shape if data.ndim > 2 else (*data.shape[:1], 1, 1),
        f"{path}: HDU {name}_BANDS",
    )
    if expected is not None and tuple(axis.name for axis in axes) != expected:
        raise InputError(
            f"{where}: has the axes {[a.name for a in axes]}, expected {list(expected)}: make the file again"
        )
    shape = (*(axis.n_bins for axis in axes), 1, 1)
    if data.size != np.prod(shape):
        raise InputError(
            f"{where}: has {data.size} values, its axes {[a.n_bins for a in axes]} bins: make it again"
        )
    text = str(next(c.unit for c in table.columns if c.name.upper() == "DATA") or "").strip()
    try:
        unit = u.Unit(text)
    except ValueError:
        raise InputError(
            f"{where}: the unit '{text}' of DATA is not known: correct it, such as 'm2 s'"
        ) from None
    return Map(geom, axes, data.reshape(shape).astype(float), unit)


def number_or_bool(table: fits.BinTableHDU, column: str, where: str) -> np.ndarray:
    """Values of one column of numbers or of true and false.

    Raises
    ------
    InputError
        If it is absent or holds something else.
    """
    values: Any = raw_column(table, column, where)
    return values if values.dtype.kind == "b" else number_column(table, column, where)
