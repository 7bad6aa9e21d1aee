"""A run seen from its camera: good events, its zenith distance, and a sky mask drawn around its pointing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.background.registry import BackgroundInputs
from dl3flow.data.binning import uncut_places
from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import fov, shapes
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.rad_max import largest_radius

Usable = Callable[[SkyGeometry], np.ndarray]

# pixels on which sky masks are drawn around a pointing
_FINE = 0.02 * u.deg
# bits of the mask that keeps them
_MOST_REASONS = 8
# of a run, in each of which the field is taken not to turn: 2 minutes of half an hour
_PARTS = 16


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


@dataclass(frozen=True, eq=False)
class Passage:
    """How directions move when one run's camera is laid on another's.

    Attributes
    ----------
    rotations : array, shape (n, 3, 3)
        Of unit vectors (ICRS), for n equal parts of the runs' durations; one for cameras aligned with the sky.
    """

    rotations: np.ndarray

    def forward(self, where: SkyCoord, moment: np.ndarray | float = 0.5) -> SkyCoord:
        """Directions around the target's pointing, seen at parts (0 to 1) of the runs."""
        return _turned(where, self.rotations, moment)

    def backward(self, where: SkyCoord, moment: np.ndarray | float = 0.5) -> SkyCoord:
        """Directions around the source's pointing."""
        return _turned(where, self.rotations.transpose(0, 2, 1), moment)

    @property
    def moments(self) -> np.ndarray:
        """Middle of each part."""
        return (np.arange(len(self.rotations)) + 0.5) / len(self.rotations)


def _turned(where: SkyCoord, rotations: np.ndarray, moment: np.ndarray | float) -> SkyCoord:
    part = np.clip((np.asarray(moment) * len(rotations)).astype(int), 0, len(rotations) - 1)
    # axes of the vectors last, as the rotations have them
    vectors = np.moveaxis(fov.unit_vectors(where.icrs.ra.rad, where.icrs.dec.rad), 0, -1)
    x, y, z = np.moveaxis(np.einsum("...ab,...b->...a", rotations[part], vectors), -1, 0)
    return SkyCoord(np.arctan2(y, x) * u.rad, np.arctan2(z, np.hypot(x, y)) * u.rad, frame="icrs")


def passage(source: Observation, target: Observation, alignment: str) -> Passage:
    """Passage at constant field-of-view coordinates aligned with the sky (RADEC) or the horizon (ALTAZ).

    Raises
    ------
    InputError
        If the horizon is asked for and the place of an observatory is not known.
    """
    axes = []
    for run in (source, target):
        if alignment == "ALTAZ":
            moments = (np.arange(_PARTS) + 0.5) / _PARTS
            axes.append(fov.altaz_axes(run.pointing, _times(run, moments), _place(run))[0])
        else:
            at = run.pointing.icrs
            axes.append(fov.basis(at.ra.rad, at.dec.rad)[None])
    return Passage(np.einsum("nka,nkb->nab", axes[1], axes[0]))


def _place(run: Observation) -> tuple[float, float, float]:
    location = run.meta.get("location")
    if location is None:
        raise InputError(
            f"observation {run.obs_id}: its horizon is unknown, as the events' header lacks GEOLON, GEOLAT or ALTITUDE: take "
            "`alignment: RADEC`"
        )
    return location["geolon"], location["geolat"], location["altitude"]


def _times(run: Observation, moments: np.ndarray) -> Any:
    gti = run.gti
    return gti.reference + (gti.start[0] + moments * (gti.stop[-1] - gti.start[0]))


def moments_of(run: Observation) -> np.ndarray:
    """Part of the run, 0 to 1, at which each event was recorded."""
    events, gti = run.events, run.gti
    passed = events.time + (events.reference - gti.reference).to(u.s) - gti.start[0]
    return np.asarray((passed / (gti.stop[-1] - gti.start[0])).to_value(""))


def moved_run(source: Observation, target: Observation, way: Passage) -> Observation:
    """A run as if it had been pointed, and cut, as another one: its events at the same field-of-view coordinates."""
    events = replace(source.events, radec=way.forward(source.events.radec, moments_of(source)))
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
    if observation.meta.get("location") is None:
        return None
    middle = _times(observation, np.array([0.5]))
    _, _, altitude = fov.altaz_axes(observation.pointing, middle, _place(observation))
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
    observation: Observation, dataset: Dataset, inputs: BackgroundInputs, radius: u.Quantity
) -> tuple[SkyGeometry, np.ndarray]:
    """Sky on which a spectrum's background is normalised: the field around the pointing without target and exclusion.

    Returns
    -------
    geom : SkyGeometry
    mask : bool array, shape (n_lat, n_lon)

    Raises
    ------
    InputError
        If known sources are to be subtracted: they are predicted in the spectrum alone.
    """
    if inputs.signal is not None:
        raise InputError(
            f"observation {observation.obs_id}: the background of a spectrum is normalised in the field around it, where `subtract` "
            "predicts nothing: leave it out and give the sources' regions as `exclusion`"
        )
    geom = camera_geometry(observation, radius, 0.05 * u.deg)
    mask = inputs.usable(geom) & (geom.separation(observation.pointing) <= radius.to_value(u.rad))
    mask &= uncut_places(observation, geom)
    target = dataset.geom
    if isinstance(target, RegionGeometry) and not target.is_point:
        mask &= ~region_mask(geom, target.regions)
    elif isinstance(target, RegionGeometry) and observation.rad_max is not None:
        offset = target.separation(observation.pointing)[0, 0] * u.rad
        cut = largest_radius(observation.rad_max, dataset.energy, offset)
        mask &= geom.separation(target.center) > cut.to_value(u.rad)
    return geom, mask
