"""Every mistake in a configuration is one sentence that names the file, the key and the choices."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from dl3flow.config import Plan, load_config
from dl3flow.errors import InputError
from dl3flow.plan import Job

ANALYSIS = """\
observations:
  runs: {data: sim}
reductions:
  cube:
    observations: runs
    recipe:
      name: cube
      center: {frame: icrs, lon: 83.63 deg, lat: 22.01 deg}
      width: 2 deg
      binsz: 0.1 deg
      energy: {min: 1 TeV, max: 10 TeV, nbin: 4}
    safe_mask: [{name: aeff_default}, {name: offset_max, offset_max: 1.5 deg}]
    background: {name: fov, exclusion: "icrs;circle(83.63, 22.01, 0.3)", exclusion_binsz: 0.1 deg}
models: models.yaml
fits:
  joint: {datasets: [cube], mode: joint, energy: {cube: [1 TeV, 10 TeV]}}
  sum: {datasets: [cube], mode: stacked, background: {free: []}}
estimators:
  sed: {name: flux_points, fit: joint, source: crab, energy: {min: 1 TeV, max: 10 TeV, nbin: 2}}
  sky: {name: excess_map, reduction: cube, correlation_radius: 0.1 deg}
on_error: skip
"""
MODELS = """\
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
        - {name: lat_0, value: 22.01, unit: deg}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_config: dict) -> Path:
    """Working directory with an analysis, its models and simulated data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DL3FLOW_DATA", raising=False)
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "sim.yaml").write_text(yaml.safe_dump(demo_config))
    return tmp_path


def load(analysis: dict | str = ANALYSIS, **config: object) -> Plan:
    """Plan of one analysis, given as text or as plain values, in the working directory."""
    Path("a.yaml").write_text(analysis if isinstance(analysis, str) else json.dumps(analysis))
    return load_config(
        {"analyses": ["a.yaml"], "data": {"sim": {"simulate": "sim.yaml"}}, **config}, "config.yaml"
    )


def changed(path: str, value: object) -> dict:
    """The analysis with one value set, or removed if it is `...`."""
    analysis = yaml.safe_load(ANALYSIS)
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("/"))
    place = analysis
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return analysis


def test_the_plan_of_a_good_analysis(folder: Path) -> None:
    plan = load()
    analysis = plan.analyses["a"]
    assert analysis.on_error == "skip"
    assert list(analysis.reductions["cube"].jobs) == [1001, 1002, 1003, 1004]
    assert {name: fit.mode for name, fit in analysis.fits.items()} == {"joint": "joint", "sum": "stacked"}
    assert {name: e.suffix for name, e in analysis.estimators.items()} == {"sed": "ecsv", "sky": "fits"}
    assert json.loads(analysis.fits["sum"].job.options)["free"] == []
    assert json.loads(analysis.fits["joint"].job.options)["free"] == ["norm"]
    options = json.loads(analysis.reductions["cube"].jobs[1003].options)
    assert options["name"] == "cube-1003"
    assert options["run"]["entry"]["obs_id"] == 1003
    assert options["recipe"]["binsz"] == "0.1 deg"
    assert plan.sources["sim"].files(1003) == {
        "events": ["results/dl3/sim/data/1003.fits.gz"],
        "responses": [],
    }
    assert json.loads(analysis.report.options)["truth"] == {
        "crab.amplitude": "4e-11 cm-2 s-1 TeV-1",
        "crab.index": 2.6,
        "crab.reference": "1 TeV",
        "crab.lon_0": "83.63 deg",
        "crab.lat_0": "22.01 deg",
    }


def jobs(plan: Plan) -> dict[str, str]:
    """Options of every job of the analysis."""
    analysis = plan.analyses["a"]
    found = {"select": analysis.selection, "report": analysis.report}
    for name, reduction in analysis.reductions.items():
        found |= {f"{name}-{obs_id}": job for obs_id, job in reduction.jobs.items()} | {
            f"stack {name}": reduction.stack
        }
    found |= {f"fit {name}": fit.job for name, fit in analysis.fits.items()}
    found |= {f"estimate {name}": estimator.job for name, estimator in analysis.estimators.items()}
    found |= {f"plot {name}": picture.plot for name, picture in analysis.pictures.items()}
    return {name: job.options for name, job in found.items()}


RUNS = {"cube-1001", "cube-1002", "cube-1003", "cube-1004"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("on_error", "stop", set()),
        ("reductions/cube/recipe/energy", {"nbin": 4.0, "max": "10 TeV", "min": "1 TeV"}, set()),
        ("reductions/cube/safe_mask/1/offset_max", "1.4 deg", RUNS | {"report"}),
        ("reductions/cube/recipe/width", "1.8 deg", RUNS | {"stack cube", "report"}),
        ("fits/joint/energy/cube", ["1 TeV", "5 TeV"], {"fit joint", "estimate sed", "report"}),
        ("fits/joint/background", {"free": ["norm", "tilt"]}, {"fit joint", "report"}),
        ("estimators/sed/energy/nbin", 4, {"estimate sed", "report"}),
        ("estimators/sky/correlation_radius", "0.2 deg", {"estimate sky", "report"}),
    ],
)
def test_an_edit_changes_the_options_of_the_jobs_that_read_it(
    folder: Path, path: str, value: object, expected: set[str]
) -> None:
    if path.endswith("recipe/energy"):
        value = {**value, "nbin": 4}  # another order of keys
    before, after = jobs(load()), jobs(load(changed(path, value)))
    assert {name for name in before if before[name] != after[name]} == expected


def test_one_more_observation_changes_no_other_reduction(folder: Path, demo_config: dict) -> None:
    before = jobs(load())
    config = copy.deepcopy(demo_config)
    config["observations"].append(
        {**config["observations"][0], "obs_id": 2000, "start": "2024-02-01 20:00:00"}
    )
    (folder / "sim.yaml").write_text(yaml.safe_dump(config))
    after = jobs(load())
    assert set(after) - set(before) == {"cube-2000"}
    assert {name for name in before if before[name] != after[name]} == {"select"}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("reductoins", {}, ["unknown key 'reductoins'", "did you mean 'reductions'?", "estimators"]),
        ("inputs", {"x": {"reader": "ogip"}}, ["inputs.x: the key 'path' is missing"]),
        ("inputs", {"x": {"reader": "ogi", "path": "a"}}, ["inputs.x.reader: 'ogi'", "did you mean 'ogip'?"]),
        (
            "inputs",
            {"x": {"reader": "ogip", "path": "nowhere"}},
            ["inputs.x.path: there is no file 'nowhere'"],
        ),
        ("inputs", {"x": {"reader": "ogip", "path": "."}}, ["inputs.x.path: ", "holds no file pha*.fits"]),
        (
            "inputs",
            {"cube": {"reader": "ogip", "path": "."}},
            ["`reductions` has a product of that name too"],
        ),
        (
            "observations/runs/events",
            {"phas": 1},
            ["runs.events: unknown option 'phas'", "did you mean 'phase'?"],
        ),
        (
            "fits/joint/region",
            {"cub": "icrs;circle(1,2,3)"},
            ["joint.region: unknown dataset of this fit 'cub'"],
        ),
        (
            "fits/joint/region",
            {"cube": "icrs;circle(1)"},
            ["joint.region.cube: cannot read the DS9 region text"],
        ),
        ("reductions/cube/ogip", True, ["cube.ogip: OGIP files hold spectra with measured off counts"]),
        ("reductions", ..., ["the key 'reductions' is missing"]),
        ("reductions", {}, ["reductions: the section is empty"]),
        ("reductions", [1], ["reductions: expected names with values, found [1]"]),
        ("name", "dl3", ["name: 'dl3' is not possible"]),
        ("name", "../x", ["name: '../x' is not possible"]),
        ("on_error", "abort", ["on_error: 'abort' is not possible", "choices: skip, stop"]),
        (
            "observations/runs/data",
            "hess",
            ["observations.runs.data: unknown data source 'hess'", "choices: sim"],
        ),
        ("observations/runs/select", {"target": "Krab"}, ["observations.runs.select.target", "Krab", "Crab"]),
        (
            "observations/runs/select",
            {"targets": "Crab"},
            ["observations.runs.select", "targets", "did you mean 'target'?"],
        ),
        (
            "observations/runs/select",
            {"obs_ids": [5]},
            ["observations.runs.select.obs_ids", "no observation 5", "1001"],
        ),
        (
            "reductions/cube/observations",
            "run",
            ["reductions.cube.observations: unknown group", "did you mean 'runs'?"],
        ),
        (
            "reductions/cube/recipe/name",
            "spektrum",
            ["reductions.cube.recipe.name: unknown recipe 'spektrum'", "did you mean 'spectrum'?", "cube"],
        ),
        (
            "reductions/cube/recipe/bins",
            "1 deg",
            ["reductions.cube.recipe: unknown option 'bins'", "did you mean 'binsz'?"],
        ),
        (
            "reductions/cube/recipe/width",
            ...,
            ["reductions.cube.recipe: option 'width' of 'cube' is missing"],
        ),
        ("reductions/cube/recipe/width", 2, ["reductions.cube.recipe.width", "unit", "2"]),
        ("reductions/cube/recipe/width", "2 TeV", ["reductions.cube.recipe.width", "TeV"]),
        ("reductions/cube/recipe/width", "-2 deg", ["reductions.cube.recipe.width", "above 0"]),
        ("reductions/cube/recipe/width", "0.01 deg", ["reductions.cube.recipe", "no pixel"]),
        ("reductions/cube/recipe/binsz", "1e-5 deg", ["reductions.cube.recipe", "too large"]),
        ("reductions/cube/recipe/proj", "XYZ", ["reductions.cube.recipe.proj: 'XYZ' is not possible", "CAR"]),
        (
            "reductions/cube/recipe/center/frame",
            "fk5",
            ["reductions.cube.recipe.center", "unknown frame 'fk5'", "icrs"],
        ),
        (
            "reductions/cube/recipe/energy",
            {"min": "10 TeV", "max": "1 TeV", "nbin": 4},
            ["reductions.cube.recipe.energy"],
        ),
        (
            "reductions/cube/recipe/energy/nbin",
            "four",
            ["reductions.cube.recipe.energy", "whole number", "four"],
        ),
        (
            "reductions/cube/safe_mask",
            {"name": "aeff_default"},
            ["reductions.cube.safe_mask: expected a list"],
        ),
        (
            "reductions/cube/safe_mask/0/name",
            "aeff_min",
            ["safe_mask[0].name: unknown safe mask 'aeff_min'", "aeff_default"],
        ),
        (
            "reductions/cube/background/name",
            "rings",
            ["background.name: unknown background method 'rings'", "did you mean 'ring'?"],
        ),
        (
            "reductions/cube/background/method",
            "scal",
            ["background.method: 'scal' is not possible", "did you mean 'scale'?"],
        ),
        ("reductions/cube/background/exclusion", "circle 3", ["background.exclusion", "no file 'circle 3'"]),
        ("reductions/cube/background/exclusion", "icrs;circ(1)", ["background.exclusion", "region"]),
        ("reductions/cube/background/exclusion_binsz", "1", ["background.exclusion_binsz"]),
        (
            "reductions/cube/background/subtract",
            "none.yaml",
            ["background.subtract: there is no file 'none.yaml'"],
        ),
        ("models", "none.yaml", ["models: there is no file 'none.yaml'"]),
        ("models", ..., ["models: the section is missing"]),
        ("models", {"components": []}, ["a.yaml: models"]),
        (
            "fits/joint/datasets",
            ["cub"],
            ["fits.joint.datasets: unknown reduction or input 'cub'", "did you mean 'cube'?"],
        ),
        ("fits/joint/datasets", [], ["fits.joint.datasets: name each reduction once"]),
        ("fits/joint/datasets", ["cube", "cube"], ["fits.joint.datasets: name each reduction once"]),
        (
            "fits/joint/background",
            {"free": ["norms"]},
            ["fits.joint.background.free: 'norms' is not possible", "tilt"],
        ),
        ("fits/joint/background", {"fre": []}, ["fits.joint.background: unknown key 'fre'"]),
        (
            "fits/joint/energy",
            {"cub": ["1 TeV", "2 TeV"]},
            ["fits.joint.energy: unknown dataset of this fit 'cub'"],
        ),
        ("fits/joint/energy/cube", ["2 TeV", "1 TeV"], ["fits.joint.energy.cube", "low below high"]),
        ("fits/joint/energy/cube", ["1 TeV"], ["fits.joint.energy.cube", "low below high"]),
        ("fits/joint/energy/cube", ["1 m", "2 m"], ["fits.joint.energy.cube", "TeV"]),
        (
            "fits/joint/energy/cube",
            ["20 TeV", "30 TeV"],
            ["fits.joint.energy.cube", "no whole energy bin", "1 TeV to 10 TeV"],
        ),
        (
            "estimators/sed/energy",
            {"min": "20 TeV", "max": "30 TeV", "nbin": 2},
            ["estimators.sed.energy", "no whole energy bin", "1 TeV to 10 TeV"],
        ),
        (
            "reductions/cube/recipe/center",
            {"frame": "icrs", "lon": "228.5 deg", "lat": "-59.2 deg"},
            ["reductions.cube.recipe.center", "deg from the nearest pointing", "correct `center`"],
        ),
        ("estimators/sed/n_sigma", float("inf"), ["estimators.sed.n_sigma", "a number above 0"]),
        ("reductions/cube/recipe/binsz", "0.00025 deg", ["reductions.cube.recipe", "GiB", "`binsz` larger"]),
        (
            "reductions/cube/recipe/energy_true",
            {"min": "100 TeV", "max": "800 TeV", "nbin": 5},
            ["reductions.cube.recipe.energy_true", "100 TeV to 800 TeV does not overlap `energy`"],
        ),
        (
            "estimators/sed/name",
            "flux_point",
            ["estimators.sed.name", "did you mean 'flux_points'?", "light_curve"],
        ),
        (
            "estimators/sed/sorce",
            "crab",
            ["estimators.sed: unknown option 'sorce'", "did you mean 'source'?"],
        ),
        (
            "estimators/sed/source",
            "crap",
            ["estimators.sed.source: unknown source 'crap'", "did you mean 'crab'?"],
        ),
        ("estimators/sed/fit", "jiont", ["estimators.sed.fit: unknown fit 'jiont'", "did you mean 'joint'?"]),
        ("estimators/sed/fit", ..., ["estimators.sed: give either `fit`"]),
        ("estimators/sed/reduction", "cube", ["estimators.sed: give either `fit`"]),
        ("estimators/sky/reduction", "cubes", ["estimators.sky.reduction: unknown reduction 'cubes'"]),
        ("estimators/sky/correlation_radius", "0.1", ["estimators.sky.correlation_radius"]),
        (
            "estimators/cube",
            {"name": "excess_map", "fit": "sum"},
            ["estimators.cube: `reductions` has a product of that name"],
        ),
        (
            "estimators/a b",
            {"name": "excess_map", "fit": "sum"},
            ["estimators: the name 'a b' is not possible"],
        ),
    ],
)
def test_a_mistake_is_one_sentence(folder: Path, path: str, value: object, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load(changed(path, value))
    message = str(caught.value)
    assert "\n" not in message
    assert "a.yaml" in message
    assert [word for word in words if word not in message] == [], message


def test_a_source_outside_every_field_of_view_is_refused(folder: Path) -> None:
    (folder / "models.yaml").write_text(MODELS.replace("83.63", "100.0"))
    with pytest.raises(
        InputError, match=r"fits\.joint: the source 'crab' at \(100\.0000, 22\.0100\) .* outside every field"
    ):
        load()


def test_a_model_of_no_dataset_of_the_fit_is_refused(folder: Path) -> None:
    (folder / "models.yaml").write_text(
        MODELS.replace("    type: SkyModel", "    type: SkyModel\n    datasets_names: [cube-77]")
    )
    with pytest.raises(
        InputError, match=r"the model 'crab' is for the datasets cube-77 only.*choices: cube-1001, cube-1002"
    ):
        load()


def test_a_map_that_needs_a_fit_is_refused_without_one(folder: Path) -> None:
    entry = {"name": "residual_map", "reduction": "cube", "correlation_radius": "0.1 deg"}
    with pytest.raises(InputError, match=r"estimators\.sky: 'residual_map' needs a fit"):
        load(changed("estimators/sky", entry))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"analyses": []}, ["config.yaml: analyses: the list is empty"]),
        ({"analyses": "a.yaml"}, ["config.yaml: analyses", "list"]),
        ({"analyses": ["none.yaml"]}, ["none.yaml"]),
        ({"analyses": ["a.yaml", "a.yaml"]}, ["two analyses called 'a'"]),
        ({"reslts": "x"}, ["config.yaml: unknown key 'reslts'", "did you mean 'results'?"]),
        ({"results": 5}, ["config.yaml: results"]),
        ({"data": {"sim": {"simulat": "x"}}}, ["config.yaml: data.sim: unknown key 'simulat'"]),
        ({"data": {"sim": {"simulate": "sim.yaml", "path": "x"}}}, ["config.yaml: data.sim: give either"]),
        ({"data": {"sim": {"simulate": "none.yaml"}}}, ["none.yaml"]),
        (
            {"data": {"sim": {"path": "none"}}},
            ["data.sim.path", "no folder 'none'", "DL3FLOW_DATA is not set"],
        ),
        ({"data": {"sim": "none"}}, ["data.sim.path", "no folder 'none'"]),
    ],
)
def test_a_mistake_in_the_main_file_is_one_sentence(folder: Path, config: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load(**config)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_data_are_looked_up_below_the_environment_variable_first(
    folder: Path, demo_dl3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DL3FLOW_DATA", str(demo_dl3.parent))
    plan = load(data={"sim": {"path": demo_dl3.name}})
    files = plan.sources["sim"].files(1002)
    assert files == {"events": [str(demo_dl3 / "data/1002.fits.gz")], "responses": []}
    assert str(demo_dl3) not in "".join(jobs(plan).values())


@pytest.fixture
def incomplete(folder: Path, demo_dl3: Path) -> dict:
    """Data folder with two of four files missing, as `data` of a configuration."""
    for name in ("obs-index.fits.gz", "hdu-index.fits.gz", "data/1001.fits.gz", "data/1004.fits.gz"):
        path = folder / "dl3" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes((demo_dl3 / name).read_bytes())
    return {"sim": "dl3"}


def test_missing_files_are_listed_all_at_once(folder: Path, incomplete: dict) -> None:
    with pytest.raises(
        InputError,
        match=r"2 of 4 selected observations .* 1002: data/1002.* 1003: data/1003.*on_error: skip",
    ):
        load(changed("on_error", "stop"), data=incomplete)


def test_missing_files_are_left_out_on_request(folder: Path, incomplete: dict) -> None:
    analysis = load(data=incomplete).analyses["a"]
    assert list(analysis.reductions["cube"].jobs) == [1001, 1004]
    failed = json.loads(analysis.selection.options)["groups"]["runs"]["failed"]
    assert failed == {str(n): f"data/{n}.fits.gz is missing in dl3" for n in (1002, 1003)}


def test_a_style_travels_as_its_settings_to_the_pictures_alone(folder: Path) -> None:
    before = load().analyses["a"]
    Path("mine.mplstyle").write_text("font.size: 8  # points\n")
    after = load(changed("style", "mine.mplstyle")).analyses["a"]
    for name, picture in after.pictures.items():
        assert json.loads(picture.plot.options)["style"] == {"font.size": "8"}
        assert json.loads(before.pictures[name].plot.options)["style"] == {}
    assert [e.job for e in after.estimators.values()] == [e.job for e in before.estimators.values()]
    assert [f.job for f in after.fits.values()] == [f.job for f in before.fits.values()]
    with pytest.raises(InputError, match="a.yaml: style: there is no file 'none.mplstyle'"):
        load(changed("style", "none.mplstyle"))


def test_region_files_travel_as_text_and_masks_as_files(folder: Path) -> None:
    (folder / "x.reg").write_text("icrs;circle(83.63, 22.01, 0.3)\n")
    text = load(changed("reductions/cube/background/exclusion", "x.reg")).analyses["a"].reductions["cube"]
    assert "circle(83.63,22.01,0.3)" in text.jobs[1001].options
    assert text.mask_file == ()
    spectrum = yaml.safe_load(
        "{observations: runs, background: {name: reflected}, recipe: {name: spectrum, region: x.reg, "
        "energy: {min: 1 TeV, max: 10 TeV, nbin: 4}}}"
    )
    found = load({**changed("fits", {}), "reductions": {"s": spectrum}, "estimators": {}}).analyses["a"]
    assert "circle(83.63,22.01,0.3)" in found.reductions["s"].jobs[1001].options
    (folder / "mask.fits").write_bytes(b"x")
    mask = load(changed("reductions/cube/background/exclusion", "mask.fits")).analyses["a"].reductions["cube"]
    assert mask.mask_file == ("mask.fits",)
    assert "mask" not in json.loads(mask.jobs[1001].options)["background"]


def test_an_analysis_of_data_reduced_elsewhere_needs_no_pointing(folder: Path) -> None:
    (folder / "reduced.fits").write_text("")
    plan = load(
        {
            "inputs": {"other": {"reader": "dataset", "path": "reduced.fits"}},
            "models": "models.yaml",
            "fits": {"joint": {"datasets": ["other"], "mode": "joint"}},
        }
    )
    assert plan.analyses["a"].fits["joint"].external == ("reduced.fits",)


FURTHER = {
    "observations": {"runs": {"data": "sim"}, "off": {"data": "sim"}},
    "reductions": {
        "cube": {
            **yaml.safe_load(ANALYSIS)["reductions"]["cube"],
            "background": {
                "name": "acceptance",
                "runs": {"observations": "off"},
                "model": {"energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4}},
            },
        }
    },
}


def test_background_models_are_built_anew_only_for_what_they_read(folder: Path) -> None:
    def jobs(change: dict) -> tuple[Job, Job]:
        analysis = copy.deepcopy(FURTHER)
        analysis["reductions"]["cube"] |= change
        reduction = load(analysis).analyses["a"].reductions["cube"]
        return reduction.further.model, reduction.jobs[1001]

    model, run = jobs({})
    same, other = jobs({"safe_mask": [{"name": "aeff_max"}]})
    assert same == model
    assert other != run
    background = copy.deepcopy(FURTHER["reductions"]["cube"]["background"])
    background["model"]["min_counts"] = 7
    assert jobs({"background": background})[0] != model


def test_further_runs_are_used_with_the_same_types_of_events(folder: Path) -> None:
    analysis = copy.deepcopy(FURTHER)
    analysis["observations"]["runs"]["events"] = {"event_types": [3, 1]}
    with pytest.raises(
        InputError, match=r"runs.observations: the runs of 'off' .* types all, .* \[1, 3\]: give"
    ):
        load(analysis)
    analysis["observations"]["off"]["events"] = {"event_types": [1, 3]}
    assert load(analysis).analyses["a"].reductions["cube"].further.group == "off"


def test_only_other_further_runs_reduce_anew(folder: Path) -> None:
    def options(**limits: object) -> str:
        analysis = copy.deepcopy(FURTHER)
        background = {"name": "off_runs", "runs": {"observations": "off", **limits}}
        analysis["reductions"]["cube"]["background"] = background
        return load(analysis).analyses["a"].reductions["cube"].jobs[1001].options

    assert options(epoch="900 day") == options(epoch="901 day")
    assert options(epoch="900 day", n_max=1) != options(epoch="900 day")


def test_models_are_built_from_all_runs_of_a_group(folder: Path) -> None:
    analysis = copy.deepcopy(FURTHER)
    analysis["reductions"]["cube"]["background"]["runs"]["zenith"] = "5 deg"
    with pytest.raises(
        InputError, match="background.runs: .* so that 'zenith' would do nothing: leave it out"
    ):
        load(analysis)


def test_files_of_inputs_come_in_the_order_in_which_a_step_takes_them(folder: Path) -> None:
    for name in ("a.fits", "b.fits"):
        (folder / name).write_bytes(b"x")
    inputs = {
        "z": {"reader": "flux_points", "path": "a.fits"},
        "c": {"reader": "dataset", "path": "b.fits"},
    }
    fits = {"all": {"datasets": ["z", "c"], "mode": "joint"}}
    fit = load({**changed("fits", fits), "inputs": inputs, "estimators": {}}).analyses["a"].fits["all"]
    taken, waiting = {}, list(fit.external)
    for name, entry in json.loads(fit.job.options)["inputs"].items():
        taken[name], waiting = waiting[: entry["all"]], waiting[entry["all"] :]
    assert taken == {"c": ["b.fits"], "z": ["a.fits"]}
