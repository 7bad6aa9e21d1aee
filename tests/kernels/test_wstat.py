"""The statistic of measured backgrounds: closed forms, published values, derivatives."""

import numpy as np
import pytest

from dl3flow.kernels.norm import MeasuredBins, fit_norm
from dl3flow.kernels.statistics import (
    cash_ts,
    wstat,
    wstat_background,
    wstat_curvature,
    wstat_slope,
    wstat_ts,
)

# mu_sig, n_on, n_off, alpha, wstat: the notes' table
TABLE = [
    (0.1, 0, 0, 0.01, 0.200),
    (0.1, 0, 1, 0.01, 0.220),
    (1.4, 0, 1, 0.5, 3.611),
    (0.2, 0, 10, 0.1, 2.306),
    (0.1, 0, 10, 0.2, 3.846),
    (5.2, 5, 0, 0.2, 0.008),
    (6.2, 5, 5, 0.2, 0.736),
    (4.1, 5, 5, 0.01, 0.163),
    (6.4, 5, 20, 0.4, 7.125),
    (4.9, 5, 40, 0.4, 14.578),
    (10.2, 10, 2, 0.2, 0.034),
    (16.9, 20, 70, 0.1, 0.656),
    (102.5, 100, 10, 0.6, 0.663),
]


def _columns(rows: list[tuple[float, ...]]) -> tuple[np.ndarray, ...]:
    mu_sig, n_on, n_off, alpha = np.array(rows, dtype=float)[:, :4].T
    return n_on, n_off, alpha, mu_sig


def test_table() -> None:
    assert wstat(*_columns(TABLE)) == pytest.approx([row[4] for row in TABLE], abs=6e-4)


def test_closed_forms() -> None:
    """Without off counts, and without on counts, the background's best value is a line."""
    one = np.ones(1)
    # n_off = 0, signal below n_on alpha / (1 + alpha): -2 mu / alpha - 2 n_on ln(alpha / (1 + alpha))
    assert wstat(6 * one, 0 * one, 0.5 * one, 1.0 * one)[0] == pytest.approx(-4 + 12 * np.log(3))
    # above it: 2 (mu + n_on (ln n_on - ln mu - 1))
    assert wstat(6 * one, 0 * one, 0.5 * one, 3 * one)[0] == pytest.approx(2 * (3 + 6 * (np.log(2) - 1)))
    # n_on = 0: 2 mu + 2 n_off ln(1 + alpha)
    assert wstat(0 * one, 7 * one, 0.5 * one, 3 * one)[0] == pytest.approx(6 + 14 * np.log(1.5))
    # no background was measured: no information
    assert wstat(5 * one, 0 * one, 0 * one, 3 * one)[0] == 0


def test_background_maximises_the_likelihood() -> None:
    n_on, n_off, alpha, mu_sig = _columns(
        [(2.5, 4, 9, 0.3, 0), (-0.4, 3, 5, 0.3, 0), (1e4, 10000, 3, 1e-3, 0)]
    )
    best = wstat_background(n_on, n_off, alpha, mu_sig)

    def log_likelihood(b: np.ndarray) -> np.ndarray:
        return n_on * np.log(mu_sig + alpha * b) - (mu_sig + alpha * b) + n_off * np.log(b) - b

    for factor in (1 - 1e-3, 1 + 1e-3):
        assert np.all(log_likelihood(best * factor) < log_likelihood(best))


@pytest.mark.parametrize("mu", [-0.7, 0.0, 0.4, 3.0, 60.0])
def test_derivatives_are_those_of_the_statistic(mu: float) -> None:
    n_on, n_off, alpha, _ = _columns([*TABLE[5:], (0, 3, 0, 0.3, 0), (0, 0, 4, 0.3, 0)])
    step = 1e-5 * max(abs(mu), 1)
    smooth = np.abs((1 + alpha) * mu - alpha * (n_on - n_off)) > 10 * step

    def at(f, shift: float) -> np.ndarray:  # noqa: ANN001
        return f(n_on, n_off, alpha, np.full(len(n_on), mu + shift))[smooth]

    slope = (at(wstat, step) - at(wstat, -step)) / (2 * step)
    assert at(wstat_slope, 0) == pytest.approx(slope, rel=1e-6, abs=1e-6)
    curvature = (at(wstat_slope, step) - at(wstat_slope, -step)) / (2 * step)
    assert at(wstat_curvature, 0) == pytest.approx(curvature, rel=1e-5, abs=1e-5)


# on the flat side of every limit: mu_sig, n_on, n_off, alpha
LIMITS = [
    (-0.3, 0, 0, 0.5),
    (0.0, 0, 0, 0.5),
    (0.3, 0, 0, 0.5),
    (-3.0, 0, 7, 0.5),  # below - alpha n_off / (1 + alpha): the background is -mu_sig / alpha
    (-1.0, 0, 7, 0.5),
    (-2.0, 6, 0, 0.5),
    (1.9, 6, 0, 0.5),  # n_on alpha / (1 + alpha) is 2
    (2.1, 6, 0, 0.5),
    (-40.0, 6, 3, 0.5),
    (1e5, 6, 3, 0.5),
    (1.0, 6, 3, 1e-12),
    (1.0, 6, 3, 1e4),
    (-1e-13, 6, 3, 1e-12),
]


