"""Smoothing with the smallest kernel that is significant."""

import numpy as np
import pytest

from dl3flow.kernels.adaptive_smooth import gauss_kernel, significance, smooth_adaptively
from dl3flow.kernels.convolve import circle_kernel


def test_a_gaussian_on_pixels() -> None:
    kernel = gauss_kernel(2.0)
    assert kernel.shape == (17, 17)
    assert kernel[8, 8] == 1
    assert kernel[8, 10] == pytest.approx(np.exp(-0.5), rel=0.02)
    y, x = np.mgrid[-8:9, -8:9]
    # the variance of a pixel, 1 / 12, comes on top; what is beyond four widths is cut
    assert (kernel * x**2).sum() / kernel.sum() == pytest.approx(4 + 1 / 12, rel=0.01)
    assert gauss_kernel(0.05).sum() == pytest.approx(1)


def test_significances_by_hand() -> None:
    n, b = np.array([9.0, 4.0, 0.0]), np.array([4.0, 9.0, 0.0])
    assert significance(n, b, "asmooth")[:2] == pytest.approx([5 / np.sqrt(13), -5 / np.sqrt(13)])
    assert np.isnan(significance(n, b, "asmooth")[2])
    ts = 2 * (4 - 9 + 9 * np.log(9 / 4))
    assert significance(n, b, "lima") == pytest.approx(
        [np.sqrt(ts), -np.sqrt(2 * (9 - 4 + 4 * np.log(4 / 9))), 0]
    )


def test_each_pixel_takes_the_first_kernel_that_suffices() -> None:
    counts, background = np.zeros((21, 21)), np.full((21, 21), 0.1)
    counts[10, 4], counts[9:12, 14:17] = 8.0, 0.5
    covered = np.ones((21, 21), dtype=bool)
    covered[:2] = False
    kernels = [circle_kernel(0), circle_kernel(2)]
    found = smooth_adaptively(counts, background, {"flux": 2 * counts}, kernels, 3.0, "asmooth", covered)
    # a pixel with 8 counts: 7.9 / sqrt(8.1) = 2.8; within two pixels of it 8 on 1.3: 6.7 / sqrt(9.3) = 2.2
    assert (found["kernel"] == -1).all()
    found = smooth_adaptively(counts, background, {"flux": 2 * counts}, kernels, 1.2, "asmooth", covered)
    assert found["kernel"][10, 4] == 0
    assert found["counts"][10, 4] == pytest.approx(8)
    assert found["flux"][10, 4] == pytest.approx(16)
    # nine pixels of 0.5 counts: 3.2 / sqrt(5.8) = 1.33 with the larger circle, 0.4 / sqrt(0.6) with the smaller
    assert found["kernel"][10, 15] == 1
    assert found["counts"][10, 15] == pytest.approx(4.5 / 13)
    assert found["background"][10, 15] == pytest.approx(0.1)
    assert found["sqrt_ts"][10, 15] == pytest.approx(3.2 / np.sqrt(5.8))
    rest = (found["kernel"] < 0) & covered
    assert found["counts"][rest] == pytest.approx(counts[rest].mean())
    assert np.isnan(found["sqrt_ts"][rest]).all()
    assert np.isnan(found["counts"][~covered]).all()


def test_means_are_over_the_pixels_that_are_covered() -> None:
    flat = np.full((15, 15), 3.0)
    covered = np.ones((15, 15), dtype=bool)
    covered[:, 9:] = False
    found = smooth_adaptively(
        np.where(covered, flat, 0), np.where(covered, 0.5, 0), {}, [gauss_kernel(2.0)], 1.0, "lima", covered
    )
    assert found["counts"][covered] == pytest.approx(3.0)
    assert found["background"][covered] == pytest.approx(0.5)
