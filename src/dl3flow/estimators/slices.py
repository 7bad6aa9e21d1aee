"""Slices of the data in time or phase: measured one by one, fitted alone and in Bayesian blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Annotated, Any

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.slices import Band, Slice
from dl3flow.errors import InputError, choices
from dl3flow.estimators.norms import (
    all_energies,
    lost_energies,
    norm_row,
    reference_columns,
    selected_bins,
    snapped_edges,
)
from dl3flow.geometry.axis import Axis, parse_energy_edges
from dl3flow.kernels.blocks import best_blocks, false_alarm_penalty
from dl3flow.kernels.norm import Bins, ExpectedBins, Groups, MeasuredBins
from dl3flow.kernels.statistics import wstat_background
from dl3flow.models.source import Models, Source

_GRID, _FEW = 300, 100
_MOST_NAMES = 8
_NO_ROW: Mapping[str, Any] = {
    **dict.fromkeys(
        ("norm", "norm_err", "norm_errn", "norm_errp", "norm_ul", "ts", "sqrt_ts", "npred", "npred_excess"),
        np.nan,
    ),
    **dict.fromkeys(("counts", "stat", "stat_null"), np.nan),
    "is_ul": True,
    "success": False,
}


def _bands(entry: Any) -> Axis:
    """Edges of energy bands: an axis, or one band from ``min`` to ``max``."""
    is_one = isinstance(entry, Mapping) and set(entry) == {"min", "max"}
    return Axis("energy", parse_energy_edges({**entry, "nbin": 1} if is_one else entry), "log")


EnergyBands = Annotated[Axis, _bands]


def source_of(models: Models, name: str, where: str) -> Source:
    """Source of that name.

    Raises
    ------
    InputError
        Listing the sources if there is none.
    """
    for source in models.sources:
        if source.name == name:
            return source
    raise InputError(
        f"{where}: no source '{name}' in the models {choices(name, [s.name for s in models.sources])}"
    )


def measure_slice(
    label: str,
    datasets: Sequence[Dataset],
    models: Models,
    source: str,
    energy: Axis | None = None,
    ends: tuple[float, float] | None = None,
) -> Slice:
    """What the datasets of one bin say about the strength of a source, all else as in the models.

    The strength is that of its spectrum alone: its temporal model is left out, whose factor would else be missing in the
    flux of the bin.

    Parameters
    ----------
    label : str
    datasets : sequence of Dataset
        At least one.
    models : Models
        At the best fit, or as they stand.
    source : str
    energy : Axis, optional
        Wanted edges of the bands, each moved to the nearest edge of the first dataset; one band of all energies of all
        datasets by default.
    ends : (float, float), optional
        Of the bin; those of the good times by default, MJD (TT).

    Returns
    -------
    measured : Slice
        Its warnings name the datasets with energy bins in no band.

    Raises
    ------
    InputError
        If there is no such source, the energies do not overlap those of the data, or a dataset has no good times.
    """
    found = replace(source_of(models, source, "light curve"), temporal=None)
    edges = all_energies(datasets) if energy is None else snapped_edges(datasets[0].energy, energy.edges)
    parts: list[list[Bins]] = [[] for _ in edges[1:]]
    sums = np.zeros((len(parts), 3))
    for dataset in datasets:
        select = selected_bins(dataset, models, found)
        for k in range(len(parts)):
            keep = dataset.mask & dataset.energy.contains_bin(edges[k], edges[k + 1])[:, None, None]
            bins = select(keep)
            is_seen = bins.s > 0
            parts[k].append(_chosen(bins, is_seen))
            sums[k] += _beside(_chosen(bins, ~is_seen))
    low, high = good_times(datasets) if ends is None else ends
    bands = tuple(
        Band(edges[k : k + 2], tuple(own), *(float(value) for value in sums[k]))
        for k, own in enumerate(parts)
    )
    livetime = sum(float(dataset.meta.get("livetime", np.nan)) for dataset in datasets) * u.s
    names = tuple(d.name for d in datasets)
    return Slice(label, low, high, bands, names, livetime, warnings=tuple(lost_energies(datasets, edges)))


def _chosen(bins: Bins, kept: np.ndarray) -> Bins:
    return type(bins)(*(getattr(bins, f.name)[kept] for f in fields(bins)))


def _beside(bins: Bins) -> np.ndarray:
    """Counts, expectation and statistic of bins without signal."""
    if not len(bins.n):
        return np.zeros(3)
    expected = bins.b
    if isinstance(bins, MeasuredBins):
        measured = bins.alpha > 0
        alpha = np.where(measured, bins.alpha, 1.0)
        expected = bins.b + np.where(
            measured, alpha * wstat_background(bins.n, bins.n_off, alpha, bins.b), 0.0
        )
    return np.array([bins.n.sum(), expected.sum(), bins.stat(0.0)])


def good_times(datasets: Sequence[Dataset]) -> tuple[float, float]:
    """Begin of the first and end of the last good time, MJD (TT).

    Raises
    ------
    InputError
        If a dataset has none.
    """
    ends = []
    for dataset in datasets:
        gti = dataset.gti
        if not len(gti.start):
            raise InputError(
                f"estimator light_curve: dataset '{dataset.name}' has no good time intervals, so its times are not known: take a "
                "fit without it"
            )
        ends += [float((gti.reference + t).tt.mjd) for t in (gti.start.min(), gti.stop.max())]
    return min(ends), max(ends)


def ordered(slices: Sequence[Slice]) -> list[Slice]:
    """Slices in the order of their ends, those whose ends are not known last; none is left without a failure or the common bands.

    Raises
    ------
    InputError
        With the first reason, if all have failed.
    """
    usable = [each for each in slices if not each.failure]
    if not usable:
        why = f", such as {slices[0].label}: {slices[0].failure}" if slices else ""
        raise InputError(f"none of the {len(slices)} bins has a result{why}")
    n_bands = max(len(each.bands) for each in usable)
    alike = [
        each
        if each.failure or len(each.bands) == n_bands
        else replace(
            each,
            bands=(),
            failure=f"its energy axis has {len(each.bands)} of the {n_bands} energy bands: give all reductions the same `energy`",
        )
        for each in slices
    ]
    return sorted(alike, key=lambda each: (np.isnan(each.low), each.low, each.high, each.label))


def slice_warnings(slices: Sequence[Slice]) -> list[str]:
    """A sentence for each slice without a result, and for each thing that slices have to say, with their names."""
    failures = [f"the bin {each.label} has no result: {each.failure}" for each in slices if each.failure]
    noted: dict[str, list[str]] = {}
    for each in slices:
        for text in each.warnings:
            noted.setdefault(text, []).append(each.label)
    return [*failures, *(f"{_named(labels)}: {text}" for text, labels in noted.items())]


def unseen_slices(slices: Sequence[Slice], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for the slices that were measured and have no flux in some of the `slice_rows`."""
    n_bands = len(rows) // len(slices)
    lost = [
        sum(not row["success"] for row in rows[k * n_bands : (k + 1) * n_bands]) for k in range(len(slices))
    ]
    told = []
    for is_whole, where in ((True, ""), (False, " in some energy bands")):
        labels = [
            each.label
            for each, n in zip(slices, lost, strict=True)
            if n and not each.failure and (n == n_bands) == is_whole
        ]
        told += [f"{_named(labels)}: no data see the source{where}, so there is no flux"] * bool(labels)
    return told


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMES} more" if len(labels) > _MOST_NAMES else ""
    return f"bin{'s' if len(labels) > 1 else ''} {', '.join(labels[:_MOST_NAMES])}{more}"


