"""Selection of observations from an index by criteria that all must hold; each one left out gets its reason."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import astropy.units as u
import numpy as np

from dl3flow.data.index import ObservationEntry, parse_utc
from dl3flow.errors import InputError, choices
from dl3flow.geometry import fov
from dl3flow.registry import convert

_SECONDS_PER_DAY = 86400
# s: a run that starts at the very limit must not fall to rounding
_TIME_TOLERANCE = 1e-3
Reason = Callable[[ObservationEntry], str | None]


@dataclass(frozen=True)
class Selection:
    """One observation of an index and why it is left out.

    Attributes
    ----------
    entry : ObservationEntry
    reason : str or None
        Plain words; None for a selected observation.
    """

    entry: ObservationEntry
    reason: str | None


def select_observations(
    entries: Sequence[ObservationEntry], select: Mapping[str, Any], where: str = "select"
) -> list[Selection]:
    """Apply the criteria of a configuration to the entries of an index.

    Parameters
    ----------
    entries : sequence of ObservationEntry
    select : mapping
        Any of ``obs_ids`` (list), ``target`` (name or list of names), ``cone`` (frame, lon, lat, radius), ``box``
        (frame, lon, lat, width, height), ``time`` (start, stop), ``zenith`` (min, max), ``livetime`` (min), ``quality``
        (max), and ``exclude``: the same criteria again, of which an observation that meets all is left out. Without
        any, all observations are selected.
    where : str
        Place of the criteria in the configuration, for messages.

    Returns
    -------
    selections : list of Selection
        Every entry: in the order of ``obs_ids`` first where that is given, else in the order of the index.

    Raises
    ------
    InputError
        For an unknown criterion, observation or target, a bad value, or if no observation is left.
    """
    if not entries:
        raise InputError(f"{where}: the index has no observations")
    criteria = _criteria(select, entries, where)
    selections = []
    for entry in _ordered(entries, select):
        reasons = [reason for criterion in criteria if (reason := criterion(entry)) is not None]
        selections.append(Selection(entry, "; ".join(reasons) or None))
    if all(selection.reason for selection in selections):
        some = "; ".join(f"{s.entry.obs_id}: {s.reason}" for s in selections[:3])
        raise InputError(f"{where}: none of the {len(selections)} observations meets all criteria ({some})")
    return selections


def _criteria(select: Any, entries: Sequence[ObservationEntry], where: str) -> list[Reason]:
    if not isinstance(select, Mapping):
        raise InputError(f"{where}: expected criteria such as `{{target: Crab}}`, found {select!r}")
    for key in select:
        if key not in _CRITERIA:
            raise InputError(f"{where}: unknown criterion '{key}': {choices(str(key), _CRITERIA)}")
    return [_CRITERIA[key](value, entries, f"{where}.{key}") for key, value in select.items()]


def _ordered(entries: Sequence[ObservationEntry], select: Mapping[str, Any]) -> list[ObservationEntry]:
    if "obs_ids" not in select:
        return list(entries)
    rank = {obs_id: n for n, obs_id in enumerate(select["obs_ids"])}
    return sorted(entries, key=lambda entry: rank.get(entry.obs_id, len(rank)))


def _by_obs_ids(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    wanted = convert(value, list[int], where)
    if len(set(wanted)) < len(wanted):
        twice = next(obs_id for obs_id in wanted if wanted.count(obs_id) > 1)
        raise InputError(f"{where}: {twice} is listed twice: keep one")
    known = [entry.obs_id for entry in entries]
    for obs_id in wanted:
        if obs_id not in known:
            near = choices(str(obs_id), map(str, known))
            if len(known) > 20:
                near = f"(the index holds {len(known)}, from {min(known)} to {max(known)})"
            raise InputError(f"{where}: there is no observation {obs_id} {near}")
    return lambda entry: None if entry.obs_id in wanted else "not in obs_ids"


def _by_target(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    wanted = [value] if isinstance(value, str) else convert(value, list[str], where)
    known = {entry.target for entry in entries}
    for name in wanted:
        if name not in known:
            raise InputError(f"{where}: there is no target '{name}': {choices(name, known)}")
    spoken = " or ".join(f"'{name}'" for name in wanted)
    return lambda entry: None if entry.target in wanted else f"target is '{entry.target}', not {spoken}"


def _keys(value: Any, expected: set[str], example: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != expected:
        raise InputError(f"{where}: expected `{example}`, found {value!r}")
    return value


def _by_cone(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    example = "{frame: icrs, lon: 83.63 deg, lat: 22.01 deg, radius: 3 deg}"
    given = _keys(value, {"frame", "lon", "lat", "radius"}, example, where)
    lon, lat, radius = (
        convert(given[k], Annotated[float, u.deg], f"{where}.{k}") for k in ("lon", "lat", "radius")
    )
    if abs(lat) > 90:
        raise InputError(f"{where}.lat: must lie between -90 and 90 deg, found '{given['lat']}'")
    if radius <= 0:
        raise InputError(f"{where}.radius: must be above 0, found '{given['radius']}'")
    ra, dec = fov.icrs_lonlat(given["frame"], math.radians(lon), math.radians(lat), f"{where}.frame")

    def reason(entry: ObservationEntry) -> str | None:
        pointing = np.radians([entry.ra, entry.dec])
        distance = math.degrees(fov.separation(pointing[0], pointing[1], ra, dec))
        return (
            None
            if distance <= radius
            else f"pointing is {distance:.2f} deg from the cone's centre, beyond {radius:g} deg"
        )

    return reason


def _by_box(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    """Ranges of the frame's own longitude and latitude around a centre."""
    from astropy.coordinates import SkyCoord

    example = "{frame: galactic, lon: 0 deg, lat: 0 deg, width: 10 deg, height: 4 deg}"
    names = ("lon", "lat", "width", "height")
    given = _keys(value, {"frame", *names}, example, where)
    lon, lat, width, height = (convert(given[k], Annotated[float, u.deg], f"{where}.{k}") for k in names)
    if width <= 0 or height <= 0:
        raise InputError(f"{where}: `width` and `height` must be above 0, found {value!r}")
    fov.icrs_lonlat(given["frame"], 0.0, 0.0, f"{where}.frame")
    sky = SkyCoord([e.ra for e in entries], [e.dec for e in entries], unit="deg").transform_to(given["frame"])
    # the short way around the circle
    apart = np.abs((sky.spherical.lon.deg - lon + 180) % 360 - 180)
    inside = (apart <= width / 2) & (np.abs(sky.spherical.lat.deg - lat) <= height / 2)
    kept = {entry.obs_id for entry, is_inside in zip(entries, inside, strict=True) if is_inside}
    return lambda entry: None if entry.obs_id in kept else "pointing lies outside the box"


