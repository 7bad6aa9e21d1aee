"""Likelihood profiles and upper limits of flux points: parabolas and Poisson counts by hand, derivatives by differences."""

import numpy as np
import pytest

from dl3flow.kernels.profiles import build_profile_stat, limit_stat, profile_stat, with_minimum

# the field's eleven norms
SCAN = np.geomspace(0.2, 5, 11)


def _poisson(norm: np.ndarray | float) -> np.ndarray:
    """7 counts on 2 of background and 5 per norm: the best norm is 1."""
    mu = 2 + 5 * np.asarray(norm)
    return np.asarray(2 * (mu - 7 * np.log(mu)))


def test_a_parabola_is_exact_inside_and_outside() -> None:
    """((norm - 1.3) / 0.4)^2 on a constant of 7: 42.25 at -1.3, slope 2 (norm - 1.3) / 0.16, curvature 12.5."""
    x, y = with_minimum(SCAN, ((SCAN - 1.3) / 0.4) ** 2 + 7)
    assert x[np.argmin(y)] == pytest.approx(1.3, abs=1e-12)
    at = np.array([-1.3, 0.1, 1.3, 4.9, 20.0])
    stat, slope, curvature = profile_stat(at, x, y)
    assert stat == pytest.approx([42.25, 9.0, 0.0, 81.0, 46.75**2], abs=1e-9)
    assert slope == pytest.approx((at - 1.3) / 0.08, abs=1e-9)
    assert curvature == pytest.approx(12.5, abs=1e-9)


def test_poisson_counts_between_the_points() -> None:
    """To 0.003 within the eleven points, with the best fit known; to 0.02 with the vertex of a parabola in its place."""
    at = np.array([0.2, 0.3, 0.7, 1.0, 1.3, 2.0, 3.0, 4.9])
    exact = _poisson(at) - _poisson(1.0)
    x, y = with_minimum(SCAN, _poisson(SCAN) + 3, 1.0, float(_poisson(1.0)) + 3)
    assert profile_stat(at, x, y)[0][:-1] == pytest.approx(exact[:-1], abs=3e-3)
    # the last interval has no neighbour to its right
    assert profile_stat(4.9, x, y)[0] == pytest.approx(exact[-1], abs=0.02)
    x, y = with_minimum(SCAN, _poisson(SCAN))
    assert profile_stat(at, x, y)[0] == pytest.approx(exact, abs=0.03)


def test_derivatives_are_those_of_the_statistic() -> None:
    x, y = with_minimum(SCAN, _poisson(SCAN))
    at, h = np.array([-3.0, 0.1, 0.25, 0.9, 1.1, 2.5, 4.99, 8.0]), 1e-5
    low, here, high = (profile_stat(at + d, x, y) for d in (-h, 0, h))
    assert (high[0] - low[0]) / (2 * h) == pytest.approx(here[1], rel=1e-6, abs=1e-6)
    assert (high[1] - low[1]) / (2 * h) == pytest.approx(here[2], rel=1e-5, abs=1e-5)


def test_value_and_slope_have_no_step_at_any_point() -> None:
    x, y = with_minimum(SCAN, _poisson(SCAN))
    below, above = (profile_stat(x + d, x, y) for d in (-1e-9, 1e-9))
    assert above[0] == pytest.approx(below[0], abs=1e-6)
    assert above[1] == pytest.approx(below[1], abs=1e-5)
    assert profile_stat(x, x, y)[0] == pytest.approx(y, abs=1e-12)


def test_a_rising_profile_never_falls_again() -> None:
    """Steps of 0, 0, 9 and a flat end would make a spline swing below zero and fall outside."""
    norm, stat = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1e-6, 9.0, 9.0, 9.0])
    fine = np.linspace(0, 50, 2001)
    found, slope, _ = profile_stat(fine, norm, stat)
    assert np.all(np.diff(found) >= -1e-12)
    assert np.all(slope >= -1e-12)
    assert found[-1] > 9.0


