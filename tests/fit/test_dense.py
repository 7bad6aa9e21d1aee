"""The engine against the plain likelihood of `dense`: values, gradients and minima, where shortcuts go wrong."""

from collections.abc import Sequence
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import scipy
from iminuit import Minuit

from dl3flow.data.dataset import Dataset, ExpectedCounts, FitData
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.source import Component, Models, Parameter, Prior, ResponseModel, Source

from .dense import Dense
from .small_data import LAT, LON, REGION, gauss, log_parabola, make_map, make_points, make_spectrum, point

POSITION = 0.05
SHIFTED = 0.3


@pytest.fixture(scope="module")
def maps() -> list[Dataset]:
    """Three maps: other energies, true energies, places, shapes, point spreads; two with holes."""
    return [
        make_map("a", seed=1),
        make_map("b", seed=2, width=0.04, n_energy=3, n_true=5, low=0.7, shift=(0.2, 0.1), use_holes=True),
        make_map("c", seed=3, width=0.12, pixels=(20, 28), use_holes=True),
    ]


@pytest.fixture(scope="module")
def plain_maps() -> list[Dataset]:
    """Two maps in which every bin has background: a source may go anywhere, and a fit has its minimum."""
    return [
        make_map("a", seed=1),
        make_map("d", seed=8, width=0.1, n_energy=3, n_true=7, pixels=(20, 26), shift=(-0.1, 0.15)),
    ]


@pytest.fixture(scope="module")
def hollow() -> list[Dataset]:
    """An empty dataset and a fully masked one."""
    empty, masked = make_map("empty", seed=4), make_map("masked", seed=5)
    nothing = np.zeros_like(empty.counts.data)
    return [
        replace(empty, counts=empty.counts.with_data(nothing)),
        replace(masked, mask_safe=np.zeros(masked.mask_safe.shape, dtype=bool)),
    ]


SOURCES = {
    "point": (point("s"),),
    "gauss": (gauss("s"),),
    "two": (point("s"), replace(gauss("t", 1e-10, 83.95, 22.25, 0.08), datasets=("a", "c"))),
}


def scales(names: Sequence[str], x: np.ndarray) -> np.ndarray:
    """Change of each parameter over which the statistic changes visibly."""
    kinds = [name.rsplit(".", 1)[1] for name in names]
    pairs = zip(kinds, x, strict=True)
    return np.array([POSITION if k in ("lon_0", "lat_0", "sigma") else abs(v) or 0.1 for k, v in pairs])


def check(datasets: Sequence[FitData], models: Models, *, values: bool = True, gradient: bool = True) -> None:
    """Hold names, statistic and gradient of the engine against the plain likelihood at the models' values."""
    plain, engine = Dense(datasets, models), build_likelihood(datasets, models)
    assert engine.names == plain.names
    assert np.array_equal(engine.start, plain.start)
    x = plain.start
    if values:
        assert engine.stat(x) == pytest.approx(plain.stat(x), rel=1e-9, abs=1e-6)
    if gradient and len(x):
        scale = scales(plain.names, x)
        expected = plain.gradient(x, scale)
        found = engine.gradient(x) * scale
        # against the whole, and each component against itself where it is no difference of large numbers
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(expected).max())
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def with_nuisances(datasets: Sequence[FitData], models: Models) -> Models:
    """Background norms and tilts, free and off their start values, in every map."""
    models = add_backgrounds(datasets, models, ["norm", "tilt"])
    parameters = models.parameters()
    names = [b.name for b in models.backgrounds]
    changed = {
        f"{name}.{p}": replace(parameters[f"{name}.{p}"], value=v)
        for k, name in enumerate(names)
        for p, v in (("norm", 1.1 - 0.1 * k), ("tilt", 0.1 - 0.07 * k))
    }
    return models.with_parameters(changed)


