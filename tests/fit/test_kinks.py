"""The lowest place of two parabolas that meet at a kink."""

import numpy as np
import pytest

from dl3flow.fit.kinks import _vertex


def test_a_minimum_on_the_kink_by_hand() -> None:
    """1 - s + s^2 / 2 to the left of 0.5, and 2 s more than at 0.5 to its right."""
    left = lambda s: 1 - s + 0.5 * s**2  # noqa: E731
    right = lambda s: left(s) + 2 * (s - 0.5)  # noqa: E731
    found = _vertex(1.0, left(0.0), -1.0, right(1.0), 2.0, 1.0)
    assert found == pytest.approx((0.5, 0.625))


@pytest.mark.parametrize("jump", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("kink", [-0.9, -0.6, -0.3, 0.2, 0.5, 0.95])
def test_it_is_the_lowest_of_all(jump: float, kink: float) -> None:
    """Against a fine grid, in both directions; None where the other side still falls."""
    bend, slope, step = 2.0, -1.4 * np.sign(kink), 1.0 * np.sign(kink)

    def value(s: np.ndarray | float) -> np.ndarray | float:
        beyond = np.maximum((s - kink) * step, 0.0)
        return 3 + slope * s + 0.5 * bend * np.square(s) + jump * beyond

    other_slope = slope + bend * step + jump * step
    found = _vertex(step, float(value(0.0)), slope, float(value(step)), other_slope, bend)
    if other_slope * step <= 0:
        assert found is None
        return
    grid = np.linspace(min(0, step), max(0, step), 100001)
    assert found is not None
    assert found[1] == pytest.approx(np.min(value(grid)), abs=1e-8)
    assert found[0] == pytest.approx(grid[np.argmin(value(grid))], abs=1e-4)


def test_without_a_bracket_there_is_none() -> None:
    assert _vertex(1.0, 0.0, 1.0, 2.0, 3.0, 1.0) is None
    assert _vertex(1.0, 0.0, -3.0, -2.5, -2.0, 1.0) is None
