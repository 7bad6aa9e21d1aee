"""Simulated observations: photons of models and background events, drawn and recorded as a telescope would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.time import Time
from numpy.random import PCG64, Generator, SeedSequence

from dl3flow.data.events import EventList, Gti
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.irf.table import IrfTable
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Models, Source
from dl3flow.simulate.background import Background, background_factor, draw_background
from dl3flow.simulate.detection import (
    area_at,
    draw_distances,
    draw_migra,
    is_in_field,
    largest_area,
    largest_offset,
)
from dl3flow.simulate.irfs import simulate_irfs
from dl3flow.simulate.plan import REFERENCE_MJD, Instrument, Simulation, observation_path
from dl3flow.simulate.sky import build_shape, internal_values
from dl3flow.simulate.times import Arrival, Steady, build_arrival

_STEPS_PER_DECADE = 400
MOST_EVENTS = 1_000_000


@dataclass(frozen=True, eq=False)
class Photons:
    """Photons of one source that were recorded, in the order in which they were drawn.

    Attributes
    ----------
    energy, energy_true : array, shape (n,)
        TeV.
    lon, lat : array, shape (n,)
        Reconstructed, ICRS, rad.
    arrival : Arrival
        When they come.
    """

    energy: np.ndarray
    energy_true: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    arrival: Arrival


def observe(
    obs_id: int,
    models: Models,
    irfs: Mapping[str, IrfTable],
    pointing: SkyCoord,
    gti: Gti,
    *,
    seed: int,
    energy: u.Quantity | None = None,
    deadtime_fraction: float = 0.0,
    meta: Mapping[str, Any] | None = None,
) -> Observation:
    """Draw the events of one run from models and instrument responses.

    The random numbers depend on the seed and ``obs_id`` alone, so any order or number of jobs gives the same events.

    Parameters
    ----------
    obs_id : int
    models : Models
        Sources, each with a spatial model; backgrounds without a list of datasets scale the background.
    irfs : mapping of IrfTable
        By ``aeff``, ``edisp``, ``psf``, ``bkg`` and ``rad_max``; all but the first may be absent: energies are then exact,
        directions are exact, there is no background.
    pointing : SkyCoord
    gti : Gti
        Good time intervals, disjoint and increasing.
    seed : int
    energy : Quantity, shape (2,), optional
        Range of true energies; by default that of the effective area.
    deadtime_fraction : float
        Share of the good time in which nothing is recorded.
    meta : mapping, optional
        Facts for the header; see `Observation`.

    Returns
    -------
    observation : Observation
        Its events carry ``mc_id``: 0 of the background, n of the n-th source; ``meta["mc_names"]`` says which that is.

    Raises
    ------
    InputError
        If a source has no place, or a temporal model that falls below zero; if there would be more than a million events
        of one source.
    """
    rng = Generator(PCG64(SeedSequence([seed, obs_id])))
    limits = irfs["aeff"].axis("energy_true").edges[[0, -1]] if energy is None else energy
    bounds = (float(limits[0].to_value(u.TeV)), float(limits[1].to_value(u.TeV)))
    at = (float(pointing.icrs.ra.rad), float(pointing.icrs.dec.rad))
    found = [
        draw_source(source, irfs, at, gti, rng, energy=bounds, deadtime_fraction=deadtime_fraction)
        for source in models.sources
    ]
    start, stop = gti.start.to_value(u.s), gti.stop.to_value(u.s)
    ontime = float(np.sum(stop - start))
    factor, warnings = background_factor(models, [str(obs_id)])
    background = Background.empty()
    if irfs.get("bkg") is not None:
        background = draw_background(irfs["bkg"], ontime, rng, factor, MOST_EVENTS)
    else:
        warnings.append("the responses have no background rate: no background events are simulated")
    mc_id = np.repeat(
        [*range(1, len(found) + 1), 0], [*(len(part.energy) for part in found), len(background.energy)]
    )
    uniform = rng.random(len(mc_id))
    steady = Steady(start, stop)
    times = [
        part.arrival.draw(uniform[mc_id == n], part.energy_true) for n, part in enumerate(found, start=1)
    ]
    times.append(steady.draw(uniform[mc_id == 0], background.energy))
    place = (meta or {}).get("location")
    lon, lat = background.directions(pointing, times[-1], gti.reference, place)
    time = np.concatenate(times)
    order = np.argsort(time, kind="stable")
    joined = {
        name: np.concatenate([*(getattr(part, name) for part in found), last])[order]
        for name, last in (("energy", background.energy), ("lon", lon), ("lat", lat))
    }
    events = EventList(
        event_id=np.arange(1, len(order) + 1),
        time=time[order] * u.s,
        reference=gti.reference,
        radec=SkyCoord(np.degrees(joined["lon"]) * u.deg, np.degrees(joined["lat"]) * u.deg, frame="icrs"),
        energy=joined["energy"] * u.TeV,
        mc_id=mc_id[order],
    )
    return Observation(
        obs_id=obs_id,
        events=events,
        gti=gti,
        pointing=pointing,
        deadtime_fraction=deadtime_fraction,
        aeff=irfs["aeff"],
        edisp=irfs.get("edisp"),
        psf=irfs.get("psf"),
        bkg=irfs.get("bkg"),
        rad_max=irfs.get("rad_max"),
        meta=_meta(meta or {}, models, gti, warnings),
    )


def _meta(given: Mapping[str, Any], models: Models, gti: Gti, warnings: Sequence[str]) -> dict[str, Any]:
    known = {
        "telescope": "",
        "instrument": "SIMULATION",
        "object": models.sources[0].name if models.sources else "",
        "creator": "dl3flow",
        "origin": "dl3flow simulation",
        "obs_mode": "POINTING",
        "tstart": float(gti.start[0].to_value(u.s)),
        "tstop": float(gti.stop[-1].to_value(u.s)),
        "location": None,
        "files": [],
        **given,
    }
    names = {0: "background", **{n: source.name for n, source in enumerate(models.sources, start=1)}}
    return {**known, "mc_names": names, "warnings": [*given.get("warnings", []), *warnings]}


def draw_source(
    source: Source,
    irfs: Mapping[str, IrfTable],
    pointing: tuple[float, float],
    gti: Gti,
    rng: Generator,
    *,
    energy: tuple[float, float],
    deadtime_fraction: float = 0.0,
) -> Photons:
    """Photons of a source that are recorded.

    They are drawn for the largest area over the field and kept with the share that the area has at their own offset,
    which is exact for a source of any shape. The number follows the mean of the temporal model over the intervals.

    Parameters
    ----------
    source : Source
    irfs : mapping of IrfTable
    pointing : (float, float)
        ICRS, rad.
    gti : Gti
    rng : Generator
    energy : (float, float)
        Range of true energies, TeV.
    deadtime_fraction : float

    Raises
    ------
    InputError
        As `observe` says.
    """
    if "exposure" in source.without_irf:
        raise InputError(
            f"source '{source.name}': without an exposure (`apply_irf`) there is no number of photons to draw: remove it"
        )
    aeff, arrival = irfs["aeff"], build_arrival(source, gti, energy)
    shape = build_shape(source, *pointing, largest_offset(aeff), energy)
    none = np.zeros(0)
    if shape is None:
        return Photons(none, none, none, none, arrival)
    spectrum = resolve(source.spectral, "spectral", f"source '{source.name}'")
    values = internal_values(source.spectral, spectrum)
    grid = _energy_grid(spectrum, values, energy)
    flux = np.asarray(spectrum.function(grid, *values))
    livetime = float(gti.ontime.to_value(u.s)) * (1 - deadtime_fraction)
    rate = flux * shape.share(grid) * arrival.mean(grid) * largest_area(aeff, grid)
    if not np.all(rate >= 0):
        raise InputError(
            f"source '{source.name}': its spectrum is negative or no number between {energy[0]:g} and {energy[1]:g} TeV: "
            "change its parameters or the range of energies"
        )
    density = rate * grid
    cumulative = np.concatenate(
        [[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(np.log(grid)))]
    )
    expected = cumulative[-1] * livetime
    check_number(expected, f"source '{source.name}'", MOST_EVENTS)
    number = rng.poisson(expected)
    energy_true = np.exp(np.interp(rng.random(number) * cumulative[-1], cumulative, np.log(grid)))
    lon, lat = shape.draw(energy_true, rng)
    offset = fov.separation(lon, lat, *pointing)
    most, here = largest_area(aeff, energy_true), area_at(aeff, energy_true, offset)
    kept = rng.random(number) * most < here
    energy_true, lon, lat, offset = energy_true[kept], lon[kept], lat[kept], offset[kept]
    psf, edisp = irfs.get("psf"), irfs.get("edisp")
    if psf is not None and "psf" not in source.without_irf:
        distance = draw_distances(psf, energy_true, offset, rng)
        lon, lat = fov.displaced(lon, lat, distance, rng.uniform(0, 2 * np.pi, len(lon)))
    reconstructed = energy_true
    if edisp is not None and "edisp" not in source.without_irf:
        reconstructed = energy_true * draw_migra(edisp, energy_true, offset, rng)
    seen = is_in_field(irfs, *fov.sky_to_fov(lon, lat, *pointing)) & (reconstructed > 0)
    return Photons(reconstructed[seen], energy_true[seen], lon[seen], lat[seen], arrival)


def _energy_grid(spectrum: ModelFunction, values: np.ndarray, energy: tuple[float, float]) -> np.ndarray:
    """Energies, TeV, between which a spectrum is a straight line; its own breaks are among them."""
    steps = int(np.ceil(_STEPS_PER_DECADE * np.log10(energy[1] / energy[0])))
    grid = np.geomspace(*energy, steps + 1)
    breaks = spectrum.companions.get("breaks")
    if breaks is None:
        return grid
    extra = np.asarray(breaks(*values), dtype=float)
    return np.union1d(grid, extra[(extra > energy[0]) & (extra < energy[1])])


def check_number(expected: float, what: str, most: float) -> None:
    """Raise if a run would have more events than fit into memory."""
    if not expected <= most:
        raise InputError(
            f"the {what} would give {expected:.3g} events in one run: lower its flux or the duration"
        )


def simulate_observation(
    simulation: Simulation, obs_id: int, irfs: Mapping[str, IrfTable] | None = None
) -> Observation:
    """Draw one observation of a configured simulation; see `observe`.

    Parameters
    ----------
    simulation : Simulation
    obs_id : int
    irfs : mapping of IrfTable, optional
        Of the instrument's file, which the caller reads; not needed for an instrument in numbers.

    Raises
    ------
    InputError
        If there is no such observation or the responses are missing, and as `observe` says.
    """
    run, instrument = simulation.run(obs_id), simulation.instrument
    if isinstance(instrument, Instrument):
        irfs = simulate_irfs(instrument)
    elif irfs is None or "aeff" not in irfs:
        raise InputError(
            f"{instrument.irf}: there is no effective area in this file: name one that holds AEFF_2D"
        )
    meta = {
        "telescope": instrument.telescope,
        "object": run.target,
        "target": run.target,
        "tstart": run.tstart,
        "tstop": run.tstart + run.duration,
        "location": {"geolon": instrument.lon, "geolat": instrument.lat, "altitude": instrument.altitude},
        "files": [observation_path(obs_id)],
    }
    reference = Time(REFERENCE_MJD, 0.0, format="mjd", scale="tt")
    return observe(
        obs_id,
        simulation.models,
        irfs,
        SkyCoord(run.ra * u.deg, run.dec * u.deg, frame="icrs"),
        Gti([run.tstart] * u.s, [run.tstart + run.duration] * u.s, reference),
        seed=simulation.seed,
        energy=None if simulation.energy is None else simulation.energy * u.TeV,
        # through DEADC, the number that a file holds, so that reading gives back the same bits
        deadtime_fraction=1 - (1 - instrument.deadtime),
        meta=meta,
    )
