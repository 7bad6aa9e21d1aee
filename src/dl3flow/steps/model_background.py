"""DL3: build background models from further runs, for the reductions that use them.

Inputs: off (events); off_responses; mask.
Outputs: models.
Options: background (with the builder's options in ``model``), off (runs).
"""

from functools import partial
from pathlib import Path
from typing import Any

from dl3flow.background.section import parse_background
from dl3flow.errors import InputError
from dl3flow.io.background_models import write_background_models
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_mask
from dl3flow.steps.reading.runs import read_runs


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Build the models of all zenith bins."""
    section = parse_background(options["background"], "background")
    if section.build is None:
        raise InputError(
            "model_background: the background method builds no model: name one such as `acceptance`"
        )
    usable = partial(section.usable_sky, whole=None, drawn=read_mask(inputs["mask"]))
    models = section.build(read_runs(options["off"], inputs["off"]), usable)
    write_background_models(outputs["models"], models, provenance)
