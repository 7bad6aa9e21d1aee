"""Terms of a joint likelihood: what one dataset (or several spectra) adds to it, in a compact form, with derivatives.

For counts n and expectation mu = s + w b, over the bins of the mask (fit.md calls this the sparse form; it is exact):

    f / 2 = sum mu - sum_{n > 0} n ln mu = <D, template> . flux + w . B - sum_{n > 0} n ln mu

The sum of mu is linear in the template, the flux and the background's factors, so that D (the exposure seen backwards
through dispersion, mask and point spread) and B (background per energy) are summed once. Bins with counts outside the
reach of all sources need their number per energy only. wstat has the same form: its bins without on counts are linear.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from dl3flow.fit.flux import Varied, VariedFunction
from dl3flow.fit.npred import ROUNDING
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.convolve import portions, unfolded
from dl3flow.kernels.statistics import TRUNCATION, wstat_background, wstat_derivatives, wstat_slope

# a background's factor below this is taken as this: its logarithm is needed
SMALLEST_WEIGHT = 1e-10
_STEP = 1e-5

Arrays = Mapping[str, np.ndarray]
# of a template, and of its derivatives
Transforms = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FluxSpec:
    """What the flux of one source in the eyes of a dataset is made of; equal ones are computed once for all datasets.

    Attributes
    ----------
    source : str
    energies : tuple of float
        Edges of the true-energy bins, or the energies of flux points, TeV.
    is_points : bool
    response : str
        Name of the `ResponseModel` that scales it; empty for none.
    times : tuple of (start, stop)
        Good time intervals, MJD (TT), of a source that varies in time.
    region : str
        Region of a spectrum of which an extended source fills a share that varies.
    """

    source: str
    energies: tuple[float, ...]
    is_points: bool = False
    response: str = ""
    times: tuple[tuple[float, float], ...] = ()
    region: str = ""


@dataclass(frozen=True)
class TemplateSpec:
    """What a varying template is made of.

    Attributes
    ----------
    source : str
    geom : SkyGeometry
        Pixels of its window.
    factor : int
        Points per pixel and direction.
    energy : tuple of float
        Where the shape depends on it, TeV.
    """

    source: str
    geom: SkyGeometry
    factor: int
    energy: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reach:
    """One source in one term.

    Attributes
    ----------
    flux : FluxSpec
    template : TemplateSpec or None
        None where only its flux varies.
    length : (n_y, n_x)
        Periodic grid of the convolution; unused without a template.
    """

    flux: FluxSpec
    template: TemplateSpec | None = None
    length: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class CountsTerm:
    """Counts of one dataset, or of several spectra alike, in a compact form.

    Attributes
    ----------
    names : tuple of str
        Datasets.
    is_measured : bool
        True for wstat, where off counts measure the background; else Cash.
    is_dense : bool
        True if all bins are held one by one, so that a negative expectation is cut everywhere.
    reaches : tuple of Reach
    weights : tuple of functions
        Factors per energy bin on the parts of the expected background; a single factor on alpha for wstat.
    slots, local : int array
        Entries of the free vector that it depends on, and those of them that nothing else depends on.
    constant : float
        Of f / 2.
    load : function () -> arrays
        ``n`` counts and ``e`` energy bin of each held bin; ``b<k>`` background parts there, ``B<k>`` their sums per energy,
        ``outside`` counts per energy that no source reaches, ``N`` all counts per energy; or ``m`` off counts and ``alpha``. Per reach r: ``v<r>``
        numbers of the bins; with a template ``M<r>`` (n_true, n) dispersion x exposure, ``p<r>`` pixel on the periodic grid,
        ``g<r>`` first bin of each pixel, ``T<r>`` quadrants of the kernels' transforms, ``D<r>`` (n_true, rows, columns); else ``A<r>`` (n_true, n) counts per
        flux and ``L<r>`` (n_true,) their sum over the mask.
    """

    names: tuple[str, ...]
    is_measured: bool
    is_dense: bool
    reaches: tuple[Reach, ...]
    weights: tuple[VariedFunction, ...]
    slots: np.ndarray
    local: np.ndarray
    constant: float
    load: Callable[[], Arrays]


@dataclass(frozen=True, eq=False)
class Shaped:
    """One source's template seen by a dataset: counts per flux in the held bins, and their sums over the mask.

    Attributes
    ----------
    slots : int array, shape (n_spatial,)
    counts : array, shape (1 + n_spatial, n_true, n)
        Of the template, then of its derivatives, if these are wanted.
    sums : array, shape (1 + n_spatial, n_true)
    """

    slots: np.ndarray
    counts: np.ndarray
    sums: np.ndarray


@dataclass(frozen=True, eq=False)
class Measured:
    """f of one term with derivatives over some of its slots.

    Attributes
    ----------
    stat : float
    gradient : array, shape (n,)
    hessian, fisher : array, shape (n, n)
        All second derivatives, and the positive part of them that first derivatives make (Gauss and Newton).
    by_bin : array
        d(f / 2)/d(signal) of the held bins, less the part of the sums.
    n_negative : int
        Bins with counts where a negative flux leaves no expectation.
    """

    stat: float
    gradient: np.ndarray
    hessian: np.ndarray
    fisher: np.ndarray
    by_bin: np.ndarray
    n_negative: int = 0


def shape_reach(
    reach: Reach, number: int, arrays: Arrays, template: tuple[Varied, Transforms] | None
) -> Shaped:
    """Template of one reach through point spread, exposure and dispersion.

    Parameters
    ----------
    reach : Reach
    number : int
        Of the reach in its term.
    arrays : mapping of array
    template : (Varied, transforms) or None
        Fractions, and the transforms on the reach's periodic grid of them, and of their derivatives where those are
        wanted, in single precision: they make second derivatives only.
    """
    if template is None:
        none = np.zeros(0, dtype=int)
        return Shaped(none, arrays[f"A{number}"][None], arrays[f"L{number}"][None])
    fractions, transforms = template
    whole, slopes = transforms
    quadrants, backwards = arrays[f"T{number}"], arrays[f"D{number}"]
    everything = np.concatenate([fractions.value[None], fractions.gradient])[: 1 + len(slopes)]
    by_true = "rtyx" if everything.ndim == 4 else "ryx"
    sums = np.einsum(f"tyx,{by_true}->rt", backwards, everything, optimize=True)
    pixels, response = arrays[f"p{number}"], arrays[f"M{number}"]
    counts = np.empty((len(everything), *response.shape))
    for some in portions(len(quadrants), reach.length):
        kernels = unfolded(quadrants[some], reach.length[0])
        seen = scipy.fft.irfft2(_of(whole, some) * kernels, s=reach.length).reshape(len(kernels), -1)
        at = np.take(seen, pixels, axis=1)
        # beyond a kernel's edge the transform leaves rounding, which is no signal
        at[np.abs(at) < ROUNDING * seen.max(axis=1, keepdims=True)] = 0.0
        np.multiply(at, response[some], out=counts[0, some])
        single = kernels.astype(np.float32) if len(slopes) else kernels
        for k, transform in enumerate(slopes, start=1):
            seen = scipy.fft.irfft2(_of(transform, some) * single, s=reach.length).reshape(len(kernels), -1)
            np.multiply(np.take(seen, pixels, axis=1), response[some], out=counts[k, some])
    return Shaped(fractions.slots, counts, sums)


def _of(transform: np.ndarray, some: slice) -> np.ndarray:
    """Transforms of some true energies; the same for all where the shape does not depend on it."""
    return transform[some] if transform.ndim == 3 else transform


def measure(
    term: CountsTerm,
    arrays: Arrays,
    shaped: Sequence[Shaped],
    fluxes: Sequence[Varied],
    weights: Sequence[Varied],
    wanted: np.ndarray,
    order: int = 2,
) -> Measured:
    """F of a term and its derivatives over the ``wanted`` slots, as far as templates were shaped with derivatives.

    First derivatives by what shapes templates, and second ones of templates by themselves, are `backward_map`'s.

    Parameters
    ----------
    term : CountsTerm
    arrays : mapping of array
    shaped, fluxes : one per reach
    weights : one per background part
    wanted : int array
        Sorted slots.
    order : int
        1 leaves out the second derivatives of fluxes.
    """
    n, e = arrays["n"], arrays["e"]
    signal, linear = np.zeros(len(n)), 0.0
    for k, (seen, flux) in enumerate(zip(shaped, fluxes, strict=True)):
        _add_at(signal, arrays[f"v{k}"], flux.value @ seen.counts[0])
        linear += float(flux.value @ seen.sums[0])
    if term.is_measured:
        total, first, second, by_factor = _wstat_terms(term, arrays, signal, weights)
    else:
        total, first, second = _cash_terms(term, arrays, signal, weights)
        by_factor = None
    size = len(wanted)
    columns = np.zeros((size, len(n)))
    gradient, extra, positive = np.zeros(size), np.zeros((size, size)), np.zeros((size, size))

    def places(slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of some slots are wanted, and where."""
        at = np.searchsorted(wanted, slots)
        chosen = wanted.take(at, mode="clip") == slots if size else np.zeros(len(slots), dtype=bool)
        return chosen, at[chosen]

    for k, (seen, flux) in enumerate(zip(shaped, fluxes, strict=True)):
        bins = arrays[f"v{k}"]
        by_flux = seen.counts @ first[bins] + seen.sums
        own, at = places(flux.slots)
        shape, there = places(seen.slots[: len(seen.counts) - 1])
        if own.any():
            slopes = flux.gradient[own]
            _add_columns(columns, at, bins, slopes @ seen.counts[0])
            gradient[at] += slopes @ by_flux[0]
            if order == 2:
                extra[np.ix_(at, at)] += flux.curvature[np.ix_(own, own)] @ by_flux[0]
        if shape.any():
            by_shape = by_flux[1:][shape]
            moved = np.array([flux.value @ c for c in seen.counts[1:][shape]])
            _add_columns(columns, there, bins, moved)
            if own.any():
                mixed = slopes @ by_shape.T
                extra[np.ix_(at, there)] += mixed
                extra[np.ix_(there, at)] += mixed.T
    for k, weight in enumerate(weights):
        own, at = places(weight.slots)
        if not own.any():
            continue
        slopes = weight.gradient[own]
        if by_factor is not None:
            # one factor on alpha
            by_one, by_both, mixed_one = by_factor
            gradient[at] += slopes[:, 0] * by_one.sum()
            extra[np.ix_(at, at)] += weight.curvature[np.ix_(own, own)][..., 0] * by_one.sum()
            squares, bend = np.outer(slopes[:, 0], slopes[:, 0]), float(by_both.sum())
            positive[np.ix_(at, at)] += squares * max(bend, 0.0)
            extra[np.ix_(at, at)] += squares * min(bend, 0.0)
            crossed = np.outer(slopes[:, 0], columns @ mixed_one)
            extra[at] += crossed
            extra[:, at] += crossed.T
            continue
        background, value = arrays[f"b{k}"], _factor(weight, arrays, k)
        outside = arrays["outside"] if k == 0 else np.zeros(len(value))
        # a factor that is cut does not change any more
        slopes = np.where(value == weight.value, slopes, 0.0)
        ratio = np.divide(outside, value, out=np.zeros(len(value)), where=outside > 0)
        by_weight = arrays[f"B{k}"] - ratio + np.bincount(e, first * background, len(value))
        _add_columns(columns, at, None, slopes[:, e] * background)
        gradient[at] += slopes @ by_weight
        extra[np.ix_(at, at)] += weight.curvature[np.ix_(own, own)] @ by_weight
        curved = np.divide(ratio, value, out=np.zeros(len(value)), where=outside > 0)
        positive[np.ix_(at, at)] += (slopes * curved) @ slopes.T
    fisher = positive + (columns * second) @ columns.T
    stat = 2 * (total + linear)
    # where the expectation is cut, d(f / 2)/d(signal) says nothing of the counts
    may_be = (signal < 0) | any(weight.value.min(initial=0.0) < 0 for weight in weights)
    lost = (n > 0) & may_be & (first >= 0 if term.is_dense else first >= -1) & (second == 0)
    n_negative = int(np.count_nonzero(lost))
    if not term.is_measured:
        cut = [_factor(weight, arrays, k) > weight.value for k, weight in enumerate(weights)]
        n_negative += int(np.count_nonzero(cut))
    return Measured(stat, 2 * gradient, 2 * (fisher + extra), 2 * fisher, first, n_negative)


