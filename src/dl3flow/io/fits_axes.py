"""Axes of maps as tables of bands (GADF sky maps): ``AXCOLSn`` names the columns of axis n, ``INTERPn`` its scale."""

from collections.abc import Iterable
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits

from dl3flow.data.maps import Map
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis, Scale
from dl3flow.io.fits_files import number_column, number_key

_COLUMN_PREFIX = {"energy": "E"}
_AXIS_NAMES = {"e": "energy", "energy": "energy", "theta": "rad"}
_EDGE_TOLERANCE = 1e-6


def _columns(axis: Axis) -> tuple[str, str, str]:
    prefix = _COLUMN_PREFIX.get(axis.name, axis.name.upper())
    return axis.name.upper(), f"{prefix}_MIN", f"{prefix}_MAX"


def axis_keys(axes: Iterable[Axis]) -> fits.Header:
    """Keywords that name the columns of axes, the fastest first."""
    header = fits.Header()
    for n, axis in enumerate(axes, start=1):
        center, low, high = _columns(axis)
        header[f"AXCOLS{n}"] = f"{low},{high}" if axis.nodes is None else center
        header[f"INTERP{n}"] = axis.scale
    return header


def have_same_axes(one: Map, other: Map) -> bool:
    """True if one table of bands serves both maps."""
    return len(one.axes) == len(other.axes) and all(
        a.name == b.name
        and a.scale == b.scale
        and a.unit == b.unit
        and np.array_equal(a.edges.value, b.edges.value)
        for a, b in zip(one.axes, other.axes, strict=True)
    )


def bands_hdu(name: str, axes: tuple[Axis, ...]) -> fits.BinTableHDU:
    """Table with one row per band of ``axes``, the first of which varies fastest."""
    numbers = np.indices([axis.n_bins for axis in axes[::-1]]).reshape(len(axes), -1)[::-1]
    columns = [fits.Column("CHANNEL", "K", array=np.arange(numbers.shape[1]))]
    for axis, index in zip(axes, numbers, strict=True):
        values = (axis.centers.value, axis.edges.value[:-1], axis.edges.value[1:])
        unit = axis.unit.to_string("fits") or None
        columns += [
            fits.Column(c, "D", unit, array=v[index]) for c, v in zip(_columns(axis), values, strict=True)
        ]
    table = fits.BinTableHDU.from_columns(columns, name=name)
    table.header.update(axis_keys(axes))
    return table


def read_axes(table: Any, shape: tuple[int, ...], where: str) -> tuple[Axis, ...]:
    """Axes of an array of ``shape`` (axes..., n_lat, n_lon), slowest first, from its table of bands.

    Raises
    ------
    InputError
        If the table has other bands than the array, or makes no sense.
    """
    if not isinstance(table, fits.BinTableHDU):
        raise InputError(f"{where}: is not a table of bands: make the file again")
    sizes = shape[:-2][::-1]
    n_rows = int(number_key(table.header, "NAXIS2", where))
    if n_rows != int(np.prod(sizes)):
        raise InputError(
            f"{where}: has {n_rows} rows for {int(np.prod(sizes))} bands of the image: make it again"
        )
    axes, stride = [], 1
    for n, size in enumerate(sizes, start=1):
        columns = [c.strip() for c in str(table.header.get(f"AXCOLS{n}", "")).split(",") if c.strip()]
        if len(columns) not in (1, 2):
            raise InputError(
                f"{where}: AXCOLS{n} is '{','.join(columns)}', expected one column of nodes or two of edges"
            )
        axes.append(
            _read_axis(
                table, columns, np.arange(size) * stride, str(table.header.get(f"INTERP{n}", "")), where
            )
        )
        stride *= size
    return tuple(axes[::-1])


def _read_axis(
    table: fits.BinTableHDU, columns: list[str], rows: np.ndarray, interp: str, where: str
) -> Axis:
    label = columns[0].removesuffix("_MIN").removesuffix("_LO").lower()
    name = _AXIS_NAMES.get(label, label)
    scale: Scale = (
        "log" if (interp.strip() or ("log" if name.startswith("energy") else "lin")) == "log" else "lin"
    )
    values = [number_column(table, column, where)[rows].astype(float) for column in columns]
    try:
        units = {u.Unit(table.columns[column].unit or "") for column in columns}
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{where}: the unit of column {columns[0]} is not known ({error}): correct TUNIT"
        ) from None
    unit = units.pop()
    if units:
        raise InputError(f"{where}: the columns {' and '.join(columns)} have different units: correct TUNIT")
    if name.startswith("energy") and not unit.is_equivalent(u.TeV):
        raise InputError(
            f"{where}: the column {columns[0]} has the unit '{unit}', not an energy: correct TUNIT"
        )
    if not all(np.isfinite(v).all() and (np.diff(v) > 0).all() for v in values):
        raise InputError(f"{where}: the column {columns[0]} does not increase: make the file again")
    if scale == "log" and values[0][0] <= 0:
        raise InputError(
            f"{where}: the column {columns[0]} begins at {values[0][0]} on a logarithmic axis: set INTERP to lin"
        )
    if len(values) == 1:
        return Axis.from_nodes(name, values[0] * unit, scale)
    low, high = values
    if not np.allclose(low[1:], high[:-1], rtol=_EDGE_TOLERANCE, atol=0) or not (high > low).all():
        raise InputError(
            f"{where}: the bins {columns[0]} to {columns[1]} have gaps or overlap: make the file again"
        )
    return Axis(name, np.append(low, high[-1]) * unit, scale)
