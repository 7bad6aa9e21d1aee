"""GADF instrument responses: one table row to an IrfTable, its axes, shape, units and values checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits

from dl3flow.errors import InputError, choices
from dl3flow.geometry.axis import Axis, Scale
from dl3flow.io.fits_files import number_column, number_key, open_fits, settle, text_key
from dl3flow.irf.table import IrfTable

_BKG_UNIT = u.Unit("s-1 MeV-1 sr-1")
# Share of the positive sum: real files hold small negative values from smoothing (H.E.S.S. areas, dispersions, spreads).
_NEGATIVE = 0.01
_NORM_TOLERANCE = 0.2
_MEAN_MIGRA = 1.5
_EDGE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class AxisColumns:
    """Columns ``<stem>_LO`` and ``<stem>_HI`` of one axis; the first stem that the table has counts."""

    name: str
    stems: tuple[str, ...]
    unit: u.UnitBase
    scale: Scale = "lin"


@dataclass(frozen=True)
class IrfLayout:
    """How a kind of response lies in its table: axes slowest first, as in memory, and data columns with their units."""

    hduclas2: str
    axes: tuple[AxisColumns, ...]
    columns: Mapping[str, u.UnitBase]


_ENERGY_TRUE = AxisColumns("energy_true", ("ENERG", "ETRUE"), u.TeV, "log")
_ENERGY = AxisColumns("energy", ("ENERG",), u.TeV, "log")
_OFFSET = AxisColumns("offset", ("THETA",), u.deg)
_MIGRA = AxisColumns("migra", ("MIGRA",), u.dimensionless_unscaled)
_RAD = AxisColumns("rad", ("RAD",), u.deg)
_FOV_LON = AxisColumns("fov_lon", ("DETX",), u.deg)
_FOV_LAT = AxisColumns("fov_lat", ("DETY",), u.deg)
_ONE, _PER_SR = u.dimensionless_unscaled, u.Unit("sr-1")
_THREE_GAUSS = {
    "SCALE": _PER_SR,
    "SIGMA_1": u.deg,
    "AMPL_2": _ONE,
    "SIGMA_2": u.deg,
    "AMPL_3": _ONE,
    "SIGMA_3": u.deg,
}

LAYOUTS = {
    "aeff_2d": IrfLayout("EFF_AREA", (_ENERGY_TRUE, _OFFSET), {"EFFAREA": u.m**2}),
    "edisp_2d": IrfLayout("EDISP", (_ENERGY_TRUE, _MIGRA, _OFFSET), {"MATRIX": _ONE}),
    "psf_table": IrfLayout("RPSF", (_ENERGY_TRUE, _OFFSET, _RAD), {"RPSF": _PER_SR}),
    "psf_3gauss": IrfLayout("RPSF", (_ENERGY_TRUE, _OFFSET), _THREE_GAUSS),
    "psf_king": IrfLayout("RPSF", (_ENERGY_TRUE, _OFFSET), {"GAMMA": _ONE, "SIGMA": u.deg}),
    "rad_max_2d": IrfLayout("RAD_MAX", (_ENERGY, _OFFSET), {"RAD_MAX": u.deg}),
    "bkg_2d": IrfLayout("BKG", (_ENERGY, _OFFSET), {"BKG": _BKG_UNIT}),
    "bkg_3d": IrfLayout("BKG", (_ENERGY, _FOV_LON, _FOV_LAT), {"BKG": _BKG_UNIT}),
}


def read_irf(hdu: fits.BinTableHDU, where: str, kind: str, warnings: list[str]) -> IrfTable:
    """Response of the given HDU_CLASS from its table.

    Parameters
    ----------
    hdu : BinTableHDU with one row
    where : str
        File and HDU, for messages.
    kind : str
        HDU_CLASS of the index, lower case.
    warnings : list of str
        Sentences are appended about what is suspicious but usable.

    Raises
    ------
    InputError
        For a wrong class, column, unit, axis, shape or value.
    """
    if kind not in LAYOUTS:
        raise InputError(
            f"{where}: responses of the HDU_CLASS '{kind}' cannot be used {choices(kind, LAYOUTS)}"
        )
    layout = LAYOUTS[kind]
    _check_class(hdu.header, kind, layout, where)
    if hdu.header["NAXIS2"] != 1:
        raise InputError(
            f"{where}: a response table has one row, found {hdu.header['NAXIS2']}: write it by GADF"
        )
    axes = tuple(_read_axis(hdu, axis, where) for axis in layout.axes)
    data, units = {}, {}
    for column, unit in layout.columns.items():
        data[column], units[column] = _read_values(hdu, column, unit, axes, where, warnings)
    meta: dict[str, object] = {
        "is_pointlike": text_key(hdu.header, "HDUCLAS3", "", where).upper() == "POINT-LIKE"
    }
    if kind == "aeff_2d":
        meta |= {
            "lo_thres": _threshold(hdu.header, "LO_THRES", where),
            "hi_thres": _threshold(hdu.header, "HI_THRES", where),
        }
    if kind.startswith("bkg"):
        meta["fov_alignment"] = _alignment(hdu.header, kind, where, warnings)
    table = IrfTable(kind, axes, data, units, meta)
    _check_values(table, where, warnings)
    return table


def read_irfs(path: Path) -> dict[str, IrfTable]:
    """Responses of one file, whatever its HDUs are called.

    An HDU is known by its HDUCLAS2 and HDUCLAS4, which may be short (``2D``, ``3D``, ``3GAUSS``), else by its columns.

    Parameters
    ----------
    path : Path

    Returns
    -------
    irfs : dict of IrfTable
        By ``aeff``, ``edisp``, ``psf``, ``bkg`` and ``rad_max``, as the file has them. What was assumed is a list of
        sentences in the ``meta["warnings"]`` of a table.

    Raises
    ------
    InputError
        If the file has no response, two of one kind, or one that is wrong.
    """
    found: dict[str, IrfTable] = {}
    fixed = alignment = None
    with open_fits(path) as hdus:
        for hdu in hdus:
            kind = _kind(hdu) if isinstance(hdu, fits.BinTableHDU) else None
            where = f"{path}: HDU '{hdu.name}'"
            if kind is None:
                if hdu.name == "EVENTS":
                    alignment = producer_alignment(hdu.header, where)
                continue
            name = _name_of(kind)
            if name in found:
                raise InputError(f"{where}: the file has two responses of the kind '{name}': split it")
            settle(hdu, str(path))
            warnings: list[str] = []
            table = read_irf(hdu, where, kind, warnings)
            found[name] = replace(table, meta={**table.meta, "warnings": warnings}) if warnings else table
            fixed = fixed or fixed_rad_max(hdu.header, table, where)
    if fixed is not None:
        found.setdefault("rad_max", fixed)
    if alignment and "bkg" in found:
        found["bkg"] = replace(found["bkg"], meta={**found["bkg"].meta, "fov_alignment": alignment})
    if not found:
        raise InputError(f"{path}: there is no instrument response in this file: name one that holds AEFF_2D")
    return found


def response_kinds(path: Path) -> tuple[dict[str, str], str]:
    """HDU_CLASS of each response of a file by its HDU_TYPE, and the telescope that it names; only headers are read.

    Raises
    ------
    InputError
        If the file has no effective area, or two responses of one kind.
    """
    found: dict[str, str] = {}
    telescope = ""
    with open_fits(path) as hdus:
        for hdu in hdus:
            kind = _kind(hdu) if isinstance(hdu, fits.BinTableHDU) else None
            if kind is None:
                continue
            where, name = f"{path}: HDU '{hdu.name}'", _name_of(kind)
            if name in found:
                raise InputError(f"{where}: the file has two responses of the kind '{name}': split it")
            found[name] = kind
            telescope = telescope or text_key(hdu.header, "TELESCOP", "", where)
            if kind == "aeff_2d" and "RAD_MAX" in hdu.header:
                found.setdefault("rad_max", "rad_max_2d")
    if "aeff" not in found:
        raise InputError(f"{path}: there is no effective area in this file: name one that holds AEFF_2D")
    return found, telescope


def _name_of(kind: str) -> str:
    return "rad_max" if kind == "rad_max_2d" else kind.split("_")[0]


def producer_alignment(header: fits.Header, where: str) -> str | None:
    """Orientation of the background table that a producer is known for, against what its FOVALIGN says.

    The 45 off runs of the first H.E.S.S. data release prefer the reversed longitude by 69 in log-likelihood.
    """
    known = (text_key(header, "CREATOR", "", where), text_key(header, "HDUVERS", "", where))
    return "REVERSE_LON_RADEC" if known == ("SASH FITS::EventListWriter", "0.2") else None


def _kind(hdu: fits.BinTableHDU) -> str | None:
    """Kind of a response by its classes, by its columns where they say too little; None for any other table."""
    columns = {c.name.upper() for c in hdu.columns}
    short = text_key(hdu.header, "HDUCLAS4", "", hdu.name).lower()
    if text_key(hdu.header, "HDUCLAS1", "RESPONSE", hdu.name).upper() != "RESPONSE":
        return None
    if short in LAYOUTS:
        return short
    for kind, layout in LAYOUTS.items():
        values = {"BGD" if name == "BKG" and "BGD" in columns else name for name in layout.columns}
        stems = {axis.stems[0] for axis in layout.axes if axis.name in ("offset", "fov_lon")}
        if values <= columns and {f"{stem}_LO" for stem in stems} <= columns:
            return kind
    return None


def fixed_rad_max(header: fits.Header, aeff: IrfTable, where: str) -> IrfTable | None:
    """Radius of directional cuts that the header of a point-like effective area gives, as a table of one bin.

    Parameters
    ----------
    header : Header
        Of the effective area.
    aeff : IrfTable

    Returns
    -------
    rad_max : IrfTable or None
        ``rad_max_2d`` over the energies and offsets of the area; None if the area is not point-like or has no RAD_MAX.

    Raises
    ------
    InputError
        If RAD_MAX is no angle above 0.
    """
    if aeff.kind != "aeff_2d" or not aeff.meta["is_pointlike"] or "RAD_MAX" not in header:
        return None
    radius = number_key(header, "RAD_MAX", where)
    if not 0 < radius <= 180:
        raise InputError(f"{where}: RAD_MAX must lie between 0 and 180 deg, found {radius:g}")
    energy, offset = (aeff.axis(name).edges[[0, -1]] for name in ("energy_true", "offset"))
    axes = (Axis("energy", energy, "log"), Axis("offset", np.maximum(offset, 0 * u.deg)))
    values = {"RAD_MAX": np.full((1, 1), radius)}
    return IrfTable("rad_max_2d", axes, values, {"RAD_MAX": u.deg}, {"is_pointlike": True})


def _check_class(header: fits.Header, kind: str, layout: IrfLayout, where: str) -> None:
    """Compare HDUCLAS1, 2 and 4, where stated, with the index; older files give only the end of HDUCLAS4 (``3D``)."""
    for key, expected in (("HDUCLAS1", "RESPONSE"), ("HDUCLAS2", layout.hduclas2)):
        found = text_key(header, key, expected, where).upper()
        found = "RPSF" if found == "PSF" else found  # CTA prod5
        if found != expected:
            raise InputError(
                f"{where}: {key} is '{found}', not '{expected}' as for HDU_CLASS '{kind}': correct the index"
            )
    found = text_key(header, "HDUCLAS4", kind, where).lower()
    if not kind.endswith(found) or not found:
        raise InputError(
            f"{where}: HDUCLAS4 is '{found.upper()}', but the index says HDU_CLASS '{kind}': correct the index"
        )


def _threshold(header: fits.Header, key: str, where: str) -> u.Quantity | None:
    if key not in header:
        return None
    value = number_key(header, key, where)
    return value * u.TeV if value > 0 else None


def _alignment(header: fits.Header, kind: str, where: str, warnings: list[str]) -> str:
    found = text_key(header, "FOVALIGN", "", where).upper()
    if not found:
        if kind == "bkg_3d":
            warnings.append(f"{where}: FOVALIGN is missing; RADEC is assumed")
        return "RADEC"
    allowed = ("RADEC", "ALTAZ", "REVERSE_LON_RADEC")
    if found not in allowed:
        raise InputError(f"{where}: FOVALIGN '{found}' is unknown {choices(found, allowed)}")
    return found


def _unit(hdu: fits.BinTableHDU, column: str, expected: u.UnitBase, where: str) -> u.UnitBase | None:
    """Unit of a column; None where the text is unknown."""
    text = next(c.unit for c in hdu.columns if c.name.upper() == column) or ""
    try:
        unit = u.Unit(text)
    except (ValueError, TypeError):
        return None
    if not unit.is_equivalent(expected):
        raise InputError(
            f"{where}: the column '{column}' has the unit '{text}': expected one such as '{expected}'"
        )
    return unit


def _vector(
    hdu: fits.BinTableHDU, column: str, expected: u.UnitBase, where: str
) -> tuple[np.ndarray, u.UnitBase]:
    values = np.ravel(number_column(hdu, column, where)).astype(float)
    unit = _unit(hdu, column, expected, where)
    if unit is None:
        text = next(c.unit for c in hdu.columns if c.name.upper() == column)
        raise InputError(
            f"{where}: the column '{column}' has the unknown unit '{text}': expected one such as '{expected}'"
        )
    return values, unit


def _read_axis(hdu: fits.BinTableHDU, axis: AxisColumns, where: str) -> Axis:
    names = {c.name.upper() for c in hdu.columns}
    stem = next((stem for stem in axis.stems if f"{stem}_LO" in names), axis.stems[0])
    low, unit = _vector(hdu, f"{stem}_LO", axis.unit, where)
    high, high_unit = _vector(hdu, f"{stem}_HI", axis.unit, where)
    high = high if high_unit == unit else high * high_unit.to(unit)
    label = f"{where}: the axis {stem}_LO, {stem}_HI"
    if low.shape != high.shape or not low.size:
        raise InputError(f"{label} has {low.size} lower and {high.size} upper edges: write it again")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError(f"{label} has an edge that is not finite: write it again")
    if axis.scale == "log" and low.min() <= 0:
        raise InputError(f"{label} must be above 0, found {low.min():g}: write it again")
    is_nodes = np.allclose(low, high, rtol=1e-6, atol=1e-9)
    if not (np.diff(low) > 0).all() or (not is_nodes and not (high > low).all()):
        raise InputError(f"{label} does not increase: write it again")
    if is_nodes:
        return Axis.from_nodes(axis.name, low * unit, axis.scale)
    gaps = np.abs(low[1:] - high[:-1]) > _EDGE_TOLERANCE * np.maximum(np.abs(low[1:]), np.diff(low))
    if gaps.any():
        n = int(np.argmax(gaps))
        raise InputError(
            f"{label} has a gap or overlap between {high[n]:g} and {low[n + 1]:g}: bins must touch"
        )
    return Axis(axis.name, np.append(low, high[-1]) * unit, axis.scale)


def _read_values(
    hdu: fits.BinTableHDU,
    column: str,
    expected: u.UnitBase,
    axes: tuple[Axis, ...],
    where: str,
    warnings: list[str],
) -> tuple[np.ndarray, u.UnitBase]:
    names = {c.name.upper() for c in hdu.columns}
    if column == "BKG" and "BKG" not in names and "BGD" in names:  # name in older files
        column = "BGD"
    raw = np.asarray(number_column(hdu, column, where)[0])
    shape = tuple(axis.n_bins for axis in axes)
    if raw.ndim != len(shape) and raw.size == np.prod(shape):  # no TDIM
        raw = raw.reshape(shape[::-1])
    # GADF lists the axes fastest first, so that the array in memory is transposed; some background tables (H.E.S.S.
    # DR1) are stored the other way round, which their shape tells.
    is_bkg = expected == _BKG_UNIT
    if raw.T.shape == shape:
        values = raw.T
    elif is_bkg and raw.shape == shape:
        values = raw
    else:
        raise InputError(
            f"{where}: the column '{column}' has the shape {raw.T.shape}, but its axes have {shape}: write it by GADF"
        )
    text = next(c.unit for c in hdu.columns if c.name.upper() == column) or ""
    if expected == _PER_SR and not text:
        unit: u.UnitBase | None = None
    else:
        unit = _unit(hdu, column, expected, where) if text or not is_bkg else None
    if unit is None and is_bkg:
        warnings.append(
            f"{where}: the column '{column}' has no valid unit ('{text}'); s-1 MeV-1 sr-1 is assumed"
        )
        unit = _BKG_UNIT
    if unit is None:
        raise InputError(
            f"{where}: the column '{column}' has the unknown unit '{text}': expected one such as '{expected}'"
        )
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise InputError(
            f"{where}: {wrong} of {values.size} values of the column '{column}' are not finite: write it again"
        )
    return np.ascontiguousarray(values, dtype=float), unit


def _check_values(table: IrfTable, where: str, warnings: list[str]) -> None:
    """Signs and normalisations that a response of its kind must have."""
    for column, values in table.data.items():
        if -values[values < 0].sum() > _NEGATIVE * values[values > 0].sum():
            raise InputError(
                f"{where}: the column '{column}' has negative values, down to {values.min():g}: write it again"
            )
    first = next(iter(table.data.values()))
    if first.max() <= 0:
        if table.kind.startswith("bkg"):
            warnings.append(f"{where}: the background rate is 0 everywhere")
            return
        raise InputError(
            f"{where}: the column '{next(iter(table.data))}' is 0 everywhere: leave this observation out"
        )
    if table.kind == "edisp_2d":
        _check_dispersion(table, where)
    if table.kind == "psf_table":
        edges = table.axis("rad").edges.to_value(u.rad)
        norm = _median_norm(first @ (np.pi * np.diff(edges**2)) * table.units["RPSF"].to(_PER_SR))
        if abs(norm - 1) > _NORM_TOLERANCE:
            raise InputError(
                f"{where}: the column 'RPSF' integrates over the angle to {norm:.3g} (median), not 1: write it again"
            )


def _check_dispersion(table: IrfTable, where: str) -> None:
    """Norm and mean of migra: both are near 1 in most rows, but not if the axes of the array are confused."""
    axis, values = table.axis("migra"), table.data["MATRIX"]
    centers = axis.centers.to_value("")
    widths = axis.widths.to_value("") if axis.nodes is None else np.gradient(centers)
    # Density per migra; some files (CTA prod5) hold the probability per bin instead. Users normalise either.
    sums = np.tensordot(values, widths, (1, 0))
    density, per_bin = _median_norm(sums), _median_norm(values.sum(axis=1))
    if min(abs(density - 1), abs(per_bin - 1)) > _NORM_TOLERANCE:
        raise InputError(
            f"{where}: the column 'MATRIX' integrates over migra to {density:.3g} (median), not 1: write it again"
        )
    full = sums > 0.5 * density
    mean = float(np.median(np.tensordot(values, widths * centers, (1, 0))[full] / sums[full]))
    if not 1 / _MEAN_MIGRA < mean < _MEAN_MIGRA:
        raise InputError(
            f"{where}: the column 'MATRIX' has the mean migra {mean:.3g} (median), not about 1: correct the order of its axes"
        )


def _median_norm(sums: np.ndarray) -> float:
    """Median over the rows that are not empty: rows below threshold are zero, or sparse, in real files."""
    filled = sums[sums != 0]
    return float(np.median(filled)) if filled.size else 0.0
