"""Strength of one known signal centred on every pixel in turn: as many one-parameter Poisson fits as there are pixels.

The statistic against no signal is a sum over occupied bins and a linear term,

    f(c) = 2 [ c L - sum_v n_v ln(1 + c r_v) ],   r_v = signal at strength one / background,   L = all of the signal,

convex in the strength c. Empty bins enter by L, and by the strength at which the first prediction turns negative.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy

from dl3flow.kernels.convolve import convolve_same
from dl3flow.kernels.statistics import TRUNCATION

# pixels on a side of the squares whose fits are made together, and most numbers held for one
_TILE = 16
_MOST_NUMBERS = 4_000_000
MAX_ITERATIONS = 100
# of the error of a strength, at which it is not improved any more; the steps shrink quadratically
CLOSE = 1e-6
# part of the way to a pole that a strength may go
NEAR_POLE = 1 - 1e-9
# below this share of the largest, a correlation by Fourier transforms is rounding
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class SignalBins:
    """Bins of a sky with a signal that can be centred on any of their pixels.

    Attributes
    ----------
    counts, background, weight : array, shape (n, n_lat, n_lon)
        Counts, what is expected beside the signal (not negative), and the signal at strength one where the kernel is one.
        Zero in bins that are not used.
    kernels : array, shape (n_kernels, k, k)
        Share of the signal by distance from its centre, with odd k; not negative.
    kernel : int array, shape (n, n_lat, n_lon)
        Which of them applies to a bin.
    """

    counts: np.ndarray
    background: np.ndarray
    weight: np.ndarray
    kernels: np.ndarray
    kernel: np.ndarray

    @property
    def half(self) -> int:
        """Pixels that the kernels reach."""
        return int(self.kernels.shape[-1]) // 2


@dataclass(frozen=True, eq=False)
class Occupied:
    """Bins with counts that a signal somewhere reaches, by rows.

    Attributes
    ----------
    row, column, kernel : int array, shape (m,)
    n : array, shape (m,)
        Counts.
    ratio : array, shape (m,)
        Signal at strength one, where the kernel is one, over the background.
    """

    row: np.ndarray
    column: np.ndarray
    kernel: np.ndarray
    n: np.ndarray
    ratio: np.ndarray


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is to be found beside the best strength.

    Attributes
    ----------
    n_sigma : float or None
        Of the errors to both sides; None leaves them out.
    n_sigma_ul : float or None
        Of the upper limit; None leaves it out.
    """

    n_sigma: float | None = None
    n_sigma_ul: float | None = None


# occupied bins, kernels, sum of the signal, lowest strength and pixels to be fitted -> one array per quantity and pixel
Solver = Callable[
    [Occupied, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, Wanted], dict[str, np.ndarray]
]


def fit_strengths(
    bins: SignalBins, targets: np.ndarray, wanted: Wanted, solve: Solver
) -> dict[str, np.ndarray]:
    """Fit the strength of a signal centred on each of the wanted pixels.

    Parameters
    ----------
    bins : SignalBins
    targets : bool array, shape (n_lat, n_lon)
    wanted : Wanted
    solve : function
        `solve_tiles`, or one that gives the same.

    Returns
    -------
    found : dict of array, shape (n_lat, n_lon)
        norm (best strength, at least that at which the first prediction turns negative), norm_err (from the curvature; NaN at that bound), ts
        (against no signal, not negative), signal (sum of the signal at strength one), and where asked for norm_errn,
        norm_errp and norm_ul (above the best strength that is not negative). NaN off the targets, where no signal is
        seen, and where the data give no answer.
    """
    signal = signal_sums(bins)
    lowest = lowest_strengths(bins, targets)
    j, i = np.nonzero(targets & (signal > 0))
    found = solve(occupied_bins(bins), bins.kernels, j, i, signal[j, i], lowest[j, i], wanted)
    maps = {"signal": np.where(targets, signal, np.nan)}
    for name, values in found.items():
        maps[name] = np.full(targets.shape, np.nan)
        maps[name][j, i] = values
    return maps


