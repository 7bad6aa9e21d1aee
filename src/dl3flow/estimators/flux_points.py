"""Estimator ``flux_points``: the flux of one source in energy bins, with errors and upper limits."""

from collections.abc import Sequence

from astropy.table import QTable

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.estimators.norms import (
    Sigmas,
    find_source,
    norm_row,
    point_meta,
    reference_columns,
    selected_bins,
    snapped_edges,
)
from dl3flow.estimators.registry import TABLES
from dl3flow.geometry.axis import EnergyAxis


@TABLES.register()
def flux_points(
    datasets: Sequence[Dataset],
    result: FitResult,
    *,
    source: str,
    energy: EnergyAxis,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
) -> FluxPoints:
    """Fit the norm of a source's best-fit spectrum in bins of reconstructed energy, all else fixed at the best fit.

    Parameters
    ----------
    datasets : sequence of Dataset
        Those of the fit; each bin joins them all.
    result : FitResult
    source : str
    energy : Axis
        Wanted edges; each is moved to the nearest edge of the data.
    n_sigma, n_sigma_ul : float
        Of the asymmetric errors and of the upper limits.

    Returns
    -------
    points : FluxPoints

    Raises
    ------
    InputError
        If the fit has no such source, or the bins do not overlap the data.
    """
    found = find_source(result, source, "estimator flux_points")
    edges = snapped_edges(datasets[0].energy, energy.edges)
    bins = [(d, selected_bins(d, result.models, found)) for d in datasets]
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        parts = [of(d.mask & d.energy.contains_bin(low, high)[:, None, None]) for d, of in bins]
        rows.append(norm_row(parts, n_sigma, n_sigma_ul))
    table = QTable(
        {**reference_columns(found, edges[:-1], edges[1:]), **{k: [r[k] for r in rows] for k in rows[0]}}
    )
    return FluxPoints(table, point_meta(source, n_sigma, n_sigma_ul, edges, energy.edges))
