"""DL4 to DL5: fit the models to the datasets.

Inputs: datasets; external (files of data reduced elsewhere).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: fit, models, covariance.
Options: models (components), free (background parameters), systematics, minos, profiles, contours, inputs (what the external
files are), energy and region (limits by reduction), groups (of observations that are stacked), precision (float64 or float32),
stream (datasets are read one at a time, their compact forms kept on a disk).
Settings: on_error=stop or skip; threads=N.
"""

import sys
from pathlib import Path
from typing import Any

from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.settings import FitSettings
from dl3flow.fit.systematics import add_responses
from dl3flow.fit.uncertainties import with_uncertainties
from dl3flow.io.models_yaml import parse_models, write_models
from dl3flow.io.products import write_fit
from dl3flow.io.provenance import Provenance
from dl3flow.steps.reading.datasets import read_datasets, storage


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Fit jointly; each dataset without a background model gets one."""
    datasets = read_datasets(inputs, options)
    models = add_backgrounds(datasets, parse_models(options["models"], "models"), options["free"])
    models = add_responses(models, datasets, options.get("systematics", []))
    with storage(options) as store:
        settings = FitSettings(options.get("precision", "float64"), int(options.get("threads", 1)), store)
        result = with_uncertainties(datasets, fit(datasets, models, settings), options, settings)
    for doubt in result.doubts:
        print(f"dl3flow: warning: {doubt}", file=sys.stderr)
    write_models(outputs["models"], result.models, result.free, result.covariance, provenance)
    write_fit(outputs["fit"], result, provenance)
