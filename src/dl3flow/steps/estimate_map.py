"""DL4, with or without a fit, to DL5: excess, significance and residual maps.

Inputs: datasets; fit (a fit.json, or none).
Outputs: map.
Options: estimator (name and its options), energy (limits by reduction, {} for none).
"""

from pathlib import Path
from typing import Any

from dl3flow.estimators import MAPS
from dl3flow.fit.energy_range import limit_energies
from dl3flow.io.datasets import read_fit_datasets
from dl3flow.io.products import read_fit
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import write_sky_map


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Estimate one set of maps."""
    estimate, bound = MAPS.bind(options["estimator"], "estimator")
    datasets = limit_energies(read_fit_datasets(inputs["datasets"]), options["energy"])
    result = next((read_fit(path) for path in inputs["fit"]), None)
    write_sky_map(outputs["map"], estimate(datasets, result, **bound), provenance)
