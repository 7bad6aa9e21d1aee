"""Sources found in synthetic data: all that are there, where they are, and no others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.products import read_table, write_table
from dl3flow.io.provenance import Provenance
from dl3flow.models.source import Models

MakeDataset = Callable[..., Dataset]
MakeModels = Callable[..., Models]


def search(datasets: list[Dataset], result: FitResult | None = None, **options: Any) -> ProductTable:
    entry = {"name": "find_sources", "correlation_radius": "0.15 deg", "index": 2.5, **options}
    function, bound = TABLES.bind(entry, "search")
    return function(datasets, result, **bound)


def drawn(dataset: Dataset, models: list[Models], seed: int) -> Dataset:
    """The dataset with counts drawn from all these models."""
    expected = dataset.mu_bkg + sum(predict_counts(dataset, m)[0] for m in models)
    counts = np.random.default_rng(seed).poisson(expected).astype(float)
    return replace(dataset, counts=dataset.counts.with_data(counts))


@pytest.fixture(scope="module")
def two(small_dataset: MakeDataset, point_models: MakeModels) -> Dataset:
    there = [point_models(3e-10), point_models(1.2e-10, lon=83.15, lat=22.5)]
    return drawn(small_dataset(), there, 11)


def test_two_sources_are_found_where_they_are(two: Dataset) -> None:
    found = search([two])
    table = found.table
    assert list(table["name"]) == ["source-1", "source-2"]
    assert found.meta["summary"] == [["sources found", 2]]
    assert found.meta["warnings"] == []
    truth = [(83.63, 22.01, 3e-10), (83.15, 22.5, 1.2e-10)]
    for row, (lon, lat, amplitude) in zip(table, truth, strict=True):
        cos = np.cos(np.radians(lat))
        assert abs((row["ra"].value - lon) * cos) < 3.5 * row["ra_err"].value < 0.1
        assert abs(row["dec"].value - lat) < 3.5 * row["dec_err"].value < 0.1
        flux = amplitude / 1.5 * (1 - 10**-1.5)
        assert abs(row["flux"].value - flux) < 3.5 * row["flux_err"].value
        # the half-axes of 68 % of a Gaussian on a plane
        assert row["error_major"].value >= row["error_minor"].value
        area = row["error_major"].value * row["error_minor"].value
        assert area <= 2.2958 * row["ra_err"].value * row["dec_err"].value * (1 + 1e-6)
        assert row["ts"] > 25
        assert 0 < row["sigma"] < np.sqrt(row["ts"])
        assert row["is_fitted"]
        assert row["nearest"] == "none"
    assert table["peak_sqrt_ts"][0] > table["peak_sqrt_ts"][1] > 5


def test_errors_of_the_place_are_those_of_repeated_measurements(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    base, models = small_dataset(), point_models(2e-10)
    pulls = []
    for seed in range(8):
        table = search([drawn(base, [models], 100 + seed)], max_sources=1, threshold=8.0).table
        cos = np.cos(np.radians(22.01))
        pulls.append((table["ra"][0].value - 83.63) * cos / table["ra_err"][0].value)
        pulls.append((table["dec"][0].value - 22.01) / table["dec_err"][0].value)
    # 16 squares of standard normal variables: 16 with a deviation of 5.7
    assert 4 < np.square(pulls).sum() < 36


def test_what_the_fit_explains_is_not_found_again(two: Dataset, point_models: MakeModels) -> None:
    known = fit([two], point_models(3e-10))
    table = search([two], known).table
    assert len(table) == 1
    assert table["ra"][0].value == pytest.approx(83.15, abs=0.1)
    assert table["nearest"][0] == "s"
    assert table["separation"][0].value == pytest.approx(0.66, abs=0.06)
    named = replace(
        known, models=replace(known.models, sources=(replace(known.models.sources[0], name="source-1"),))
    )
    assert list(search([two], named).table["name"]) == ["new-source-1"]


def test_an_empty_sky_has_no_sources(small_dataset: MakeDataset, tmp_path: Path) -> None:
    found = search([drawn(small_dataset(), [], 5)])
    assert len(found.table) == 0
    path = tmp_path / "none.ecsv"
    write_table(path, found, Provenance("step", "c0de", "{}", {}, {}))
    again = read_table(path)
    assert again.kind == "find_sources"
    assert again.table.colnames == found.table.colnames


def test_peaks_alone(two: Dataset) -> None:
    found = search([two], localise=False)
    assert len(found.table) == 2
    assert np.isnan(found.table["ra"].value).all()
    assert not found.table["is_fitted"].any()
    assert found.table["peak_ra"].value == pytest.approx([83.63, 83.15], abs=0.1)
    fewer = search([two], localise=False, max_sources=1)
    assert fewer.meta["warnings"] == ["1 more peaks are left out: raise `max_sources`"]
    assert search([two], max_sources=1).meta["warnings"][0].startswith("the search ended after 1 sources")
    assert len(search([two], localise=False, min_distance="1 deg").table) == 1


def test_measured_backgrounds_and_several_datasets(two: Dataset, small_dataset: MakeDataset) -> None:
    ones = np.ones(two.counts.data.shape)
    off = np.random.default_rng(3).poisson(two.mu_bkg * 20).astype(float)
    measured = replace(two, background=OffCounts(*(two.counts.with_data(v) for v in (off, ones, 20 * ones))))
    assert len(search([measured], correlate_off=True).table) == 2
    both = search([two, small_dataset("half", part="half", seed=4)])
    alone = search([two])
    assert both.table["ra_err"][0] < alone.table["ra_err"][0]
    with pytest.raises(InputError, match="a known background and some a measured one"):
        search([measured, small_dataset("other")])


def test_peaks_of_the_test_statistic(two: Dataset) -> None:
    """The same sources, which end in the same fit."""
    ours, plain = search([two], peaks_of="ts"), search([two])
    assert len(ours.table) == 2
    assert ours.table["peak_sqrt_ts"][1] > plain.table["peak_sqrt_ts"][1]
    for name in ("ra", "dec", "flux", "ts"):
        assert np.asarray(ours.table[name]) == pytest.approx(np.asarray(plain.table[name]), rel=1e-3)
    # a fitted maximum is above what the pixels show
    assert np.all(ours.table["ts"] > ours.table["peak_sqrt_ts"] ** 2)


def test_the_energies_are_those_asked_for(two: Dataset) -> None:
    found = search([two], energy={"min": "2.2 TeV", "max": "10 TeV"}, threshold=4.0)
    assert found.meta["energy"] == pytest.approx([10 ** (1 / 3), 10])
    flux = 3e-10 / 1.5 * (10**-0.5 - 10**-1.5)
    row = found.table[0]
    assert abs(row["flux"].value - flux) < 3.5 * row["flux_err"].value


def test_data_that_say_nothing_have_no_sources(two: Dataset) -> None:
    nothing = np.zeros(two.mask_safe.shape, dtype=bool)
    for empty, words in (
        (replace(two, mask_safe=nothing), "no bin is in use"),
        (replace(two, background=None), "without a background"),
    ):
        found = search([empty])
        assert len(found.table) == 0
        assert found.meta["warnings"][0].startswith(words)


def test_galactic_pixels_give_equatorial_places(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    """Expected counts of two sources, one north of the other, on a map in galactic coordinates; a profile to the north."""
    like = small_dataset()
    geom = SkyGeometry.create(
        SkyCoord(83.63, 22.01, unit="deg").galactic, 1.6 * u.deg, like.geom.binsz * u.deg
    )
    level = np.array([0.9, 0.3, 0.1])[:, None, None] * np.ones((3, *geom.shape))
    exposure = np.arange(1, 6)[:, None, None] * 1e8 * np.ones((5, *geom.shape))
    dataset = replace(
        like,
        counts=Map(geom, (like.energy,), np.zeros(level.shape)),
        background=ExpectedCounts(Map(geom, (like.energy,), level)),
        exposure=Map(geom, (like.energy_true,), exposure, u.Unit("m2 s")),
        mask_safe=np.ones(level.shape, dtype=bool),
    )
    there = [point_models(4e-10), point_models(2e-10, lat=22.41)]
    expected = level + sum(predict_counts(dataset, m)[0] for m in there)
    dataset = replace(dataset, counts=dataset.counts.with_data(np.rint(expected)))
    table = search([dataset]).table
    assert table["ra"].value == pytest.approx([83.63, 83.63], abs=0.01)
    assert table["dec"].value == pytest.approx([22.01, 22.41], abs=0.01)
    entry = {"name": "flux_profile", "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}}
    profile, bound = TABLES.bind({**entry, "length": "1.4 deg", "n_bins": 7}, "profile")
    sqrt_ts = profile([dataset], None, **bound).table["sqrt_ts"]
    assert np.argmax(sqrt_ts) == 3
    assert np.argmax(sqrt_ts[4:]) == 1
