"""Bayesian blocks on Gaussian and Poisson likelihoods."""

import numpy as np
import pytest

from dl3flow.kernels.blocks import best_blocks, false_alarm_penalty


def parabolas(values: np.ndarray, norms: np.ndarray) -> np.ndarray:
    return (values[:, None] - norms) ** 2


def test_a_step_is_found_where_it_is() -> None:
    norms = np.linspace(-3, 13, 60)
    values = np.array([0.0] * 6 + [10.0] * 5)
    assert best_blocks(parabolas(values, norms)[None], norms[None], 4.0) == [0, 6]
    assert best_blocks(parabolas(np.zeros(8), norms)[None], norms[None], 4.0) == [0]


def test_the_gain_of_a_cut_is_that_of_the_likelihood() -> None:
    """Two bins at 0 and d with errors 1 gain d^2 / 4 in log-likelihood by a cut."""
    norms = np.linspace(-1, 7, 17)
    for d, starts in ((3.9, [0]), (4.1, [0, 1])):
        assert best_blocks(parabolas(np.array([0.0, d]), norms)[None], norms[None], 4.0) == starts


def test_several_series_are_cut_together() -> None:
    norms = np.linspace(-1, 7, 33)
    values = np.array([0.0, 2.9])
    one = parabolas(values, norms)
    assert best_blocks(one[None], norms[None], 4.0) == [0]
    assert best_blocks(np.stack([one, one]), np.stack([norms, norms]), 4.0) == [0, 1]


@pytest.mark.parametrize(("rate", "p0"), [(0.3, 0.05), (20.0, 0.05)])
def test_constant_series_are_seldom_cut(rate: float, p0: float) -> None:
    random = np.random.default_rng(11)
    norms = np.linspace(1e-3, 3 * rate + 8, 80)
    penalty = false_alarm_penalty(p0, 40)
    cut = 0
    for _ in range(200):
        counts = random.poisson(rate, 40)
        stat = 2 * (norms - counts[:, None] * np.log(norms))
        cut += len(best_blocks(stat[None], norms[None], penalty)) > 1
    assert cut / 200 < p0 + 3 * np.sqrt(p0 / 200)


def test_the_penalty_of_the_paper() -> None:
    assert false_alarm_penalty(0.05, 100) == pytest.approx(4 - np.log(73.53 * 0.05 * 100**-0.478))
