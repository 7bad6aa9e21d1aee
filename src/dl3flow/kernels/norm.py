"""Strength of one known signal on a background: the one-parameter fit behind every flux estimate, for many at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from dl3flow.kernels.statistics import TRUNCATION, wstat, wstat_derivatives

_MOST_STEPS = 300
_MOST_DOUBLINGS = 200
# of an error, or of the rounding of the strength itself, at which a search ends
_NEAR, _ROUNDING = 1e-10, 4e-16
_CLOSE, _KINK = 1e-3, 1e-13


@dataclass(frozen=True, eq=False)
class ExpectedBins:
    """Bins whose background is expected: n ~ Poisson(c s + b), at a strength c.

    Attributes
    ----------
    n, s, b : array, shape (m,)
        Counts, signal at strength one (not negative), and all else that is expected (not negative).
    """

    n: np.ndarray
    s: np.ndarray
    b: np.ndarray

    def grouped(self, group: np.ndarray, n_groups: int) -> "ExpectedGroups":
        """The same bins, shared among groups by a number per bin."""
        return group_expected(self.n, self.s, self.b, group, n_groups)

    def stat(self, c: float) -> float:
        """Cash statistic."""
        return float(self.grouped(np.zeros(len(self.n), dtype=int), 1).stat(np.array([c]))[0])


@dataclass(frozen=True, eq=False)
class MeasuredBins:
    """Bins whose background is measured: n ~ Poisson(c s + b + alpha mu_off), n_off ~ Poisson(mu_off).

    Attributes
    ----------
    n, s, b : array, shape (m,)
        Counts, signal at strength one (not negative), and further expected signal.
    n_off, alpha : array, shape (m,)
    """

    n: np.ndarray
    s: np.ndarray
    b: np.ndarray
    n_off: np.ndarray
    alpha: np.ndarray

    def grouped(self, group: np.ndarray, n_groups: int) -> "MeasuredGroups":
        """The same bins, shared among groups by a number per bin."""
        return group_measured(self.n, self.s, self.b, self.n_off, self.alpha, group, n_groups)

    def stat(self, c: float) -> float:
        """Wstat."""
        return float(self.grouped(np.zeros(len(self.n), dtype=int), 1).stat(np.array([c]))[0])


Bins = ExpectedBins | MeasuredBins


class Groups(Protocol):
    """Data of several groups, each with a strength of its own, whose statistic is convex in it."""

    @property
    def signal(self) -> np.ndarray:
        """Expected counts of strength one that the data can tell, per group."""

    @property
    def highest(self) -> np.ndarray:
        """Strength of each group above which its statistic rises."""

    @property
    def lowest(self) -> np.ndarray:
        """Strength of each group at which the first prediction turns negative."""

    def stat(self, c: np.ndarray) -> np.ndarray:
        """Statistic of each group at a strength per group."""

    def derivatives(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second derivative of `stat`."""


