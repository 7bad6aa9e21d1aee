"""Norm of one source in a slice of the data, all else fixed: what flux points and light curves share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, TypeVar

import astropy.units as u
import numpy as np
from scipy.special import chdtr

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData, OffCounts
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError, choices
from dl3flow.fit.binding import bind
from dl3flow.fit.npred import alpha_scale, predict_counts
from dl3flow.geometry.axis import Axis
from dl3flow.kernels.integrate import gauss_legendre_bins
from dl3flow.kernels.norm import Bins, ExpectedBins, ExpectedGroups, Groups, MeasuredBins, NormFits, fit_norms
from dl3flow.kernels.statistics import wstat_background
from dl3flow.models.source import Models, Source
from dl3flow.units import DNDE, EFLUX, ENERGY, FLUX

# below this test statistic (two sigma) a point is published as an upper limit
TS_LIMIT = 4.0
# errors from the best norm at which a profile is written
_SCANNED = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
# of the smallest error, between two norms of a profile
_APART = 0.1
# a wanted edge this close to one of the data is the same
_MOVED = 0.01


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ValueError(f"expected a number above 0, found {value!r}")
    return float(value)


def _norms(value: object) -> list[float]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"expected a list of numbers from 0 on, found {value!r}")
    wrong = [v for v in value if isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v < np.inf]
    if wrong:
        raise ValueError(f"expected numbers from 0 on, found {wrong[0]!r}")
    return [float(v) for v in value]


Sigmas = Annotated[float, _positive]
Norms = Annotated[list[float], _norms]


def find_source(result: FitResult, name: str, where: str) -> Source:
    """Source of that name in a fit.

    Raises
    ------
    InputError
        Listing the sources if there is none.
    """
    for source in result.models.sources:
        if source.name == name:
            return source
    raise InputError(
        f"{where}: no source '{name}' in the fit {choices(name, [s.name for s in result.models.sources])}"
    )


def with_counts(datasets: Sequence[FitData]) -> tuple[list[Dataset], list[str]]:
    """Those of a fit's data that are counts, and a sentence that names the flux points beside them."""
    others = [d.name for d in datasets if isinstance(d, FluxPointsData)]
    told = f"only counts make new points: {', '.join(others)} of the fit, flux points themselves, are not in them"
    return [d for d in datasets if isinstance(d, Dataset)], [told] * bool(others)


@dataclass(frozen=True, eq=False)
class GroupedCounts:
    """A dataset's bins shared among groups (points, time bins ...), each of which has a norm of its own.

    Attributes
    ----------
    groups : Groups
        What the fit of the norms needs.
    counts, signal : array, shape (n_groups,)
        Counts, and what is expected of the source at norm 1.
    background : function (norms) -> array, shape (n_groups,)
        Expected beside the source, a measured background at its best for these norms.
    """

    groups: Groups
    counts: np.ndarray
    signal: np.ndarray
    background: Callable[[np.ndarray], np.ndarray]


def group_counts(
    dataset: Dataset, models: Models, source: Source, group: np.ndarray, n_groups: int
) -> GroupedCounts:
    """Share a dataset's fit bins among groups.

    Parameters
    ----------
    dataset : Dataset
    models : Models
        At the best fit; all but the source is kept as it is there.
    source : Source
    group : int array, broadcastable to the shape of the counts
        Number of each bin's group; -1 leaves it out.
    n_groups : int
    """
    shape = dataset.counts.data.shape
    own = np.where(dataset.mask, np.broadcast_to(group, shape), -1).reshape(-1)
    bins = _all_bins(dataset, models, source)
    if isinstance(bins, MeasuredBins):
        kept = np.flatnonzero(own >= 0)
        return _grouped(_chosen(bins, kept), own[kept], n_groups)
    # of the many bins without counts and signal, the sum of what is expected is enough
    kept = np.flatnonzero((own >= 0) & ((bins.n > 0) | (bins.s > 0)))
    expected = np.bincount(own + 1, bins.b, n_groups + 1)[1:]
    few = _chosen(bins, kept)
    rest = expected - np.bincount(own[kept], few.b, n_groups)
    found = _grouped(few, own[kept], n_groups)
    groups = found.groups
    assert isinstance(groups, ExpectedGroups)
    return replace(
        found,
        groups=replace(groups, constant=groups.constant + 2 * rest),
        background=lambda norms: expected,
    )


