"""What to simulate: a configuration checked, and the index rows that it will have; cheap, for use while parsing."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, Any, TypeVar, get_type_hints

import astropy.units as u
import numpy as np

from dl3flow.data.index import HduEntry, ObservationEntry, parse_utc
from dl3flow.errors import InputError, choices
from dl3flow.geometry import fov
from dl3flow.models.pixels import declared_position
from dl3flow.models.resolve import parameters_of
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.registry import convert
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
class FileInstrument:
    """Telescope with the responses of a file.

    Attributes
    ----------
    irf : str
        File with the effective area and, as far as there are any, dispersion, point spread and background.
    lon, lat, altitude : float
        Place on Earth, deg and m.
    telescope : str
    deadtime : float
        Share of the observing time in which no event is recorded.
    kinds : tuple of (str, str)
        HDU_TYPE and HDU_CLASS of the responses in the file.
    """

    irf: str
    lon: Degrees
    lat: Degrees
    altitude: Annotated[float, u.m]
    telescope: str = "UNKNOWN"
    deadtime: Number = 0.0
    kinds: tuple[tuple[str, str], ...] = ()


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
    energy : (float, float) or None
        Range of true energies, TeV; None is that of the effective area.
    instrument : Instrument or FileInstrument
    models : Models
        Sources and, where there are any, factors on the background.
    runs : tuple of SimulatedRun
    """

    seed: int
    energy: tuple[float, float] | None
    instrument: Instrument | FileInstrument
    models: Models
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


