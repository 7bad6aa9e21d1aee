"""Flux points: all else fitted anew in each bin, profiles on request, absorption taken out, and data that say little."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import Axis
from dl3flow.kernels.statistics import cash
from dl3flow.models.compound import compound
from dl3flow.models.source import Component, Models, Parameter

ENTRY = {"name": "flux_points", "source": "s", "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 3}}


def points_of(datasets: list[Any], result: FitResult, **more: Any) -> FluxPoints:
    estimate, options = TABLES.bind({**ENTRY, **more}, "sed")
    return estimate(datasets, result, **options)


@pytest.fixture(scope="module")
def datasets(small_dataset: Callable[..., Dataset]) -> list[Dataset]:
    return [small_dataset(f"d{k}", seed=40 + k) for k in range(2)]


@pytest.fixture(scope="module")
def result(datasets: list[Dataset], point_models: Callable[..., Models]) -> FitResult:
    return fit(datasets, add_backgrounds(datasets, point_models(), ["norm"]))


@pytest.fixture(scope="module")
def refitted(datasets: list[Dataset], result: FitResult) -> FluxPoints:
    return points_of(datasets, result, reoptimize=True, norms=[0.0, 0.5, 1.0])


def _profile(datasets: list[Dataset], result: FitResult, k: int) -> Callable[[float], float]:
    """Statistic of one energy bin with both background norms at their best for a norm, by a general minimiser."""
    parts = [
        (d.counts.data[k], *(p[k] for p in predict_counts(d, replace(result.models, backgrounds=()))))
        for d in datasets
    ]

    def stat(c: float) -> float:
        total = 0.0
        for n, s, b in parts:
            found = minimize(
                lambda a, n=n, s=s, b=b: cash(n, c * s + a[0] * b).sum(),
                [1.0],
                method="Nelder-Mead",
                options={"xatol": 1e-9, "fatol": 1e-10},
            )
            total += float(found.fun)
        return total

    return stat


def test_all_else_is_fitted_anew(datasets: list[Dataset], result: FitResult, refitted: FluxPoints) -> None:
    """Best norm, errors, limit, test statistic and profile of one point against a general minimiser over the backgrounds."""
    k, row = 1, refitted.table[1]
    stat = _profile(datasets, result, k)
    at = float(row["norm"])
    best = stat(at)
    assert row["stat"] == pytest.approx(best, abs=1e-6)
    assert stat(at + 1e-3) > best
    assert stat(at - 1e-3) > best
    assert row["ts"] == pytest.approx(stat(0.0) - best, abs=1e-5)
    assert row["norm_errp"] == pytest.approx(brentq(lambda d: stat(at + d) - best - 1, 0.01, 1), rel=1e-4)
    assert row["norm_errn"] == pytest.approx(brentq(lambda d: stat(at - d) - best - 1, 0.01, 1), rel=1e-4)
    assert row["norm_ul"] == pytest.approx(brentq(lambda c: stat(c) - best - 4, at, at + 2), rel=1e-4)
    step = 1e-2
    curvature = (stat(at + step) - 2 * best + stat(at - step)) / step**2
    assert row["norm_err"] == pytest.approx(np.sqrt(2 / curvature), rel=1e-3)
    assert row["norm_scan"].tolist() == [0.0, 0.5, 1.0]
    assert row["stat_scan"] == pytest.approx([stat(c) for c in (0.0, 0.5, 1.0)], abs=1e-5)
    # what is left open widens the errors, and a background of its own describes a bin as a whole
    fixed = points_of(datasets, result).table
    assert np.all(refitted.table["norm_err"] > fixed["norm_err"])
    assert np.all(refitted.table["stat"] < fixed["stat"])
    assert np.asarray(refitted.table["npred"]) == pytest.approx(np.asarray(fixed["counts"]), rel=1e-4)
    assert refitted.meta["reoptimize"] is True


def test_a_neighbour_is_fitted_anew_where_it_stands(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    """A second source 0.1 deg away with a wrong frozen index but a free amplitude: its bins follow the data."""
    dataset = small_dataset("d", seed=5)
    models = point_models()
    near = replace(point_models(1e-10, 2.5, lon=83.73).sources[0], name="t")
    expected, background = predict_counts(dataset, replace(models, sources=(*models.sources, near)))
    seen = np.round(expected + background)
    dataset = replace(dataset, counts=dataset.counts.with_data(seen))
    index = near.spectral.parameters[1]
    wrong = replace(
        near,
        spectral=replace(
            near.spectral,
            parameters=(
                near.spectral.parameters[0],
                replace(index, value=4.0, frozen=True),
                near.spectral.parameters[2],
            ),
        ),
        spatial=replace(
            near.spatial, parameters=tuple(replace(p, frozen=True) for p in near.spatial.parameters)
        ),
    )
    own = models.sources[0]
    held = replace(
        own,
        spatial=replace(
            own.spatial, parameters=tuple(replace(p, frozen=True) for p in own.spatial.parameters)
        ),
    )
    found = fit([dataset], Models((held, wrong)))
    alone = found.models.sources[0]
    assert alone.name == "s"
    fixed, free = (points_of([dataset], found, reoptimize=b) for b in (False, True))
    truth = 3e-10 * fixed.table["e_ref"].to_value("TeV") ** -2.5
    pulls = [(p.dnde().value - truth) / p.dnde("norm_err").value for p in (fixed, free)]
    # at the highest energies the neighbour, too steep, leaves its photons to the source
    assert pulls[0][2] > 1.5
    assert np.all(np.abs(pulls[1]) < 0.5)


def test_measured_backgrounds_and_links(datasets: list[Dataset], result: FitResult) -> None:
    """Off counts need no fit anew: both ways agree; a parameter linked to the source's stays with it."""

    def measured(d: Dataset) -> Dataset:
        counts = d.counts.with_data(np.round(4 * d.mu_bkg))
        one = d.counts.with_data(np.ones(d.counts.data.shape))
        return replace(d, background=OffCounts(counts, one, d.counts.with_data(4 * one.data)))

    on_off = [measured(d) for d in datasets]
    pair = Models((*result.models.sources, replace(result.models.sources[0], name="t")))
    linked = {
        n: replace(p, link="a", frozen=False) if n.endswith("amplitude") else replace(p, frozen=True)
        for n, p in pair.parameters().items()
    }
    models = pair.with_parameters(linked)
    both = [points_of(on_off, replace(result, models=models), reoptimize=b).table for b in (False, True)]
    for name in ("norm", "norm_err", "norm_errn", "norm_errp", "norm_ul", "ts", "stat"):
        assert np.asarray(both[1][name]) == pytest.approx(np.asarray(both[0][name]), rel=1e-5, abs=1e-5), name
    assert np.asarray(both[1]["npred"]) == pytest.approx(np.asarray(both[0]["npred"]), rel=1e-6)


