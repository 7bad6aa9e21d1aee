"""The section ``estimators``: what each is made from, checked before any job."""

import json
from pathlib import Path

import pytest
import yaml

from dl3flow.config import load_config
from dl3flow.errors import InputError
from dl3flow.plan import Plan

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
