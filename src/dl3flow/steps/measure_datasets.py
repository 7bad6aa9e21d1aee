"""DL4 and models to one bin of a light curve: what its runs say about the strength of a source.

Inputs: datasets; fit (a fit.json, or none).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: slice.
Options: label, ends (null for those of the good times), span (for the table, if it fails), source, band_energy, energy and region
(limits by reduction), models (components, without a fit).
"""

from pathlib import Path
from typing import Any

from dl3flow.data.dataset import Dataset
from dl3flow.io.hdf5 import read_dataset, read_failure
from dl3flow.io.provenance import Provenance
from dl3flow.io.slices import write_slice
from dl3flow.steps.reading.slices import read_models, slice_of


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Measure one bin; why there is nothing to measure is recorded in its place."""
    models, result = read_models(inputs, options)
    write_slice(
        outputs["slice"], slice_of(options, models, lambda: _read(inputs["datasets"]), result), provenance
    )


def _read(paths: list[Path]) -> tuple[list[tuple[Dataset, str, int]], list[str]]:
    why = {path: reason for path in paths if (reason := read_failure(path)) is not None}
    told = [f"observation {path.stem} is left out: {reason}" for path, reason in why.items()]
    usable = [path for path in paths if path not in why]
    return [(read_dataset(path), path.parent.name, int(path.stem)) for path in usable], told
