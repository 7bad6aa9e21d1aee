"""Nothing to DL3: simulate one observation.

Further inputs: responses (a file with those of the instrument), model_files (that models are read from), plugins (the
user's own models).
Outputs: events.
Options: those of a simulation file with one observation, its models written in place.
"""

from importlib import import_module
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
    models = irfs = None
    # by name, so that the digest of a job holds the code of reading only where it reads
    if "models" in options:
        models = import_module("dl3flow.io.models_yaml").parse_models(options["models"], "models")
    if inputs.get("responses"):
        irfs = import_module("dl3flow.io.gadf_irf").read_irfs(inputs["responses"][0])
    simulation = parse_simulation(options, "simulation", models)
    write_observation(outputs["events"], simulate_observation(simulation, simulation.runs[0].obs_id, irfs))
