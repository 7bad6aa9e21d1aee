"""Observation index and HDU index of simulated data.

Inputs: none.
Outputs: observations, hdus.
Options: entries (of the index).
"""

from pathlib import Path
from typing import Any

from dl3flow.data.index import ObservationEntry
from dl3flow.io.gadf_index import write_hdu_index, write_observation_index
from dl3flow.io.provenance import Provenance


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Write both index files."""
    entries = [ObservationEntry.from_json(entry) for entry in options["entries"]]
    write_observation_index(outputs["observations"], entries)
    write_hdu_index(outputs["hdus"], entries)
