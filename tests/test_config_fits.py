"""The section ``fits``: modes, groups, systematics and what is asked of parameters, each mistake one sentence before any job."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import astropy.units as u
import pytest
import yaml
from astropy.table import Table

from dl3flow.config import load_config
from dl3flow.errors import InputError
from dl3flow.plan import Fit

ANALYSIS = """\
observations:
  runs: {data: sim}
reductions:
  cube:
    observations: runs
    recipe: &cube
      name: cube
      center: {frame: icrs, lon: 83.63 deg, lat: 22.01 deg}
      width: 2 deg
      binsz: 0.1 deg
      energy: {min: 1 TeV, max: 10 TeV, nbin: 4}
  fields:
    observations: runs
    recipe: {<<: *cube, center: pointing}
  spectrum:
    observations: runs
    recipe: {name: spectrum, region: "icrs;circle(83.63, 22.01, 0.15)", energy: {min: 1 TeV, max: 10 TeV, nbin: 4}}
    background: {name: reflected}
inputs:
  points: {reader: flux_points, path: points.fits}
models:
  components:
    - name: crab
      type: SkyModel
      spectral:
        type: pl
        parameters:
          - {name: index, value: 2.6}
          - {name: amplitude, value: 4.0e-11, unit: cm-2 s-1 TeV-1}
          - {name: reference, value: 1.0, unit: TeV, frozen: true}
      spatial:
        type: point
        frame: icrs
        parameters:
          - {name: lon_0, value: 83.63, unit: deg}
          - {name: lat_0, value: 22.01, unit: deg, frozen: true}
"""
PLUGIN = '''\
import numpy as np

from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.units import Flux


@SPECTRAL_MODELS.register(gradient=lambda energy, amplitude: np.array([energy**-2.0]))
def own(energy, amplitude: Flux = 1e-12):
    """A power law of index 2."""
    return amplitude * energy**-2.0
'''
# the middles of the four simulated runs (MJD, TT) lie between these
EPOCHS = ["MJD 60320", "2024-01-12 21:00:00", "MJD 60330"]


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_config: dict) -> Callable[..., Fit]:
    """Check an analysis with one fit of that entry."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sim.yaml").write_text(yaml.safe_dump(demo_config))
    (tmp_path / "points.fits").write_text("")

    def call(**entry: Any) -> Fit:
        content = yaml.safe_load(ANALYSIS)
        content["fits"] = {"one": {"datasets": ["cube"], "mode": "joint", **entry}}
        Path("a.yaml").write_text(json.dumps(content))
        config = {"analyses": ["a.yaml"], "data": {"sim": {"simulate": "sim.yaml"}}}
        return load_config(config, "config.yaml").analyses["a"].fits["one"]

    return call


def options(fit: Fit) -> dict[str, Any]:
    """What the job of a fit is given."""
    found: dict[str, Any] = json.loads(fit.job.options)
    return found


@pytest.mark.parametrize(
    "mode",
    [{"name": "grouped", "by": "epoch", "edges": EPOCHS}, {"grouped": {"by": "epoch", "edges": EPOCHS}}],
)
def test_runs_are_grouped_by_epoch_before_any_job(fit: Callable[..., Fit], mode: dict) -> None:
    found = fit(mode=mode, datasets=["cube", "points"])
    assert found.mode == "grouped"
    groups = options(found)["groups"]
    assert list(groups) == ["cube"]
    ids = list(groups["cube"]["runs"].values())
    assert ids == [[1001, 1002], [1003, 1004]]
    assert groups["cube"]["recipe"]["name"] == "cube"
    assert found.data["groups"] == groups


def test_both_forms_of_a_mode_are_one_job(fit: Callable[..., Fit]) -> None:
    one, other = (
        fit(mode={"name": "grouped", "by": "instrument"}),
        fit(mode={"grouped": {"by": "instrument"}}),
    )
    assert one.job == other.job
    assert list(options(one)["groups"]["cube"]["runs"]) == ["DEMO"]
    # a fit that stacks nothing does not depend on the code of stacking
    assert one.job.code != fit().job.code


def test_groups_by_response_are_found_by_the_job(fit: Callable[..., Fit]) -> None:
    names = ["cube-responses-1-bkg.norm", "cube-responses-0-bkg.norm"]
    found = options(fit(mode={"name": "grouped", "by": "responses", "n_groups": 2}, minos=names))
    assert found["groups"]["cube"]["runs"] is None
    assert found["groups"]["cube"]["by"] == {"name": "responses", "n_groups": 2}
    assert found["minos"] == names