def selected_bins(dataset: Dataset, models: Models, source: Source) -> Callable[[np.ndarray], Bins]:
    """What `norm_row` fits, for any choice of a dataset's bins: a function of a bool array of the shape of the counts."""
    bins, shape = _all_bins(dataset, models, source), dataset.counts.data.shape

    def selected(keep: np.ndarray) -> Bins:
        at = np.flatnonzero(np.broadcast_to(keep, shape))
        return _chosen(bins, at) if isinstance(bins, ExpectedBins) else _chosen(bins, at)

    return selected


def _all_bins(dataset: Dataset, models: Models, source: Source) -> Bins:
    signal, background = (a.reshape(-1) for a in predict_counts(dataset, replace(models, sources=(source,))))
    others = replace(models, sources=tuple(s for s in models.sources if s.name != source.name))
    counts, known = dataset.counts.data.reshape(-1), None
    if others.sources:
        known = predict_counts(dataset, replace(others, backgrounds=()))[0].reshape(-1)
    if isinstance(dataset.background, OffCounts):
        n_off, alpha = dataset.background.counts.data.reshape(-1), dataset.background.alpha.reshape(-1)
        known = np.zeros(len(counts)) if known is None else known
        return MeasuredBins(counts, signal, known, n_off, alpha * alpha_scale(dataset, models))
    return ExpectedBins(counts, signal, background if known is None else background + known)


_SomeBins = TypeVar("_SomeBins", ExpectedBins, MeasuredBins)


def _chosen(bins: _SomeBins, at: np.ndarray) -> _SomeBins:
    """Bins at some places."""
    return type(bins)(*(getattr(bins, f.name)[at] for f in fields(bins)))


def _grouped(bins: Bins, group: np.ndarray, n_groups: int) -> GroupedCounts:
    counts, signal = (np.bincount(group, values, n_groups) for values in (bins.n, bins.s))
    if isinstance(bins, ExpectedBins):
        expected = np.bincount(group, bins.b, n_groups)
        return GroupedCounts(bins.grouped(group, n_groups), counts, signal, lambda norms: expected)
    measured = bins.alpha > 0
    alpha = np.where(measured, bins.alpha, 1.0)

    def background(norms: np.ndarray) -> np.ndarray:
        mu_off = wstat_background(bins.n, bins.n_off, alpha, norms[group] * bins.s + bins.b)
        values = bins.b + np.where(measured, alpha * mu_off, 0.0)
        return np.asarray(np.bincount(group, values, n_groups))

    return GroupedCounts(bins.grouped(group, n_groups), counts, signal, background)


def norm_row(parts: Sequence[Bins], n_sigma: float, n_sigma_ul: float) -> dict[str, Any]:
    """Columns of one row of a table from the chosen bins of each dataset; see `norm_rows`."""
    grouped = [_grouped(part, np.zeros(len(part.n), dtype=int), 1) for part in parts]
    return {name: values[0].item() for name, values in norm_rows(grouped, n_sigma, n_sigma_ul).items()}


