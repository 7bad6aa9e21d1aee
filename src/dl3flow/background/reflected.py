"""Background method ``reflected``: counts in copies of the on region at its distance from the pointing."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.background.off_regions import Turntable, is_hit, on_region, with_off_counts
from dl3flow.background.options import Count, Distance, Turn
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.binning import bin_events
from dl3flow.data.dataset import Dataset
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import shapes
from dl3flow.geometry.axis import PositiveAngle


@BACKGROUNDS.register()
def reflected(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    angle_increment: Turn = 0.1 * u.rad,
    min_distance: Distance = 0 * u.rad,
    min_distance_input: Distance = 0.1 * u.rad,
    max_regions: Count = 10_000,
    binsz: PositiveAngle = 0.01 * u.deg,
) -> Dataset:
    """Count in as many copies of the region, turned around the pointing, as fit outside the exclusion.

    Where the acceptance is radially symmetric, a copy at the same offset has the same background (Berge et al. 2007,
    section 2.4). Angles are measured around the pointing: a first copy is tried at the region's angular size plus
    ``min_distance_input`` from the region, the next one angular size plus ``min_distance`` further, or
    ``angle_increment`` further where a copy meets the exclusion.

    Parameters
    ----------
    observation : Observation
    dataset : Dataset
        A spectrum of a region that does not hold the pointing.
    inputs : BackgroundInputs

    Returns
    -------
    dataset : Dataset
        With off counts; ``meta["background"]`` holds ``n_regions`` and their DS9 text, ``regions``.

    Raises
    ------
    InputError
        For a map or a point region, or if no copy fits.
    """
    where = f"observation {observation.obs_id}: the background `reflected`"
    region = on_region(observation, dataset, inputs, "reflected")
    if region.is_point:
        raise InputError(
            f"{where} needs a region with an area, and '{region.text}' is a point, whose size depends on the energy: use the "
            "background `wobble`"
        )
    table = Turntable.create(region, observation.pointing, binsz)
    if table.drawn(table.parts)[_middle(table)]:
        raise InputError(
            f"{where} turns the region around the pointing, which lies inside '{region.text}': make the region smaller or use the "
            "background `fov` or `ring`"
        )
    step = table.angular_size() + float(min_distance.to_value(u.rad))
    start = step + float(min_distance_input.to_value(u.rad))
    stop = 2 * np.pi - step - float(min_distance_input.to_value(u.rad))
    excluded = table.excluded(inputs)
    found: list[list[shapes.PixelRegion]] = []
    angle = start
    while angle < stop and len(found) < max_regions:
        copy = table.turned(angle)
        if is_hit(copy, excluded):
            angle += float(angle_increment.to_value(u.rad))
        else:
            found.append(copy)
            angle += step
    if not found:
        raise InputError(
            f"{where} finds no place for a copy of '{region.text}' outside the exclusion, {_degrees(region, observation):.2f} deg from "
            "the pointing: make the region or the exclusion smaller, leave the observation out, or use the background `fov` or `ring`"
        )
    counts = bin_events(observation.events, table.events_inside(observation, found), region, dataset.energy)
    return with_off_counts(
        dataset,
        counts.data,
        1.0,
        float(len(found)),
        {"method": "reflected", "n_regions": len(found), "regions": table.text(found)},
    )


def _middle(table: Turntable) -> tuple[int, int]:
    return round(table.axle.y), round(table.axle.x)


def _degrees(region: Any, observation: Observation) -> float:
    return float(np.degrees(region.separation(observation.pointing)[0, 0]))
