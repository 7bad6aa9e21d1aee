"""Moments of the Cash statistic, groups of bins and probabilities, by hand."""

import math

import numpy as np
import pytest

from dl3flow.kernels.goodness import (
    cash_moments,
    exact_cash_moments,
    group_starts,
    p_value_of_moments,
)


def _summed(mu: float) -> tuple[float, float]:
    """Both moments from the definition, count by count."""
    value = [2 * (mu - n + (n * math.log(n / mu) if n else 0.0)) for n in range(150)]
    weight = [math.exp(-mu) * mu**n / math.factorial(n) for n in range(150)]
    mean = sum(w * v for w, v in zip(weight, value, strict=True))
    return mean, sum(w * (v - mean) ** 2 for w, v in zip(weight, value, strict=True))


@pytest.mark.parametrize("mu", [1e-6, 3e-3, 0.2, 1.0, 2.7, 30.0])
def test_moments_from_the_definition(mu: float) -> None:
    assert exact_cash_moments(mu) == pytest.approx(_summed(mu), rel=1e-9)
    mean, variance = cash_moments(np.array([mu]))
    assert (mean[0], variance[0]) == pytest.approx(_summed(mu), rel=1e-4)


def test_moments_of_few_and_of_many_counts() -> None:
    """Nothing where nothing is expected, -2 mu ln mu to first order for few, 1 + 1 / (6 mu) and 2 for many."""
    mean, variance = cash_moments(np.array([0.0, 1e-9, 1e3, 1e7]))
    assert mean[0] == variance[0] == 0
    # one count, once in 1 / mu cases: 2 (mu - 1 - ln mu); none else: 2 mu
    assert mean[1] == pytest.approx(1e-9 * 2 * (-1 - math.log(1e-9)) + 2e-9, rel=1e-3)
    assert variance[1] == pytest.approx(1e-9 * 4 * (1 + math.log(1e-9)) ** 2, rel=1e-3)
    assert mean[2:] == pytest.approx([1 + 1 / 6000, 1], abs=1e-5)
    assert variance[2:] == pytest.approx([2, 2], rel=2e-3)


def test_probabilities() -> None:
    """chi2 of 3 degrees of freedom: 7.815 once in twenty; many terms: a Gaussian, 2 deviations 2.3 %."""
    assert p_value_of_moments(7.814728, 3.0, 6.0) == pytest.approx(0.05, abs=1e-6)
    assert p_value_of_moments(1e6 + 2e3, 1e6, 1e6) == pytest.approx(0.02275, abs=3e-4)
    assert p_value_of_moments(-1.0, 3.0, 6.0) == 1.0
    assert math.isnan(p_value_of_moments(1.0, 0.0, 1.0))


def test_groups_expect_enough() -> None:
    """3+3 | 7 | 2+2+2 | 1+1 is too few, so the last group keeps all."""
    expected = np.array([3.0, 3.0, 7.0, 2.0, 2.0, 2.0, 1.0, 1.0])
    starts = group_starts(expected, 6.0)
    assert starts.tolist() == [0, 2, 3]
    assert np.add.reduceat(expected, starts).tolist() == [6.0, 7.0, 8.0]
    assert group_starts(expected, 100.0).tolist() == [0]
    assert group_starts(np.zeros(0), 5.0).tolist() == []
    assert group_starts(np.full(4, 6.0), 6.0).tolist() == [0, 1, 2, 3]
    # bins that expect nothing belong to the group before
    assert group_starts(np.array([6.0, 0.0, 0.0, 6.0]), 6.0).tolist() == [0, 1]
