"""Parts of runs in time or phase, cut out of their events and reduced."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from astropy.time import Time

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.data.observation import Observation
from dl3flow.data.phase import PhaseIntervals
from dl3flow.errors import InputError
from dl3flow.io.background_models import read_background_models
from dl3flow.io.skymaps import read_mask
from dl3flow.reduce.filter import filter_observation, split_observation
from dl3flow.steps.reading.known import predict_known
from dl3flow.steps.reading.runs import read_run, read_runs

Parts = tuple[list[tuple[Dataset, str, int]], list[str]]


def reduce_parts(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> Parts:
    """Reduced parts with their reduction and run, and a sentence for each run that could not be reduced.

    A run without good time in the bin has no part, and is no failure: its index told its ends with some rounding.
    """
    found, told = [], []
    files = {role: iter(inputs[role]) for role in ("events", "mask", "off", "models")}
    for run in options["runs"]:
        obs_id = int(run["run"]["entry"]["obs_id"])
        own = _files_of(run, files)
        try:
            part = cut_out(read_run(run["run"], own["events"][0]), options["cut"], options["ends"])
            if part is not None:
                found.append((_reduced(part, run, own), run["reduction"], obs_id))
        except InputError as error:
            told.append(f"observation {obs_id} is left out: {error}")
    return found, told


def _files_of(run: Mapping[str, Any], files: Mapping[str, Iterator[Path]]) -> dict[str, list[Path]]:
    n_files = {"events": 1, "mask": run["n_masks"], "off": len(run["off"]), "models": run["n_models"]}
    return {role: list(islice(files[role], n)) for role, n in n_files.items()}


def _reduced(part: Observation, run: Mapping[str, Any], files: Mapping[str, Sequence[Path]]) -> Dataset:
    chain = parse_chain(run, "")
    off = list(read_runs(run["off"], files["off"]))
    models = [model for path in files["models"] for model in read_background_models(path)]
    drawn = read_mask(list(files["mask"]))
    return reduce_observation(part, run["name"], chain, drawn, off, models, predict_known(chain))


def cut_out(observation: Observation, cut: str, ends: Sequence[float]) -> Observation | None:
    """The part of an observation between two times, MJD (TT), or phases; None without good time there."""
    if cut == "phase":
        return filter_observation(observation, phase=PhaseIntervals.from_pairs([(ends[0], ends[1])]))
    start, stop = (Time(end, format="mjd", scale="tt") for end in ends)
    return next(iter(split_observation(observation, [(start, stop)])), None)
