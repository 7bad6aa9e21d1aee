"""Simulated observations: source and background events drawn from a sky and from analytic responses."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.time import Time
from numpy.random import PCG64, Generator, SeedSequence

from dl3flow.data.events import EventList, Gti
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.table import IrfTable
from dl3flow.simulate.irfs import simulate_irfs
from dl3flow.simulate.plan import REFERENCE_MJD, SimulatedRun, SimulatedSource, Simulation, observation_path

_CM2_PER_M2 = 1e4
_SOURCE_STEPS_PER_DECADE = 400
_BKG_STEPS_PER_DECADE = 40
_BKG_CELL = 0.1
_MOST_EVENTS = 1_000_000
_CHUNK = 4096


def simulate_observation(simulation: Simulation, obs_id: int) -> Observation:
    """Draw one observation.

    The random numbers depend on the seed and ``obs_id`` alone, so any order or number of jobs gives the same events.

    Parameters
    ----------
    simulation : Simulation
    obs_id : int

    Returns
    -------
    observation : Observation

    Raises
    ------
    InputError
        If there is no such observation, or it would have more than a million events of one source.
    """
    run, instrument = simulation.run(obs_id), simulation.instrument
    rng = Generator(PCG64(SeedSequence([simulation.seed, obs_id])))
    irfs = simulate_irfs(instrument)
    livetime = run.duration * (1 - instrument.deadtime)
    parts = [
        draw_source(source, run, simulation.energy, irfs, livetime, instrument.field, rng)
        for source in simulation.sources
    ]
    parts.append(draw_background(irfs["bkg"], run, rng))
    energy, lon, lat = (np.concatenate([part[n] for part in parts]) for n in range(3))
    time = rng.uniform(run.tstart, run.tstart + run.duration, len(energy))
    order = np.argsort(time, kind="stable")
    reference = Time(REFERENCE_MJD, 0.0, format="mjd", scale="tt")
    events = EventList(
        event_id=np.arange(1, len(energy) + 1),
        time=time[order] * u.s,
        reference=reference,
        radec=SkyCoord(np.degrees(lon[order]) * u.deg, np.degrees(lat[order]) * u.deg, frame="icrs"),
        energy=energy[order] * u.TeV,
    )
    tstop = run.tstart + run.duration
    meta = {
        "telescope": instrument.telescope,
        "instrument": "SIMULATION",
        "object": run.target,
        "target": run.target,
        "creator": "dl3flow",
        "origin": "dl3flow simulation",
        "obs_mode": "POINTING",
        "tstart": run.tstart,
        "tstop": tstop,
        "location": {"geolon": instrument.lon, "geolat": instrument.lat, "altitude": instrument.altitude},
        "files": [observation_path(obs_id)],
        "warnings": [],
    }
    return Observation(
        obs_id=obs_id,
        events=events,
        gti=Gti([run.tstart] * u.s, [tstop] * u.s, reference),
        pointing=SkyCoord(run.ra * u.deg, run.dec * u.deg, frame="icrs"),
        # through DEADC, the number that a file holds, so that reading gives back the same bits
        deadtime_fraction=1 - (1 - instrument.deadtime),
        **irfs,
        meta=meta,
    )


Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_source(
    source: SimulatedSource,
    run: SimulatedRun,
    energy_range: tuple[float, float],
    irfs: dict[str, IrfTable],
    livetime: float,
    field: float,
    rng: Generator,
) -> Drawn:
    """Reconstructed energies (TeV), longitudes and latitudes (rad) of a source's events.

    Photons are drawn for the largest area over the field and kept with the share that the area has at their own
    offset, which is exact for a source of any size.
    """
    aeff = irfs["aeff"]
    area = aeff.quantity.to_value(u.m**2)
    steps = int(np.ceil(_SOURCE_STEPS_PER_DECADE * np.log10(energy_range[1] / energy_range[0])))
    grid = np.geomspace(*energy_range, steps + 1)
    largest = aeff.hat("energy_true", grid * u.TeV) @ area.max(axis=1)
    density = source.flux(grid) * largest * _CM2_PER_M2 * grid
    cumulative = np.concatenate(
        [[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(np.log(grid)))]
    )
    expected = cumulative[-1] * livetime
    _check_number(expected, f"source '{source.name}'")
    number = rng.poisson(expected)
    energy_true = np.exp(np.interp(rng.random(number) * cumulative[-1], cumulative, np.log(grid)))
    lon, lat = np.full(number, source.lon), np.full(number, source.lat)
    if source.sigma > 0:
        lon, lat = _scattered(lon, lat, np.full(number, source.sigma), rng)
    offset = _offset(lon, lat, run)
    at_energy = aeff.hat("energy_true", energy_true * u.TeV)
    here = np.einsum("ne,eo,no->n", at_energy, area, aeff.hat("offset", offset * u.rad))
    kept = rng.random(number) * (at_energy @ area.max(axis=1)) < here
    energy_true, lon, lat, offset = energy_true[kept], lon[kept], lat[kept], offset[kept]
    lon, lat = _scattered(lon, lat, _psf_widths(irfs["psf"], energy_true, offset, rng), rng)
    energy = energy_true * _draw_migra(irfs["edisp"], energy_true, offset, rng)
    x, y = fov.sky_to_fov(lon, lat, np.radians(run.ra), np.radians(run.dec))
    seen = np.maximum(np.abs(x), np.abs(y)) <= np.radians(field)
    return energy[seen], lon[seen], lat[seen]


def _check_number(expected: float, what: str) -> None:
    if not expected <= _MOST_EVENTS:
        raise InputError(
            f"the {what} would give {expected:.3g} events in one run: lower its flux or the duration"
        )


def _offset(lon: np.ndarray, lat: np.ndarray, run: SimulatedRun) -> np.ndarray:
    return fov.separation(lon, lat, np.radians(run.ra), np.radians(run.dec))


def _scattered(
    lon: np.ndarray, lat: np.ndarray, sigma: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Directions moved by a two-dimensional Gaussian of width ``sigma``: by inverse CDF, r^2 / (2 sigma^2) = -ln(1 - p)."""
    distance = sigma * np.sqrt(-2 * np.log1p(-rng.random(len(lon))))
    return fov.displaced(lon, lat, distance, rng.uniform(0, 2 * np.pi, len(lon)))


