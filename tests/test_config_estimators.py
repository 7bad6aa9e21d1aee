"""The section ``estimators``: what each is made from, checked before any job."""

import json
from pathlib import Path

import astropy.units as u
import pytest
import yaml
from astropy.table import QTable

from dl3flow.config import load_config
from dl3flow.errors import InputError
from dl3flow.plan import Estimator, Plan

from .test_config import ANALYSIS, MODELS

EVENTS = {
    "name": "phasogram",
    "observations": "runs",
    "region": "icrs;circle(83.63, 22.01, 0.2)",
    "n_bins": 10,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_config: dict) -> Path:
    """Working directory with models and simulated data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DL3FLOW_DATA", raising=False)
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "sim.yaml").write_text(yaml.safe_dump(demo_config))
    return tmp_path


def load(estimators: dict, **sections: object) -> Plan:
    """Plan of the analysis with these estimators."""
    analysis = {**yaml.safe_load(ANALYSIS), "estimators": estimators, **sections}
    Path("a.yaml").write_text(json.dumps(analysis))
    return load_config({"analyses": ["a.yaml"], "data": {"sim": {"simulate": "sim.yaml"}}}, "config.yaml")


def test_an_estimator_of_events_reads_the_runs_of_a_group() -> None:
    groups = {"runs": {"data": "sim", "select": {"obs_ids": [1002, 1004]}, "events": {"offset": "1 deg"}}}
    found = load({"pulse": EVENTS}, observations=groups).analyses["a"].estimators["pulse"]
    assert (found.step, found.suffix, found.fit, found.reduction) == ("estimate_events", "ecsv", "", "")
    assert found.events == {
        "events": [f"results/dl3/sim/data/{k}.fits.gz" for k in (1002, 1004)],
        "responses": [],
    }
    options = json.loads(found.job.options)
    assert options["estimator"] == {key: value for key, value in EVENTS.items() if key != "observations"}
    assert [run["entry"]["obs_id"] for run in options["runs"]] == [1002, 1004]
    assert options["runs"][0]["events"] == {"offset": "1 deg"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**EVENTS, "observations": "rnus"}, ["pulse.observations: unknown group of observations", "'runs'"]),
        (
            {k: v for k, v in EVENTS.items() if k != "observations"},
            ["'phasogram' reads events: give `observations`"],
        ),
        ({**EVENTS, "fit": "joint"}, ["'phasogram' reads events"]),
        ({**EVENTS, "region": "icrs;circle(83, 22)"}, ["pulse.region"]),
        ({"name": "excess_map", "observations": "runs", "reduction": "cube"}, ["give either `fit`"]),
    ],
)
def test_what_an_estimator_is_made_from_is_checked(entry: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load({"pulse": entry})
    assert [word for word in words if word not in str(caught.value)] == []


PROFILE = {"name": "flux_profile", "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}}
PROFILE |= {"length": "1 deg", "n_bins": 5}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"name": "excess_map", "reduction": "cube", "subtract": ["crab"]},
            ["sky.subtract: 'crab' is known from a fit"],
        ),
        (
            {"name": "excess_map", "reduction": "cube", "spectrum": "crab"},
            ["sky.spectrum: 'crab' is known from a fit"],
        ),
        (
            {"name": "excess_map", "fit": "joint", "subtract": ["carb"]},
            ["sky.subtract: unknown source 'carb'", "crab"],
        ),
        ({"name": "ts_map", "fit": "joint", "like": "carb"}, ["sky.like: unknown source 'carb'"]),
        (
            {**PROFILE, "reduction": "cube", "energy": {"min": "50 TeV", "max": "90 TeV", "nbin": 1}},
            ["sky.energy"],
        ),
        ({"name": "extension", "fit": "joint", "source": "carb"}, ["sky.source: unknown source 'carb'"]),
        ({"name": "extension", "reduction": "cube", "source": "crab"}, ["'extension' needs a fit"]),
    ],
)
def test_options_of_maps_are_checked_before_any_job(entry: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load({"sky": entry})
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("entry", [PROFILE, {"name": "find_sources"}])
def test_tables_of_maps_need_maps_and_no_fit(entry: dict) -> None:
    found = load({"sky": {**entry, "reduction": "cube"}}).analyses["a"].estimators["sky"]
    assert (found.step, found.suffix, found.reduction) == ("estimate_table", "ecsv", "cube")
    reductions = yaml.safe_load(ANALYSIS)["reductions"]
    recipe = {k: v for k, v in reductions["cube"]["recipe"].items() if k in ("energy", "energy_true")}
    spectrum = {
        "observations": "runs",
        "recipe": {"name": "spectrum", "region": "icrs;circle(83.63, 22.01, 0.1)", **recipe},
    }
    with pytest.raises(
        InputError, match=f"'{entry['name']}' is made from maps, and the spectra 'spectrum' are none"
    ):
        load({"sky": {**entry, "reduction": "spectrum"}}, reductions={**reductions, "spectrum": spectrum})


def test_a_sensitivity_of_maps_needs_a_place() -> None:
    entry = {"name": "sensitivity", "reduction": "cube"}
    with pytest.raises(
        InputError, match="estimators.sens: 'sensitivity' of the maps 'cube' needs a place: give `region`"
    ):
        load({"sens": entry})
    assert load({"sens": {**entry, "region": "icrs;circle(83.63, 22.01, 0.1)"}}).analyses["a"].estimators


def curve(**options: object) -> Estimator:
    """Plan of a light curve, of the fit `joint` unless the options say otherwise."""
    origin = {} if "reduction" in options else {"fit": "joint"}
    entry = {"name": "light_curve", "source": "crab", **origin, **options}
    return load({"curve": entry}).analyses["a"].estimators["curve"]


def test_each_run_is_a_bin_with_a_job_of_its_own() -> None:
    found = curve()
    assert found.step == "join_slices"
    assert list(found.slices) == ["1001", "1002", "1003", "1004"]
    one = found.slices["1002"]
    assert (one.step, one.datasets, one.files) == ("measure_datasets", (("cube", 1002),), {})
    told = json.loads(one.job.options)
    assert told["energy"] == {"cube": ["1 TeV", "10 TeV"]}
    # with a fit the models are those of its file
    assert "models" not in told
    assert told["ends"] is None
    # where the run lies if the bin fails, MJD (TT)
    low, high = told["span"]
    assert 0 < high - low < 0.1


def test_bins_within_runs_are_cut_from_their_events() -> None:
    found = curve(reduction="cube", time={"width": "10 min"})
    assert len(found.slices) > 4
    one = next(iter(found.slices.values()))
    assert (one.step, one.datasets) == ("measure_runs", ())
    told = json.loads(one.job.options)
    obs_id = told["runs"][0]["run"]["entry"]["obs_id"]
    assert one.files["events"] == (f"results/dl3/sim/data/{obs_id}.fits.gz",)
    assert told["runs"][0]["background"]["name"] == "fov"
    assert told["runs"][0]["reduction"] == "cube"
    assert told["models"]["components"][0]["name"] == "crab"
    assert "models" in json.loads(found.job.options)


def test_a_further_run_changes_no_other_bin_and_options_of_the_join_change_none(demo_config: dict) -> None:
    def jobs(**options: object) -> dict[str, str]:
        found = curve(reduction="cube", time={"width": "10 min"}, **options)
        return {label: each.job.options for label, each in found.slices.items()}

    before = jobs()
    assert jobs(blocks=0.05, n_sigma=2) == before
    assert all(
        jobs(energy={"min": "1 TeV", "max": "10 TeV"})[label] != text for label, text in before.items()
    )
    runs = demo_config["observations"]
    extra = {**runs[0], "obs_id": 2001, "start": "2024-02-20 20:00:00"}
    Path("sim.yaml").write_text(yaml.safe_dump({**demo_config, "observations": [*runs, extra]}))
    after = jobs()
    assert len(after) > len(before)
    assert {label: after[label] for label in before} == before


def test_intervals_may_stand_in_a_table(tmp_path: Path) -> None:
    spans = [json.loads(s.job.options)["span"] for s in curve().slices.values()]
    low, high = spans[0]
    table = QTable(
        {"time_min": [low, 0.5 * (low + high)] * u.d, "time_max": [0.5 * (low + high), high] * u.d}
    )
    table.write(tmp_path / "bins.ecsv")
    found = curve(reduction="cube", time={"intervals": "bins.ecsv"})
    assert [json.loads(s.job.options)["ends"] for s in found.slices.values()] == [
        pytest.approx([low, 0.5 * (low + high)], abs=1e-9),
        pytest.approx([0.5 * (low + high), high], abs=1e-9),
    ]
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"none\.csv: has neither the columns 'time_min'"):
        curve(reduction="cube", time={"intervals": "none.csv"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time": "nights"}, ["curve.time: expected `run`, `night`"]),
        ({"time": {"width": "10"}}, ["curve.time", "unit"]),
        (
            {"time": {"intervals": [["2005-01-01", "2005-01-02"]]}},
            ["curve.time: no run lies in any of the bins"],
        ),
        ({"blocks": 2}, ["curve.blocks: expected a probability"]),
        ({"source": "crap"}, ["unknown source 'crap'"]),
        ({"energy": {"min": "20 TeV", "max": "30 TeV"}}, ["curve.energy"]),
        ({"reduction": "cube", "fit": "joint"}, ["give either `fit`"]),
    ],
)
def test_mistakes_of_a_light_curve_are_told_before_any_job(options: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        curve(**options)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_phase_curve_has_a_bin_of_all_runs_per_phase() -> None:
    entry = {"name": "phase_curve", "source": "crab", "reduction": "cube", "phase": [0, 0.3, 1]}
    found = load({"curve": entry}).analyses["a"].estimators["curve"]
    assert list(found.slices) == ["phase-0-0.3", "phase-0.3-1"]
    told = json.loads(found.slices["phase-0-0.3"].job.options)
    assert (told["cut"], told["ends"], len(told["runs"])) == ("phase", [0, 0.3], 4)
