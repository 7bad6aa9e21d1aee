"""What the steps of light curves and phase curves share: models, names of datasets, and a slice with why it failed."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult
from dl3flow.data.slices import Slice, failed_slice
from dl3flow.errors import InputError
from dl3flow.estimators.slices import EnergyBands, measure_slice
from dl3flow.fit.limits import limit_energies, limit_sky
from dl3flow.io.models_yaml import parse_models
from dl3flow.io.products import read_fit
from dl3flow.models.source import Models
from dl3flow.registry import convert


def read_models(
    inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]
) -> tuple[Models, FitResult | None]:
    """Models at the best fit, with the fit, or those of the options as they stand."""
    result = next((read_fit(path) for path in inputs["fit"]), None)
    return (parse_models(options["models"], "models") if result is None else result.models), result


def named_as_fitted(dataset: Dataset, reduction: str, obs_id: int, result: FitResult | None) -> Dataset:
    """The dataset under the name that the fit gave it, or the stack that holds it, so that the same models are its own."""
    if result is None:
        return dataset
    names = [d.name for d in result.datasets if obs_id in d.obs_ids or d.name == reduction]
    wanted = [f"{reduction}-{obs_id}", reduction, *(n for n in names if n.startswith(f"{reduction}-"))]
    found = next((name for name in wanted if name in names), dataset.name)
    return replace(dataset, name=found)


def slice_of(
    options: Mapping[str, Any],
    models: Models,
    read: Callable[[], tuple[Sequence[tuple[Dataset, str, int]], list[str]]],
    result: FitResult | None,
) -> Slice:
    """Slice of the datasets that ``read`` gives with their reduction and run; a failure where it has nothing to measure.

    Parameters
    ----------
    options : mapping
        ``label``, ``ends``, ``span``, ``source``, ``band_energy``, ``energy`` and ``region`` (limits).
    models : Models
    read : function
        Of nothing; gives the datasets, and a sentence for each run that is left out.
    result : FitResult or None
    """
    energy = convert(options["band_energy"], EnergyBands | None, "energy")
    try:
        found, told = read()
        if not found:
            raise InputError("; ".join(told) or "its runs have no good time in it")
        datasets = [named_as_fitted(_limited(d, options), name, obs_id, result) for d, name, obs_id in found]
        ends = options["ends"] and tuple(options["ends"])
        measured = measure_slice(options["label"], datasets, models, options["source"], energy, ends)
    except InputError as error:
        print(f"dl3flow: warning: bin {options['label']} has no result: {error}", file=sys.stderr)
        low, high = options["span"] or (None, None)
        return failed_slice(options["label"], low, high, str(error))
    return replace(measured, warnings=(*told, *measured.warnings))


def _limited(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
    """The dataset within the energies and the sky of the fit."""
    (limited,) = limit_sky(limit_energies([dataset], options["energy"]), options["region"])
    assert isinstance(limited, Dataset)
    return limited
