"""Safe masks: the bins in which the responses are trusted. Each returns True for the bins that it keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, MaskReasons
from dl3flow.data.observation import Observation
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.reduce.registry import SAFE_MASKS
from dl3flow.registry import Plugin


def apply_safe_masks(
    observation: Observation, dataset: Dataset, masks: Sequence[tuple[Plugin, Mapping[str, Any]]]
) -> Dataset:
    """Dataset whose safe mask is its present one and all of ``masks``, with the reason of every dropped bin."""
    kept = {"no response": dataset.mask_safe}
    for mask, options in masks:
        # one mask may be asked for twice, with other options
        name = mask.name if mask.name not in kept else f"{mask.name} ({len(kept)})"
        kept[name] = mask(observation, dataset, **options)
    bits = np.zeros(dataset.mask_safe.shape, dtype=np.uint8)
    for n, keep in enumerate(kept.values()):
        bits |= np.where(keep, 0, 1 << n).astype(np.uint8)
    return replace(dataset, mask_safe=bits == 0, reasons=MaskReasons(tuple(kept), bits))


@SAFE_MASKS.register("aeff-default")
def aeff_default(observation: Observation, dataset: Dataset) -> np.ndarray:
    """Energy bins that lie whole between LO_THRES and HI_THRES of the effective area's header."""
    meta = observation.aeff.meta
    keep = dataset.energy.contains_bin(meta.get("lo_thres"), meta.get("hi_thres"))
    return np.broadcast_to(keep[:, None, None], dataset.mask_safe.shape)


@SAFE_MASKS.register("offset-max")
def offset_max(observation: Observation, dataset: Dataset, *, offset_max: PositiveAngle) -> np.ndarray:
    """Pixels closer to the pointing than ``offset_max``."""
    keep = dataset.geom.separation(observation.pointing) < offset_max.to_value(u.rad)
    return np.broadcast_to(keep, dataset.mask_safe.shape)
