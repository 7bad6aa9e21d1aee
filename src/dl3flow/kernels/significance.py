"""Probability of a test statistic as deviations of a Gaussian variable, far into the tail."""

import numpy as np
from scipy.special import gammaincc, gammaln, ndtri_exp

# below this probability the incomplete gamma function nears the smallest float, and its logarithm is taken another way
_SMALL = 1e-280
_TERMS = 300


def chi2_sigma(ts: np.ndarray, n_dof: np.ndarray) -> np.ndarray:
    """Two-sided deviations of a Gaussian variable that are as rare as chi2 of ``n_dof`` degrees of freedom above ``ts``.

    sqrt(ts) for one degree of freedom; 0 without any.

    Parameters
    ----------
    ts, n_dof : array
        Not negative.
    """
    ts, n_dof = (np.asarray(v, dtype=float) for v in np.broadcast_arrays(ts, n_dof))
    usable = (n_dof > 0) & (ts > 0)
    a, x = np.where(usable, n_dof, 1.0) / 2, np.where(usable, ts, 1.0) / 2
    tail = np.asarray(gammaincc(a, x))
    log_p = np.array(np.log(np.maximum(tail, _SMALL)))
    is_far = tail <= _SMALL
    if is_far.any():
        log_p[is_far] = _log_far_tail(a[is_far], x[is_far])
    return np.where(usable, np.maximum(-ndtri_exp(np.minimum(log_p - np.log(2.0), 0.0)), 0.0), 0.0)


def _log_far_tail(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Logarithm of the upper incomplete gamma function, normalised, for x far above a: NIST DLMF 8.9.2 as a fraction."""
    fraction = x + 2 * _TERMS + 1 - a
    for k in range(_TERMS, 0, -1):
        fraction = x + 2 * k - 1 - a - k * (k - a) / fraction
    return np.asarray(a * np.log(x) - x - gammaln(a) - np.log(fraction))
