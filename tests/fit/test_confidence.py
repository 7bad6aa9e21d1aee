"""Profiles, MINOS errors and contours: by hand in one bin, against the plain likelihood minimised, and at limits."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from iminuit import Minuit
from scipy.optimize import brentq, minimize

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult
from dl3flow.fit import crossing, finished, newton
from dl3flow.fit.confidence import contour, minos, profile
from dl3flow.fit.engine import Evaluation, evaluate
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.uncertainties import with_uncertainties
from dl3flow.models.source import Models, Parameter

from .dense import Dense
from .small_data import gauss, make_map, point

MakeModels = Callable[..., Models]


def _held(models: Models, values: dict[str, float | None]) -> Models:
    """Models with some parameters frozen, at other values where one is given."""
    old = models.parameters()
    return models.with_parameters(
        {
            n: replace(old[n], value=old[n].value if v is None else float(v), frozen=True)
            for n, v in values.items()
        }
    )


@pytest.fixture(scope="module")
def weak() -> tuple[Dataset, FitResult]:
    """A point whose position is known to 0.015 deg, with a TS of 67."""
    dataset = make_map("m", seed=3, amplitude=2e-11, level=0.5)
    models = _held(Models((point("s", 2e-11),)), {"s.index": None})
    result = fit([dataset], models)
    assert result.success, result.message
    return dataset, result


def _lowest(dataset: Dataset, result: FitResult, values: dict[str, float]) -> float:
    """Plain likelihood with some parameters at values and all others at their best, less that of the fit."""
    plain = Dense([dataset], result.models)
    others = np.array([n not in values for n in plain.names])
    scale = np.array([result.parameter(n).error for n in plain.names])[others]
    x = np.array([values.get(n, at) for n, at in zip(plain.names, plain.start, strict=True)])

    def at(t: np.ndarray) -> float:
        there = x.copy()
        there[others] += t * scale
        return plain.stat(there)

    # from the best fit, and from where the source is all but gone
    gone = np.where(np.array(plain.names)[others] == "s.amplitude", -3.0, 0.0)
    options = {"xatol": 1e-3, "fatol": 1e-5}
    found = [minimize(at, start, method="Nelder-Mead", options=options).fun for start in (0 * gone, gone)]
    return min(found) - plain.stat(plain.start)


@pytest.mark.parametrize(("name", "shift"), [("s.lon_0", 0.15), ("s.lon_0", 0.3)])
def test_a_profile_far_outside_the_window_is_minimised(
    name: str, shift: float, weak: tuple[Dataset, FitResult]
) -> None:
    """All others at their best in the plain likelihood; never above the TS, since the source may vanish."""
    dataset, result = weak
    value = result.parameter(name).value + shift
    found = profile([dataset], result, name, np.array([value])).stat[0]
    assert found == pytest.approx(_lowest(dataset, result, {name: value}), abs=0.01)
    assert found < result.minimiser["ts"]["s"]


def test_a_contour_closes_on_one_height(weak: tuple[Dataset, FitResult]) -> None:
    """Height 28.74 (chi2 of two degrees of freedom at 5 sigma) all along a line around the best fit."""
    dataset, result = weak
    lon, lat = result.parameter("s.lon_0").value, result.parameter("s.lat_0").value
    line = contour([dataset], result, ("s.lon_0", "s.lat_0"), n_sigma=5.0, n_points=8)
    assert (line.x[0], line.y[0]) == (line.x[-1], line.y[-1])
    turned = np.diff(np.unwrap(np.arctan2(line.y - lat, (line.x - lon) * np.cos(np.radians(lat)))))
    assert abs(turned.sum()) == pytest.approx(2 * np.pi)
    # templates are made anew after 0.06 deg
    assert np.hypot((line.x - lon) * np.cos(np.radians(lat)), line.y - lat).max() > 0.09
    for x, y in list(zip(line.x, line.y, strict=True))[:-1:2]:
        assert _lowest(dataset, result, {"s.lon_0": x, "s.lat_0": y}) == pytest.approx(28.744, abs=0.05)


def _counted(spectrum: Callable[..., Dataset], models: Models) -> tuple[Dataset, FitResult]:
    """30 counts on 20 in one bin, with an amplitude and nothing else."""
    dataset = spectrum(seed=None, n_energy=1, level=20.0)
    dataset = replace(dataset, counts=dataset.counts.with_data(np.full((1, 1, 1), 30.0)))
    return dataset, fit([dataset], _held(models, {"s.index": None}))


def _rise(signal: float) -> float:
    mu = 20.0 + signal
    return 2 * (mu - 30 - 30 * np.log(mu / 30)) - 1


def _limited(result: FitResult, **limits: float) -> FitResult:
    amplitude = replace(result.parameter("s.amplitude"), **limits)
    return replace(result, models=result.models.with_parameters({"s.amplitude": amplitude}))


def test_minos_by_hand_and_before_a_limit(
    spectrum: Callable[..., Dataset], spectral_models: MakeModels
) -> None:
    """Where 2 (mu - 30 ln mu) rises by one; not a number on a side where a limit comes first."""
    dataset, result = _counted(spectrum, spectral_models(1e-12))
    best: Parameter = result.parameter("s.amplitude")
    per_count = best.value / 10
    minus, plus = minos([dataset], result, ["s.amplitude"])["s.amplitude"]
    assert minus == pytest.approx((10 - brentq(_rise, -10, 10)) * per_count, rel=2e-3)
    assert plus == pytest.approx((brentq(_rise, 10, 30) - 10) * per_count, rel=2e-3)
    below = _limited(result, min=best.value - 0.5 * best.error)
    found = minos([dataset], below, ["s.amplitude"])["s.amplitude"]
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(plus, rel=2e-3)
    above = _limited(result, max=best.value + 0.5 * best.error)
    found = minos([dataset], above, ["s.amplitude"])["s.amplitude"]
    assert found[0] == pytest.approx(minus, rel=2e-3)
    assert np.isnan(found[1])
    told = with_uncertainties([dataset], above, {"minos": "all"}).minimiser["warnings"]
    assert any("s.amplitude has no MINOS error upwards" in sentence for sentence in told)


def test_a_fit_at_its_limit(spectrum: Callable[..., Dataset], spectral_models: MakeModels) -> None:
    """No error downwards, and a profile that rises from the limit, within a range that the statistic itself gives."""
    free = _counted(spectrum, spectral_models(1e-12))[1].parameter("s.amplitude")
    per_count = free.value / 10
    amplitude = spectral_models(1e-12).parameters()["s.amplitude"]
    limited = replace(amplitude, value=13 * per_count, min=12 * per_count)
    models = spectral_models(1e-12).with_parameters({"s.amplitude": limited})
    dataset, result = _counted(spectrum, models)
    assert result.parameter("s.amplitude").value == pytest.approx(12 * per_count)
    assert np.isnan(minos([dataset], result, ["s.amplitude"])["s.amplitude"][0])
    found = profile([dataset], result, "s.amplitude")
    assert found.values[0] == pytest.approx(12 * per_count)
    assert len(np.unique(found.values)) == 11
    # three errors of 32 expected counts are 17
    assert found.values[-1] - found.values[0] == pytest.approx(17 * per_count, rel=0.1)
    expected = [_rise(value / per_count) - _rise(12.0) for value in found.values]
    assert found.stat == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["s.amplitude", "s.lon_0", "s.lat_0"])
def test_minos_of_a_point_reaches_across_kinks(name: str, weak: tuple[Dataset, FitResult]) -> None:
    """The plain likelihood, all else at its best, is one above its minimum to a thousandth of an error."""
    dataset, result = weak
    value = result.parameter(name).value
    minus, plus = minos([dataset], result, [name])[name]
    for at in (value - minus, value + plus):
        assert _lowest(dataset, result, {name: at}) == pytest.approx(1, abs=2e-3)


@pytest.fixture(scope="module")
def extended() -> tuple[list[Dataset], FitResult]:
    """A Gaussian in two maps, each with a background of its own: seven parameters, of which two are local."""
    datasets = [make_map("a", seed=1), make_map("b", seed=2, level=1.0)]
    # wider than a pixel, so that no kink is left
    drawn = fit(datasets, Models((gauss("s", sigma=0.12),)))
    models = _held(drawn.models, {"s.sigma": 0.12})
    models = models.with_parameters({"s.sigma": replace(models.parameters()["s.sigma"], frozen=False)})
    counts = [
        replace(d, counts=d.counts.with_data(np.random.default_rng(k).poisson(_expected(d, models))))
        for k, d in enumerate(datasets)
    ]
    return counts, fit(counts, add_backgrounds(counts, models, ["norm"]))


def _expected(dataset: Dataset, models: Models) -> np.ndarray:
    return np.maximum(Dense([dataset], models).signal(dataset, models), 0.0) + dataset.mu_bkg


def test_minos_is_that_of_minuit(extended: tuple[list[Dataset], FitResult]) -> None:
    """Both ends, of an eliminated parameter too, to a thousandth of an error."""
    datasets, result = extended
    assert result.success, result.message
    names = ["s.amplitude", "a-bkg.norm"]
    found = minos(datasets, result, names)
    likelihood = build_likelihood(datasets, result.models)
    best = np.array([result.parameter(n).value for n in likelihood.names])
    errors = np.array([result.parameter(n).error for n in likelihood.names])
    lowest = likelihood.stat(best)
    minuit = Minuit(
        lambda z: likelihood.stat(best + errors * z) - lowest,
        np.zeros(len(best)),
        grad=lambda z: errors * likelihood.gradient(best + errors * z),
    )
    minuit.errordef, minuit.tol = 1.0, 1e-3
    minuit.migrad()
    for name in names:
        k = result.free.index(name)
        minuit.minos(k, cl=0.682689492137086)
        error = minuit.merrors[f"x{k}"]
        assert np.array(found[name]) / errors[k] == pytest.approx([-error.lower, error.upper], abs=1e-3)


def test_minos_needs_few_evaluations(
    extended: tuple[list[Dataset], FitResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two for an end, where a minimiser that starts blindly needs forty."""
    datasets, result = extended
    count = [0]

    def counted(*args: object, **options: object) -> Evaluation:
        count[0] += 1
        return evaluate(*args, **options)  # type: ignore[arg-type]

    for module in (crossing, finished, newton):
        monkeypatch.setattr(module, "evaluate", counted)
    minos(datasets, result, result.free)
    assert 0 < count[0] <= 3 * 2 * len(result.free)


