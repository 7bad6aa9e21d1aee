"""Confidence: MINOS errors, profiles and contours of a fit.

Each works on the profiled statistic F(held) = min over all else, less its value at the best fit: a large constant would
take the digits of differences (fit.md 2.5).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import erfc

from dl3flow.data.dataset import FitData
from dl3flow.data.products import Contour, FitResult, Profile
from dl3flow.errors import InputError
from dl3flow.fit.crossing import find_crossing, minimum_on
from dl3flow.fit.finished import Finished
from dl3flow.fit.line import Foot, Line, start_of
from dl3flow.fit.settings import FitSettings

_PROFILE_POINTS, _PROFILE_ERRORS = 21, 3.0
_FARTHEST_PARABOLA = 2.0
_MOST_SIGMA = 7
# a first guess of the second side of an asymmetric error, in units of the symmetric one
_LEAST_GUESS, _MOST_GUESS = 0.3, 3.0


def minos(
    datasets: Sequence[FitData],
    result: FitResult,
    names: Sequence[str],
    settings: FitSettings | None = None,
) -> dict[str, tuple[float, float]]:
    """Distances downwards and upwards to where the profiled statistic is one above its minimum.

    What MINOS looks for (James and Roos 1975), with the exact derivatives (`fit.crossing`).

    Parameters
    ----------
    datasets : sequence
    result : FitResult
    names : sequence of str
        Full names of free parameters.

    Returns
    -------
    errors : mapping of (minus, plus)
        Both positive; NaN where the statistic never rises by one, or a limit is met before.

    Raises
    ------
    InputError
        If a parameter is not free.
    """
    if not names:
        return {}
    finished = Finished.of(datasets, result, names, settings)
    return {name: _minos_of(finished, finished.slot(name)) for name in names}


def _minos_of(finished: Finished, slot: int) -> tuple[float, float]:
    """Distances downwards and upwards of one entry."""
    error = finished.error(slot)
    up, down = (Line(np.array([slot]), np.array([sign * error])) for sign in (1.0, -1.0))
    above = find_crossing(finished, up, 1.0, start_of(finished, up, 1.0))
    start = start_of(finished, down, 1.0)
    if above is not None and not above.is_limit:
        start = _mirrored(finished, down, start, above)
    below = find_crossing(finished, down, 1.0, start)
    ends = (None if foot is None or foot.is_limit else foot.t * error for foot in (below, above))
    minus, plus = (np.nan if end is None else end for end in ends)
    return minus, plus


def _mirrored(finished: Finished, line: Line, start: Foot, other: Foot) -> Foot:
    """Guess of one end from the other: what is odd changes its sign, what is even keeps it."""
    t = float(np.clip(2 * start.t - other.t, _LEAST_GUESS, _MOST_GUESS))
    best, follow = finished.best.x, line.follow(finished)
    even = other.x - best + other.t * follow
    return replace(start, t=t, x=best + t * follow + even * (t / other.t) ** 2)


def profile(
    datasets: Sequence[FitData],
    result: FitResult,
    name: str,
    values: np.ndarray | None = None,
    settings: FitSettings | None = None,
) -> Profile:
    """Statistic along one parameter, all others at their best for each value, less the best fit's.

    Parameters
    ----------
    datasets : sequence
    result : FitResult
    name : str
    values : array, optional
        In the parameter's unit; 21 values within three errors by default.

    Raises
    ------
    InputError
        If the parameter is not free.
    """
    finished = Finished.of(datasets, result, (name,), settings)
    slot = finished.slot(name)
    center, error = finished.best.x[slot], finished.error(slot)
    if values is None:
        low, high = finished.problem.low[slot], finished.problem.high[slot]
        values = center + error * np.linspace(-_PROFILE_ERRORS, _PROFILE_ERRORS, _PROFILE_POINTS)
        values = values[(values >= low) & (values <= high)]
    values = np.asarray(values, dtype=float)
    stats = np.empty(len(values))
    line = Line(np.array([slot]), np.array([error]))
    for side in (values <= center, values > center):
        # outwards from the best fit: each starts where the ones before lead
        feet = [start_of(finished, line, 0.0)]
        for k in np.flatnonzero(side)[np.argsort(np.abs(values[side] - center))]:
            t = float((values[k] - center) / error)
            stats[k], foot = minimum_on(finished, line, _led(feet, t, line.follow(finished)))
            feet = [*feet[-2:], foot] if t != feet[-1].t else feet
    return Profile(name, values, stats)


def _led(feet: Sequence[Foot], t: float, follow: np.ndarray) -> Foot:
    """Guess at ``t`` from the last places on a line: a parabola through three, the covariance near one, nothing far from it."""
    last = feet[-1]
    step = t - last.t
    if len(feet) == 3 and abs(step) <= _FARTHEST_PARABOLA * abs(last.t - feet[-2].t):
        at = np.array([foot.t for foot in feet])
        weights = [np.prod([(t - o) / (own - o) for o in at if o != own]) for own in at]
        return replace(last, t=t, x=sum(w * foot.x for w, foot in zip(weights, feet, strict=True)))
    return replace(last, t=t, x=last.x + step * follow if abs(step) <= _PROFILE_ERRORS else last.x)


def contour(
    datasets: Sequence[FitData],
    result: FitResult,
    names: tuple[str, str],
    n_sigma: float = 1.0,
    n_points: int = 40,
    settings: FitSettings | None = None,
) -> Contour:
    """Closed line on which the profiled statistic lies a fixed height above its minimum.

    The height is the chi2 of two degrees of freedom that has the probability of ``n_sigma`` of one Gaussian variable
    (2.30 for one, 6.18 for two), and is looked for along rays from the best fit, evenly in units of the covariance; where a limit
    is met before, the point lies on the limit.

    Raises
    ------
    InputError
        If a parameter is not free, or both are the same.
    """
    if not 0 < n_sigma <= _MOST_SIGMA:
        raise InputError(
            f"a contour of {n_sigma:g} sigma has no height in floating point: ask for one of 0 to {_MOST_SIGMA}"
        )
    if names[0] == names[1]:
        raise InputError(f"a contour needs two parameters, found '{names[0]}' twice")
    finished = Finished.of(datasets, result, names, settings)
    slots = np.array([finished.slot(name) for name in names])
    order = np.argsort(slots)
    height = -2 * float(np.log(erfc(n_sigma / np.sqrt(2))))
    axes = _axes(finished, slots)
    points: list[np.ndarray] = []
    foot: Foot | None = None
    for angle in 2 * np.pi * np.arange(n_points) / n_points:
        direction = axes @ np.array([np.cos(angle), np.sin(angle)])
        line = Line(slots[order], direction[order])
        foot = find_crossing(finished, line, height, _beside(finished, line, foot, float(np.sqrt(height))))
        if foot is None:
            return Contour((names[0], names[1]), n_sigma, np.zeros(0), np.zeros(0))
        points.append(foot.x[slots])
    x, y = np.array([*points, points[0]]).T
    return Contour((names[0], names[1]), n_sigma, x, y)


def _axes(finished: Finished, slots: np.ndarray) -> np.ndarray:
    """Root of the covariance of two entries, (2, 2): a circle times it is the ellipse of one error."""
    block = finished.covariance[np.ix_(slots, slots)]
    errors = np.array([finished.error(k) for k in slots])
    scaled = block / np.outer(errors, errors)
    if not abs(scaled[0, 1]) < 1 or not np.all(np.diag(block) > 0):
        return np.diag(errors)
    return errors[:, None] * np.linalg.cholesky(scaled)


def _beside(finished: Finished, line: Line, last: Foot | None, t: float) -> Foot:
    """Guess of a point from its neighbour: as far, and as far from where the covariance leads."""
    start = start_of(finished, line, t)
    if last is None or last.is_limit:
        return start
    there = Line(line.slots, last.x[line.slots] - finished.best.x[line.slots])
    beside = last.x - finished.best.x - there.follow(finished)
    return replace(last, x=start_of(finished, line, last.t).x + beside)
