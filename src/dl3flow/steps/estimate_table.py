"""DL4 and a fit to DL5: flux points, light curves.

Inputs: datasets; fit (a fit.json).
Outputs: table.
Options: estimator (name and its options), energy (limits by reduction, {} for none).
"""

from pathlib import Path
from typing import Any

from dl3flow.estimators import TABLES
from dl3flow.fit.energy_range import limit_energies
from dl3flow.io.datasets import read_fit_datasets
from dl3flow.io.products import read_fit, write_table
from dl3flow.io.provenance import Provenance


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Estimate one table."""
    estimate, bound = TABLES.bind(options["estimator"], "estimator")
    datasets = limit_energies(read_fit_datasets(inputs["datasets"]), options["energy"])
    write_table(outputs["table"], estimate(datasets, read_fit(inputs["fit"][0]), **bound), provenance)
