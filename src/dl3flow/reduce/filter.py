"""Part of an observation: its events and good times in chosen intervals of time, phase, energy, offset and type."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import astropy.units as u
import numpy as np
from astropy.time import Time

from dl3flow.data.events import EventList, Gti
from dl3flow.data.index import parse_utc
from dl3flow.data.observation import Observation
from dl3flow.data.phase import EphemerisOption, PhaseIntervals, Phases
from dl3flow.errors import InputError
from dl3flow.geometry.axis import EnergyRange, PositiveAngle
from dl3flow.registry import convert


@dataclass(frozen=True, eq=False)
class TimeIntervals:
    """Intervals [start, stop) of time, in increasing order, that do not overlap.

    Attributes
    ----------
    start, stop : Time, shape (n,)
    """

    start: Time
    stop: Time

    def __iter__(self) -> Iterator[tuple[Time, Time]]:
        return iter(zip(self.start, self.stop, strict=True))


def parse_times(entry: Any) -> TimeIntervals:
    """Intervals from ``{start: ..., stop: ...}``, ``[start, stop]`` or a list of such, in UTC text.

    Raises
    ------
    ValueError
        If an entry is no interval, ends before it starts, or two overlap.
    """
    entries = (
        entry
        if isinstance(entry, list | tuple) and any(isinstance(e, list | tuple | Mapping) for e in entry)
        else [entry]
    )
    starts, stops = [], []
    for item in entries:
        pair = [item.get("start"), item.get("stop")] if isinstance(item, Mapping) and len(item) == 2 else item
        if not isinstance(pair, list | tuple) or len(pair) != 2 or None in pair:
            raise ValueError(
                f"expected `{{start: 2006-07-29 20:30, stop: 2006-07-29 20:40}}` or a list of such, found {item!r}"
            )
        low, high = (parse_utc(text, name) for text, name in zip(pair, ("start", "stop"), strict=True))
        if not low < high:
            raise ValueError(f"`start` ({pair[0]}) must be before `stop` ({pair[1]})")
        starts.append(low)
        stops.append(high)
    order = np.argsort([t.mjd for t in starts])
    start, stop = Time([starts[n] for n in order]), Time([stops[n] for n in order])
    if len(start) > 1 and (start[1:] < stop[:-1]).any():
        raise ValueError("the intervals must not overlap")
    return TimeIntervals(start, stop)


def parse_event_types(entry: Any) -> list[int]:
    """Types of events from a list such as ``[0, 3]``.

    Raises
    ------
    ValueError
        If it is empty, which no event is of, or holds anything but whole numbers of 0 or more.
    """
    if not isinstance(entry, list | tuple) or not entry:
        raise ValueError(f"expected a list of event types such as `[0, 3]`, found {entry!r}")
    types: list[int] = convert(list(entry), list[int], "value")
    if min(types) < 0:
        raise ValueError(f"event types count from 0, found {min(types)}")
    return types


TimeOption = Annotated[TimeIntervals, parse_times]
EventTypes = Annotated[list[int], parse_event_types]


def filter_observation(
    observation: Observation,
    *,
    time: TimeOption | None = None,
    phase: Phases | None = None,
    ephemeris: EphemerisOption | None = None,
    event_types: EventTypes | None = None,
    energy: EnergyRange | None = None,
    offset: PositiveAngle | None = None,
) -> Observation:
    """Part of an observation that meets all criteria; the observation itself is left as it is.

    Parameters
    ----------
    observation : Observation
    time : TimeIntervals, optional
        Events in [start, stop) of any interval; good times, ontime and livetime shrink with them.
    phase : PhaseIntervals, optional
        Events in [low, high) of any interval. The good times stay; ``meta["phase_fraction"]`` is the share of the
        period, by which the livetime and the expected background shrink.
    ephemeris : Ephemeris, optional
        Gives the phases in place of the column PHASE, without a barycentric correction.
    event_types : list of int, optional
        Events with any of these bits (counted from 0, the least significant) where the file has a bit mask; events of
        these types where it has a number. The responses must be those of the same types.
    energy : Axis of one bin, optional
        Events with a reconstructed energy in [min, max). Energy bins that do not lie whole inside become unsafe.
    offset : Quantity, optional
        Events not further than this from the pointing; pixels and regions that do not lie whole within become unsafe.

    Returns
    -------
    observation : Observation
        ``meta["warnings"]`` has one more sentence: how many events were kept, and by what.

    Raises
    ------
    InputError
        If no good time is left, or a criterion needs a column that the file lacks.
    """
    where, events, meta = f"OBS_ID {observation.obs_id}", observation.events, dict(observation.meta)
    if ephemeris is not None:
        events = replace(events, phase=ephemeris.phase(events.reference + events.time))
        observation = replace(observation, events=events)
    kept, criteria = np.ones(len(events), dtype=bool), []
    if time is not None:
        observation = _in_times(observation, time)
        if not observation.ontime > 0 * u.s:
            raise InputError(
                f"{where}: no good time lies in the intervals of `time`: leave this observation out"
            )
        kept &= _is_in_times(events, time)
        meta |= {key: observation.meta[key] for key in ("tstart", "tstop")}
        criteria.append("time")
    if phase is not None:
        kept &= _is_in_phases(observation, phase, where)
        meta |= {"phase": [list(pair) for pair in phase.bounds], "phase_fraction": phase.fraction}
        criteria.append(f"phase ({phase})")
    if event_types is not None:
        kept &= _is_of_types(events, event_types, where)
        meta["event_types"] = sorted(event_types)
        criteria.append(f"event type ({', '.join(map(str, event_types))})")
    if energy is not None:
        low, high = energy.edges
        kept &= (events.energy >= low) & (events.energy < high)
        before = meta.get("event_energy", (low, high))
        meta["event_energy"] = (max(low, before[0]), min(high, before[1]))
        criteria.append(f"energy ({low:g} to {high:g})")
    if offset is not None:
        kept &= events.radec.separation(observation.pointing) <= offset
        meta["event_offset"] = min(offset, meta.get("event_offset", offset))
        criteria.append(f"offset (up to {offset:g})")
    if criteria:
        said = f"{where}: {int(kept.sum())} of {len(kept)} events were kept by {', '.join(criteria)}"
        meta["warnings"] = [*meta.get("warnings", ()), said]
    return replace(observation, events=events.select(kept), meta=meta)


def split_observation(
    observation: Observation, intervals: TimeIntervals | Sequence[tuple[Time, Time]]
) -> list[Observation]:
    """One observation per interval [start, stop) that holds some of its good time, as a light curve needs.

    Parameters
    ----------
    observation : Observation
    intervals : TimeIntervals or sequence of (Time, Time)

    Returns
    -------
    parts : list of Observation
        In the order of the intervals; each has the events, good times and span of its interval, and the same obs_id.
    """
    pairs = list(intervals)
    gti = observation.gti
    if not pairs or not len(gti.start):
        return []
    low, high = gti.start.min().to_value(u.s), gti.stop.max().to_value(u.s)
    starts, stops = (_seconds(Time([pair[n] for pair in pairs]), gti.reference) for n in (0, 1))
    parts = []
    # of many intervals few meet one observation
    for k in np.flatnonzero((starts < high) & (stops > low)):
        start, stop = pairs[k]
        interval = TimeIntervals(_as_array(start), _as_array(stop))
        part = _in_times(observation, interval)
        if part.ontime > 0 * u.s:
            kept = _is_in_times(observation.events, interval)
            parts.append(replace(part, events=observation.events.select(kept)))
    return parts


def _as_array(time: Time) -> Time:
    return time.reshape(1)


def _seconds(time: Time, reference: Time) -> np.ndarray:
    return np.asarray((time - reference).to_value(u.s))


def _in_times(observation: Observation, time: TimeIntervals) -> Observation:
    """Observation with its good times and span cut to the intervals; the events are left."""
    gti = observation.gti
    start, stop = _seconds(time.start, gti.reference), _seconds(time.stop, gti.reference)
    cut = gti.intersection(Gti(start * u.s, stop * u.s, gti.reference))
    span = [float(observation.meta[key]) for key in ("tstart", "tstop")]
    meta = {
        **observation.meta,
        "tstart": max(span[0], float(start.min())),
        "tstop": min(span[1], float(stop.max())),
    }
    return replace(observation, gti=cut, meta=meta)


def _is_in_times(events: EventList, time: TimeIntervals) -> np.ndarray:
    t = events.time.to_value(u.s)
    start, stop = _seconds(time.start, events.reference), _seconds(time.stop, events.reference)
    at = np.searchsorted(start, t, side="right") - 1
    return np.asarray((at >= 0) & (t < stop[at]))


def _is_in_phases(observation: Observation, phase: PhaseIntervals, where: str) -> np.ndarray:
    if "phase_fraction" in observation.meta:
        raise InputError(f"{where}: its events were already selected by phase: give all intervals at once")
    if observation.events.phase is None:
        raise InputError(
            f"{where}: the events have no column 'PHASE': give `ephemeris`, or leave out `phase`"
        )
    return phase.contains(observation.events.phase)


def _is_of_types(events: EventList, types: Sequence[int], where: str) -> np.ndarray:
    if events.event_type is None:
        raise InputError(f"{where}: the events have no column 'EVENT_TYPE': leave out `event_types`")
    if events.event_type.ndim == 1:
        return np.isin(events.event_type, types)
    n_bits = events.event_type.shape[1]
    wrong = [bit for bit in types if not 0 <= bit < n_bits]
    if wrong:
        raise InputError(f"{where}: EVENT_TYPE has the bits 0 to {n_bits - 1}, there is no bit {wrong[0]}")
    return np.asarray(events.event_type[:, list(types)].any(axis=1))