def joined(slices: Sequence[Slice]) -> Slice:
    """Slices taken together as one."""
    usable = [each for each in slices if not each.failure]
    bands = tuple(
        Band(
            group[0].edges,
            tuple(part for band in group for part in band.parts),
            sum(band.counts for band in group),
            sum(band.expected for band in group),
            sum(band.stat for band in group),
        )
        for group in zip(*(each.bands for each in usable), strict=True)
    )
    names = dict.fromkeys(name for each in usable for name in each.datasets)
    livetime = sum(each.livetime.to_value(u.s) for each in usable) * u.s
    label = usable[0].label if len(usable) == 1 else f"{usable[0].label} to {usable[-1].label}"
    low, high = min(each.low for each in usable), max(each.high for each in usable)
    return Slice(label, low, high, bands, tuple(names), livetime)


def slice_rows(
    slices: Sequence[Slice], source: Source, n_sigma: float, n_sigma_ul: float
) -> list[dict[str, Any]]:
    """Rows of a table: one per slice and energy band, in this order; NaN and ``success`` False for a slice that has failed."""
    bands = next(each.bands for each in slices if not each.failure)
    rows = []
    for each in slices:
        for k, like in enumerate(bands):
            band = like if each.failure else each.bands[k]
            columns = reference_columns(source, band.edges[:1], band.edges[1:])
            row = dict(_NO_ROW) if each.failure else _fitted(band, n_sigma, n_sigma_ul)
            rows.append(
                {
                    "low": each.low,
                    "high": each.high,
                    **{name: value[0] for name, value in columns.items()},
                    **row,
                    "livetime": each.livetime,
                    "dataset": ", ".join(each.datasets),
                }
            )
    return rows


