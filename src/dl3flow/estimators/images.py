"""Images summed over energy and datasets, their correlation with a circle and the significance of what is in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import astropy.units as u
import numpy as np
from scipy.special import chdtr

from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError
from dl3flow.estimators.norms import reference_columns
from dl3flow.estimators.pixels import OffBins, PixelBins
from dl3flow.fit.npred import icrs_positions
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import AWAY, away_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.convolve import circle_kernel, convolve_same
from dl3flow.kernels.counts_interval import CountsInterval, cash_interval, wstat_interval
from dl3flow.kernels.gaussian import fit_gaussian, sums_of_correlation
from dl3flow.kernels.statistics import cash_ts, wstat
from dl3flow.models.source import Source
from dl3flow.reduce.reshape import merged_acceptance_off
from dl3flow.units import ENERGY, FLUX


@dataclass(frozen=True)
class Circle:
    """What is estimated around each pixel.

    Attributes
    ----------
    radius : Quantity
        Of the circle whose pixels are summed.
    correlate_off : bool
        For measured backgrounds: whether off counts and their acceptance are summed over the circle too. False takes
        those of the pixel itself: rings around neighbouring pixels share their events, and a sum counts them many times.
    errors, limits : bool
        Whether to look for the ends of the intervals, and for upper limits.
    n_sigma, n_sigma_ul : float
    """

    radius: u.Quantity
    correlate_off: bool = False
    errors: bool = False
    limits: bool = False
    n_sigma: float = 1.0
    n_sigma_ul: float = 2.0


def common_geometry(geometries: Sequence[SkyGeometry]) -> SkyGeometry:
    """Smallest geometry on the datasets' pixel grid that holds them all."""
    first = geometries[0]
    corners = [g.offset_in(first) for g in geometries]
    rows = (
        min(r for r, _ in corners),
        max(r + g.shape[0] for (r, _), g in zip(corners, geometries, strict=True)),
    )
    columns = (
        min(c for _, c in corners),
        max(c + g.shape[1] for (_, c), g in zip(corners, geometries, strict=True)),
    )
    return first.part(rows, columns)


def summed_image(bins: Sequence[PixelBins], cubes: Sequence[np.ndarray], geom: SkyGeometry) -> np.ndarray:
    """Sum over datasets and energy of each dataset's cube within its mask; shape (n_lat, n_lon)."""
    image = np.zeros(geom.shape)
    for own, cube in zip(bins, cubes, strict=True):
        here, there = geom.overlap(own.geom)
        # without a product with the mask, which would spread what is not finite outside of it
        image[here] += np.add.reduce(cube, axis=0, where=own.mask, initial=0.0)[there]
    return image


def correlated(image: np.ndarray, radius: u.Quantity, binsz: float) -> np.ndarray:
    """Sum of images over the pixels whose centre lies within ``radius`` of each pixel's; shape (..., n_lat, n_lon)."""
    return convolve_same(image, circle_kernel(float(radius.to_value(u.deg)) / binsz))