def parse_simulation(
    mapping: Any,
    where: str,
    models: Models | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Simulation:
    """Check a simulation's configuration.

    Parameters
    ----------
    mapping : mapping
        ``seed``, ``energy`` {min, max}, ``instrument`` (any attribute of `Instrument`, or those of `FileInstrument`),
        ``sources`` (list of name, lon, lat, optionally frame and sigma, spectral {type, parameters}), ``models`` and
        ``observations`` (list of obs_id, target, start, duration and either pointing {frame, lon, lat} or wobble {offset,
        angle} around the target).
    where : str
        File, for messages.
    models : Models, optional
        What ``models`` stands for: reading them is the caller's. They follow the ``sources``.
    kinds : mapping of str, optional
        HDU_CLASS by HDU_TYPE of the responses in the file ``instrument.irf``.

    Raises
    ------
    InputError
        Naming the key, the value found and the remedy.
    """
    given = _section(mapping, {"seed", "observations"}, {"energy", "instrument", "sources", "models"}, where)
    seed = convert(given["seed"], int, f"{where}: seed")
    if seed < 0:
        raise InputError(f"{where}: seed: must not be negative, found {seed}")
    section = given.get("instrument", {})
    is_file = isinstance(section, Mapping) and "irf" in section
    instrument = _parse_instrument(section, FileInstrument if is_file else Instrument, f"{where}: instrument")
    if isinstance(instrument, FileInstrument):
        instrument = replace(instrument, kinds=tuple((kinds or {}).items()))
    if "energy" not in given and not is_file:
        raise InputError(f"{where}: the key 'energy' is missing")
    energy = _parse_energy(given["energy"], f"{where}: energy", not is_file) if "energy" in given else None
    if "sources" not in given and "models" not in given:
        raise InputError(f"{where}: give `sources` (a list) or `models` (a model file)")
    sources = tuple(
        _parse_source(entry, f"{where}: sources[{n}]")
        for n, entry in enumerate(_entries(given.get("sources", []), f"{where}: sources"))
    )
    models = models or Models(())
    every = replace(models, sources=(*sources, *models.sources))
    _unique([source.name for source in every.sources], f"{where}: sources", "name")
    observations = _entries(given["observations"], f"{where}: observations")
    if not observations:
        raise InputError(f"{where}: observations: the list is empty, give at least one observation")
    runs = tuple(
        _parse_run(entry, every.sources, f"{where}: observations[{n}]")
        for n, entry in enumerate(observations)
    )
    _unique([run.obs_id for run in runs], f"{where}: observations", "obs_id")
    return Simulation(seed, energy, instrument, every, runs)


def observation_path(obs_id: int) -> str:
    """File of a simulated observation, relative to the index."""
    return f"data/{obs_id}.fits.gz"


def observation_entries(simulation: Simulation) -> list[ObservationEntry]:
    """Index rows of the simulated observations; nothing is simulated."""
    instrument = simulation.instrument
    kinds = IRF_KINDS if isinstance(instrument, Instrument) else dict(instrument.kinds)
    entries = []
    for run in simulation.runs:
        path = observation_path(run.obs_id)
        hdus = {"events": HduEntry(path, "EVENTS", "events"), "gti": HduEntry(path, "GTI", "gti")}
        hdus |= {kind: HduEntry(path, kind.upper(), name) for kind, name in kinds.items()}
        entry = ObservationEntry(
            obs_id=run.obs_id,
            target=run.target,
            ra=run.ra,
            dec=run.dec,
            tstart=run.tstart,
            tstop=run.tstart + run.duration,
            reference=float(REFERENCE_MJD),
            timesys="tt",
            livetime=run.duration * (1 - instrument.deadtime),
            quality=0,
            telescope=instrument.telescope,
            hdus=hdus,
            location=(instrument.lon, instrument.lat, instrument.altitude),
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
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{where}: the {key} {name!r} is given twice: keep one")


def _parse_energy(value: Any, where: str, is_limited: bool) -> tuple[float, float]:
    given = _section(value, {"min", "max"}, set(), where)
    low, high = (convert(given[key], Energy, f"{where}.{key}") for key in ("min", "max"))
    if not low < high:
        raise InputError(f"{where}: `min` ({given['min']}) must be below `max` ({given['max']})")
    if low <= 0:
        raise InputError(f"{where}.min: must be above 0, found '{given['min']}'")
    if is_limited and (low < ENERGY_LIMITS[0] or high > ENERGY_LIMITS[1]):
        raise InputError(
            f"{where}: {given['min']} to {given['max']} exceeds the {ENERGY_LIMITS[0]} to {ENERGY_LIMITS[1]} TeV "
            "of the simulated responses"
        )
    return low, high


def _parse_instrument(
    value: Any, kind: type[Instrument] | type[FileInstrument], where: str
) -> Instrument | FileInstrument:
    instrument = _convert_fields(kind, value, where, hidden={"kinds"})
    for name in ("area", "threshold", "energy_resolution", "angular_resolution", "field"):
        if getattr(instrument, name, 1) <= 0:
            raise InputError(f"{where}.{name}: must be above 0, found '{value[name]}'")
    if not 0 <= instrument.deadtime < 1:
        raise InputError(f"{where}.deadtime: must lie in [0, 1), found {value['deadtime']}")
    if getattr(instrument, "background_rate", 0) < 0:
        raise InputError(f"{where}.background_rate: must not be negative, found '{value['background_rate']}'")
    if getattr(instrument, "field", 1) > 10:
        raise InputError(f"{where}.field: must be at most 10 deg, found '{value['field']}'")
    if abs(instrument.lat) > 90:
        raise InputError(f"{where}.lat: must lie between -90 and 90 deg, found '{value['lat']}'")
    return instrument


def _convert_fields(cls: type[T], value: Any, where: str, hidden: set[str]) -> T:
    """Dataclass from a section of the configuration: its annotations are the schema."""
    hints = get_type_hints(cls, include_extras=True)
    declared = {field.name: field.default for field in fields(cls) if field.name not in hidden}  # type: ignore[arg-type]
    required = {name for name, default in declared.items() if default is MISSING}
    given = _section(value, required, set(declared) - required, where)
    return cls(**{name: convert(given[name], hints[name], f"{where}.{name}") for name in given})


def _parse_direction(value: Mapping[str, Any], where: str) -> tuple[float, float]:
    lon, lat = (convert(value[key], Annotated[float, u.rad], f"{where}.{key}") for key in ("lon", "lat"))
    if abs(lat) > np.pi / 2:
        raise InputError(f"{where}.lat: must lie between -90 and 90 deg, found '{value['lat']}'")
    return fov.icrs_lonlat(value.get("frame", "icrs"), lon, lat, f"{where}.frame")


def _parse_source(value: Any, where: str) -> Source:
    given = _section(value, {"name", "lon", "lat", "spectral"}, {"frame", "sigma"}, where)
    name = convert(given["name"], str, f"{where}.name")
    lon, lat = _parse_direction(given, where)
    sigma = convert(given.get("sigma", "0 deg"), Annotated[float, u.rad], f"{where}.sigma")
    if sigma < 0:
        raise InputError(f"{where}.sigma: must not be negative, found '{given['sigma']}'")
    place = (Parameter("lon_0", lon, u.rad), Parameter("lat_0", lat, u.rad))
    round_shape = (Parameter("sigma", sigma, u.rad), Parameter("e", 0.0), Parameter("phi", 0.0, u.rad))
    spatial = Component("gauss", (*place, *round_shape)) if sigma > 0 else Component("point", place)
    return Source(name, _parse_spectrum(given["spectral"], f"{where}.spectral"), spatial)


def _parse_spectrum(entry: Any, where: str) -> Component:
    """Spectral model with its values, in internal units, and options."""
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
    units = [unit for unit, _ in parameters.values()]
    found = (Parameter(*fact) for fact in zip(parameters, values, units, strict=True))
    return Component(spectrum.name, tuple(found), options)


def _parse_run(value: Any, sources: Sequence[Source], where: str) -> SimulatedRun:
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


def _wobble(value: Any, target: str, sources: Sequence[Source], where: str) -> tuple[float, float]:
    """Pointing at an offset from the target, at a position angle (north through east)."""
    given = _section(value, {"offset", "angle"}, set(), f"{where}.wobble")
    offset, angle = (
        convert(given[key], Annotated[float, u.rad], f"{where}.wobble.{key}") for key in ("offset", "angle")
    )
    source = next((source for source in sources if source.name == target), None)
    at = None if source is None or source.spatial is None else declared_position(source.spatial)
    if at is None:
        known = choices(target, [source.name for source in sources])
        raise InputError(
            f"{where}.target: a wobble needs a target among the sources, found '{target}' {known}"
        )
    place = (np.array(float(at.icrs.ra.rad)), np.array(float(at.icrs.dec.rad)))
    lon, lat = fov.displaced(*place, np.array(offset), np.array(angle))
    return float(lon), float(lat)
