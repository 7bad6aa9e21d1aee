"""Products of an analysis (DL5) as files, and `write_product`, the one writer through which every step writes.

The content stamp of a product will be made in `dl3flow.io.files`, where that writer lives below the modules that use it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Column, MaskedColumn, QTable, Table

from dl3flow.data.products import (
    Butterfly,
    Contour,
    DatasetStat,
    FitResult,
    FluxPoints,
    LightCurve,
    ProductTable,
    Profile,
)
from dl3flow.errors import InputError, choices
from dl3flow.io.ecsv import REMEDY, as_product_table, read_ecsv, write_product_table
from dl3flow.io.files import read_text, write_product, write_text
from dl3flow.io.fits_files import find_table, open_fits, raw_column
from dl3flow.io.models_yaml import models_to_mapping, parse_models
from dl3flow.io.provenance import Provenance, canonical_json, collect_provenance, finite_or_null
from dl3flow.models.source import Parameter

__all__ = [
    "Provenance",
    "collect_provenance",
    "read_fit",
    "read_flux_points",
    "read_light_curve",
    "read_observation_table",
    "write_fit",
    "write_flux_points",
    "write_light_curve",
    "write_observation_table",
    "write_product",
    "write_table",
    "write_text",
]

FIT_FORMAT = "dl3flow.fit/1"
_HDU = "FLUXPOINTS"
_TIMES = ("time_min", "time_max")
_OF_DATASETS = ("npred", "npred_excess", "counts")  # the field gives these a further axis, the dataset
_SCANS = ("norm_scan", "stat_scan", "dloglike_scan")  # several values per row: the likelihood profile
# Columns without which a table is no flux points, with their units.
_NEEDED = {
    "e_ref": u.TeV,
    "e_min": u.TeV,
    "e_max": u.TeV,
    "ref_dnde": u.Unit("cm-2 s-1 TeV-1"),
    "ref_flux": u.Unit("cm-2 s-1"),
    "ref_eflux": u.Unit("TeV cm-2 s-1"),
    "norm": u.one,
}
_UNKNOWN = (None, None)
_BAND = {"energy": u.TeV, **dict.fromkeys(("dnde", "dnde_errn", "dnde_errp"), _NEEDED["ref_dnde"])}


def write_fit(path: Path, result: FitResult, provenance: Provenance) -> None:
    """Write a fit as JSON (``fit.json``), with its models so that the file stands alone; what is no number is null."""
    content = {
        "format": FIT_FORMAT,
        "success": bool(result.success),
        "message": result.message,
        "stat": float(result.stat),
        "n_bins": result.n_bins,
        "n_free": len(result.free),
        "parameters": [
            {
                "name": name,
                "value": p.value,
                "error": p.error,
                "error_minus": result.minos.get(name, _UNKNOWN)[0],
                "error_plus": result.minos.get(name, _UNKNOWN)[1],
                "unit": p.unit.to_string(),
                "frozen": p.frozen,
                "min": p.min,
                "max": p.max,
            }
            for name, p in result.models.parameters().items()
        ],
        "covariance": {"names": list(result.free), "matrix": np.asarray(result.covariance).tolist()},
        "datasets": [_dataset_entry(dataset) for dataset in result.datasets],
        "minimiser": dict(result.minimiser),
        "profiles": {
            name: {"values": profile.values, "stat": profile.stat}
            for name, profile in result.profiles.items()
        },
        "contours": _contour_entries(result),
        "systematics": [_systematic_entry(*each) for each in result.systematics],
        "models": models_to_mapping(result.models),
        "provenance": provenance.to_mapping(),
    }
    write_text(path, json.dumps(finite_or_null(content), indent=1, allow_nan=False) + "\n")


def _contour_entries(result: FitResult) -> dict[str, list[dict[str, Any]]]:
    """Contours by their pair of parameters, each with its height."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for each in result.contours:
        told = {"names": list(each.names), "n_sigma": each.n_sigma, "x": each.x, "y": each.y}
        entries.setdefault(", ".join(each.names), []).append(told)
    return entries


def _systematic_entry(name: str, datasets: Sequence[str], p: Parameter, pull: float) -> dict[str, Any]:
    prior = p.prior
    told = None if prior is None else {"kind": prior.kind, **prior.values}
    return {
        "name": name,
        "datasets": list(datasets),
        "value": p.value,
        "error": p.error,
        "prior": told,
        "pull": pull,
    }


