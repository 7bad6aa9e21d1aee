"""Maps of excess over measured backgrounds, and the distribution of their significance."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError
from dl3flow.estimators import MAPS
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.region import RegionGeometry
from dl3flow.kernels.convolve import circle_kernel
from dl3flow.kernels.counts_interval import cash_interval, wstat_interval
from dl3flow.models.source import Component, Models, Parameter, ResponseModel
from dl3flow.reduce.stack import stack

MakeDataset = Callable[..., Dataset]
AROUND = "icrs;circle(83.63, 22.01, 0.3)"


def with_off(dataset: Dataset, counts: np.ndarray, alpha: float) -> Dataset:
    """Off counts with one acceptance ratio; the acceptance is 1."""
    ones = np.ones(dataset.counts.data.shape)
    off = OffCounts(*(dataset.counts.with_data(v) for v in (counts, ones, ones / alpha)))
    return replace(dataset, background=off)


def estimate(datasets: list[Dataset], result: object = None, **options: object) -> SkyMap:
    function, bound = MAPS.bind({"name": "excess_map", "correlation_radius": "0.15 deg", **options}, "map")
    return function(datasets, result, **bound)


def li_ma(n_on: float, n_off: float, alpha: float) -> float:
    """Li and Ma (1983), equation 17."""
    total = n_on + n_off
    return float(
        np.sqrt(
            2
            * (
                n_on * np.log((1 + alpha) / alpha * n_on / total)
                + n_off * np.log((1 + alpha) * n_off / total)
            )
        )
    )


@pytest.fixture
def measured(small_dataset: MakeDataset) -> Dataset:
    dataset = small_dataset()
    rng = np.random.default_rng(3)
    return with_off(dataset, rng.poisson(dataset.background.counts.data * 10).astype(float), 0.1)


@pytest.mark.parametrize("correlate_off", [False, True])
def test_li_and_ma_by_hand(correlate_off: bool, measured: Dataset) -> None:
    sky = estimate([measured], correlate_off=correlate_off)
    assert set(sky.maps) == {
        "counts",
        "background",
        "excess",
        "excess_err",
        "sqrt_ts",
        "counts_off",
        "acceptance",
        "acceptance_off",
        "flux",
        "flux_err",
    }
    y, x = np.indices((40, 40))
    circle = np.hypot(y - 20, x - 20) <= 3
    n_on = measured.counts.data[:, circle].sum()
    off, on, acceptance_off = (
        part.data.sum(axis=0)
        for part in (
            measured.background.counts,
            measured.background.acceptance,
            measured.background.acceptance_off,
        )
    )
    n_off = off[circle].sum() if correlate_off else off[20, 20]
    alpha = on[circle].sum() / (acceptance_off[circle].sum() if correlate_off else acceptance_off[20, 20])
    assert alpha == pytest.approx(0.1 if correlate_off else 2.9)
    at = {key: values.data[20, 20] for key, values in sky.maps.items()}
    assert at["counts"] == n_on
    assert at["counts_off"] == n_off
    assert at["background"] == pytest.approx(alpha * n_off)
    assert at["excess"] == pytest.approx(n_on - alpha * n_off)
    assert at["sqrt_ts"] == pytest.approx(li_ma(n_on, n_off, alpha))
    assert at["excess_err"] == pytest.approx(np.sqrt(n_on + alpha**2 * n_off))


def test_a_stack_and_its_parts_make_one_map(small_dataset: MakeDataset) -> None:
    runs = []
    for seed, alpha in ((1, 0.1), (2, 0.25)):
        dataset = small_dataset(f"d{seed}", seed=seed)
        counts = np.random.default_rng(seed).poisson(dataset.background.counts.data / alpha).astype(float)
        mask = np.ones(dataset.mask_safe.shape, dtype=bool)
        mask[:, :, : 5 * seed] = False
        runs.append(replace(with_off(dataset, counts + 1, alpha), mask_safe=mask))
    assert runs[0].psf is not None
    stacked = stack(runs, "stack", runs[0].geom, runs[0].psf.psf.geom)
    parts, whole = (estimate(datasets, correlate_off=True) for datasets in (runs, [stacked]))
    for key in parts.maps:
        assert parts.maps[key].data == pytest.approx(whole.maps[key].data, rel=1e-9, abs=1e-9, nan_ok=True)
    assert np.isnan(parts.maps["sqrt_ts"].data[:, :5]).all()


def test_no_off_measurement_is_no_significance(measured: Dataset) -> None:
    off = measured.background
    part = np.ones((3, 40, 40))
    part[:, :, 20:] = 0
    nowhere = replace(
        off,
        counts=off.counts.with_data(off.counts.data * part),
        acceptance_off=off.acceptance_off.with_data(off.acceptance_off.data * part),
    )
    for correlate_off, border in ((False, 20), (True, 23)):
        sky = estimate([replace(measured, background=nowhere)], correlate_off=correlate_off)
        sqrt_ts = sky.maps["sqrt_ts"].data
        assert np.isfinite(sqrt_ts[:, :border]).all()
        assert np.isnan(sqrt_ts[:, border:]).all()
        assert np.isfinite(sky.maps["counts"].data).all()
        # all counts would else pass for an excess, and make a flux
        for name in ("background", "excess", "excess_err", "flux", "flux_err"):
            assert np.isfinite(sky.maps[name].data[:, :border]).all(), name
            assert np.isnan(sky.maps[name].data[:, border:]).all(), name


def test_distribution_outside_the_exclusion(measured: Dataset) -> None:
    sky = estimate([measured], correlate_off=True, exclusion=AROUND)
    sqrt_ts = sky.maps["sqrt_ts"]
    outside = sqrt_ts.data[np.degrees(sqrt_ts.sky.separation(RegionGeometry(AROUND).center)) > 0.3]
    assert sky.meta["exclusion"] == AROUND
    found = sky.meta["significance"]
    assert found["where"] == f"outside {AROUND}"
    assert found["n"] == len(outside) < 1600
    assert found["mean"] == pytest.approx(outside.mean())
    assert found["width"] == pytest.approx(outside.std())
    everything = estimate([measured], correlate_off=True).meta["significance"]
    assert everything["where"] == "all pixels"
    assert everything["n"] == 1600
    assert everything["width"] > found["width"] + 0.5
    with pytest.raises(InputError, match="is a point, which excludes nothing"):
        estimate([measured], exclusion="icrs;point(83.63, 22.01)")


def test_known_and_measured_backgrounds_do_not_mix(measured: Dataset, small_dataset: MakeDataset) -> None:
    with pytest.raises(InputError, match="a known background and some a measured one"):
        estimate([measured, small_dataset("d2")])


def test_residuals_of_the_truth_are_standard_normal(
    measured: Dataset, point_models: Callable[..., Models]
) -> None:
    class Fit:
        models = point_models(3e-10)

    function, options = MAPS.bind(
        {"name": "residual_map", "correlation_radius": "0.15 deg", "correlate_off": True}, "map"
    )
    sky = function([measured], Fit(), **options)
    at = sky.maps["sqrt_ts"].data
    excess = estimate([measured], correlate_off=True).maps
    assert excess["sqrt_ts"].data[20, 20] > 20
    assert abs(at[20, 20]) < 3.5
    assert at[3::7, 3::7].std() == pytest.approx(1, abs=0.35)
    model = sky.maps["npred"].data - excess["background"].data
    assert model[20, 20] > 50
    assert sky.maps["excess"].data == pytest.approx(sky.maps["counts"].data - sky.maps["npred"].data)
    assert circle_kernel(3).sum() == 29


def test_the_flux_of_a_circle_is_excess_over_exposure(small_dataset: MakeDataset) -> None:
    """A flat exposure of 2 m2 s over one true bin, all of it in one energy bin: the arithmetic is a quotient."""
    dataset = small_dataset()
    flat = replace(dataset.exposure, data=np.full(dataset.exposure.data.shape, 3e8))
    edisp = np.zeros(dataset.edisp.edisp.data.shape)
    edisp[:, 1] = 1
    simple = replace(
        dataset, exposure=flat, edisp=replace(dataset.edisp, edisp=dataset.edisp.edisp.with_data(edisp))
    )
    sky = estimate([simple], index=3.0)
    # all true energies 0.5 to 20 TeV count; the flux is stated for 1 to 10 TeV
    share = (1 - 1e-2) / (0.5**-2 - 20**-2)
    at = {key: values.data[20, 20] for key, values in sky.maps.items()}
    assert sky.maps["flux"].unit == "cm-2 s-1"
    assert at["flux"] == pytest.approx(at["excess"] / 3e12 * share, rel=1e-4)
    assert at["flux_err"] / at["flux"] == pytest.approx(at["excess_err"] / at["excess"])
    assert at["excess_err"] == pytest.approx(np.sqrt(at["counts"]))
    assert sky.meta["energy"] == pytest.approx([1, 10])
    assert sky.meta["reference"] == "power law of index 3"


def test_intervals_and_limits_of_a_pixel(small_dataset: MakeDataset, measured: Dataset) -> None:
    sky = estimate([small_dataset()], errors=True, limits=True, n_sigma_ul=3)
    at = {key: values.data[5, 31] for key, values in sky.maps.items()}
    expected = cash_interval(at["counts"], at["background"], 1.0, 3.0)
    assert at["excess_ul"] == pytest.approx(float(expected.ul))
    assert at["excess_errn"] == pytest.approx(float(expected.errn))
    assert at["excess_errp"] == pytest.approx(float(expected.errp))
    assert at["flux_ul"] / at["flux_err"] == pytest.approx(at["excess_ul"] / at["excess_err"])
    assert sky.meta["ul_conf"] == pytest.approx(0.9973, abs=1e-4)
    sky = estimate([measured], limits=True)
    at = {key: values.data[5, 31] for key, values in sky.maps.items()}
    alpha = at["acceptance"] / at["acceptance_off"]
    assert at["excess_ul"] == pytest.approx(float(wstat_interval(at["counts"], at["counts_off"], alpha).ul))


def test_limits_where_nothing_was_counted(small_dataset: MakeDataset) -> None:
    """Without counts the likelihood is linear: a rise of 4 is an excess of 2, whatever the background."""
    dataset = small_dataset()
    empty = replace(dataset, counts=dataset.counts.with_data(np.zeros(dataset.counts.data.shape)))
    sky = estimate([empty], errors=True, limits=True)
    assert sky.maps["excess_ul"].data == pytest.approx(2)
    assert np.all(sky.maps["excess"].data < 0)
    # down to the edge where nothing at all would be expected
    assert sky.maps["excess_errn"].data == pytest.approx(np.zeros((40, 40)), abs=1e-9)
    assert sky.maps["sqrt_ts"].data == pytest.approx(-np.sqrt(2 * sky.maps["background"].data))


def test_bands_sum_to_the_whole(small_dataset: MakeDataset) -> None:
    datasets = [small_dataset("a"), small_dataset("b", part="half", seed=2)]
    sky = estimate(datasets, energy={"min": "1 TeV", "max": "10 TeV", "nbin": 3}, limits=True)
    bands = sky.maps["band_counts"]
    assert bands.data.shape == (3, 40, 40)
    assert bands.axis("energy").edges.to_value("TeV") == pytest.approx(10 ** (np.arange(4) / 3))
    for key in ("counts", "background", "excess"):
        assert sky.maps[f"band_{key}"].data.sum(axis=0) == pytest.approx(
            sky.maps[key].data, rel=1e-6, abs=1e-6
        )
    alone = estimate(datasets, energy={"min": "2 TeV", "max": "5 TeV", "nbin": 1}, limits=True)
    assert not any(key.startswith("band_") for key in alone.maps)
    for key, values in alone.maps.items():
        assert values.data == pytest.approx(sky.maps[f"band_{key}"].data[1], rel=1e-9)
    # 2 and 5 TeV were moved to the edges of the data
    assert alone.meta["energy"] == pytest.approx([10 ** (1 / 3), 10 ** (2 / 3)])


def test_a_source_of_the_fit_is_no_excess(measured: Dataset, point_models: Callable[..., Models]) -> None:
    class Fit:
        models = point_models(3e-10)

    whole, rest = (estimate([measured], Fit(), subtract=names, limits=True) for names in ([], ["s"]))
    signal = predict_counts(measured, Fit.models)[0]
    y, x = np.indices((40, 40))
    circle = np.hypot(y - 20, x - 20) <= 3
    gone = whole.maps["excess"].data[20, 20] - rest.maps["excess"].data[20, 20]
    assert gone == pytest.approx(signal[:, circle].sum())
    assert rest.meta["subtracted"] == ["s"]
    assert rest.maps["excess_ul"].data[20, 20] < 0.4 * whole.maps["excess_ul"].data[20, 20]
    with pytest.raises(InputError, match=r"subtract: no source 't' in the fit \(choices: s\)"):
        estimate([measured], Fit(), subtract=["t"])
    with pytest.raises(InputError, match="subtract: 's' is known from a fit only"):
        estimate([measured], subtract=["s"])
    with pytest.raises(InputError, match="spectrum: the spectrum of 's' is known from a fit only"):
        estimate([measured], spectrum="s")


def test_a_systematic_error_of_the_background_scales_it(
    measured: Dataset, point_models: Callable[..., Models]
) -> None:
    """A fit with a free factor on a measured background has that background, not the bare one."""
    scale = Component(
        "response_scale",
        (
            Parameter("energy_scale", 0.0, frozen=True),
            Parameter("exposure_scale", 1.0, frozen=True),
            Parameter("background_scale", 1.2),
        ),
    )

    class Fit:
        models = replace(point_models(3e-10), responses=(ResponseModel("wrong", scale, (measured.name,)),))

    bare, scaled = estimate([measured]).maps, estimate([measured], Fit()).maps
    assert scaled["background"].data == pytest.approx(1.2 * bare["background"].data)
    at = {key: values.data[3, 3] for key, values in scaled.items()}
    alpha = 1.2 * bare["acceptance"].data[3, 3] / bare["acceptance_off"].data[3, 3]
    assert at["sqrt_ts"] == pytest.approx(
        np.sign(at["excess"]) * li_ma(at["counts"], at["counts_off"], alpha), rel=1e-6
    )


def test_the_gaussian_of_the_significance(measured: Dataset) -> None:
    """The fit holds the background's own width where the exclusion forgets the source, which the moments do not."""
    found = estimate([measured], correlate_off=True).meta["significance"]
    assert found["width"] > 2
    assert found["fit"]["width"] == pytest.approx(1, abs=0.2)
    outside = estimate([measured], correlate_off=True, exclusion=AROUND).meta["significance"]
    assert outside["fit"]["width"] == pytest.approx(outside["width"], abs=2 * outside["fit"]["width_err"])
    # circles of 29 pixels: 1600 pixels are 55 independent ones
    assert outside["fit"]["mean_err"] == pytest.approx(1 / np.sqrt(1600 / 29), rel=0.2)