def test_walking_and_bisecting_ends_at_the_same_place(
    extended: tuple[list[Dataset], FitResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in where Newton's method does not arrive."""
    datasets, result = extended
    names = ["s.sigma", "a-bkg.norm"]
    straight = minos(datasets, result, names)
    monkeypatch.setattr(crossing, "_newton", lambda *_: None)
    walked = minos(datasets, result, names)
    for name in names:
        assert walked[name] == pytest.approx(straight[name], abs=3e-4 * result.parameter(name).error)


def test_what_never_rises_by_one_has_no_error(
    spectrum: Callable[..., Dataset], spectral_models: MakeModels
) -> None:
    """Without the source the statistic is 0.3 higher, so that no index is worse than that."""
    dataset = spectrum(seed=None, n_energy=6, level=20.0, amplitude=0.0)
    signal = np.array([4.0, 1.0, 0.3, 0.1, 0.0, 0.0]).reshape(-1, 1, 1)
    dataset = replace(dataset, counts=dataset.counts.with_data(dataset.counts.data + signal))
    result = fit([dataset], spectral_models(1e-13, low=0.0))
    assert 0.1 < result.minimiser["ts"]["s"] < 1
    minus, plus = minos([dataset], result, ["s.index"])["s.index"]
    assert np.isnan(minus)
    assert np.isnan(plus)


def test_a_contour_at_a_fit_on_its_limit_closes_through_it(
    spectrum: Callable[..., Dataset], spectral_models: MakeModels
) -> None:
    """Half a contour above the limit; names in the order in which they were asked for."""
    models = spectral_models(3e-11)
    dataset = spectrum(level=20.0)
    free = fit([dataset], models).parameter("s.amplitude")
    low = replace(models.parameters()["s.amplitude"], value=free.value + 2 * free.error)
    low = replace(low, min=free.value + free.error)
    result = fit([dataset], models.with_parameters({"s.amplitude": low}))
    assert result.parameter("s.amplitude").value == pytest.approx(low.min)
    line = contour([dataset], result, ("s.index", "s.amplitude"), n_points=16)
    assert line.y.min() == pytest.approx(low.min)
    assert np.isfinite(line.x).all()
    best = result.stat
    on_line = line.y > low.min * (1 + 1e-9)
    assert on_line.sum() >= 5
    for x, y in zip(line.x[on_line], line.y[on_line], strict=True):
        at = _held(result.models, {"s.index": x, "s.amplitude": y})
        assert fit([dataset], at).stat - best == pytest.approx(2.2957, abs=2e-3)
