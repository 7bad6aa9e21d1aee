"""Excess, significance and intervals of counts: the notes' numbers, closed forms of few counts, and the definitions."""

import numpy as np
import pytest

from dl3flow.kernels.counts_interval import (
    cash_excess_at,
    cash_interval,
    wstat_excess_at,
    wstat_interval,
)
from dl3flow.kernels.statistics import cash, cash_ts, wstat, wstat_ts


def test_counts_on_an_expected_background() -> None:
    """13 on 5.5: the notes' excess, error, TS, probability, 68 % and 95 % intervals."""
    one = cash_interval(13, 5.5)
    assert float(one.excess) == 7.5
    assert float(one.error) == pytest.approx(np.sqrt(13))
    assert float(one.ts) == pytest.approx(7.37, abs=5e-3)
    assert float(one.sqrt_ts) == pytest.approx(2.71, abs=5e-3)
    assert float(one.p_value) == pytest.approx(0.0033, abs=5e-5)
    assert (float(one.low), float(one.high)) == pytest.approx((4.220, 11.446), abs=5e-4)
    assert (float(one.errn), float(one.errp)) == pytest.approx((7.5 - 4.220, 11.446 - 7.5), abs=5e-4)
    two = cash_interval(13, 5.5, 2.0)
    assert (float(two.low), float(two.high)) == pytest.approx((1.556, 16.102), abs=5e-4)
    assert float(one.ul) == pytest.approx(16.102, abs=5e-4)


def test_counts_on_a_measured_background() -> None:
    """13 on, 11 off, alpha 0.5: the notes' numbers, and Li and Ma's equation 17."""
    one, two = wstat_interval(13, 11, 0.5), wstat_interval(13, 11, 0.5, 2.0)
    assert float(one.excess) == 7.5
    assert float(one.error) == pytest.approx(np.sqrt(13 + 11 / 4))
    equation_17 = np.sqrt(2 * (13 * np.log(3 * 13 / 24) + 11 * np.log(1.5 * 11 / 24)))
    assert float(one.sqrt_ts) == pytest.approx(equation_17, rel=1e-12)
    assert float(one.sqrt_ts) == pytest.approx(2.09, abs=5e-3)
    assert (float(one.low), float(one.high)) == pytest.approx((3.750, 11.736), abs=5e-4)
    assert (float(two.low), float(two.high)) == pytest.approx((0.311, 16.580), abs=6e-4)


def test_a_deficit_has_a_negative_root() -> None:
    """4 counts on 9: 2 (9 - 4 + 4 ln(4/9)) = 3.513."""
    found = cash_interval(4, 9)
    assert float(found.sqrt_ts) == pytest.approx(-np.sqrt(2 * (5 + 4 * np.log(4 / 9))))
    assert float(found.p_value) > 0.5
    # the limit is that of a source of zero, not of the deficit: the statistic is four above that of 9 expected
    assert float(found.ul) > 0
    assert cash(np.array(4.0), found.ul + 9) - cash(np.array(4.0), np.array(9.0)) == pytest.approx(
        4, abs=1e-9
    )


def test_without_counts() -> None:
    """The statistic is 2 mu: up by one at 1/2, by four at 2; downwards it ends where nothing is expected."""
    found = cash_interval(np.zeros(2), np.array([0.0, 2.0]))
    assert found.low.tolist() == [0.0, -2.0]
    assert found.high == pytest.approx([0.5, -1.5])
    assert found.ul == pytest.approx([2.0, 2.0])
    # below zero the off counts stay empty only with a background of -mu / alpha: the statistic is -2 mu / alpha
    none = wstat_interval(0, 0, 0.5)
    assert (float(none.low), float(none.high)) == pytest.approx((-0.25, 0.5))
    # 4 off: W = 2 mu + 2 n_off ln(1 + alpha) from mu = -alpha n_off / (1 + alpha) on
    four = wstat_interval(0, 4, 0.5)
    assert float(four.ul) == pytest.approx(2.0)
    assert float(four.ts) == pytest.approx(8 * np.log(1.5))


def test_ends_of_intervals_are_where_they_should_be() -> None:
    n, b = np.array([1.0, 3.0, 20.0, 1e4]), np.array([0.2, 3.0, 40.0, 9e3])
    found = cash_interval(n, b, 1.5)
    best = cash(n, n)
    for end in (found.low, found.high):
        assert cash(n, b + end) - best == pytest.approx(2.25, abs=1e-6)
    n_off, alpha = np.array([0.0, 9.0, 400.0, 9e4]), np.array([0.5, 0.3, 0.1, 0.1])
    measured = wstat_interval(n, n_off, alpha, 1.5)
    best = wstat(n, n_off, alpha, n - alpha * n_off)
    for end in (measured.low, measured.high):
        assert wstat(n, n_off, alpha, end) - best == pytest.approx(2.25, abs=1e-6)


def test_a_background_known_well_is_an_expected_one() -> None:
    """1e9 off counts at alpha 5.5e-9: as 13 on 5.5."""
    measured, known = wstat_interval(13, 1e9, 5.5e-9), cash_interval(13, 5.5)
    for name in ("excess", "ts", "low", "high", "ul"):
        assert float(getattr(measured, name)) == pytest.approx(float(getattr(known, name)), rel=1e-5)


def test_excess_of_a_wanted_significance() -> None:
    b = np.array([1e-3, 1.0, 100.0])
    excess = cash_excess_at(5, b)
    assert cash_ts(b + excess, b) == pytest.approx(25)
    # of many counts the root of the background
    assert float(cash_excess_at(1, 1e8)) == pytest.approx(1e4, rel=1e-3)
    assert float(cash_excess_at(5, 0.0)) == 0
    measured = wstat_excess_at(5, np.array([0.0, 100.0]), 0.1)
    assert wstat_ts(measured + [0, 10], np.array([0.0, 100.0]), np.full(2, 0.1)) == pytest.approx(25)
    # n_off = 0: -2 n ln(alpha / (1 + alpha)) = 25
    assert measured[0] == pytest.approx(12.5 / np.log(11))


def test_an_excess_above_what_is_known() -> None:
    """10 of the counts are expected of something else: the ends lie where the statistic of the rest has risen."""
    for n, m, a in ((40.0, 25.0, 0.5), (5.0, 30.0, 0.5), (0.0, 3.0, 0.2)):
        found = wstat_interval(n, m, a, known=10.0)
        best = n - a * m - 10
        assert float(found.excess) == pytest.approx(best)
        assert float(found.sqrt_ts) == pytest.approx(np.sign(best) * np.sqrt(wstat(n, m, a, 10.0)))
        low = float(wstat(n, m, a, max(best, 0.0) + 10))
        assert float(wstat(n, m, a, float(found.ul) + 10)) - low == pytest.approx(4)
        rise = float(wstat(n, m, a, float(found.high) + 10)) - float(wstat(n, m, a, best + 10))
        assert rise == pytest.approx(1)
    assert float(wstat_interval(40, 25, 0.5).excess) == pytest.approx(27.5)
