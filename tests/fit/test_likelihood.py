"""The likelihood against a dense evaluation bin by bin, its gradient against differences, its purity."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.maps import EdispMap, Map
from dl3flow.errors import InputError
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import add_backgrounds
from dl3flow.fit.npred import predict_counts
from dl3flow.fit.outline import outlines_of
from dl3flow.fit.reach import constrained
from dl3flow.geometry.region import UNKNOWN, RegionGeometry
from dl3flow.kernels.statistics import cash, wstat
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.spectral import SPECTRAL_MODELS

MakeDataset = Callable[..., Dataset]
MakeModels = Callable[..., Models]


def dense(datasets: list[Dataset], models: Models) -> float:
    """Reference implementation: Cash of every bin of every full cube."""
    total = 0.0
    for dataset in datasets:
        signal, background = predict_counts(dataset, models)
        total += cash(dataset.counts.data, signal + background)[dataset.mask].sum()
    return float(total)


def _holes(dataset: Dataset) -> Dataset:
    """The dataset with masked bins, bins without background, and a fit mask."""
    mask = dataset.mask_safe.copy()
    mask[0, :5] = False
    mask[2, 18:22, 3:9] = False
    background = dataset.background.counts.data.copy()
    background[1, 10:30, 10:12] = 0
    fit_mask = np.ones_like(mask)
    fit_mask[0] = False
    counts = ExpectedCounts(dataset.background.counts.with_data(background))
    return replace(dataset, mask_safe=mask, background=counts, mask_fit=fit_mask)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("use_holes", [False, True])
def test_equals_the_dense_sum(
    n: int, use_holes: bool, small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    datasets = [small_dataset(f"d{k}", seed=k, part="half" if k == 1 else "whole") for k in range(n)]
    datasets = [_holes(d) for d in datasets] if use_holes else datasets
    second = replace(point_models(1e-10, 2.0, 84.2, 22.5).sources[0], name="t", datasets=("d0",))
    models = Models((*point_models(2e-10).sources, second))
    models = add_backgrounds(datasets, models, ["norm", "tilt"])
    changed = {
        f"d{k}-bkg.{p}": replace(models.parameters()[f"d{k}-bkg.{p}"], value=v)
        for k in range(n)
        for p, v in (("norm", 1.1 + 0.1 * k), ("tilt", 0.1))
    }
    models = models.with_parameters(changed)
    likelihood = build_likelihood(datasets, models)
    assert likelihood.stat(likelihood.start) == pytest.approx(dense(datasets, models), abs=1e-7)


def test_a_negative_source_is_cut_as_in_the_dense_sum(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    dataset, models = small_dataset(), point_models(-2e-9)
    likelihood = build_likelihood([dataset], models)
    assert likelihood.stat(likelihood.start) == pytest.approx(dense([dataset], models), abs=1e-5)


def test_an_empty_and_a_masked_dataset_add_nothing(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    masked = replace(small_dataset("m"), mask_safe=np.zeros((3, 40, 40), dtype=bool))
    likelihood = build_likelihood([masked], point_models())
    assert likelihood.stat(likelihood.start) == 0
    assert np.array_equal(likelihood.gradient(likelihood.start), np.zeros(4))


def _component(plugin_name: str, registry: object, values: dict[str, float]) -> Component:
    plugin = registry.find(plugin_name, "")  # type: ignore[attr-defined]
    parameters = [
        Parameter(name, values.get(name, float(default)), unit, frozen=name == "reference")
        for name, (unit, default) in plugin.parameters.items()
    ]
    return Component(plugin.name, tuple(parameters))


# named spectra stand for others, a template has no parameters, a break between equal indices is none; and a map needs a file
SPECTRA = [
    plugin.name
    for plugin in SPECTRAL_MODELS
    if plugin.parameters and plugin.name != "smooth_broken_power_law"
]


@pytest.mark.parametrize(
    ("spectrum", "shape"),
    [
        *(("power_law", plugin.name) for plugin in SPATIAL_MODELS if "reads" not in plugin.companions),
        *(
            (spectrum, shape)
            for spectrum in SPECTRA
            if spectrum != "power_law"
            for shape in ("point", "gauss")
        ),
    ],
)
def test_gradient_of_every_pair_of_models(spectrum: str, shape: str, small_dataset: MakeDataset) -> None:
    datasets = [small_dataset("d0", seed=3), small_dataset("d1", seed=4, part="half")]
    values = {
        "amplitude": 3e-10,
        "lambda_": 0.1,
        "alpha": 1.2 if spectrum == "exp_cutoff_power_law" else 2.3,
        "beta": 0.2,
    }
    place = {
        "lon_0": np.radians(83.651),
        "lat_0": np.radians(22.003),
        "sigma": np.radians(0.11),
        "e": 0.5,
        "phi": 0.4,
    }
    source = Source(
        "s", _component(spectrum, SPECTRAL_MODELS, values), _component(shape, SPATIAL_MODELS, place)
    )
    models = add_backgrounds(datasets, Models((source,)), ["norm", "tilt"])
    likelihood = build_likelihood(datasets, models)
    x = likelihood.start
    gradient = likelihood.gradient(x)
    position = np.radians(0.05)
    scale = np.array(
        [
            position if n.split(".")[1] in ("lon_0", "lat_0") else abs(v) or 0.1
            for n, v in zip(likelihood.names, x, strict=True)
        ]
    )
    numeric = np.zeros(len(x))
    for k in range(len(x)):
        step = np.zeros(len(x))
        step[k] = 1e-4 * scale[k]
        far = likelihood.stat(x + 2 * step) - likelihood.stat(x - 2 * step)
        near = likelihood.stat(x + step) - likelihood.stat(x - step)
        numeric[k] = (8 * near - far) / (12 * step[k])
    assert gradient * scale == pytest.approx(
        numeric * scale, rel=1e-5, abs=1e-5 * np.abs(numeric * scale).max()
    )


def test_a_source_that_leaves_and_returns_leaves_no_trace(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    """The peer's likelihood depends on the path of the position; ours gives the same bits."""
    datasets = [small_dataset("d0"), small_dataset("d1", seed=1, part="half")]
    likelihood = build_likelihood(datasets, point_models())
    at = likelihood.start.copy()
    away = at.copy()
    away[likelihood.names.index("s.lon_0")] += 30
    before, outside = likelihood.stat(at), likelihood.stat(away)
    no_source = build_likelihood(datasets, Models(()))
    assert outside == pytest.approx(no_source.stat(np.zeros(0)), abs=1e-8)
    assert likelihood.stat(at) == before


