"""Counts, background and signal of a region per energy band, of spectra as they are and of maps within a circle."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.npred import alpha_scale, predict_counts
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import region_mask
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.reduce.reshape import merged_acceptance_off


@dataclass(frozen=True, eq=False)
class RegionCounts:
    """Sums over the usable bins of a region in energy bands; all arrays have the shape (n_bands,).

    Attributes
    ----------
    n_bins : array
        Usable energy bins of datasets in each band.
    counts, background : array
        Counts, and what is expected of the background.
    counts_off, acceptance, acceptance_off : array, or None
        Of measured backgrounds, by the rules of a stack; None for known ones.
    signal : array
        Expected counts of the models' sources.
    """

    n_bins: np.ndarray
    counts: np.ndarray
    background: np.ndarray
    counts_off: np.ndarray | None
    acceptance: np.ndarray | None
    acceptance_off: np.ndarray | None
    signal: np.ndarray

    @property
    def alpha(self) -> np.ndarray | None:
        """Acceptance / acceptance_off; 0 where nothing was measured, None for known backgrounds."""
        if self.acceptance is None or self.acceptance_off is None:
            return None
        has_off = self.acceptance_off > 0
        return np.where(has_off, self.acceptance / np.where(has_off, self.acceptance_off, 1.0), 0.0)


def region_counts(
    dataset: Dataset,
    models: Models,
    bands: u.Quantity,
    region: RegionGeometry | None,
    where: str,
    correlate_off: bool = False,
) -> RegionCounts:
    """Sum a dataset over a region, in energy bands.

    Parameters
    ----------
    dataset : Dataset
    models : Models
        Of the signal, and of the background of a fit.
    bands : Quantity, shape (n_bands, 2)
        Lowest and highest energy; a bin belongs to a band in which it lies whole.
    region : RegionGeometry or None
        For maps: pixels whose centre lies within; None is all of them. Spectra have theirs.
    where : str
        What an error names.
    correlate_off : bool
        Off counts of a map are the mean of those of its pixels, as for rings, which share events; True takes their sum.

    Raises
    ------
    InputError
        For a point as the region, or a region without a pixel.
    """
    use = dataset.mask & _within(dataset, region, where)
    rows = np.array([dataset.energy.contains_bin(low, high) for low, high in bands], dtype=float)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.asarray(rows @ np.where(use, values, 0.0).sum(axis=(1, 2)))

    signal, background = predict_counts(dataset, models)
    counts_off = acceptance = acceptance_off = None
    if isinstance(dataset.background, OffCounts):
        off = dataset.background
        acceptance = summed(off.acceptance.data) * alpha_scale(dataset, models)
        n_pixels = (use & (off.acceptance_off.data > 0)).sum(axis=(1, 2), keepdims=True)
        share = 1.0 if correlate_off else 1 / np.maximum(n_pixels, 1)
        counts_off, acceptance_off = summed(off.counts.data * share), summed(off.acceptance_off.data * share)
    return RegionCounts(
        rows @ use.any(axis=(1, 2)),
        summed(dataset.counts.data),
        summed(background),
        counts_off,
        acceptance,
        acceptance_off,
        summed(signal),
    )


def added(parts: Sequence[RegionCounts], where: str) -> RegionCounts:
    """Sum of several datasets.

    Raises
    ------
    InputError
        For known and measured backgrounds together.
    """
    if len({part.counts_off is None for part in parts}) > 1:
        raise InputError(
            f"{where}: some datasets have a known background and some a measured one, whose sums have no common significance: "
            "make one of each kind"
        )

    def total(name: str) -> np.ndarray:
        return np.asarray(np.sum([getattr(part, name) for part in parts], axis=0))

    off, on, off_total = None, None, None
    if parts[0].counts_off is not None:
        off, on = total("counts_off"), total("acceptance")
        off_total = merged_acceptance_off(off, on, total("acceptance_off"), total("background"))
    known = total("n_bins"), total("counts"), total("background")
    return RegionCounts(*known, off, on, off_total, total("signal"))


def _within(dataset: Dataset, region: RegionGeometry | None, where: str) -> np.ndarray:
    """True for the pixels of a dataset that count; shape (n_lat, n_lon)."""
    if region is None or isinstance(dataset.geom, RegionGeometry):
        return np.ones(dataset.counts.data.shape[1:], dtype=bool)
    if region.is_point:
        raise InputError(f"{where}.region: '{region.text}' is a point, which holds no pixel: write a circle")
    inside = region_mask(dataset.geom, region.regions)
    if not inside.any():
        raise InputError(
            f"{where}.region: '{region.text}' holds no pixel of dataset '{dataset.name}': correct or enlarge it"
        )
    return inside


def at_region(source: Source, datasets: Sequence[Dataset], region: RegionGeometry | None) -> Source:
    """A point source of the same spectrum in the middle of the region, for those that have no place of their own."""
    if source.spatial is not None:
        return source
    first = datasets[0].geom
    known = region if region is not None else first
    if isinstance(known, RegionGeometry) and not known.is_known:
        return source
    center = known.center.icrs
    at = (
        Parameter("lon_0", float(center.ra.deg), u.deg, frozen=True),
        Parameter("lat_0", float(center.dec.deg), u.deg, frozen=True),
    )
    return replace(source, spatial=Component("point", at, {"frame": "icrs"}))