@pytest.mark.parametrize("sources", SOURCES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_maps(n: int, sources: str, maps: list[Dataset]) -> None:
    used = maps[:n]
    check(used, with_nuisances(used, Models(SOURCES[sources])))


def test_each_map_alone(maps: list[Dataset]) -> None:
    """A joint sum can hide two errors; and every order of the datasets gives one sum."""
    for dataset in maps:
        check([dataset], with_nuisances([dataset], Models(SOURCES["two"])), gradient=False)
    models = with_nuisances(maps, Models(SOURCES["two"]))
    one = build_likelihood(maps, models)
    other = build_likelihood(maps[::-1], models)
    assert other.stat(one.start) == pytest.approx(one.stat(one.start), rel=1e-13)


def test_away_from_the_start(maps: list[Dataset]) -> None:
    """The responses stay those of the declared position; all else follows the free vector, whatever was asked before."""
    models = with_nuisances(maps, Models(SOURCES["gauss"]))
    plain, engine = Dense(maps, models), build_likelihood(maps, models)
    random = np.random.default_rng(0)
    scale = scales(plain.names, plain.start)
    for _ in range(4):
        x = plain.start + random.uniform(-SHIFTED, SHIFTED, len(scale)) * scale
        assert engine.stat(x) == pytest.approx(plain.stat(x), rel=1e-9, abs=1e-6)
        expected = plain.gradient(x, scale)
        assert engine.gradient(x) * scale == pytest.approx(
            expected, rel=1e-6, abs=1e-6 * np.abs(expected).max()
        )


def test_empty_and_masked_datasets_beside_others(maps: list[Dataset], hollow: list[Dataset]) -> None:
    for datasets in ([maps[0], *hollow], [*hollow, maps[1]], hollow):
        check(datasets, with_nuisances(datasets, Models(SOURCES["two"])))


@pytest.mark.parametrize("amplitude", [-5e-13, -3e-9])
@pytest.mark.parametrize("shape", [point, gauss])
def test_a_negative_source(shape: object, amplitude: float, maps: list[Dataset]) -> None:
    """A weak one lowers the background, a strong one meets the cut of the expectation at 1e-25."""
    source = shape("s", amplitude)  # type: ignore[operator]
    models = with_nuisances(maps, Models((source,)))
    # bins of counts under the cut have a slope of zero, and a step across it has none
    check(maps, models, gradient=amplitude > -1e-12)


def test_a_negative_beside_a_positive_source(maps: list[Dataset]) -> None:
    models = with_nuisances(maps, Models((gauss("s"), point("t", -4e-11, 83.7, 22.06))))
    check(maps, models)


@pytest.mark.parametrize("shape", [point, gauss])
def test_over_the_edge_and_back(shape: object, plain_maps: list[Dataset]) -> None:
    """At the border, just outside, far outside, on the other side of the sky, and back: the same bits."""
    models = with_nuisances(plain_maps, Models((shape("s"),)))  # type: ignore[operator]
    plain, engine = Dense(plain_maps, models), build_likelihood(plain_maps, models)
    k, at = engine.names.index("s.lat_0"), engine.start
    before, slope = engine.stat(at), engine.gradient(at)
    alone = Dense(plain_maps, replace(models, sources=()))
    without = alone.stat(alone.start)
    for lat in (22.58, 22.63, 22.78, 23.2, 27.0, 60.0, -22.0):
        x = at.copy()
        x[k] = lat
        found = engine.stat(x)
        assert found == pytest.approx(plain.stat(x), rel=1e-9, abs=1e-6), lat
        assert np.all(np.isfinite(engine.gradient(x)))
        if lat > 25 or lat < 0:
            assert found == pytest.approx(without, rel=1e-12)
            assert np.all(engine.gradient(x)[: k + 1] == 0)
    assert engine.stat(at) == before
    assert np.array_equal(engine.gradient(at), slope)


@pytest.mark.parametrize("lat", [22.58, 22.63])
@pytest.mark.parametrize("shape", [point, gauss])
def test_declared_at_the_edge(shape: object, lat: float, maps: list[Dataset]) -> None:
    """Part of the point spread, or of the source itself, lies off the map."""
    source = shape("s", lat=lat, lon=83.9)  # type: ignore[operator]
    check(maps[:1], with_nuisances(maps[:1], Models((source,))))


def test_two_maps_of_which_one_sees_the_source(maps: list[Dataset]) -> None:
    away = make_map("away", seed=9, shift=(0.0, 12.0))
    check([maps[0], away], with_nuisances([maps[0], away], Models((gauss("s"),))))


def test_a_source_smaller_than_a_pixel(maps: list[Dataset]) -> None:
    check(maps[:2], with_nuisances(maps[:2], Models((gauss("s", sigma=0.02),))))


def test_one_bin_of_energy() -> None:
    """Its tilt is degenerate with its norm, and its map is still right."""
    datasets = [make_map("one", seed=6, n_energy=1, n_true=3), make_map("four", seed=7)]
    check(datasets, with_nuisances(datasets, Models(SOURCES["gauss"])))


def test_no_response_but_exposure() -> None:
    """Without point spread and dispersion on one axis of energy."""
    dataset = replace(make_map("a", seed=8, n_energy=5, n_true=5), psf=None, edisp=None)
    axis = dataset.energy.renamed("energy_true")
    dataset = replace(dataset, exposure=replace(dataset.exposure, axes=(axis,)))
    check([dataset], with_nuisances([dataset], Models(SOURCES["gauss"])))


def test_links(maps: list[Dataset]) -> None:
    """One index of two sources, and one norm of two maps: every one of them adds to one component."""
    models = with_nuisances(maps, Models((gauss("s"), point("t", 1e-10, 83.95, 22.25))))
    old = models.parameters()
    labels = {"s.index": "i", "t.index": "i", "a-bkg.norm": "n", "c-bkg.norm": "n"}
    same = {"t.index": "s.index", "c-bkg.norm": "a-bkg.norm"}
    changed = {n: replace(old[n], link=label, value=old[same.get(n, n)].value) for n, label in labels.items()}
    check(maps, models.with_parameters(changed))
    # the leader of the index alone is free: frozen parameters of one label keep their values
    half = {n: replace(p, frozen=n in same) for n, p in changed.items()}
    check(maps, models.with_parameters(half))


def test_frozen_parts(maps: list[Dataset]) -> None:
    """What is staged once (shapes, spectra, backgrounds) is what is evaluated again and again otherwise."""
    models = with_nuisances(maps, Models(SOURCES["two"]))
    old = models.parameters()
    for frozen in (
        ("s.lon_0", "s.lat_0", "t.lon_0", "t.lat_0", "t.sigma"),
        ("s.index", "s.amplitude"),
        tuple(old),
    ):
        check(maps, models.with_parameters({n: replace(old[n], frozen=True) for n in frozen}))


@pytest.mark.parametrize("is_measured", [True, False])
@pytest.mark.parametrize("curve", [None, log_parabola])
def test_spectra(curve: object, is_measured: bool) -> None:
    """Wstat and Cash of a region, for a source with a place and for one without."""
    datasets = [
        make_spectrum("r", seed=1, is_measured=is_measured),
        make_spectrum("q", seed=2, n_energy=9, n_true=12, is_measured=is_measured),
    ]
    source = replace(point("s"), spatial=None)
    if curve is not None:
        source = replace(source, spectral=curve())  # type: ignore[operator]
    check(datasets, with_nuisances(datasets, Models((source,))))
    placed = point("p", 1e-10)
    frozen = replace(
        placed.spatial, parameters=tuple(replace(p, frozen=True) for p in placed.spatial.parameters)
    )
    check(datasets, with_nuisances(datasets, Models((source, replace(placed, spatial=frozen)))))


@pytest.mark.parametrize("amplitude", [-1e-11, -2e-9])
def test_negative_sources_in_spectra(amplitude: float) -> None:
    source = replace(point("s", amplitude), spatial=None)
    for is_measured in (True, False):
        datasets = [make_spectrum("r", seed=1, is_measured=is_measured)]
        check(datasets, Models((source,)), gradient=amplitude > -1e-10)


def test_spectra_without_counts() -> None:
    """No counts on, off, or neither."""
    dataset = make_spectrum("r", seed=1)
    zero = np.zeros(dataset.counts.data.shape)
    no_on = replace(dataset, name="on", counts=dataset.counts.with_data(zero))
    off = replace(dataset.background, counts=dataset.counts.with_data(zero))
    no_off = replace(dataset, name="off", background=off)
    neither = replace(no_on, name="neither", background=off)
    for datasets in ([no_on], [no_off], [neither], [no_on, no_off, neither, dataset]):
        check(datasets, Models((replace(point("s", 1e-10), spatial=None),)))


def test_flux_points() -> None:
    datasets = [make_points("f", seed=1), make_points("g", seed=2, n=7)]
    source = replace(point("s", 2e-10), spatial=None, spectral=log_parabola(2.5e-10))
    check(datasets, Models((source, replace(point("t", 3e-11), spatial=None, datasets=("g",)))))


def test_all_kinds_at_once(maps: list[Dataset]) -> None:
    datasets = [maps[1], make_spectrum("r", seed=1), make_points("f", seed=1), maps[0]]
    check(datasets, with_nuisances(datasets, Models((point("s"),))))


def systematics(name: str, datasets: tuple[str, ...] | None) -> ResponseModel:
    """Errors of energy, exposure and background, free and off their expectation, each with a prior."""
    values = {
        "energy_scale": (0.04, 0.0, 0.1),
        "exposure_scale": (1.1, 1.0, 0.1),
        "background_scale": (0.95, 1.0, 0.05),
    }
    parameters = tuple(
        Parameter(key, value, prior=Prior("gaussian", {"mu": mu, "sigma": sigma}))
        for key, (value, mu, sigma) in values.items()
    )
    return ResponseModel(name, Component("response_scale", parameters), datasets)


@pytest.mark.parametrize("shape", [point, gauss])
def test_systematic_errors_and_priors_of_maps(shape: object, maps: list[Dataset]) -> None:
    """Of one map alone and of two together; and a prior on a source's own parameter, with a weight."""
    models = with_nuisances(maps, Models((shape("s"),)))  # type: ignore[operator]
    responses = (systematics("one", ("a",)), systematics("two", ("b", "c")))
    index = replace(
        models.parameters()["s.index"], prior=Prior("gaussian", {"mu": 2.0, "sigma": 0.1}, weight=2.0)
    )
    check(maps, replace(models, responses=responses).with_parameters({"s.index": index}))


@pytest.mark.parametrize("is_measured", [True, False])
def test_systematic_errors_of_spectra(is_measured: bool) -> None:
    datasets = [make_spectrum("r", seed=1, is_measured=is_measured), make_spectrum("q", seed=2)]
    models = with_nuisances(datasets, Models((replace(point("s"), spatial=None),)))
    check(datasets, replace(models, responses=(systematics("one", None),)))


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5])
def test_the_share_of_an_extended_source_in_a_region(sigma: float) -> None:
    """A circle around the centre of a Gaussian holds 1 - exp(-r^2 / 2 sigma^2) of it, however large it is."""
    dataset = make_spectrum("r")
    whole = predict_counts(dataset, Models((point("s", lon=LON, lat=LAT),)))[0]
    found = predict_counts(dataset, Models((gauss("s", lon=LON, lat=LAT, sigma=sigma),)))[0]
    radius = RegionGeometry(REGION).radius.to_value(u.deg)
    expected = -np.expm1(-0.5 * (radius / sigma) ** 2)
    assert found / whole == pytest.approx(expected, rel=3e-3)


