"""DL4 to DL5: fit the models to the datasets.

Inputs: datasets; external (files of data reduced elsewhere).
Outputs: fit, models.
Options: models (components), free (background parameters), inputs (what the external files are), energy and region (limits by reduction).
Settings: on_error=stop or skip.
"""

from pathlib import Path
from typing import Any

from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.io.models_yaml import parse_models, write_models
from dl3flow.io.products import write_fit
from dl3flow.io.provenance import Provenance
from dl3flow.steps.reading.datasets import read_datasets


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Fit jointly; each dataset without a background model gets one."""
    datasets = read_datasets(inputs, options)
    models = add_backgrounds(datasets, parse_models(options["models"], "models"), options["free"])
    result = fit(datasets, models)
    write_models(outputs["models"], result.models, result.free, result.covariance, provenance)
    write_fit(outputs["fit"], result, provenance)
