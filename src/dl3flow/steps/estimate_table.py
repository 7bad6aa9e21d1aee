"""DL4, with or without a fit, to DL5: flux points, light curves, profiles, lists of sources.

Inputs: datasets; external (files of data reduced elsewhere); fit (a fit.json, or none).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: table.
Options: estimator (name and its options), inputs (what the external files are), energy and region (limits by reduction, {} for none),
groups (of observations that are stacked).
"""

from pathlib import Path
from typing import Any

from dl3flow.estimators import TABLES
from dl3flow.io.products import read_fit, write_table
from dl3flow.io.provenance import Provenance
from dl3flow.steps.reading.datasets import read_datasets


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Estimate one table."""
    estimate, bound = TABLES.bind(options["estimator"], "estimator")
    datasets = read_datasets(inputs, options)
    result = next((read_fit(path) for path in inputs["fit"]), None)
    write_table(outputs["table"], estimate(datasets, result, **bound), provenance)
