"""What once went wrong in the engine: names, priors, limits, links, systematic errors, times, responses left out."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from scipy.optimize import minimize

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.events import Gti
from dl3flow.fit.goodness import saturated_stat
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import add_backgrounds, fit, source_ts
from dl3flow.fit.settings import FitSettings
from dl3flow.fit.systematics import response_model
from dl3flow.models.pixels import pixel_fractions
from dl3flow.models.source import BackgroundModel, Component, Models, Parameter, Prior, ResponseModel, Source

from .dense import Dense, DenseMap, bin_fluxes, bound, cash_of
from .small_data import LAT, LON, gauss, make_map, make_points, make_spectrum, point

MakeDataset = Callable[..., Dataset]
MakeModels = Callable[..., Models]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_map("m", seed=3)


def _frozen(source: Source, *names: str) -> Source:
    """A source with some parameters frozen, all of them without names."""
    models = Models((source,))
    old = models.parameters()
    chosen = [f"{source.name}.{n}" for n in names] or list(old)
    return models.with_parameters({n: replace(old[n], frozen=True) for n in chosen}).sources[0]


def _changed(models: Models, **changes: object) -> Models:
    """Models with the named parameters (dots as two underscores) at other values, or with other fields."""
    old = models.parameters()
    found = {}
    for key, change in changes.items():
        name = key.replace("__", ".").replace("_bkg", "-bkg")
        fields = change if isinstance(change, dict) else {"value": change}
        found[name] = replace(old[name], **fields)
    return models.with_parameters(found)


def test_names_that_clash_between_parts(dataset: Dataset) -> None:
    """Width of a line and of a source: each has the limits of its own part."""
    line = Component(
        "gauss",
        (
            Parameter("amplitude", 3e-10, u.Unit("cm-2 s-1")),
            Parameter("mean", 2.0, u.TeV, frozen=True),
            Parameter("sigma", 1.0, u.TeV, frozen=True),
        ),
    )
    models = Models((replace(gauss("s", sigma=0.06), spectral=line),))
    result = fit([dataset], models)
    assert result.success, result.message
    assert "s.spatial.sigma" in result.free
    # a point, whose size goes to the least that a width may be and never below
    assert 1e-4 <= result.parameter("s.spatial.sigma").value < 0.05
    assert result.parameter("s.sigma").value == 1.0
    plain = Dense([dataset], result.models)
    assert result.stat == pytest.approx(plain.stat(plain.start), abs=1e-6)


def test_ts_of_a_source_with_a_prior_is_that_of_the_data(
    spectrum: MakeDataset, spectral_models: MakeModels
) -> None:
    """-2 ln of the prior is no part of it, neither where terms are used again nor where the null is fitted anew."""
    data = spectrum(seed=1)
    prior = Prior("gaussian", {"mu": 2.0, "sigma": 1e-3})
    models = _changed(spectral_models(), s__index={"prior": prior})
    result = fit([data], models)
    plain = Dense([data], result.models)
    n, level = data.counts.data, data.background.counts.data  # type: ignore[union-attr]
    pull = (result.parameter("s.index").value - 2.0) / 1e-3
    with_source = plain.stat(plain.start) - pull**2 - np.log(2 * np.pi * 1e-6)
    expected = cash_of(n, level) - with_source
    # the pull of the prior is what the two may differ by
    assert source_ts([data], result, "s") == pytest.approx(expected, abs=1e-6)
    assert result.minimiser["ts"]["s"] == pytest.approx(expected, abs=pull**2 + 1e-6)
    assert pull**2 < 0.01
    # another source in the models, which takes the other path
    held = _frozen(replace(models.sources[0], name="t"), "index")
    both = fit([data], Models((models.sources[0], held)))
    assert both.minimiser["ts"]["s"] == pytest.approx(source_ts([data], both, "s"), abs=1e-6)


def _scaled(value: float, *datasets: str, frozen: bool = False, prior: Prior | None = None) -> ResponseModel:
    parameters = (
        Parameter("energy_scale", 0.0, frozen=True),
        Parameter("exposure_scale", 1.0, frozen=True),
        Parameter("background_scale", value, min=0.0, frozen=frozen, prior=prior),
    )
    return ResponseModel("r", Component("response_scale", parameters), datasets)


def test_a_measured_background_of_two_spectra_scaled_as_one() -> None:
    """From any start to where the plain likelihood has no slope, with errors of its own curvature."""
    data = [make_spectrum("a", seed=1), make_spectrum("b", seed=2)]
    source = replace(point("s"), spatial=None)
    prior = Prior("gaussian", {"mu": 1.0, "sigma": 0.5})
    found = [fit(data, Models((source,), (), (_scaled(v, "a", "b", prior=prior),))) for v in (0.3, 1.0, 3.0)]
    for result in found:
        assert result.success, result.message
        assert result.stat == pytest.approx(found[0].stat, abs=1e-6)
        plain = Dense(data, result.models)
        errors = np.array([result.parameter(n).error for n in plain.names])
        assert plain.gradient(plain.start, errors) == pytest.approx(np.zeros(3), abs=0.01)
        # a little less than the prior alone
        assert 0.3 < result.parameter("r.background_scale").error < 0.5


def test_a_scale_that_nothing_is_known_of() -> None:
    """Without a prior all of a signal may be background: every start finds the same, and the null its own minimum."""
    data = [make_spectrum("a", seed=1), make_spectrum("b", seed=2)]
    source = replace(point("s"), spatial=None)
    models = [Models((source,), (), (_scaled(v, "a", "b"),)) for v in (0.1, 1.0, 4.0)]
    null = fit(data, replace(models[1], sources=()))
    for result in (fit(data, m) for m in models):
        assert result.success, result.message
        assert result.stat < 4.6
        assert result.minimiser["ts"]["s"] == pytest.approx(null.stat - result.stat, abs=1e-4)


def test_goodness_scales_a_measured_background_as_the_fit_does() -> None:
    data = make_spectrum("a", seed=1)
    source = replace(point("s"), spatial=None)
    result = fit([data], Models((source,), (), (_scaled(2.0, "a", frozen=True),)))
    assert saturated_stat(data, result.models) == pytest.approx(result.stat, abs=1e-6)


@pytest.mark.parametrize(("norm", "tilt"), [(1e-3, 0.0), (50.0, 2.0), (1e-6, -3.0), (0.0, 0.0)])
def test_nuisances_alone_reach_the_minimum_from_anywhere(norm: float, tilt: float, dataset: Dataset) -> None:
    """Nothing is shared: what belongs to one dataset has to find its minimum all by itself, or say that it has not."""
    models = add_backgrounds([dataset], Models((_frozen(point("s")),)), ["norm", "tilt"])
    best = fit([dataset], models)
    plain = Dense([dataset], best.models)
    errors = np.array([best.parameter(n).error for n in plain.names])
    assert plain.gradient(plain.start, errors) == pytest.approx(np.zeros(2), abs=1e-4)
    result = fit([dataset], _changed(models, m_bkg__norm=norm, m_bkg__tilt=tilt))
    assert result.success, result.message
    assert result.stat == pytest.approx(best.stat, abs=1e-6)


def test_linked_positions() -> None:
    """Two points on one meridian, 0.1 deg off: both are found, at one longitude, where either alone has the other's."""
    data = make_map("m", seed=3, pixels=(40, 40))
    source = point("s", lon=LON + 0.1, lat=LAT)
    other = point("t", 1e-12, LON + 0.1, LAT + 0.3)
    models = Models((source, _frozen(other, "index", "lat_0")))
    linked = _changed(models, s__lon_0={"link": "lon"}, t__lon_0={"link": "lon"})
    result = fit([data], linked)
    lon = [result.models.parameters()[f"{n}.lon_0"].value for n in "st"]
    assert lon[0] == lon[1] == pytest.approx(LON, abs=0.03)
    assert result.success, result.message
    # a strength without any slope: whatever the end, it is told and not a traceback
    hopeless = Models((source, _frozen(replace(other, spectral=other.spectral), "lat_0")))
    hopeless = _changed(hopeless, s__lon_0={"link": "lon"}, t__lon_0={"link": "lon"}, t__amplitude=1e-16)
    with np.errstate(all="ignore"):
        ended = fit([data], hopeless)
    assert not ended.success or np.isfinite(ended.stat)