def _by_time(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    from astropy.time import Time

    if not isinstance(value, Mapping) or not value or not set(value) <= {"start", "stop"}:
        raise InputError(f"{where}: expected `{{start: 2004-12-01, stop: 2004-12-31}}`, found {value!r}")
    limits = {key: parse_utc(text, f"{where}.{key}") for key, text in value.items()}
    start, stop = limits.get("start"), limits.get("stop")
    if start is not None and stop is not None and start >= stop:
        raise InputError(f"{where}: `start` ({value['start']}) must be before `stop` ({value['stop']})")
    for entry in entries:
        if entry.reference is None:
            raise InputError(f"{where}: the index has no MJDREFI, so observations cannot be selected by time")

    def reason(entry: ObservationEntry) -> str | None:
        reference, scale = entry.reference, entry.timesys
        begin, end = (
            Time(reference, seconds / _SECONDS_PER_DAY, format="mjd", scale=scale)
            for seconds in (entry.tstart, entry.tstop)
        )
        if start is not None and (begin - start).sec < -_TIME_TOLERANCE:
            return f"starts at {begin.utc.isot[:19]} UTC, before {value['start']}"
        if stop is not None and (end - stop).sec > _TIME_TOLERANCE:
            return f"stops at {end.utc.isot[:19]} UTC, after {value['stop']}"
        return None

    return reason


def _by_livetime(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    given = _keys(value, {"min"}, "{min: 5 min}", where)
    minimum = convert(given["min"], Annotated[float, u.s], f"{where}.min")

    def reason(entry: ObservationEntry) -> str | None:
        if entry.livetime is None:
            return "the index has no livetime"
        return (
            None if entry.livetime >= minimum else f"livetime is {entry.livetime:.0f} s, below {given['min']}"
        )

    return reason


def _by_quality(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    maximum = convert(_keys(value, {"max"}, "{max: 0}", where)["max"], int, f"{where}.max")

    def reason(entry: ObservationEntry) -> str | None:
        if entry.quality is None:
            return "the index has no quality"
        return None if entry.quality <= maximum else f"quality is {entry.quality}, above {maximum}"

    return reason


def _by_zenith(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    if not isinstance(value, Mapping) or not value or not set(value) <= {"min", "max"}:
        raise InputError(f"{where}: expected `{{min: 20 deg, max: 45 deg}}`, found {value!r}")
    limits = {key: convert(text, Annotated[float, u.deg], f"{where}.{key}") for key, text in value.items()}

    def reason(entry: ObservationEntry) -> str | None:
        if entry.zenith is None:
            return "the index has no zenith angle"
        if entry.zenith < limits.get("min", -math.inf):
            return f"zenith angle is {entry.zenith:.1f} deg, below {value['min']}"
        if entry.zenith > limits.get("max", math.inf):
            return f"zenith angle is {entry.zenith:.1f} deg, above {value['max']}"
        return None

    return reason


def _by_exclude(value: Any, entries: Sequence[ObservationEntry], where: str) -> Reason:
    """Inverted selection: an observation that meets every criterion is left out."""
    criteria = _criteria(value, entries, where)
    if not criteria:
        raise InputError(f"{where}: expected criteria such as `{{obs_ids: [23523]}}`, found none")
    spoken = " and ".join(value)
    return lambda entry: None if any(found(entry) for found in criteria) else f"excluded by {spoken}"


_CRITERIA: dict[str, Callable[[Any, Sequence[ObservationEntry], str], Reason]] = {
    "obs_ids": _by_obs_ids,
    "target": _by_target,
    "cone": _by_cone,
    "box": _by_box,
    "time": _by_time,
    "livetime": _by_livetime,
    "quality": _by_quality,
    "zenith": _by_zenith,
    "exclude": _by_exclude,
}
