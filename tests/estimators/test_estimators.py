"""Flux points, light curves and sky maps of synthetic data with known truth."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError
from dl3flow.estimators import MAPS, TABLES
from dl3flow.estimators.images import correlated
from dl3flow.estimators.norms import reference_columns
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.npred import predict_counts
from dl3flow.models.source import Models
from dl3flow.reduce.reshape import to_image

SED = {"name": "flux_points", "source": "s", "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 3}}


@pytest.fixture(scope="module")
def datasets(small_dataset: Callable[..., Dataset]) -> list[Dataset]:
    return [small_dataset(f"d{k}", seed=70 + k) for k in range(2)]


@pytest.fixture(scope="module")
def result(datasets: list[Dataset], point_models: Callable[..., Models]) -> FitResult:
    return fit(datasets, add_backgrounds(datasets, point_models(), ["norm"]))


def test_flux_points_recover_the_truth(datasets: list[Dataset], result: FitResult) -> None:
    estimate, options = TABLES.bind(SED, "sed")
    points = estimate(datasets, result, **options)
    table = points.table
    assert len(table) == 3
    energy = table["e_ref"].to_value("TeV")
    assert energy == pytest.approx(10 ** (np.array([1, 3, 5]) / 6))
    truth = 3e-10 * energy**-2.5
    pulls = (points.dnde().to_value("cm-2 s-1 TeV-1") - truth) / points.dnde("norm_err").to_value(
        "cm-2 s-1 TeV-1"
    )
    assert np.all(np.abs(pulls) < 3)
    assert table["counts"].sum() == sum(d.counts.data.sum() for d in datasets)
    assert np.all(table["norm_errn"] < table["norm_errp"])
    assert np.all(table["norm_ul"] > table["norm"] + table["norm_errp"])
    assert points.e2dnde()[0].to_value("TeV cm-2 s-1") == pytest.approx(
        (points.dnde()[0] * table["e_ref"][0] ** 2).to_value("TeV cm-2 s-1")
    )
    assert points.meta["ul_conf"] == pytest.approx(0.9545, abs=1e-4)


def test_one_point_over_all_energies_has_the_norm_of_the_fit(
    datasets: list[Dataset], result: FitResult
) -> None:
    estimate, options = TABLES.bind({**SED, "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 1}}, "sed")
    row = estimate(datasets, result, **options).table[0]
    # at the best fit the derivative by the amplitude vanishes, and the norm is the amplitude's factor
    assert row["norm"] == pytest.approx(1, abs=0.02)
    assert row["ts"] == pytest.approx(row["stat_null"] - row["stat"])
    assert row["npred"] == pytest.approx(row["counts"], rel=0.05)
    signal = sum(predict_counts(d, replace(result.models, backgrounds=()))[0].sum() for d in datasets)
    assert row["npred_excess"] == pytest.approx(row["norm"] * signal)


def test_a_missing_source_and_foreign_energies_are_told(datasets: list[Dataset], result: FitResult) -> None:
    estimate, options = TABLES.bind({**SED, "source": "t"}, "sed")
    with pytest.raises(InputError, match=r"no source 't' in the fit \(choices: s\)"):
        estimate(datasets, result, **options)
    estimate, options = TABLES.bind({**SED, "energy": {"min": "20 TeV", "max": "90 TeV", "nbin": 2}}, "sed")
    with pytest.raises(InputError, match="do not overlap those of the data"):
        estimate(datasets, result, **options)
    with pytest.raises(InputError, match="n_sigma: expected a number above 0, found -1"):
        TABLES.bind({**SED, "n_sigma": -1}, "sed")


def test_an_empty_bin_becomes_a_limit(datasets: list[Dataset], result: FitResult) -> None:
    empty = [replace(d, counts=d.counts.with_data(np.zeros_like(d.counts.data))) for d in datasets]
    estimate, options = TABLES.bind(SED, "sed")
    table = estimate(empty, result, **options).table
    assert np.all(table["is_ul"])
    assert np.all(np.isfinite(table["norm_ul"]) & (table["norm_ul"] > 0))
    # without counts the likelihood is linear: 2 c s = 4 above zero strength
    signal = sum(
        predict_counts(d, replace(result.models, backgrounds=()))[0].sum(axis=(1, 2)) for d in datasets
    )
    assert table["norm_ul"] == pytest.approx(2 / signal)


def test_reference_fluxes_of_a_power_law(point_models: Callable[..., Models]) -> None:
    columns = reference_columns(point_models(1e-11, 2.0).sources[0], [1.0] * u.TeV, [100.0] * u.TeV)
    assert columns["e_ref"][0].to_value("TeV") == pytest.approx(10)
    assert columns["ref_dnde"][0].to_value("cm-2 s-1 TeV-1") == pytest.approx(1e-13)
    assert columns["ref_flux"][0].to_value("cm-2 s-1") == pytest.approx(1e-11 * 0.99)
    assert columns["ref_eflux"][0].to_value("TeV cm-2 s-1") == pytest.approx(1e-11 * np.log(100))
    assert columns["ref_e2dnde"][0].to_value("TeV cm-2 s-1") == pytest.approx(1e-11)


def test_light_curve_has_a_row_per_run_in_order_of_time(datasets: list[Dataset], result: FitResult) -> None:
    estimate, options = TABLES.bind(
        {"name": "light_curve", "source": "s", "energy": {"min": "2 TeV", "max": "10 TeV"}}, "lc"
    )
    table = estimate(datasets[::-1], result, **options).table
    assert table["time_min"].to_value("d") == pytest.approx([60070, 60071])
    assert (table["time_max"] - table["time_min"]).to_value("s") == pytest.approx([1000, 1000], abs=1e-3)
    assert list(table["dataset"]) == ["d0", "d1"]
    assert table["e_min"].to_value("TeV") == pytest.approx([10 ** (1 / 3)] * 2)
    assert table["counts"].tolist() == [d.counts.data[1:].sum() for d in datasets]
    assert np.all(np.abs(table["norm"] - 1) < 4 * table["norm_err"])


def test_correlation_sums_over_a_circle_of_pixel_centres() -> None:
    image = np.zeros((9, 9))
    image[4, 4] = 1
    found = correlated(image, 0.2 * u.deg, 0.1)
    assert found.sum() == pytest.approx(13)
    assert found[4, 2] == pytest.approx(1)
    assert found[3, 2] == pytest.approx(0, abs=1e-12)


def test_excess_map_of_a_reduction_and_of_a_fit(datasets: list[Dataset], result: FitResult) -> None:
    estimate, options = MAPS.bind({"name": "excess_map", "correlation_radius": "0.15 deg"}, "sky")
    sky = estimate(datasets, None, **options)
    assert set(sky.maps) == {"counts", "background", "excess", "excess_err", "sqrt_ts", "flux", "flux_err"}
    j, i = sky.maps["counts"].geom.shape[0] // 2, sky.maps["counts"].geom.shape[1] // 2
    n, b = (sky.maps[k].data[j, i] for k in ("counts", "background"))
    y, x = np.mgrid[-20:20, -20:20]
    circle = np.hypot(x, y) <= 3
    assert n == sum(d.counts.data[:, circle].sum() for d in datasets)
    assert b == pytest.approx(sum(d.background.counts.data[:, circle].sum() for d in datasets))
    assert sky.maps["sqrt_ts"].data[j, i] == pytest.approx(np.sqrt(2 * (b - n + n * np.log(n / b))))
    fitted = estimate(datasets, result, **options)
    norms = [result.parameter(f"d{k}-bkg.norm").value for k in range(2)]
    expected = sum(
        f * d.background.counts.data[:, circle].sum() for f, d in zip(norms, datasets, strict=True)
    )
    assert fitted.maps["background"].data[j, i] == pytest.approx(expected)
    assert fitted.meta["source positions"]["s"] == pytest.approx([83.63, 22.01], abs=0.02)


def test_residuals_of_a_good_fit_are_standard_normal(datasets: list[Dataset], result: FitResult) -> None:
    estimate, options = MAPS.bind({"name": "residual_map", "correlation_radius": "0.15 deg"}, "sky")
    sky = estimate(datasets, result, **options)
    independent = sky.maps["sqrt_ts"].data[3::7, 3::7]
    assert abs(independent.mean()) < 0.5
    assert independent.std() == pytest.approx(1, abs=0.35)


def test_maps_of_cutouts_are_joined_and_the_rest_is_nan(small_dataset: Callable[..., Dataset]) -> None:
    half, mask = small_dataset("h", part="half", seed=3), np.ones((3, 40, 40), dtype=bool)
    mask[:, :, 10:] = False
    east = replace(small_dataset("e", seed=4), mask_safe=mask)
    estimate, options = MAPS.bind({"name": "excess_map", "correlation_radius": "0.06 deg"}, "sky")
    sky = estimate([half, east], None, **options)
    counts = sky.maps["counts"].data
    assert counts.shape == (40, 40)
    assert np.isnan(counts[:, 10:20]).all()
    assert np.isfinite(counts[:, :10]).all()
    assert np.isfinite(counts[:, 20:]).all()


def test_bins_across_the_edges_of_points_are_told(datasets: list[Dataset], result: FitResult) -> None:
    """A dataset of one bin over all energies fits no point of a finer axis, and the table says so."""
    image = to_image(datasets[1])
    estimate, options = TABLES.bind(SED, "sed")
    points = estimate([datasets[0], image], result, **options)
    assert points.table["counts"].sum() == datasets[0].counts.data.sum()
    assert points.meta["warnings"] == [
        f"energy bins that lie across an edge are in no point, of {image.name} (1): give all datasets the same energy axis to use them"
    ]
    assert estimate(datasets, result, **options).meta["warnings"] == []


def test_a_light_curve_of_data_without_times_is_refused(datasets: list[Dataset], result: FitResult) -> None:
    timeless = replace(datasets[0], gti=replace(datasets[0].gti, start=[] * u.s, stop=[] * u.s))
    estimate, options = TABLES.bind({"name": "light_curve", "source": "s"}, "curve")
    with pytest.raises(InputError, match="dataset 'd0' has no good time intervals"):
        estimate([timeless, datasets[1]], result, **options)
