"""What several steps read alike: the datasets of a fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from warnings import warn

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.io.hdf5 import read_dataset, read_failure
from dl3flow.io.skymaps import read_map_dataset
from dl3flow.registry import convert


def read_reduced(paths: Sequence[Path]) -> Iterator[Dataset]:
    """Reduced observations, one at a time; says which ones are left out because they could not be reduced."""
    for path in paths:
        reason = read_failure(path)
        if reason is None:
            yield read_dataset(path)
        else:
            warn(f"{path.stem} is left out: {reason}", stacklevel=2)


def read_fit_datasets(paths: Sequence[Path], energy: Mapping[str, Any]) -> list[Dataset]:
    """Stacks and reduced observations, each limited to the energy range that the fit asks of its reduction."""
    stacks = [read_map_dataset(path, path.parent.name) for path in paths if path.suffix == ".fits"]
    runs = read_reduced([path for path in paths if path.suffix != ".fits"])
    return [limit_energy(dataset, energy.get(_reduction(dataset))) for dataset in [*stacks, *runs]]


def limit_energy(dataset: Dataset, limits: Sequence[str] | None) -> Dataset:
    """Dataset whose fit mask keeps the energy bins that lie whole within the limits."""
    if limits is None:
        return dataset
    low, high = convert(limits, list[u.Quantity[u.TeV]], f"energy of '{dataset.name}'")
    keep = np.broadcast_to(dataset.energy.contains_bin(low, high)[:, None, None], dataset.mask_safe.shape)
    return replace(dataset, mask_fit=keep if dataset.mask_fit is None else dataset.mask_fit & keep)


def _reduction(dataset: Dataset) -> str:
    """A reduced observation is called ``<reduction>-<obs_id>``, a stack as its reduction."""
    reduction, _, obs_id = dataset.name.rpartition("-")
    return reduction if reduction and [int(obs_id)] == list(dataset.meta["obs_ids"]) else dataset.name
