"""Steps of Newton's method within limits."""

import numpy as np

# a pivot of the scaled matrix below this is no number
_SMALLEST = 1e-14


def bounded_step(gradient: np.ndarray, hessian: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Minimum of gradient . d + d . hessian . d / 2 over low <= d <= high, with the active limits found one by one.

    Parameters
    ----------
    gradient : array, shape (n,)
    hessian : array, shape (n, n)
        Positive definite.
    low, high : array, shape (n,)
        low <= 0 <= high; infinite for none.

    Returns
    -------
    step : array, shape (n,)
    """
    n = len(gradient)
    step = np.zeros(n)
    fixed = ((low >= 0) & (gradient > 0)) | ((high <= 0) & (gradient < 0))
    for _ in range(3 * n + 3):
        free = ~fixed
        if free.any():
            right = -gradient[free] - hessian[np.ix_(free, fixed)] @ step[fixed]
            wanted = solve(hessian[np.ix_(free, free)], right)
            outside = (wanted < low[free]) | (wanted > high[free])
            if outside.any():
                # go as far as the first limit on the way, and hold that one
                change = wanted - step[free]
                room = np.where(change < 0, low[free] - step[free], high[free] - step[free])
                share = np.where(outside & (change != 0), room / np.where(change == 0, 1.0, change), np.inf)
                first = int(np.argmin(share))
                moved = step[free] + np.clip(share[first], 0.0, 1.0) * change
                moved[first] = low[free][first] if change[first] < 0 else high[free][first]
                step[free] = moved
                fixed[np.flatnonzero(free)[first]] = True
                continue
            step[free] = wanted
        slope = gradient + hessian @ step
        loose = fixed & (((step <= low) & (slope < 0)) | ((step >= high) & (slope > 0))) & (low < high)
        if not loose.any():
            break
        fixed[np.flatnonzero(loose)[np.argmax(np.abs(slope[loose]))]] = False
    return np.clip(step, low, high)


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of a positive definite system, scaled so that units play no part; directions without curvature stay put.

    NaN where the system has entries that are no numbers.
    """
    if not len(matrix) or not (np.isfinite(matrix).all() and np.isfinite(right).all()):
        return np.full(right.shape, np.nan)
    scale = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = matrix / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(scaled)
    keep = values > _SMALLEST * max(values[-1], 1.0)
    inverse = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T
    columns = right / (scale if right.ndim == 1 else scale[:, None])
    found = inverse @ columns
    return np.asarray(found / (scale if right.ndim == 1 else scale[:, None]))
