"""Profiles of excess and flux in boxes and rings, counted by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.products import ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.source import Models

MakeDataset = Callable[..., Dataset]
CENTER = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}


def estimate(datasets: list[Dataset], result: object = None, **options: Any) -> ProductTable:
    entry = {"name": "flux_profile", "center": CENTER, "length": "1 deg", "n_bins": 5, **options}
    function, bound = TABLES.bind(entry, "profile")
    return function(datasets, result, **bound)


def with_counts(dataset: Dataset, counts: np.ndarray) -> Dataset:
    return replace(dataset, counts=dataset.counts.with_data(counts))


def test_boxes_hold_the_pixels_of_their_place(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    table = estimate([dataset]).table
    assert table["distance"].to_value("deg") == pytest.approx([-0.4, -0.2, 0, 0.2, 0.4])
    # 0.2 deg are four pixels of 0.05 deg each way; the strip runs from south to north
    assert table["n_pixels"].tolist() == [16] * 5
    assert table["solid_angle"].to_value("deg2") == pytest.approx(0.04, rel=0.01)
    rows = dataset.counts.data[:, 10:30, 18:22].reshape(3, 5, 16).sum(axis=(0, 2))
    assert table["counts"].tolist() == rows.tolist()
    background = dataset.background.counts.data[:, 10:30, 18:22].reshape(3, 5, 16).sum(axis=(0, 2))
    assert table["background"] == pytest.approx(background)
    assert table["excess"] == pytest.approx(rows - background)
    assert table["excess_err"] == pytest.approx(np.sqrt(rows))
    assert table["sqrt_ts"][2] > 10 > np.abs(table["sqrt_ts"][[0, 4]]).max()
    assert table["is_ul"].tolist() == [True, table["is_ul"][1], False, table["is_ul"][3], True]


def test_the_distance_grows_to_where_the_angle_points(small_dataset: MakeDataset) -> None:
    """One count in the eastern box: columns of small number are east."""
    dataset = small_dataset()
    counts = np.zeros(dataset.counts.data.shape)
    counts[1, 20, 12] = 1
    spot = with_counts(dataset, counts)
    assert estimate([spot], angle="90 deg").table["counts"].tolist() == [0, 0, 0, 0, 1]
    assert estimate([spot], angle="270 deg").table["counts"].tolist() == [1, 0, 0, 0, 0]
    assert estimate([spot]).table["counts"].tolist() == [0, 0, 0, 0, 0]
    # half-way between north and east the strip passes by
    assert estimate([spot], angle="45 deg", width="0.7 deg").table["counts"].tolist() == [0, 0, 0, 1, 0]


def test_rings_count_every_pixel_once(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    table = estimate([dataset], shape="annuli", length="0.8 deg", n_bins=4).table
    # the middle of the map is the corner of four pixels
    y, x = np.indices((40, 40)) - 19.5
    separation = np.degrees(dataset.geom.separation(RegionGeometry("icrs;circle(83.63, 22.01, 1)").center))
    assert table["distance"].to_value("deg") == pytest.approx([0.1, 0.3, 0.5, 0.7])
    assert table["n_pixels"].sum() == (separation < 0.8).sum()
    assert abs(table["n_pixels"].sum() - np.pi * 16**2) < 30
    assert table["counts"][0] == dataset.counts.data[:, separation < 0.2].sum()
    assert np.hypot(x, y)[separation < 0.2].max() * 0.05 == pytest.approx(0.2, abs=0.03)


def test_fluxes_of_all_boxes_are_that_of_the_source(
    small_dataset: MakeDataset, point_models: Callable[..., Models]
) -> None:
    """Expected counts in place of drawn ones: what leaks from one box is in its neighbours, and nothing is lost."""
    dataset = small_dataset()
    signal, background = predict_counts(dataset, point_models(3e-10))
    asimov = with_counts(dataset, signal + background)
    options = {"length": "1.6 deg", "n_bins": 8, "width": "1.6 deg", "index": 2.5}
    table = estimate([asimov], **options).table
    truth = 3e-10 / 1.5 * (1 - 10**-1.5)
    # the exposure falls by a tenth per degree to the north, over which a box takes the mean of its pixels
    assert table["flux"].to_value("cm-2 s-1").sum() == pytest.approx(truth, rel=2e-3)
    assert table["excess"].sum() == pytest.approx(signal[:, 4:36, 4:36].sum())
    both = estimate([asimov, replace(asimov, name="again")], **options).table
    assert both["flux"].to_value("cm-2 s-1") == pytest.approx(table["flux"].to_value("cm-2 s-1"), rel=1e-6)
    assert float(both["flux_err"][3] / table["flux_err"][3]) == pytest.approx(1 / np.sqrt(2), rel=1e-3)


def test_bands_are_rows_of_their_own(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    table = estimate([dataset], energy={"min": "1 TeV", "max": "10 TeV", "nbin": 3}).table
    assert len(table) == 15
    whole = estimate([dataset]).table
    assert table["counts"].reshape(3, 5).sum(axis=0).tolist() == whole["counts"].tolist()
    assert table["e_min"].to_value("TeV")[::5] == pytest.approx(10 ** (np.arange(3) / 3))


def with_off(dataset: Dataset, alpha: float) -> Dataset:
    ones = np.ones(dataset.counts.data.shape)
    off = np.random.default_rng(4).poisson(dataset.background.counts.data / alpha).astype(float)
    parts = (dataset.counts.with_data(v) for v in (off, ones, ones / alpha))
    return replace(dataset, background=OffCounts(*parts))


def test_off_counts_of_a_box(small_dataset: MakeDataset) -> None:
    """The mean of shared off counts, or their sum; the expectation is the same, and not its error."""
    measured = with_off(small_dataset(), 0.1)
    shared, own = (estimate([measured], correlate_off=each).table for each in (False, True))
    off = measured.background.counts.data[:, 10:30, 18:22].reshape(3, 5, 16).sum(axis=(0, 2))
    assert own["background"] == pytest.approx(0.1 * off)
    assert shared["background"] == pytest.approx(own["background"])
    assert own["excess_err"] == pytest.approx(np.sqrt(own["counts"] + 0.01 * off))
    assert shared["excess_err"] == pytest.approx(np.sqrt(own["counts"] + 0.01 * 16 * off))
    assert shared["ts"][2] < own["ts"][2]


def test_boxes_without_data_and_places_off_the_map(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    profile = estimate([dataset], length="3 deg", n_bins=5)
    assert profile.table["n_pixels"].tolist() == [8, 48, 48, 48, 8]
    half = small_dataset("h", part="half")
    profile = estimate([half], length="4 deg", n_bins=4, angle="90 deg")
    assert profile.table["n_pixels"].tolist() == [0, 80, 0, 0]
    assert profile.meta["warnings"] == ["3 of 4 boxes hold no pixel in use and have no values"]
    assert np.isnan(profile.table["flux"][0].value)
    assert np.isnan(profile.table["counts"][0])
    assert np.isfinite(profile.table["flux_ul"][1].value)
    with pytest.raises(InputError, match="no pixel in use lies in any of its 5 boxes"):
        estimate([dataset], center={**CENTER, "lat": "-22 deg"})
    thin = estimate([dataset], n_bins=40)
    assert thin.meta["warnings"][-1].startswith("boxes of 0.025 deg are thinner than the pixels of 0.05 deg")
    with pytest.raises(InputError, match="n_bins: expected a whole number from 1 to 1000, found 0"):
        estimate([dataset], n_bins=0)


def test_without_counts_the_limit_is_that_of_a_linear_likelihood(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    empty = with_counts(dataset, np.zeros(dataset.counts.data.shape))
    table = estimate([empty]).table
    assert table["is_ul"].all()
    assert np.all(table["excess"] < 0)
    counted = estimate([dataset]).table
    # 2 c s = 4: two counts, turned into a flux as the excess of any other box
    per_count = 2 / table["flux_ul"].to_value("cm-2 s-1")
    assert np.all(per_count > 0)
    assert per_count[2] == pytest.approx(
        (counted["excess"] / counted["flux"].to_value("cm-2 s-1"))[2], rel=0.1
    )
