"""Strength of one known signal on a background: the one-parameter Poisson fit behind every flux estimate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from dl3flow.kernels.statistics import TRUNCATION, wstat, wstat_curvature, wstat_slope

_BRACKETS = 200


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

    @property
    def lowest(self) -> float:
        """Strength at which the first prediction turns negative."""
        reached = self.s > 0
        return -float((self.b[reached] / self.s[reached]).min()) if reached.any() else -np.inf

    def stat(self, c: float) -> float:
        """Cash statistic."""
        cut = np.maximum(c * self.s + self.b, TRUNCATION)
        occupied = self.n > 0
        return float(2 * (cut.sum() - (self.n[occupied] * np.log(cut[occupied])).sum()))

    def slope(self, c: float) -> float:
        """Derivative of `stat` by c."""
        with np.errstate(divide="ignore"):
            ratio = self.n / np.maximum(c * self.s + self.b, TRUNCATION)
        return float(2 * (self.s * (1 - ratio)).sum())

    def curvature(self, c: float) -> float:
        """Second derivative of `stat` by c."""
        return float(2 * (self.n * (self.s / np.maximum(c * self.s + self.b, TRUNCATION)) ** 2).sum())


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

    # the background takes up any negative signal
    lowest = -np.inf

    def stat(self, c: float) -> float:
        """Wstat."""
        return float(wstat(self.n, self.n_off, self.alpha, c * self.s + self.b).sum())

    def slope(self, c: float) -> float:
        """Derivative of `stat` by c."""
        return float((self.s * wstat_slope(self.n, self.n_off, self.alpha, c * self.s + self.b)).sum())

    def curvature(self, c: float) -> float:
        """Second derivative of `stat` by c."""
        return float((self.s**2 * wstat_curvature(self.n, self.n_off, self.alpha, c * self.s + self.b)).sum())


Bins = ExpectedBins | MeasuredBins


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


def fit_norm(parts: Sequence[Bins], n_sigma: float = 1.0, n_sigma_ul: float = 2.0) -> NormFit:
    """Fit the strength c that all bins have in common.

    The statistics are convex in c: the derivative has at most one zero between the strength at which the first prediction
    turns negative and sum n / sum s.

    Parameters
    ----------
    parts : sequence of ExpectedBins or MeasuredBins
    n_sigma, n_sigma_ul : float
        Of the errors and of the upper limit.

    Returns
    -------
    fit : NormFit
        All NaN where the signal is zero in every bin.
    """
    total = float(sum(part.s.sum() for part in parts))
    counts = float(sum(part.n.sum() for part in parts))
    if not total > 0:
        value = sum(part.stat(0.0) for part in parts)
        return NormFit(np.nan, np.nan, np.nan, np.nan, np.nan, value, value)
    low = max(part.lowest for part in parts)

    def stat(c: float) -> float:
        return sum(part.stat(c) for part in parts)

    def slope(c: float) -> float:
        return sum(part.slope(c) for part in parts)

    high = max(counts / total, low)
    high += 1e-12 * max(abs(high), 1 / total)
    start = low
    if not np.isfinite(low):
        step = max(abs(high), 1 / total)
        start = high - step
        while slope(start) > 0:
            step *= 2
            start = high - step
    if slope(start) >= 0 or high <= start:
        best = start
    else:
        best = float(
            scipy.optimize.brentq(
                slope, start, high, xtol=1e-15 * max(abs(high), abs(start)), rtol=1e-13, maxiter=500
            )
        )
    at_best = stat(best)
    curvature = sum(part.curvature(best) for part in parts)
    err = float(np.sqrt(2 / curvature)) if curvature > 0 and best > low else np.nan

    def crossing(start: float, rise: float, side: int) -> float:
        """Strength beyond ``start`` where the statistic has risen; NaN where it never does."""
        target = stat(start) + rise
        # beyond a rise of `rise` for a linear statistic 2 c sum(s), and for a parabola of the present curvature
        step = rise / (2 * total) + (np.sqrt(rise) * err if np.isfinite(err) else 0.0)
        end = start
        for _ in range(_BRACKETS):
            end = max(start + side * step, low)
            if stat(end) >= target:
                return float(
                    scipy.optimize.brentq(lambda c: stat(c) - target, *sorted((start, end)), rtol=1e-12)
                )
            if end == low:
                break
            step *= 2
        return np.nan

    return NormFit(
        norm=best,
        err=err,
        errn=best - crossing(best, n_sigma**2, -1),
        errp=crossing(best, n_sigma**2, 1) - best,
        ul=crossing(max(best, 0.0), n_sigma_ul**2, 1),
        stat=at_best,
        stat_null=stat(0.0),
    )
