"""The Gaussian under the core of a distribution."""

import numpy as np
import pytest
from scipy.special import ndtri

from dl3flow.kernels.convolve import circle_kernel, convolve_same
from dl3flow.kernels.gaussian import fit_gaussian, sums_of_correlation


def test_the_cut_makes_it_no_narrower() -> None:
    """Quantiles of a Gaussian, so that nothing is left to chance; 3 deviations hold 99.73 % of it."""
    values = 0.3 + 1.2 * ndtri((np.arange(20_000) + 0.5) / 20_000)
    found = fit_gaussian(values)
    assert found is not None
    assert (found.mean, found.width) == pytest.approx((0.3, 1.2), abs=2e-3)
    assert found.n == pytest.approx(0.9973 * 20_000, abs=10)
    assert (found.low, found.high) == pytest.approx((0.3 - 3.6, 0.3 + 3.6), abs=0.01)
    # sigma / sqrt(n) and sigma / sqrt(2 n), a little more for the cut
    assert found.mean_err == pytest.approx(1.2 / np.sqrt(20_000), rel=0.05)
    assert found.width_err == pytest.approx(1.2 / np.sqrt(40_000), rel=0.15)


def test_what_is_no_background_does_not_widen_it() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(size=20_000), rng.normal(10, 1, size=300)])
    found = fit_gaussian(values)
    assert found is not None
    assert values.std() > 1.5
    assert abs(found.mean) < 4 * found.mean_err
    assert abs(found.width - 1) < 4 * found.width_err


def test_errors_are_those_of_sums_that_overlap() -> None:
    kernel = circle_kernel(3)
    shared = sums_of_correlation(kernel)
    assert shared[0] == pytest.approx(kernel.sum())
    rng = np.random.default_rng(5)
    pulls = []
    for _ in range(60):
        field = convolve_same(rng.normal(size=(66, 66)), kernel)[3:-3, 3:-3] / np.sqrt(kernel.sum())
        found = fit_gaussian(field.ravel(), *shared)
        assert found is not None
        pulls.append([found.mean / found.mean_err, (found.width - 1) / found.width_err])
    mean, width = np.array(pulls).T
    assert mean.std() == pytest.approx(1, abs=0.3)
    assert width.std() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("values", [[], [1.0] * 50, [0.1, 0.2, 0.3]])
def test_nothing_to_fit(values: list[float]) -> None:
    assert fit_gaussian(np.array(values)) is None
