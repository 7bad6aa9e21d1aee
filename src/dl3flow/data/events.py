"""EventList and Gti: what a telescope recorded, and when it was recording."""

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.time import Time

# public files round the ends of intervals to seconds, and their last events lie up to 0.7 s beyond
_ROUNDING = 1 * u.s


@dataclass(frozen=True, eq=False)
class EventList:
    """Reconstructed events.

    Attributes
    ----------
    event_id : int array, shape (n,)
    time : Quantity, shape (n,)
        Seconds after ``reference``.
    reference : Time
    radec : SkyCoord, shape (n,), ICRS
    energy : Quantity, shape (n,)
        Reconstructed energy.
    event_type : bool array, shape (n, n_bits), or int array, shape (n,), or None
        Bits of a type mask, the least significant first, or one type per event.
    phase : array, shape (n,), or None
        Phase of a pulsar or orbit, in [0, 1).
    mc_id : int array, shape (n,), or None
        Simulated source that an event belongs to; 0 is the background.
    """

    event_id: np.ndarray
    time: u.Quantity
    reference: Time
    radec: SkyCoord
    energy: u.Quantity
    event_type: np.ndarray | None = None
    phase: np.ndarray | None = None
    mc_id: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.event_id)

    def select(self, kept: np.ndarray) -> "EventList":
        """Events where the mask (or index array) ``kept`` says so, with all their columns."""
        return EventList(
            self.event_id[kept],
            self.time[kept],
            self.reference,
            self.radec[kept],
            self.energy[kept],
            None if self.event_type is None else self.event_type[kept],
            None if self.phase is None else self.phase[kept],
            None if self.mc_id is None else self.mc_id[kept],
        )


def stack_events(lists: Sequence[EventList]) -> EventList:
    """Events of several lists, in their order, with times after the reference of the first.

    An optional column is kept where all lists have it in the same form.

    Parameters
    ----------
    lists : sequence of EventList
        At least one.
    """
    first = lists[0]
    times = [(events.time + (events.reference - first.reference).to(u.s)).to_value(u.s) for events in lists]
    lon, lat = (np.concatenate([getattr(e.radec.icrs, axis).deg for e in lists]) for axis in ("ra", "dec"))
    return EventList(
        np.concatenate([events.event_id for events in lists]),
        np.concatenate(times) * u.s,
        first.reference,
        SkyCoord(lon * u.deg, lat * u.deg, frame="icrs"),
        np.concatenate([events.energy.to_value(u.TeV) for events in lists]) * u.TeV,
        _joined([events.event_type for events in lists]),
        _joined([events.phase for events in lists]),
        _joined([events.mc_id for events in lists]),
    )


def _joined(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [column for column in columns if column is not None]
    is_one_form = len({(column.dtype, column.shape[1:]) for column in present}) == 1
    return np.concatenate(present) if is_one_form and len(present) == len(columns) else None


@dataclass(frozen=True, eq=False)
class Gti:
    """Good time intervals.

    Attributes
    ----------
    start, stop : Quantity, shape (n,)
        Seconds after ``reference``.
    reference : Time
    """

    start: u.Quantity
    stop: u.Quantity
    reference: Time

    @property
    def ontime(self) -> u.Quantity:
        """Sum of the intervals, s, not corrected for dead time."""
        return (self.stop - self.start).sum().to(u.s)

    def contains(self, time: u.Quantity, margin: u.Quantity = 0 * u.s) -> np.ndarray:
        """True for times (after the same reference) inside an interval widened by ``margin``, both ends included."""
        t = time.to_value(u.s)
        if not len(self.start):
            return np.zeros(t.shape, dtype=bool)
        order = np.argsort(self.start.to_value(u.s), kind="stable")
        start = self.start.to_value(u.s)[order] - margin.to_value(u.s)
        reached = np.maximum.accumulate(self.stop.to_value(u.s)[order]) + margin.to_value(u.s)
        before = np.searchsorted(start, t, side="right") - 1
        return np.asarray((before >= 0) & (t <= reached[before]))

    def holds(self, events: EventList) -> np.ndarray:
        """True for events recorded in an interval, up to the rounding of its ends in public files."""
        return self.contains(events.time + (events.reference - self.reference).to(u.s), _ROUNDING)

    def union(self, other: "Gti") -> "Gti":
        """Intervals of both, merged where they touch or overlap, on this one's reference."""
        shift = (other.reference - self.reference).to(u.s)
        start = np.concatenate([self.start.to_value(u.s), (other.start + shift).to_value(u.s)])
        stop = np.concatenate([self.stop.to_value(u.s), (other.stop + shift).to_value(u.s)])
        merged: list[list[float]] = []
        for low, high in sorted(zip(start.tolist(), stop.tolist(), strict=True)):
            if merged and low <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], high)
            else:
                merged.append([low, high])
        table = np.array(merged).reshape(-1, 2)
        return Gti(table[:, 0] * u.s, table[:, 1] * u.s, self.reference)

    def intersection(self, other: "Gti") -> "Gti":
        """Time that both have, as disjoint increasing intervals on this one's reference."""
        empty = np.zeros(0) * u.s
        nothing = Gti(empty, empty, self.reference)
        mine, theirs = nothing.union(self), nothing.union(other)
        low, high = (x.to_value(u.s) for x in (mine.start, mine.stop))
        start, stop = (x.to_value(u.s) for x in (theirs.start, theirs.stop))
        found = []
        # an interval of the intersection begins with one of either set, and ends with the first end that follows
        for a0, a1, b0, b1, is_first in ((low, high, start, stop, True), (start, stop, low, high, False)):
            at = np.searchsorted(b0, a0, side="right" if is_first else "left") - 1
            inside = (at >= 0) & (a0 < b1[at]) if len(b0) else np.zeros(len(a0), dtype=bool)
            found.append(np.stack([a0[inside], np.minimum(a1[inside], b1[at[inside]])], axis=1))
        table = np.concatenate(found)
        table = table[table[:, 1] > table[:, 0]]
        table = table[np.argsort(table[:, 0], kind="stable")]
        return Gti(table[:, 0] * u.s, table[:, 1] * u.s, self.reference)