def test_background_and_source_where_no_point_spread_reaches(maps: list[Dataset]) -> None:
    """Counts beyond the kernel of an energy, without background there: their expectation is cut, not a transform's noise."""
    dataset = maps[0]
    background = dataset.background.counts.data.copy()
    background[:, :, ::3] = 0
    counts = dataset.counts.data.copy()
    counts[:, 14, ::3] += 1
    bare = replace(
        dataset,
        counts=dataset.counts.with_data(counts),
        background=ExpectedCounts(dataset.background.counts.with_data(background)),
    )
    check([bare], with_nuisances([bare], Models((point("s"),))))


def minimum(plain: Dense, start: np.ndarray) -> float:
    """Lowest statistic that MIGRAD finds on the plain likelihood."""
    offset, scale = plain.stat(start), scales(plain.names, start)
    minuit = Minuit(lambda z: plain.stat(start + z * scale) - offset, np.zeros(len(start)))
    minuit.errordef, minuit.tol, minuit.strategy = 1.0, 0.01, 0
    minuit.errors = [0.05] * len(start)
    minuit.migrad()
    assert minuit.valid
    return float(minuit.fval) + offset


def curvature(plain: Dense, steps: np.ndarray) -> np.ndarray:
    """Second derivatives of the plain likelihood at its start by central differences."""

    def moved(*by: tuple[int, float]) -> float:
        x = plain.start.copy()
        for k, sign in by:
            x[k] += sign * steps[k]
        return plain.stat(x)

    here, n = moved(), len(steps)
    hessian = np.diag([moved((k, 1)) - 2 * here + moved((k, -1)) for k in range(n)])
    for i in range(n):
        for j in range(i):
            corners = [s * t * moved((i, s), (j, t)) for s in (-1, 1) for t in (-1, 1)]
            hessian[i, j] = hessian[j, i] = sum(corners) / 4
    return hessian / np.outer(steps, steps)


