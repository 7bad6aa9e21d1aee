"""Where a profiled statistic has risen by a given height: one Newton search for the place and for all other entries at once.

The statistic is followed along a line from its best, x = best + t direction in the held entries, with all others at
their minimum. With the quadratic form at a trial (`fit.line`), dt follows from

    rise - edm + slope dt + bend dt^2 / 2 = height.

Started from the covariance this takes one or two evaluations. Where it loses its way (plateaus, limits) the line is
walked and bisected, each place with a minimisation of its own; points are looked for across kinks at the end.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from dl3flow.fit.engine import evaluate
from dl3flow.fit.finished import Finished
from dl3flow.fit.kinks import across_kinks
from dl3flow.fit.line import Foot, Line, reduce_to_line
from dl3flow.fit.newton import is_finite

_MOST_STEPS, _MOST_LOOKS = 8, 3
# a step along the line of this share, with this left to gain, is the last one: its error is a few hundredths of itself
_LAST_SHARE, _LAST_SHARE_AT_KINKS, _LAST_EDM = 0.02, 3e-3, 3e-4
# a place that much lower than the best fit means that the fit was none
_LOWER = 0.01
# the line is walked in doubled steps this often: to 1000 errors
_MOST_DOUBLINGS, _MOST_BISECTIONS = 10, 40
_PLACE = 2e-5


def find_crossing(finished: Finished, line: Line, height: float, start: Foot) -> Foot | None:
    """Place on a line where the profiled statistic is ``height`` above the best fit's.

    Parameters
    ----------
    finished : Finished
    line : Line
    height : float
    start : Foot
        Near it.

    Returns
    -------
    foot : Foot or None
        Where a limit of the held entries comes first, that place, marked; None where the statistic never rises so high, or
        falls below the best fit's.
    """
    farthest = line.farthest(finished)
    if farthest <= 0:
        return replace(start, t=0.0, x=finished.best.x, is_limit=True)
    if 0 < start.t < farthest:
        found = _newton(finished, line, height, start, farthest)
        if found is not None and len(finished.points):
            found = _refined(finished, line, height, found, farthest)
        if found is not None:
            return found
    return _walked(finished, line, height, start, farthest)


def _newton(finished: Finished, line: Line, height: float, start: Foot, farthest: float) -> Foot | None:
    """The place by Newton's method; None where it does not arrive."""
    t, problem, curved = start.t, start.problem, start.curved
    x = np.clip(start.x, problem.low, problem.high)
    x[line.slots] = finished.best.x[line.slots] + t * line.direction
    has_kinks = bool(len(finished.points))
    for n in range(_MOST_STEPS):
        problem = finished.opened(line.slots, x, problem)
        # second derivatives from near by do for the first look
        order: Literal[1, 2] = 1 if n == 0 else 2
        at = evaluate(problem, x, order=order, is_smooth=has_kinks)
        if n == 0:
            at = replace(at, hessian=curved.hessian, fisher=curved.fisher)
        if not is_finite(at):
            return None
        curved = at
        form = reduce_to_line(finished, problem, at, line)
        gap = height - (at.stat - finished.best.stat - form.edm)
        root = form.slope**2 + 2 * form.bend * gap
        if not (form.slope > 0 and root > 0):
            return None
        wanted = 2 * gap / (form.slope + float(np.sqrt(root)))
        dt = float(np.clip(wanted, -0.5 * t, t))
        if t + dt >= farthest:
            return None
        x = at.x.copy()
        x[problem.shared] += form.change(dt)
        t += dt
        x[line.slots] = finished.best.x[line.slots] + t * line.direction
        if abs(dt) <= _LAST_SHARE * t and form.edm <= _LAST_EDM:
            return Foot(t, x, problem, curved)
    return None