def _dataset_entry(dataset: DatasetStat) -> dict[str, Any]:
    signal, background = dataset.signal_per_energy, dataset.background_per_energy
    return {
        "name": dataset.name,
        "obs_ids": list(dataset.obs_ids),
        "stat": float(dataset.stat),
        "n_bins": int(dataset.n_bins),
        "counts": float(dataset.counts_per_energy.sum()),
        "npred": float(signal.sum() + background.sum()),
        "npred_signal": float(signal.sum()),
        "npred_background": float(background.sum()),
        "energy_edges": dataset.energy_edges.value.tolist(),
        "energy_unit": dataset.energy_edges.unit.to_string(),
        "counts_per_energy": dataset.counts_per_energy.tolist(),
        "npred_signal_per_energy": signal.tolist(),
        "npred_background_per_energy": background.tolist(),
    }


def read_fit(path: Path) -> FitResult:
    """Read a fit.

    Raises
    ------
    InputError
        If the file is missing, no JSON, of another format, or lacks a part.
    """
    content = _read_json(path)
    found = content.get("format")
    if found != FIT_FORMAT:
        is_newer = str(found).startswith("dl3flow.fit/")
        remedy = "read it with a newer dl3flow" if is_newer else "name the fit.json of a fit"
        raise InputError(f"{path}: the format is {found!r}, expected '{FIT_FORMAT}': {remedy}")
    models = parse_models(_part(content, "models", dict, path), f"{path}: models")
    covariance = _part(content, "covariance", dict, path)
    free = tuple(_part(covariance, "names", list, path))
    matrix = _numbers(_part(covariance, "matrix", list, path), f"{path}: covariance.matrix").reshape(-1)
    if matrix.size != len(free) ** 2:
        raise InputError(
            f"{path}: the covariance has {matrix.size} numbers for {len(free)} parameters: {REMEDY}"
        )
    if unknown := [name for name in free if name not in models.parameters()]:
        raise InputError(f"{path}: the models have no parameter '{unknown[0]}' of the covariance: {REMEDY}")
    stat = _part(content, "stat", (int, float, type(None)), path)
    return FitResult(
        success=_part(content, "success", bool, path),
        message=_part(content, "message", str, path),
        stat=math.nan if stat is None else float(stat),
        models=models,
        free=free,
        covariance=matrix.reshape(len(free), len(free)),
        datasets=tuple(_read_dataset_stat(entry, path) for entry in _part(content, "datasets", list, path)),
        minimiser=_part(content, "minimiser", dict, path),
        minos=_read_minos(_part(content, "parameters", list, path)),
        profiles={
            name: Profile(name, *_read_curve(curve, ("values", "stat"), f"{path}: profile of {name}"))
            for name, curve in content.get("profiles", {}).items()
        },
        contours=tuple(
            Contour(
                (curve["names"][0], curve["names"][1]),
                float(curve["n_sigma"]),
                *_read_curve(curve, ("x", "y"), f"{path}: contour of {pair}"),
            )
            for pair, curves in content.get("contours", {}).items()
            for curve in curves
        ),
    )


