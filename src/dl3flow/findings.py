"""A full check of one analysis without running it: its configuration, and every DL3 file that it uses."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dl3flow.checks import as_mapping
from dl3flow.config import load_config
from dl3flow.data.dataset import FitData
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.io.datasets import READERS
from dl3flow.io.gadf import read_observation
from dl3flow.io.yaml import read_yaml


def check_analysis(path: Path, config_path: Path) -> list[str]:
    """Findings of a full check of one analysis, one sentence each: its configuration, then every file it uses.

    What is only to be known, not to be repaired, begins with ``warning: ``.

    Parameters
    ----------
    path : Path
        Analysis file.
    config_path : Path
        Where the data sources are named.
    """
    try:
        config = {**as_mapping(read_yaml(config_path), str(config_path)), "analyses": [str(path)]}
        plan = load_config(config, str(config_path))
    except InputError as error:
        return [str(error)]
    findings = []
    for analysis in plan.analyses.values():
        runs = {(r.source.name, k): r.source for r in analysis.reductions.values() for k in r.jobs}
        further = [r.further for r in analysis.reductions.values() if r.further is not None]
        runs |= {(f.source.name, k): f.source for f in further for k in f.selected}
        runs |= {
            (e.source.name, k): e.source for e in analysis.estimators.values() if e.source for k in e.obs_ids
        }
        for (_, obs_id), source in runs.items():
            if not source.simulations:
                findings += _findings(partial(read_observation, source.entries[obs_id], Path(source.root)))
        for name, given in analysis.inputs.items():
            for file in given.main:
                findings += _findings(partial(READERS[given.reader], Path(file), name))
    return list(dict.fromkeys(findings))


def _findings(read: Callable[[], Observation | FitData]) -> list[str]:
    """What reading a file has to say: the sentence of its error, or its warnings."""
    try:
        return [f"warning: {warning}" for warning in read().meta.get("warnings", [])]
    except InputError as error:
        return [str(error)]
