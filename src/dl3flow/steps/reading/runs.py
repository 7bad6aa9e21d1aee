"""Observations as steps read them: a run's entry, its file, and the choice of its events."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dl3flow.chain import FILTER
from dl3flow.data.index import ObservationEntry
from dl3flow.data.observation import Observation
from dl3flow.io.gadf import read_observation


def read_run(run: Mapping[str, Any], events: Path) -> Observation:
    """Observation of a run (``entry`` and ``events``, the criteria of its events), from the file of its events."""
    entry = ObservationEntry.from_json(run["entry"])
    observation: Observation = read_observation(entry, entry.root_of(events))
    if run.get("events"):
        observation = FILTER(observation, **FILTER.bind(run["events"], "events"))
    return observation


def read_runs(runs: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> Iterator[Observation]:
    """Observations of several runs, one at a time."""
    return (read_run(run, file) for run, file in zip(runs, files, strict=True))