def _add_at(total: np.ndarray, bins: np.ndarray, values: np.ndarray) -> None:
    if len(bins) == len(total):
        total += values
    else:
        total[bins] += values


def _add_columns(columns: np.ndarray, at: np.ndarray, bins: np.ndarray | None, values: np.ndarray) -> None:
    if bins is None or len(bins) == columns.shape[1]:
        columns[at] += values
    else:
        columns[at[:, None], bins] += values


def _factor(weight: Varied, arrays: Arrays, number: int) -> np.ndarray:
    """Factors per energy on a part of the background; where the logarithm of one is needed, it is cut above 0."""
    is_needed = arrays["outside"] > 0 if number == 0 else np.zeros(len(weight.value), dtype=bool)
    return np.where(is_needed, np.maximum(weight.value, SMALLEST_WEIGHT), weight.value)


def _cash_terms(
    term: CountsTerm, arrays: Arrays, signal: np.ndarray, weights: Sequence[Varied]
) -> tuple[float, np.ndarray, np.ndarray]:
    """F / 2 without the linear part of the signal, and its first and second derivative by the signal of each held bin."""
    n, e = arrays["n"], arrays["e"]
    mu, total = signal, -term.constant
    for k, weight in enumerate(weights):
        factor = _factor(weight, arrays, k)
        mu = mu + factor[e] * arrays[f"b{k}"]
        total += float(factor @ arrays[f"B{k}"])
        if k == 0:
            outside = arrays["outside"] > 0
            total -= float(arrays["outside"][outside] @ np.log(factor[outside]))
    above = mu > TRUNCATION
    cut = np.where(above, mu, TRUNCATION)
    first = -n / cut
    second = -first / cut
    log_sum = n @ np.log(cut)
    if term.is_dense:
        return (
            total + float(cut.sum() - log_sum),
            np.where(above, 1 + first, 0.0),
            np.where(above, second, 0.0),
        )
    # the linear sums hold the whole of mu, also where it is cut
    total += float((cut - mu).sum(where=~above) - log_sum)
    return total, np.where(above, first, -1.0), np.where(above, second, 0.0)


