"""The steps of a light curve: bins measured from reduced runs or cut out of events, recorded failures, and their table."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
import yaml

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.hdf5 import read_dataset, write_dataset, write_failure
from dl3flow.io.products import read_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.slices import read_slice
from dl3flow.reduce.time_bins import parse_time_binning, plan_time_bins, span_of
from dl3flow.steps import join_slices, measure_datasets, measure_runs
from dl3flow.steps.reading.slices import named_as_fitted

ROOT = Path(__file__).resolve().parents[2]
CHAIN = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.15)",
        "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4},
        "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 10},
        "containment_correction": True,
    },
    "safe_mask": [],
    "background": {"name": "reflected"},
}
MODELS = yaml.safe_load((ROOT / "config/models/crab-spectrum.yaml").read_text())
PROVENANCE = collect_provenance("test", "0", {}, {})
NOTHING: dict[str, list[Path]] = {
    role: [] for role in ("datasets", "events", "responses", "mask", "off", "off_responses", "models", "fit")
}


def options(label: str, **more: Any) -> dict[str, Any]:
    """Options of one bin; the models as they stand."""
    own = {"source": "crab", "band_energy": None, "energy": {}, "region": {}, "models": MODELS}
    return {"label": label, "ends": None, "span": None, **own, **more}


@pytest.fixture(scope="module")
def entries(demo_dl3: Path) -> list[Any]:
    return sorted(read_index(demo_dl3), key=lambda e: e.obs_id)[:2]


@pytest.fixture(scope="module")
def measured(demo_dl3: Path, entries: list[Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The two runs as bins of their own and as one, and the halves of the first, each from its file."""
    folder = tmp_path_factory.mktemp("bins")
    found: dict[str, Any] = {}
    reduced = []
    for entry in entries:
        path = folder / "spectrum" / f"{entry.obs_id}.h5"
        path.parent.mkdir(exist_ok=True)
        run = read_observation(entry, demo_dl3)
        dataset = reduce_observation(run, f"spectrum-{entry.obs_id}", parse_chain(CHAIN, ""))
        write_dataset(path, dataset, PROVENANCE)
        reduced.append(path)
    for label, paths in {"one": reduced[:1], "two": reduced[1:], "both": reduced}.items():
        out = folder / f"{label}.json"
        measure_datasets.run({**NOTHING, "datasets": paths}, {"slice": out}, options(label), PROVENANCE)
        found[label] = out
    low, high = span_of(entries[0])
    middle = 0.5 * (low + high)
    runs = [
        {
            **CHAIN,
            "name": f"spectrum-{e.obs_id}",
            "reduction": "spectrum",
            "run": {"entry": json.loads(json.dumps(e.to_json())), "events": {}},
            "off": [],
            "n_masks": 0,
            "n_models": 0,
        }
        for e in entries
    ]
    files = [demo_dl3 / e.paths[0] for e in entries]
    for label, ends in {
        "first": (low, middle),
        "second": (middle, high),
        "before": (low - 1, low - 0.5),
    }.items():
        out = folder / f"{label}.json"
        own = options(label, ends=list(ends), span=list(ends), cut="time", runs=runs[:1])
        measure_runs.run({**NOTHING, "events": files[:1]}, {"slice": out}, own, PROVENANCE)
        found[label] = out
    found["runs"], found["files"] = runs, files
    return found


def counts(path: Path) -> float:
    (band,) = read_slice(path).bands
    return band.counts + sum(float(part.n.sum()) for part in band.parts)


def test_halves_of_a_run_hold_its_counts_and_its_livetime(measured: dict[str, Any]) -> None:
    whole, first, second = (read_slice(measured[key]) for key in ("one", "first", "second"))
    assert not first.failure
    assert counts(measured["first"]) + counts(measured["second"]) == counts(measured["one"]) > 20
    assert (first.livetime + second.livetime).to_value(u.s) == pytest.approx(
        whole.livetime.to_value(u.s), abs=1
    )
    assert first.livetime.to_value(u.s) == pytest.approx(0.5 * whole.livetime.to_value(u.s), rel=0.01)