@pytest.mark.parametrize("sources", ["point", "gauss"])
def test_fit_reaches_the_minimum(sources: str, plain_maps: list[Dataset]) -> None:
    used = plain_maps
    models = add_backgrounds(used, Models(SOURCES[sources]), ["norm", "tilt"])
    result = fit(used, models)
    assert result.success, result.message
    # the plain likelihood with the responses where the fit ended
    plain = Dense(used, result.models)
    best = minimum(plain, plain.start)
    assert result.stat == pytest.approx(plain.stat(plain.start), rel=1e-9, abs=1e-6)
    assert -1e-3 < best - result.stat < 1e-3
    # and its errors are those of the plain likelihood's curvature
    errors = np.sqrt(np.diag(result.covariance))
    hessian = curvature(plain, 0.02 * errors)
    expected = np.sqrt(np.diag(2 * np.linalg.inv(hessian)))
    if sources == "gauss":  # a point has kinks at the pixels' centres, over which its errors are means
        assert errors == pytest.approx(expected, rel=1e-3)


def test_fit_of_all_kinds_reaches_the_minimum() -> None:
    datasets = [
        make_spectrum("r", seed=3),
        make_spectrum("q", seed=4, is_measured=False),
        make_points("f", seed=5),
    ]
    source = replace(point("s", 1e-10), spatial=None, spectral=log_parabola(2e-10))
    models = add_backgrounds(datasets, Models((source,)), ["norm", "tilt"])
    result = fit(datasets, models)
    plain = Dense(datasets, result.models)
    found = scipy.optimize.minimize(
        lambda z: plain.stat(plain.start + z * scales(plain.names, plain.start)) - result.stat,
        np.full(len(plain.start), 0.01),
        method="Nelder-Mead",
        options={"fatol": 1e-6, "xatol": 1e-6, "maxfev": 4000, "adaptive": True},
    )
    assert result.success, result.message
    assert result.stat == pytest.approx(plain.stat(plain.start), rel=1e-9, abs=1e-6)
    assert found.fun > -1e-3


