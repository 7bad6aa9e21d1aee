"""A source's flux on every pixel: against fits of the same pixel, of simulated data with a known truth."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.errors import InputError
from dl3flow.estimators import MAPS, ts_map
from dl3flow.estimators.norms import selected_bins
from dl3flow.estimators.signals import expected_signal, placed_source
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.norm import ExpectedBins, fit_norm
from dl3flow.models.source import Component, Models, Parameter, ResponseModel, Source
from dl3flow.models.written import parse_shape, parse_spectrum

MakeDataset = Callable[..., Dataset]
SPECTRAL = {"type": "power_law", "amplitude": "3e-10 cm-2 s-1 TeV-1", "index": 2.5}


def estimate(datasets: list[Dataset], result: FitResult | None = None, **options: object) -> SkyMap:
    estimator, bound = MAPS.bind({"name": "ts_map", "spectral": SPECTRAL, **options}, "map")
    return estimator(datasets, result, **bound)


@pytest.fixture(scope="module")
def dataset(small_dataset: MakeDataset) -> Dataset:
    return small_dataset(seed=5)


def at_pixel(dataset: Dataset, j: int, i: int, shape: Component | None = None) -> Models:
    """The reference source on one pixel."""
    lon, lat = (float(v) for v in dataset.counts.sky.wcs.all_pix2world(i, j, 0))
    place = (Parameter("lon_0", lon, u.deg), Parameter("lat_0", lat, u.deg))
    spatial = Component("point", place)
    if shape is not None:
        others = tuple(p for p in shape.parameters if p.name not in ("lon_0", "lat_0"))
        spatial = Component(shape.kind, (*place, *others))
    return Models((Source("s", parse_spectrum(SPECTRAL), spatial),))


@pytest.mark.parametrize("shape", [None, {"type": "gauss", "sigma": "0.12 deg"}])
def test_each_pixel_has_the_norm_of_a_fit_there(dataset: Dataset, shape: dict[str, str] | None) -> None:
    sky = estimate([dataset], errors=True, limits=True, **({"spatial": shape} if shape else {}))
    assert set(sky.maps) == {
        *("ts", "sqrt_ts", "npred_excess", "norm", "norm_err", "norm_errn", "norm_errp", "norm_ul"),
        *("flux", "flux_err", "flux_errn", "flux_errp", "flux_ul"),
    }
    for j, i in ((20, 20), (21, 18), (8, 30), (2, 2), (39, 20)):
        models = at_pixel(dataset, j, i, None if shape is None else parse_shape(shape))
        alone = fit_norm([selected_bins(dataset, models, models.sources[0])(dataset.mask)])
        got = {name: values.data[j, i] for name, values in sky.maps.items()}
        # the responses are those in the middle, and the exposure is folded with the dispersion there
        assert got["norm"] == pytest.approx(alone.norm, abs=0.03 * alone.errp)
        assert got["ts"] == pytest.approx(max(alone.ts, 0.0), rel=0.01, abs=0.05)
        assert got["norm_err"] == pytest.approx(alone.err, rel=0.01, nan_ok=True)
        assert got["norm_errp"] == pytest.approx(alone.errp, rel=0.01)
        assert got["norm_ul"] == pytest.approx(alone.ul, rel=0.01)
        assert got["sqrt_ts"] == pytest.approx(np.sign(alone.norm) * np.sqrt(max(alone.ts, 0)), abs=0.02)
        signal, _ = predict_counts(dataset, models)
        assert got["npred_excess"] == pytest.approx(alone.norm * signal.sum(), rel=0.03, abs=0.5)


def test_the_source_is_found_with_its_flux(dataset: Dataset) -> None:
    sky = estimate([dataset])
    peak = np.unravel_index(np.nanargmax(sky.maps["ts"].data), (40, 40))
    assert np.hypot(*(np.array(peak) - 19.5)) < 1.5
    norm, error = (float(sky.maps[name].data[peak]) for name in ("norm", "norm_err"))
    assert abs(norm - 1) < 4 * error
    # the integral of 3e-10 E^-2.5 from 1 to 10 TeV
    flux = 3e-10 / 1.5 * (1 - 10**-1.5)
    assert sky.maps["flux"].data[peak] == pytest.approx(norm * flux)
    assert sky.maps["flux"].unit == u.Unit("cm-2 s-1")
    assert sky.meta["ref_flux"] == pytest.approx([flux])
    away = np.hypot(*(np.indices((40, 40)) - 19.5)) > 12
    assert sky.maps["sqrt_ts"].data[away].std() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize(
    ("quantity", "unit", "reference"),
    [
        ("dnde", "cm-2 s-1 TeV-1", 3e-10 * 10**-1.25),
        ("e2dnde", "TeV cm-2 s-1", 3e-10 * 10**-0.25),
        ("eflux", "TeV cm-2 s-1", 3e-10 / 0.5 * (1 - 10**-0.5)),
    ],
)
def test_other_quantities(dataset: Dataset, quantity: str, unit: str, reference: float) -> None:
    sky = estimate([dataset], quantity=quantity)
    assert sky.maps[quantity].unit == u.Unit(unit)
    assert sky.maps[quantity].data == pytest.approx(reference * sky.maps["norm"].data, nan_ok=True)
    assert f"{quantity}_err" in sky.maps
    assert "flux" not in sky.maps


def test_datasets_are_fitted_jointly(dataset: Dataset, small_dataset: MakeDataset) -> None:
    one, twice = estimate([dataset]), estimate([dataset, replace(dataset, name="again")])
    assert twice.maps["norm"].data == pytest.approx(one.maps["norm"].data, rel=1e-5, abs=1e-8)
    assert twice.maps["ts"].data == pytest.approx(2 * one.maps["ts"].data, rel=1e-8, abs=1e-8)
    half = small_dataset("half", part="half", seed=9)
    joint = estimate([half, dataset])
    assert joint.maps["ts"].data.shape == (40, 40)
    models = at_pixel(dataset, 20, 24)
    parts = [selected_bins(d, models, models.sources[0])(d.mask) for d in (half, dataset)]
    assert joint.maps["ts"].data[20, 24] == pytest.approx(fit_norm(parts).ts, rel=0.01)
    # far from the half nothing is added
    assert joint.maps["norm"].data[20, 3] == pytest.approx(one.maps["norm"].data[20, 3], rel=1e-4)


def test_bands_of_energy(dataset: Dataset) -> None:
    bands = estimate([dataset], energy={"edges": ["1 TeV", "4.6 TeV", "10 TeV"]})
    flux = bands.maps["flux"]
    assert flux.data.shape == (2, 40, 40)
    assert flux.axis("energy").edges.to_value("TeV") == pytest.approx([1, 10 ** (2 / 3), 10])
    assert len(bands.meta["ref_flux"]) == 2
    # bands are independent: their statistics against no source add up, at the common norm at most to their sum
    whole = estimate([dataset]).maps["ts"].data
    assert (bands.maps["ts"].data.sum(axis=0) >= whole - 1e-6).all()
    first = estimate([replace(dataset, mask_fit=np.arange(3)[:, None, None] < np.full((1, 40, 40), 2))])
    assert bands.maps["ts"].data[0] == pytest.approx(first.maps["ts"].data, abs=1e-9)


def test_energies_that_are_summed(dataset: Dataset) -> None:
    each, summed = (estimate([dataset], energies=which).maps for which in ("each", "summed"))
    peak = np.unravel_index(np.nanargmax(each["ts"].data), (40, 40))
    assert summed["norm"].data[peak] == pytest.approx(
        each["norm"].data[peak], abs=2 * each["norm_err"].data[peak]
    )
    # what the energies say is lost
    assert 0.5 * each["ts"].data[peak] < summed["ts"].data[peak] < each["ts"].data[peak]
    # by hand, in the image
    models = at_pixel(dataset, 20, 20)
    signal, _ = predict_counts(dataset, models)
    image = [v.sum(axis=0).ravel() for v in (dataset.counts.data, signal, dataset.background.counts.data)]
    assert summed["ts"].data[20, 20] == pytest.approx(fit_norm([ExpectedBins(*image)]).ts, rel=0.01)
    # one energy has one kernel, however it is averaged
    one = replace(dataset, mask_fit=np.arange(3)[:, None, None] == np.ones((1, 40, 40)))
    maps = [
        estimate([one], energies=which, kernel_mean=mean).maps["ts"].data
        for which, mean in (("each", "counts"), ("summed", "counts"), ("summed", "plain"))
    ]
    assert maps[1] == pytest.approx(maps[0], abs=1e-9)
    assert maps[2] == pytest.approx(maps[0], abs=1e-9)


def test_kernels_of_summed_energies_are_means_over_those_used(dataset: Dataset) -> None:
    source = placed_source(dataset.counts.sky, None, None, parse_spectrum(SPECTRAL), None, "")
    signal = expected_signal(dataset, source, Models(()), None)
    assert signal.kernels.sum(axis=(1, 2)) == pytest.approx(np.ones(3))
    # the signal in the middle, where the weights are exact
    models = at_pixel(dataset, 20, 20)
    expected, _ = predict_counts(dataset, models)
    half = signal.kernels.shape[-1] // 2
    product = signal.kernels * signal.weight[:, 20 - half : 21 + half, 20 - half : 21 + half]
    found = expected[:, 20 - half : 21 + half, 20 - half : 21 + half]
    assert product == pytest.approx(found, rel=0.01, abs=1e-3 * found.max())
    cut = expected_signal(dataset, source, Models(()), 0.5 * u.deg).kernels
    assert cut.shape == (3, 11, 11)
    assert cut.sum(axis=(1, 2)) == pytest.approx(np.ones(3))


def test_what_is_masked_is_not_fitted(dataset: Dataset) -> None:
    mask = np.ones((3, 40, 40), dtype=bool)
    mask[:, :, 30:] = False
    mask[0, :20] = False
    sky = estimate([replace(dataset, mask_safe=mask)], errors=True, limits=True)
    assert np.isnan(sky.maps["ts"].data[:, 30:]).all()
    assert np.isfinite(sky.maps["norm_ul"].data[:, :30]).all()
    models = at_pixel(dataset, 20, 27)
    masked = replace(dataset, mask_safe=mask)
    alone = fit_norm([selected_bins(masked, models, models.sources[0])(mask)])
    assert sky.maps["norm"].data[20, 27] == pytest.approx(alone.norm, abs=0.03 * alone.errp)
    nothing = estimate([replace(dataset, mask_safe=np.zeros_like(mask))])
    assert all(np.isnan(values.data).all() for values in nothing.maps.values())
    assert sky.meta["warnings"] == []
    for dark in (nothing, estimate([dataset, replace(dataset, name="bare", background=None)])):
        name = "bare" if dark is not nothing else dataset.name
        assert f"there is no such bin in use in {name}:" in dark.meta["warnings"][0]


@pytest.fixture(scope="module")
def result(dataset: Dataset, point_models: Callable[..., Models]) -> FitResult:
    return fit([dataset], add_backgrounds([dataset], point_models(), ["norm"]))


def test_sources_of_a_fit(dataset: Dataset, result: FitResult) -> None:
    rest = estimate([dataset], result)
    assert rest.meta["subtracted"] == ["s"]
    assert np.abs(rest.maps["sqrt_ts"].data[18:23, 18:23]).max() < 3.5
    like = estimate([dataset], result, like="s", spectral=None)
    assert like.meta["subtracted"] == []
    assert "index 2." in like.meta["spectral"]
    peak = np.nanargmax(like.maps["ts"].data)
    assert like.maps["norm"].data.flat[peak] == pytest.approx(1, abs=0.1)
    everything = estimate([dataset], result, subtract=[])
    assert everything.maps["ts"].data.max() > 100
    assert everything.meta["source positions"]["s"] == pytest.approx([83.63, 22.01], abs=0.02)


def test_wrong_input_is_told(dataset: Dataset, result: FitResult, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="give `fit` instead of `reduction`"):
        estimate([dataset], like="s")
    with pytest.raises(InputError, match=r"no source 't' in the fit \(choices: s\)"):
        estimate([dataset], result, like="t")
    with pytest.raises(InputError, match=r"`subtract` names 't', which is no source of the fit"):
        estimate([dataset], result, subtract=["t"])
    with pytest.raises(InputError, match="do not overlap those of the data"):
        estimate([dataset], energy={"min": "20 TeV", "max": "90 TeV", "nbin": 2})
    with pytest.raises(InputError, match="map.spectral: unknown parameter 'slope' of 'power_law'"):
        estimate([dataset], spectral={"type": "power_law", "slope": 2})
    counts = dataset.counts
    off = OffCounts(counts, counts.with_data(counts.data + 1), counts.with_data(counts.data + 5))
    with pytest.raises(InputError, match="is measured in off regions, .* take an `excess_map`"):
        estimate([replace(dataset, background=off)])

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(ts_map, "import_module", absent)
    with pytest.raises(InputError, match=r"needs the package numba, .* `pip install dl3flow\[fast\]`"):
        estimate([dataset], engine="numba")


def test_both_engines_make_one_map(dataset: Dataset) -> None:
    pytest.importorskip("numba", reason="numba is not installed: pip install dl3flow[fast]")
    ours, compiled = (
        estimate([dataset], engine=engine, errors=True, limits=True).maps for engine in ("numpy", "numba")
    )
    for name, values in ours.items():
        small = 1e-9 * np.nanmax(np.abs(values.data))
        assert compiled[name].data == pytest.approx(values.data, rel=1e-9, abs=small, nan_ok=True)


def test_a_moved_edge_is_told(dataset: Dataset) -> None:
    sky = estimate([dataset], energy={"min": "1.3 TeV", "max": "9 TeV", "nbin": 1})
    assert "moved to the nearest edges of the data" in sky.meta["warnings"][0]


def test_a_galactic_map(dataset: Dataset) -> None:
    """The reference source stands on a pixel of the map, in the map's own frame."""
    geom = SkyGeometry.create(SkyCoord(184.56, -5.78, unit="deg", frame="galactic"), 2 * u.deg, 0.05 * u.deg)
    source = placed_source(geom, None, None, None, None, "")
    assert source.spatial is not None
    assert source.spatial.options["frame"] == "galactic"
    at = SkyCoord(source.spatial["lon_0"].quantity, source.spatial["lat_0"].quantity, frame="galactic")
    assert [float(v) for v in geom.pixel(at)] == pytest.approx([20, 20], abs=1e-6)


