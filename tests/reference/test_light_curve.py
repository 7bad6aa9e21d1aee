"""Case K: the light curve of the four Crab runs from DL3, one bin a run, in two energy bands."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult
from dl3flow.estimators import TABLES
from dl3flow.fit.minimise import fit
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.source import Models

from .conftest import CRAB_RUNS, crab

SECTIONS = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.11)",
        "energy": {"min": "0.1 TeV", "max": "40 TeV", "nbin": 27},
        "energy_true": {"min": "0.05 TeV", "max": "100 TeV", "nbin": 67},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {"name": "reflected"},
}


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "K_light_curve_crab4.json").read_text())
    return found


@pytest.fixture(scope="module")
def fitted(crab_observations: dict[int, Any]) -> tuple[list[Dataset], FitResult]:
    sky = SkyGeometry.create(SkyCoord(83.63 * u.deg, 22.01 * u.deg), 7.5 * u.deg, 0.05 * u.deg, "TAN")
    excluded = region_mask(sky, parse_regions("galactic;circle(183.604, -8.708, 0.5)", "exclusion"))
    chain, drawn = parse_chain(SECTIONS, ""), Map(sky, (), (~excluded).astype(float))
    runs = [reduce_observation(crab_observations[n], f"run-{n}", chain, drawn) for n in CRAB_RUNS]
    source = crab("pl", "point").sources[0]
    return runs, fit(runs, Models((replace(source, spatial=None),)))


def test_the_fit_that_it_refers_to(fitted: tuple[list[Dataset], FitResult], case: dict[str, Any]) -> None:
    _, result = fitted
    assert result.stat == pytest.approx(case["fit"]["total_stat"], abs=1e-3)
    for name in ("index", "amplitude"):
        found = result.parameter(f"crab.{name}")
        assert found.value == pytest.approx(case["fit"]["parameters"][name], abs=0.005 * found.error)


@pytest.mark.parametrize("band", [0, 1])
def test_every_run(band: int, fitted: tuple[list[Dataset], FitResult], case: dict[str, Any]) -> None:
    datasets, result = fitted
    low, high = case["inputs"]["energy_edges_TeV"][band : band + 2]
    entry = {
        "name": "light_curve",
        "source": "crab",
        "energy": {"min": f"{low} TeV", "max": f"{high} TeV"},
        "time": "run",
    }
    estimate, options = TABLES.bind(entry, "curve")
    table = estimate(datasets, result, **options).table
    listed = {
        name: np.array(column) if name.startswith("time") else np.array(column)[:, band]
        for name, column in case["curve"].items()
    }
    assert len(table) == 4
    assert table["success"].all()
    for name in ("time_min", "time_max"):
        # a tenth of a millisecond
        assert table[name].to_value("d") == pytest.approx(listed[name], abs=1e-9)
    for name in ("e_min", "e_max"):
        assert table[name].to_value("TeV") == pytest.approx(listed[name], rel=1e-9)
    assert np.asarray(table["counts"]).tolist() == listed["counts"].tolist()
    norm = np.asarray(table["norm"])
    assert np.all(np.abs(norm - listed["norm"]) < 0.01 * listed["norm_err"])
    for name in ("norm_err", "norm_errn", "norm_errp", "norm_ul"):
        assert np.asarray(table[name]) == pytest.approx(listed[name], rel=0.01), name
    assert np.asarray(table["ts"]) == pytest.approx(listed["ts"], rel=1e-3)
    for name in ("flux", "flux_err", "flux_errp", "flux_ul"):
        column = name.replace("flux", "norm")
        flux = (np.asarray(table[column]) * table["ref_flux"]).to_value("cm-2 s-1")
        assert flux == pytest.approx(listed[name], rel=0.01), name