def test_spectra_have_no_map(measured: Dataset) -> None:
    spectrum = replace(
        measured,
        counts=Map(RegionGeometry(AROUND), measured.counts.axes, np.zeros((3, 1, 1))),
    )
    with pytest.raises(InputError, match="'small' is no map: take a reduction with the recipe `cube`"):
        estimate([spectrum])
    with pytest.raises(InputError, match="there is no dataset"):
        estimate([])


def test_arguments_are_left_as_they_are(measured: Dataset, small_dataset: MakeDataset) -> None:
    for dataset in (measured, small_dataset()):
        before = dataset.counts.data.copy(), dataset.mu_bkg.copy()
        estimate([dataset], errors=True, limits=True, energy={"min": "1 TeV", "max": "10 TeV", "nbin": 2})
        assert np.array_equal(dataset.counts.data, before[0])
        assert np.array_equal(dataset.mu_bkg, before[1])


def test_data_that_say_nothing_are_told(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    bare = estimate([replace(dataset, background=None)], limits=True)
    assert (
        "all counts are taken for excess, whose significance is not known: small" in bare.meta["warnings"][0]
    )
    assert np.isnan(bare.maps["sqrt_ts"].data).all()
    assert np.array_equal(bare.maps["excess"].data, bare.maps["counts"].data)
    nothing = np.zeros(dataset.mask_safe.shape, dtype=bool)
    masked = estimate([replace(dataset, mask_safe=nothing)], errors=True, limits=True)
    assert masked.meta["warnings"] == ["no bin is in use, safe masks leave none: small"]
    assert all(np.isnan(values.data).all() for values in masked.maps.values())
    assert masked.meta["significance"]["fit"] is None
    nothing[0, 20, 20] = True
    single = estimate([replace(dataset, mask_safe=nothing)], errors=True, limits=True)
    assert single.meta["warnings"] == []
    assert all(np.isfinite(values.data).sum() == 1 for values in single.maps.values())
