"""Local maxima of images drawn by hand."""

import numpy as np

from dl3flow.kernels.peaks import find_peaks


def test_the_largest_of_a_neighbourhood() -> None:
    image = np.zeros((20, 20))
    image[5, 5], image[5, 7], image[15, 15], image[0, 19] = 9, 7, 8, 6
    assert find_peaks(image, 5, 1) == [(5, 5), (15, 15), (5, 7), (0, 19)]
    assert find_peaks(image, 5, 2) == [(5, 5), (15, 15), (0, 19)]
    assert find_peaks(image, 7.5, 2) == [(5, 5), (15, 15)]
    assert find_peaks(image, 9, 2) == []


def test_a_flank_is_no_peak() -> None:
    """Beyond the distance from the top a slope goes on: what is higher there, and no peak itself, counts too."""
    y, x = np.indices((41, 41))
    image = 10 - 0.2 * np.hypot(y - 20, x - 20)
    assert find_peaks(image, 1, 3) == [(20, 20)]


def test_plateaus() -> None:
    assert find_peaks(np.full((9, 9), 7.0), 5, 2) == []
    image = np.zeros((9, 9))
    image[3:5, 3:5] = 7
    assert find_peaks(image, 5, 2) == [(3, 3)]
    # a count seen through a circle: its own pixel, not the first of the circle
    image[:] = 0
    image[3:6, 4] = image[4, 3:6] = 7
    assert find_peaks(image, 5, 2) == [(4, 4)]


def test_unknown_pixels() -> None:
    image = np.full((9, 9), np.nan)
    assert find_peaks(image, 5, 2) == []
    image[4, 4], image[4, 5] = 7, 1
    assert find_peaks(image, 5, 2) == [(4, 4)]