def norm_rows(
    parts: Sequence[GroupedCounts], n_sigma: float, n_sigma_ul: float, fits: NormFits | None = None
) -> dict[str, np.ndarray]:
    """Columns of a table with a row per group, whose norm all datasets have in common.

    Parameters
    ----------
    parts : sequence of GroupedCounts
        One per dataset.
    n_sigma, n_sigma_ul : float
    fits : NormFits, optional
        Norms that were found otherwise.

    Returns
    -------
    columns : dict of array, shape (n_groups,)
        norm, norm_err, norm_errn, norm_errp, norm_ul, ts, sqrt_ts, npred, npred_excess, counts, stat, stat_null, is_ul,
        success. Where no data see the source, its norm and test statistic are NaN.
    """
    found = fit_norms([part.groups for part in parts], n_sigma, n_sigma_ul) if fits is None else fits
    at = np.nan_to_num(found.norm)
    excess = at * np.sum([part.signal for part in parts], axis=0)
    background = np.sum([part.background(at) for part in parts], axis=0)
    is_known = np.isfinite(found.norm)
    ts = np.where(is_known, np.maximum(found.stat_null - found.stat, 0.0), np.nan)
    return {
        "norm": found.norm,
        "norm_err": found.err,
        "norm_errn": found.errn,
        "norm_errp": found.errp,
        "norm_ul": found.ul,
        "ts": ts,
        "sqrt_ts": np.sign(at) * np.sqrt(ts),
        "npred": excess + background,
        "npred_excess": excess,
        "counts": np.sum([part.counts for part in parts], axis=0),
        "stat": found.stat,
        "stat_null": found.stat_null,
        "is_ul": ~((ts >= TS_LIMIT) & (at > 0)),
        "success": is_known,
    }


def profile_columns(
    parts: Sequence[Groups], columns: Mapping[str, np.ndarray], norms: Sequence[float] | None = None
) -> dict[str, np.ndarray]:
    """Likelihood profiles of points: the norms of all, and the statistic of each there.

    All points share one list of norms, as the field's tables have it: those asked for, or those up to four errors around
    each best one, and zero. Below zero a prediction may be negative.

    Parameters
    ----------
    parts : sequence of Groups
        One per dataset.
    columns : mapping of array
        Of `norm_rows`.
    norms : sequence of float, optional

    Returns
    -------
    columns : dict of arrays, shape (n_points, n_norms)
        norm_scan and stat_scan.
    """
    at = scanned_norms(columns, norms)
    n_points = len(columns["norm"])
    stat = [np.sum([part.stat(np.full(n_points, c)) for part in parts], axis=0) for c in at]
    return {"norm_scan": np.tile(at, (n_points, 1)), "stat_scan": np.array(stat).T}


def scanned_norms(columns: Mapping[str, np.ndarray], norms: Sequence[float] | None = None) -> np.ndarray:
    """Increasing norms of `profile_columns`: those asked for, or those around the best ones."""
    if norms is not None:
        return np.asarray(np.unique(norms), dtype=float)
    pairs = [(columns["norm"], columns[name]) for name in ("norm_err", "norm_errp")]
    known = [(n, e) for norms, errors in pairs for n, e in zip(norms, errors, strict=True) if np.isfinite(e)]
    around = [norm + k * error for norm, error in known for k in _SCANNED]
    ordered = np.unique(np.maximum([0.0, *around], 0.0))
    # norms of several points that nearly coincide say nothing more
    least = _APART * min((error for _, error in known), default=0.0)
    kept = [0.0]
    for norm in ordered:
        if norm > kept[-1] + least:
            kept.append(float(norm))
    return np.array(kept)


def reference_columns(source: Source, low: u.Quantity, high: u.Quantity) -> dict[str, u.Quantity]:
    """Energy and reference-flux columns of bins from ``low`` to ``high``, from the source's spectrum.

    Returns
    -------
    columns : dict of Quantity, shape (n,)
        e_ref (geometric mean), e_min, e_max, ref_dnde, ref_flux, ref_eflux, ref_e2dnde.
    """
    spectral = bind(source, "spectral", {})
    e_ref = np.sqrt(low * high).to(ENERGY)

    def spectrum(energy: np.ndarray) -> np.ndarray:
        return np.asarray(spectral.plugin.function(energy, *spectral.start))

    flux, eflux = [], []
    for edges in zip(low.to_value(ENERGY), high.to_value(ENERGY), strict=True):
        # bins of at most a tenth of a decade keep the quadrature exact to rounding for wide energy ranges
        fine = np.geomspace(*edges, max(int(np.ceil(10 * np.log10(edges[1] / edges[0]))), 1) + 1)
        points, weights = gauss_legendre_bins(fine)
        values = spectrum(points)
        flux.append((weights * values).sum())
        eflux.append((weights * values * points).sum())
    dnde = spectrum(e_ref.to_value(ENERGY)) * DNDE
    return {
        "e_ref": e_ref,
        "e_min": low.to(ENERGY),
        "e_max": high.to(ENERGY),
        "ref_dnde": dnde,
        "ref_flux": np.array(flux) * FLUX,
        "ref_eflux": np.array(eflux) * EFLUX,
        "ref_e2dnde": (dnde * e_ref**2).to(EFLUX),
    }