def test_empty_bins_refitted_are_limits(datasets: list[Dataset], result: FitResult) -> None:
    empty = [replace(d, counts=d.counts.with_data(np.zeros_like(d.counts.data))) for d in datasets]
    table = points_of(empty, result, reoptimize=True).table
    signal = sum(predict_counts(d, replace(result.models, backgrounds=()))[0].sum(axis=(1, 2)) for d in empty)
    assert np.all(table["is_ul"])
    # without counts the best background is none, and the likelihood linear: 2 c s = 4
    assert np.asarray(table["norm_ul"]) == pytest.approx(2 / signal, rel=1e-6)


def test_masked_points_say_so(datasets: list[Dataset], result: FitResult) -> None:
    """No bin of the middle point is usable: NaN, no success, a sentence; the others stand."""
    keep = np.array([True, False, True])[:, None, None]
    cut = [replace(d, mask_fit=np.broadcast_to(keep, d.counts.data.shape)) for d in datasets]
    whole = points_of(datasets, result).table
    for reoptimize in (False, True):
        points = points_of(cut, result, reoptimize=reoptimize)
        assert points.table["success"].tolist() == [True, False, True]
        assert np.isnan(points.table["norm"][1])
        assert all(np.isnan(points.table[name][1]) for name in ("norm_ul", "ts", "sqrt_ts"))
        assert points.table["is_ul"][1]
        assert points.table["counts"][1] == 0
        assert "no data see the source, so there is no flux, at 2.15 to 4.64 TeV" in points.meta["warnings"]
    assert points_of(cut, result).table["norm"][2] == whole["norm"][2]


def test_upper_limits_of_negative_excess_start_at_zero(datasets: list[Dataset], result: FitResult) -> None:
    """No counts near the source: the limit is where the statistic has risen by 4 above zero flux, not above the best."""
    y, x = np.mgrid[-19.5:20.5, -19.5:20.5]
    low = [replace(d, counts=d.counts.with_data(d.counts.data * (np.hypot(x, y) > 6))) for d in datasets]
    table = points_of(low, result).table
    assert np.all(table["norm"] < 0)
    for k in range(3):
        parts = [
            (d.counts.data[k], predict_counts(d, result.models)[0][k], predict_counts(d, result.models)[1][k])
            for d in low
        ]

        def stat(c: float, parts: list[Any] = parts) -> float:
            return float(sum(cash(n, c * s + b).sum() for n, s, b in parts))

        assert stat(float(table["norm_ul"][k])) - stat(0.0) == pytest.approx(4, abs=1e-6)