def test_a_minimum_at_the_end_of_the_profile() -> None:
    """(norm + 1)^2 from 0 on: 0 at norm 0 by definition, 3 at 1; no parabola is made up below the first point."""
    norm = np.linspace(0, 4, 9)
    x, y = with_minimum(norm, (norm + 1) ** 2)
    assert len(x) == 9
    assert y[[0, 2, 8]].tolist() == [0.0, 3.0, 24.0]
    assert profile_stat(1.0, x, y)[0] == pytest.approx(3.0)


def test_minimum_from_elsewhere_is_not_taken() -> None:
    """A best stat above the lowest point of the profile is that of another likelihood."""
    y = (SCAN - 1.0) ** 2
    x, stat = with_minimum(SCAN, y, 3.0, 50.0)
    assert 3.0 not in x
    assert stat.max() == pytest.approx(16.0)


def test_points_that_are_no_numbers_or_twice_there_are_left_out() -> None:
    x, y = with_minimum(np.array([3.0, 1.0, 1.0, 2.0, np.nan]), np.array([4.0, 4.0, 4.0, 3.0, 0.0]), 2.0, 3.0)
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert y.tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="at least 3 finite points, found 2"):
        with_minimum(np.array([1.0, 2.0, 3.0]), np.array([0.0, np.inf, 1.0]))


def test_several_points_at_once() -> None:
    one = with_minimum(SCAN, _poisson(SCAN))
    other = with_minimum(SCAN[::2], ((SCAN[::2] - 1.3) / 0.4) ** 2)
    stat = build_profile_stat([one, other, one])
    found = np.array(stat(np.array([0.3, 20.0, 6.0])))
    for column, (norm, profile) in enumerate([(0.3, one), (20.0, other), (6.0, one)]):
        assert found[:, column] == pytest.approx(np.array(profile_stat(norm, *profile)), rel=1e-12)


def test_upper_limit_by_hand() -> None:
    """At the limit -2 ln(1/2); two sigma above -2 ln(0.0227501); far below nothing; far above a parabola."""
    stat, slope, curvature = limit_stat(np.array([1.0, 3.0, -40.0]), 1.0, 1.0)
    assert stat == pytest.approx([2 * np.log(2), -2 * np.log(0.022750132), 0.0], abs=1e-7)
    assert slope[0] == pytest.approx(2 * np.sqrt(2 / np.pi))
    assert curvature[0] == pytest.approx(4 / np.pi)
    far, far_slope, far_curvature = limit_stat(1e6, 0.0, 10.0)
    assert far == pytest.approx(1e10, rel=1e-8)
    assert far_slope == pytest.approx(2e4, rel=1e-8)
    assert far_curvature == pytest.approx(0.02, rel=1e-8)


def test_derivatives_of_an_upper_limit() -> None:
    at, h = np.array([-3.0, 0.3, 1.0, 4.0, 40.0]), 1e-4
    low, here, high = (limit_stat(at + d, 1.0, 2.0) for d in (-h, 0, h))
    assert (high[0] - low[0]) / (2 * h) == pytest.approx(here[1], rel=1e-6)
    assert (high[1] - low[1]) / (2 * h) == pytest.approx(here[2], rel=1e-6)


def test_rounding_near_the_minimum_does_not_bend_a_profile() -> None:
    """Norms 1e-6 beside the best with a statistic of 1e6, whose last digit is 1e-10: the curvature stays 2 / 0.3^2."""
    norm = np.array([0.0, 1.0, 2.0 - 1e-6, 2.0 + 1e-6, 3.0, 4.0])
    stat = 1e6 + ((norm - 2) / 0.3) ** 2
    x, y = with_minimum(norm, stat, 2.0, 1e6)
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert profile_stat(2.0, x, y)[2] == pytest.approx(2 / 0.09, rel=1e-6)
