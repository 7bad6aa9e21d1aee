"""Local maxima of an image."""

import numpy as np
import scipy

_EDGE = 1e-9


def find_peaks(image: np.ndarray, threshold: float, radius: float) -> list[tuple[int, int]]:
    """Pixels above a threshold that are the largest within ``radius`` pixels, the largest first.

    Of equal ones that are neighbours the first counts; a plateau without anything lower around it is no peak.

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
    rows, columns = np.nonzero(is_candidate)
    order = np.argsort(-values[rows, columns], kind="stable")
    reach = int(np.floor(radius + _EDGE))
    found: list[tuple[int, int]] = []
    for j, i in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        top, left = max(j - reach, 0), max(i - reach, 0)
        part = values[top : j + reach + 1, left : i + reach + 1]
        y, x = np.indices(part.shape)
        around = part[np.hypot(y + top - j, x + left - i) <= radius + _EDGE]
        around = around[np.isfinite(around)]
        is_alone = all(np.hypot(j - other[0], i - other[1]) > radius + _EDGE for other in found)
        if is_alone and around.max() <= values[j, i] and around.min() < values[j, i]:
            found.append((j, i))
    return found
