"""Adaptively smoothed maps of simulated data with a known truth."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.errors import InputError
from dl3flow.estimators import MAPS
from dl3flow.estimators.signals import expected_signal, placed_source
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.models.source import Models

MakeDataset = Callable[..., Dataset]


def estimate(datasets: list[Dataset], result: FitResult | None = None, **options: object) -> SkyMap:
    estimator, bound = MAPS.bind({"name": "adaptive_smooth", "threshold": 4, **options}, "map")
    return estimator(datasets, result, **bound)


@pytest.fixture(scope="module")
def dataset(small_dataset: MakeDataset) -> Dataset:
    return small_dataset(seed=5)


def test_a_source_is_smoothed_little_and_the_rest_not_shown(dataset: Dataset) -> None:
    sky = estimate([dataset], scales=["0.05 deg", "0.1 deg", "0.3 deg"])
    assert set(sky.maps) == {"counts", "background", "flux", "scale", "sqrt_ts"}
    scale, sqrt_ts = (sky.maps[name].data for name in ("scale", "sqrt_ts"))
    assert scale[20, 20] == pytest.approx(0.05)
    assert set(np.unique(scale[np.isfinite(scale)])) <= {0.05, 0.1, 0.3}
    assert (sqrt_ts[np.isfinite(sqrt_ts)] > 4).all()
    assert (np.isnan(scale) == np.isnan(sqrt_ts)).all()
    far = np.hypot(*(np.indices((40, 40)) - 19.5)) > 14
    assert np.isnan(scale[far]).mean() > 0.95
    rest = np.isnan(scale)
    counts = dataset.counts.data.sum(axis=0)
    assert sky.maps["counts"].data[rest] == pytest.approx(counts[rest].mean())
    assert sky.maps["background"].data[20, 20] == pytest.approx(
        dataset.background.counts.data.sum(axis=0)[20, 20], rel=0.05
    )
    assert sky.meta["scales"] == pytest.approx([0.05, 0.1, 0.3])


def test_flux_is_excess_over_what_the_spectrum_gives(dataset: Dataset) -> None:
    uniform = replace(
        dataset,
        counts=dataset.counts.with_data(np.full((3, 40, 40), 2.0)),
        background=replace(dataset.background, counts=dataset.counts.with_data(np.full((3, 40, 40), 0.5))),
    )
    sky = estimate([uniform], scales=["0.1 deg"], kernel="tophat")
    source = placed_source(dataset.counts.sky, None, None, None, None, "")
    weight = expected_signal(dataset, source, Models(()), None).weight.sum(axis=0)
    # a power law of index 2 and 1e-12 at 1 TeV, from 1 to 10 TeV
    assert sky.maps["flux"].data[20, 20] == pytest.approx(4.5 / weight[20, 20] * 0.9e-12, rel=1e-3)
    assert sky.maps["sqrt_ts"].data[20, 20] ** 2 == pytest.approx(
        2 * 13 * (1.5 - 6 + 6 * np.log(4)), rel=1e-6
    )
    twice = estimate([uniform, replace(uniform, name="again")], scales=["0.1 deg"], kernel="tophat")
    assert twice.maps["counts"].data[20, 20] == pytest.approx(12)
    assert twice.maps["flux"].data[20, 20] == pytest.approx(sky.maps["flux"].data[20, 20])


def test_default_scales_bands_and_masks(dataset: Dataset) -> None:
    mask = np.ones((3, 40, 40), dtype=bool)
    mask[:, :4] = False
    sky = estimate([replace(dataset, mask_safe=mask)], energy={"min": "1 TeV", "max": "10 TeV", "nbin": 3})
    assert sky.maps["counts"].data.shape == (3, 40, 40)
    assert np.isnan(sky.maps["counts"].data[:, :4]).all()
    assert np.isfinite(sky.maps["counts"].data[:, 4:]).all()
    assert sky.meta["scales"] == pytest.approx(0.05 * 2 ** (np.arange(9) / 2))
    none = estimate([dataset], threshold=500)
    assert "no kernel holds 500 sigma anywhere" in none.meta["warnings"][0]


def test_data_without_background_or_bins_say_so(dataset: Dataset) -> None:
    bare = estimate([replace(dataset, background=None)], scales=["0.1 deg"])
    assert "without a background all counts are taken for excess" in bare.meta["warnings"][0]
    dark = estimate([replace(dataset, mask_safe=np.zeros_like(dataset.mask_safe))], scales=["0.1 deg"])
    assert "no bin is in use, safe masks leave none: small" in dark.meta["warnings"][0]


def test_sources_of_a_fit_can_be_background(dataset: Dataset, point_models: Callable[..., Models]) -> None:
    result = fit([dataset], add_backgrounds([dataset], point_models(), ["norm"]))
    seen, gone = estimate([dataset], result), estimate([dataset], result, subtract=["s"])
    assert np.isfinite(seen.maps["scale"].data[20, 20])
    assert np.nanmax(seen.maps["sqrt_ts"].data) > 10
    assert np.isfinite(gone.maps["scale"].data).mean() < 0.02
    with pytest.raises(InputError, match="`subtract` names 't'"):
        estimate([dataset], result, subtract=["t"])


def test_a_measured_background_is_told(dataset: Dataset) -> None:
    ones = dataset.counts.with_data(np.ones((3, 40, 40)))
    off = OffCounts(ones.with_data(5 * ones.data), ones, ones.with_data(10 * ones.data))
    sky = estimate([replace(dataset, background=off)], scales=["0.1 deg"])
    assert sky.meta["warnings"][0] == "the measured background of small is taken as known"
    assert sky.maps["background"].data[20, 20] == pytest.approx(1.5)
