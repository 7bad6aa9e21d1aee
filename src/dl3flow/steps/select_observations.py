"""The list of observations: those used, and those left out with the reason.

Inputs: datasets.
Outputs: observations.
Options: groups.
Settings: on_error=stop or skip.
"""

from pathlib import Path
from typing import Any

from dl3flow.io.datasets import read_failures
from dl3flow.io.hdf5 import read_dataset
from dl3flow.io.products import write_observation_table
from dl3flow.io.provenance import Provenance
from dl3flow.reduce.outcome import outcome


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Write the list; with the setting ``on_error=stop`` fail instead where observations could not be reduced."""
    why = read_failures(inputs["datasets"], options.get("on_error", "stop"))
    failures = {(path.parent.name, path.stem): reason for path, reason in why.items()}
    files = {(path.parent.name, path.stem): path for path in inputs["datasets"] if path not in why}
    rows = [
        outcome(name, group, entry, failures, lambda key: read_dataset(files[key]))
        for name, group in options["groups"].items()
        for entry in group["entries"]
    ]
    write_observation_table(outputs["observations"], rows, provenance)
