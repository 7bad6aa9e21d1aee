"""Bayesian blocks: the best cut of a series into parts of constant strength."""

import numpy as np


def false_alarm_penalty(p0: float, n_bins: int) -> float:
    """What a further block must gain in log-likelihood, so that a constant series is cut with the probability ``p0``.

    Scargle et al. (2013), ApJ 764, 167, equation 21.
    """
    return float(4 - np.log(73.53 * p0 * n_bins**-0.478))


def best_blocks(stat: np.ndarray, norms: np.ndarray, penalty: float) -> list[int]:
    """First bin of each block of the cut with the largest likelihood.

    Each block has one strength, at its own best, for all of its bins: the fitness is the likelihood of the bins itself, not
    of Gaussian measurements, so bins with few counts weigh as they should. The search is that of Scargle et al. (2013),
    section 2.6, exact in n^2 steps.

    Parameters
    ----------
    stat : array, shape (n_series, n_bins, n_norms)
        -2 log L of each bin at common strengths; several series are cut at the same places.
    norms : array, shape (n_series, n_norms)
        The strengths, increasing.
    penalty : float
        Of each block, in log-likelihood.

    Returns
    -------
    starts : list of int
    """
    n_bins = stat.shape[1]
    best, last = np.zeros(n_bins + 1), np.zeros(n_bins, dtype=int)
    # sums over the bins k .. r of each possible last block
    sums = np.zeros((stat.shape[0], n_bins, stat.shape[2]))
    for r in range(n_bins):
        sums[:, : r + 1] += stat[:, r : r + 1]
        fitness = -0.5 * sum(_least(of[: r + 1], x) for of, x in zip(sums, norms, strict=True))
        total = fitness - penalty + best[: r + 1]
        last[r] = int(np.argmax(total))
        best[r + 1] = total[last[r]]
    starts = [int(last[-1])]
    while starts[0] > 0:
        starts.insert(0, int(last[starts[0] - 1]))
    return starts


def _least(stat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Least value of each row, of the parabola through the least point and its neighbours."""
    least = stat.min(axis=1)
    if stat.shape[1] < 3:
        return np.asarray(least)
    k = np.clip(stat.argmin(axis=1), 1, stat.shape[1] - 2)
    rows = np.arange(len(stat))
    low, middle, high = (stat[rows, k + d] for d in (-1, 0, 1))
    h0, h1 = x[k] - x[k - 1], x[k + 1] - x[k]
    # strengths may coincide, which leaves the least point as it is
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (middle - low) / h0, (high - middle) / h1
        curvature = (right - left) / (h0 + h1)
        slope = left + curvature * h0
        step = -slope / (2 * curvature)
        found = middle - slope**2 / (4 * curvature)
    is_inside = (curvature > 0) & (step > -h0) & (step < h1)
    return np.asarray(np.minimum(np.where(is_inside, found, least), least))
