"""The step that reads events: all runs of a group, or those that can be read."""

import json
from pathlib import Path

import pytest

from dl3flow.errors import InputError
from dl3flow.io.gadf_index import read_index
from dl3flow.io.products import read_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.steps import estimate_events


def run(demo_dl3: Path, out: Path, files: list[Path] | None = None, **settings: str):
    """Phases of all events near the source, folded with a period of a minute."""
    entries = read_index(demo_dl3)
    events = {"ephemeris": {"epoch": 60000.0, "f0": "0.0166666 Hz"}}
    options = {
        "estimator": {"name": "phasogram", "region": "icrs;circle(83.63, 22.01, 0.1)", "n_bins": 5},
        "runs": [{"entry": json.loads(json.dumps(e.to_json())), "events": events} for e in entries],
    }
    inputs = {"events": files or [demo_dl3 / e.paths[0] for e in entries], "responses": []}
    provenance = collect_provenance("estimate_events", "0", options, {})
    estimate_events.run(inputs, {"table": out}, {**options, **settings}, provenance)
    return read_table(out)


def test_runs_that_cannot_be_read_stop_or_are_left_out_and_told(demo_dl3: Path, tmp_path: Path) -> None:
    whole = run(demo_dl3, tmp_path / "whole.ecsv")
    told = dict(whole.meta["summary"])
    assert told["observations"] == len(read_index(demo_dl3)) > 1
    assert whole.table["counts"].sum() == told["events"] > 100
    assert whole.meta["warnings"] == []
    files = [demo_dl3 / e.paths[0] for e in read_index(demo_dl3)]
    broken = tmp_path / "data" / files[0].name
    broken.parent.mkdir()
    broken.write_bytes(b"no FITS")
    with pytest.raises(InputError):
        run(demo_dl3, tmp_path / "x.ecsv", [broken, *files[1:]])
    rest = run(demo_dl3, tmp_path / "rest.ecsv", [broken, *files[1:]], on_error="skip")
    assert dict(rest.meta["summary"])["observations"] == told["observations"] - 1
    assert "is left out" in rest.meta["warnings"][0]
    with pytest.raises(InputError, match="none of the"):
        run(demo_dl3, tmp_path / "none.ecsv", [broken] * len(files), on_error="skip")
