"""Norm of one source in a slice of the data, all else fixed: what flux points and light curves share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import astropy.units as u
import numpy as np
from scipy.special import chdtr

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData, OffCounts
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError, choices
from dl3flow.fit.binding import bind
from dl3flow.fit.npred import predict_counts, response_model
from dl3flow.geometry.axis import Axis
from dl3flow.kernels.integrate import gauss_legendre_bins
from dl3flow.kernels.norm import Bins, ExpectedBins, MeasuredBins, fit_norm
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


Sigmas = Annotated[float, _positive]


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


def selected_bins(dataset: Dataset, models: Models, source: Source) -> Callable[[np.ndarray], Bins]:
    """What `norm_row` fits, for any choice of a dataset's bins: a function of a bool array of the shape of the counts."""
    others = replace(models, sources=tuple(s for s in models.sources if s.name != source.name))
    signal, background = predict_counts(dataset, replace(models, sources=(source,)))
    known, _ = predict_counts(dataset, others)
    counts = dataset.counts.data
    if isinstance(dataset.background, OffCounts):
        response = response_model(dataset.name, models)
        factor = 1.0 if response is None else response.scale["background_scale"].value
        n_off, alpha = dataset.background.counts.data, dataset.background.alpha * factor
        return lambda keep: MeasuredBins(counts[keep], signal[keep], known[keep], n_off[keep], alpha[keep])
    other = background + known
    return lambda keep: ExpectedBins(counts[keep], signal[keep], other[keep])


def norm_row(parts: Sequence[Bins], n_sigma: float, n_sigma_ul: float) -> dict[str, Any]:
    """Columns of a table row from the chosen bins of each dataset.

    Returns
    -------
    row : dict
        norm, norm_err, norm_errn, norm_errp, norm_ul, ts, sqrt_ts, npred, npred_excess, counts, stat, stat_null, is_ul,
        success.
    """
    found = fit_norm(parts, n_sigma, n_sigma_ul)
    excess = found.norm * sum(float(part.s.sum()) for part in parts)
    background = sum(_background(part, found.norm) for part in parts)
    ts = max(found.ts, 0.0)
    return {
        "norm": found.norm,
        "norm_err": found.err,
        "norm_errn": found.errn,
        "norm_errp": found.errp,
        "norm_ul": found.ul,
        "ts": ts,
        "sqrt_ts": float(np.sign(found.norm) * np.sqrt(ts)),
        "npred": float(excess + background),
        "npred_excess": float(excess),
        "counts": float(sum(part.n.sum() for part in parts)),
        "stat": found.stat,
        "stat_null": found.stat_null,
        "is_ul": not (ts >= TS_LIMIT and found.norm > 0),
        "success": bool(np.isfinite(found.norm)),
    }


def profile_columns(
    points: Sequence[Sequence[Bins]], rows: Sequence[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Likelihood profiles of points: the norms of all, and the statistic of each there.

    All points share one list of norms, as the field's tables have it: those up to four errors around each best one, and
    zero. Below zero a prediction may be negative.

    Parameters
    ----------
    points : sequence of sequences of Bins
        Chosen bins of each dataset, per point.
    rows : sequence of dict
        Of `norm_row`.

    Returns
    -------
    columns : dict of arrays, shape (n_points, n_norms)
        norm_scan and stat_scan.
    """
    known = [(r["norm"], e) for r in rows for e in (r["norm_err"], r["norm_errp"]) if np.isfinite(e)]
    around = [norm + k * error for norm, error in known for k in _SCANNED]
    norms = np.unique(np.maximum([0.0, *around], 0.0))
    # norms of several points that nearly coincide say nothing more
    least = _APART * min((error for _, error in known), default=0.0)
    kept = [0.0]
    for norm in norms:
        if norm > kept[-1] + least:
            kept.append(float(norm))
    norms = np.array(kept)
    stat = [[sum(part.stat(c) for part in parts) for c in norms] for parts in points]
    return {"norm_scan": np.tile(norms, (len(points), 1)), "stat_scan": np.array(stat)}


def _background(part: Bins, norm: float) -> float:
    """Expected counts beside the source, the measured background at its best for that norm."""
    if isinstance(part, ExpectedBins):
        return float(part.b.sum())
    measured = part.alpha > 0
    alpha = np.where(measured, part.alpha, 1.0)
    mu_off = wstat_background(part.n, part.n_off, alpha, norm * part.s + part.b)
    return float((part.b + np.where(measured, alpha * mu_off, 0.0)).sum())


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
