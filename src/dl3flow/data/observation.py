"""Observation: one run's events, good times, pointing and instrument response (DL3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import astropy.units as u
from astropy.coordinates import SkyCoord

from dl3flow.data.events import EventList, Gti
from dl3flow.data.index import HduEntry, ObservationEntry
from dl3flow.irf.table import IrfTable

__all__ = ["HduEntry", "Observation", "ObservationEntry"]


@dataclass(frozen=True, eq=False)
class Observation:
    """One run.

    Attributes
    ----------
    obs_id : int
    events : EventList
    gti : Gti
    pointing : SkyCoord
        Array direction, ICRS.
    deadtime_fraction : float
        1 - DEADC, between 0 and 1.
    aeff, edisp, psf, bkg, rad_max : IrfTable or None
        Effective area, energy dispersion, point spread, background rate, radius of directional cuts; only the first must be.
    meta : mapping
        Header facts for reports: telescope, instrument, object, creator, origin, obs_mode, tstart, tstop (s after the
        reference), location (geolon and geolat in deg, altitude in m), files, warnings (list of sentences).
    """

    obs_id: int
    events: EventList
    gti: Gti
    pointing: SkyCoord
    deadtime_fraction: float
    aeff: IrfTable
    edisp: IrfTable | None
    psf: IrfTable | None
    bkg: IrfTable | None
    meta: Mapping[str, Any]
    rad_max: IrfTable | None = None

    @property
    def ontime(self) -> u.Quantity:
        """Sum of the good time intervals, s."""
        return self.gti.ontime

    @property
    def kept_ontime(self) -> u.Quantity:
        """Ontime in the kept phases, s; what a background rate multiplies."""
        return self.ontime * self.phase_fraction

    @property
    def livetime(self) -> u.Quantity:
        """Dead-time corrected observing time in the kept phases, s; what an effective area multiplies."""
        return self.kept_ontime * (1 - self.deadtime_fraction)

    @property
    def phase_fraction(self) -> float:
        """Share of the period whose events were kept (``meta["phase_fraction"]``); 1 without a cut in phase."""
        return float(self.meta.get("phase_fraction", 1.0))
