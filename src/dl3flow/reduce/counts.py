"""Events binned in energy and sky pixels."""

from dl3flow.data.binning import bin_events
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
    return bin_events(events, gti.holds(events), geom, energy)
