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
    free = slice(0, 2) if use_tilt and np.count_nonzero(total > 0) > 1 else slice(0, 1)
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