@dataclass(frozen=True, eq=False)
class ExpectedGroups:
    """Groups of `ExpectedBins` in the compact form of their Cash statistic: only bins with counts and signal are kept.

    Attributes
    ----------
    n, s, b : array, shape (m,)
        Of the bins with counts and signal.
    group : int array, shape (m,)
    signal, counts, constant, lowest : array, shape (n_groups,)
        Sums of signal and counts over all bins, what no strength changes of the statistic, and the strength at which the
        first prediction turns negative.
    """

    n: np.ndarray
    s: np.ndarray
    b: np.ndarray
    group: np.ndarray
    signal: np.ndarray
    counts: np.ndarray
    constant: np.ndarray
    lowest: np.ndarray

    @property
    def highest(self) -> np.ndarray:
        """See `Groups`: with all counts from the signal."""
        return _ratio(self.counts, self.signal)

    def stat(self, c: np.ndarray) -> np.ndarray:
        """Cash statistic; strengths below ``lowest`` are taken for it."""
        c = np.maximum(c, self.lowest)
        mu = np.maximum(c[self.group] * self.s + self.b, TRUNCATION)
        logs = np.bincount(self.group, self.n * np.log(mu), len(c))
        return np.asarray(2 * (np.where(self.signal > 0, c * self.signal, 0.0) - logs) + self.constant)

    def derivatives(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Groups`."""
        with np.errstate(over="ignore"):
            share = self.s / np.maximum(c[self.group] * self.s + self.b, TRUNCATION)
            first = np.bincount(self.group, self.n * share, len(c))
            second = np.bincount(self.group, self.n * share**2, len(c))
        return 2 * (self.signal - first), 2 * second


@dataclass(frozen=True, eq=False)
class MeasuredGroups:
    """Groups of `MeasuredBins`: only bins with signal and a measured background are kept.

    Attributes
    ----------
    n, s, b, n_off, alpha : array, shape (m,)
    group : int array, shape (m,)
    signal, counts, constant : array, shape (n_groups,)
        As in `ExpectedGroups`, over the kept bins.
    """

    n: np.ndarray
    s: np.ndarray
    b: np.ndarray
    n_off: np.ndarray
    alpha: np.ndarray
    group: np.ndarray
    signal: np.ndarray
    counts: np.ndarray
    constant: np.ndarray

    @property
    def highest(self) -> np.ndarray:
        """See `Groups`: with all counts from the signal."""
        return _ratio(self.counts, self.signal)

    @property
    def lowest(self) -> np.ndarray:
        """None: the background takes up any negative signal."""
        return np.full(len(self.signal), -np.inf)

    def stat(self, c: np.ndarray) -> np.ndarray:
        """Wstat."""
        value = wstat(self.n, self.n_off, self.alpha, c[self.group] * self.s + self.b)
        return np.asarray(np.bincount(self.group, value, len(c)) + self.constant)

    def derivatives(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Groups`."""
        _, slope, curvature = wstat_derivatives(
            self.n, self.n_off, self.alpha, c[self.group] * self.s + self.b
        )
        first = np.bincount(self.group, self.s * slope, len(c))
        return first, np.bincount(self.group, self.s**2 * curvature, len(c))


def _ratio(counts: np.ndarray, signal: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(counts, signal, out=np.zeros(len(signal)), where=signal > 0))


def group_expected(
    n: np.ndarray, s: np.ndarray, b: np.ndarray, group: np.ndarray, n_groups: int
) -> ExpectedGroups:
    """Groups of bins with an expected background.

    Parameters
    ----------
    n, s, b : array, shape (m,)
        As in `ExpectedBins`.
    group : int array, shape (m,)
        Number of each bin's group.
    n_groups : int
    """
    signal, background, counts = (np.bincount(group, values, n_groups) for values in (s, b, n))
    reached = s > 0
    lowest = np.full(n_groups, np.inf)
    np.minimum.at(lowest, group[reached], b[reached] / s[reached])
    occupied = n > 0
    fixed = occupied & ~reached
    # bins without signal have one prediction at all strengths
    logs = np.bincount(group[fixed], n[fixed] * np.log(np.maximum(b[fixed], TRUNCATION)), n_groups)
    kept = occupied & reached
    return ExpectedGroups(
        n[kept], s[kept], b[kept], group[kept], signal, counts, 2 * (background - logs), -lowest
    )


def group_measured(
    n: np.ndarray,
    s: np.ndarray,
    b: np.ndarray,
    n_off: np.ndarray,
    alpha: np.ndarray,
    group: np.ndarray,
    n_groups: int,
) -> MeasuredGroups:
    """Groups of bins with a measured background; those where none was measured say nothing.

    Parameters
    ----------
    n, s, b, n_off, alpha : array, shape (m,)
        As in `MeasuredBins`.
    group : int array, shape (m,)
    n_groups : int
    """
    kept = (s > 0) & (alpha > 0)
    fixed = ~kept
    constant = np.bincount(group[fixed], wstat(n[fixed], n_off[fixed], alpha[fixed], b[fixed]), n_groups)
    n, s, b, n_off, alpha, group = (values[kept] for values in (n, s, b, n_off, alpha, group))
    signal, counts = (np.bincount(group, values, n_groups) for values in (s, n))
    return MeasuredGroups(n, s, b, n_off, alpha, group, signal, counts, constant)


@dataclass(frozen=True)
class NormFit:
    """Result of `fit_norm`; NaN where the data give no answer.

    Attributes
    ----------
    norm : float
        Maximum-likelihood strength, which may be negative.
    err, errn, errp : float
        From the curvature; downwards and upwards from the likelihood's rise by n_sigma^2. ``errn`` is NaN where the
        likelihood does not rise that far before a prediction turns negative.
    ul : float
        Upper limit: rise by n_sigma_ul^2 above the best strength that is not negative.
    stat, stat_null : float
        Statistic at the best strength and at zero.
    """

    norm: float
    err: float
    errn: float
    errp: float
    ul: float
    stat: float
    stat_null: float

    @property
    def ts(self) -> float:
        """Test statistic against strength zero."""
        return self.stat_null - self.stat


@dataclass(frozen=True, eq=False)
class NormFits:
    """Result of `fit_norms`: as `NormFit`, an array over the groups each."""

    norm: np.ndarray
    err: np.ndarray
    errn: np.ndarray
    errp: np.ndarray
    ul: np.ndarray
    stat: np.ndarray
    stat_null: np.ndarray

    def __getitem__(self, k: int) -> NormFit:
        return NormFit(*(float(getattr(self, f.name)[k]) for f in fields(self)))


def fit_norm(parts: Sequence[Bins], n_sigma: float = 1.0, n_sigma_ul: float = 2.0) -> NormFit:
    """Fit the strength c that all bins have in common: `fit_norms` of one group."""
    groups = [part.grouped(np.zeros(len(part.n), dtype=int), 1) for part in parts]
    return fit_norms(groups, n_sigma, n_sigma_ul)[0]


def fit_norms(parts: Sequence[Groups], n_sigma: float = 1.0, n_sigma_ul: float = 2.0) -> NormFits:
    """Fit a strength per group, which all parts have in common.

    The statistics are convex in c: the derivative has at most one zero between the strength at which the first prediction
    turns negative and sum n / sum s, and Newton's method from beyond a crossing arrives without overshooting.

    Parameters
    ----------
    parts : sequence of Groups
        With the same number of groups.
    n_sigma, n_sigma_ul : float
        Of the errors and of the upper limit.

    Returns
    -------
    fits : NormFits
        NaN where the signal is zero in every bin of a group, but for the statistic.
    """
    parts = _joined(parts)
    signal = np.sum([part.signal for part in parts], axis=0)
    low = np.max([part.lowest for part in parts], axis=0)
    high = np.maximum(np.max([part.highest for part in parts], axis=0), low)
    seen = (signal > 0) & np.isfinite(high)

    def stat(c: np.ndarray) -> np.ndarray:
        return np.asarray(np.sum([part.stat(c) for part in parts], axis=0))

    def derivatives(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, second = zip(*(part.derivatives(c) for part in parts), strict=True)
        return np.sum(first, axis=0), np.sum(second, axis=0)

    unit = np.where(seen, 1 / np.where(seen, signal, 1.0), 1.0)
    low, high = np.where(seen, low, 0.0), np.where(seen, high, 0.0)
    high = high + 1e-12 * np.maximum(np.abs(high), unit)
    best = _minimum(derivatives, _bracketed(derivatives, low, high, unit, seen), high, signal, seen)
    at_best = stat(best)
    _, second = derivatives(best)
    curved = seen & (second > 0) & (best > low)
    err = np.where(curved, np.sqrt(2 / np.where(curved, second, 1.0)), np.nan)

    def crossing(start: np.ndarray, rise: float, side: int) -> np.ndarray:
        """Strength beyond ``start`` where the statistic has risen; NaN where it never does."""
        base = at_best if start is best else stat(start)
        # beyond a rise for a linear statistic 2 c sum(s), and for a parabola of the present curvature
        step = rise / 2 * unit + np.where(curved, np.sqrt(rise) * np.nan_to_num(err), 0.0)
        return find_crossing(stat, derivatives, start, base + rise, side * step, low, seen)

    ul = crossing(np.maximum(best, 0.0), n_sigma_ul**2, 1)
    errn, errp = best - crossing(best, n_sigma**2, -1), crossing(best, n_sigma**2, 1) - best
    return NormFits(
        norm=np.where(seen, best, np.nan),
        err=err,
        errn=errn,
        errp=errp,
        ul=ul,
        stat=at_best,
        stat_null=stat(np.zeros(len(signal))),
    )


def _joined(parts: Sequence[Groups]) -> list[Groups]:
    """The same data in as few parts as there are kinds: what is evaluated many times is one array each."""
    known = [part for part in parts if isinstance(part, ExpectedGroups)]
    measured = [part for part in parts if isinstance(part, MeasuredGroups)]
    found: list[Groups] = [p for p in parts if not isinstance(p, ExpectedGroups | MeasuredGroups)]
    if known:
        lowest = np.max([part.lowest for part in known], axis=0)
        joined = {**_appended(known, ("n", "s", "b", "group")), **_summed(known)}
        found.append(replace(known[0], **joined, lowest=lowest))
    if measured:
        names = ("n", "s", "b", "n_off", "alpha", "group")
        found.append(replace(measured[0], **_appended(measured, names), **_summed(measured)))
    return found


def _appended(parts: Sequence[Groups], names: Sequence[str]) -> dict[str, Any]:
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def _summed(parts: Sequence[Groups]) -> dict[str, Any]:
    names = ("signal", "counts", "constant")
    return {name: np.sum([getattr(part, name) for part in parts], axis=0) for name in names}


_Derivatives = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _bracketed(
    derivatives: _Derivatives, low: np.ndarray, high: np.ndarray, unit: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Strengths below the minimum: ``low`` where it is finite, else so far down that the statistic falls."""
    is_open = ~np.isfinite(low)
    if not is_open.any():
        return low
    step = np.maximum(np.abs(high), unit)
    start = np.where(is_open, high - step, low)
    for _ in range(_MOST_DOUBLINGS):
        rises = is_open & seen & (derivatives(start)[0] > 0)
        if not rises.any():
            break
        step = np.where(rises, 2 * step, step)
        start = np.where(rises, high - step, start)
    return start


def _minimum(
    derivatives: _Derivatives, low: np.ndarray, high: np.ndarray, signal: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Zero of the increasing first derivative between two strengths; ``low`` where it is above zero there already."""
    slope, _ = derivatives(low)
    at_low = (slope >= 0) | (high <= low) | ~seen
    left, right, c = low.copy(), high.copy(), 0.5 * (low + high)
    width = np.maximum(np.abs(left), np.abs(right))
    # without any counts the statistic has a kink at zero, and its minimum there
    beside = _KINK * width
    at_zero = (left < -beside) & (right > beside)
    at_zero &= (derivatives(-beside)[0] <= 0) & (derivatives(beside)[0] >= 0)
    last = right - left
    moving = ~at_low & ~at_zero
    for _ in range(_MOST_STEPS):
        if not moving.any():
            break
        slope, curvature = derivatives(c)
        left, right = np.where(slope < 0, c, left), np.where(slope > 0, c, right)
        with np.errstate(all="ignore"):
            step = slope / curvature
            # Newton on 1 / (signal - slope / 2), which counts keep above zero: exact where one bin decides
            share = 1 - 0.5 * slope / signal
            trial = c - step * np.where(share > 0, share, 1.0)
            near = _NEAR / np.sqrt(np.where(curvature > 0, curvature, np.inf)) + _ROUNDING * width
            done = np.abs(step) <= near
            # a step that does not halve the one before is not believed
            good = (trial > left) & (trial < right) & (2 * np.abs(trial - c) <= np.abs(last))
        trial = np.where(good | done, trial, 0.5 * (left + right))
        done |= (slope == 0) | (np.abs(trial - c) <= _ROUNDING * width)
        last = np.where(moving, trial - c, last)
        c = np.where(moving & (slope != 0), trial, c)
        moving &= ~done
    return np.where(at_low, low, np.where(at_zero, 0.0, c))


def find_crossing(
    stat: Callable[[np.ndarray], np.ndarray],
    derivatives: _Derivatives,
    start: np.ndarray,
    target: np.ndarray,
    step: np.ndarray,
    low: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    """Strengths where a convex statistic reaches a value.

    Parameters
    ----------
    stat, derivatives : function
        As in `Groups`.
    start, target, step, low : array, shape (n_groups,)
        Where to look from, what to reach, a first step to try (its sign is the direction), and where the data end.
    seen : bool array, shape (n_groups,)
        False leaves a group out.

    Returns
    -------
    c : array, shape (n_groups,)
        NaN where the value is never reached.
    """
    side = np.sign(step)
    inside, c = start.copy(), np.maximum(start + step, low)
    missing = ~seen
    for _ in range(_MOST_DOUBLINGS):
        below = ~missing & (stat(c) < target)
        missing |= below & (side < 0) & (c <= low)
        below &= ~missing
        if not below.any():
            break
        inside = np.where(below, c, inside)
        step = np.where(below, 2 * step, step)
        c = np.where(below, np.maximum(start + step, low), c)
    outside, moving = c.copy(), ~missing
    before = np.full(len(c), np.inf)
    for _ in range(_MOST_STEPS):
        if not moving.any():
            break
        above = stat(c) - target
        slope, _ = derivatives(c)
        outside, inside = np.where(above >= 0, c, outside), np.where(above < 0, c, inside)
        with np.errstate(all="ignore"):
            trial = c - above / slope
            least = np.maximum(_NEAR * np.abs(start - c), _ROUNDING * np.maximum(np.abs(start), np.abs(c)))
            is_short = np.abs(trial - c) <= least
            done = is_short & (np.abs(above) <= _CLOSE)
            # at the wall of a logarithm tangents are too steep to move
            between = (side * (trial - inside) > 0) & (side * (outside - trial) > 0)
            good = between & ~is_short & (np.abs(above) <= 0.5 * before)
        trial = np.where(good | done, trial, 0.5 * (inside + outside))
        before = np.where(good, np.abs(above), np.inf)
        done |= (above == 0) | (np.abs(outside - inside) <= least)
        c = np.where(moving & (above != 0), trial, c)
        moving &= ~done
    return np.where(missing, np.nan, c)
