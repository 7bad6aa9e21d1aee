"""Runs with a known rate across the camera, for the backgrounds made from further runs."""

from collections.abc import Callable
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.data.dataset import Dataset
from dl3flow.data.events import EventList, Gti
from dl3flow.data.maps import Map
from dl3flow.data.observation import Observation
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry
from dl3flow.irf.table import IrfTable

REFERENCE = Time(53300, format="mjd", scale="tt")
LOCATION = {"geolon": 16.5, "geolat": -23.27, "altitude": 1800.0}
INDEX = 2.7
ENERGY = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 4)


def make_run(
    obs_id: int,
    ra: float,
    dec: float,
    fov_lon: Any = (),
    fov_lat: Any = (),
    energy: Any = (),
    *,
    ontime: float = 1000.0,
    start: float = 0.0,
    lo_thres: float | None = None,
    hi_thres: float | None = None,
    telescope: str = "T",
    rad_max: IrfTable | None = None,
    location: dict[str, float] | None = LOCATION,
) -> Observation:
    """A run with events at places of the camera (deg) and energies (TeV); arrays cannot be written into."""
    x, y, energies = (
        np.radians(np.atleast_1d(np.asarray(v, dtype=float))) for v in (fov_lon, fov_lat, energy)
    )
    energies = np.degrees(energies)
    lon, lat = fov.fov_to_sky(x, y, np.radians(ra), np.radians(dec))
    n = len(energies)
    time = np.linspace(start, start + ontime, n) if n else np.zeros(0)
    for values in (lon, lat, energies, time):
        values.setflags(write=False)
    events = EventList(
        np.arange(n),
        time * u.s,
        REFERENCE,
        SkyCoord(lon * u.rad, lat * u.rad, frame="icrs"),
        energies * u.TeV,
    )
    true = Axis.from_bounds("energy_true", 0.1 * u.TeV, 100 * u.TeV, 3)
    offset = Axis.from_bounds("offset", 0 * u.deg, 3 * u.deg, 3, "lin")
    limits = {
        name: None if value is None else value * u.TeV
        for name, value in (("lo_thres", lo_thres), ("hi_thres", hi_thres))
    }
    aeff = IrfTable("aeff_2d", (true, offset), {"EFFAREA": np.full((3, 3), 1e5)}, {"EFFAREA": u.m**2}, limits)
    return Observation(
        obs_id=obs_id,
        events=events,
        gti=Gti([start] * u.s, [start + ontime] * u.s, REFERENCE),
        pointing=SkyCoord(ra * u.deg, dec * u.deg, frame="icrs"),
        deadtime_fraction=0.05,
        aeff=aeff,
        edisp=None,
        psf=None,
        bkg=None,
        meta={"telescope": telescope, "instrument": "I", "location": location, "warnings": []},
        rad_max=rad_max,
    )


def draw_run(
    obs_id: int,
    ra: float,
    dec: float,
    seed: int,
    rate: float,
    *,
    keep: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    half: float = 2.5,
    limits: tuple[float, float] = (0.5, 50.0),
    **more: Any,
) -> Observation:
    """A run with ``rate`` events per s and sr above ``limits[0]``, evenly in the camera, as a power law of `INDEX`.

    ``keep`` is the share of events that are kept at a place (deg, deg).
    """
    rng = np.random.default_rng(seed)
    edge = np.radians(half)
    expected = rate * more.get("ontime", 1000.0) * 2 * edge * 2 * np.sin(edge)
    n = rng.poisson(expected)
    x = rng.uniform(-half, half, n)
    y = np.degrees(np.arcsin(rng.uniform(-np.sin(edge), np.sin(edge), n)))
    low, high = (value ** (1 - INDEX) for value in limits)
    energy = (low + rng.random(n) * (high - low)) ** (1 / (1 - INDEX))
    kept = np.ones(n, dtype=bool) if keep is None else rng.random(n) < keep(x, y)
    return make_run(obs_id, ra, dec, x[kept], y[kept], energy[kept], **more)


def make_dataset(
    observation: Observation, geom: Geometry, energy: Axis = ENERGY, safe: Any = True
) -> Dataset:
    """Counts of a run on a geometry, without responses, every bin safe."""
    shape = (energy.n_bins, *geom.shape)
    events = observation.events
    k = energy.index(events.energy)
    j, i, inside = geom.index(events.radec)
    if hasattr(geom, "is_point") and geom.is_point:
        raise ValueError("counts of a directional cut are the recipe's")
    inside = inside & (k >= 0)
    counts = np.zeros(shape)
    np.add.at(counts, (k[inside], j[inside], i[inside]), 1)
    mask = np.array(np.broadcast_to(safe, shape))
    for values in (counts, mask):
        values.setflags(write=False)
    true = energy.renamed("energy_true")
    return Dataset(
        name="run",
        counts=Map(geom, (energy,), counts),
        background=None,
        exposure=Map(geom, (true,), np.ones(shape), u.Unit("m2 s")),
        psf=None,
        edisp=None,
        mask_safe=mask,
        mask_fit=None,
        gti=observation.gti,
        meta={"obs_ids": [observation.obs_id], "livetime": 950.0, "ontime": 1000.0, "warnings": ["before"]},
    )