def point_meta(
    source: str, n_sigma: float, n_sigma_ul: float, edges: u.Quantity, wanted: u.Quantity | None
) -> dict[str, Any]:
    """Facts that belong to every table of norms, with a warning where its energies are not those asked for."""
    moved = wanted is not None and (
        len(edges) != len(wanted) or not np.allclose((edges / wanted).to_value(""), 1, rtol=_MOVED)
    )
    listed = ", ".join(f"{edge:.3g}" for edge in edges.to_value(ENERGY))
    warning = f"energies were moved to the nearest edges of the data: {listed} TeV" if moved else ""
    return {
        "source": source,
        "sed_type": "likelihood",
        "n_sigma": n_sigma,
        "n_sigma_ul": n_sigma_ul,
        "ul_conf": round(float(chdtr(1, n_sigma_ul**2)), 6),
        "warnings": [warning] if warning else [],
    }


def unseen_points(columns: Mapping[str, u.Quantity], rows: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence for the points without a norm, by what is missing."""
    low, high = (columns[name].to_value(ENERGY) for name in ("e_min", "e_max"))
    has_flux = columns["ref_dnde"].value > 0
    told = []
    for at, why in (
        (has_flux, "no data see the source, so there is no flux"),
        (~has_flux, "the best fit is not above zero, so nothing can be measured in units of it"),
    ):
        ranges = [f"{low[k]:.3g} to {high[k]:.3g} TeV" for k in np.flatnonzero(~rows["success"] & at)]
        told += [f"{why}, at {', '.join(ranges)}"] * bool(ranges)
    return told


def all_energies(datasets: Sequence[Dataset]) -> u.Quantity:
    """Lowest and highest edge of the energies of all datasets; shape (2,)."""
    ends = u.Quantity([edge for d in datasets for edge in d.energy.edges[[0, -1]]])
    return u.Quantity([ends.min(), ends.max()])


def lost_energies(datasets: Sequence[Dataset], edges: u.Quantity, beyond: bool = False) -> list[str]:
    """A sentence for the datasets that have energy bins in use across an edge of the bands, or ``beyond`` all, which are in none."""
    told = []
    for dataset in datasets:
        ends = (None, None) if beyond else (edges[0], edges[-1])
        inside = dataset.energy.contains_bin(*ends)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside &= ~dataset.energy.contains_bin(low, high)
        lost = int(np.any(dataset.mask[inside], axis=(1, 2)).sum())
        told += [f"{dataset.name} ({lost})"] * bool(lost)
    return [
        f"energy bins that lie across an edge{' or beyond all' if beyond else ''} are in no band, of {', '.join(told)}: give all "
        "datasets the same energy axis to use them"
    ] * bool(told)


def snapped_edges(axis: Axis, wanted: u.Quantity) -> u.Quantity:
    """Edges of ``axis`` nearest (in log energy) to the wanted ones, each once.

    Raises
    ------
    InputError
        If fewer than two are left.
    """
    x = np.log(axis.edges.to_value(ENERGY))
    nearest = np.unique([int(np.argmin(np.abs(x - e))) for e in np.log(wanted.to_value(ENERGY))])
    if len(nearest) < 2:
        raise InputError(
            f"the energies {wanted[0]:.4g} to {wanted[-1]:.4g} do not overlap those of the data, "
            f"{axis.edges[0]:.4g} to {axis.edges[-1]:.4g}: correct `energy`"
        )
    return axis.edges[nearest]
