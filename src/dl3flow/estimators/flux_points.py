"""Estimator ``flux_points``: the flux of one source in energy bins, with errors and upper limits."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.errors import InputError
from dl3flow.estimators.norms import (
    GroupedCounts,
    Norms,
    Sigmas,
    find_source,
    group_counts,
    norm_rows,
    point_meta,
    profile_columns,
    reference_columns,
    scanned_norms,
    snapped_edges,
    unseen_points,
    with_counts,
)
from dl3flow.estimators.registry import TABLES
from dl3flow.estimators.reoptimized import refit_norm
from dl3flow.geometry.axis import EnergyAxis
from dl3flow.kernels.norm import NormFits
from dl3flow.models.absorption import without_absorption
from dl3flow.models.source import Models, Source


@TABLES.register()
def flux_points(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    energy: EnergyAxis,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
    reoptimize: bool = False,
    profiles: bool = False,
    norms: Norms | None = None,
    deabsorbed: bool = False,
) -> FluxPoints:
    """Fit the norm of a source's best-fit spectrum in bins of reconstructed energy, all else fixed at the best fit.

    Parameters
    ----------
    datasets : sequence of Dataset
        Those of the fit; each point joins their energy bins that lie whole within it. A warning names those that lie
        across an edge.
    result : FitResult
    source : str
    energy : Axis
        Wanted edges; each is moved to the nearest edge of the data.
    n_sigma, n_sigma_ul : float
        Of the asymmetric errors and of the upper limits.
    reoptimize : bool
        True fits the strengths of the other sources and the backgrounds, as far as they were free, anew in each bin: the
        errors and limits hold what they leave open (`refit_norm`).
    profiles : bool
        True adds the likelihood profile of each point, with which others can fit the points as the counts.
    norms : list of float, optional
        Norms of the profiles, which asks for them; by default those up to four errors around each point's.
    deabsorbed : bool
        True gives the flux at the source: reference fluxes are those of the fitted spectrum without its absorption by the
        background light, so that every flux is divided by the transmission.

    Returns
    -------
    points : FluxPoints

    Raises
    ------
    InputError
        If the fit has no such source, the bins do not overlap the data, or the spectrum has no absorption to take out.
    """
    where = "estimator flux_points"
    found = find_source(result, source, where)
    datasets, told = with_counts(datasets)
    if not datasets:
        raise InputError(f"{where}: the fit has flux points only, and no counts to make others of")
    edges = snapped_edges(datasets[0].energy, energy.edges)
    places = [point_of_bins(d, edges) for d in datasets]
    n_points = len(edges) - 1
    parts = [
        group_counts(d, result.models, found, place[:, None, None], n_points)
        for d, place in zip(datasets, places, strict=True)
    ]
    columns = reference_columns(_seen_at_source(found, where) if deabsorbed else found, edges[:-1], edges[1:])
    if reoptimize:
        rows = _refitted(datasets, places, parts, result, found, n_sigma, n_sigma_ul, norms, profiles)
    else:
        rows = norm_rows(parts, n_sigma, n_sigma_ul)
        if profiles or norms is not None:
            rows |= profile_columns([part.groups for part in parts], rows, norms)
    meta = point_meta(source, n_sigma, n_sigma_ul, edges, energy.edges)
    told += [*_straddling(datasets, places, edges), *unseen_points(columns, rows)]
    meta["warnings"] = [*meta["warnings"], *told]
    return FluxPoints(
        QTable({**columns, **rows}), {**meta, "reoptimize": reoptimize, "deabsorbed": deabsorbed}
    )


def point_of_bins(dataset: Dataset, edges: u.Quantity) -> np.ndarray:
    """Number of the point in which each energy bin of a dataset lies whole; -1 for none."""
    place = np.full(dataset.energy.n_bins, -1)
    for k, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        place[dataset.energy.contains_bin(low, high)] = k
    return place


def _straddling(datasets: Sequence[Dataset], places: Sequence[np.ndarray], edges: u.Quantity) -> list[str]:
    """A sentence for the datasets whose energy bins lie across the edges of points, and are in none of them."""
    told = []
    for dataset, place in zip(datasets, places, strict=True):
        inside = dataset.energy.contains_bin(edges[0], edges[-1]) & (place < 0)
        lost = int(np.any(dataset.mask[inside], axis=(1, 2)).sum())
        if lost:
            told.append(f"{dataset.name} ({lost})")
    return [
        f"energy bins that lie across an edge are in no point, of {', '.join(told)}: give all datasets the same energy axis to use them"
    ] * bool(told)


def _seen_at_source(source: Source, where: str) -> Source:
    """The source with its spectrum before any absorption.

    Raises
    ------
    InputError
        If it has none.
    """
    intrinsic = without_absorption(source.spectral)
    if intrinsic is source.spectral:
        raise InputError(
            f"{where}: `deabsorbed` is true, and the spectrum of '{source.name}' ({source.spectral.kind}) has no absorption: multiply "
            "it by `ebl_absorption` in the models, or leave the option out"
        )
    return replace(source, spectral=intrinsic)


def _refitted(
    datasets: Sequence[Dataset],
    places: Sequence[np.ndarray],
    parts: Sequence[GroupedCounts],
    result: FitResult,
    source: Source,
    n_sigma: float,
    n_sigma_ul: float,
    norms: Sequence[float] | None,
    profiles: bool,
) -> dict[str, np.ndarray]:
    """As `norm_rows`, with all else that was free fitted anew in each point."""
    lowest = np.max([part.groups.lowest for part in parts], axis=0)
    signal = np.sum([part.signal for part in parts], axis=0)
    counts = np.sum([part.counts for part in parts], axis=0)
    rows, stats = [], []
    for k in range(len(lowest)):
        here = [
            replace(d, mask_fit=d.mask & (place == k)[:, None, None])
            for d, place in zip(datasets, places, strict=True)
        ]

        def beside(models: Models, here: Sequence[Dataset] = here) -> list[GroupedCounts]:
            return [group_counts(d, models, source, np.zeros((1, 1, 1), dtype=int), 1) for d in here]

        if counts[k] > 0:
            sums = float(lowest[k]), float(signal[k])
            fitted, best, stat = refit_norm(here, result.models, source, *sums, n_sigma, n_sigma_ul)
            found = NormFits(*(np.array([getattr(fitted, f.name)]) for f in fields(fitted)))
            rows.append(norm_rows(beside(best), n_sigma, n_sigma_ul, found))
            stats.append(stat)
        else:
            # the best background of no counts is none, which leaves a norm nowhere to go
            kept = beside(result.models)
            rows.append(norm_rows(kept, n_sigma, n_sigma_ul))
            stats.append(partial(_summed_stat, kept))
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    if profiles or norms is not None:
        at = scanned_norms(columns, norms)
        columns["norm_scan"] = np.tile(at, (len(stats), 1))
        columns["stat_scan"] = np.array([[stat(c) for c in at] for stat in stats])
    return columns


def _summed_stat(parts: Sequence[GroupedCounts], norm: float) -> float:
    return float(sum(part.groups.stat(np.array([norm]))[0] for part in parts))
