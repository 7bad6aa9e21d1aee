"""The energies and the sky that a fit is limited to, as the fit mask of its datasets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData
from dl3flow.errors import InputError
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.registry import convert


def limit_energies(datasets: Sequence[FitData], limits: Mapping[str, Sequence[str]]) -> list[FitData]:
    """Datasets whose fit mask keeps the energy bins, or the flux points, that lie whole within the limits of their reduction.

    Parameters
    ----------
    datasets : sequence of Dataset
    limits : mapping
        Lowest and highest energy, as text with a unit, by the name of a reduction or input; no entry, no limit.
    """
    return [_limited(dataset, limits.get(_reduction(dataset, limits))) for dataset in datasets]


def limit_sky(datasets: Sequence[FitData], regions: Mapping[str, str]) -> list[FitData]:
    """Datasets whose fit mask keeps the pixels with their centre in the region of their reduction.

    Parameters
    ----------
    datasets : sequence of Dataset
    regions : mapping
        DS9 text, by the name of a reduction or input; no entry, no limit.

    Raises
    ------
    InputError
        For a spectrum, which has one pixel, or flux points, which have none.
    """
    return [_within(dataset, regions.get(_reduction(dataset, regions))) for dataset in datasets]


def _within(dataset: FitData, text: str | None) -> FitData:
    if text is None:
        return dataset
    if isinstance(dataset, FluxPointsData):
        raise InputError(f"region of '{dataset.name}': flux points have no sky: leave it out")
    inside = region_mask(dataset.counts.sky, parse_regions(text, f"region of '{dataset.name}'"))
    return _kept(dataset, np.broadcast_to(inside, dataset.mask_safe.shape))


def _kept(dataset: Dataset, keep: np.ndarray) -> Dataset:
    return replace(dataset, mask_fit=keep if dataset.mask_fit is None else dataset.mask_fit & keep)


def _limited(dataset: FitData, limits: Sequence[str] | None) -> FitData:
    if limits is None:
        return dataset
    low, high = convert(limits, list[u.Quantity[u.TeV]], f"energy of '{dataset.name}'")
    if isinstance(dataset, FluxPointsData):
        inside = (dataset.energy_ref >= low) & (dataset.energy_ref <= high)
        return replace(dataset, mask=dataset.mask & inside)
    keep = np.broadcast_to(dataset.energy.contains_bin(low, high)[:, None, None], dataset.mask_safe.shape)
    return _kept(dataset, keep)


def _reduction(dataset: FitData, names: Iterable[str]) -> str:
    """A reduced observation is called ``<reduction>-<obs_id>``, a stack as its reduction, spectra of an input ``<input>-<n>``."""
    before, _, number = dataset.name.rpartition("-")
    alone = before and number.isdigit() and [int(number)] == list(dataset.meta.get("obs_ids", ()))
    own = before if alone else dataset.name
    return own if own in names or not number.isdigit() else before
