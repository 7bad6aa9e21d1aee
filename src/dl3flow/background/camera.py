"""A run seen from its camera: good events, its zenith distance, and a sky mask drawn around its pointing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons
from dl3flow.data.observation import Observation
from dl3flow.geometry import fov, shapes
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry

Usable = Callable[[SkyGeometry], np.ndarray]

# pixels on which sky masks are drawn around a pointing
_FINE = 0.02 * u.deg
# bits of the mask that keeps them
_MOST_REASONS = 8


def _parse_sky(entry: Any) -> shapes.Regions:
    if not isinstance(entry, str):
        raise ValueError(
            f"expected DS9 region text such as `icrs;circle(83.63, 22.01, 0.2)`, found {entry!r}"
        )
    return parse_regions(entry, "value")


SkyRegions = Annotated[Any, _parse_sky]


def good_events(observation: Observation) -> tuple[SkyCoord, u.Quantity]:
    """Directions (ICRS) and energies of the events within the good time intervals."""
    events = observation.events
    good = observation.gti.holds(events)
    return events.radec[good], events.energy[good]


def camera_geometry(observation: Observation, radius: u.Quantity, binsz: u.Quantity = _FINE) -> SkyGeometry:
    """Pixels of a square of half-width ``radius`` around the pointing, in the plane of the camera (TAN)."""
    # a pixel more at each side: the plane is stretched towards its border
    width = 2 * radius / np.cos(radius) + 2 * binsz
    return SkyGeometry.create(observation.pointing.icrs, width, binsz, "TAN")


def outside(regions: shapes.Regions) -> Usable:
    """Mask of any map that is True outside the regions."""
    return lambda geom: ~region_mask(geom, regions)


def transported(where: SkyCoord, source: Observation, target: Observation) -> SkyCoord:
    """Directions at the same field-of-view coordinates (RADEC alignment) around another run's pointing."""
    at, start, end = where.icrs, source.pointing.icrs, target.pointing.icrs
    lon, lat = fov.sky_to_fov(at.ra.rad, at.dec.rad, start.ra.rad, start.dec.rad)
    lon, lat = fov.fov_to_sky(lon, lat, end.ra.rad, end.dec.rad)
    return SkyCoord(lon * u.rad, lat * u.rad, frame="icrs")


def moved_run(source: Observation, target: Observation) -> Observation:
    """A run as if it had been pointed, and cut, as another one: its events at the same field-of-view coordinates."""
    events = replace(source.events, radec=transported(source.events.radec, source, target))
    return replace(source, events=events, pointing=target.pointing, rad_max=target.rad_max)


def sky_mask(
    observation: Observation, usable: Usable, radius: u.Quantity
) -> Callable[[SkyCoord], np.ndarray]:
    """Mask drawn around a pointing once, as a function of direction; False beyond ``radius``."""
    drawn = camera_geometry(observation, radius)
    mask = usable(drawn)

    def at(where: SkyCoord) -> np.ndarray:
        j, i, inside = drawn.index(where)
        return np.asarray(np.where(inside, mask[np.where(inside, j, 0), np.where(inside, i, 0)], False))

    return at


def zenith_angle(observation: Observation) -> u.Quantity | None:
    """Zenith distance of the pointing in the middle of the run, without refraction; None where the place is not known."""
    location = observation.meta.get("location")
    if location is None:
        return None
    gti = observation.gti
    middle = gti.reference + 0.5 * (gti.start[0] + gti.stop[-1])
    place = (location["geolon"], location["geolat"], location["altitude"])
    _, _, altitude = fov.altaz_axes(observation.pointing, middle.reshape(1), place)
    return (90 - float(np.degrees(altitude[0]))) * u.deg


def restrict(dataset: Dataset, keep: np.ndarray, reason: str, *, is_replaced: bool) -> Dataset:
    """Dataset without the bins that a background method cannot serve; the reason is kept per bin.

    Parameters
    ----------
    dataset : Dataset
    keep : bool array, shape of the counts
    reason : str
    is_replaced : bool
        Whether bins that are not safe only for want of an expected background are judged anew by ``keep``.
    """
    safe, reasons = dataset.mask_safe, dataset.reasons
    if is_replaced and isinstance(dataset.background, ExpectedCounts):
        safe = safe | ~(dataset.background.counts.data > 0)
        if reasons is not None:
            # the first reason is the recipe's: no background expected
            reasons = replace(reasons, bits=reasons.bits & np.uint8(~np.uint8(1)))
            safe = reasons.bits == 0
    if reasons is not None and len(reasons.names) < _MOST_REASONS:
        bits = reasons.bits | np.where(keep, 0, 1 << len(reasons.names)).astype(np.uint8)
        reasons = MaskReasons((*reasons.names, reason), bits)
    return replace(dataset, mask_safe=np.asarray(safe & keep), reasons=reasons)


def control_field(
    observation: Observation, dataset: Dataset, usable: Usable, radius: u.Quantity
) -> tuple[SkyGeometry, np.ndarray]:
    """Sky on which a spectrum's background is normalised: the field around the pointing without target and exclusion.

    Returns
    -------
    geom : SkyGeometry
    mask : bool array, shape (n_lat, n_lon)
    """
    geom = camera_geometry(observation, radius, 0.05 * u.deg)
    mask = usable(geom) & (geom.separation(observation.pointing) <= radius.to_value(u.rad))
    if isinstance(dataset.geom, RegionGeometry) and not dataset.geom.is_point:
        mask &= ~region_mask(geom, dataset.geom.regions)
    return geom, mask
