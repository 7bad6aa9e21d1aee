"""Bins of a light curve or phase curve, planned from the index: which runs each holds, and what is cut out of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dl3flow.data.index import ObservationEntry, parse_utc
from dl3flow.registry import convert

NAMES = ("run", "night")
_DAY = 86400.0
# without the observatory's place, runs further apart than this are of different nights
_GAP = 8 / 24
# the ends of runs are rounded to seconds in public files: less than that in a bin may be no time at all
_ROUNDING = 1 / _DAY
_SHORTEST = 1 / _DAY
_MOST_BINS = 5000
_EXAMPLE = "`run`, `night`, `{width: 10 min}` or `{intervals: [[2006-07-29 20:30, 2006-07-29 20:40]]}`"


@dataclass(frozen=True)
class TimeBinning:
    """How times are binned.

    Attributes
    ----------
    kind : 'run', 'night', 'width' or 'intervals'
    width, start : float
        Of a grid, days and MJD (TT).
    intervals : tuple of (float, float)
        MJD (TT), increasing.
    """

    kind: str
    width: float = 0.0
    start: float = 0.0
    intervals: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Bin:
    """One bin.

    Attributes
    ----------
    label : str
    obs_ids : tuple of int
        Runs that it holds, or parts of which it holds.
    low, high : float or None
        Its ends, MJD (TT) or phases; None for those of the good times of its runs.
    cut : 'time', 'phase' or ''
        What is cut to its ends; empty where it holds whole runs.
    """

    label: str
    obs_ids: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    cut: str = ""


def parse_time_binning(entry: Any) -> TimeBinning:
    """Binning from ``run``, ``night``, ``{width: 10 min, start: ...}`` or ``{intervals: [[start, stop], ...]}``.

    Raises
    ------
    ValueError
        For anything else, a width below a second, or intervals that overlap.
    """
    if entry in NAMES:
        return TimeBinning(str(entry))
    if isinstance(entry, Mapping) and "width" in entry and set(entry) <= {"width", "start"}:
        import astropy.units as u  # slow to import: only where a configuration names times

        width = convert(entry["width"], Annotated[float, u.d], "width")
        if width < _SHORTEST:
            raise ValueError(f"`width` must be 1 s or more, found {entry['width']!r}")
        start = float(parse_utc(entry["start"], "start").tt.mjd) if "start" in entry else 0.0
        return TimeBinning("width", width, start)
    if isinstance(entry, Mapping) and set(entry) == {"intervals"}:
        return TimeBinning("intervals", intervals=_intervals(entry["intervals"]))
    raise ValueError(f"expected {_EXAMPLE}, found {entry!r}")


def _intervals(entries: Any) -> tuple[tuple[float, float], ...]:
    if not isinstance(entries, list | tuple) or not entries:
        raise ValueError(f"expected a list of intervals such as {_EXAMPLE}, found {entries!r}")
    found = []
    for pair in entries:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"expected `[start, stop]` in UTC text, found {pair!r}")
        low, high = (float(parse_utc(text, "intervals").tt.mjd) for text in pair)
        if high - low < _SHORTEST:
            raise ValueError(f"an interval must last 1 s or more, found {pair!r}")
        found.append((low, high))
    found.sort()
    for (_, stop), (start, _) in zip(found, found[1:], strict=False):
        if start < stop - 1e-6 * _SHORTEST:
            raise ValueError("the intervals must not overlap")
    return tuple(found)


def parse_phase_edges(entry: Any) -> tuple[float, ...]:
    """Edges of phase bins from their number, or from a list of increasing edges within one period.

    Raises
    ------
    ValueError
    """
    if isinstance(entry, int) and not isinstance(entry, bool) and 2 <= entry <= 200:
        return tuple(np.linspace(0, 1, entry + 1).tolist())
    if isinstance(entry, list | tuple) and len(entry) > 1:
        edges = convert(list(entry), list[float], "edges")
        if all(np.diff(edges) > 0) and edges[0] >= -1 and edges[-1] <= 2 and edges[-1] - edges[0] <= 1:
            return tuple(edges)
    raise ValueError(
        f"expected a number of bins from 2 to 200, or increasing edges within one period such as `[0, 0.2, 0.6, 1]`, found {entry!r}"
    )


TimeBins = Annotated[TimeBinning, parse_time_binning]
PhaseEdges = Annotated[tuple[float, ...], parse_phase_edges]


def span_of(entry: ObservationEntry) -> tuple[float, float]:
    """Start and stop of a run, MJD (TT), as its index says.

    Raises
    ------
    ValueError
        If it does not.
    """
    if entry.reference is None or not np.isfinite([entry.tstart, entry.tstop]).all():
        raise ValueError(
            f"the index does not say when observation {entry.obs_id} was taken, so that it is in no bin of time: take `time: run`"
        )
    from astropy.time import Time  # slow to import: only where times are asked for

    seconds = np.array([entry.tstart, entry.tstop])
    low, high = Time(entry.reference, seconds / _DAY, format="mjd", scale=entry.timesys).tt.mjd
    return float(low), float(high)


def plan_time_bins(binning: TimeBinning, entries: Sequence[ObservationEntry]) -> list[Bin]:
    """Bins that hold some of the runs, in order of time.

    Bins of a width lie on a grid from ``start`` (MJD 0 by default), so that a further run adds bins and moves none.

    Raises
    ------
    ValueError
        If the index does not say when a run was taken, or there would be too many bins.
    """
    if binning.kind == "run":
        return [Bin(str(entry.obs_id), (entry.obs_id,)) for entry in entries]
    spans = {entry.obs_id: span_of(entry) for entry in entries}
    longitudes = {entry.obs_id: entry.location[0] for entry in entries if entry.location is not None}
    return bins_of_spans(binning, spans, longitudes)


def bins_of_spans(
    binning: TimeBinning, spans: Mapping[int, tuple[float, float]], longitudes: Mapping[int, float]
) -> list[Bin]:
    """Bins that hold some of the spans.

    Parameters
    ----------
    binning : TimeBinning
        Of nights, a width or intervals.
    spans : mapping of (float, float)
        Start and stop by the number of the run, MJD (TT).
    longitudes : mapping of float
        Of the observatory, deg east, by the number of the run, where known.

    Raises
    ------
    ValueError
        If there would be too many bins.
    """
    if binning.kind == "night":
        return _nights(spans, longitudes)
    found = []
    for low, high in binning.intervals if binning.kind == "intervals" else _grid(binning, spans):
        least = min(_ROUNDING, 0.5 * (high - low))
        held = [k for k, (start, stop) in spans.items() if min(stop, high) - max(start, low) > least]
        if held:
            found.append(Bin(_label(low), tuple(held), low, high, "time"))
    return found


def plan_phase_bins(edges: Sequence[float], entries: Sequence[ObservationEntry]) -> list[Bin]:
    """Bins of phase, each of all runs."""
    ids = tuple(entry.obs_id for entry in entries)
    return [
        Bin(f"phase-{low:.6g}-{high:.6g}", ids, low, high, "phase")
        for low, high in zip(edges, edges[1:], strict=False)
    ]


def _grid(binning: TimeBinning, spans: Mapping[int, tuple[float, float]]) -> list[tuple[float, float]]:
    cells: set[int] = set()
    for start, stop in spans.values():
        first = int(np.floor((start - binning.start) / binning.width))
        last = int(np.ceil((stop - binning.start) / binning.width))
        if last - first + len(cells) > _MOST_BINS:
            raise ValueError(f"the runs hold more than {_MOST_BINS} bins of that width: make `width` larger")
        cells.update(range(first, max(last, first + 1)))
    return [
        (binning.start + k * binning.width, binning.start + (k + 1) * binning.width) for k in sorted(cells)
    ]


def _nights(spans: Mapping[int, tuple[float, float]], longitudes: Mapping[int, float]) -> list[Bin]:
    groups: dict[Any, list[int]] = {}
    night, before = 0, -np.inf
    for number in sorted(spans, key=lambda k: spans[k]):
        start, stop = spans[number]
        if number in longitudes:
            # from noon to noon of the mean sun
            key: Any = int(np.floor(start + longitudes[number] / 360 - 0.5))
        else:
            night += start - before > _GAP
            key = ("gap", night)
        before = max(before, stop)
        groups.setdefault(key, []).append(number)
    found: list[Bin] = []
    for key, ids in groups.items():
        day = key if isinstance(key, int) else int(np.floor(spans[ids[0]][0] - 0.5))
        label = f"night-{_date(day)}"
        n_same = sum(other.label.startswith(label) for other in found)
        found.append(Bin(f"{label}{f'-{n_same + 1}' if n_same else ''}", tuple(ids)))
    return found


def night_date(mjd: float, longitude: float) -> str:
    """Date on which the night began that a time, MJD (TT), lies in: from noon to noon of the mean sun at a longitude, deg east."""
    return _date(int(np.floor(mjd + longitude / 360 - 0.5)))


def _date(day: int) -> str:
    from astropy.time import Time

    return str(Time(day, format="mjd").strftime("%Y-%m-%d"))


def _label(mjd: float) -> str:
    from astropy.time import Time

    # the last whole second: rounding would give bins of a second that start at halves the names of their neighbours
    seconds = int(np.floor(mjd * _DAY + 1e-3))
    return str(Time(seconds // 86400, (seconds % 86400) / _DAY, format="mjd").strftime("%Y-%m-%dT%H-%M-%S"))