def test_a_negative_best_fit_has_no_norms(datasets: list[Dataset], result: FitResult) -> None:
    amplitude = replace(result.parameter("s.amplitude"), value=-1e-11)
    below = replace(result, models=result.models.with_parameters({"s.amplitude": amplitude}))
    points = points_of(datasets, below)
    assert not points.table["success"].any()
    assert np.isnan(points.table["norm"]).all()
    assert any(w.startswith("the best fit is not above zero") for w in points.meta["warnings"])


def absorbed(models: Models, norm: float = 1.0) -> Models:
    """Models whose source is absorbed: transmission exp(-tau) with tau = z E / TeV on a fine table, at z = 0.2."""
    energy, redshift = np.geomspace(0.05, 100, 400), np.array([0.1, 0.3])
    options = {"energy": energy, "param": redshift, "values": np.exp(-redshift[:, None] * energy)}
    parameters = (Parameter("redshift", 0.2, frozen=True), Parameter("alpha_norm", norm, frozen=True))
    ebl = Component("ebl_absorption", parameters, options)
    return Models(tuple(replace(s, spectral=compound("mul", s.spectral, ebl)) for s in models.sources))


def test_absorption_is_taken_out(datasets: list[Dataset], point_models: Callable[..., Models]) -> None:
    """dnde divided by exp(-0.2 E / TeV), same norms; the integral flux is that of the plain power law."""
    found = fit(datasets, absorbed(point_models()))
    seen, source = points_of(datasets, found), points_of(datasets, found, deabsorbed=True)
    assert np.asarray(source.table["norm"]) == pytest.approx(np.asarray(seen.table["norm"]))
    energy = seen.table["e_ref"].to_value("TeV")
    ratio = (source.dnde() / seen.dnde()).to_value("")
    assert ratio == pytest.approx(np.exp(0.2 * energy), rel=1e-3)
    amplitude, index = (found.parameter(f"s.{n}").value for n in ("amplitude", "index"))
    edges = 10 ** (np.arange(4) / 3)
    expected = amplitude / (index - 1) * (edges[:-1] ** (1 - index) - edges[1:] ** (1 - index))
    assert source.table["ref_flux"].to_value("cm-2 s-1") == pytest.approx(expected, rel=1e-6)
    assert source.meta["deabsorbed"] is True
    assert seen.meta["deabsorbed"] is False


def test_without_absorption_there_is_nothing_to_take_out(datasets: list[Dataset], result: FitResult) -> None:
    with pytest.raises(InputError, match=r"the spectrum of 's' \(power_law\) has no absorption"):
        points_of(datasets, result, deabsorbed=True)


def test_bins_across_edges_are_named(small_dataset: Callable[..., Dataset], result: FitResult) -> None:
    """A dataset with one bin over all energies joins no point of the other's three."""
    one, two = (small_dataset(n, seed=9) for n in ("one", "two"))
    wide = Axis("energy", two.energy.edges[[0, 2, 3]])
    data = np.array([two.counts.data[:2].sum(axis=0), two.counts.data[2]])
    edisp = two.edisp.edisp
    kernel = np.stack([edisp.data[:, :2].sum(axis=1), edisp.data[:, 2]], axis=1)
    merged = replace(
        two,
        counts=replace(two.counts, axes=(wide,), data=data),
        background=replace(
            two.background,
            counts=replace(
                two.background.counts,
                axes=(wide,),
                data=np.array([two.mu_bkg[:2].sum(axis=0), two.mu_bkg[2]]),
            ),
        ),
        edisp=replace(two.edisp, edisp=replace(edisp, axes=(edisp.axes[0], wide), data=kernel)),
        mask_safe=np.ones(data.shape, dtype=bool),
    )
    points = points_of([one, merged], result)
    assert points.table["counts"].tolist() == [
        one.counts.data[0].sum(),
        one.counts.data[1].sum(),
        one.counts.data[2].sum() + data[1].sum(),
    ]
    assert any("across an edge are in no point, of two (1)" in w for w in points.meta["warnings"])


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="norms: expected numbers from 0 on, found -1"):
        TABLES.bind({**ENTRY, "norms": [1, -1]}, "sed")
    with pytest.raises(InputError, match="reoptimize: expected true or false"):
        TABLES.bind({**ENTRY, "reoptimize": "backgrounds"}, "sed")
    assert TABLES.bind({**ENTRY, "norms": [1, 0.5]}, "sed")[1]["norms"] == [1.0, 0.5]
