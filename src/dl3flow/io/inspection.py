"""What a DL3, DL4 or DL5 file holds, as rows of a table."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import Butterfly, FluxPoints, LightCurve, ProductTable
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.region_shapes import unknown_region
from dl3flow.io.datasets_yaml import dataset_type, read_datasets
from dl3flow.io.files import check_regular_file
from dl3flow.io.fits_datasets import read_fits_dataset
from dl3flow.io.fits_files import open_fits
from dl3flow.io.hdf5 import read_dataset, read_failure
from dl3flow.io.hdf5 import read_provenance as read_hdf5_provenance
from dl3flow.io.models_yaml import read_models
from dl3flow.io.ogip import read_ogip
from dl3flow.io.products import read_fit, read_observation_table, read_table
from dl3flow.io.region_files import read_region_file
from dl3flow.io.skymaps import read_sky_map
from dl3flow.io.yaml import read_yaml
from dl3flow.models.source import Models

Rows = list[tuple[str, str]]


def inspect_file(path: Path) -> Rows:
    """What a file holds: a name and a description for each thing.

    Raises
    ------
    InputError
        If the file is missing or damaged, or of no kind that is known.
    """
    path = check_regular_file(Path(path))
    suffixes = {
        ".h5": _of_hdf5,
        ".json": _of_fit,
        ".ecsv": _of_table,
        ".reg": _of_region,
        ".yaml": _of_list,
        ".yml": _of_list,
    }
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    describe: Callable[[Path], Rows] | None = (
        _of_fits if suffix in (".fits", ".fit") else suffixes.get(suffix)
    )
    if describe is None:
        known = ", ".join(sorted({*suffixes, ".fits", ".fits.gz"}))
        raise InputError(
            f"{path}: the ending '{path.suffix}' is of no kind that is known ({known}): name another file"
        )
    return describe(path)


def _of_hdf5(path: Path) -> Rows:
    reason = read_failure(path)
    rows: Rows = (
        [("kind", "no dataset: the observation could not be reduced"), ("reason", reason)]
        if reason is not None
        else _of_dataset(read_dataset(path))
    )
    return [*rows, *_of_provenance(read_hdf5_provenance(path))]


def _of_dataset(dataset: Dataset) -> Rows:
    kind = "spectrum" if isinstance(dataset.geom, RegionGeometry) else "map"
    rows: Rows = [("kind", f"{kind} ({dataset_type(dataset)})"), ("name", dataset.name)]
    rows += [("region" if kind == "spectrum" else "pixels", _geometry(dataset.counts))]
    rows += [("energy", _axis(dataset.energy)), ("energy_true", _axis(dataset.energy_true))]
    mask = dataset.mask
    rows.append(("counts", _totals(dataset.counts.data, mask)))
    match dataset.background:
        case ExpectedCounts(counts):
            rows.append(("background", f"expected, {_totals(counts.data, mask)}"))
        case OffCounts() as off:
            rows.append(("off counts", _totals(off.counts.data, mask)))
            alpha = off.alpha[mask & (off.alpha > 0)]
            rows.append(("alpha", f"{alpha.min():.5g} to {alpha.max():.5g}" if alpha.size else "none"))
            rows.append(("background", f"measured, {_totals(dataset.mu_bkg, mask)}"))
        case None:
            rows.append(("background", "none"))
    exposure = dataset.exposure.quantity
    rows.append(("exposure", f"up to {exposure.max():.5g}" if exposure.size else "none"))
    psf, edisp = dataset.psf, dataset.edisp
    rows.append(("psf", "none" if psf is None else _axis(psf.psf.axes[1])))
    rows.append(
        (
            "edisp",
            "none"
            if edisp is None
            else f"{'kernels' if edisp.is_kernel else 'migra'}, {_axis(edisp.edisp.axes[1])}",
        )
    )
    rows.append(("safe bins", f"{np.count_nonzero(dataset.mask_safe)} of {dataset.mask_safe.size}"))
    if dataset.mask_fit is not None:
        rows.append(("fit bins", f"{np.count_nonzero(mask)} of {mask.size}"))
    if dataset.reasons is not None:
        for name in dataset.reasons.names:
            rows.append((f"dropped by {name}", str(np.count_nonzero(dataset.reasons.dropped(name)))))
    rows.append(("good time", f"{len(dataset.gti.start)} intervals, {dataset.gti.ontime:.6g}"))
    return [*rows, *_of_meta(dataset.meta)]


def _of_meta(meta: Mapping[str, Any]) -> Rows:
    rows: Rows = []
    for name, value in meta.items():
        if name == "warnings":
            rows += [("warning", str(sentence)) for sentence in value]
        elif isinstance(value, Mapping):
            rows += [(f"{name}.{key}", _short(item)) for key, item in value.items()]
        else:
            rows.append((name, _short(value)))
    return rows


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _of_provenance(provenance: Mapping[str, Any]) -> Rows:
    versions = ", ".join(f"{name} {number}" for name, number in dict(provenance.get("versions", {})).items())
    inputs = [
        f"{entry['name']} ({role})"
        for role, files in dict(provenance.get("inputs", {})).items()
        for entry in files
    ]
    return [
        ("made by", f"{provenance.get('step')} with {versions}"),
        ("made from", _short(", ".join(inputs)) or "nothing"),
    ]


def _geometry(map_: Map) -> str:
    if isinstance(map_.geom, RegionGeometry):
        return "not known" if map_.geom == unknown_region() else " ".join(map_.geom.text.split())
    geom = map_.geom
    high, wide = geom.shape
    center = f"({geom.center.spherical.lon.deg:.5g}, {geom.center.spherical.lat.deg:.5g}) deg {geom.frame}"
    return f"{wide} x {high} of {geom.binsz:.4g} deg around {center}, {geom.proj}"


def _axis(axis: Axis) -> str:
    unit = axis.unit.to_string()
    kind = "bins" if axis.nodes is None else "nodes"
    points = axis.edges.value if axis.nodes is None else axis.nodes.value
    return f"{axis.n_bins} {kind}, {points[0]:.5g} to {points[-1]:.5g} {unit}".strip() + f" ({axis.scale})"


def _totals(values: np.ndarray, mask: np.ndarray) -> str:
    return f"{values.sum():.6g}, {values[mask].sum():.6g} in fit bins"


def _of_fits(path: Path) -> Rows:
    with open_fits(path) as hdus:
        names = {hdu.name.upper() for hdu in hdus}
        listed = [(hdu.name or "PRIMARY", _of_hdu(hdu)) for hdu in hdus]
        columns = {c.lower() for hdu in hdus if isinstance(hdu, fits.BinTableHDU) for c in hdu.columns.names}
    if "COUNTS" in names and "EXPOSURE" in names:
        return _of_dataset(read_fits_dataset(path))
    if "SPECTRUM" in names:
        with open_fits(path) as hdus:
            is_on = str(hdus["SPECTRUM"].header.get("HDUCLAS2", "TOTAL")).strip() != "BKG"
        if is_on:
            return _of_dataset(read_ogip(path))
    if {"e_ref", "norm"} <= columns:
        return _of_points(path)
    if names == {"PRIMARY", "REGION", "PROVENANCE"}:
        return _of_region(path)
    if not columns - {"meta", "provenance", "channel"} - _BANDS and any(" x " in text for _, text in listed):
        return _of_maps(path)
    return [("kind", "FITS file"), *listed]


_BANDS = {f"{axis}{end}" for axis in ("energy", "energy_true", "e") for end in ("", "_min", "_max")}


def _of_hdu(hdu: Any) -> str:
    words = [str(hdu.header.get(f"HDUCLAS{n}", "")).strip() for n in (1, 2, 3, 4)]
    kind = f" ({', '.join(word for word in words if word)})" if any(words) else ""
    if isinstance(hdu, fits.BinTableHDU):
        return _short(f"table of {hdu.header['NAXIS2']} rows{kind}: {', '.join(hdu.columns.names)}")
    shape = getattr(hdu, "shape", ())
    return f"image of {' x '.join(str(n) for n in shape[::-1])}{kind}" if shape else f"no data{kind}"


def _of_maps(path: Path) -> Rows:
    found = read_sky_map(path)
    rows: Rows = [("kind", "sky maps")]
    for name, map_ in found.maps.items():
        axes = "".join(f", {axis.name}: {_axis(axis)}" for axis in map_.axes)
        finite = map_.data[np.isfinite(map_.data)]
        values = (
            f"{finite.min():.5g} to {finite.max():.5g} {map_.unit}".strip() if finite.size else "no value"
        )
        rows.append((name, f"{values}; {_geometry(map_)}{axes}"))
    return [*rows, *_of_meta(found.meta)]


def _of_points(path: Path) -> Rows:
    found = read_table(path)
    kinds = {LightCurve: "light curve", FluxPoints: "flux points", Butterfly: "spectrum with its band"}
    kind = found.kind if isinstance(found, ProductTable) else kinds[type(found)]
    rows: Rows = [("kind", f"{kind}, {len(found.table)} rows")]
    for name in found.table.colnames:
        values = found.table[name]
        unit = getattr(values, "unit", None)
        rows.append(
            (name, _short(f"{np.asarray(getattr(values, 'value', values)).tolist()} {unit or ''}".strip()))
        )
    return [*rows, *_of_meta(found.meta)]


def _of_table(path: Path) -> Rows:
    try:
        return _of_points(path)
    except InputError:  # a list of observations is the other kind of table
        rows = read_observation_table(path)
    columns = ", ".join(rows[0]) if rows else "none"
    return [("kind", f"table, {len(rows)} rows"), ("columns", columns)]


def _of_fit(path: Path) -> Rows:
    found = read_fit(path)
    rows: Rows = [("kind", "fit"), ("success", f"{found.success} ({found.message})")]
    rows.append(("stat", f"{found.stat:.6f} in {found.n_bins} bins, {len(found.free)} free parameters"))
    rows += _of_parameters(found.models)
    rows += [(f"{name}, MINOS", f"- {low:.4g} + {high:.4g}") for name, (low, high) in found.minos.items()]
    rows += [(f"profile of {name}", f"{len(p.values)} values") for name, p in found.profiles.items()]
    rows += [
        (f"contour of {' and '.join(c.names)}", f"{c.n_sigma:g} sigma, {len(c.x)} points")
        for c in found.contours
    ]
    rows += [("warning", each) for each in found.minimiser.get("warnings", [])]
    for dataset in found.datasets:
        counts = dataset.counts_per_energy.sum()
        rows.append(
            (
                f"dataset {dataset.name}",
                f"stat {dataset.stat:.6g}, {counts:.6g} counts in {dataset.n_bins} bins",
            )
        )
    return rows


def _of_region(path: Path) -> Rows:
    return [
        ("kind", "regions"),
        *((f"line {n}", line) for n, line in enumerate(read_region_file(path).splitlines(), 1)),
    ]


def _of_list(path: Path) -> Rows:
    content = read_yaml(path)
    if isinstance(content, Mapping) and "components" in content:
        found = read_models(path)
        return [("kind", f"models, {len(found.all)} components"), *_of_parameters(found)]
    return [
        (dataset.name, f"{dataset_type(dataset)}, {dataset.counts.data.sum():.6g} counts")
        for dataset in read_datasets(path)
    ]


def _of_parameters(models: Models) -> Rows:
    return [
        (name, f"{p.value:.6g} {'frozen' if p.frozen else f'+- {p.error:.4g}'} {p.unit}".strip())
        for name, p in models.parameters().items()
    ]
