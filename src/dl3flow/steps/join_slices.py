"""DL5: the bins of a light curve or phase curve to its table.

Inputs: slices; fit (a fit.json, or none).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: table.
Options: estimator (name and its options), models (components, without a fit), told (warnings).
"""

from pathlib import Path
from typing import Any

from dl3flow.estimators import TABLES
from dl3flow.io.products import write_table
from dl3flow.io.provenance import Provenance
from dl3flow.io.slices import read_slice
from dl3flow.steps.reading.slices import read_models


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Fit each bin, and what they have in common."""
    plugin, bound = TABLES.bind(options["estimator"], "estimator")
    models, _ = read_models(inputs, options)
    slices = [read_slice(path) for path in inputs["slices"]]
    join = plugin.companions["join"]
    write_table(outputs["table"], join(slices, models, **bound, told=options["told"]), provenance)
