"""DL3 to DL4: bin one observation, with responses, safe mask and background; a record of why, where that fails.

Inputs: events; responses; mask. Outputs: dataset. Options: name, entry, recipe, safe_mask, background.
"""

import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dl3flow.background.registry import BackgroundInputs
from dl3flow.background.section import parse_background
from dl3flow.data.index import ObservationEntry
from dl3flow.errors import InputError
from dl3flow.io.gadf import read_observation
from dl3flow.io.hdf5 import write_dataset, write_failure
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_mask
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.safe_mask import apply_safe_masks


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Reduce one observation; what is wrong with its data is recorded in place of the dataset."""
    entry = ObservationEntry.from_json(options["entry"])
    try:
        observation = read_observation(entry, entry.root_of(inputs["events"][0]))
        recipe, bound = RECIPES.bind(options["recipe"], "recipe")
        masks = [SAFE_MASKS.bind(mask, "safe_mask") for mask in options["safe_mask"]]
        dataset = apply_safe_masks(observation, recipe(observation, options["name"], **bound), masks)
        if options["background"] is not None:
            section = parse_background(options["background"], "background")
            whole, _ = recipe.companions["geometry"](**bound)
            usable = partial(section.usable_sky, whole=whole, drawn=read_mask(inputs["mask"]))
            signal = section.subtract and _known(section.subtract, dataset)
            dataset = section.method(
                observation, dataset, BackgroundInputs(usable, signal), **section.options
            )
    except InputError as error:
        print(f"dl3flow: warning: observation {entry.obs_id} is not reduced: {error}", file=sys.stderr)
        write_failure(outputs["dataset"], options["name"], entry.obs_id, str(error), provenance)
    else:
        write_dataset(outputs["dataset"], dataset, provenance)


def _known(models: Any, dataset: Any) -> Any:
    # by name, so that the digest of a reduction holds the code of models only where one is subtracted
    parse, predict = import_module("dl3flow.io.models_yaml"), import_module("dl3flow.fit.npred")
    return predict.predict_counts(dataset, parse.parse_models(models, "subtract"))[0]
