"""Events binned in energy and sky pixels."""

import numpy as np

from dl3flow.data.events import EventList, Gti
from dl3flow.data.maps import Map
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry


def count_events(events: EventList, gti: Gti, geom: Geometry, energy: Axis) -> Map:
    """Number of events per bin; events outside the good time intervals, the map or the energy axis are not counted.

    Exposure and background hold for the good time intervals alone.

    Returns
    -------
    counts : Map on (energy,)
    """
    shape = (energy.n_bins, *geom.shape)
    if not len(events):
        return Map(geom, (energy,), np.zeros(shape))
    k = energy.index(events.energy)
    j, i, inside = geom.index(events.radec)
    inside &= (k >= 0) & gti.holds(events)
    flat = np.ravel_multi_index((k[inside], j[inside], i[inside]), shape)
    return Map(geom, (energy,), np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float))