def _refined(finished: Finished, line: Line, height: float, start: Foot, farthest: float) -> Foot | None:
    """The place with points at their best across kinks, by secants on the statistic's root; None where it does not arrive."""
    foot, goal = start, float(np.sqrt(height))
    last_t, last_root = 0.0, 0.0
    for _ in range(_MOST_STEPS):
        rise, foot = across_kinks(finished, line, foot)
        if not rise > 0:
            return None
        root = float(np.sqrt(rise))
        slope = (root - last_root) / (foot.t - last_t)
        dt = (goal - root) / slope if slope > 0 else np.inf
        if abs(dt) > 0.5 * foot.t or foot.t + dt >= farthest:
            return None
        last_t, last_root, t = foot.t, root, foot.t + dt
        x = foot.x + dt * line.follow(finished)
        foot = replace(foot, t=t, x=x)
        if abs(dt) <= _LAST_SHARE_AT_KINKS * t:
            return foot
    return None


def minimum_on(finished: Finished, line: Line, start: Foot) -> tuple[float, Foot]:
    """Rise of the statistic at a place on a line, all other entries at their best, and that place.

    Parameters
    ----------
    finished : Finished
    line : Line
    start : Foot
        There, with the other entries near their best.
    """
    best, problem, curved = finished.best, start.problem, start.curved
    x = np.clip(start.x, finished.problem.low, finished.problem.high)
    x[line.slots] = best.x[line.slots] + start.t * line.direction
    first = x
    for n in range(0 if len(finished.points) else _MOST_LOOKS):
        problem = finished.opened(line.slots, x, problem)
        at = evaluate(problem, x, order=1 if n == 0 else 2)
        if n == 0:
            at = replace(at, hessian=curved.hessian, fisher=curved.fisher)
        if not is_finite(at):
            break
        curved, form = at, reduce_to_line(finished, problem, at, line)
        change = form.change(0.0)
        x = at.x.copy()
        x[problem.shared] += change
        if form.edm <= _LAST_EDM:
            gain = -float(form.gradient @ change + 0.5 * change @ form.curved @ change)
            return at.stat - gain - best.stat, Foot(start.t, x, problem, curved)
    at = finished.minimum_at(first, line.slots)
    foot = replace(start, x=at.x)
    return across_kinks(finished, line, foot) if len(finished.points) else (at.stat - best.stat, foot)


def _walked(finished: Finished, line: Line, height: float, start: Foot, farthest: float) -> Foot | None:
    """The place by walking outwards until the statistic is high enough, then by regula falsi (Illinois) on its root."""
    follow = line.follow(finished)

    def minimum(t: float, near: Foot) -> tuple[float, Foot]:
        return minimum_on(finished, line, replace(near, t=t, x=near.x + (t - near.t) * follow))

    t = min(start.t if start.t > 0 else 1.0, farthest)
    inner, below = replace(start, t=0.0, x=finished.best.x), 0.0
    for n in range(_MOST_DOUBLINGS + 1):
        rise, foot = minimum(t, inner)
        if not rise > -_LOWER or (rise < height and n == _MOST_DOUBLINGS):
            return None
        if rise >= height:
            break
        if t >= farthest:
            return replace(foot, is_limit=True)
        inner, below, t = foot, rise, min(2 * t, farthest)
    outer, above, last = foot, rise, 0
    # the root of the statistic is nearly straight
    low, high = np.sqrt(max(below, 0.0)) - np.sqrt(height), np.sqrt(above) - np.sqrt(height)
    for _ in range(_MOST_BISECTIONS):
        if outer.t - inner.t <= _PLACE * outer.t or high <= _PLACE:
            break
        t = inner.t + (outer.t - inner.t) * float(np.clip(low / (low - high), 0.01, 0.99))
        rise, foot = minimum(t, inner)
        root = np.sqrt(max(rise, 0.0)) - np.sqrt(height)
        if abs(root) <= _PLACE:
            return foot
        # an end that stays twice in a row is given half its weight
        if root < 0:
            inner, low, high = foot, root, 0.5 * high if last < 0 else high
        else:
            outer, high, low = foot, root, 0.5 * low if last > 0 else low
        last = -1 if root < 0 else 1
    return outer