def test_what_cannot_be_told_is_not_fitted(plain_maps: list[Dataset], hollow: list[Dataset]) -> None:
    """A tilt of one energy, and the norms of empty and masked maps, do not spoil what the others tell."""
    one = make_map("one", seed=6, n_energy=1, n_true=3)
    used: list[Dataset] = [plain_maps[0], one]
    source: Source = gauss("s")
    result = fit(used, add_backgrounds(used, Models((source,)), ["norm", "tilt"]))
    assert result.success, result.message
    assert "one-bkg.tilt" not in result.free
    alone = fit(plain_maps[:1], add_backgrounds(plain_maps[:1], Models((source,)), ["norm", "tilt"]))
    beside = [plain_maps[0], *hollow]
    with_them = fit(beside, add_backgrounds(beside, Models((source,)), ["norm", "tilt"]))
    assert "masked-bkg.norm" not in with_them.free
    assert np.all(np.isfinite(with_them.covariance))
    masked_only = [plain_maps[0], hollow[1]]
    same = fit(masked_only, add_backgrounds(masked_only, Models((source,)), ["norm", "tilt"]))
    for name in ("s.index", "s.amplitude", "s.lon_0", "s.lat_0", "s.sigma", "a-bkg.norm"):
        error = alone.parameter(name).error
        assert same.parameter(name).value == pytest.approx(alone.parameter(name).value, abs=1e-3 * error)
        assert same.parameter(name).error == pytest.approx(error, rel=1e-3)
    assert same.stat == pytest.approx(alone.stat, abs=1e-4)
