"""DL4: counts drawn from what models predict, in place of those of a dataset.

Inputs: datasets (a reduced observation, or a stack).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: dataset (FITS, which an analysis takes as `inputs` with the reader `dataset`).
Options: models (components), seed, name (of the dataset; default that of the input).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.fit.npred import predict_counts
from dl3flow.io.datasets import read_fit_datasets
from dl3flow.io.fits_datasets import write_fits_dataset
from dl3flow.io.models_yaml import parse_models
from dl3flow.io.provenance import Provenance
from dl3flow.registry import convert
from dl3flow.simulate.fake import fake


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Draw Poisson counts of the models and the background, and off counts of the same background."""
    found = read_fit_datasets(inputs["datasets"], "stop")
    if len(found) != 1 or not isinstance(found[0], Dataset):
        raise InputError(f"--input datasets: expected one reduced observation or stack, found {len(found)}")
    dataset = replace(found[0], name=options.get("name", found[0].name))
    signal, background = predict_counts(dataset, parse_models(options["models"], "models"))
    seed = convert(options["seed"], int, "seed")
    if seed < 0:
        raise InputError(f"seed: must not be negative, found {seed}")
    write_fits_dataset(outputs["dataset"], fake(dataset, signal, seed, background=background), provenance)
