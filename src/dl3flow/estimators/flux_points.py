"""Estimator ``flux_points``: the flux of one source in energy bins, with errors and upper limits."""

from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.errors import InputError
from dl3flow.estimators.norms import (
    Sigmas,
    find_source,
    group_counts,
    norm_rows,
    point_meta,
    profile_columns,
    reference_columns,
    snapped_edges,
    with_counts,
)
from dl3flow.estimators.registry import TABLES
from dl3flow.geometry.axis import EnergyAxis


@TABLES.register()
def flux_points(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    energy: EnergyAxis,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
    profiles: bool = False,
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
    profiles : bool
        True adds the likelihood profile of each point, with which others can fit the points as the counts.

    Returns
    -------
    points : FluxPoints

    Raises
    ------
    InputError
        If the fit has no such source, or the bins do not overlap the data.
    """
    found = find_source(result, source, "estimator flux_points")
    datasets, told = with_counts(datasets)
    if not datasets:
        raise InputError(
            "estimator flux_points: the fit has flux points only, and no counts to make others of"
        )
    edges = snapped_edges(datasets[0].energy, energy.edges)
    places = [point_of_bins(d, edges) for d in datasets]
    n_points = len(edges) - 1
    parts = [
        group_counts(d, result.models, found, place[:, None, None], n_points)
        for d, place in zip(datasets, places, strict=True)
    ]
    rows = norm_rows(parts, n_sigma, n_sigma_ul)
    columns = {**reference_columns(found, edges[:-1], edges[1:]), **rows}
    if profiles:
        columns |= profile_columns([part.groups for part in parts], rows)
    meta = point_meta(source, n_sigma, n_sigma_ul, edges, energy.edges)
    meta["warnings"] = [*meta["warnings"], *told, *_straddling(datasets, places, edges)]
    return FluxPoints(QTable(columns), meta)


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
