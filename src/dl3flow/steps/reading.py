"""What several steps read alike: the datasets of a fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from warnings import warn

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.io.hdf5 import read_dataset, read_failure
from dl3flow.io.skymaps import read_map_dataset
from dl3flow.registry import convert


def read_failures(paths: Sequence[Path], on_error: str) -> dict[Path, str]:
    """Why observations could not be reduced, by file.

    Raises
    ------
    InputError
        Listing all of them, if there are any and ``on_error`` is ``stop``.
    """
    failures = {path: why for path in paths if (why := read_failure(path)) is not None}
    if failures and on_error == "stop":
        listed = "".join(f"\n  {path.parent.name}/{path.stem}: {why}" for path, why in failures.items())
        raise InputError(
            f"{len(failures)} of {len(paths)} observations could not be reduced; repair them, leave them out in `select`, "
            f"or set `on_error: skip` to go on without them:{listed}"
        )
    return failures


def read_reduced(paths: Sequence[Path], on_error: str) -> Iterator[Dataset]:
    """Reduced observations, one at a time, without those that could not be reduced."""
    failures = read_failures(paths, on_error)
    for path, why in failures.items():
        warn(f"{path.stem} is left out: {why}", stacklevel=2)
    yield from (read_dataset(path) for path in paths if path not in failures)


def read_fit_datasets(
    paths: Sequence[Path], energy: Mapping[str, Any], on_error: str = "skip"
) -> list[Dataset]:
    """Stacks and reduced observations, each limited to the energy range that the fit asks of its reduction."""
    stacks = [read_map_dataset(path, path.parent.name) for path in paths if path.suffix == ".fits"]
    runs = read_reduced([path for path in paths if path.suffix != ".fits"], on_error)
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
