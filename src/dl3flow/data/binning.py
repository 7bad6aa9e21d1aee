"""Events of an observation: which of them a geometry holds, and how many fall into each bin."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.events import EventList
from dl3flow.data.maps import Map
from dl3flow.data.observation import Observation
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.rad_max import cut_radius


def selected_events(observation: Observation, geom: Geometry) -> np.ndarray:
    """True for events in good times on the map, in the region, or within RAD_MAX of a point region; shape (n,)."""
    events = observation.events
    if not len(events):
        return np.zeros(0, dtype=bool)
    if isinstance(geom, RegionGeometry) and geom.is_point:
        inside = within_cut(observation, geom.center)
    else:
        _, _, inside = geom.index(events.radec)
    return np.asarray(inside & observation.gti.holds(events))


def uncut_bins(observation: Observation, energy: Axis) -> np.ndarray:
    """True for the energy bins that lie whole in the range which the events were cut to (``meta["event_energy"]``); shape (n_energy,)."""
    limits = observation.meta.get("event_energy")
    return np.ones(energy.n_bins, dtype=bool) if limits is None else energy.contains_bin(*limits)


def uncut_places(observation: Observation, geom: Geometry, *, whole: bool = True) -> np.ndarray:
    """True for what lies within the offset that the events were cut to (``meta["event_offset"]``); shape (n_lat, n_lon).

    That is a pixel with its corners, a region with all of its pixels, a point with its largest RAD_MAX; if not ``whole``,
    that of which the centre does.
    """
    limit = observation.meta.get("event_offset")
    if limit is None:
        return np.ones(geom.shape, dtype=bool)
    farthest = geom.separation(observation.pointing)
    if whole and isinstance(geom, SkyGeometry):
        farthest = farthest + np.radians(geom.binsz) / np.sqrt(2)
    elif whole and isinstance(geom, RegionGeometry) and not geom.is_point:
        edge = geom.grid.separation(observation.pointing)[geom.grid_mask].max(initial=0.0)
        farthest = np.maximum(farthest, edge)
    elif whole and observation.rad_max is not None:
        energies = observation.rad_max.axis("energy").centers
        farthest = farthest + cut_radius(
            observation.rad_max, energies, farthest[0, 0] * u.rad
        ).max().to_value(u.rad)
    return np.asarray(farthest < limit.to_value(u.rad)).reshape(geom.shape)


def within_cut(observation: Observation, where: SkyCoord) -> np.ndarray:
    """True for events within RAD_MAX of a direction, at their energy and the direction's offset; none without RAD_MAX."""
    events, at = observation.events, where.icrs
    if observation.rad_max is None or not len(events):
        return np.zeros(len(events), dtype=bool)
    lon, lat = at.ra.rad, at.dec.rad
    to = observation.pointing.icrs
    offset = fov.separation(np.array([lon]), np.array([lat]), to.ra.rad, to.dec.rad)[0] * u.rad
    distance = fov.separation(events.radec.icrs.ra.rad, events.radec.icrs.dec.rad, lon, lat)
    return np.asarray(distance <= cut_radius(observation.rad_max, events.energy, offset).to_value(u.rad))


def bin_events(events: EventList, taken: np.ndarray, geom: Geometry, energy: Axis) -> Map:
    """Number of the taken events per bin.

    On a region ``taken`` alone decides, so that events of its off regions can be counted; on a map an event must lie
    on a pixel too.

    Parameters
    ----------
    events : EventList
    taken : bool array, shape (n,)
    geom : SkyGeometry or RegionGeometry
    energy : Axis

    Returns
    -------
    counts : Map on (energy,)
    """
    shape = (energy.n_bins, *geom.shape)
    if not len(events):
        return Map(geom, (energy,), np.zeros(shape))
    k = energy.index(events.energy)
    j, i, inside = geom.index(events.radec)
    use = taken & (k >= 0) & (inside if not isinstance(geom, RegionGeometry) else True)
    flat = np.ravel_multi_index((k[use], j[use], i[use]), shape)
    # few bins of a map are filled, and memory that nobody touches costs nothing
    counts = np.zeros(shape)
    filled, n = np.unique(flat, return_counts=True)
    counts.reshape(-1)[filled] = n
    return Map(geom, (energy,), counts)
