"""Simulated data sources: models, responses and pointings from files become jobs that the steps run."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.table import Table

from dl3flow.cli import main
from dl3flow.errors import InputError
from dl3flow.io.gadf import read_observation
from dl3flow.plan import DataSource
from dl3flow.sources import Sources

MODELS = """
components:
- name: Nebula
  type: SkyModel
  spectral: {type: pl, parameters: [{name: amplitude, value: 3.0e-11, unit: cm-2 s-1 TeV-1}, {name: index, value: 2.5}]}
  spatial: {type: gauss, frame: galactic, parameters: [{name: lon_0, value: 10, unit: deg}, {name: lat_0, value: 0.2, unit: deg}, {name: sigma, value: 0.1, unit: deg}]}
  temporal: {type: exp-decay, parameters: [{name: t0, value: 1, unit: h}, {name: t_ref, value: 60321.8, unit: d}]}
- name: bkg
  type: FoVBackgroundModel
  spectral: {type: pl-norm, parameters: [{name: norm, value: 0.5}]}
"""


@pytest.fixture
def survey(demo_dl3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Files of a survey with the demo's responses; gives its configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text(MODELS)
    pointings = {
        "GLON": [10.0, 10.5],
        "GLAT": [0.0, 0.0],
        "START": [60321.8, 60321.83],
        "DURATION": [600, 600],
    }
    Table(pointings).write(tmp_path / "pointings.ecsv", format="ascii.ecsv")
    (tmp_path / "irf.fits.gz").write_bytes((demo_dl3 / "data" / "1001.fits.gz").read_bytes())
    return {
        "seed": 8,
        "instrument": {"irf": "irf.fits.gz", "lon": "-70.3 deg", "lat": "-24.7 deg", "altitude": "2147 m"},
        "models": "models.yaml",
        "pointings": "pointings.ecsv",
    }


def find(config: dict) -> DataSource:
    Path("survey.yaml").write_text(yaml.safe_dump(config))
    return Sources({"survey": {"simulate": "survey.yaml"}}, "results", "data").find("survey", "x")


def test_a_survey_is_one_job_per_pointing(survey: dict) -> None:
    found = find(survey)
    assert sorted(found.simulations) == [1, 2]
    assert found.inputs == {"model_files": (), "responses": ("irf.fits.gz",)}
    entry = found.entries[2]
    assert {name: hdu.kind for name, hdu in entry.hdus.items()} == {
        "events": "events", "gti": "gti", "aeff": "aeff_2d", "edisp": "edisp_2d", "psf": "psf_3gauss", "bkg": "bkg_3d",
    }  # fmt: skip
    assert (entry.telescope, entry.location) == ("DEMO", (-70.3, -24.7, 2147.0))
    assert entry.livetime == pytest.approx(600)
    options = json.loads(found.simulations[2].options)
    assert [run["obs_id"] for run in options["observations"]] == [2]
    assert options["models"]["components"][0]["name"] == "Nebula"
    # a job is the same wherever the data lie, and is not run again for another pointing
    assert options["instrument"]["irf"] == "irf.fits.gz"
    longer = Table.read("pointings.ecsv", format="ascii.ecsv")
    longer.add_row((11.0, 0.0, 60321.9, 600))
    longer.write("pointings.ecsv", format="ascii.ecsv", overwrite=True)
    again = find(survey)
    assert sorted(again.simulations) == [1, 2, 3]
    assert again.simulations[2] == found.simulations[2]


def test_the_step_writes_what_the_index_says(survey: dict) -> None:
    found = find(survey)
    entry = found.entries[1]
    Path("data").mkdir()
    job = found.simulations[1]
    words = [
        "simulate_dl3",
        "--input",
        "responses",
        *found.inputs["responses"],
        "--output",
        "events",
        entry.paths[0],
    ]
    assert main([*words, "--options", job.options]) == 0
    run = read_observation(entry, Path())
    assert run.meta["mc_names"] == {0: "background", 1: "Nebula"}
    assert np.bincount(run.events.mc_id).min() > 10
    assert run.pointing.galactic.l.deg == pytest.approx(10)
    assert main([*words[:1], "--output", "events", "data/2.fits.gz", "--options", job.options]) == 1


def test_the_truth_of_a_model_file(survey: dict) -> None:
    (truth,) = find(survey).truth
    assert truth["name"] == "Nebula"
    assert truth["spectral"] == {
        "type": "power_law", "amplitude": "3e-11 TeV-1 s-1 cm-2", "index": "2.5", "reference": "1.0 TeV",
    }  # fmt: skip
    assert (truth["frame"], truth["lon"], truth["lat"]) == ("galactic", "10.0 deg", "0.2 deg")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"instrument": {"irf": "no.fits"}}, "instrument.irf: there is no file 'no.fits'"),
        ({"instrument": {"irf": "models.yaml"}}, "models.yaml"),
        (
            {"instrument": {"irf": "irf.fits.gz", "lon": "1 deg", "lat": "2 deg"}},
            "the key 'altitude' is missing",
        ),
        ({"instrument": {"irf": "irf.fits.gz", "area": "1 m2"}}, "unknown key 'area'"),
        ({"models": "none.yaml"}, "there is no file 'none.yaml'"),
        ({"models": None}, "give `sources` .a list. or `models`"),
        ({"pointings": None}, "the key 'observations' is missing"),
        ({"pointings": "models.yaml"}, "a table of pointings is no '.yaml' file"),
        (
            {"sources": [{"name": "Nebula", "lon": "1 deg", "lat": "1 deg", "spectral": {"type": "pl"}}]},
            "'Nebula' is given twice",
        ),
        ({"energy": {"min": "0 TeV", "max": "1 TeV"}}, "energy.min: must be above 0"),
        ({"instrument": None}, "the key 'energy' is missing"),
    ],
)
def test_a_wrong_survey_is_refused_in_a_sentence(change: dict, expected: str, survey: dict) -> None:
    with pytest.raises(InputError, match=expected) as error:
        find({key: value for key, value in {**survey, **change}.items() if value is not None})
    assert "\n" not in str(error.value)


def test_a_users_model_is_simulated(survey: dict) -> None:
    plugin = """
import numpy as np

from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.units import Energy, Flux


@SPECTRAL_MODELS.register()
def step_down(energy, amplitude: Flux = 1e-11, edge: Energy = 2.0):
    return np.where(energy < edge, amplitude / energy**2, 0.1 * amplitude / energy**2)
"""
    Path("mine.py").write_text(plugin)
    from dl3flow.models.spectral import SPECTRAL_MODELS

    before = SPECTRAL_MODELS.entries()
    try:
        text = MODELS.replace(
            "{type: pl, parameters: [{name: amplitude, value: 3.0e-11, unit: cm-2 s-1 TeV-1}, {name: index, value: 2.5}]}",
            "{type: step_down}",
        )
        Path("models.yaml").write_text(text)
        found = find({**survey, "plugins": ["mine.py"]})
        assert found.inputs["plugins"] == ("mine.py",)
        assert "plugins" not in json.loads(found.simulations[1].options)
    finally:
        SPECTRAL_MODELS.restore(before)