def significance_maps(
    bins: Sequence[PixelBins], asked: Circle, name: str, reference: Source | None = None
) -> dict[str, Map]:
    """Counts in a circle around each pixel, what is expected there, the excess, its significance and its flux.

    Parameters
    ----------
    bins : sequence of PixelBins
        All with a known background (Cash statistic), or all with a measured one (wstat); at least one with an energy bin.
    asked : Circle
    name : str
        Of the map of expected counts.
    reference : Source or None
        Whose spectrum turns counts into fluxes; None makes no fluxes.

    Returns
    -------
    maps : dict of Map
        counts, ``name``, excess, excess_err (standard deviation), sqrt_ts (signed root of the test statistic against the
        expectation), for measured backgrounds counts_off, acceptance and acceptance_off; on request excess_errn and
        excess_errp, excess_ul (limit from an excess of zero on), and with ``reference`` flux, flux_err, flux_errn, flux_errp,
        flux_ul: flux in the circle, cm-2 s-1, between the lowest and highest edge of the energies. NaN outside all masks,
        and but for counts where a background is measured elsewhere only.

    Raises
    ------
    InputError
        For known and measured backgrounds together.
    """
    is_measured = {isinstance(own.background, OffBins) for own in bins}
    if len(is_measured) > 1:
        raise InputError(
            f"datasets {', '.join(own.name for own in bins)}: some have a known background and some a measured one, whose maps "
            "have no common significance: make a map of each kind, or take `combined_significance`"
        )
    geom = common_geometry([own.geom for own in bins])

    def image(of: Callable[[PixelBins], np.ndarray | None]) -> np.ndarray:
        cubes = [of(own) for own in bins]
        return summed_image(
            bins, [np.zeros(b.mask.shape) if c is None else c for b, c in zip(bins, cubes, strict=True)], geom
        )

    def in_circle(*images: np.ndarray) -> list[np.ndarray]:
        sums = correlated(np.stack([*images, *(each > 0 for each in images)]), asked.radius, geom.binsz)
        total, pixels = sums[: len(images)], sums[len(images) :]
        # the sum of nothing is nothing: the transform leaves noise
        return list(np.where(np.rint(pixels) > 0, np.maximum(total, 0.0), 0.0))

    covered = image(lambda own: own.mask.astype(float)) > 0
    # counts are whole: rounding takes off the noise of the transform
    counts = np.rint(correlated(image(lambda own: own.counts), asked.radius, geom.binsz))
    signal = np.zeros(geom.shape)
    if any(own.signal is not None for own in bins):
        (signal,) = in_circle(image(lambda own: own.signal))
    off: dict[str, np.ndarray] = {}
    if is_measured == {True}:
        off, alpha = _off_in_circle(bins, geom, asked, in_circle)
        # where no background was measured, counts are no excess
        model = np.where(alpha > 0, alpha * off["counts_off"] + signal, np.nan)
        ts = np.where(alpha > 0, wstat(counts, off["counts_off"], alpha, signal), np.nan)
        variance = np.where(alpha > 0, counts + alpha**2 * off["counts_off"], np.nan)
    else:
        (background,) = in_circle(image(lambda own: _expected(own.background)))
        model, alpha = background + signal, np.zeros(geom.shape)
        ts, variance = cash_ts(counts, model), counts
    excess = counts - model
    found = {
        "counts": counts,
        name: model,
        "excess": excess,
        "sqrt_ts": np.sign(excess) * np.sqrt(np.maximum(ts, 0.0)),
        "excess_err": asked.n_sigma * np.sqrt(variance),
        **off,
    }
    if asked.errors or asked.limits:
        usable = covered & (np.isfinite(ts) if not off else alpha > 0)
        interval = _intervals(counts, model, signal, off, alpha, usable, asked)
        ends = {"excess_errn": interval.errn, "excess_errp": interval.errp} if asked.errors else {}
        ends |= {"excess_ul": interval.ul} if asked.limits else {}
        found |= {key: _spread(usable, values) for key, values in ends.items()}
    images = {key: Map(geom, (), np.where(covered, values, np.nan)) for key, values in found.items()}
    return images | (_fluxes(images, bins, geom, asked, reference, covered) if reference is not None else {})


def _expected(background: np.ndarray | OffBins) -> np.ndarray:
    return background.expected if isinstance(background, OffBins) else background


