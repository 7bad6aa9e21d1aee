"""The best position of a point on a map across the kinks of its statistic, for held values of other entries.

A point is shared bilinearly among pixels, so that its statistic has a kink at every pixel centre, often with the minimum
on it. Along one coordinate the statistic is two parabolas of one curvature that meet at the kink: value and slope on
either side say where, and which of both parabolas' vertices and the kink is lowest.
"""

from dataclasses import dataclass, replace

import numpy as np

from dl3flow.fit.engine import evaluate
from dl3flow.fit.finished import Finished
from dl3flow.fit.line import Foot, Line, reduce_to_line
from dl3flow.fit.newton import is_finite
from dl3flow.fit.problem import Problem

_MOST_ROUNDS = 3
# of the statistic: a gain that ends the search, and one that is not looked for; and the longest step, in errors
_LEAST_GAIN, _NO_GAIN, _LONGEST = 1e-3, 1e-4, 1.0


@dataclass(frozen=True, eq=False)
class _Look:
    """The statistic at positions of points, all else at its best; slopes and curvatures by the positions."""

    x: np.ndarray
    stat: float
    slope: np.ndarray
    bend: np.ndarray
    problem: Problem


def across_kinks(finished: Finished, line: Line, start: Foot) -> tuple[float, Foot]:
    """Rise of the statistic at a place on a line with points at their best positions, and that place.

    Parameters
    ----------
    finished : Finished
    line : Line
    start : Foot
        There, near the best of all other entries.
    """
    slots = np.setdiff1d(finished.points, line.slots)
    at = _look(finished, line, start, start.x, slots)
    for _ in range(_MOST_ROUNDS if at is not None else 0):
        before = at
        for k, slot in enumerate(slots):
            assert at is not None
            at = _lowest(finished, line, replace(start, problem=at.problem), at, slots, k, int(slot))
        assert at is not None
        assert before is not None
        if before.stat - at.stat < _LEAST_GAIN:
            break
    if at is None:
        return np.inf, start
    return at.stat - finished.best.stat, replace(start, x=at.x, problem=at.problem)


def _look(finished: Finished, line: Line, start: Foot, x: np.ndarray, slots: np.ndarray) -> _Look | None:
    x = np.clip(x, finished.problem.low, finished.problem.high)
    x[line.slots] = finished.best.x[line.slots] + start.t * line.direction
    problem = finished.opened(line.slots, x, start.problem)
    at = evaluate(problem, x, order=1)
    # the exact second derivatives of a point have no part in its kinks: those over a pixel stand for them
    at = replace(at, hessian=start.curved.hessian, fisher=start.curved.fisher)
    if not is_finite(at):
        return None
    form = reduce_to_line(finished, problem, at, line, kept=slots)
    change = form.change(0.0)
    gain = -float(form.gradient @ change + 0.5 * change @ form.curved @ change)
    there = at.x.copy()
    there[problem.shared] += change
    places = np.searchsorted(problem.shared, slots)
    slope = (form.gradient + form.curved @ change)[places]
    bend = np.diag(form.curved)[places]
    return _Look(there, at.stat - gain, slope, bend, problem)


def _lowest(
    finished: Finished, line: Line, start: Foot, at: _Look, slots: np.ndarray, k: int, slot: int
) -> _Look:
    """The lowest place along one coordinate."""
    slope, bend = float(at.slope[k]), float(at.bend[k])
    if not bend > 0 or 0.5 * slope**2 / bend < _NO_GAIN:
        return at
    longest = _LONGEST * np.sqrt(2 / bend)
    step = float(np.clip(-slope / bend, -longest, longest))
    there = _look(finished, line, start, _moved(at.x, slot, step), slots)
    if there is None:
        return at
    lower = min((at, there), key=lambda look: look.stat)
    found = _vertex(step, at.stat, slope, there.stat, float(there.slope[k]), bend)
    if found is None or lower.stat - found[1] < _NO_GAIN:
        return lower
    between = _look(finished, line, start, _moved(at.x, slot, found[0]), slots)
    return lower if between is None else min((lower, between), key=lambda look: look.stat)


def _moved(x: np.ndarray, slot: int, step: float) -> np.ndarray:
    moved = x.copy()
    moved[slot] += step
    return moved


def _vertex(
    step: float, stat: float, slope: float, other: float, other_slope: float, bend: float
) -> tuple[float, float] | None:
    """Where two parabolas of one curvature, through 0 and ``step``, make their lower envelope's minimum, and how low; None without one.

    Parameters
    ----------
    step : float
        Where the second parabola's value and slope are known.
    stat, slope : float
        Of the first one, at 0.
    other, other_slope : float
        Of the second one, at ``step``.
    bend : float
        Second derivative of both.
    """
    if slope * step >= 0 or other_slope * step <= 0:
        return None
    # both parabolas less bend s^2 / 2 are straight lines: stat + slope s, and level + (other_slope - bend step) s
    level = other - other_slope * step + 0.5 * bend * step**2
    difference = slope - (other_slope - bend * step)
    meet = (level - stat) / difference if difference else step
    first, second = -slope / bend, step - other_slope / bend
    inside = float(np.clip(meet, min(0.0, step), max(0.0, step)))
    forward = np.sign(step)
    if (inside - first) * forward >= 0:
        at = first
    elif (second - inside) * forward >= 0:
        at = second
    else:
        at = inside
    near_first = (inside - at) * forward >= 0
    low = (
        stat + slope * at + 0.5 * bend * at**2
        if near_first
        else other + other_slope * (at - step) + 0.5 * bend * (at - step) ** 2
    )
    return at, float(low)