def test_links_share_one_entry(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    first, second = point_models().sources[0], replace(point_models(lon=83.9).sources[0], name="t")
    models = Models((first, second))
    linked = {n: replace(models.parameters()[n], link="index") for n in ("s.index", "t.index")}
    models = models.with_parameters(linked)
    dataset = small_dataset()
    likelihood = build_likelihood([dataset], models)
    assert likelihood.names.count("s.index") == 1
    assert "t.index" not in likelihood.names
    x = likelihood.start.copy()
    x[likelihood.names.index("s.index")] = 3.1
    both = models.with_parameters({n: replace(p, value=3.1) for n, p in linked.items()})
    assert likelihood.stat(x) == pytest.approx(dense([dataset], both), abs=1e-8)


def test_units_of_parameters_cross_once(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    dataset, models = small_dataset(), point_models()
    p = models.parameters()
    other = models.with_parameters(
        {
            "s.amplitude": replace(p["s.amplitude"], value=3e-9, unit=u.Unit("m-2 s-1 GeV-1")),
            "s.lon_0": replace(p["s.lon_0"], value=83.63 * 60, unit=u.arcmin),
        }
    )
    assert dense([dataset], other) == pytest.approx(dense([dataset], models), abs=1e-7)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
@pytest.mark.parametrize("part", ["counts", "background", "exposure"])
def test_impossible_numbers_are_refused(
    part: str, value: float, small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    dataset = small_dataset()
    of = dataset.background.counts if part == "background" else getattr(dataset, part)
    values = of.data.copy()
    values[1, 3, 4] = value
    changed = of.with_data(values)
    damaged = replace(dataset, **{part: ExpectedCounts(changed) if part == "background" else changed})
    with pytest.raises(InputError, match=rf"dataset 'small': .* \({part} in 1 bins\)"):
        build_likelihood([damaged], point_models())
    # what is not safe plays no part, but exposure under a point spread does
    safe = dataset.mask_safe.copy()
    safe[1, 3, 4] = False
    if part != "exposure":
        likelihood = build_likelihood([replace(damaged, mask_safe=safe)], point_models())
        assert np.isfinite(likelihood.stat(likelihood.start))
        assert np.isfinite(likelihood.gradient(likelihood.start)).all()


def test_a_map_and_a_spectrum_share_their_source(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    """A cube with a known and a spectrum with a measured background: one source, one background norm, two statistics."""
    cube, region = small_dataset(), RegionGeometry("icrs;circle(83.63, 22.01, 0.2)")

    def there(of: Map, values: np.ndarray | None = None) -> Map:
        return replace(of, geom=region, data=of.data[..., 20:21, 20:21] if values is None else values)

    assert cube.edisp is not None
    n_on, n_off = (np.array(values)[:, None, None] for values in ([40.0, 12, 3], [30.0, 8, 0]))
    edisp = cube.edisp.edisp
    kernel = replace(edisp, geom=region, data=edisp.data[..., :1, :1])
    off = OffCounts(*(there(cube.counts, v) for v in (n_off, np.ones((3, 1, 1)), np.full((3, 1, 1), 5.0))))
    spectrum = replace(
        cube,
        name="spectrum",
        counts=there(cube.counts, n_on),
        background=off,
        exposure=there(cube.exposure),
        psf=None,
        edisp=EdispMap(kernel, there(cube.exposure)),
        mask_safe=np.array([True, True, False])[:, None, None],
    )
    # nobody knows where this one was taken, so it was taken of the source
    unknown = RegionGeometry(UNKNOWN)
    somewhere = replace(spectrum, counts=replace(spectrum.counts, geom=unknown))
    held = [predict_counts(dataset, point_models())[0] for dataset in (spectrum, somewhere)]
    assert held[0].sum() > 1
    assert np.array_equal(*held)
    other_run = {"meta": {"obs_ids": [9]}}
    assert (
        constrained(outlines_of([cube, replace(spectrum, **other_run)], point_models()), point_models())[1]
        == []
    )
    (sentence,) = constrained(
        outlines_of([cube, replace(somewhere, **other_run)], point_models()), point_models()
    )[1]
    assert (
        sentence
        == "dataset 'spectrum' does not say where on the sky it was taken: it is taken to hold all of s"
    )
    blind = replace(off, acceptance_off=there(cube.counts, np.array([5.0, 0, 0])[:, None, None]))
    told = constrained(outlines_of([replace(spectrum, background=blind)], point_models()), point_models())[1]
    assert any(
        t.startswith("dataset 'spectrum': 1 bins of the fit have no acceptance on or off") for t in told
    )
    nothing = replace(spectrum, mask_safe=np.zeros((3, 1, 1), dtype=bool))
    assert (
        "dataset 'spectrum' has no bin in the fit"
        in constrained(outlines_of([nothing], point_models()), point_models())[1][-1]
    )
    negative = replace(off, acceptance=there(cube.counts, -np.ones((3, 1, 1))))
    with pytest.raises(InputError, match=r"\(acceptance in 2 bins\)"):
        build_likelihood([replace(spectrum, background=negative)], point_models())
    models = add_backgrounds([cube, spectrum], point_models(), ["norm"])
    assert [model.name for model in models.backgrounds] == ["small-bkg"]
    likelihood = build_likelihood([cube, spectrum], models)
    assert sorted(likelihood.names) == ["s.amplitude", "s.index", "s.lat_0", "s.lon_0", "small-bkg.norm"]
    signal = predict_counts(spectrum, models)[0]
    measured = wstat(n_on, n_off, np.full((3, 1, 1), 0.2), signal)[:2].sum()
    assert measured > 1
    both = likelihood.stat(likelihood.start)
    assert both == pytest.approx(dense([cube], models) + measured, abs=1e-7)
