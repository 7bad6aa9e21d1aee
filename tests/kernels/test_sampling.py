"""Draws from tables: by hand, and against the interpolation that they stand for."""

import numpy as np
import pytest

from dl3flow.kernels.interpolate import hat_matrix
from dl3flow.kernels.sampling import draw_cells, invert_mixture, nearest_nodes


def test_cells_by_hand() -> None:
    """Contents 1, 0, 3: a quarter of the draws in the first cell, none in the empty one, whatever their order."""
    cumulative = np.cumsum([1.0, 0.0, 3.0, 0.0])
    uniform = np.array([0.99999999999999, 0.0, 0.25, 0.2499, 0.9])
    assert draw_cells(cumulative, uniform).tolist() == [2, 0, 2, 0, 2]


def test_a_mixture_of_two_rows_by_hand() -> None:
    """Half of (1, 1) and half of (0, 4): contents 0.5 and 2.5 of 3."""
    cumulative = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 4.0]])
    rows, weights = np.array([[0], [1]]), np.array([[0.5], [0.5]])
    for uniform, cell, fraction in ((0.0, 0, 0.0), (1 / 12, 0, 0.5), (1 / 6, 1, 0.0), (7 / 12, 1, 0.5)):
        found = invert_mixture(cumulative, rows, weights, np.array([uniform]))
        assert (found[0].item(), found[1].item()) == (cell, pytest.approx(fraction, abs=1e-12))


def test_an_extrapolated_weight_below_zero() -> None:
    """1.5 of (2, 2) less 0.5 of (2, 0): contents 2 and 3."""
    cumulative = np.array([[0.0, 2.0, 4.0], [0.0, 2.0, 2.0]])
    rows, weights = np.repeat([[0], [1]], 1000, axis=1), np.repeat([[1.5], [-0.5]], 1000, axis=1)
    uniform = (np.arange(1000) + 0.5) / 1000
    cell, fraction = invert_mixture(cumulative, rows, weights, uniform)
    assert (cell == 0).sum() == 400
    assert fraction[cell == 1] == pytest.approx((np.arange(600) + 0.5) / 600, abs=1e-9)


def test_nothing_to_draw_from_is_no_number() -> None:
    found = invert_mixture(
        np.zeros((1, 4)), np.zeros((1, 2), dtype=int), np.ones((1, 2)), np.array([0.1, 0.9])
    )
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("nodes", [np.array([0.0, 1.0, 3.0]), np.array([2.0])])
def test_nodes_and_weights_are_those_of_the_interpolation(nodes: np.ndarray) -> None:
    x = np.array([-1.0, -0.4, 0.0, 0.3, 1.0, 2.9, 3.4, 4.0])
    expected = hat_matrix(nodes, x, -0.5, 3.5)
    places, weights = nearest_nodes(nodes, x, -0.5, 3.5)
    found = np.zeros(expected.shape)
    for k in (0, 1):
        found[np.arange(len(x)), places[k]] += weights[k]
    assert found == pytest.approx(expected)
