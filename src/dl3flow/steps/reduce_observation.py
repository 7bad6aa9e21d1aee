"""DL3 to DL4: bin one observation, with responses, safe mask and background; a record of why, where that fails.

Inputs: events; responses; mask; off (events of further runs); off_responses; models (background models).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: dataset.
Options: name, run (entry, events), recipe, safe_mask, background, off (runs).
"""

import sys
from pathlib import Path
from typing import Any

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.errors import InputError
from dl3flow.io.background_models import read_background_models
from dl3flow.io.hdf5 import write_dataset, write_failure
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_mask
from dl3flow.steps.reading.known import predict_known
from dl3flow.steps.reading.runs import read_run, read_runs


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Reduce one observation; what is wrong with its data is recorded in place of the dataset."""
    try:
        chain = parse_chain(options, "")
        observation = read_run(options["run"], inputs["events"][0])
        off = list(read_runs(options["off"], inputs["off"]))
        models = [model for path in inputs["models"] for model in read_background_models(path)]
        drawn = read_mask(inputs["mask"])
        dataset = reduce_observation(
            observation, options["name"], chain, drawn, off, models, predict_known(chain)
        )
    except InputError as error:
        obs_id = options["run"]["entry"]["obs_id"]
        print(f"dl3flow: warning: observation {obs_id} is not reduced: {error}", file=sys.stderr)
        write_failure(outputs["dataset"], options["name"], obs_id, str(error), provenance)
    else:
        write_dataset(outputs["dataset"], dataset, provenance)
