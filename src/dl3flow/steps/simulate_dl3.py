"""Nothing to DL3: simulate one observation.

Inputs: none.
Outputs: events.
Options: those of a simulation file with one observation.
"""

from pathlib import Path
from typing import Any

from dl3flow.io.gadf_write import write_observation
from dl3flow.io.provenance import Provenance
from dl3flow.simulate.events import simulate_observation
from dl3flow.simulate.plan import parse_simulation


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Simulate the one observation of the options."""
    simulation = parse_simulation(options, "simulation")
    write_observation(outputs["events"], simulate_observation(simulation, simulation.runs[0].obs_id))
