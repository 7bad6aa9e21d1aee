"""Maps of excess over measured backgrounds, and the distribution of their significance."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError
from dl3flow.estimators import MAPS
from dl3flow.geometry.region import RegionGeometry
from dl3flow.kernels.convolve import circle_kernel
from dl3flow.models.source import Models
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
        "sqrt_ts",
        "counts_off",
        "acceptance",
        "acceptance_off",
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
