"""Strengths of a signal on every pixel: each as the fit of its window alone finds it, with either engine."""

import importlib.util

import numpy as np
import pytest

from dl3flow.kernels import ts_map
from dl3flow.kernels.norm import ExpectedBins, fit_norm
from dl3flow.kernels.ts_map import (
    SignalBins,
    Solver,
    Wanted,
    fit_strengths,
    lowest_strengths,
    occupied_bins,
    signal_sums,
    solve_tiles,
)

BOTH = Wanted(1.0, 2.0)
SHAPE = (21, 18)
HAS_NUMBA = importlib.util.find_spec("numba") is not None
WITHOUT_NUMBA = "numba is not installed: pip install dl3flow[fast]"


def _solver(name: str) -> Solver:
    if name == "numpy":
        return solve_tiles
    from dl3flow.kernels.ts_map_numba import solve_pixels

    return solve_pixels


ENGINES = pytest.mark.parametrize(
    "engine",
    ["numpy", pytest.param("numba", marks=pytest.mark.skipif(not HAS_NUMBA, reason=WITHOUT_NUMBA))],
)


def _bins(seed: int = 1, level: float = 0.1) -> SignalBins:
    """Two images with lopsided kernels, a source, a hole in the mask and an empty corner."""
    rng = np.random.default_rng(seed)
    background = level * (1 + rng.random((2, *SHAPE)))
    weight = 5 * (1 + rng.random((2, *SHAPE)))
    background[:, 3:6, 4:7] = weight[:, 3:6, 4:7] = 0.0
    y, x = np.mgrid[-3:4, -3:4]
    kernels = np.stack([np.exp(-0.5 * ((x - 0.3) ** 2 + y**2) / width**2) for width in (0.8, 1.5)])
    kernels[1, :, 0] = 0.0
    kernels /= kernels.sum(axis=(1, 2), keepdims=True)
    counts = rng.poisson(background).astype(float)
    counts[:, 10:13, 8:11] += rng.poisson(3, (2, 3, 3))
    counts[:, 3:6, 4:7] = 0
    counts[:, 15:, :7] = 0
    kernel = np.broadcast_to(np.arange(2)[:, None, None], counts.shape)
    return SignalBins(counts, background, weight, kernels, kernel)


def _window(bins: SignalBins, j: int, i: int) -> ExpectedBins:
    """All bins of a signal centred on a pixel, bin by bin."""
    half = bins.half
    n, s, b = [], [], []
    for image in range(len(bins.counts)):
        for row in range(max(j - half, 0), min(j + half + 1, SHAPE[0])):
            for column in range(max(i - half, 0), min(i + half + 1, SHAPE[1])):
                share = bins.kernels[bins.kernel[image, row, column], row - j + half, column - i + half]
                s.append(share * bins.weight[image, row, column])
                n.append(bins.counts[image, row, column])
                b.append(bins.background[image, row, column])
    return ExpectedBins(np.array(n), np.array(s), np.array(b))


@ENGINES
@pytest.mark.parametrize("level", [0.02, 0.1, 2.0])
def test_each_pixel_is_fitted_as_if_alone(engine: str, level: float) -> None:
    bins = _bins(level=level)
    targets = np.ones(SHAPE, dtype=bool)
    found = fit_strengths(bins, targets, BOTH, _solver(engine))
    n_bound = 0
    for j, i in np.ndindex(SHAPE):
        one = _window(bins, j, i)
        alone = fit_norm([one], 1.0, 2.0)
        got = {key: values[j, i] for key, values in found.items()}
        assert got["signal"] == pytest.approx(one.s.sum())
        assert got["norm"] == pytest.approx(alone.norm, rel=1e-6, abs=1e-6)
        assert got["ts"] == pytest.approx(max(alone.ts, 0.0), rel=1e-8, abs=1e-8)
        assert got["norm_ul"] == pytest.approx(alone.ul, rel=1e-6)
        assert got["norm_errp"] == pytest.approx(alone.errp, rel=1e-6)
        assert got["norm_errn"] == pytest.approx(alone.errn, rel=1e-6, nan_ok=True)
        assert got["norm_err"] == pytest.approx(alone.err, rel=1e-6, nan_ok=True)
        n_bound += not np.isfinite(alone.err)
    # of the corner without counts, at least
    assert 20 < n_bound < targets.size
    assert np.isfinite(found["norm_errn"]).any()