def test_what_is_asked_of_parameters(fit: Callable[..., Fit]) -> None:
    found = options(
        fit(
            datasets=["cube", "spectrum"],
            background={"free": ["norm", "tilt"]},
            minos=["crab.index", "cube-1002-bkg.tilt"],
            profiles=[
                "crab.lon_0",
                {"name": "crab.index", "n": 5},
                {"name": "crab.amplitude", "values": [1e-11, 2e-11]},
            ],
            contours=[
                ["crab.index", "crab.amplitude"],
                {"names": ["crab.lon_0", "crab.index"], "n_sigma": [1, 2]},
            ],
        )
    )
    assert found["minos"] == ["crab.index", "cube-1002-bkg.tilt"]
    assert found["profiles"] == [
        {"name": "crab.lon_0"},
        {"name": "crab.index", "n": 5, "n_sigma": 2},
        {"name": "crab.amplitude", "values": [1e-11, 2e-11]},
    ]
    assert found["contours"] == [
        {"names": ["crab.index", "crab.amplitude"], "n_sigma": [1], "n_points": 40},
        {"names": ["crab.lon_0", "crab.index"], "n_sigma": [1, 2], "n_points": 40},
    ]
    assert options(fit(minos="all"))["minos"] == "all"


def test_systematics_of_a_reduction_are_shared_by_its_runs(fit: Callable[..., Fit]) -> None:
    entry = {"energy_scale": {"cube": 0.15}, "effective_area": {"cube": 0.1, "spectrum": 0.2}}
    found = options(
        fit(datasets=["cube", "spectrum"], systematics=entry, minos=["cube-response.energy_scale"])
    )
    runs = [f"cube-{n}" for n in (1001, 1002, 1003, 1004)]
    assert found["systematics"][0] == {
        "name": "cube-response",
        "datasets": runs,
        "widths": {"energy_scale": 0.15, "effective_area": 0.1},
    }
    assert found["systematics"][1]["name"] == "spectrum-response"
    each = options(fit(systematics={"energy_scale": {"cube": 0.15}, "per": "observation"}))["systematics"]
    assert [s["name"] for s in each] == [f"{run}-response" for run in runs]
    assert [s["datasets"] for s in each] == [[run] for run in runs]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"mode": "both"}, ["fits.one.mode: 'both' is not possible", "choices: grouped, joint, stacked"]),
        (
            {"mode": "grouped"},
            ["fits.one.mode", "needs `by`", "choices: column, epoch, instrument, night, responses, zenith"],
        ),
        ({"mode": {"grouped": {"by": "zenit"}}}, ["fits.one.mode", "did you mean 'zenith'?"]),
        ({"mode": {"name": "joint", "by": "zenith"}}, ["fits.one.mode", "unknown key 'by'"]),
        ({"mode": {"grouped": {"by": "zenith"}}}, ["fits.one.mode", "option 'edges' of 'zenith' is missing"]),
        (
            {"mode": {"grouped": {"by": "zenith", "edges": ["0 deg", "60 deg"]}}},
            ["'cube'", "1001, 1002, 1003, 1004: the index states no zenith distance", "leave them out"],
        ),
        (
            {"mode": {"grouped": {"by": "zenith", "edges": ["60 deg", "0 deg"]}}},
            ["fits.one.mode.edges", "increasing edges"],
        ),
        (
            {"mode": {"grouped": {"by": "zenith", "edges": [0, 60]}}},
            ["value with a unit", "found the bare number 0"],
        ),
        (
            {"mode": {"grouped": {"by": "epoch", "edges": ["2024-01-12 21:00:00", "MJD 60330"]}}},
            ["1001", "1002", "lies outside the edges, which run from 60321.9"],
        ),
        ({"mode": {"grouped": {"by": "column", "column": "MUONEFF"}}}, ["the index has no column 'MUONEFF'"]),
        ({"mode": {"grouped": {"by": "responses", "n_groups": 0}}}, ["n_groups", "whole number above 0"]),
        (
            {"mode": {"grouped": {"by": "instrument"}}, "datasets": ["fields"]},
            ["'fields' is not stacked, since each of its maps has another centre"],
        ),
        (
            {"minos": ["crab.indx"]},
            ["fits.one.minos[0]: 'crab.indx' is no free parameter", "did you mean 'crab.index'?"],
        ),
        ({"minos": ["crab.lat_0"]}, ["fits.one.minos[0]: 'crab.lat_0' is no free parameter"]),
        ({"minos": "some"}, ["fits.one.minos: expected `all` or a list"]),
        (
            {"minos": ["cube-1001-bkg.tilt"]},
            ["'cube-1001-bkg.tilt' is no free parameter", "DATASET-bkg.norm"],
        ),
        ({"datasets": ["spectrum"], "minos": ["spectrum-1001-bkg.norm"]}, ["is no free parameter"]),
        ({"contours": [["crab.index"]]}, ["fits.one.contours[0]: expected two parameters"]),
        ({"contours": [["crab.index", "crab.index"]]}, ["fits.one.contours[0]: expected two parameters"]),
        ({"contours": [{"names": ["crab.index", "crab.lon_0"], "n_sigma": -1}]}, ["n_sigma", "above 0"]),
        ({"contours": [{"names": ["crab.index", "crab.lon_0"], "n_sigma": 30}]}, ["n_sigma", "at most 7"]),
        (
            {"profiles": [{"name": "crab.index", "values": [1, 2], "n": 5}]},
            ["fits.one.profiles[0]: give either"],
        ),
        ({"profiles": [{"name": "crab.index", "values": [2, 1]}]}, ["values", "increasing"]),
        ({"profiles": ["crab.index", "crab.index"]}, ["asked for twice"]),
        (
            {"precision": "float16"},
            ["fits.one.precision: 'float16' is not possible", "choices: float32, float64"],
        ),
        ({"systematics": {}}, ["fits.one.systematics: nothing varies"]),
        ({"systematics": {"energy_scale": {"cub": 0.1}}}, ["unknown dataset of this fit 'cub'"]),
        ({"systematics": {"energy_scale": {"cube": 15}}}, ["energy_scale.cube", "between 0 and 1, found 15"]),
        ({"systematics": {"energy": {"cube": 0.1}}}, ["fits.one.systematics: unknown key 'energy'"]),
        (
            {"datasets": ["cube", "points"], "systematics": {"energy_scale": {"points": 0.1}}},
            ["energy_scale.points: flux points have no responses left"],
        ),
    ],
)
def test_a_mistake_is_one_sentence(fit: Callable[..., Fit], entry: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        fit(**entry)
    message = str(caught.value)
    assert "\n" not in message
    assert "a.yaml" in message
    assert [word for word in words if word not in message] == [], message


@pytest.fixture
def references(tmp_path: Path, fit: Callable[..., Fit]) -> Callable[..., Any]:
    """Check an analysis with published values beside its one fit; gives what the report is told."""

    def call(**entry: Any) -> Any:
        fit()
        content = json.loads(Path("a.yaml").read_text())
        given = {"fit": "one", "source": "crab", "label": "Other et al.", "parameters": {}, **entry}
        Path("a.yaml").write_text(json.dumps({**content, "references": [given]}))
        config = {"analyses": ["a.yaml"], "data": {"sim": {"simulate": "sim.yaml"}}}
        return json.loads(load_config(config, "config.yaml").analyses["a"].report.options)["references"]

    return call


def test_published_values_reach_the_report_in_the_units_of_the_parameters(
    references: Callable[..., Any],
) -> None:
    values = {
        "amplitude": {"value": "3.5e-7 m-2 s-1 TeV-1", "error": "1e-8 m-2 s-1 TeV-1"},
        "index": {"value": 2.5},
    }
    (found,) = references(parameters=values, note="converted")
    assert (found["fit"], found["label"], found["note"]) == ("one", "Other et al.", "converted")
    assert found["parameters"]["crab.amplitude"] == pytest.approx([3.5e-11, 1e-12])
    assert found["parameters"]["crab.index"] == [2.5, None]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"fit": "two"}, ["references[0].fit: unknown fit 'two'"]),
        ({"parameters": {"indx": {"value": 2}}}, ["references[0].parameters.indx", "did you mean 'index'?"]),
        ({"parameters": {"lat_0": {"value": "22 deg"}}}, ["unknown free parameter of that fit 'lat_0'"]),
        ({"parameters": {"amplitude": {"value": 4e-11}}}, ["amplitude.value", "found the bare number"]),
        ({"parameters": {"index": {"error": 2}}}, ["the key 'value' is missing"]),
        (
            {"source": "vela", "parameters": {"index": {"value": 2}}},
            ["references[0].source: unknown model of that fit 'vela'", "crab"],
        ),
        ({"parameters": {"index": {"value": 2, "error": 0}}}, ["index.error", "above 0, found 0"]),
        ({"parameters": {"index": {"value": 2, "error": -1}}}, ["index.error", "above 0, found -1"]),
        ({"parameters": {"amplitude": {"value": 4e-11}}}, ["such as `1 TeV-1 s-1 cm-2`"]),
    ],
)
def test_a_mistake_in_a_reference_is_one_sentence(
    references: Callable[..., Any], entry: dict, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        references(**entry)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def test_files_of_models_are_inputs_of_what_reads_them(fit: Callable[..., Fit], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PLUGIN)
    fit()
    content = json.loads(Path("a.yaml").read_text())
    config = {"analyses": ["a.yaml"], "data": {"sim": {"simulate": "sim.yaml"}}}
    Path("a.yaml").write_text(json.dumps({**content, "plugins": ["own.py"]}))
    analysis = load_config(config, "config.yaml").analyses["a"]
    assert analysis.model_inputs == {"plugins": ("own.py",), "model_files": ()}
    # nothing is subtracted by a model
    assert not any(analysis.reductions["cube"].model_inputs.values())
    subtract = {"components": [{"name": "x", "spectral": {"type": "own"}, "spatial": {"type": "point"}}]}
    content["reductions"]["cube"]["background"] = {"name": "fov", "subtract": subtract}
    Path("a.yaml").write_text(json.dumps({**content, "plugins": ["own.py"]}))
    reduction = load_config(config, "config.yaml").analyses["a"].reductions["cube"]
    assert reduction.model_inputs == {"plugins": ("own.py",), "model_files": ()}
    # without the plug-in its model does not exist
    Path("a.yaml").write_text(json.dumps(content))
    with pytest.raises(InputError, match="own"):
        load_config(config, "config.yaml")


def test_a_table_beside_the_model_file_is_an_input_named_from_the_working_directory(
    fit: Callable[..., Fit], tmp_path: Path
) -> None:
    columns = {"TIME": [0.0, 12.0] * u.h, "NORM": [1.0, 1.0]}
    (tmp_path / "models").mkdir()
    Table(columns, meta={"MJDREFI": 60000, "MJDREFF": 0.0, "TIMESYS": "tt"}).write(
        tmp_path / "models/curve.fits"
    )
    fit()
    content = json.loads(Path("a.yaml").read_text())
    models = content.pop("models")
    models["components"][0]["temporal"] = {"type": "template", "filename": "curve.fits", "scale": "tt"}
    Path("models/m.yaml").write_text(json.dumps(models))
    Path("a.yaml").write_text(json.dumps({**content, "models": "models/m.yaml"}))
    config = {"analyses": ["a.yaml"], "data": {"sim": {"simulate": "sim.yaml"}}}
    analysis = load_config(config, "config.yaml").analyses["a"]
    assert analysis.model_inputs["model_files"] == ("models/curve.fits",)
    # a job has the text alone
    (component,) = options(analysis.fits["one"])["models"]["components"]
    assert component["temporal"]["filename"] == "models/curve.fits"


def test_errors_of_a_fit_without_free_parameters_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.fits").write_text("")
    fixed = [{"name": "index", "value": 2.5, "frozen": True}]
    fixed.append({"name": "amplitude", "value": 1e-11, "unit": "cm-2 s-1 TeV-1", "frozen": True})
    content = {
        "inputs": {"points": {"reader": "flux_points", "path": "points.fits"}},
        "models": {
            "components": [
                {"name": "crab", "type": "SkyModel", "spectral": {"type": "pl", "parameters": fixed}}
            ]
        },
        "fits": {"one": {"datasets": ["points"], "mode": "joint", "minos": "all"}},
    }
    (tmp_path / "a.yaml").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"fits\.one\.minos: no parameter of this fit is free"):
        load_config({"analyses": ["a.yaml"]}, "config.yaml")
