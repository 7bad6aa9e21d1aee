"""What to simulate: a configuration checked, and the index rows that it will have; cheap, for use while parsing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import astropy.units as u
import numpy as np

from dl3flow.data.index import HduEntry, ObservationEntry, parse_utc
from dl3flow.errors import InputError, choices
from dl3flow.geometry import fov
from dl3flow.models.resolve import parameters_of
from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.registry import Plugin, convert
from dl3flow.units import Energy, Number

# Times count from 2001-01-01T00:00:00 TT (a whole MJD, so that the reference is exact).
REFERENCE_MJD = 51910
IRF_KINDS = {"aeff": "aeff_2d", "edisp": "edisp_2d", "psf": "psf_3gauss", "bkg": "bkg_3d"}
ENERGY_LIMITS = (0.05, 200.0)
_LONGEST_RUN = 86400.0
Degrees = Annotated[float, u.deg]
Seconds = Annotated[float, u.s]
T = TypeVar("T")


@dataclass(frozen=True)
class Instrument:
    """Telescope with analytic responses.

    Attributes
    ----------
    telescope : str
    lon, lat : float
        Place on Earth, deg.
    altitude : float
        Above sea level, m.
    deadtime : float
        Share of the observing time in which no event is recorded.
    area : float
        Effective area on axis at high energies, m2.
    threshold : float
        Energy, TeV, from which responses are declared safe; the area falls off below.
    energy_resolution : float
        Width of ln(energy / energy_true) at high energies.
    angular_resolution : float
        Width of the core of the point spread at 1 TeV on axis, deg.
    background_rate : float
        Background events per second above 1 TeV in the whole field.
    field : float
        Half width of the square field of view, deg.
    """

    telescope: str = "DEMO"
    lon: Degrees = 16.5
    lat: Degrees = -23.27
    altitude: Annotated[float, u.m] = 1835.0
    deadtime: Number = 0.06
    area: Annotated[float, u.m**2] = 2e5
    threshold: Energy = 0.5
    energy_resolution: Number = 0.15
    angular_resolution: Degrees = 0.06
    background_rate: Annotated[float, u.Hz] = 1.0
    field: Degrees = 2.5


@dataclass(frozen=True)
class SimulatedSource:
    """A source of the simulated sky.

    Attributes
    ----------
    name : str
    lon, lat : float
        ICRS, rad.
    sigma : float
        Width of a round Gaussian, rad; 0 is a point.
    spectrum : Plugin
        Registered spectral model.
    values : tuple of float
        Its parameters in internal units, in the order of its signature.
    options : tuple of (str, value)
        Its options.
    """

    name: str
    lon: float
    lat: float
    sigma: float
    spectrum: Plugin
    values: tuple[float, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def flux(self, energy: np.ndarray) -> np.ndarray:
        """Differential flux in cm-2 s-1 TeV-1 at energies in TeV."""
        return np.asarray(self.spectrum(energy, *self.values, **dict(self.options)))


@dataclass(frozen=True)
class SimulatedRun:
    """One observation to simulate.

    Attributes
    ----------
    obs_id : int
    target : str
    ra, dec : float
        Pointing, ICRS, deg.
    tstart, duration : float
        Start after `REFERENCE_MJD` (TT) and length, s.
    """

    obs_id: int
    target: str
    ra: float
    dec: float
    tstart: float
    duration: float


@dataclass(frozen=True)
class Simulation:
    """A simulated data set.

    Attributes
    ----------
    seed : int
    energy : (float, float)
        Range of true energies, TeV.
    instrument : Instrument
    sources : tuple of SimulatedSource
    runs : tuple of SimulatedRun
    """

    seed: int
    energy: tuple[float, float]
    instrument: Instrument
    sources: tuple[SimulatedSource, ...]
    runs: tuple[SimulatedRun, ...]

    def run(self, obs_id: int) -> SimulatedRun:
        """Run of that number.

        Raises
        ------
        InputError
            Listing the numbers if there is none.
        """
        for run in self.runs:
            if run.obs_id == obs_id:
                return run
        known = choices(str(obs_id), [str(run.obs_id) for run in self.runs])
        raise InputError(f"the simulation has no observation {obs_id}: {known}")


def parse_simulation(mapping: Any, where: str) -> Simulation:
    """Check a simulation's configuration.

    Parameters
    ----------
    mapping : mapping
        ``seed``, ``energy`` {min, max}, ``instrument`` (any attribute of `Instrument`), ``sources`` (list of name,
        lon, lat, optionally frame and sigma, spectral {type, parameters}) and ``observations`` (list of obs_id, target,
        start, duration and either pointing {frame, lon, lat} or wobble {offset, angle} around the target).
    where : str
        File, for messages.

    Raises
    ------
    InputError
        Naming the key, the value found and the remedy.
    """
    given = _section(mapping, {"seed", "energy", "sources", "observations"}, {"instrument"}, where)
    seed = convert(given["seed"], int, f"{where}: seed")
    if seed < 0:
        raise InputError(f"{where}: seed: must not be negative, found {seed}")
    energy = _parse_energy(given["energy"], f"{where}: energy")
    instrument = _parse_instrument(given.get("instrument", {}), f"{where}: instrument")
    sources = tuple(
        _parse_source(entry, f"{where}: sources[{n}]")
        for n, entry in enumerate(_entries(given["sources"], f"{where}: sources"))
    )
    _unique([source.name for source in sources], f"{where}: sources", "name")
    observations = _entries(given["observations"], f"{where}: observations")
    if not observations:
        raise InputError(f"{where}: observations: the list is empty, give at least one observation")
    runs = tuple(
        _parse_run(entry, sources, f"{where}: observations[{n}]") for n, entry in enumerate(observations)
    )
    _unique([run.obs_id for run in runs], f"{where}: observations", "obs_id")
    return Simulation(seed, energy, instrument, sources, runs)


def observation_path(obs_id: int) -> str:
    """File of a simulated observation, relative to the index."""
    return f"data/{obs_id}.fits.gz"


def observation_entries(simulation: Simulation) -> list[ObservationEntry]:
    """Index rows of the simulated observations; nothing is simulated."""
    entries = []
    for run in simulation.runs:
        path = observation_path(run.obs_id)
        hdus = {"events": HduEntry(path, "EVENTS", "events"), "gti": HduEntry(path, "GTI", "gti")}
        hdus |= {kind: HduEntry(path, kind.upper(), name) for kind, name in IRF_KINDS.items()}
        entry = ObservationEntry(
            obs_id=run.obs_id,
            target=run.target,
            ra=run.ra,
            dec=run.dec,
            tstart=run.tstart,
            tstop=run.tstart + run.duration,
            reference=float(REFERENCE_MJD),
            timesys="tt",
            livetime=run.duration * (1 - simulation.instrument.deadtime),
            quality=0,
            telescope=simulation.instrument.telescope,
            hdus=hdus,
            location=(simulation.instrument.lon, simulation.instrument.lat, simulation.instrument.altitude),
        )
        entries.append(entry)
    return entries


def _section(value: Any, required: set[str], optional: set[str], where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected the keys {', '.join(sorted(required))}, found {value!r}")
    for key in value:
        if key not in required | optional:
            raise InputError(f"{where}: unknown key '{key}': {choices(str(key), required | optional)}")
    for key in sorted(required):
        if key not in value:
            raise InputError(f"{where}: the key '{key}' is missing")
    return value


def _entries(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: expected a list, found {value!r}")
    return value


def _unique(names: Sequence[Any], where: str, key: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: the {key} {name!r} is given twice: keep one")


def _parse_energy(value: Any, where: str) -> tuple[float, float]:
    given = _section(value, {"min", "max"}, set(), where)
    low, high = (convert(given[key], Energy, f"{where}.{key}") for key in ("min", "max"))
    if not low < high:
        raise InputError(f"{where}: `min` ({given['min']}) must be below `max` ({given['max']})")
    if low < ENERGY_LIMITS[0] or high > ENERGY_LIMITS[1]:
        raise InputError(
            f"{where}: {given['min']} to {given['max']} exceeds the {ENERGY_LIMITS[0]} to {ENERGY_LIMITS[1]} TeV "
            "of the simulated responses"
        )
    return low, high


def _parse_instrument(value: Any, where: str) -> Instrument:
    instrument = _convert_fields(Instrument, value, where)
    for name in ("area", "threshold", "energy_resolution", "angular_resolution", "field"):
        if getattr(instrument, name) <= 0:
            raise InputError(f"{where}.{name}: must be above 0, found '{value[name]}'")
    if not 0 <= instrument.deadtime < 1:
        raise InputError(f"{where}.deadtime: must lie in [0, 1), found {value['deadtime']}")
    if instrument.background_rate < 0:
        raise InputError(f"{where}.background_rate: must not be negative, found '{value['background_rate']}'")
    if instrument.field > 10:
        raise InputError(f"{where}.field: must be at most 10 deg, found '{value['field']}'")
    if abs(instrument.lat) > 90:
        raise InputError(f"{where}.lat: must lie between -90 and 90 deg, found '{value['lat']}'")
    return instrument


def _convert_fields(cls: type[T], value: Any, where: str) -> T:
    """Dataclass from a section of the configuration: its annotations are the schema."""
    hints = get_type_hints(cls, include_extras=True)
    declared = {field.name: field.default for field in fields(cls)}  # type: ignore[arg-type]
    required = {name for name, default in declared.items() if default is MISSING}
    given = _section(value, required, set(declared) - required, where)
    return cls(**{name: convert(given[name], hints[name], f"{where}.{name}") for name in given})


def _parse_direction(value: Mapping[str, Any], where: str) -> tuple[float, float]:
    lon, lat = (convert(value[key], Annotated[float, u.rad], f"{where}.{key}") for key in ("lon", "lat"))
    if abs(lat) > np.pi / 2:
        raise InputError(f"{where}.lat: must lie between -90 and 90 deg, found '{value['lat']}'")
    return fov.icrs_lonlat(value.get("frame", "icrs"), lon, lat, f"{where}.frame")


def _parse_source(value: Any, where: str) -> SimulatedSource:
    given = _section(value, {"name", "lon", "lat", "spectral"}, {"frame", "sigma"}, where)
    name = convert(given["name"], str, f"{where}.name")
    lon, lat = _parse_direction(given, where)
    sigma = convert(given.get("sigma", "0 deg"), Annotated[float, u.rad], f"{where}.sigma")
    if sigma < 0:
        raise InputError(f"{where}.sigma: must not be negative, found '{given['sigma']}'")
    spectrum, values, options = _parse_spectrum(given["spectral"], f"{where}.spectral")
    return SimulatedSource(name, lon, lat, sigma, spectrum, values, tuple(options.items()))


def _parse_spectrum(entry: Any, where: str) -> tuple[Plugin, tuple[float, ...], dict[str, Any]]:
    """Spectral model with its values and options."""
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise InputError(f"{where}: expected a `type` and its parameters, found {entry!r}")
    spectrum = SPECTRAL_MODELS.find(entry["type"], f"{where}.type")
    # an option, such as the `reference` of a published spectrum, goes before a parameter of that name
    options = spectrum.bind({key: entry[key] for key in entry if key in spectrum.options}, where)
    parameters = parameters_of(spectrum, options)
    for key in entry:
        if key not in ("type", *parameters, *options):
            wrong = choices(str(key), (*parameters, *options))
            raise InputError(f"{where}: unknown parameter '{key}' of '{spectrum.name}': {wrong}")
    given = {key: entry[key] for key in parameters if key in entry and key not in options}
    values = tuple(
        convert(given[key], Annotated[float, unit], f"{where}.{key}") if key in given else float(default)
        for key, (unit, default) in parameters.items()
    )
    check = spectrum.companions.get("check")
    if check and (words := check(*values, **options)):
        raise InputError(f"{where}: {words}: correct it")
    return spectrum, values, options


def _parse_run(value: Any, sources: Sequence[SimulatedSource], where: str) -> SimulatedRun:
    given = _section(value, {"obs_id", "target", "start", "duration"}, {"pointing", "wobble"}, where)
    obs_id = convert(given["obs_id"], int, f"{where}.obs_id")
    if obs_id < 0:
        raise InputError(f"{where}.obs_id: must not be negative, found {obs_id}")
    target = convert(given["target"], str, f"{where}.target")
    if ("pointing" in given) == ("wobble" in given):
        raise InputError(f"{where}: give either `pointing` or `wobble`")
    if "pointing" in given:
        pointing = _section(given["pointing"], {"lon", "lat"}, {"frame"}, f"{where}.pointing")
        ra, dec = _parse_direction(pointing, f"{where}.pointing")
    else:
        ra, dec = _wobble(given["wobble"], target, sources, where)
    duration = convert(given["duration"], Seconds, f"{where}.duration")
    if not 1 <= duration <= _LONGEST_RUN:
        raise InputError(f"{where}.duration: must lie between 1 s and 1 day, found '{given['duration']}'")
    start = parse_utc(given["start"], f"{where}.start").tt
    # To the microsecond, so that the number does not depend on how the text wrote the moment.
    tstart = round(((start.jd1 - 2400000.5 - REFERENCE_MJD) + start.jd2) * 86400, 6)
    return SimulatedRun(obs_id, target, math.degrees(ra) % 360, math.degrees(dec), float(tstart), duration)


def _wobble(value: Any, target: str, sources: Sequence[SimulatedSource], where: str) -> tuple[float, float]:
    """Pointing at an offset from the target, at a position angle (north through east)."""
    given = _section(value, {"offset", "angle"}, set(), f"{where}.wobble")
    offset, angle = (
        convert(given[key], Annotated[float, u.rad], f"{where}.wobble.{key}") for key in ("offset", "angle")
    )
    source = next((source for source in sources if source.name == target), None)
    if source is None:
        known = choices(target, [source.name for source in sources])
        raise InputError(
            f"{where}.target: a wobble needs a target among the sources, found '{target}' {known}"
        )
    lon, lat = fov.displaced(np.array(source.lon), np.array(source.lat), np.array(offset), np.array(angle))
    return float(lon), float(lat)