def _fitted(band: Band, n_sigma: float, n_sigma_ul: float) -> dict[str, Any]:
    parts = [part for part in band.parts if len(part.n)] or [ExpectedBins(*[np.zeros(0)] * 3)]
    row = norm_row(parts, n_sigma, n_sigma_ul)
    return {
        **row,
        "counts": row["counts"] + band.counts,
        "npred": row["npred"] + band.expected,
        "stat": row["stat"] + band.stat,
        "stat_null": row["stat_null"] + band.stat,
    }


def find_blocks(slices: Sequence[Slice], rows: Sequence[Mapping[str, Any]], p0: float) -> list[list[int]]:
    """Bayesian blocks of slices that have a result.

    Parameters
    ----------
    slices : sequence of Slice
        In order of time.
    rows : sequence of mapping
        Of `slice_rows`.
    p0 : float
        Probability to cut a constant light curve.

    Returns
    -------
    blocks : list of list of int
        Places of the slices of each block.
    """
    n_bands = len(rows) // len(slices)
    norms = np.array([row["norm"] for row in rows]).reshape(len(slices), n_bands)
    usable = [k for k in range(len(slices)) if not slices[k].failure and np.isfinite(norms[k]).all()]
    if len(usable) < 2:
        return [usable] if usable else []
    grids, stats = [], []
    for band in range(n_bands):
        own = norms[usable, band]
        few = np.quantile(own, np.linspace(0, 1, _FEW))
        # the best strength of any block lies between those of its bins
        grid = np.sort(np.concatenate([np.linspace(own.min(), own.max(), _GRID), few]))
        groups = _groups([slices[k].bands[band].parts for k in usable])
        at = [sum((g.stat(np.full(len(usable), c)) for g in groups), np.zeros(len(usable))) for c in grid]
        grids.append(grid)
        stats.append(np.array(at).T)
    starts = best_blocks(np.stack(stats), np.stack(grids), false_alarm_penalty(p0, len(usable)))
    ends = [*starts[1:], len(usable)]
    return [usable[low:high] for low, high in zip(starts, ends, strict=True)]


def _groups(parts: Sequence[Sequence[Bins]]) -> list[Groups]:
    """Bins of several slices, shared among them."""
    found: list[Groups] = []
    for kind in (ExpectedBins, MeasuredBins):
        own = [(bins, k) for k, each in enumerate(parts) for bins in each if isinstance(bins, kind)]
        if own:
            columns = [np.concatenate([getattr(bins, f.name) for bins, _ in own]) for f in fields(kind)]
            group = np.repeat([k for _, k in own], [len(bins.n) for bins, _ in own])
            found.append(kind(*columns).grouped(group, len(parts)))
    return found
