"""Norms of many groups at once: each as if it were alone, and as a plain minimiser finds it."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from dl3flow.kernels.norm import ExpectedBins, MeasuredBins, NormFit, fit_norm, fit_norms
from dl3flow.kernels.statistics import cash, wstat

_FIELDS = ("norm", "err", "errn", "errp", "ul", "stat", "stat_null")


def _expected(seed: int, m: int, strength: float = 1.0) -> ExpectedBins:
    rng = np.random.default_rng(seed)
    s, b = rng.exponential(1.0, m) * (rng.random(m) < 0.8), rng.exponential(2.0, m) + 0.05
    return ExpectedBins(rng.poisson(strength * s + b).astype(float), s, b)


def _measured(seed: int, m: int, alpha: float = 0.2) -> MeasuredBins:
    rng = np.random.default_rng(seed)
    s, b = rng.exponential(1.0, m), rng.exponential(2.0, m)
    n, n_off = rng.poisson(s + b).astype(float), rng.poisson(b / alpha).astype(float)
    return MeasuredBins(n, s, np.zeros(m), n_off, np.full(m, alpha))


def test_groups_are_fitted_as_if_alone() -> None:
    """Known and measured backgrounds together, groups of 0 to 40 bins in any order, one without counts, one without signal."""
    group = np.random.default_rng(3).permutation(np.repeat([0, 1, 2, 4, 5], [40, 25, 15, 6, 3]))
    known, measured = _expected(1, len(group)), _measured(2, len(group))
    silent = np.where(group == 5, 0.0, 1.0)
    known = ExpectedBins(np.where(group == 4, 0.0, known.n), known.s * silent, known.b)
    measured = MeasuredBins(
        np.where(group == 4, 0.0, measured.n), measured.s * silent, measured.b, measured.n_off, measured.alpha
    )
    found = fit_norms([known.grouped(group, 6), measured.grouped(group, 6)], 1.5, 1.7)
    for k in (0, 1, 2, 4):
        at = group == k
        parts = [
            ExpectedBins(known.n[at], known.s[at], known.b[at]),
            MeasuredBins(
                *(v[at] for v in (measured.n, measured.s, measured.b, measured.n_off, measured.alpha))
            ),
        ]
        alone = fit_norm(parts, 1.5, 1.7)
        for name in _FIELDS:
            assert getattr(found[k], name) == pytest.approx(getattr(alone, name), rel=1e-9, nan_ok=True), name
        low = -float((known.b[at] / np.maximum(known.s[at], 1e-300)).min())

        def stat(c: float, at: np.ndarray = at) -> float:
            mu = np.maximum(c * known.s[at] + known.b[at], 0)
            off = wstat(measured.n[at], measured.n_off[at], measured.alpha[at], c * measured.s[at])
            return float(cash(known.n[at], mu).sum() + off.sum())

        best = minimize_scalar(stat, bounds=(low, 10), method="bounded", options={"xatol": 1e-10})
        assert found.norm[k] == pytest.approx(best.x, abs=1e-4)
        assert found.stat[k] <= best.fun + 1e-9
        start = max(found.norm[k], 0.0)
        crossing = brentq(lambda c, s=start: stat(c) - stat(s) - 1.7**2, start, start + 30)
        assert found.ul[k] == pytest.approx(crossing, rel=1e-7)
    # an empty group, and one that nobody sees
    for k in (3, 5):
        assert np.isnan([getattr(found[k], name) for name in _FIELDS[:5]]).all()
        assert found[k].ts == 0


def test_a_long_way_down_is_found() -> None:
    """1000 expected, 500 seen: c = -500 / s, however small s is; the error is that of the counts."""
    for s in (1e-9, 1.0, 1e9):
        found = fit_norm([ExpectedBins(np.array([500.0]), np.array([s]), np.array([1000.0]))])
        assert found.norm * s == pytest.approx(-500)
        assert found.err * s == pytest.approx(np.sqrt(500))
        assert found.ul * s == pytest.approx(brentq(lambda x: 2 * (x - 500 * np.log1p(x / 1000)) - 4, 0, 99))


def test_the_wall_of_a_bin_without_background() -> None:
    """5 counts in a bin without background: downwards the limit lies before zero strength, where the logarithm ends."""
    parts = [ExpectedBins(np.array([5.0, 0.0]), np.array([2.0, 7.0]), np.array([0.0, 3.0]))]
    found = fit_norm(parts, 3.0)
    assert found.norm == pytest.approx(5 / 9)

    def rise(c: float) -> float:
        return float(2 * (9 * c - 5 * np.log(c)) - 2 * (5 - 5 * np.log(5 / 9)) - 9)

    assert found.norm - found.errn == pytest.approx(brentq(rise, 1e-9, 5 / 9), rel=1e-7)
    assert found.norm + found.errp == pytest.approx(brentq(rise, 5 / 9, 9), rel=1e-7)


def test_nothing_measured_says_nothing() -> None:
    """Bins with alpha 0 count neither for the norm nor for its errors, however many counts they hold."""
    n, s, off = np.array([20.0, 900.0]), np.array([2.0, 5.0]), np.array([30.0, 0.0])
    found = fit_norm([MeasuredBins(n, s, np.zeros(2), off, np.array([0.5, 0.0]))])
    alone = fit_norm([MeasuredBins(n[:1], s[:1], np.zeros(1), off[:1], np.array([0.5]))])
    assert isinstance(found, NormFit)
    assert found == alone
    assert found.norm == pytest.approx((20 - 15) / 2)
    none = fit_norm([MeasuredBins(n, s, np.zeros(2), off, np.zeros(2))])
    assert np.isnan([none.norm, none.ul]).all()


def test_no_counts_at_all() -> None:
    """Off counts 3 at alpha 0.5: below zero the source takes up the background; none: the best norm is exactly zero."""
    one = np.ones(1)
    found = fit_norm([MeasuredBins(0 * one, 2 * one, 0 * one, 3 * one, 0.5 * one)])
    # on counts vanish where 2 c = -alpha n_off
    assert found.norm == pytest.approx(-0.75)
    # above zero W = 2 mu_s
    assert found.ul == pytest.approx(1.0)
    none = fit_norm([MeasuredBins(0 * one, 2 * one, 0 * one, 0 * one, 0.5 * one)])
    assert none.norm == 0
    assert none.ul == pytest.approx(1.0)
    # W = -2 mu_s / alpha below zero
    assert none.errn == pytest.approx(0.5 * 0.5 / 2)
    assert none.errp == pytest.approx(0.25)
