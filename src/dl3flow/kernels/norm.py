"""Strength of one known signal on a known background: the one-parameter Poisson fit behind every flux estimate."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from dl3flow.kernels.statistics import TRUNCATION


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
        Cash statistic at the best strength and at zero.
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


def fit_norm(
    n: np.ndarray, s: np.ndarray, b: np.ndarray, n_sigma: float = 1.0, n_sigma_ul: float = 2.0
) -> NormFit:
    """Fit c in n ~ Poisson(c s + b).

    The Cash statistic is convex in c: its derivative 2 (sum s - sum n s / (c s + b)) has at most one zero between the
    strength at which the first prediction turns negative and sum n / sum s.

    Parameters
    ----------
    n, s, b : array, shape (m,)
        Counts, signal at strength one and background of the bins; s >= 0, b >= 0.
    n_sigma, n_sigma_ul : float
        Of the errors and of the upper limit.

    Returns
    -------
    fit : NormFit
        All NaN where the signal is zero in every bin.
    """
    reached = s > 0
    total = float(s.sum())
    if not reached.any():
        value = _cash(n, b)
        return NormFit(np.nan, np.nan, np.nan, np.nan, np.nan, value, value)
    occupied = n > 0
    low = -float((b[reached] / s[reached]).min())

    def stat(c: float) -> float:
        return _cash(n, c * s + b)

    def slope(c: float) -> float:
        with np.errstate(divide="ignore"):
            return total - float(
                (n[occupied] * s[occupied] / np.maximum(c * s + b, TRUNCATION)[occupied]).sum()
            )

    high = max(float(n.sum()) / total, low) + 1e-12 * abs(low)
    if slope(low) >= 0 or high <= low:
        best = low
    else:
        best = float(brentq(slope, low, high, xtol=1e-15 * max(abs(high), abs(low)), rtol=1e-13, maxiter=500))
    at_best = stat(best)
    curvature = float(
        (n[occupied] * (s[occupied] / np.maximum(best * s + b, TRUNCATION)[occupied]) ** 2).sum()
    )
    err = 1 / np.sqrt(curvature) if curvature > 0 and best > low else np.nan

    def crossing(start: float, rise: float) -> float:
        target = stat(start) + rise
        # beyond a rise of `rise` for a linear statistic 2 c sum(s), and for a parabola of the present curvature
        step = rise / (2 * total) + (np.sqrt(rise) * err if np.isfinite(err) else 0.0)
        end = start + step
        while stat(end) < target:
            step *= 2
            end = start + step
        return float(brentq(lambda c: stat(c) - target, start, end, rtol=1e-12))

    errn = np.nan
    if best > low and stat(low) - at_best > n_sigma**2:
        errn = best - float(brentq(lambda c: stat(c) - at_best - n_sigma**2, low, best, rtol=1e-12))
    return NormFit(
        norm=best,
        err=err,
        errn=errn,
        errp=crossing(best, n_sigma**2) - best,
        ul=crossing(max(best, 0.0), n_sigma_ul**2),
        stat=at_best,
        stat_null=stat(0.0),
    )


def _cash(n: np.ndarray, mu: np.ndarray) -> float:
    cut = np.maximum(mu, TRUNCATION)
    occupied = n > 0
    return float(2 * (cut.sum() - (n[occupied] * np.log(cut[occupied])).sum()))
