"""Observations as steps read them: a run's entry, its file, and the choice of its events."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dl3flow.chain import FILTER
from dl3flow.data.index import ObservationEntry
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
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


def read_usable_runs(
    runs: Sequence[Mapping[str, Any]], files: Sequence[Path], on_error: str, left_out: list[str]
) -> Iterator[Observation]:
    """Observations of several runs, one at a time; with ``on_error`` skip a sentence in ``left_out`` for each that cannot be read.

    Raises
    ------
    InputError
        If one cannot be read and ``on_error`` is stop, or none can.
    """
    n_read = 0
    for run, file in zip(runs, files, strict=True):
        try:
            observation = read_run(run, file)
        except InputError as error:
            if on_error == "stop":
                raise
            left_out.append(f"observation {run['entry']['obs_id']} is left out: {error}")
        else:
            n_read += 1
            yield observation
    if not n_read:
        raise InputError(f"none of the {len(left_out)} observations can be read: {'; '.join(left_out[:1])}")
