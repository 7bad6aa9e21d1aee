"""Integrals over energy bins."""

from functools import lru_cache

import numpy as np

# stands for a logarithm of minus infinity, whose differences are no numbers
_LOG_ZERO = -1e4
# below this change of the logarithm over a bin the difference quotient cancels
_FLAT = 1e-4


def power_law_integral(edges: np.ndarray, log_values: np.ndarray, floor: float = -np.inf) -> np.ndarray:
    """Integral between neighbouring edges of the power law through the values there.

    Parameters
    ----------
    edges : array, shape (n + 1,), positive
    log_values : array, shape (..., n + 1)
        Natural logarithm of the integrand at the edges.
    floor : float
        Logarithms at or below it are those of zero, which makes the adjoining bins zero.

    Returns
    -------
    integral : array, shape (..., n)
    """
    log_edges = np.log(edges)
    log_values = np.asarray(log_values, dtype=float)
    v = np.maximum(log_values, _LOG_ZERO)
    v += log_edges
    v = v.reshape(-1)
    f = np.exp(v)
    # differences along the last axis, taken over the flat array: one long loop; those across its rows are not used
    dv, integral = np.empty(v.shape), np.empty(v.shape)
    np.subtract(v[1:], v[:-1], out=dv[:-1])
    np.subtract(f[1:], f[:-1], out=integral[:-1])
    dv[-1] = integral[-1] = 1.0
    flat = np.flatnonzero(np.abs(dv[:-1]) < _FLAT)
    dv[flat], step = 1.0, dv[flat]
    integral /= dv
    # mean of the exponential to second order
    integral[flat] = np.exp(0.5 * (v[flat] + v[flat + 1])) * (1 + step**2 / 24)
    positive = (log_values > floor).reshape(-1)
    if not positive.all():
        integral[:-1] *= positive[1:] & positive[:-1]
    integral = integral.reshape(log_values.shape)
    integral *= np.append(np.diff(log_edges), 1.0)
    return integral[..., :-1]


def gauss_legendre_bins(edges: np.ndarray, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights that integrate smooth functions over bins, with n points in the logarithm of each bin.

    Parameters
    ----------
    edges : array, shape (m + 1,), positive
    n : int

    Returns
    -------
    points, weights : array, shape (m, n)
        The integral over bin i is sum_k weights[i, k] f(points[i, k]).
    """
    x, w = _legendre(n)
    log_edges = np.log(edges)
    half = 0.5 * np.diff(log_edges)[:, None]
    points = np.exp(0.5 * (log_edges[1:] + log_edges[:-1])[:, None] + half * x)
    return points, half * w * points


@lru_cache(maxsize=8)
def _legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on [-1, 1]."""
    x, w = np.polynomial.legendre.leggauss(n)
    return x, w