def test_a_bin_without_good_time_is_recorded_and_the_others_stand(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    assert "no good time" in read_slice(measured["before"]).failure
    names = ("second", "before", "first")
    inputs = {**NOTHING, "slices": [measured[name] for name in names]}
    told = {
        "estimator": {"name": "light_curve", "source": "crab", "time": {"width": "10 min"}, "blocks": 0.05},
        "told": ["something"],
        "models": MODELS,
    }
    join_slices.run(inputs, {"table": tmp_path / "lc.ecsv"}, told, PROVENANCE)
    curve = read_table(tmp_path / "lc.ecsv")
    assert curve.table["success"].tolist() == [False, True, True]
    assert np.isnan(curve.table["norm"][0])
    assert np.isfinite(curve.table["norm"][1:]).all()
    assert (np.diff(curve.table["time_min"].to_value("d")) > 0).all()
    assert curve.meta["labels"] == ["before", "first", "second"]
    assert curve.meta["warnings"][0] == "something"
    assert "bin before has no result: its runs have no good time" in curve.meta["warnings"][1]
    # one simulated flux: one block of both bins
    assert curve.table["block"].tolist() == [-1, 0, 0]
    (block,) = curve.meta["blocks"]
    assert block["time_max"] - block["time_min"] == pytest.approx(
        (curve.table["time_max"][2] - curve.table["time_min"][1]).to_value("d")
    )


def test_a_bin_of_two_runs_is_fitted_jointly(measured: dict[str, Any], tmp_path: Path) -> None:
    rows = []
    for name in ("one", "two", "both"):
        inputs = {**NOTHING, "slices": [measured[name]]}
        told = {"estimator": {"name": "light_curve", "source": "crab"}, "told": [], "models": MODELS}
        join_slices.run(inputs, {"table": tmp_path / f"{name}.ecsv"}, told, PROVENANCE)
        rows.append(read_table(tmp_path / f"{name}.ecsv").table[0])
    one, two, both = rows
    assert both["counts"] == one["counts"] + two["counts"]
    assert both["dataset"] == f"{one['dataset']}, {two['dataset']}"
    assert min(one["norm"], two["norm"]) < both["norm"] < max(one["norm"], two["norm"])
    assert both["norm_err"] == pytest.approx(
        (one["norm_err"] ** -2 + two["norm_err"] ** -2) ** -0.5, rel=0.05
    )


def test_a_run_that_failed_is_left_out_of_its_bin(
    measured: dict[str, Any], tmp_path: Path, entries: list[Any]
) -> None:
    good = measured["one"].parent / "spectrum" / f"{entries[0].obs_id}.h5"
    bad = tmp_path / "spectrum" / "77.h5"
    bad.parent.mkdir()
    write_failure(bad, "spectrum-77", 77, "its file is broken", PROVENANCE)
    measure_datasets.run(
        {**NOTHING, "datasets": [good, bad]}, {"slice": tmp_path / "a.json"}, options("a"), PROVENANCE
    )
    found = read_slice(tmp_path / "a.json")
    assert (found.failure, found.warnings) == ("", ("observation 77 is left out: its file is broken",))
    measure_datasets.run(
        {**NOTHING, "datasets": [bad]},
        {"slice": tmp_path / "b.json"},
        options("b", span=[1.0, 2.0]),
        PROVENANCE,
    )
    found = read_slice(tmp_path / "b.json")
    assert "its file is broken" in found.failure
    assert (found.low, found.high) == (1.0, 2.0)


def test_phases_of_a_period(measured: dict[str, Any], tmp_path: Path) -> None:
    """Four bins of phase hold all events, and a constant source has the same flux in all of them."""
    events = {"ephemeris": {"epoch": 60000.0, "f0": "0.0166666 Hz"}}
    runs = [{**run, "run": {**run["run"], "events": events}} for run in measured["runs"]]
    slices = []
    for k in range(4):
        out = tmp_path / f"{k}.json"
        ends = [k / 4, (k + 1) / 4]
        own = options(f"phase-{k}", ends=ends, span=ends, cut="phase", runs=runs)
        measure_runs.run({**NOTHING, "events": measured["files"]}, {"slice": out}, own, PROVENANCE)
        slices.append(out)
    assert sum(counts(path) for path in slices) == counts(measured["both"])
    told = {"estimator": {"name": "phase_curve", "source": "crab", "phase": 4}, "told": [], "models": MODELS}
    join_slices.run({**NOTHING, "slices": slices}, {"table": tmp_path / "p.ecsv"}, told, PROVENANCE)
    curve = read_table(tmp_path / "p.ecsv")
    assert curve.kind == "phase_curve"
    assert curve.table["phase_min"].tolist() == [0, 0.25, 0.5, 0.75]
    pulls = (curve.table["norm"] - 1) / curve.table["norm_err"]
    assert np.abs(pulls).max() < 4
    np.testing.assert_allclose(
        curve.table["flux"].to_value("cm-2 s-1"),
        (curve.table["norm"] * curve.table["ref_flux"]).to_value("cm-2 s-1"),
    )
    assert "doubling_time" not in curve.meta["variability"][0]


def test_the_grid_of_a_width_and_the_cuts_agree(entries: list[Any]) -> None:
    bins = plan_time_bins(parse_time_binning({"width": "5 min"}), entries)
    assert all(b.cut == "time" and b.high - b.low == pytest.approx(5 / 1440, abs=1e-9) for b in bins)


@pytest.mark.parametrize(
    ("fitted", "expected"),
    [
        ([("spectrum-1001", (1001,)), ("spectrum-1002", (1002,))], "spectrum-1001"),
        # a stack, whose backgrounds and other restricted models are those of its runs
        ([("spectrum", (1001, 1002))], "spectrum"),
        (
            [("spectrum-night-a", (1002,)), ("spectrum-night-b", (1001,)), ("other", (1001,))],
            "spectrum-night-b",
        ),
        ([("other", (1001,))], "spectrum-1001"),
    ],
)
def test_a_run_has_the_models_of_what_the_fit_made_of_it(
    measured: dict[str, Any], fitted: list[tuple[str, tuple[int, ...]]], expected: str
) -> None:
    dataset = read_dataset(measured["one"].parent / "spectrum" / "1001.h5")
    result: Any = SimpleNamespace(datasets=[SimpleNamespace(name=n, obs_ids=ids) for n, ids in fitted])
    assert named_as_fitted(dataset, "spectrum", 1001, result).name == expected
