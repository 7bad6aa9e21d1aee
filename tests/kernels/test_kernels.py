"""Numerical kernels against arithmetic that can be done by hand, and against exact results."""

import numpy as np
import pytest
import scipy.fft
from scipy.integrate import quad
from scipy.special import erf
from scipy.stats import poisson

from dl3flow.kernels.convolve import (
    containment_radii,
    convolve_same,
    even_transforms,
    psf_kernels,
    unfolded,
)
from dl3flow.kernels.integrate import gauss_legendre_bins, power_law_integral
from dl3flow.kernels.interpolate import hat_matrix
from dl3flow.kernels.norm import ExpectedBins, fit_norm
from dl3flow.kernels.statistics import cash, cash_ts, fit_background_norm


def test_hat_matrix_interpolates_extrapolates_and_ends() -> None:
    nodes, values = np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, 6.0])
    weights = hat_matrix(nodes, np.array([-0.5, 0.5, 2.0, 4.0, -0.6, 4.1]), -0.5, 4.0)
    assert weights @ values == pytest.approx([0.5, 1.5, 4.0, 8.0, 0.0, 0.0])
    assert hat_matrix(np.array([7.0]), np.array([[1.0, 2.0]]), 7, 7).tolist() == [[[1.0], [1.0]]]


def test_power_law_integral_is_exact_for_power_laws() -> None:
    edges = np.array([1.0, 2.0, 10.0])
    for index in (0.0, 1.0, 2.5, 1.0 + 1e-9):
        expected = [quad(lambda e, g=index: e**-g, a, b)[0] for a, b in ((1, 2), (2, 10))]
        assert power_law_integral(edges, -index * np.log(edges)) == pytest.approx(expected, rel=1e-10)
    assert power_law_integral(edges, np.array([0.0, -np.inf, 0.0])).tolist() == [0.0, 0.0]


def test_gauss_legendre_integrates_steep_spectra_to_rounding() -> None:
    points, weights = gauss_legendre_bins(np.array([1.0, 1.5, 3.0]))
    found = (weights * points**-2.6).sum(axis=1)
    assert found == pytest.approx([(1 - 1.5**-1.6) / 1.6, (1.5**-1.6 - 3**-1.6) / 1.6], rel=1e-12)


def test_cash_by_hand() -> None:
    # 2 sum(mu - n ln mu): the founding example of the statistic
    assert cash(np.array([3, 5, 9]), np.array([3.3, 6.8, 9.2])).sum() == pytest.approx(-27.6784, abs=1e-4)
    assert cash(np.array([0.0]), np.array([0.0]))[0] == pytest.approx(2e-25)
    # n = 13 on a background of 5.5: TS 7.37 (algorithm notes), zero for no excess
    assert cash_ts(np.array([13.0, 5.5, 0.0]), np.array([5.5, 5.5, 0.0])) == pytest.approx(
        [7.365, 0, 0], abs=5e-3
    )
    assert np.isnan(cash_ts(np.array([3.0]), np.array([0.0])))[0]


def test_kernels_are_normalised_symmetric_and_cut() -> None:
    edges = np.linspace(0, 0.66, 661)
    centers = 0.5 * (edges[1:] + edges[:-1])
    sigma = 0.05
    kernels = psf_kernels(np.array([np.exp(-0.5 * (centers / sigma) ** 2), 0 * centers]), edges, 0.02)
    assert kernels[0].sum() == pytest.approx(1, abs=1e-14)
    assert kernels[0] == pytest.approx(kernels[0].T, rel=1e-12)
    assert np.array_equal(kernels[0], kernels[0, ::-1])
    assert kernels[1].sum() == 0
    # 99.9 % of a Gaussian: sigma sqrt(-2 ln 0.001) = 0.1858 deg, in pixels of 0.02 deg
    assert kernels.shape == (2, 19, 19)
    # share of a Gaussian in the central pixel, of which the kernel holds 99.9 %
    expected = erf(0.01 / sigma / np.sqrt(2)) ** 2 / 0.999
    assert kernels[0, 9, 9] == pytest.approx(expected, rel=1e-3)


def test_containment_of_a_gaussian() -> None:
    edges = np.linspace(0, 1, 201)
    centers = 0.5 * (edges[1:] + edges[:-1])
    profile = np.exp(-0.5 * (centers / 0.1) ** 2)
    for fraction in (0.39347, 0.68, 0.95):
        assert containment_radii(profile[None], edges, fraction)[0] == pytest.approx(
            0.1 * np.sqrt(-2 * np.log(1 - fraction)), abs=5e-4
        )
    assert containment_radii(np.zeros((1, 200)), edges, 0.68)[0] == 0


