"""Estimator ``combined_flux_points``: one spectrum of all instruments of a fit, from their counts and their flux points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData
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
    unseen_points,
)
from dl3flow.estimators.registry import TABLES
from dl3flow.fit.binding import bind, for_dataset
from dl3flow.fit.flux import build_point_flux
from dl3flow.fit.npred import bind_scale, response_model, scale_function
from dl3flow.fit.points import build_points_stat
from dl3flow.geometry.axis import EnergyAxis
from dl3flow.models.source import Models, Source
from dl3flow.units import DNDE, ENERGY

_WHERE = "estimator combined_flux_points"
_MOST_DOUBLINGS = 60
_ERRORS = 5.0
_NOTHING = np.zeros(0)


@TABLES.register()
def combined_flux_points(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    energy: EnergyAxis,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
    profiles: bool = False,
    norms: Norms | None = None,
) -> FluxPoints:
    """Fit the norm of a source's best-fit spectrum in energy bins to all data of a fit together, all else fixed.

    Counts enter with their Poisson likelihood; flux points, which are measured already, as in the fit: by the likelihood
    profile of each point where they have them, else by the square of their distance from the spectrum in units of their
    error. Each datum is compared with the spectrum at its own energy, so that the energies of instruments need not agree.

    Parameters
    ----------
    datasets : sequence of Dataset or FluxPointsData
        A bin of counts or a flux point belongs to the point in which its energy (of a bin: the middle of its logarithm) lies.
    result : FitResult
    source : str
    energy : Axis
        Edges of the points.
    n_sigma, n_sigma_ul : float
        Of the asymmetric errors and of the upper limits.
    profiles : bool
        True adds the likelihood profile of each point.
    norms : list of float, optional
        Norms of the profiles, which asks for them.

    Returns
    -------
    points : FluxPoints
        With a column ``n_datasets``: how many datasets decide a point. ``counts``, ``npred`` and ``npred_excess`` are those of
        counts alone.

    Raises
    ------
    InputError
        If the fit has no such source, or no datum lies within the bins.
    """
    found = find_source(result, source, _WHERE)
    edges, n_points = energy.edges, energy.n_bins
    parts, n_datasets = [], np.zeros(n_points, dtype=int)
    outside: list[str] = []
    for dataset in datasets:
        part, n_data = _grouped(dataset, result.models, found, edges)
        if not n_data.any():
            outside.append(dataset.name)
            continue
        parts.append(part)
        n_datasets += n_data > 0
    if not parts:
        raise InputError(
            f"{_WHERE}: no datum lies between {edges[0]:.4g} and {edges[-1]:.4g}: correct `energy`"
        )
    rows = norm_rows(parts, n_sigma, n_sigma_ul)
    if profiles or norms is not None:
        rows |= profile_columns([part.groups for part in parts], rows, norms)
    columns = reference_columns(found, edges[:-1], edges[1:])
    meta = point_meta(source, n_sigma, n_sigma_ul, edges, None)
    told = [f"no datum of {', '.join(outside)} lies within the bins"] * bool(outside)
    meta["warnings"] = [*meta["warnings"], *told, *unseen_points(columns, rows)]
    meta["datasets"] = [d.name for d in datasets if d.name not in outside]
    return FluxPoints(QTable({**columns, **rows, "n_datasets": n_datasets}), meta)


def _grouped(
    dataset: FitData, models: Models, source: Source, edges: u.Quantity
) -> tuple[GroupedCounts, np.ndarray]:
    """A dataset's data by points, and how many of them see the source in each."""
    n_points = len(edges) - 1
    if isinstance(dataset, Dataset):
        place = _places(dataset.energy.centers, edges)
        part = group_counts(dataset, models, source, place[:, None, None], n_points)
        return part, (part.signal > 0).astype(int)
    points = group_points(dataset, models, source, _places(dataset.energy_ref[dataset.mask], edges), n_points)
    none = np.zeros(n_points)
    return GroupedCounts(points, none, none, lambda norms: none), np.bincount(
        points.group, minlength=n_points
    )


def _places(energy: u.Quantity, edges: u.Quantity) -> np.ndarray:
    """Number of the bin [low, high) that holds each energy, the last one with its upper edge; -1 outside."""
    x, bounds = energy.to_value(ENERGY), edges.to_value(ENERGY)
    found = np.searchsorted(bounds, x, side="right") - 1
    found = np.where(x == bounds[-1], len(bounds) - 2, found)
    return np.where((x >= bounds[0]) & (x <= bounds[-1]), found, -1)