def _psf_widths(psf: IrfTable, energy_true: np.ndarray, offset: np.ndarray, rng: Generator) -> np.ndarray:
    """Width, rad, of the Gaussian that each event belongs to, chosen by their integrals amplitude x sigma^2."""
    at_energy, at_offset = psf.hat("energy_true", energy_true * u.TeV), psf.hat("offset", offset * u.rad)

    def value(column: str, unit: str) -> np.ndarray:
        table = (psf.data[column] * psf.units[column]).to_value(unit)
        return np.asarray(np.einsum("ne,eo,no->n", at_energy, table, at_offset))

    widths = np.array([value(f"SIGMA_{n}", "rad") for n in (1, 2, 3)])
    amplitudes = np.array([np.ones(len(offset)), value("AMPL_2", ""), value("AMPL_3", "")])
    shares = np.cumsum(amplitudes * widths**2, axis=0)
    chosen = (rng.random(len(offset)) * shares[-1] > shares).sum(axis=0)
    return np.asarray(widths[np.minimum(chosen, 2), np.arange(len(offset))])


def _draw_migra(edisp: IrfTable, energy_true: np.ndarray, offset: np.ndarray, rng: Generator) -> np.ndarray:
    """Energy over true energy by inverse CDF, linear within each bin of migra as in the reduction's kernels."""
    uniform = rng.random(len(offset))
    migra = np.empty(len(offset))
    for start in range(0, len(offset), _CHUNK):  # a row of the dispersion per event: bounded memory
        part = slice(start, start + _CHUNK)
        migra[part] = _invert_migra(edisp, energy_true[part], offset[part], uniform[part])
    return migra


def _invert_migra(
    edisp: IrfTable, energy_true: np.ndarray, offset: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
    matrix, migra = edisp.quantity.to_value(""), edisp.axis("migra")
    at_energy = np.tensordot(edisp.hat("energy_true", energy_true * u.TeV), matrix, (1, 0))
    density = np.einsum("nmo,no->nm", at_energy, edisp.hat("offset", offset * u.rad))
    content = np.maximum(density, 0.0) * migra.widths.to_value("")
    cumulative = np.concatenate([np.zeros((len(offset), 1)), np.cumsum(content, axis=1)], axis=1)
    target = uniform * cumulative[:, -1]
    low = np.clip((cumulative <= target[:, None]).sum(axis=1) - 1, 0, migra.n_bins - 1)
    rows, edges = np.arange(len(offset)), migra.edges.to_value("")
    fraction = (target - cumulative[rows, low]) / content[rows, low]
    return np.asarray(edges[low] + fraction * (edges[low + 1] - edges[low]))


def draw_background(bkg: IrfTable, run: SimulatedRun, rng: Generator) -> Drawn:
    """Energies (TeV), longitudes and latitudes (rad) of background events, from the rate as a reduction evaluates it."""
    table = bkg.axis("energy").edges.to_value(u.TeV)
    steps = int(np.ceil(_BKG_STEPS_PER_DECADE * np.log10(table[-1] / table[0])))
    energy = Axis.from_bounds("energy", table[0] * u.TeV, table[-1] * u.TeV, steps)
    edges = {}
    for name in ("fov_lon", "fov_lat"):
        limits = bkg.axis(name).edges.to_value(u.rad)
        edges[name] = np.linspace(limits[0], limits[-1], round(np.degrees(np.ptp(limits)) / _BKG_CELL) + 1)
    x, y = (0.5 * (edges[name][1:] + edges[name][:-1]) for name in ("fov_lon", "fov_lat"))
    grid_x, grid_y = np.meshgrid(x, y, indexing="ij")
    rate = background_rate(bkg, energy, grid_x.ravel(), grid_y.ravel()).to_value("s-1 sr-1")
    solid_angle = (x[1] - x[0]) * np.diff(np.sin(edges["fov_lat"]))
    expected = (rate.reshape(energy.n_bins, len(x), len(y)) * solid_angle * run.duration).ravel()
    total = expected.sum()
    _check_number(total, "background")
    number = rng.poisson(total)
    cumulative = np.cumsum(expected)
    # a uniform number just below 1 may round to the end of the last filled cell, hence the clip to that cell
    cell = np.searchsorted(cumulative, rng.random(number) * total, side="right")
    cell = np.minimum(cell, np.searchsorted(cumulative, cumulative[-1]))
    k, i, j = np.unravel_index(cell, (energy.n_bins, len(x), len(y)))
    log_edges = np.log(energy.edges.to_value(u.TeV))
    drawn = np.exp(log_edges[k] + rng.random(number) * np.diff(log_edges)[k])
    fov_lon = edges["fov_lon"][i] + rng.random(number) * (x[1] - x[0])
    sin_lat = np.sin(edges["fov_lat"])
    fov_lat = np.arcsin(sin_lat[j] + rng.random(number) * np.diff(sin_lat)[j])
    lon, lat = fov.fov_to_sky(fov_lon, fov_lat, np.radians(run.ra), np.radians(run.dec))
    return drawn, lon, lat
