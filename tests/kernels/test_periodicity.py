"""The H test against arithmetic by hand and its own distribution."""

import numpy as np
import pytest

from dl3flow.kernels.periodicity import h_test


def test_equal_phases_have_the_largest_power() -> None:
    # Z_m^2 = 2 m n: of n equal phases the last harmonic wins, 2 * 20 * 10 - 4 * 20 + 4
    h, probability = h_test(np.full(10, 0.3))
    assert h == pytest.approx(324.0)
    assert probability == pytest.approx(np.exp(-0.4 * 324.0))


def test_opposite_phases_have_no_first_harmonic() -> None:
    # Z_1^2 = 0 and Z_2^2 = 2 n, and so on: the twentieth gives 10 * 2 n - 76
    h, _ = h_test(np.array([0.1, 0.6] * 10))
    assert h == pytest.approx(10 * 40 - 76)


def test_uniform_phases_have_the_distribution_of_the_paper() -> None:
    random = np.random.default_rng(3)
    found = np.array([h_test(random.random(200))[1] for _ in range(2000)])
    share = np.array([(found < p).mean() for p in (0.1, 0.01)])
    assert share == pytest.approx([0.1, 0.01], abs=3 * np.sqrt(0.09 / 2000))


def test_no_phases_have_no_answer() -> None:
    assert np.isnan(h_test(np.zeros(0))).all()
