"""Points of several instruments: weighted means by hand, counts and profiles as the counts alone, limits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, FluxPointsData
from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.io.flux_points_data import read_flux_points_data
from dl3flow.io.products import read_table, write_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.models.source import Component, Models, Parameter, ResponseModel

DNDE = u.Unit("cm-2 s-1 TeV-1")
ENTRY = {
    "name": "combined_flux_points",
    "source": "s",
    "energy": {"min": "1 TeV", "max": "100 TeV", "nbin": 2},
}


def combine(datasets: list[Any], result: FitResult, **more: Any) -> FluxPoints:
    estimate, options = TABLES.bind({**ENTRY, **more}, "sed")
    return estimate(datasets, result, **options)


def points(
    name: str, energy: list[float], norm: list[float], errn: list[float], errp: list[float], **more: Any
) -> FluxPointsData:
    """Points whose fluxes are given in units of 1e-12 (E / TeV)^-2."""
    one = 1e-12 * np.array(energy) ** -2 * DNDE
    columns = (np.array(v) * one for v in (norm, errn, errp))
    return FluxPointsData(
        name, energy * u.TeV, *columns, np.ones(len(energy), dtype=bool), {"warnings": []}, **more
    )


@pytest.fixture(scope="module")
def result(point_models: Callable[..., Models]) -> FitResult:
    """A fit whose spectrum is 1e-12 (E / TeV)^-2, without a word on the data."""
    models = point_models(1e-12, 2.0)
    return FitResult(True, "converged", 0.0, models, (), np.zeros((0, 0)), (), {})


def test_weighted_mean_by_hand(result: FitResult) -> None:
    """(1 / 0.1^2 + 2 / 0.2^2) / (1 / 0.1^2 + 1 / 0.2^2) = 1.2, its error 1 / sqrt(125); energies differ."""
    one = points("one", [2.0, 30.0, 300.0], [1.0, 3.0, 9.0], [0.1, 0.5, 1], [0.1, 0.5, 1])
    two = points("two", [7.0], [2.0], [0.2], [0.2])
    product = combine([one, two], result)
    table = product.table
    assert table["norm"] == pytest.approx([1.2, 3.0])
    assert table["norm_err"] == pytest.approx([1 / np.sqrt(125), 0.5])
    assert table["norm_errn"] == pytest.approx(np.asarray(table["norm_err"]))
    assert table["norm_errp"] == pytest.approx(np.asarray(table["norm_err"]))
    assert table["norm_ul"] == pytest.approx([1.2 + 2 / np.sqrt(125), 4.0])
    assert table["stat"] == pytest.approx([0.2**2 / 0.01 + 0.8**2 / 0.04, 0.0])
    assert table["ts"] == pytest.approx([1.2**2 * 125, 36])
    assert table["n_datasets"].tolist() == [2, 1]
    assert table["counts"].tolist() == [0, 0]
    assert product.dnde()[0].to_value(DNDE) == pytest.approx(1.2e-12 / 10)
    assert product.meta["datasets"] == ["one", "two"]


def test_asymmetric_errors_and_a_negative_point(result: FitResult) -> None:
    """Two equal measurements of 1 -0.1 +0.3; one of -1 +- 0.5, whose limit counts from zero."""
    pair = [points(n, [2.0], [1.0], [0.1], [0.3]) for n in "ab"]
    table = combine([*pair, points("c", [20.0], [-1.0], [0.5], [0.5])], result).table
    assert table["norm"] == pytest.approx([1.0, -1.0])
    assert table["norm_errn"][0] == pytest.approx(0.1 / np.sqrt(2))
    assert table["norm_errp"][0] == pytest.approx(0.3 / np.sqrt(2))
    # ((c + 1) / 0.5)^2 is 4 at zero and 8 at the limit
    assert table["norm_ul"][1] == pytest.approx(0.5 * np.sqrt(8) - 1)
    assert table["is_ul"].tolist() == [False, True]


def test_limits_enter_as_what_they_are(result: FitResult) -> None:
    """A measurement of 1 +- 0.2 beside a limit at 0.8 of width 0.2 draws the combination down; alone it stands."""
    alone = combine([points("m", [2.0], [1.0], [0.2], [0.2])], result).table
    one = 1e-12 / 4 * DNDE
    limit = replace(
        points("l", [2.0], [np.nan], [np.nan], [np.nan], stat_type="distrib"),
        limit=np.array([0.8]) * one,
        limit_error=np.array([0.2]) * one,
    )
    both = combine([points("m", [2.0], [1.0], [0.2], [0.2]), limit], result).table
    assert alone["norm"][0] == pytest.approx(1)
    assert 0.7 < both["norm"][0] < 0.95
    assert both["norm_ul"][0] < alone["norm_ul"][0]


def test_systematic_errors_of_an_instrument_are_those_of_the_fit(result: FitResult) -> None:
    """Exposure known to be 0.8 of what is stated: points of 0.8 are a norm of 1."""
    scales = {"energy_scale": 0.0, "exposure_scale": 0.8, "background_scale": 1.0}
    parameters = tuple(Parameter(n, v, frozen=True) for n, v in scales.items())
    response = ResponseModel("sys", Component("response_scale", parameters), ("one",))
    scaled = replace(result, models=replace(result.models, responses=(response,)))
    table = combine([points("one", [2.0], [0.8], [0.1], [0.1])], scaled).table
    assert table["norm"][0] == pytest.approx(1)
    assert table["norm_err"][0] == pytest.approx(0.125)


def test_other_sources_keep_their_flux(result: FitResult) -> None:
    twins = replace(
        result.models, sources=(*result.models.sources, replace(result.models.sources[0], name="t"))
    )
    table = combine([points("one", [2.0], [3.0], [0.1], [0.1])], replace(result, models=twins)).table
    assert table["norm"][0] == pytest.approx(2)


def test_counts_and_their_profiles_agree(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models], tmp_path: Path
) -> None:
    """Two datasets, both as counts, and one of them as flux points with profiles: the same norms and limits."""
    datasets = [small_dataset(f"d{k}", seed=30 + k) for k in range(2)]
    found = fit(datasets, add_backgrounds(datasets, point_models(), ["norm"]))
    energy = {"min": "1 TeV", "max": "10 TeV", "nbin": 3}
    counts = combine(datasets, found, energy=energy).table
    estimate, options = TABLES.bind(
        {"name": "flux_points", "source": "s", "energy": energy, "norms": np.linspace(0, 3, 61).tolist()},
        "sed",
    )
    path = tmp_path / "points.fits"
    write_table(path, estimate(datasets[1:], found, **options), collect_provenance("test", "0", {}, {}))
    mixed = combine([datasets[0], read_flux_points_data(path, "p", "profile")], found, energy=energy)
    table = mixed.table
    assert np.abs((table["norm"] - counts["norm"]) / counts["norm_err"]).max() < 0.02
    for name in ("norm_err", "norm_errn", "norm_errp", "norm_ul"):
        assert np.asarray(table[name]) == pytest.approx(np.asarray(counts[name]), rel=0.01), name
    assert table["n_datasets"].tolist() == [2, 2, 2]
    assert table["counts"].tolist() == datasets[0].counts.data.sum(axis=(1, 2)).tolist()
    write_table(tmp_path / "sed.fits", mixed, collect_provenance("test", "0", {}, {}))
    again = read_table(tmp_path / "sed.fits")
    assert isinstance(again, FluxPoints)
    assert np.asarray(again.table["norm"]) == pytest.approx(np.asarray(table["norm"]))


def test_what_lies_outside_is_told(result: FitResult) -> None:
    inside, outside = points("in", [2.0], [1.0], [0.1], [0.1]), points("out", [500.0], [1.0], [0.1], [0.1])
    product = combine([inside, outside], result)
    assert "no datum of out lies within the bins" in product.meta["warnings"]
    assert any("no data see the source" in w and "10 to 100 TeV" in w for w in product.meta["warnings"])
    assert np.isnan(product.table["norm"][1])
    with pytest.raises(InputError, match="no datum lies between 1 TeV and 100 TeV"):
        combine([outside], result)
    with pytest.raises(InputError, match="no source 't' in the fit"):
        combine([inside], result, source="t")