@dataclass(frozen=True, eq=False)
class PointGroups:
    """Flux points shared among groups, each with a norm of its own; a `Groups` for `fit_norms`.

    Attributes
    ----------
    evaluate : function (dnde) -> (stat, slope, curvature)
        Of all points of the dataset.
    kept : int array, shape (m,)
        Places of those that belong to a group, among them.
    reference, others : array, shape (n,)
        Differential flux of the source at norm 1, and of all else, at every point.
    group : int array, shape (m,)
    signal, highest : array, shape (n_groups,)
        See `Groups`; the first in units of which the data tell the norm, one over its error.
    """

    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
    kept: np.ndarray
    reference: np.ndarray
    others: np.ndarray
    group: np.ndarray
    signal: np.ndarray
    highest: np.ndarray

    @property
    def lowest(self) -> np.ndarray:
        """None: a measured flux may be negative."""
        return np.full(len(self.signal), -np.inf)

    def stat(self, c: np.ndarray) -> np.ndarray:
        """See `Groups`."""
        return np.asarray(np.bincount(self.group, self._at(c)[0], len(self.signal)))

    def derivatives(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Groups`."""
        _, slope, curvature = self._at(c)
        reference, n = self.reference[self.kept], len(self.signal)
        first = np.bincount(self.group, slope * reference, n)
        return first, np.bincount(self.group, curvature * reference**2, n)

    def _at(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        norms = np.zeros(len(self.reference))
        norms[self.kept] = c[self.group]
        stat, slope, curvature = self.evaluate(self.others + norms * self.reference)
        return stat[self.kept], slope[self.kept], curvature[self.kept]


def group_points(
    points: FluxPointsData, models: Models, source: Source, place: np.ndarray, n_groups: int
) -> PointGroups:
    """Share flux points among groups.

    Parameters
    ----------
    points : FluxPointsData
    models : Models
    source : Source
        All others keep their flux.
    place : int array
        Group of each used point (those of ``mask``); -1 for none.
    n_groups : int
    """
    energy = points.energy_ref[points.mask].to_value(ENERGY)

    response = response_model(points.name, models)

    def flux(of: Source) -> np.ndarray:
        spectral = bind(of, "spectral", {})
        if response is None:
            return build_point_flux(spectral, energy)(_NOTHING).value
        scales = (bind_scale(response, name, {}) for name in ("energy_scale", "exposure_scale"))
        moved, factor = build_point_flux(spectral, energy, next(scales)), scale_function(next(scales))
        return np.asarray(moved(_NOTHING).value * factor(_NOTHING).value)

    beside = [s for s in models.sources if s.name != source.name and for_dataset(points.name, s.datasets)]
    others = np.sum([np.zeros(len(energy)), *(flux(s) for s in beside)], axis=0)
    reference = flux(source)
    is_seen = for_dataset(points.name, source.datasets) & (reference > 0)
    kept = np.flatnonzero((place >= 0) & is_seen)
    group = place[kept]
    value, errn, errp = (q.to_value(DNDE)[points.mask] for q in (points.dnde, points.errn, points.errp))
    if points.limit is not None and points.limit_error is not None:
        limit, width = (q.to_value(DNDE)[points.mask] for q in (points.limit, points.limit_error))
        is_limit = np.isfinite(limit)
        value, errn, errp = (
            np.where(is_limit, a, b) for a, b in ((limit, value), (width, errn), (width, errp))
        )
    scale = 2 * reference / (errn + errp)
    signal = np.sqrt(np.bincount(group, scale[kept] ** 2, n_groups))
    start = np.full(n_groups, -np.inf)
    np.maximum.at(start, group, ((value - others + _ERRORS * errp) / reference)[kept])
    found = PointGroups(
        build_points_stat(points), kept, reference, others, group, signal, np.where(signal > 0, start, 0.0)
    )
    step = np.where(signal > 0, _ERRORS / np.where(signal > 0, signal, 1.0), 0.0)
    for _ in range(_MOST_DOUBLINGS):
        falls = (signal > 0) & (found.derivatives(found.highest)[0] <= 0)
        if not falls.any():
            break
        found = replace(found, highest=np.where(falls, found.highest + step, found.highest))
        step = 2 * step
    return found