def _off_in_circle(
    bins: Sequence[PixelBins],
    geom: SkyGeometry,
    asked: Circle,
    in_circle: Callable[..., list[np.ndarray]],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Off counts and acceptances summed over energy and datasets, by the rules of a stack, and their alpha."""
    parts = [own.background for own in bins if isinstance(own.background, OffBins)]
    counts, acceptance, acceptance_off, expected = (
        summed_image(bins, cubes, geom)
        for cubes in (
            [b.counts for b in parts],
            [b.acceptance for b in parts],
            [b.acceptance_off for b in parts],
            [b.expected for b in parts],
        )
    )
    acceptance_off = merged_acceptance_off(counts, acceptance, acceptance_off, expected)
    if asked.correlate_off:
        counts, acceptance, acceptance_off = in_circle(counts, acceptance, acceptance_off)
        counts = np.rint(counts)
    else:
        (acceptance,) = in_circle(acceptance)
    has_off = acceptance_off > 0
    alpha = np.where(has_off, acceptance / np.where(has_off, acceptance_off, 1.0), 0.0)
    return {"counts_off": counts, "acceptance": acceptance, "acceptance_off": acceptance_off}, alpha


def _intervals(
    counts: np.ndarray,
    model: np.ndarray,
    signal: np.ndarray,
    off: Mapping[str, np.ndarray],
    alpha: np.ndarray,
    usable: np.ndarray,
    asked: Circle,
) -> CountsInterval:
    """Ends and limits of the excess in the usable pixels, in their order."""
    sigmas = (asked.n_sigma, asked.n_sigma_ul)
    if off:
        return wstat_interval(
            counts[usable], off["counts_off"][usable], alpha[usable], *sigmas, known=signal[usable]
        )
    return cash_interval(counts[usable], model[usable], *sigmas)


def _spread(usable: np.ndarray, values: np.ndarray) -> np.ndarray:
    image = np.full(usable.shape, np.nan)
    image[usable] = np.where(np.isfinite(values), values, np.nan)
    return image


def _fluxes(
    images: Mapping[str, Map],
    bins: Sequence[PixelBins],
    geom: SkyGeometry,
    asked: Circle,
    reference: Source,
    covered: np.ndarray,
) -> dict[str, Map]:
    """Flux of each map of an excess: by the counts that the reference spectrum gives, in the mean of the circle."""
    per_norm = summed_image([own for own in bins], [_reached(own) for own in bins], geom)
    sums = correlated(np.stack([per_norm, covered.astype(float)]), asked.radius, geom.binsz)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums[0] / np.maximum(np.rint(sums[1]), 1.0)
        factor = np.where(
            mean > 1e-12 * np.max(mean, initial=0.0), reference_flux(reference, bins) / mean, np.nan
        )
    return {
        key.replace("excess", "flux"): Map(geom, (), values.data * factor, FLUX)
        for key, values in images.items()
        if key.startswith("excess")
    }


def _reached(own: PixelBins) -> np.ndarray:
    return np.zeros(own.mask.shape) if own.per_norm is None else own.per_norm


def reference_flux(reference: Source, bins: Sequence[PixelBins]) -> float:
    """Flux of a source between the lowest and the highest edge of the bins' energies, cm-2 s-1."""
    axes = [own.energy for own in bins if own.energy.n_bins]
    low, high = min(a.edges[0] for a in axes), max(a.edges[-1] for a in axes)
    columns = reference_columns(reference, u.Quantity([low]), u.Quantity([high]))
    return float(columns["ref_flux"][0].to_value(FLUX))


def band_maps(
    bins: Sequence[PixelBins], edges: u.Quantity, asked: Circle, name: str, reference: Source | None
) -> dict[str, Map]:
    """The same maps in each of several energy bands, on an axis of energy, their names with ``band_`` before them."""
    axis = Axis("energy", edges, "log")
    found = [
        significance_maps([own.within(low, high) for own in bins], asked, name, reference)
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    return {
        f"band_{key}": Map(first.geom, (axis,), np.stack([maps[key].data for maps in found]), first.unit)
        for key, first in found[0].items()
    }


def lost_bins(bins: Sequence[PixelBins], edges: u.Quantity) -> list[str]:
    """A sentence for the datasets that have energy bins in use across an edge of the bands, which are in none of them."""
    told = []
    for own in bins:
        kept = np.zeros(own.energy.n_bins, dtype=bool)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            kept |= own.energy.contains_bin(low, high)
        inside = own.energy.contains_bin(edges[0], edges[-1])
        lost = int((own.mask.any(axis=(1, 2)) & inside & ~kept).sum())
        told += [f"{own.name} ({lost})"] * bool(lost)
    return [
        f"energy bins that lie across an edge are in no band, of {', '.join(told)}: give all datasets the same energy axis to use them"
    ] * bool(told)


def map_meta(
    estimator: str,
    result: FitResult | None,
    radius: u.Quantity,
    sqrt_ts: Map,
    exclusion: RegionGeometry | None,
) -> dict[str, Any]:
    """Facts that belong to every sky map.

    Parameters
    ----------
    estimator : str
    result : FitResult or None
    radius : Quantity
        Of the circle of correlation.
    sqrt_ts : Map
    exclusion : RegionGeometry or None
        Where the significance is not that of the background; by default within 0.3 deg of the fit's sources.

    Returns
    -------
    meta : dict
        Where the sources are (icrs, deg), the circle's radius, and the distribution of significance outside the exclusion:
        mean, width (standard deviation; 1 for a background that is right), number of pixels, where, and ``fit``: mean,
        mean_err, width and width_err of the Gaussian under its core (`fit_gaussian`), n, low, high, or None. The errors are
        those of pixels whose circles overlap.

    Raises
    ------
    InputError
        If the exclusion is a point.
    """
    positions = {} if result is None else icrs_positions(result.models)
    geom = sqrt_ts.sky
    if exclusion is not None and exclusion.is_point:
        raise InputError(f"exclusion: '{exclusion.text}' is a point, which excludes nothing: write a circle")
    usable = away_mask(geom, None if exclusion is None else exclusion.regions, positions)
    where = f"more than {AWAY:g} from sources" if positions else "all pixels"
    where = where if exclusion is None else f"outside {exclusion.text}"
    values = sqrt_ts.data[usable & np.isfinite(sqrt_ts.data)]
    shared = sums_of_correlation(circle_kernel(float(radius.to_value(u.deg)) / geom.binsz))
    fitted = fit_gaussian(values, *shared)
    return {
        "estimator": estimator,
        "source positions": positions,
        "correlation_radius": float(radius.to_value(u.deg)),
        "exclusion": None if exclusion is None else exclusion.text,
        "significance": {
            "where": where,
            "n": len(values),
            "mean": float(values.mean()) if len(values) else None,
            "width": float(values.std()) if len(values) else None,
            "fit": None if fitted is None else asdict(fitted),
        },
    }


def excess_meta(asked: Circle, edges: u.Quantity, reference: str | None) -> dict[str, Any]:
    """Facts of maps of an excess: energies (TeV), meaning of errors and limits, and what fluxes refer to."""
    return {
        "energy": edges.to_value(ENERGY).tolist(),
        "n_sigma": asked.n_sigma,
        "n_sigma_ul": asked.n_sigma_ul,
        "ul_conf": round(float(chdtr(1, asked.n_sigma_ul**2)), 6),
        "reference": reference,
    }