def test_scales_of_the_responses_and_a_course_in_time_count(dataset: Dataset, result: FitResult) -> None:
    """What a fit says of a dataset's responses, and of a source's times, is in the flux of norm one."""
    (source,) = result.models.sources
    temporal = Component(
        "gauss",
        (Parameter("t_ref", dataset.gti.reference.tt.mjd + 0.02, u.d), Parameter("sigma", 0.01, u.d)),
        {"scale": "tt"},
    )
    scales = Component(
        "response_scale",
        (
            Parameter("energy_scale", 0.1),
            Parameter("exposure_scale", 0.8),
            Parameter("background_scale", 1.0),
        ),
    )
    models = replace(
        result.models,
        sources=(replace(source, temporal=temporal),),
        responses=(ResponseModel("r", scales),),
    )
    varied = replace(result, models=models)
    sky = estimate([dataset], varied, like="s", spectral=None)
    expected, _ = predict_counts(dataset, replace(models, backgrounds=()))
    steady, _ = predict_counts(dataset, replace(result.models, backgrounds=()))
    assert expected.sum() < 0.7 * steady.sum()
    j, i = np.unravel_index(np.nanargmax(sky.maps["ts"].data), (40, 40))
    signal = sky.maps["npred_excess"].data[j, i] / sky.maps["norm"].data[j, i]
    assert signal == pytest.approx(expected.sum(), rel=0.02)
