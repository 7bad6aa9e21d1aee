"""PhaseIntervals and Ephemeris: parts of a period, and the phase of an arrival time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import astropy.units as u
import numpy as np
from astropy.time import Time

from dl3flow.registry import convert


@dataclass(frozen=True)
class PhaseIntervals:
    """Parts of a period.

    Attributes
    ----------
    bounds : tuple of (float, float)
        Disjoint increasing intervals [low, high) within [0, 1].
    """

    bounds: tuple[tuple[float, float], ...]

    @classmethod
    def from_pairs(cls, pairs: list[tuple[float, float]]) -> "PhaseIntervals":
        """Intervals from (low, high) pairs; one that passes 1, such as (0.9, 1.1) or (0.9, 0.1), is cut in two.

        Raises
        ------
        ValueError
            If a phase lies outside [-1, 2], an interval is empty or longer than a period, or two overlap.
        """
        parts: list[tuple[float, float]] = []
        for low, high in pairs:
            if not (-1 <= low <= 2 and -1 <= high <= 2):
                raise ValueError(f"phases count in periods from 0 to 1, found [{low:g}, {high:g}]")
            stop = high + 1 if high < low else high
            if not 0 < stop - low <= 1:
                raise ValueError(
                    f"a phase interval spans more than 0 and at most 1, found [{low:g}, {high:g}]"
                )
            shift = np.floor(low)
            low, stop = float(low - shift), float(stop - shift)
            parts += [(low, stop)] if stop <= 1 else [(0.0, stop - 1), (low, 1.0)]
        parts.sort()
        for (_, stop), (low, _) in zip(parts, parts[1:], strict=False):
            if low < stop:
                raise ValueError(f"phase intervals must not overlap, found {pairs}")
        return cls(tuple(parts))

    @property
    def fraction(self) -> float:
        """Share of the period."""
        return float(sum(high - low for low, high in self.bounds))

    def contains(self, phase: np.ndarray) -> np.ndarray:
        """True for phases, in [0, 1), inside an interval [low, high)."""
        inside = np.zeros(np.shape(phase), dtype=bool)
        for low, high in self.bounds:
            inside |= (phase >= low) & (phase < high)
        return inside

    def __str__(self) -> str:
        return ", ".join(f"{low:g} to {high:g}" for low, high in self.bounds)


@dataclass(frozen=True)
class Ephemeris:
    """Rotation of a pulsar or binary as a polynomial in time.

    Attributes
    ----------
    epoch : float
        MJD (TDB) of phase 0.
    f0, f1, f2 : float
        Frequency, s-1, and its first and second derivative, s-2 and s-3, at the epoch.
    """

    epoch: float
    f0: float
    f1: float = 0.0
    f2: float = 0.0

    def phase(self, time: Time) -> np.ndarray:
        """Phase in [0, 1) of arrival times, shape (n,).

        The times are taken as they are: the light travel to the barycentre of the solar system (up to 500 s) is left
        out, which only binaries and long periods allow. A fast pulsar needs a PHASE column, made by a timing program.
        """
        t = time.tdb
        # whole and fractional days apart: a float64 of seconds since the epoch would lose microseconds
        days = (t.jd1 - 2400000.5 - np.floor(self.epoch)) + (t.jd2 - (self.epoch - np.floor(self.epoch)))
        x = 86400.0 * np.asarray(days, dtype=float)
        turns = x * (self.f0 + x * (self.f1 / 2 + x * self.f2 / 6))
        phase = np.asarray(turns - np.floor(turns))
        # the difference of a tiny negative number and -1 rounds to 1
        return np.where(phase >= 1, 0.0, phase)


def parse_phases(entry: Any) -> PhaseIntervals:
    """Intervals from ``[0.2, 0.5]`` or a list of such pairs.

    Raises
    ------
    ValueError
        If the entry is no pair or list of pairs of numbers, or the intervals make no sense.
    """
    pairs = (
        [entry]
        if isinstance(entry, list | tuple) and entry and not isinstance(entry[0], list | tuple)
        else entry
    )
    if not isinstance(pairs, list | tuple) or not pairs or any(not _is_pair(pair) for pair in pairs):
        raise ValueError(f"expected phases such as `[0.2, 0.5]` or a list of such pairs, found {entry!r}")
    return PhaseIntervals.from_pairs([(float(low), float(high)) for low, high in pairs])


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    return all(isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x) for x in pair)


def parse_ephemeris(entry: Any) -> Ephemeris:
    """Ephemeris from ``{epoch: 54686.15, f0: 29.9 Hz, f1: -3.7e-10 Hz / s}``; ``f1`` and ``f2`` may be left out.

    Raises
    ------
    ValueError
        If a key is unknown or missing, the frequency is not positive, or a value has a wrong unit.
    """
    example = "`{epoch: 54686.15, f0: 29.9 Hz, f1: -3.7e-10 Hz/s}` (epoch as MJD in TDB)"
    if not isinstance(entry, Mapping) or not {"epoch", "f0"} <= set(entry) <= {"epoch", "f0", "f1", "f2"}:
        raise ValueError(f"expected {example}, found {entry!r}")
    epoch = convert(entry["epoch"], float, "epoch")
    units = {"f0": u.Hz, "f1": u.Hz / u.s, "f2": u.Hz / u.s**2}
    terms = {
        key: convert(entry[key], Annotated[float, unit], key) for key, unit in units.items() if key in entry
    }
    if terms["f0"] <= 0 or not np.isfinite(epoch):
        raise ValueError(f"`f0` must be above 0 and `epoch` finite, found {entry!r}")
    return Ephemeris(epoch, **terms)


Phases = Annotated[PhaseIntervals, parse_phases]
EphemerisOption = Annotated[Ephemeris, parse_ephemeris]