def test_transforms_of_even_kernels_convolve() -> None:
    rng = np.random.default_rng(1)
    quadrant = rng.random((3, 3, 3))
    index = np.abs(np.arange(-2, 3))
    kernels, template = quadrant[:, index[:, None], index], rng.random((4, 4))
    quadrants = even_transforms(kernels, (9, 10))
    assert quadrants.shape == (3, 5, 6)
    assert quadrants.dtype == float
    seen = scipy.fft.irfft2(scipy.fft.rfft2(template, s=(9, 10)) * unfolded(quadrants, 9), s=(9, 10))
    direct = np.zeros((3, 9, 10))
    for (j, i), value in np.ndenumerate(template):
        # centred on the pixel, around the edges of the periodic grid
        rows, columns = (j + np.arange(-2, 3)) % 9, (i + np.arange(-2, 3)) % 10
        direct[:, rows[:, None], columns] += value * kernels
    assert seen == pytest.approx(direct, abs=1e-12)


def test_convolution_keeps_the_image_shape() -> None:
    image, kernel = np.zeros((6, 9)), np.arange(15.0).reshape(3, 5)
    image[2, 4] = 2
    found = convolve_same(image, kernel)
    assert found.shape == (6, 9)
    assert found[1:4, 2:7] == pytest.approx(2 * kernel, abs=1e-12)


def test_norm_of_one_bin_by_hand() -> None:
    # n = c s + b: best c = (13 - 5.5) / 2.5; intervals of the algorithm notes for n = 13 on 5.5, as excess
    found = fit_norm([ExpectedBins(np.array([13.0]), np.array([2.5]), np.array([5.5]))])
    assert found.norm == pytest.approx(3.0)
    assert found.err == pytest.approx(np.sqrt(13) / 2.5)
    assert found.ts == pytest.approx(7.365, abs=5e-3)
    assert (found.norm - found.errn) * 2.5 == pytest.approx(4.220, abs=1e-3)
    assert (found.norm + found.errp) * 2.5 == pytest.approx(11.446, abs=1e-3)
    assert found.ul * 2.5 == pytest.approx(16.102, abs=0.2)  # the notes give 1.96 sigma, this is 2


def test_norm_of_no_counts_is_the_bound_with_a_finite_limit() -> None:
    found = fit_norm([ExpectedBins(np.array([0.0]), np.array([2.0]), np.array([4.0]))])
    assert found.norm == -2.0
    assert np.isnan(found.err)
    assert np.isnan(found.errn)
    # 2 c s = 4 above zero strength
    assert found.ul == pytest.approx(1.0)


def test_norm_without_background_and_without_signal() -> None:
    found = fit_norm([ExpectedBins(np.array([9.0]), np.array([3.0]), np.array([0.0]))])
    assert found.norm == pytest.approx(3.0)
    assert found.ts > 100
    nothing = fit_norm([ExpectedBins(np.array([5.0]), np.array([0.0]), np.array([5.0]))])
    assert np.isnan(nothing.norm)
    assert nothing.ts == 0


def test_norm_of_many_bins_maximises_the_likelihood() -> None:
    rng = np.random.default_rng(5)
    s, b = rng.random(200), rng.random(200) * 3
    n = rng.poisson(1.7 * s + b).astype(float)
    found = fit_norm([ExpectedBins(n, s, b)])

    def stat(c: float) -> float:
        return -2 * poisson.logpmf(n, c * s + b).sum()

    best = stat(found.norm)
    assert min(stat(found.norm + d) for d in (-1e-3, 1e-3)) > best
    assert stat(found.norm + found.errp) - best == pytest.approx(1, abs=1e-6)
    assert stat(found.norm - found.errn) - best == pytest.approx(1, abs=1e-6)
    assert stat(found.ul) - best == pytest.approx(4, abs=1e-6)
    assert found.ts == pytest.approx(stat(0.0) - best, abs=1e-9)


def test_background_norm_and_tilt_recover_what_was_put_in() -> None:
    energy = np.array([1.0, 2.0, 4.0, 8.0])
    background = np.broadcast_to(np.array([4000.0, 1000.0, 250.0, 60.0])[:, None, None] / 100, (4, 10, 10))
    truth = 1.2 * energy**-0.3
    known = np.zeros((4, 10, 10))
    known[:, 5, 5] = 20
    mask = np.ones((4, 10, 10), dtype=bool)
    # expectations in place of counts: the fit must return the truth exactly
    found = fit_background_norm(
        background * truth[:, None, None] + known, background, known, mask, energy, True
    )
    assert (found["norm"], found["tilt"]) == (pytest.approx(1.2, rel=1e-8), pytest.approx(0.3, abs=1e-8))
    plain = fit_background_norm(background * 0.8, background, 0 * known, mask, energy, False)
    assert plain["norm"] == pytest.approx(0.8)
    assert plain["norm_err"] == pytest.approx(0.8 / np.sqrt(0.8 * background.sum()))
