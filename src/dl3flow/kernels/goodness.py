"""What a Poisson statistic should be where the model is right: its mean and variance, and groups of bins for chi2."""

from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import gammaincc, gammaln

from dl3flow.kernels.statistics import cash_ts

# expectations between these are interpolated: below, at most one count matters; above, the statistic is that of a Gaussian
_LOWEST, _HIGHEST = 1e-12, 1e5
_N_GRID = 400
# Poisson probabilities further from the mean are below 1e-17
_REACH = 12.0


def cash_moments(mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of 2 (mu - n + n ln(n / mu)) for Poisson counts n of expectation mu.

    Interpolated between exact sums; 1 and 2 for many counts, -2 mu ln mu and smaller for few. Kaastra (2017, A&A 605, A51),
    section 3, approximates these.
    """
    mean, variance = _moment_splines()
    inside = np.clip(mu, _LOWEST, _HIGHEST)
    x = np.log(inside)
    known = np.asarray(mu) >= _LOWEST
    return np.where(known, np.exp(mean(x)), 0.0), np.where(known, np.exp(variance(x)), 0.0)


@lru_cache(maxsize=1)
def _moment_splines() -> tuple[CubicSpline, CubicSpline]:
    grid = np.geomspace(_LOWEST, _HIGHEST, _N_GRID)
    moments = np.log(np.array([exact_cash_moments(mu) for mu in grid]))
    return CubicSpline(np.log(grid), moments[:, 0]), CubicSpline(np.log(grid), moments[:, 1])


def exact_cash_moments(mu: float) -> tuple[float, float]:
    """`cash_moments` of one expectation above 0, by summing over the counts."""
    reach = _REACH * np.sqrt(mu) + 30
    n = np.arange(max(0, int(mu - reach)), int(mu + reach) + 1, dtype=float)
    probability = np.exp(n * np.log(mu) - mu - gammaln(n + 1))
    value = cash_ts(n, np.full(n.shape, mu))
    mean = float(probability @ value)
    return mean, float(probability @ (value - mean) ** 2)


def p_value_of_moments(value: float, mean: float, variance: float) -> float:
    """Probability of at least ``value`` for a sum of squares of that mean and variance.

    That of a gamma distribution with these moments: chi2 where the variance is twice the mean, a Gaussian for many terms.
    """
    if not (mean > 0 and variance > 0):
        return float("nan")
    return float(gammaincc(mean**2 / variance, max(value, 0.0) * mean / variance))


def group_starts(expected: np.ndarray, at_least: float) -> np.ndarray:
    """First bin of each group of neighbours that together expect ``at_least``; what is left over joins the last group.

    Parameters
    ----------
    expected : array, shape (n,), not negative
    at_least : float

    Returns
    -------
    starts : int array, for `numpy.add.reduceat`
    """
    if not len(expected):
        return np.zeros(0, dtype=int)
    starts, filled = [0], 0.0
    total = np.concatenate([[0.0], np.cumsum(expected)])
    while True:
        # first bin by which the group is full
        end = int(np.searchsorted(total, filled + at_least * (1 - 1e-12), side="left"))
        if end >= len(expected) or total[-1] - total[end] < at_least * (1 - 1e-12):
            return np.array(starts)
        starts.append(end)
        filled = total[end]
