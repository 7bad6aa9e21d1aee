"""DL3 and models to one bin of a light curve or phase curve: the parts of runs that lie in it, reduced and measured.

Inputs: events; responses; mask; off (events of further runs); off_responses; models (background models); fit (a fit.json, or none).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: slice.
Options: those of measure_datasets; cut (time or phase); runs (options of the reduction of each, with reduction, n_masks, n_models).
"""

from pathlib import Path
from typing import Any

from dl3flow.io.provenance import Provenance
from dl3flow.io.slices import write_slice
from dl3flow.steps.reading.parts import reduce_parts
from dl3flow.steps.reading.slices import read_models, slice_of


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Measure one bin; why there is nothing to measure is recorded in its place."""
    models, result = read_models(inputs, options)
    found = slice_of(options, models, lambda: reduce_parts(inputs, options), result)
    write_slice(outputs["slice"], found, provenance)
