"""Poisson statistics: Cash, significance, background norms."""

import numpy as np

# expectation below which the logarithm is cut (gammapy's convention, so that totals compare)
TRUNCATION = 1e-25
_MAX_ITERATIONS = 100


def cash(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Cash statistic 2 (mu - n ln mu) per bin, with mu cut at 1e-25. Cash (1979), equation 6."""
    cut = np.maximum(mu, TRUNCATION)
    return np.asarray(2 * (cut - n * np.log(cut)))


def cash_ts(n: np.ndarray, mu_bkg: np.ndarray) -> np.ndarray:
    """Test statistic of an excess over a known background: 2 (mu_bkg - n + n ln(n / mu_bkg)) per bin.

    Zero for no counts on no background, NaN for counts where no background is known.
    """
    good = mu_bkg > 0
    b = np.where(good, mu_bkg, 1.0)
    log_ratio = np.log(np.where(n > 0, n, 1.0) / b)
    unknown = np.where(n > 0, np.nan, 0.0)
    return np.where(good, 2 * (b - n + np.where(n > 0, n * log_ratio, 0.0)), unknown)


def wstat_background(
    n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray
) -> np.ndarray:
    """Expected off counts that maximise the likelihood of an on and an off measurement at a given signal.

    The positive root of a quadratic equation, in a form that keeps its digits and holds for n_on = 0, n_off = 0 and a
    negative signal too. XSPEC manual, appendix B, "Poisson data with Poisson background" (its f is this, in on units).

    Parameters
    ----------
    n_on, n_off, alpha, mu_sig : array
        Counts, acceptance ratio (above 0) and expected signal of the bins.

    Returns
    -------
    mu_off : array
    """
    c = alpha * (n_on + n_off) - (1 + alpha) * mu_sig
    d = np.hypot((1 + alpha) * mu_sig - alpha * (n_on - n_off), 2 * alpha * np.sqrt(n_on * n_off))
    with np.errstate(divide="ignore", invalid="ignore"):
        # for c < 0 the sum c + d cancels
        small = np.where(d > c, 2 * n_off * mu_sig / (d - c), 0.0)
    return np.asarray(np.where(c >= 0, (c + d) / (2 * alpha * (1 + alpha)), np.maximum(small, 0.0)))


def wstat(n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray) -> np.ndarray:
    """Statistic of counts whose background is measured: 2 (ln L_saturated - ln L) per bin, the background profiled out.

    0 where alpha is 0: no background was measured there.

    Parameters
    ----------
    n_on, n_off, alpha, mu_sig : array
        As in `wstat_background`.
    """
    measured, a = _measured(alpha)
    value = _value(n_on, n_off, a, mu_sig, wstat_background(n_on, n_off, a, mu_sig))
    return np.asarray(np.where(measured, value, 0.0))


def wstat_slope(n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray) -> np.ndarray:
    """Derivative of `wstat` by the signal, 2 (1 - n_on / mu_on): the profiled background does not contribute."""
    measured, a = _measured(alpha)
    slope = _slope(n_on, n_off, a, mu_sig, wstat_background(n_on, n_off, a, mu_sig))
    return np.asarray(np.where(measured, slope, 0.0))


def wstat_curvature(n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray) -> np.ndarray:
    """Second derivative of `wstat` by the signal."""
    measured, a = _measured(alpha)
    curvature = _curvature(n_on, n_off, a, mu_sig, wstat_background(n_on, n_off, a, mu_sig))
    return np.asarray(np.where(measured, curvature, 0.0))


def wstat_derivatives(
    n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`wstat`, `wstat_slope` and `wstat_curvature`, with the background profiled once."""
    measured, a = _measured(alpha)
    mu_off = wstat_background(n_on, n_off, a, mu_sig)
    found = [part(n_on, n_off, a, mu_sig, mu_off) for part in (_value, _slope, _curvature)]
    if not measured.all():
        found = [np.where(measured, part, 0.0) for part in found]
    return found[0], found[1], found[2]


def _measured(alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a background was measured, and alpha with 1 elsewhere."""
    measured = np.asarray(alpha > 0)
    return measured, alpha if measured.all() else np.where(measured, alpha, 1.0)


def _value(
    n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray, mu_off: np.ndarray
) -> np.ndarray:
    mu_on = mu_sig + alpha * mu_off
    return np.asarray(2 * (mu_on + mu_off - n_on - n_off + _n_log(n_on, mu_on) + _n_log(n_off, mu_off)))


def _slope(
    n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray, mu_off: np.ndarray
) -> np.ndarray:
    mu_on = mu_sig + alpha * mu_off
    slope = 2 * (1 - n_on / np.maximum(mu_on, TRUNCATION))
    empty = n_on <= 0
    if not np.any(empty):
        return np.asarray(slope)
    cancelled = -2 / alpha - 2 * n_off / np.where(mu_sig < 0, mu_sig, -1.0)
    without = np.where(_is_cancelled(n_off, alpha, mu_sig), cancelled, 2.0)
    return np.asarray(np.where(empty, without, slope))


def _curvature(
    n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray, mu_off: np.ndarray
) -> np.ndarray:
    mu_on = mu_sig + alpha * mu_off
    inner = (1 + alpha) * mu_sig - alpha * (n_on - n_off)
    d = np.hypot(inner, 2 * alpha * np.sqrt(n_on * n_off))
    ratio = np.where(d > 0, inner / np.where(d > 0, d, 1.0), 1.0)
    # d(mu_on)/d(mu_sig) = 1 + alpha d(mu_off)/d(mu_sig)
    by_signal = 0.5 * (1 + ratio)
    curvature = 2 * n_on * by_signal / np.maximum(mu_on, TRUNCATION) ** 2
    empty = n_on <= 0
    if not np.any(empty):
        return np.asarray(curvature)
    cancelled = 2 * n_off / np.where(mu_sig < 0, mu_sig, -1.0) ** 2
    return np.asarray(
        np.where(empty, np.where(_is_cancelled(n_off, alpha, mu_sig), cancelled, 0.0), curvature)
    )


def _is_cancelled(n_off: np.ndarray, alpha: np.ndarray, mu_sig: np.ndarray) -> np.ndarray:
    """True where, without on counts, a negative signal takes the whole background: nothing is expected, mu_off = -mu_sig / alpha."""
    # by the sign of this sum, not of mu_on, a rounded difference
    return np.asarray((1 + alpha) * mu_sig + alpha * n_off < 0)


def wstat_ts(n_on: np.ndarray, n_off: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Test statistic of an excess over a measured background: `wstat` without signal. Li and Ma (1983), equation 17 squared."""
    return wstat(n_on, n_off, alpha, np.zeros(np.broadcast(n_on, n_off, alpha).shape))


def _n_log(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """The terms n ln(n / mu), zero for n = 0."""
    return np.asarray(
        np.where(
            n > 0, n * np.log(np.where(n > 0, n, 1.0) / np.where(n > 0, np.maximum(mu, TRUNCATION), 1.0)), 0.0
        )
    )


def fit_background_norm(
    counts: np.ndarray,
    background: np.ndarray,
    known: np.ndarray,
    mask: np.ndarray,
    energy: np.ndarray,
    use_tilt: bool,
) -> dict[str, float]:
    """Maximum-likelihood norm (and tilt) of a background next to known signal, by Newton's method in ln norm.

    Parameters
    ----------
    counts, background, known : array, shape (n_energy, n_lat, n_lon)
    mask : bool array of that shape
    energy : array, shape (n_energy,), TeV
        Bin centres; the tilt's reference is 1 TeV.
    use_tilt : bool
        Counts at one energy alone say nothing of it: it stays 0 then, with an error of 0.

    Returns
    -------
    found : dict with norm, norm_err, tilt, tilt_err
    """
    occupied = mask & (counts > 0)
    row = np.nonzero(occupied)[0]
    n, b, s = counts[occupied], background[occupied], known[occupied]
    total = np.where(mask, background, 0.0).sum(axis=(1, 2))
    log_energy = np.log(energy)
    x = np.zeros(2)
    x[0] = np.log(max(n.sum() - known[mask].sum(), 1e-3 * n.sum()) / total.sum())
    has_tilt = use_tilt and np.count_nonzero(total > 0) > 1 and len(np.unique(row[b > 0])) > 1
    free = slice(0, 2) if has_tilt else slice(0, 1)
    hessian = np.eye(2)

    def value(y: np.ndarray) -> float:
        weight = np.exp(y[0] - y[1] * log_energy)
        return float((weight * total).sum() - (n * np.log(np.maximum(weight[row] * b + s, TRUNCATION))).sum())

    for _ in range(_MAX_ITERATIONS):
        weight = np.exp(x[0] - x[1] * log_energy)
        be = weight[row] * b
        ratio = be / np.maximum(be + s, TRUNCATION)
        slopes = np.array([np.ones_like(log_energy), -log_energy])
        gradient = (slopes * (weight * total)).sum(axis=1) - (slopes[:, row] * (n * ratio)).sum(axis=1)
        curvature = n * ratio**2
        hessian = np.einsum("ae,be,e->ab", slopes, slopes, np.bincount(row, curvature, len(energy)))
        step = np.zeros(2)
        step[free] = -np.linalg.solve(hessian[free, free], gradient[free])
        step = np.clip(step, -1.0, 1.0)
        start = value(x)
        while value(x + step) > start + 1e-9 * abs(start) and np.abs(step).max() > 1e-10:
            step /= 2
        x = x + step
        if np.abs(step).max() < 1e-10:
            break
    errors = np.zeros(2)
    errors[free] = np.sqrt(np.diag(np.linalg.inv(hessian[free, free])))
    norm = float(np.exp(x[0]))
    return {
        "norm": norm,
        "norm_err": norm * float(errors[0]),
        "tilt": float(x[1]),
        "tilt_err": float(errors[1]),
    }
