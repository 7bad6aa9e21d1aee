"""Test statistics of several degrees of freedom as deviations of one Gaussian variable."""

import numpy as np
import pytest
from scipy.stats import chi2, norm

from dl3flow.kernels.significance import chi2_sigma


def test_one_degree_of_freedom_is_the_root() -> None:
    root = np.array([1e-4, 0.3, 1.0, 5.0, 30.0, 35.9, 60.0, 400.0])
    assert chi2_sigma(root**2, 1) == pytest.approx(root, rel=1e-6)
    assert float(chi2_sigma(np.array(2500.0), np.array(1))) == pytest.approx(50)


def test_several_are_those_of_the_tables() -> None:
    ts, n = np.meshgrid([1.0, 7.8, 40.0, 300.0], [2, 3, 11])
    assert chi2_sigma(ts, n) == pytest.approx(norm.isf(chi2.sf(ts, n) / 2), rel=1e-9)
    # 3 degrees of freedom, 95 %: 7.815; two-sided 1.96
    assert float(chi2_sigma(np.array(7.814727903), 3)) == pytest.approx(1.959964, rel=1e-6)


def test_the_far_tail_goes_on_smoothly() -> None:
    ts = np.linspace(1000, 1700, 71)
    for n in (1, 2, 5, 20):
        step = np.diff(chi2_sigma(ts, n))
        assert np.all(step > 0)
        assert np.abs(np.diff(step)).max() < 0.01 * step.mean()


def test_nothing_is_no_deviation() -> None:
    assert chi2_sigma(np.array([0.0, 5.0]), np.array([3, 0])).tolist() == [0, 0]
