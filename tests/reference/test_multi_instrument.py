"""Case H: a Fermi-LAT map, H.E.S.S. spectra and HAWC flux points in one fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData
from dl3flow.estimators import TABLES
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import fit
from dl3flow.io.fits_datasets import read_fits_dataset
from dl3flow.io.flux_points_data import read_flux_points_data
from dl3flow.io.models_yaml import read_models
from dl3flow.io.ogip import read_ogip
from dl3flow.models.source import Models
from dl3flow.reduce.stack import stack

FERMI = "fermi-3fhl-crab/Fermi-LAT-3FHL"
# The reference's statistic of the map at the file's values, with its kernels divided by 20 as ours are, instead of by 4,
# its default here: -12756.57, -12752.42, -12751.72, -12751.56 for 4, 10, 20, 40.
CONVERGED = -12751.7245
# of an error, and of the value: the reference's kernels of the map are not converged, the spectrum has none
NEAR = {
    "fermi": {"norm": 0.02},
    "hess": {"norm": 1e-3, "norm_err": 1e-4, "norm_ul": 1e-4, "npred": 1e-4, "ts": 1e-6},
}
NAMES = ("Fermi-LAT", "HESS", "HAWC")


@pytest.fixture(scope="module")
def case(reference: Any) -> dict[str, Any]:
    return reference("H_multi_instrument")[0]


@pytest.fixture(scope="module")
def datasets(public_data: Path) -> list[FitData]:
    spectra = [
        read_ogip(public_data / "joint-crab" / "spectra" / "hess" / f"pha_obs{n}.fits")
        for n in (23523, 23526)
    ]
    geom = spectra[0].geom
    return [
        read_fits_dataset(public_data / f"{FERMI}_data_Fermi-LAT.fits", "Fermi-LAT"),
        stack(spectra, "HESS", geom, geom),
        read_flux_points_data(public_data / "hawc" / "crab_flux" / "HAWC19_flux_points.fits", "HAWC"),
    ]


@pytest.fixture(scope="module")
def models(public_data: Path) -> Models:
    return read_models(public_data / f"{FERMI}_models.yaml")


def test_points(datasets: list[FitData], case: dict[str, Any]) -> None:
    points, expected = datasets[2], case["datasets"]["hawc"]
    assert isinstance(points, FluxPointsData)
    assert points.energy_ref.to_value(u.TeV) == pytest.approx(np.array(expected["e_ref_TeV"]))
    assert points.mask.tolist() == [bool(v) for v in expected["mask"]]
    used = points.mask
    for mine, name in ((points.dnde, "dnde"), (points.errn, "dnde_err"), (points.errp, "dnde_err")):
        listed = np.array(expected[name], dtype=float)[used]
        assert mine.to_value("cm-2 s-1 TeV-1")[used] == pytest.approx(listed, rel=1e-7)
    assert points.meta["warnings"] == [
        "HAWC: 1 of 10 flux points are limits or have no error, and are not fitted"
    ]


def test_stat_at_the_values_of_the_file(
    datasets: list[FitData], models: Models, case: dict[str, Any]
) -> None:
    expected = case["at_yaml_values"]["stat"]
    expected = {**expected, "Fermi-LAT": CONVERGED}
    near = {"Fermi-LAT": 0.02, "HESS": 1e-3, "HAWC": 1e-6 * expected["HAWC"]}
    for dataset, name in zip(datasets, NAMES, strict=True):
        found = build_likelihood([dataset], models).stat(build_likelihood([dataset], models).start)
        assert found == pytest.approx(expected[name], abs=near[name]), name


def test_joint_fit(datasets: list[FitData], models: Models, case: dict[str, Any]) -> None:
    expected = case["fits"]["joint_reference_1TeV"]
    start = {
        "Crab Nebula.amplitude": 3.7e-11,
        "Crab Nebula.reference": 1.0,
        "Crab Nebula.alpha": 2.5,
        "Crab Nebula.beta": 0.06,
    }
    parameters = models.parameters()
    result = fit(
        datasets, models.with_parameters({n: replace(parameters[n], value=v) for n, v in start.items()})
    )
    assert result.success, result.message
    assert [d.name for d in result.datasets] == list(NAMES)
    for found in result.datasets[1:]:
        assert found.stat == pytest.approx(expected["stat_per_dataset"][found.name], abs=0.02)
    values = {row["name"]: row for row in expected["parameters"] if not row["frozen"]}
    for name, row in values.items():
        p = next(p for full, p in result.models.parameters().items() if full.endswith(f".{name}"))
        assert p.value == pytest.approx(row["value"], abs=0.02 * row["error"]), name
        assert p.error == pytest.approx(row["error"], rel=0.02), name


@pytest.mark.parametrize("instrument", ["fermi", "hess"])
def test_flux_points(instrument: str, datasets: list[FitData], models: Models, case: dict[str, Any]) -> None:
    """Points of one instrument about the joint spectrum, whose shape is that of the reference's fit."""
    expected = case["flux_points"][instrument]
    dataset = datasets[("fermi", "hess").index(instrument)]
    assert isinstance(dataset, Dataset)
    rows = {row["name"]: row["value"] for row in reversed(case["fits"]["joint"]["parameters"])}
    names = {f"Crab Nebula.{name}": name for name in ("amplitude", "reference", "alpha", "beta")}
    names["Fermi-LAT-bkg.norm"] = "norm"
    parameters = models.parameters()
    best = {full: replace(parameters[full], value=rows[name]) for full, name in names.items()}
    result = replace(fit([dataset], models), models=models.with_parameters(best))
    unit = u.Unit(expected["e_ref_unit"])
    edges = u.Quantity([*expected["e_min"], expected["e_max"][-1]], unit)
    entry = {
        "name": "flux_points",
        "source": "Crab Nebula",
        "energy": {"edges": [f"{edge!r} {unit}" for edge in edges.value.tolist()]},
    }
    estimate, options = TABLES.bind(entry, "points")
    table = estimate([dataset], result, **options).table
    assert len(table) == len(expected["norm"])
    assert np.asarray(table["counts"]).tolist() == expected["counts"]
    assert table["ref_dnde"].to_value("cm-2 s-1 TeV-1") == pytest.approx(
        np.array(expected["ref_dnde"]), rel=3e-5
    )
    apart = np.abs(np.asarray(table["norm"]) - expected["norm"]) / expected["norm_err"]
    assert np.all(apart < NEAR[instrument]["norm"])
    for name in ("norm_err", "norm_ul", "npred", "ts"):
        if name in expected:
            near = NEAR[instrument].get(name, 3e-3)
            assert np.asarray(table[name]) == pytest.approx(np.array(expected[name]), rel=near), name