def _wstat_terms(
    term: CountsTerm, arrays: Arrays, signal: np.ndarray, weights: Sequence[Varied]
) -> tuple[float, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `_cash_terms`, and the derivatives by a factor on alpha: first, second, and mixed with the signal."""
    n, m = arrays["n"], arrays["m"]
    factor = max(float(weights[0].value[0]), SMALLEST_WEIGHT) if weights else 1.0
    alpha = arrays["alpha"] * factor
    linear = 0.0 if term.is_dense else 1.0
    value, slope, curvature = wstat_derivatives(n, m, alpha, signal)
    total = float(0.5 * value.sum() - linear * signal.sum()) - term.constant
    first, second = 0.5 * slope - linear, 0.5 * curvature
    none = np.zeros(0)
    if not weights or not len(weights[0].slots):
        return total, first, second, (none, none, none)

    def by_factor(k: float) -> np.ndarray:
        a = arrays["alpha"] * k
        mu_off = wstat_background(n, m, a, signal)
        mu_on = np.maximum(signal + a * mu_off, TRUNCATION)
        return np.asarray(arrays["alpha"] * mu_off * (1 - n / mu_on))

    above, below = factor * (1 + _STEP), factor * (1 - _STEP)
    slopes = [0.5 * wstat_slope(n, m, arrays["alpha"] * k, signal) for k in (above, below)]
    curved = (by_factor(above) - by_factor(below)) / (above - below)
    mixed = (slopes[0] - slopes[1]) / (above - below)
    return total, first, second, (by_factor(factor), curved, mixed)


def backward_map(
    term: CountsTerm, number: int, arrays: Arrays, flux: Varied, first: np.ndarray, by_energy: bool
) -> np.ndarray:
    """d(f / 2)/d(template), shape (rows, columns), or (n_true, rows, columns) for a template that depends on energy.

    The adjoint of point spread and exposure: one transform per true energy, whatever the number of parameters.
    """
    reach = term.reaches[number]
    bins, groups = arrays[f"v{number}"], arrays[f"g{number}"]
    response, pixels = arrays[f"M{number}"], arrays[f"p{number}"]
    backwards = arrays[f"D{number}"]
    n_true, rows, columns = backwards.shape
    weights = first[bins]
    total = np.zeros((reach.length[0], reach.length[1] // 2 + 1), dtype=complex)
    seen = np.empty((n_true if by_energy else 0, rows, columns))
    for some in portions(n_true, reach.length):
        strengths = flux.value[some, None]
        maps = np.zeros((len(strengths), reach.length[0] * reach.length[1]))
        if len(bins):
            weighted = response[some] * (weights * strengths)
            maps[:, pixels[groups]] = np.add.reduceat(weighted, groups, axis=1)
        transforms = scipy.fft.rfft2(maps.reshape(-1, *reach.length))
        transforms *= unfolded(arrays[f"T{number}"][some], reach.length[0])
        if by_energy:
            seen[some] = scipy.fft.irfft2(transforms, s=reach.length)[:, :rows, :columns]
        else:
            total += transforms.sum(axis=0)
    if by_energy:
        return np.asarray(seen + flux.value[:, None, None] * backwards)
    everywhere = scipy.fft.irfft2(total, s=reach.length)[:rows, :columns]
    return np.asarray(everywhere + np.tensordot(flux.value, backwards, 1))


@dataclass(frozen=True, eq=False)
class PointsTerm:
    """Flux points as data: a statistic of each point as a function of the flux there.

    Attributes
    ----------
    names : tuple of str
    fluxes : tuple of FluxSpec
        One per source.
    n_points : int
    evaluate : function (dnde) -> (stat, slope, curvature)
        Arrays over the points.
    slots, local : int array
    """

    names: tuple[str, ...]
    fluxes: tuple[FluxSpec, ...]
    n_points: int
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
    slots: np.ndarray
    local: np.ndarray


def measure_points(term: PointsTerm, fluxes: Sequence[Varied], wanted: np.ndarray) -> Measured:
    """Statistic of flux points and its derivatives over the ``wanted`` slots."""
    dnde = np.zeros(term.n_points)
    for flux in fluxes:
        dnde = dnde + flux.value
    stat, slope, curvature = term.evaluate(dnde)
    columns, extra = np.zeros((len(wanted), len(dnde))), np.zeros((len(wanted), len(wanted)))
    for flux in fluxes:
        own = np.isin(flux.slots, wanted)
        at = np.searchsorted(wanted, flux.slots[own])
        columns[at] += flux.gradient[own]
        extra[np.ix_(at, at)] += flux.curvature[np.ix_(own, own)] @ slope
    # a kink of the statistic, as at an asymmetric error, has no negative curvature of its own
    fisher = (columns * np.maximum(curvature, 0.0)) @ columns.T
    return Measured(
        float(stat.sum()),
        columns @ slope,
        (columns * curvature) @ columns.T + extra,
        fisher,
        slope,
    )
