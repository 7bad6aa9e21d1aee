"""Integrals over energy bins."""

import numpy as np


def power_law_integral(edges: np.ndarray, log_values: np.ndarray) -> np.ndarray:
    """Integral between neighbouring edges of the power law through the values there.

    Parameters
    ----------
    edges : array, shape (n + 1,), positive
    log_values : array, shape (n + 1, ...)
        Natural logarithm of the integrand at the edges; -inf for zero, which makes the adjoining bins zero.

    Returns
    -------
    integral : array, shape (n, ...)
    """
    log_edges = np.log(edges).reshape(-1, *[1] * (log_values.ndim - 1))
    width = np.diff(log_edges, axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        v = log_values + log_edges
        difference = v[1:] - v[:-1]
        small = np.abs(difference) < 1e-4
        general = (np.exp(v[1:]) - np.exp(v[:-1])) / np.where(small, 1.0, difference)
        # mean of the exponential to second order where the difference quotient cancels
        series = np.exp(0.5 * (v[1:] + v[:-1])) * (1 + difference**2 / 24)
        integral = width * np.where(small, series, general)
    return np.where(np.isfinite(log_values[1:]) & np.isfinite(log_values[:-1]), integral, 0.0)


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
    x, w = np.polynomial.legendre.leggauss(n)
    log_edges = np.log(edges)
    half = 0.5 * np.diff(log_edges)[:, None]
    points = np.exp(0.5 * (log_edges[1:] + log_edges[:-1])[:, None] + half * x)
    return points, half * w * points