def _read_minos(entries: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Errors to both sides, where one was found."""
    found = {}
    for entry in entries:
        sides = [entry.get(key) for key in ("error_minus", "error_plus")]
        if sides != [None, None]:
            minus, plus = (math.nan if side is None else float(side) for side in sides)
            found[str(entry.get("name"))] = (minus, plus)
    return found


def _read_curve(entry: Any, keys: Sequence[str], where: str) -> list[np.ndarray]:
    if not isinstance(entry, dict) or any(key not in entry for key in keys):
        raise InputError(f"{where}: expected {' and '.join(keys)}: {REMEDY}")
    curve = [_numbers(entry[key], where) for key in keys]
    if curve[0].ndim != 1 or curve[0].shape != curve[1].shape:
        raise InputError(f"{where}: {' and '.join(keys)} do not have one number per point: {REMEDY}")
    return curve


def _read_dataset_stat(entry: Any, path: Path) -> DatasetStat:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: an entry of `datasets` is {entry!r}: {REMEDY}")
    name = _part(entry, "name", str, path)
    where = f"{path}: dataset '{name}'"
    columns = ("counts_per_energy", "npred_signal_per_energy", "npred_background_per_energy")
    edges = _numbers(_part(entry, "energy_edges", list, path), f"{where}: energy_edges")
    counts, signal, background = (
        _numbers(_part(entry, key, list, path), f"{where}: {key}") for key in columns
    )
    if not len(counts) == len(signal) == len(background) == len(edges) - 1:
        raise InputError(f"{where}: its spectra do not have one number per energy bin: {REMEDY}")
    stat, n_bins = _part(entry, "stat", (int, float, type(None)), path), _part(entry, "n_bins", int, path)
    energies = edges * u.Unit(_part(entry, "energy_unit", str, path))
    total = math.nan if stat is None else float(stat)
    members = tuple(int(obs_id) for obs_id in entry.get("obs_ids", ()))
    return DatasetStat(name, total, n_bins, energies, counts, signal, background, members)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}), perhaps cut short: {REMEDY}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no mapping of names: {REMEDY}")
    return content


def _part(entry: Mapping[str, Any], key: str, kind: type | tuple[type, ...], path: Path) -> Any:
    if key not in entry:
        raise InputError(f"{path}: the key '{key}' is missing: {REMEDY}")
    value = entry[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{path}: the key '{key}' is {value!r}, not what it should be: {REMEDY}")
    return value


def _numbers(values: Any, where: str) -> np.ndarray:
    try:
        return np.array(values, dtype=float)  # null becomes NaN
    except (ValueError, TypeError):
        raise InputError(f"{where}: expected numbers, found {values!r}: {REMEDY}") from None


AnyTable = FluxPoints | LightCurve | Butterfly | ProductTable


def write_table(path: Path, product: AnyTable, provenance: Provenance) -> None:
    """Write flux points, a light curve or a spectrum's band, as ECSV or FITS by the ending of the name; other tables as ECSV."""
    if isinstance(product, ProductTable):
        write_product_table(path, product, provenance)
        return
    _write_points(path, product.table, product.meta, provenance, is_curve=isinstance(product, LightCurve))


def write_flux_points(path: Path, points: FluxPoints, provenance: Provenance) -> None:
    """Write flux points in the field's columns (``sed_type: likelihood``), as ECSV or FITS by the ending of the name."""
    _write_points(path, points.table, points.meta, provenance, is_curve=False)


def write_light_curve(path: Path, curve: LightCurve, provenance: Provenance) -> None:
    """Write a light curve in the field's columns, times as MJD (TT), as ECSV or FITS by the ending of the name."""
    _write_points(path, curve.table, curve.meta, provenance, is_curve=True)


def read_flux_points(path: Path) -> FluxPoints:
    """Read flux points of ``sed_type`` likelihood.

    Raises
    ------
    InputError
        If the file is damaged, of another kind, or lacks a column or unit.
    """
    points = read_table(path)
    if not isinstance(points, FluxPoints):
        raise InputError(
            f"{path}: expected flux points but it looks like a light curve (columns {', '.join(_TIMES)}): name the other file"
        )
    return points


def read_light_curve(path: Path) -> LightCurve:
    """Read a light curve.

    Raises
    ------
    InputError
        If the file is damaged, of another kind, or lacks a column or unit.
    """
    curve = read_table(path)
    if not isinstance(curve, LightCurve):
        raise InputError(
            f"{path}: expected a light curve but it looks like flux points (no columns {', '.join(_TIMES)}): name the other file"
        )
    return curve


def read_table(path: Path) -> AnyTable:
    """Read flux points, a light curve, a spectrum's band or another estimator's table, whichever the file holds.

    Raises
    ------
    InputError
        If the file is damaged, or lacks a column or unit.
    """
    if Path(path).suffix == ".ecsv" and (found := as_product_table(read_ecsv(path))) is not None:
        return found
    table, meta = _read_points(path)
    if _is_band(table.colnames):
        return Butterfly(table, meta)
    return (
        LightCurve(table, meta) if all(name in table.colnames for name in _TIMES) else FluxPoints(table, meta)
    )


def _is_band(names: Iterable[str]) -> bool:
    return "energy" in names and "e_ref" not in names


def _write_points(
    path: Path, table: QTable, meta: Mapping[str, Any], provenance: Provenance, *, is_curve: bool
) -> None:
    plain = Table()
    n_bands = int(meta.get("n_bands", 1)) if is_curve else 1
    for name in table.colnames:
        values = table[name]
        unit = values.unit if isinstance(values, u.Quantity) else None
        data = np.asarray(values.value if isinstance(values, u.Quantity) else values)
        if is_curve:
            # the field has a row per time, with a value per band of energy
            is_of_time = name in _TIMES or data.dtype.kind == "U"
            data = data[::n_bands] if is_of_time else data.reshape(-1, n_bands)
        if name in _OF_DATASETS:
            data = data[..., np.newaxis]
        plain[name] = Column(data, unit=None if unit == u.dimensionless_unscaled else unit)
    facts = {"SED_TYPE": str(meta.get("sed_type", "likelihood"))}
    if "ul_conf" in meta:
        facts["UL_CONF"] = meta["ul_conf"]
    if is_curve:
        facts.update({"MJDREFI": 0, "MJDREFF": 0.0, "TIMESYS": "tt", "TIMEUNIT": "d"})  # type: ignore[dict-item]
    suffix = Path(path).suffix
    if suffix == ".ecsv":
        plain.meta = {
            **facts,
            "rows": len(plain),
            "facts": finite_or_null(dict(meta)),
            "provenance": provenance.to_mapping(),
        }
        write_product(path, lambda temporary: plain.write(temporary, format="ascii.ecsv"))
    elif suffix == ".fits":
        _write_fits_table(path, plain, facts, meta, provenance)
    else:
        raise InputError(
            f"{path}: cannot write a table to a file ending in '{suffix}': end its name in .ecsv or .fits"
        )


def _write_fits_table(
    path: Path, table: Table, facts: Mapping[str, Any], meta: Mapping[str, Any], provenance: Provenance
) -> None:
    points = fits.table_to_hdu(table)
    points.name = _HDU
    points.header.update(facts)
    texts = {"META": canonical_json(dict(meta)), "PROVENANCE": provenance.to_json()}
    columns = [fits.Column(name, f"{len(text)}A", array=[text]) for name, text in texts.items()]
    hdus = [fits.PrimaryHDU(), points, fits.BinTableHDU.from_columns(columns, name="PROVENANCE")]
    for hdu in hdus:
        hdu.add_checksum(when="of this HDU")  # astropy's default comment is the time
    write_product(path, lambda temporary: fits.HDUList(hdus).writeto(temporary))


def read_points(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Columns by name, and the keywords, of a table of flux points of any SED_TYPE, in FITS or ECSV.

    Raises
    ------
    InputError
        If the file is damaged, or a column has no one value per row or an unknown unit.
    """
    rows, facts, meta = _read_rows(path)
    return rows, {"SED_TYPE": meta["sed_type"], **facts} if "sed_type" in meta else facts


def _read_rows(path: Path) -> tuple[dict[str, Any], Mapping[str, Any], dict[str, Any]]:
    table, facts, meta = _read_ecsv_points(path) if path.suffix == ".ecsv" else _read_fits_points(path)
    n_bands = _bands_per_row(table)
    rows = {name: _flat(table[name], name, len(table), path, n_bands) for name in table.colnames}
    return rows, facts, {**meta, "n_bands": n_bands} if n_bands > 1 else meta


def _bands_per_row(table: Table) -> int:
    """Bands of energy of a light curve; one for any other table."""
    if not len(table) or any(name not in table.colnames for name in (*_TIMES, "norm")):
        return 1
    return max(int(np.size(table["norm"])) // len(table), 1)


def _read_points(path: Path) -> tuple[QTable, dict[str, Any]]:
    path = Path(path)
    rows, facts, meta = _read_rows(path)
    sed_type = str(facts.get("SED_TYPE", meta.get("sed_type", "likelihood")))
    is_band = _is_band(rows)
    if sed_type != "likelihood" and not is_band:
        raise InputError(f"{path}: the sed_type '{sed_type}' is not supported: convert it to 'likelihood'")
    for name in _TIMES if all(name in rows for name in _TIMES) else ():
        rows[name] = (np.asarray(u.Quantity(rows[name]).value) + _reference_day(facts, path)) * u.d
    for name, unit in (_BAND if is_band else _NEEDED).items():
        if name not in rows:
            raise InputError(f"{path}: the column '{name}' is missing: {choices(name, rows)}")
        if not u.Quantity(rows[name]).unit.is_equivalent(unit):
            raise InputError(
                f"{path}: the column '{name}' has the unit '{u.Quantity(rows[name]).unit}', expected one like '{unit}'"
            )
    known = {"sed_type": sed_type, **({"ul_conf": facts["UL_CONF"]} if "UL_CONF" in facts else {})}
    own = meta if set(meta) - {"n_bands"} else {**known, **meta}
    return QTable(rows), own


def _reference_day(facts: Mapping[str, Any], path: Path) -> float:
    if str(facts.get("TIMESYS", "tt")).lower() != "tt" or str(facts.get("TIMEUNIT", "d")) != "d":
        raise InputError(f"{path}: its times are not days of TT (TIMESYS, TIMEUNIT): convert them")
    try:
        return float(facts.get("MJDREFI", 0)) + float(facts.get("MJDREFF", 0))
    except (TypeError, ValueError):
        raise InputError(
            f"{path}: MJDREFI and MJDREFF must be numbers, found {facts.get('MJDREFI')!r}: {REMEDY}"
        ) from None


def _flat(column: Any, name: str, n_rows: int, path: Path, n_bands: int = 1) -> Any:
    """Values of a column without the field's axes: a row per band of energy; dimensionless ones as plain numbers."""
    masked = np.ma.asarray(column)
    # what an ECSV table masks is not known
    data = np.asarray(masked.filled(np.nan) if masked.dtype.kind == "f" else masked)
    if name in _SCANS and n_rows and data.size % n_rows == 0:
        return data.reshape(n_rows, -1)
    if data.size == n_rows < n_rows * n_bands:
        data = np.repeat(data.reshape(n_rows), n_bands)
    if data.size != n_rows * n_bands:
        kept = "one dataset" if n_bands > 1 else "one energy and one dataset"
        raise InputError(f"{path}: the column '{name}' has {data.size} values in {n_rows} rows: keep {kept}")
    data = data.reshape(n_rows * n_bands)
    unit = column.unit
    if isinstance(unit, u.UnrecognizedUnit):
        raise InputError(f"{path}: the column '{name}' has the unknown unit '{unit}': correct it")
    return data if unit is None or unit == u.dimensionless_unscaled else data * u.Unit(unit)


def _read_ecsv_points(path: Path) -> tuple[Table, Mapping[str, Any], dict[str, Any]]:
    table = read_ecsv(path)
    facts = {str(key).upper(): value for key, value in table.meta.items()}
    meta = facts.get("FACTS", {})
    return table, facts, dict(meta) if isinstance(meta, Mapping) else {}


def _read_fits_points(path: Path) -> tuple[Table, Mapping[str, Any], dict[str, Any]]:
    with open_fits(path) as hdus:
        tables = [h for h in hdus if isinstance(h, fits.BinTableHDU)]
        # tables of others often have no name
        only = tables[0] if len(tables) == 1 and not tables[0].name else None
        hdu = find_table(hdus, _HDU, str(path)) if only is None else only
        where = f"{path}: HDU {_HDU}"
        table = Table()
        for column in hdu.columns:
            try:
                unit = u.Unit(column.unit) if column.unit else None
            except ValueError:
                raise InputError(
                    f"{where}: the column '{column.name}' has the unknown unit '{column.unit}': correct it"
                ) from None
            table[column.name] = Column(raw_column(hdu, column.name, where), unit=unit)
        meta: dict[str, Any] = {}
        if "PROVENANCE" in (other.name for other in hdus):
            texts = find_table(hdus, "PROVENANCE", str(path))
            try:
                meta = json.loads(str(raw_column(texts, "META", f"{path}: HDU PROVENANCE")[0]))
            except (json.JSONDecodeError, IndexError):
                raise InputError(f"{path}: HDU PROVENANCE: META is not JSON: {REMEDY}") from None
        return table, dict(hdu.header), meta


def write_observation_table(path: Path, rows: Sequence[Mapping[str, Any]], provenance: Provenance) -> None:
    """Write a list of observations as ECSV: one column per key, in the order in which the keys appear.

    Numbers and booleans that a row lacks are masked, missing texts empty; lists and mappings become JSON text.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table({name: _column_of([row.get(name) for row in rows]) for name in names})
    table.meta = {"rows": len(rows), "provenance": provenance.to_mapping()}
    write_product(path, lambda temporary: table.write(temporary, format="ascii.ecsv"))


def _column_of(values: Iterable[Any]) -> Any:
    found = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in found if value is not None}
    for kind, allowed, fill in ((bool, {bool}, False), (int, {int}, 0), (float, {int, float}, 0.0)):
        if kinds and kinds <= allowed:
            mask = [value is None for value in found]
            data = np.array([fill if value is None else value for value in found], dtype=kind)
            return MaskedColumn(data, mask=mask) if any(mask) else Column(data)
    texts = ["" if v is None else v if isinstance(v, str) else canonical_json(v) for v in found]
    return Column(texts, dtype=str)


def read_observation_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a list of observations; what is masked is None.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    table = read_ecsv(path)
    columns = {name: np.ma.asarray(table[name]).tolist() for name in table.colnames}
    for name, values in columns.items():
        if table[name].dtype.kind == "U":
            columns[name] = ["" if value is None else value for value in values]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
