"""DL4: write the spectra of one reduction, and their stack, as OGIP files.

Inputs: datasets.
Outputs: ogip (a folder).
Options: name.
Settings: on_error=stop or skip.
"""

from pathlib import Path
from typing import Any

from dl3flow.io.datasets import read_reduced
from dl3flow.io.files import make_folder
from dl3flow.io.ogip import write_ogip
from dl3flow.io.provenance import Provenance
from dl3flow.reduce.stack import stack


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Write one set of files per observation, named by it, and one for all in a folder of its own, named as the reduction."""
    datasets = list(read_reduced(inputs["datasets"], options.get("on_error", "stop")))
    folder = make_folder(outputs["ogip"])
    for dataset in datasets:
        write_ogip(folder, dataset, provenance)
    if len(datasets) > 1:
        geom = datasets[0].geom
        # apart, so that who reads the folder does not count every event twice
        write_ogip(make_folder(folder / "stacked"), stack(datasets, options["name"], geom, geom), provenance)