def test_the_scale_of_an_exposure_widens_the_errors_of_flux_points() -> None:
    """20 % of the flux in quadrature to the error of the points, and the value as it was."""
    points = make_points("p")
    source = replace(point("s"), spatial=None)
    alone = fit([points], Models((source,))).parameter("s.amplitude")
    scaled = fit([points], Models((source,), (), (response_model("rp", ["p"], {"effective_area": 0.2}),)))
    found = scaled.parameter("s.amplitude")
    assert found.value == pytest.approx(alone.value, rel=1e-4)
    assert found.error == pytest.approx(np.hypot(alone.error, 0.2 * alone.value), rel=0.01)


def _norm(value: float, low: float = np.nan) -> Component:
    return Component(
        "power_law_norm",
        (
            Parameter("norm", value, min=low),
            Parameter("tilt", 0.0, frozen=True),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        ),
    )


def test_a_negative_factor_of_a_background_is_brought_back(dataset: Dataset) -> None:
    """Of a lone background, whose likelihood at -0.5 has no number."""
    good = fit([dataset], Models((point("s"),), (BackgroundModel("b", _norm(1.0), ("m",)),)))
    result = fit([dataset], Models((point("s"),), (BackgroundModel("b", _norm(-0.5), ("m",)),)))
    assert not result.success or result.stat == pytest.approx(good.stat, abs=1e-4)
    assert good.parameter("b.norm").value > 0.9


