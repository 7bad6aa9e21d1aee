"""Random numbers from tabulated distributions: inverse cumulative sums, of one row or of rows mixed for each draw."""

import numpy as np


def nearest_nodes(nodes: np.ndarray, x: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The two nodes around each point and their weights: `interpolate.hat_matrix` without its zeros.

    Parameters
    ----------
    nodes : array, shape (m,), increasing
    x : array, shape (n,)
    low, high : float
        Limits of validity.

    Returns
    -------
    places : int array, shape (2, n)
        Twice the only node where there is one.
    weights : array, shape (2, n)
        Zero outside [low, high].
    """
    x = np.asarray(x, dtype=float)
    if len(nodes) == 1:
        return np.zeros((2, len(x)), dtype=int), np.array([np.ones(len(x)), np.zeros(len(x))])
    tolerance = 1e-10 * max(abs(low), abs(high), 1.0)
    inside = (x >= low - tolerance) & (x <= high + tolerance)
    left = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    fraction = (x - nodes[left]) / (nodes[left + 1] - nodes[left])
    return np.array([left, left + 1]), np.array([1 - fraction, fraction]) * inside


def invert_mixture(
    cumulative: np.ndarray, rows: np.ndarray, weights: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cell of each draw from the density that interpolates tabulated ones, and its place in the cell.

    The cumulative sum of draw i is ``sum_k weights[k, i] cumulative[rows[k, i]]``. It is bisected, so that a weight below
    zero (an extrapolation) does no harm as long as the sum grows.

    Parameters
    ----------
    cumulative : array, shape (n_rows, n_cells + 1)
        From 0; rows need not end at 1.
    rows : int array, shape (k, n)
    weights : array, shape (k, n)
    uniform : array, shape (n,)
        In [0, 1).

    Returns
    -------
    cell : int array, shape (n,)
    fraction : array, shape (n,)
        In [0, 1]; NaN where the density is zero everywhere.
    """
    n_edges = cumulative.shape[1]
    flat, starts = cumulative.ravel(), rows * n_edges

    def at(edge: np.ndarray) -> np.ndarray:
        return np.asarray((weights * flat[starts + edge]).sum(axis=0))

    total = at(np.full(len(uniform), n_edges - 1))
    target = uniform * total
    low, high = np.zeros(len(uniform), dtype=int), np.full(len(uniform), n_edges - 1)
    for _ in range(int(np.ceil(np.log2(max(n_edges - 1, 1)))) + 1):
        middle = (low + high) // 2
        is_below = at(middle) <= target
        is_open = high - low > 1
        low = np.where(is_open & is_below, middle, low)
        high = np.where(is_open & ~is_below, middle, high)
    below, above = at(low), at(low + 1)
    width = above - below
    fraction = np.divide(target - below, width, out=np.full(len(uniform), np.nan), where=width > 0)
    return low, np.where(total > 0, np.clip(fraction, 0.0, 1.0), np.nan)


def draw_cells(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Cell of each draw from one list of contents, given their cumulative sum; never an empty cell.

    Parameters
    ----------
    cumulative : array, shape (n_cells,)
        Ends at the total, which must be above 0.
    uniform : array, shape (n,)
        In [0, 1).
    """
    target = uniform * cumulative[-1]
    # in their order, as each search then finds in the processor's cache what the last one left there
    order = np.argsort(target)
    cell = np.empty(len(target), dtype=int)
    cell[order] = np.searchsorted(cumulative, target[order], side="right")
    # a uniform number just below 1 may round to the end of the last filled cell
    return np.asarray(np.minimum(cell, np.searchsorted(cumulative, cumulative[-1])))
