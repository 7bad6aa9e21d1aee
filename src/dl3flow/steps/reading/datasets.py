"""The datasets of a fit as steps read them: reduced here or elsewhere, stacked in groups, within the fit's energies and sky."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.lazy import LazyDatasets
from dl3flow.errors import InputError
from dl3flow.fit.limits import limit_energies, limit_sky
from dl3flow.io.datasets import read_failures, read_fit_datasets, read_reduced
from dl3flow.io.hdf5 import read_dataset

Store = Callable[[Mapping[str, np.ndarray]], Callable[[], Mapping[str, np.ndarray]]]


@contextmanager
def storage(options: Mapping[str, Any]) -> Iterator[Store | None]:
    """Where a fit keeps the compact forms of its datasets: on a disk where it streams, else None for the memory."""
    if not options.get("stream"):
        yield None
        return
    # by name, so that the digest of a step holds this code only where it streams
    with import_module("dl3flow.io.term_store").open_store() as store:
        yield store


def read_datasets(inputs: dict[str, list[Path]], options: dict[str, Any]) -> Sequence[FitData]:
    """Datasets of a fit, or of an estimator that follows it; of a fit that streams, runs are read when they are needed."""
    on_error, groups = options.get("on_error", "skip"), options.get("groups") or {}
    found: list[FitData] = []
    for reduction, entry in groups.items():
        files = [path for path in inputs["datasets"] if path.parent.name == reduction]
        for label, stacked in _stacks(reduction, entry, files, on_error):
            # the limits are those of the reduction, whose name a group's begins with
            found += [replace(d, name=f"{reduction}-{label}") for d in _limited([stacked], options)]
    rest = [path for path in inputs["datasets"] if path.parent.name not in groups]
    external = inputs.get("external", [])
    if options.get("stream"):
        runs = [path for path in rest if path.suffix != ".fits"]
        failed = read_failures(runs, on_error)
        for path, why in failed.items():
            warn(f"{path.stem} is left out: {why}", stacklevel=2)
        rest = [path for path in rest if path.suffix == ".fits"]
        lazy = [partial(_read_limited, path, options) for path in runs if path not in failed]
        found += _limited(read_fit_datasets(rest, on_error, external, options.get("inputs", {})), options)
        return LazyDatasets([*(partial(_kept, d) for d in found), *lazy])
    others = read_fit_datasets(rest, on_error, external, options.get("inputs", {}))
    return [*found, *_limited(others, options)]


def _read_limited(path: Path, options: Mapping[str, Any]) -> FitData:
    return _limited([read_dataset(path)], options)[0]


def _kept(dataset: FitData) -> FitData:
    return dataset


def _limited(datasets: Sequence[FitData], options: Mapping[str, Any]) -> list[FitData]:
    return limit_sky(limit_energies(datasets, options["energy"]), options.get("region", {}))


def _stacks(
    reduction: str, entry: Mapping[str, Any], files: Sequence[Path], on_error: str
) -> Iterator[tuple[str, Dataset]]:
    """Name and stack of each group of a reduction."""
    # by name, so that the digest of a step holds the code of stacking only where it stacks
    recipes, groupings, stacking = (
        import_module(f"dl3flow.reduce{name}") for name in ("", ".groupings", ".stack")
    )
    recipe, bound = recipes.RECIPES.bind(entry["recipe"], "recipe")
    geometries = recipe.companions["geometry"](**bound)
    failed = read_failures(files, on_error)
    usable = [path for path in files if path not in failed]
    groups = entry["runs"] or groupings.group_datasets(entry["by"], read_reduced(usable, on_error))
    for label, obs_ids in groups.items():
        own = [path for path in files if int(path.stem) in obs_ids]
        if all(path in failed for path in own):
            warn(
                f"the group {reduction}-{label} is left out: none of its runs could be reduced", stacklevel=2
            )
            continue
        try:
            yield label, stacking.stack(read_reduced(own, on_error), reduction, *geometries)
        except InputError as error:
            raise InputError(f"group '{reduction}-{label}': {error}") from None