def test_a_template_beside_the_background(dataset: Dataset) -> None:
    """Sum of both by hand; a negative share of one is legal where the sum is positive, and is told where it is not."""
    own = dataset.background.counts  # type: ignore[union-attr]
    assert isinstance(dataset.background, ExpectedCounts)
    template = own.with_data(own.data * np.linspace(0.2, 1, own.data.shape[1])[None, :, None])
    source = _frozen(point("s"))
    backgrounds = (
        BackgroundModel("own", _norm(1.0), ("m",)),
        BackgroundModel("more", _norm(0.5), ("m",), template=template),
    )
    models = Models((source,), backgrounds)
    result = fit([dataset], models)
    assert result.success, result.message
    signal = Dense([dataset], Models((source,))).signal(dataset, Models((source,)))

    def stat(x: np.ndarray) -> float:
        return cash_of(dataset.counts.data, signal + x[0] * own.data + x[1] * template.data)

    assert build_likelihood([dataset], models).stat(np.array([1.0, 0.5])) == pytest.approx(
        stat(np.array([1.0, 0.5])), abs=1e-6
    )
    best = minimize(stat, [1.0, 0.1], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    assert best.x[1] < -0.05
    assert [result.parameter(f"{n}.norm").value for n in ("own", "more")] == pytest.approx(best.x, abs=1e-3)
    assert result.stat == pytest.approx(best.fun, abs=1e-6)


def _with_times(data: Dataset, start: list[float], stop: list[float]) -> Dataset:
    return replace(data, gti=Gti(start * u.d, stop * u.d, Time(60000, format="mjd", scale="tt")))


def _decay(t0: float) -> Component:
    days = (Parameter("t0", t0, u.d, frozen=True), Parameter("t_ref", 60000.0, u.d, frozen=True))
    return Component("exp_decay", days, {"scale": "tt"})


def test_a_decay_divides_the_amplitude_by_its_mean(
    spectrum: MakeDataset, spectral_models: MakeModels
) -> None:
    """Mean over the good times, the gap left out: [2 (1 - e^-1/2) + 2 (e^-3/2 - e^-2)] / 2 for t0 of two days."""
    data = _with_times(spectrum(seed=1), [0.0, 3.0], [1.0, 4.0])
    (steady,) = spectral_models().sources
    plain = fit([data], Models((steady,)))
    fading = fit([data], Models((replace(steady, temporal=_decay(2.0)),)))
    mean = (1 - np.exp(-0.5)) + (np.exp(-1.5) - np.exp(-2))
    assert fading.success, fading.message
    assert fading.parameter("s.amplitude").value * mean == pytest.approx(
        plain.parameter("s.amplitude").value, rel=1e-5
    )
    assert fading.stat == pytest.approx(plain.stat, abs=1e-6)
    constant = fit([data], Models((replace(steady, temporal=Component("constant", ())),)))
    assert constant.stat == plain.stat
    assert constant.parameter("s.amplitude").value == plain.parameter("s.amplitude").value


def test_two_nights_see_a_decay(spectrum: MakeDataset, spectral_models: MakeModels) -> None:
    """Two spectra of the same sky with a fifth of the counts after four days: t0 is 4 / ln 5."""
    nights = [
        _with_times(spectrum(name, seed=None, amplitude=a), [t], [t + 1e-6])
        for name, a, t in (("first", 5e-11, 0.0), ("last", 1e-11, 4.0))
    ]
    (steady,) = spectral_models().sources
    decay = _decay(1.0)
    decay = replace(decay, parameters=(replace(decay.parameters[0], frozen=False), decay.parameters[1]))
    result = fit(nights, Models((replace(steady, temporal=decay),)))
    assert result.success, result.message
    assert result.parameter("s.t0").value == pytest.approx(4 / np.log(5), rel=1e-4)
    assert result.parameter("s.amplitude").value == pytest.approx(5e-11, rel=1e-4)


def test_flux_points_have_no_times_and_say_so() -> None:
    points = make_points("p")
    source = replace(point("s"), spatial=None)
    plain = fit([points], Models((source,)))
    fading = fit([points], Models((replace(source, temporal=_decay(2.0)),)))
    assert fading.parameter("s.amplitude").value == plain.parameter("s.amplitude").value
    assert not any("temporal" in sentence for sentence in plain.minimiser["warnings"])
    (told,) = [sentence for sentence in fading.minimiser["warnings"] if "temporal" in sentence]
    assert "s is not applied to the flux points p" in told


def _shares(data: Dataset) -> np.ndarray:
    """Part of every true bin, in the logarithm of the energy, that lies in each reconstructed one."""
    true, reco = (np.log(a.edges.to_value(u.TeV)) for a in (data.energy_true, data.energy))
    found = np.zeros((len(true) - 1, len(reco) - 1))
    for k, m in np.ndindex(*found.shape):
        overlap = min(true[k + 1], reco[m + 1]) - max(true[k], reco[m])
        found[k, m] = max(overlap, 0) / (true[k + 1] - true[k])
    return found


@pytest.mark.parametrize("without", [("psf",), ("edisp",), ("exposure",), ("exposure", "psf", "edisp")])
def test_responses_left_out(without: tuple[str, ...], dataset: Dataset) -> None:
    """Flux is counts, stays in its pixel, stays in its bin."""
    amplitude = 30.0 if "exposure" in without else 3e-10
    source = replace(gauss("s", amplitude), without_irf=without)
    models = Models((source,))
    part = DenseMap(replace(dataset, psf=None) if "psf" in without else dataset, source)
    seen = part.seen(tuple(bound(source, "spatial")[1]))
    seen = np.broadcast_to(seen, (dataset.energy_true.n_bins, *seen.shape[1:]))
    exposure = 1.0 if "exposure" in without else dataset.exposure.quantity.to_value("cm2 s")
    folded = seen * exposure * bin_fluxes(source, dataset.energy_true.edges)[:, None, None]
    signal = np.tensordot(_shares(dataset) if "edisp" in without else part.edisp, folded, axes=(0, 0))
    background = dataset.background.counts.data  # type: ignore[union-attr]
    expected = cash_of(dataset.counts.data, signal + background)
    engine = build_likelihood([dataset], models)
    assert engine.stat(engine.start) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    full = build_likelihood([dataset], Models((replace(source, without_irf=()),)))
    assert abs(full.stat(full.start) - expected) > 1


def test_a_shape_that_narrows_with_energy(dataset: Dataset) -> None:
    """Each true bin by its own round Gaussian at the bin's centre; and the slopes by differences of that."""
    parameters = (
        Parameter("lon_0", LON + 0.013, u.deg),
        Parameter("lat_0", LAT - 0.006, u.deg),
        Parameter("sigma", 0.15, u.deg),
        Parameter("delta", 0.3),
        Parameter("reference", 2.0, u.TeV, frozen=True),
    )
    source = replace(gauss("s"), spatial=Component("gauss-by-energy", parameters))
    models = Models((source,))
    energies = dataset.energy_true.centers.to_value(u.TeV)
    # as many points per pixel as the narrowest width needs
    plain = DenseMap(dataset, gauss("s", sigma=0.15 * (energies[-1] / 2.0) ** -0.3))
    half = plain.kernels.shape[-1] // 2
    margin = (plain.grid.geom.shape[0] - dataset.counts.sky.shape[0]) // 2
    inner = slice(margin - half, -(margin - half))
    flux = bin_fluxes(source, dataset.energy_true.edges)
    exposure = dataset.exposure.quantity.to_value("cm2 s")
    background = dataset.background.counts.data  # type: ignore[union-attr]
    round_shape = bound(gauss("s"), "spatial")[0]

    def stat(x: np.ndarray) -> float:
        lon, lat, sigma, delta = x
        seen = []
        for k, energy in enumerate(energies):
            values = np.array([*np.radians([lon, lat, sigma * (energy / 2.0) ** -delta]), 0.0, 0.0])
            template = pixel_fractions(round_shape, values, plain.grid)[inner, inner]
            kernel = plain.kernels[k]
            around = np.lib.stride_tricks.sliding_window_view(template, kernel.shape)
            seen.append(np.tensordot(around, kernel[::-1, ::-1], axes=((2, 3), (0, 1))))
        folded = np.array(seen) * exposure * flux[:, None, None]
        return cash_of(dataset.counts.data, np.tensordot(plain.edisp, folded, axes=(0, 0)) + background)

    engine = build_likelihood([dataset], models)
    assert engine.names[2:] == ("s.lon_0", "s.lat_0", "s.sigma", "s.delta")
    x = engine.start[2:]
    assert engine.stat(engine.start) == pytest.approx(stat(x), rel=1e-9, abs=1e-6)
    slopes = engine.gradient(engine.start)[2:]
    for k, step in enumerate((1e-3, 1e-3, 1e-3, 1e-2)):
        ahead, behind = (x + s * step * np.eye(4)[k] for s in (1, -1))
        assert slopes[k] == pytest.approx((stat(ahead) - stat(behind)) / (2 * step), rel=1e-3)


def test_threads_change_no_bit() -> None:
    """Maps, measured spectra and flux points side by side."""
    data = [make_map("a", seed=1), make_map("b", seed=2), make_spectrum("c", seed=3), make_points("p")]
    models = add_backgrounds(data, Models((point("s"),)), ["norm", "tilt"])
    one, four = (fit(data, models, FitSettings(n_threads=n)) for n in (1, 4))
    assert one.success, one.message
    assert four.stat == one.stat
    assert np.array_equal(four.covariance, one.covariance)
    assert [p.value for p in four.models.parameters().values()] == [
        p.value for p in one.models.parameters().values()
    ]
