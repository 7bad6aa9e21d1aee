"""Measures of variability against arithmetic by hand."""

import numpy as np
import pytest

from dl3flow.kernels.variability import (
    constant_chi2,
    excess_variance,
    fastest_changes,
    fraction,
    point_to_point_variance,
)


def test_chi2_about_the_weighted_mean() -> None:
    # mean (1 / 1 + 4 / 4) / (1 + 1 / 4) = 1.6: 0.36 + 5.76 / 4
    chi2, n_dof, probability = constant_chi2(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    assert (chi2, n_dof) == (pytest.approx(1.8), 1)
    assert probability == pytest.approx(0.17971249)
    assert np.isnan(constant_chi2(np.array([1.0]), np.array([1.0]))[2])


def test_excess_variance_of_four_numbers() -> None:
    flux, error = np.array([1.0, 3.0, 1.0, 3.0]), np.full(4, 0.5)
    # variance 4 / 3, noise 1 / 4, mean 2
    excess, sigma = excess_variance(flux, error)
    assert excess == pytest.approx((4 / 3 - 1 / 4) / 4)
    # sqrt(2 / 4) noise / mean^2, and sqrt(noise / 4) 2 F / mean, in quadrature
    assert sigma == pytest.approx(np.hypot(np.sqrt(0.5) / 16, 0.25 * np.sqrt(excess)))
    value, of_value = fraction(excess, sigma)
    assert (value, of_value) == (pytest.approx(np.sqrt(excess)), pytest.approx(sigma / 2 / np.sqrt(excess)))
    # every step is 2: half of its square is 2
    assert point_to_point_variance(flux, error)[0] == pytest.approx((2 - 1 / 4) / 4)


def test_no_excess_is_a_negative_variance_and_no_fraction() -> None:
    excess, sigma = excess_variance(np.array([1.0, 1.1, 0.9]), np.full(3, 0.5))
    assert excess == pytest.approx(0.01 - 0.25)
    assert sigma > 0
    assert np.isnan(fraction(excess, sigma)).all()
    assert np.isnan(excess_variance(np.array([1.0]), np.array([1.0]))).all()
    assert np.isnan(excess_variance(np.zeros(0), np.zeros(0))).all()


def test_both_variances_agree_for_white_noise_and_differ_for_a_trend() -> None:
    random = np.random.default_rng(5)
    noise = 10 + random.normal(0, 2, 20000)
    error = np.zeros(20000)
    assert point_to_point_variance(noise, error)[0] == pytest.approx(
        excess_variance(noise, error)[0], rel=0.03
    )
    trend = np.linspace(1, 2, 100)
    assert point_to_point_variance(trend, error[:100])[0] < 1e-3 * excess_variance(trend, error[:100])[0]


def test_doubling_and_halving() -> None:
    time = np.array([0.0, 1.0, 3.0, 4.0])
    flux = np.array([1.0, 2.0, 8.0, 6.0])
    rise, fall = fastest_changes(time, flux, 0.1 * flux)
    # a factor two in a day, and a factor four in two days: the first of equals
    assert (rise.time, rise.at) == (pytest.approx(1.0), 0.0)
    assert rise.error == pytest.approx(1 / np.log(2) * np.hypot(0.1, 0.1))
    assert (fall.time, fall.at) == (pytest.approx(np.log(2) / np.log(4 / 3)), 3.0)
    rise, fall = fastest_changes(time, np.array([-1.0, 2.0, 0.0, -3.0]), np.ones(4))
    assert np.isnan([rise.time, rise.error, fall.time]).all()
