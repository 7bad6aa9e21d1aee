"""Linear interpolation on a rectilinear grid as products of small matrices."""

import numpy as np


def hat_matrix(nodes: np.ndarray, x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Weights that interpolate node values linearly at ``x``.

    Values between ``low`` and the first node, and between the last node and ``high``, are extrapolated from the
    outermost two nodes; outside [low, high] all weights are zero. A single node is a constant.

    Parameters
    ----------
    nodes : array, shape (m,), increasing
    x : array, any shape (n...)
    low, high : float
        Limits of validity.

    Returns
    -------
    weights : array, shape (n..., m)
    """
    x = np.asarray(x, dtype=float)
    weights = np.zeros((*x.shape, len(nodes)))
    flat, points = weights.reshape(-1, len(nodes)), x.reshape(-1)
    if len(nodes) == 1:
        flat[:, 0] = 1.0
        return weights
    tolerance = 1e-10 * max(abs(low), abs(high), 1.0)
    inside = (points >= low - tolerance) & (points <= high + tolerance)
    left = np.clip(np.searchsorted(nodes, points, side="right") - 1, 0, len(nodes) - 2)
    fraction = (points - nodes[left]) / (nodes[left + 1] - nodes[left])
    rows = np.nonzero(inside)[0]
    flat[rows, left[rows]] = 1 - fraction[rows]
    flat[rows, left[rows] + 1] = fraction[rows]
    return weights