@ENGINES
def test_a_pixel_without_counts_has_the_limit_of_no_counts(engine: str) -> None:
    bins = _bins()
    nothing = SignalBins(np.zeros_like(bins.counts), bins.background, bins.weight, bins.kernels, bins.kernel)
    found = fit_strengths(nothing, np.ones(SHAPE, dtype=bool), BOTH, _solver(engine))
    # the statistic is 2 c L there: it has risen by 4 above no signal at 2 / L
    assert found["norm_ul"] == pytest.approx(2 / found["signal"])
    assert found["norm"] == pytest.approx(lowest_strengths(nothing, np.ones(SHAPE, dtype=bool)))
    assert found["ts"] == pytest.approx(-2 * found["norm"] * found["signal"])
    assert np.isnan(found["norm_err"]).all()
    assert np.isnan(found["norm_errn"]).all()


@ENGINES
def test_one_bin_by_hand(engine: str) -> None:
    one = np.ones((1, 1, 1))
    bins = SignalBins(9 * one, 4 * one, 10 * one, one, np.zeros((1, 1, 1), dtype=int))
    found = {k: v[0, 0] for k, v in fit_strengths(bins, one[0] > 0, BOTH, _solver(engine)).items()}
    assert found["norm"] == pytest.approx(0.5)
    assert found["norm_err"] == pytest.approx(0.3)
    assert found["ts"] == pytest.approx(2 * (4 - 9 + 9 * np.log(9 / 4)))
    for key, rise in (("norm_errp", 1.0), ("norm_errn", 1.0), ("norm_ul", 4.0)):
        c = found[key] if key == "norm_ul" else 0.5 + (1 if key == "norm_errp" else -1) * found[key]
        mu = 10 * c + 4
        assert 2 * (mu - 9 - 9 * np.log(mu / 9)) == pytest.approx(rise, rel=1e-6)


def test_sums_and_lowest_strengths_are_those_of_all_bins() -> None:
    bins = _bins(7)
    targets = np.zeros(SHAPE, dtype=bool)
    targets[2:20, 1:] = True
    lowest, sums = lowest_strengths(bins, targets), signal_sums(bins)
    for j, i in zip(*np.nonzero(targets), strict=True):
        one = _window(bins, j, i)
        assert sums[j, i] == pytest.approx(one.s.sum())
        assert lowest[j, i] == pytest.approx(-(one.b[one.s > 0] / one.s[one.s > 0]).min())
    assert np.isinf(lowest[~targets]).all()


def test_a_signal_without_background_cannot_be_negative() -> None:
    bins = _bins()
    background = bins.background.copy()
    background[0, 12, 9] = 0.0
    bare = SignalBins(bins.counts, background, bins.weight, bins.kernels, bins.kernel)
    lowest = lowest_strengths(bare, np.ones(SHAPE, dtype=bool))
    assert (lowest[9:16, 6:13] == 0).all()
    assert (lowest[:8] < 0).all()
    found = fit_strengths(bare, np.ones(SHAPE, dtype=bool), BOTH, solve_tiles)
    assert (found["norm"][9:16, 6:13] >= 0).all()
    assert all(np.isfinite(found[key]).all() for key in ("norm", "ts", "norm_ul"))


def test_the_size_of_the_squares_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bins, targets = _bins(), np.ones(SHAPE, dtype=bool)
    whole = fit_strengths(bins, targets, BOTH, solve_tiles)
    monkeypatch.setattr(ts_map, "_MOST_NUMBERS", 300)
    assert ts_map._side(occupied_bins(bins), bins.half) < 4
    small = fit_strengths(bins, targets, BOTH, solve_tiles)
    for key, values in whole.items():
        assert small[key] == pytest.approx(values, rel=1e-7, abs=1e-9, nan_ok=True)


@ENGINES
def test_only_what_is_wanted_where_it_is_wanted(engine: str) -> None:
    targets = np.zeros(SHAPE, dtype=bool)
    targets[11, 9] = True
    found = fit_strengths(_bins(), targets, Wanted(), _solver(engine))
    assert set(found) == {"signal", "norm", "norm_err", "ts"}
    assert all((np.isfinite(values) == targets).all() for values in found.values())
    none = fit_strengths(_bins(), np.zeros(SHAPE, dtype=bool), Wanted(), _solver(engine))
    assert all(np.isnan(values).all() for values in none.values())


@pytest.mark.skipif(not HAS_NUMBA, reason=WITHOUT_NUMBA)
def test_both_engines_agree() -> None:
    bins, targets = _bins(5), np.ones(SHAPE, dtype=bool)
    ours = fit_strengths(bins, targets, BOTH, _solver("numpy"))
    compiled = fit_strengths(bins, targets, BOTH, _solver("numba"))
    assert set(ours) == set(compiled)
    for key, values in ours.items():
        assert compiled[key] == pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True)
