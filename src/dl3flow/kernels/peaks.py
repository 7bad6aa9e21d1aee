"""Local maxima of an image."""

import numpy as np
import scipy

_EDGE = 1e-9


def find_peaks(image: np.ndarray, threshold: float, radius: float) -> list[tuple[int, int]]:
    """Pixels above a threshold that are the largest within ``radius`` pixels, the largest first.

    Of equal ones within the radius that in their middle counts; a plateau without anything lower around it is no peak.

    Parameters
    ----------
    image : array, shape (n_y, n_x)
        NaN where nothing is known.
    threshold : float
    radius : float

    Returns
    -------
    peaks : list of (row, column)
    """
    values = np.where(np.isfinite(image), image, -np.inf)
    is_candidate = (values > threshold) & (values >= scipy.ndimage.maximum_filter(values, size=3))
    candidates = np.argwhere(is_candidate)
    order = np.argsort(-values[is_candidate], kind="stable")
    reach = int(np.floor(radius + _EDGE))
    found: list[tuple[int, int]] = []
    for j, i in candidates[order].tolist():
        top, left = max(j - reach, 0), max(i - reach, 0)
        part = values[top : j + reach + 1, left : i + reach + 1]
        y, x = np.indices(part.shape) + np.array([top, left])[:, None, None]
        near = (np.hypot(y - j, x - i) <= radius + _EDGE) & np.isfinite(part)
        around = part[near]
        is_alone = all(np.hypot(j - other[0], i - other[1]) > radius + _EDGE for other in found)
        if is_alone and around.max() <= values[j, i] and around.min() < values[j, i]:
            rows, columns = y[near & (part == values[j, i])], x[near & (part == values[j, i])]
            middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
            found.append((int(rows[middle]), int(columns[middle])))
    return found
