"""DL4: sum the reduced observations of one reduction.

Inputs: datasets.
Outputs: dataset.
Options: name, recipe.
Settings: on_error=stop or skip.
"""

from pathlib import Path
from typing import Any

from dl3flow.io.datasets import read_reduced
from dl3flow.io.fits_datasets import write_fits_dataset
from dl3flow.io.provenance import Provenance
from dl3flow.reduce import RECIPES
from dl3flow.reduce.stack import stack


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Stack all observations; with the setting ``on_error=skip`` without those that could not be reduced."""
    recipe, bound = RECIPES.bind(options["recipe"], "recipe")
    geometries = recipe.companions["geometry"](**bound)
    datasets = read_reduced(inputs["datasets"], options.get("on_error", "stop"))
    stacked = stack(datasets, options["name"], *geometries)
    write_fits_dataset(outputs["dataset"], stacked, provenance)
