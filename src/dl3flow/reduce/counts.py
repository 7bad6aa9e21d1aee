"""Events binned in energy and sky pixels."""

import numpy as np

from dl3flow.data.events import EventList
from dl3flow.data.maps import Map
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry


def count_events(events: EventList, geom: SkyGeometry, energy: Axis) -> Map:
    """Number of events per bin; events outside the map or the energy axis are not counted.

    Returns
    -------
    counts : Map on (energy,)
    """
    shape = (energy.n_bins, *geom.shape)
    if not len(events):
        return Map(geom, (energy,), np.zeros(shape))
    k = energy.index(events.energy)
    j, i, inside = geom.index(events.radec)
    inside &= k >= 0
    flat = np.ravel_multi_index((k[inside], j[inside], i[inside]), shape)
    return Map(geom, (energy,), np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float))
