"""Background method ``ring``: the counts of a ring around each pixel."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.convolve import convolve_same, ring_kernel


@dataclass(frozen=True, eq=False)
class OffSky:
    """What rings may be filled from: the safe pixels outside the exclusion.

    Attributes
    ----------
    geom : SkyGeometry
    acceptance : array, shape (n_energy, n_lat, n_lon)
        The expected background of every pixel.
    counts, usable_acceptance, pixels : array of that shape
        Counts, background and 1 where rings may be filled, 0 elsewhere.
    """

    geom: SkyGeometry
    acceptance: np.ndarray
    counts: np.ndarray
    usable_acceptance: np.ndarray
    pixels: np.ndarray

    def within(self, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts and acceptance in a kernel around every pixel; both 0 where it holds no usable pixel."""
        counts, acceptance, pixels = convolve_same(
            np.stack([self.counts, self.usable_acceptance, self.pixels]), kernel
        )
        # counts are whole, and an empty ring is empty: the transform leaves noise on both
        reached = np.rint(pixels) > 0
        return np.where(reached, np.rint(counts), 0.0), np.where(reached, np.maximum(acceptance, 0.0), 0.0)


def off_sky(observation: Observation, dataset: Dataset, inputs: BackgroundInputs, method: str) -> OffSky:
    """The sky that a ring method takes its background from.

    Raises
    ------
    InputError
        For a spectrum, a dataset without background response, or sources to subtract.
    """
    where = f"observation {observation.obs_id}: the background `{method}`"
    if not isinstance(dataset.background, ExpectedCounts):
        raise InputError(
            f"{where} takes a background response as acceptance, and the observation has none: add one, or take another method"
        )
    if inputs.signal is not None:
        raise InputError(
            f"{where} counts events and cannot `subtract` sources from them: give their region as `exclusion`"
        )
    acceptance = dataset.background.counts.data
    usable = dataset.mask_safe & inputs.usable(dataset.counts.sky) & (acceptance > 0)
    return OffSky(
        dataset.counts.sky,
        acceptance,
        np.where(usable, dataset.counts.data, 0.0),
        np.where(usable, acceptance, 0.0),
        usable.astype(float),
    )


def with_rings(
    dataset: Dataset,
    counts: np.ndarray,
    acceptance_off: np.ndarray,
    facts: Mapping[str, Any],
    why_not: str,
) -> Dataset:
    """Dataset with the rings' counts as background; bins without a ring are not safe, and a sentence says how many.

    Parameters
    ----------
    dataset : Dataset
        With the acceptance as `ExpectedCounts`.
    counts, acceptance_off : array, shape (n_energy, n_lat, n_lon)
    facts : mapping
        For ``meta["background"]``.
    why_not : str
        What bins without a ring lack.
    """
    assert isinstance(dataset.background, ExpectedCounts)
    has_ring = acceptance_off > 0
    lost = int(np.count_nonzero(dataset.mask_safe & ~has_ring))
    warnings = list(dataset.meta.get("warnings", []))
    if lost:
        safe = np.count_nonzero(dataset.mask_safe)
        warnings.append(f"dataset '{dataset.name}': {lost} of {safe} safe bins are left out: {why_not}")
    acceptance = dataset.background.counts
    return replace(
        dataset,
        background=OffCounts(
            dataset.counts.with_data(counts), acceptance, acceptance.with_data(acceptance_off)
        ),
        mask_safe=dataset.mask_safe & has_ring,
        meta={**dataset.meta, "background": dict(facts), "warnings": warnings},
    )


@BACKGROUNDS.register(image=True)
def ring(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    r_in: PositiveAngle,
    width: PositiveAngle,
) -> Dataset:
    """Counts in a ring around each pixel, with the background response as acceptance. Berge et al. (2007), section 2.3.

    The ring holds the pixels whose centres lie ``r_in`` to ``r_in + width`` from the pixel's, both edges included, less
    those in the exclusion and those that are not safe. Each energy bin is taken by itself; for one image over all
    energies the dataset has one bin.

    Parameters
    ----------
    observation : Observation
    dataset : Dataset
        With `ExpectedCounts`: the acceptance, whose absolute scale does not matter.
    inputs : BackgroundInputs

    Returns
    -------
    dataset : Dataset
        With `OffCounts`; bins whose ring has no usable pixel are not safe.
    """
    sky = off_sky(observation, dataset, inputs, "ring")
    binsz = sky.geom.binsz * u.deg
    kernel = ring_kernel(float((r_in / binsz).to_value("")), float(((r_in + width) / binsz).to_value("")))
    if not kernel.any():
        raise InputError(
            f"observation {observation.obs_id}: the background `ring` from {r_in} to {r_in + width} holds no pixel of {binsz:g}: "
            "make `width` larger or `binsz` smaller"
        )
    counts, acceptance_off = sky.within(kernel)
    facts = {"method": "ring", "r_in": float(r_in.to_value(u.deg)), "width": float(width.to_value(u.deg))}
    return with_rings(
        dataset, counts, acceptance_off, facts, "their ring holds no safe pixel outside the exclusion"
    )
