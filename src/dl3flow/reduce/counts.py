"""Events binned in energy and sky pixels."""

import astropy.units as u
import numpy as np

from dl3flow.data.events import EventList, Gti
from dl3flow.data.maps import Map
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry

# public files round the ends of intervals to seconds, and their last events lie up to 0.7 s beyond
_ROUNDING = 1 * u.s


def count_events(events: EventList, gti: Gti, geom: SkyGeometry, energy: Axis) -> Map:
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
    shift = (events.reference - gti.reference).to(u.s)
    inside &= (k >= 0) & gti.contains(events.time + shift, _ROUNDING)
    flat = np.ravel_multi_index((k[inside], j[inside], i[inside]), shape)
    return Map(geom, (energy,), np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float))
