"""Gaussian of a set of values, its tails left out: what the significance of a background should be."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from scipy.special import ndtr

# the core within so many robust deviations is fitted: what lies beyond is no background
_CORE = 3.0
_FEWEST = 20
# deviation of a Gaussian variable from the median absolute deviation
_MAD = 1.482602218505602


@dataclass(frozen=True)
class GaussianFit:
    """Mean and width of the Gaussian under the core of a distribution, with their errors.

    Attributes
    ----------
    mean, mean_err, width, width_err : float
    n : int
        Values in the core.
    low, high : float
        Ends of the core.
    """

    mean: float
    mean_err: float
    width: float
    width_err: float
    n: int
    low: float
    high: float


def fit_gaussian(values: np.ndarray, shared: float = 1.0, shared_square: float = 1.0) -> GaussianFit | None:
    """Maximum-likelihood Gaussian of the values within three robust deviations of their median.

    The likelihood is that of a Gaussian cut at the ends of this core, so that the cut makes it no narrower. It depends on
    the mean and the variance in the core alone (Cohen 1950): no bins are chosen.

    Parameters
    ----------
    values : array, shape (n,)
        Finite.
    shared, shared_square : float
        Sum over all values of their correlation with one of them, and of its square: the variances of mean and width grow
        by them. 1 for independent values.

    Returns
    -------
    fit : GaussianFit or None
        None for fewer than 20 values, values without a width, or a distribution without a peak.
    """
    middle = float(np.median(values)) if len(values) else 0.0
    spread = _MAD * float(np.median(np.abs(values - middle))) if len(values) else 0.0
    low, high = middle - _CORE * spread, middle + _CORE * spread
    core = values[(values >= low) & (values <= high)]
    if len(core) < _FEWEST or not spread > 0 or not core.std() > 0:
        return None
    n, mean, square = len(core), float(core.mean()), float((core**2).mean())

    def cost(x: np.ndarray) -> float:
        """Minus the logarithm of the likelihood, per value."""
        mu, sigma = x[0], np.exp(x[1])
        inside = ndtr((high - mu) / sigma) - ndtr((low - mu) / sigma)
        if not inside > 0:
            return np.inf
        return float((square - 2 * mu * mean + mu**2) / (2 * sigma**2) + x[1] + np.log(inside))

    start = np.array([mean, np.log(core.std())])
    found = scipy.optimize.minimize(
        cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 2000}
    )
    mu, width = float(found.x[0]), float(np.exp(found.x[1]))
    if not (low < mu < high and width < high - low):
        return None
    curvature = _second_derivatives(cost, found.x, np.array([1e-4 * width, 1e-4]))
    if not np.linalg.eigvalsh(curvature).min() > 0:
        return None
    covariance = np.linalg.inv(curvature) / n
    mean_err = float(np.sqrt(covariance[0, 0] * max(shared, 1.0)))
    return GaussianFit(
        mu, mean_err, width, width * float(np.sqrt(covariance[1, 1] * max(shared_square, 1.0))), n, low, high
    )


def _second_derivatives(cost: Callable[[np.ndarray], float], x: np.ndarray, step: np.ndarray) -> np.ndarray:
    found = np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            a, b = np.eye(2)[i] * step[i], np.eye(2)[j] * step[j]
            found[i, j] = (cost(x + a + b) - cost(x + a - b) - cost(x - a + b) + cost(x - a - b)) / (
                4 * step[i] * step[j]
            )
    return found


def sums_of_correlation(kernel: np.ndarray) -> tuple[float, float]:
    """Sum over all pixels of the correlation of two sums over ``kernel``, and of its square, for independent pixels."""
    overlap = scipy.signal.fftconvolve(kernel, kernel[::-1, ::-1]) / (kernel**2).sum()
    return float(overlap.sum()), float((overlap**2).sum())