def _by_cases(mu: float, n: float, m: float, alpha: float) -> tuple[float, float, float]:
    """The closed forms of few counts, with their derivatives by hand."""
    if n == 0:
        if mu >= -alpha * m / (1 + alpha):
            return 2 * mu + 2 * m * np.log(1 + alpha), 2.0, 0.0
        off = -mu / alpha
        return 2 * (off - m + m * np.log(m / off) if m else off), 2 * (-1 / alpha - m / mu), 2 * m / mu**2
    if m == 0:
        if mu <= n * alpha / (1 + alpha):
            return -2 * mu / alpha - 2 * n * np.log(alpha / (1 + alpha)), -2 / alpha, 0.0
        return 2 * (mu + n * (np.log(n / mu) - 1)), 2 * (1 - n / mu), 2 * n / mu**2
    raise AssertionError("only without on or off counts")


@pytest.mark.parametrize("case", [row for row in LIMITS if 0 in row[1:3]])
def test_limits_in_closed_form(case: tuple[float, float, float, float]) -> None:
    """Value, slope and curvature without on counts, without off counts, without either, on both sides of each kink."""
    mu, n, m, alpha = case
    found = [float(f(n, m, alpha, np.array(mu))) for f in (wstat, wstat_slope, wstat_curvature)]
    assert found == pytest.approx(_by_cases(*case), rel=1e-12, abs=1e-12)


# at zero without any counts the statistic has a kink
@pytest.mark.parametrize("case", [row for row in LIMITS if row[:3] != (0, 0, 0)])
def test_derivatives_in_the_limits(case: tuple[float, float, float, float]) -> None:
    """By differences, in steps of a thousandth of the distance to the nearest kink."""
    mu, n, m, alpha = case
    kinks = np.array(
        [-alpha * m / (1 + alpha) if n == 0 else np.inf, n * alpha / (1 + alpha) if m == 0 else np.inf]
    )
    room = min(np.abs(mu - kinks).min(), max(abs(mu), min(alpha, 1.0)))
    h = 1e-3 * room

    def at(f, x: float) -> float:  # noqa: ANN001
        return float(f(np.array(float(n)), np.array(float(m)), np.array(alpha), np.array(x)))

    scale = max(abs(at(wstat_slope, mu)), 1e-3)
    slope = (at(wstat, mu + h) - at(wstat, mu - h)) / (2 * h)
    rounding = 4e-16 * max(abs(at(wstat, mu)), n + m) / h
    assert at(wstat_slope, mu) == pytest.approx(slope, rel=1e-5, abs=10 * rounding)
    curvature = (at(wstat_slope, mu + h) - at(wstat_slope, mu - h)) / (2 * h)
    assert at(wstat_curvature, mu) == pytest.approx(curvature, rel=1e-5, abs=1e-12 * scale / h)


def test_a_background_measured_with_infinite_exposure_is_known() -> None:
    """alpha -> 0 with alpha n_off = 5.5: the statistic of an expected background."""
    n, mu = np.array([13.0, 0.0, 4.0]), np.array([2.0, 3.0, 0.0])
    found = wstat(n, np.full(3, 5.5e9), np.full(3, 1e-9), mu)
    assert found == pytest.approx(cash_ts(n, mu + 5.5), abs=2e-6)


def test_exact_predictions_have_the_saturated_value() -> None:
    """mu_sig = n_on - alpha n_off explains both counts: 0, slope 0, curvature 2 / (n_on + alpha^2 n_off)."""
    n, m, alpha = np.array([13.0, 400.0]), np.array([11.0, 7.0]), np.array([0.5, 0.01])
    mu = n - alpha * m
    assert wstat(n, m, alpha, mu) == pytest.approx([0, 0], abs=1e-11)
    assert wstat_slope(n, m, alpha, mu) == pytest.approx([0, 0], abs=1e-12)
    assert wstat_curvature(n, m, alpha, mu) == pytest.approx(2 / (n + alpha**2 * m))


def test_significance_of_li_and_ma() -> None:
    # 13 on, 11 off, alpha 0.5: 2.09 sigma (the notes); and Li and Ma's equation 17
    found = float(wstat_ts(np.array([13.0]), np.array([11.0]), np.array([0.5]))[0])
    equation_17 = 2 * (13 * np.log(1.5 / 0.5 * 13 / 24) + 11 * np.log(1.5 * 11 / 24))
    assert found == pytest.approx(equation_17)
    assert np.sqrt(found) == pytest.approx(2.09, abs=5e-3)


def test_norm_of_one_measured_bin() -> None:
    """Intervals of the notes for 13 on, 11 off, alpha 0.5, as excess."""
    one = np.ones(1)
    found = fit_norm([MeasuredBins(13 * one, 2.5 * one, 0 * one, 11 * one, 0.5 * one)])
    assert found.norm * 2.5 == pytest.approx(7.5)
    assert found.err * 2.5 == pytest.approx(np.sqrt(13 + 0.25 * 11))
    assert np.sqrt(found.ts) == pytest.approx(2.09, abs=5e-3)
    assert (found.norm - found.errn) * 2.5 == pytest.approx(3.750, abs=1e-3)
    assert (found.norm + found.errp) * 2.5 == pytest.approx(11.736, abs=1e-3)


def test_norm_may_be_negative_and_is_zero_without_counts() -> None:
    one = np.ones(1)
    less = fit_norm([MeasuredBins(2 * one, one, 0 * one, 20 * one, 0.5 * one)])
    assert less.norm == pytest.approx(-8)
    none = fit_norm([MeasuredBins(0 * one, one, 0 * one, 0 * one, 0.5 * one)])
    assert none.norm == pytest.approx(0, abs=1e-12)
    # 2 c s = 4
    assert none.ul == pytest.approx(2)
