"""Integrals over energy bins."""

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
    positive = log_values > floor
    v = np.maximum(log_values, _LOG_ZERO) + log_edges
    # differences along the last axis, taken over the flat array: one long loop; those across its rows are not used
    dv, df = np.ones(v.shape), np.ones(v.shape)
    f = np.exp(v)
    np.subtract(v.reshape(-1)[1:], v.reshape(-1)[:-1], out=dv.reshape(-1)[:-1])
    np.subtract(f.reshape(-1)[1:], f.reshape(-1)[:-1], out=df.reshape(-1)[:-1])
    flat = np.flatnonzero(np.abs(dv.reshape(-1)[:-1]) < _FLAT)
    dv.reshape(-1)[flat], step = 1.0, dv.reshape(-1)[flat]
    df /= dv
    # mean of the exponential to second order
    middle = 0.5 * (v.reshape(-1)[flat] + v.reshape(-1)[flat + 1])
    df.reshape(-1)[flat] = np.exp(middle) * (1 + step**2 / 24)
    integral = df[..., :-1] * np.diff(log_edges)
    if not positive.all():
        integral *= positive[..., 1:] & positive[..., :-1]
    return np.asarray(integral)


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
