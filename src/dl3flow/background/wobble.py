"""Background method ``wobble``: counts in a fixed number of places at the source's distance from the pointing."""

from __future__ import annotations

import itertools

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.background.off_regions import Turntable, ds9_text, is_hit, on_region, with_off_counts
from dl3flow.background.options import Count
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.binning import bin_events, within_cut
from dl3flow.data.dataset import Dataset
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import shapes
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.geometry.region import RegionGeometry
from dl3flow.irf.rad_max import largest_radius


@BACKGROUNDS.register()
def wobble(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    n_off: Count,
    binsz: PositiveAngle = 0.01 * u.deg,
) -> Dataset:
    """Count in the on region turned by i 360 deg / (``n_off`` + 1) around the pointing, i = 1 to ``n_off``.

    Places that meet the exclusion are left out. Around the places of a point region the events within RAD_MAX of their
    energy are taken, as in the on region (directional cuts). Fomin et al. (1994); Berge et al. (2007), section 2.4.

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
        For a map, if regions overlap, or if none lies outside the exclusion.
    """
    where = f"observation {observation.obs_id}: the background `wobble`"
    region = on_region(observation, dataset, inputs, "wobble")
    table = Turntable.create(region, observation.pointing, binsz)
    angles = 2 * np.pi * np.arange(1, n_off + 1) / (n_off + 1)
    excluded = table.excluded(inputs)
    copies = [copy for copy in map(table.turned, angles) if not _is_excluded(region, copy, excluded)]
    if not copies:
        raise InputError(
            f"{where} finds all {n_off} places of '{region.text}' in the exclusion: make the exclusion smaller, change `n_off` or leave "
            "the observation out"
        )
    if region.is_point:
        centers = _centers(table, copies)
        _check_radii(observation, dataset, [region.center.icrs, *centers], where)
        taken = observation.gti.holds(observation.events) if len(observation.events) else np.zeros(0, bool)
        inside = np.any([within_cut(observation, at) for at in centers], axis=0)
        taken, text = taken & inside, ds9_text(shapes.PointSkyRegion(at) for at in centers)
    else:
        _check_shapes(table, [table.parts, *copies], where)
        taken, text = table.events_inside(observation, copies), table.text(copies)
    counts = bin_events(observation.events, taken, region, dataset.energy)
    found = {"method": "wobble", "n_regions": len(copies), "regions": text}
    return with_off_counts(dataset, counts.data, 1.0, float(len(copies)), found)


def _is_excluded(region: RegionGeometry, copy: list[shapes.PixelRegion], excluded: shapes.PixCoord) -> bool:
    if not region.is_point:
        return is_hit(copy, excluded)
    at = copy[0].center
    return bool(np.any(np.hypot(excluded.x - at.x, excluded.y - at.y) < 1))


def _centers(table: Turntable, copies: list[list[shapes.PixelRegion]]) -> list[SkyCoord]:
    found = []
    for (copy,) in copies:
        lon, lat = table.plane.wcs.all_pix2world(copy.center.x, copy.center.y, 0)
        found.append(SkyCoord(lon * u.deg, lat * u.deg, frame=table.plane.frame).icrs)
    return found


def _check_radii(observation: Observation, dataset: Dataset, centers: list[SkyCoord], where: str) -> None:
    if observation.rad_max is None:
        raise InputError(
            f"{where} takes events within RAD_MAX of a point, and the observation has none: write a circle"
        )
    offset = centers[0].separation(observation.pointing).reshape(1)[0]
    radius = largest_radius(observation.rad_max, dataset.energy, offset)
    nearest = min(a.separation(b).to_value(u.deg) for a, b in itertools.combinations(centers, 2))
    if nearest < 2 * radius.to_value(u.deg):
        raise InputError(
            f"{where} places regions {nearest:.3f} deg apart, which overlap where RAD_MAX is {radius.to_value(u.deg):.3f} deg: make "
            "`n_off` smaller"
        )


def _check_shapes(table: Turntable, copies: list[list[shapes.PixelRegion]], where: str) -> None:
    covered = np.zeros(table.plane.shape, dtype=int)
    for copy in copies:
        covered += table.drawn(copy)
    if covered.max() > 1:
        raise InputError(
            f"{where} places regions that overlap one another or the region itself: make `n_off` or the region smaller"
        )