def signal_sums(bins: SignalBins) -> np.ndarray:
    """Sum over all bins of the signal at strength one, centred on each pixel; shape (n_lat, n_lon)."""
    total = np.zeros(bins.weight.shape[1:])
    for k, kernel in enumerate(bins.kernels):
        image = np.where(bins.kernel == k, bins.weight, 0.0).sum(axis=0)
        total += convolve_same(image, kernel[::-1, ::-1])
    total[total < _ROUNDING * total.max(initial=0.0)] = 0.0
    return total


def occupied_bins(bins: SignalBins) -> Occupied:
    """Bins with counts and a signal, in the order of their rows and columns."""
    k, j, i = np.nonzero((bins.counts > 0) & (bins.weight > 0))
    order = np.lexsort((k, i, j))
    at = k[order], j[order], i[order]
    background = np.maximum(bins.background[at], TRUNCATION)
    return Occupied(at[1], at[2], bins.kernel[at], bins.counts[at], bins.weight[at] / background)


def lowest_strengths(bins: SignalBins, targets: np.ndarray) -> np.ndarray:
    """Strength at which the first prediction turns negative, of signals centred on the wanted pixels; minus infinity for none.

    The largest ratio of signal to background within the kernel around each pixel. Offsets are tried in the order of their
    kernel, and a pixel is done when no further one can exceed what was found, which in smooth backgrounds are a few.

    Parameters
    ----------
    bins : SignalBins
    targets : bool array, shape (n_lat, n_lon)

    Returns
    -------
    lowest : array, shape (n_lat, n_lon)
        Minus infinity off the targets.
    """
    half, (n_lat, n_lon) = bins.half, targets.shape
    width = n_lon + 2 * half
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(bins.weight > 0, bins.weight / bins.background, 0.0)
    padded = np.zeros((len(bins.kernels), n_lat + 2 * half, width))
    for k in range(len(bins.kernels)):
        padded[k, half : half + n_lat, half : half + n_lon] = np.where(bins.kernel == k, ratio, 0.0).max(
            axis=0
        )
    j, i = np.nonzero(targets)
    at = (j + half) * width + i + half
    largest = np.zeros(len(at))
    size = 2 * half + 1
    for kernel, plane in zip(bins.kernels, padded, strict=True):
        around = scipy.ndimage.maximum_filter(plane, size, mode="constant").ravel()[at]
        flat, values = plane.ravel(), kernel.ravel()
        order = np.argsort(-values, kind="stable")
        left = np.arange(len(at))
        for first, last in _growing(len(order)):
            chosen = order[first:last]
            left = left[values[chosen[0]] * around[left] > largest[left]]
            if not len(left):
                break
            for o in chosen[values[chosen] > 0]:
                shift = (o // size - half) * width + o % size - half
                found = flat[at[left] + shift] * values[o]
                np.maximum(found, largest[left], out=found)
                largest[left] = found
    lowest = np.full(targets.shape, -np.inf)
    with np.errstate(divide="ignore"):
        lowest[j, i] = -1 / largest
    return lowest


def _growing(n: int) -> Iterator[tuple[int, int]]:
    """Slices of n things, of one, two, four ... up to 32 of them."""
    start, size = 0, 1
    while start < n:
        yield start, min(start + size, n)
        start, size = start + size, min(2 * size, 32)


def solve_tiles(
    occupied: Occupied,
    kernels: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    signal: np.ndarray,
    lowest: np.ndarray,
    wanted: Wanted,
) -> dict[str, np.ndarray]:
    """Fits of all pixels, square by square of the sky, with numpy alone.

    Parameters
    ----------
    occupied : Occupied
    kernels : array, shape (n_kernels, k, k)
    rows, columns : int array, shape (n,)
        Pixels on which the signal is centred.
    signal, lowest : array, shape (n,)
        Sum of the signal at strength one (above 0), and the lowest strength, there.
    wanted : Wanted

    Returns
    -------
    found : dict of array, shape (n,)
        As `fit_strengths` without ``signal``.
    """
    names = quantities(wanted)
    found = {name: np.full(len(rows), np.nan) for name in names}
    if not len(rows):
        return found
    half = kernels.shape[-1] // 2
    side = _side(occupied, half)
    pad = side - 1
    # the signal at a bin by the place of its centre: turned round
    turned = np.pad(kernels[:, ::-1, ::-1], ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(turned, (side, side), axis=(1, 2))
    tile = (rows // side) * (columns.max() // side + 1) + columns // side
    order = np.argsort(tile, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(tile[order])) + 1):
        top, left = (int(v[members[0]] // side * side) for v in (rows, columns))
        first, last = np.searchsorted(occupied.row, [top - half, top + side + half])
        near = np.arange(first, last)
        x = occupied.column[first:last]
        near = near[(x >= left - half) & (x < left + side + half)]
        a = top - occupied.row[near] + half + pad
        b = left - occupied.column[near] + half + pad
        blocks = windows[occupied.kernel[near], a, b].reshape(len(near), side**2)
        inside = (rows[members] - top) * side + columns[members] - left
        ratio = blocks * occupied.ratio[near][:, None]
        if len(inside) < side**2:
            ratio = ratio[:, inside]
        part = _Fits(occupied.n[near], ratio, signal[members], lowest[members]).results(wanted)
        for name in names:
            found[name][members] = part[name]
    return found


def quantities(wanted: Wanted) -> list[str]:
    """Names of what a solver finds."""
    both = ["norm_errn", "norm_errp"] if wanted.n_sigma is not None else []
    return ["norm", "norm_err", "ts", *both, *(["norm_ul"] if wanted.n_sigma_ul is not None else [])]


def _side(occupied: Occupied, half: int) -> int:
    """Side of the squares that can be held in memory."""
    if not len(occupied.n):
        return _TILE
    extent = (np.ptp(occupied.row) + 1) * (np.ptp(occupied.column) + 1)
    per_pixel = len(occupied.n) / extent
    side = _TILE
    while side > 1 and per_pixel * (side + 2 * half) ** 2 * side**2 > _MOST_NUMBERS:
        side //= 2
    return side


class _Fits:
    """Fits of some pixels that share their occupied bins; private to `solve_tiles`.

    ``n`` has shape (m,), ``ratio`` (m, p), ``signal`` and ``lowest`` (p,).
    """

    def __init__(self, n: np.ndarray, ratio: np.ndarray, signal: np.ndarray, lowest: np.ndarray) -> None:
        self.n, self.ratio, self.signal, self.lowest = n, ratio, signal, lowest
        largest = ratio.max(axis=0, initial=0.0)
        self.is_seen = largest > 0
        with np.errstate(divide="ignore"):
            self.pole = -1 / largest

    def results(self, wanted: Wanted) -> dict[str, np.ndarray]:
        """Columns of `solve_tiles`."""
        norm = np.maximum(self.best(), self.lowest)
        norm[~np.isfinite(norm)] = np.nan
        at_best = self.stat(norm)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = 1 / np.sqrt(self.sums(norm)[1])
        found = {
            "norm": norm,
            # at its bound a strength has no minimum whose width could be told
            "norm_err": np.where(self.is_seen & (norm > self.lowest), error, np.nan),
            "ts": np.maximum(-at_best, 0.0),
        }
        if wanted.n_sigma is not None:
            found["norm_errn"] = norm - self.below(norm, at_best, wanted.n_sigma)
            found["norm_errp"] = self.above(norm, at_best, wanted.n_sigma) - norm
        if wanted.n_sigma_ul is not None:
            is_positive = norm > 0
            start = np.where(is_positive, norm, np.where(np.isnan(norm), np.nan, 0.0))
            found["norm_ul"] = self.above(start, np.where(is_positive, at_best, 0.0), wanted.n_sigma_ul)
        return found

    def sums(self, c: np.ndarray, of: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Sums over bins of n r / (1 + c r) and of n (r / (1 + c r))^2."""
        ratio = self.ratio[:, of] if not isinstance(of, slice) else self.ratio
        q = ratio * c
        q += 1.0
        np.divide(ratio, q, out=q)
        first = self.n @ q
        q *= q
        return first, self.n @ q

    def stat(self, c: np.ndarray, of: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Statistic against no signal."""
        ratio = self.ratio[:, of] if not isinstance(of, slice) else self.ratio
        q = ratio * c
        q += 1.0
        np.log(q, out=q)
        return np.asarray(2 * (c * self.signal[of] - self.n @ q))

    def best(self) -> np.ndarray:
        """Strength where the derivative vanishes; minus infinity without counts.

        Newton's method on one over the sum of n r / (1 + c r), which is concave: exact for one bin, and monotone from
        below. The sum exceeds 1 / (c - pole), so that the root is above pole + 1 / L.
        """
        c = np.full(len(self.signal), -np.inf)
        active = np.flatnonzero(self.is_seen)
        c[active] = 0.0
        bottom = np.maximum(self.pole * NEAR_POLE, np.maximum(self.pole + 1 / self.signal, self.lowest))
        for _ in range(MAX_ITERATIONS):
            if not len(active):
                break
            whole = len(active) == len(c)
            first, second = self.sums(c[active], slice(None) if whole else active)
            total = self.signal[active]
            step = (first - total) / second * (first / total)
            moved = np.maximum(c[active] + step, bottom[active])
            change = np.abs(moved - c[active])
            c[active] = moved
            active = active[change * np.sqrt(second) > CLOSE]
        return c

    def above(self, start: np.ndarray, at_start: np.ndarray, n_sigma: float) -> np.ndarray:
        """Strength above ``start`` where the statistic has risen by n_sigma^2; NaN where there is none."""
        return self._crossing(start, at_start, n_sigma, 1.0, np.full(len(start), np.inf))

    def below(self, start: np.ndarray, at_start: np.ndarray, n_sigma: float) -> np.ndarray:
        """Strength below ``start`` where the statistic has risen by n_sigma^2; NaN where it is not reached."""
        end = np.maximum(self.lowest, self.pole * NEAR_POLE)
        room = np.where(np.isfinite(end) & (end < start), end, start)
        is_reached = self.stat(room) - at_start >= n_sigma**2
        found = self._crossing(
            np.where(is_reached, start, np.nan), at_start, n_sigma, -1.0, np.where(is_reached, start - end, 0)
        )
        return np.where(is_reached, found, np.nan)

    def _crossing(
        self, start: np.ndarray, at_start: np.ndarray, n_sigma: float, side: float, room: np.ndarray
    ) -> np.ndarray:
        """Newton's method on the root of the rise, which is nearly linear in the distance."""
        found = np.full(len(start), np.nan)
        active = np.flatnonzero(np.isfinite(start))
        distance = self._first_distance(start, n_sigma, side)
        distance = np.minimum(distance, 0.5 * room)
        for _ in range(MAX_ITERATIONS):
            if not len(active):
                break
            c = start[active] + side * distance[active]
            of = slice(None) if len(active) == len(start) else active
            rise = self.stat(c, of) - at_start[active]
            root = np.sqrt(np.maximum(rise, 0.0))
            slope = side * 2 * (self.signal[active] - self.sums(c, of)[0])
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = distance[active] - (root - n_sigma) * 2 * root / slope
            is_odd = ~(moved > 0) | ~np.isfinite(moved)
            moved[is_odd] = distance[active][is_odd] * np.where(rise[is_odd] < n_sigma**2, 2.0, 0.5)
            beyond = moved > room[active]
            moved[beyond] = 0.5 * (distance[active] + room[active])[beyond]
            change = np.abs(moved - distance[active])
            distance[active] = moved
            found[active] = start[active] + side * moved
            active = active[change > CLOSE * moved]
        return found

    def _first_distance(self, start: np.ndarray, n_sigma: float, side: float) -> np.ndarray:
        """Distance at which the parabola through ``start`` has risen by n_sigma^2."""
        first, second = self.sums(start)
        # a slope downhill is rounding at the minimum
        slope = np.maximum(side * (self.signal - first), 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(n_sigma**2 / (slope + np.sqrt(slope**2 + second * n_sigma**2)))
