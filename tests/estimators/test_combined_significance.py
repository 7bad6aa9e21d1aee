"""Significance of several datasets and energy bands together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.products import SkyMap
from dl3flow.estimators import MAPS
from dl3flow.kernels.significance import chi2_sigma

MakeDataset = Callable[..., Dataset]
BANDS = {"min": "1 TeV", "max": "10 TeV", "nbin": 3}


def estimate(datasets: list[Dataset], name: str = "combined_significance", **options: Any) -> SkyMap:
    function, bound = MAPS.bind({"name": name, "correlation_radius": "0.15 deg", **options}, "map")
    return function(datasets, None, **bound)


def test_test_statistics_add_up(small_dataset: MakeDataset) -> None:
    datasets = [small_dataset(f"d{k}", seed=k) for k in range(2)]
    sky = estimate(datasets, energy=BANDS)
    alone = [estimate([d], "excess_map", energy=BANDS).maps["band_sqrt_ts"].data for d in datasets]
    ts = sum((each**2).sum(axis=0) for each in alone)
    assert sky.maps["ts"].data == pytest.approx(ts)
    assert np.all(sky.maps["n_dof"].data == 6)
    assert np.abs(sky.maps["sqrt_ts"].data) == pytest.approx(chi2_sigma(ts, 6))
    signed = sum((each * np.abs(each)).sum(axis=0) for each in alone)
    assert np.array_equal(np.sign(sky.maps["sqrt_ts"].data), np.sign(signed))
    both = estimate(datasets, "excess_map")
    assert sky.maps["excess"].data == pytest.approx(both.maps["excess"].data, abs=1e-6)


def test_one_dataset_and_band_is_its_excess_map(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    sky, plain = estimate([dataset]), estimate([dataset], "excess_map")
    assert sky.maps["sqrt_ts"].data == pytest.approx(plain.maps["sqrt_ts"].data, rel=1e-6, abs=1e-6)
    assert np.all(sky.maps["n_dof"].data == 1)


def test_known_and_measured_backgrounds_meet(small_dataset: MakeDataset) -> None:
    """A part of the sky that one dataset sees has its degrees of freedom alone."""
    known, other = small_dataset("known"), small_dataset("measured", seed=3)
    ones = np.ones(other.counts.data.shape)
    off = np.rint(other.background.counts.data * 20)
    measured = replace(
        other, background=OffCounts(*(other.counts.with_data(v) for v in (off, ones, 20 * ones)))
    )
    mask = np.ones(other.mask_safe.shape, dtype=bool)
    mask[:, :, 25:] = False
    sky = estimate([known, replace(measured, mask_safe=mask)], correlate_off=True)
    assert np.all(sky.maps["n_dof"].data[:, :25] == 2)
    assert np.all(sky.maps["n_dof"].data[:, 25:] == 1)
    assert sky.maps["sqrt_ts"].data[20, 20] > 15


def test_sky_without_signal_is_standard_normal(small_dataset: MakeDataset) -> None:
    """The sum of squares of Gaussian variables is chi2: three quarters of its deviations lie within 1.15."""
    dataset = small_dataset()
    rng = np.random.default_rng(8)
    empty = [
        replace(d, counts=d.counts.with_data(rng.poisson(20 * d.mu_bkg).astype(float)))
        for d in (replace(dataset, background=replace(dataset.background, counts=dataset.background.counts)),)
    ]
    bright = [
        replace(d, background=replace(d.background, counts=d.background.counts.with_data(20 * d.mu_bkg)))
        for d in empty
    ]
    sigma = estimate(bright, energy=BANDS).maps["sqrt_ts"].data[3::7, 3::7]
    assert np.mean(sigma**2) == pytest.approx(1, abs=0.6)
    assert np.mean(np.abs(sigma) < 0.6745) == pytest.approx(0.5, abs=0.25)
