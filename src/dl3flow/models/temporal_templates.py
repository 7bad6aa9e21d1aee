"""Temporal models from tables: a light curve on nodes in time, and a phase curve with a timing solution.

Both are straight lines between their nodes, so that their integrals are exact.
"""

import numpy as np

from dl3flow.models.temporal import (
    TEMPORAL_MODELS,
    Days,
    Frequency,
    FrequencyBend,
    FrequencyChange,
    Numbers,
    Scale,
    Times,
    to_tt,
)
from dl3flow.units import Number

_DAY = 86400.0
_YEAR_2000 = 51544.0
_CRAB_EPOCH, _CRAB_FREQUENCY = 48442.5, 29.946923


def _check_nodes(name: str, x: np.ndarray, norm: np.ndarray, at_least: int) -> str | None:
    """What is wrong with a table, in words."""
    if np.ndim(x) != 1 or np.size(x) < at_least or np.shape(norm) != np.shape(x):
        return f"`{name}` has {np.size(x)} and `norm` {np.size(norm)} numbers, and they must list as many, at least {at_least}"
    if not (np.isfinite(x).all() and np.isfinite(norm).all() and np.all(np.diff(x) > 0)):
        return f"`{name}` must be finite and increasing, and `norm` finite"
    return None


def _check_light_curve(
    t_ref: float, *, time: np.ndarray, norm: np.ndarray, scale: Scale = "utc"
) -> str | None:
    return _check_nodes("time", time, norm, 1)


def _check_phase_curve(
    *values: float, phase: np.ndarray, norm: np.ndarray, normalize: bool = True, scale: Scale = "utc"
) -> str | None:
    if wrong := _check_nodes("phase", phase, norm, 2):
        return wrong
    if phase[0] < 0 or phase[-1] > 1:
        return f"`phase` goes from {phase[0]:g} to {phase[-1]:g}, and must stay from 0 to 1"
    x, y = _period(phase, norm, normalize=False)
    if normalize and not np.sum(np.diff(x) * (y[1:] + y[:-1])) > 0:
        return "the mean of `norm` over a period must be above 0 for it to be normalized"
    return None


def _corners(time: np.ndarray, norm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes with those added where the straight lines pass zero, outside the table too; values, and slopes after the last.

    Returns
    -------
    x, y : array, shape (n,)
        The factor is linear between them, and never negative.
    slopes : array, shape (2,)
        Before the first and after the last of them.
    """
    order = np.argsort(time, kind="stable")
    x, y = np.asarray(time, dtype=float)[order], np.asarray(norm, dtype=float)[order]
    if x.size == 1:
        return x, np.maximum(y, 0.0), np.zeros(2)
    slope = np.diff(y) / np.diff(x)
    inner = y[:-1] * y[1:] < 0
    zeros = [(x[:-1] - y[:-1] / np.where(slope == 0, 1.0, slope))[inner]]
    for node, value, steep, outwards in ((x[0], y[0], slope[0], -1), (x[-1], y[-1], slope[-1], 1)):
        if value > 0 and steep * outwards < 0:
            zeros.append(np.array([node - value / steep]))
    extra = np.concatenate(zeros)
    places = np.argsort(np.concatenate([x, extra]), kind="stable")
    values = np.maximum(np.concatenate([y, np.zeros(extra.size)])[places], 0.0)
    outside = np.array([min(slope[0], 0.0) if y[0] >= 0 else 0.0, max(slope[-1], 0.0) if y[-1] >= 0 else 0.0])
    return np.concatenate([x, extra])[places], values, outside


def _area_until(t: np.ndarray, x: np.ndarray, y: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Integral of the straight lines from the first corner to ``t``."""
    area = np.concatenate([[0.0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)])
    n = np.clip(np.searchsorted(x, t, side="right") - 1, 0, x.size - 1)
    step = t - x[n]
    slopes = np.append(np.diff(y) / np.diff(x), outside[1])[n]
    slopes = np.where(t < x[0], outside[0], slopes)
    return np.asarray(area[n] + step * (y[n] + slopes * step / 2))


def _height(t: np.ndarray, x: np.ndarray, y: np.ndarray, outside: np.ndarray) -> np.ndarray:
    beyond = outside[0] * np.minimum(t - x[0], 0.0) + outside[1] * np.maximum(t - x[-1], 0.0)
    return np.asarray(np.interp(t, x, y) + beyond)


def _slope(t: np.ndarray, x: np.ndarray, y: np.ndarray, outside: np.ndarray) -> np.ndarray:
    slopes = np.concatenate([outside[:1], np.diff(y) / np.diff(x), outside[1:]])
    return np.asarray(slopes[np.searchsorted(x, t, side="right")])


def _light_curve_gradient(
    t: np.ndarray, t_ref: float, *, time: Times, norm: Numbers, scale: Scale = "utc"
) -> np.ndarray:
    return -_slope(t - to_tt(t_ref, scale), *_corners(time, norm))[None]


def _light_curve_integral(
    start: np.ndarray, stop: np.ndarray, t_ref: float, *, time: Times, norm: Numbers, scale: Scale = "utc"
) -> np.ndarray:
    corners, origin = _corners(time, norm), to_tt(t_ref, scale)
    return np.asarray(_area_until(stop - origin, *corners) - _area_until(start - origin, *corners))


def _light_curve_integral_gradient(
    start: np.ndarray, stop: np.ndarray, t_ref: float, *, time: Times, norm: Numbers, scale: Scale = "utc"
) -> np.ndarray:
    corners, origin = _corners(time, norm), to_tt(t_ref, scale)
    return np.asarray((_height(start - origin, *corners) - _height(stop - origin, *corners))[None])


@TEMPORAL_MODELS.register(
    "LightCurveTemplateTemporalModel",
    "template",
    gradient=_light_curve_gradient,
    integral=_light_curve_integral,
    integral_gradient=_light_curve_integral_gradient,
    check=_check_light_curve,
    frozen={"t_ref"},
    reads="light_curve",
)
def light_curve(
    t: np.ndarray, t_ref: Days = _YEAR_2000, *, time: Times, norm: Numbers, scale: Scale = "utc"
) -> np.ndarray:
    """Straight lines between the values ``norm`` at the days ``time`` after ``t_ref``; zero where they are below it.

    Outside the table the first and last lines go on, as in the field's reader of such files.
    """
    return _height(t - to_tt(t_ref, scale), *_corners(time, norm))


def _turns(
    time: np.ndarray, t_ref: float, phi_ref: float, f0: float, f1: float, f2: float, scale: Scale
) -> tuple[np.ndarray, np.ndarray]:
    """Turns since ``t_ref``, and their derivatives by the five parameters."""
    x = (time - to_tt(t_ref, scale)) * _DAY
    turns = phi_ref + x * (f0 + x / 2 * (f1 + x / 3 * f2))
    frequency = f0 + x * (f1 + x / 2 * f2)
    return turns, np.array([-frequency * _DAY, np.ones(np.shape(x)), x, x**2 / 2, x**3 / 6])


def _period(phase: np.ndarray, norm: np.ndarray, normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Corners of one period, from phase 0 to 1; the table's first and last lines go on to there."""
    x, y = np.asarray(phase, dtype=float), np.asarray(norm, dtype=float)
    slope = np.diff(y) / np.diff(x)
    if x[0] > 0:
        x, y = np.append(0.0, x), np.append(y[0] - slope[0] * x[0], y)
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, y[-1] + slope[-1] * (1 - x[-1]))
    return x, y / float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)) if normalize else y


def _phase_curve_gradient(
    time: np.ndarray,
    t_ref: float,
    phi_ref: float,
    f0: float,
    f1: float,
    f2: float,
    *,
    phase: Numbers,
    norm: Numbers,
    normalize: bool = True,
    scale: Scale = "utc",
) -> np.ndarray:
    turns, by_parameter = _turns(time, t_ref, phi_ref, f0, f1, f2, scale)
    x, y = _period(phase, norm, normalize)
    return np.asarray(_slope(turns - np.floor(turns), x, y, np.zeros(2)) * by_parameter)


def _turned_area(turns: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    whole = np.floor(turns)
    one, part = (_area_until(t, x, y, np.zeros(2)) for t in (np.array(1.0), turns - whole))
    return np.asarray(whole * one + part)


def _phase_curve_integral(
    start: np.ndarray,
    stop: np.ndarray,
    t_ref: float,
    phi_ref: float,
    f0: float,
    f1: float,
    f2: float,
    *,
    phase: Numbers,
    norm: Numbers,
    normalize: bool = True,
    scale: Scale = "utc",
) -> np.ndarray:
    first, last = (_turns(time, t_ref, phi_ref, f0, f1, f2, scale)[0] for time in (start, stop))
    x, y = _period(phase, norm, normalize)
    # the frequency is taken as its mean over the interval: a night changes it by 1e-9
    return np.asarray(
        (_turned_area(last, x, y) - _turned_area(first, x, y)) * (stop - start) / (last - first)
    )


def _phase_curve_integral_gradient(
    start: np.ndarray,
    stop: np.ndarray,
    t_ref: float,
    phi_ref: float,
    f0: float,
    f1: float,
    f2: float,
    *,
    phase: Numbers,
    norm: Numbers,
    normalize: bool = True,
    scale: Scale = "utc",
) -> np.ndarray:
    (first, by_first), (last, by_last) = (
        _turns(time, t_ref, phi_ref, f0, f1, f2, scale) for time in (start, stop)
    )
    x, y = _period(phase, norm, normalize)
    at_first, at_last = (np.interp(turns - np.floor(turns), x, y) for turns in (first, last))
    mean = (_turned_area(last, x, y) - _turned_area(first, x, y)) / (last - first)
    return np.asarray(
        (stop - start) / (last - first) * ((at_last - mean) * by_last - (at_first - mean) * by_first)
    )


@TEMPORAL_MODELS.register(
    "TemplatePhaseCurveTemporalModel",
    "template-phase",
    gradient=_phase_curve_gradient,
    integral=_phase_curve_integral,
    integral_gradient=_phase_curve_integral_gradient,
    check=_check_phase_curve,
    frozen={"t_ref", "phi_ref", "f0", "f1", "f2"},
    reads="phase_curve",
)
def phase_curve(
    time: np.ndarray,
    t_ref: Days = _CRAB_EPOCH,
    phi_ref: Number = 0.0,
    f0: Frequency = _CRAB_FREQUENCY,
    f1: FrequencyChange = 0.0,
    f2: FrequencyBend = 0.0,
    *,
    phase: Numbers,
    norm: Numbers,
    normalize: bool = True,
    scale: Scale = "utc",
) -> np.ndarray:
    """Straight lines between the values ``norm`` at ``phase`` in a period; ``normalize`` makes their mean one.

    The phase is ``phi_ref`` + x (f0 + x / 2 (f1 + x / 3 f2)) with x the seconds since ``t_ref``.
    """
    turns, _ = _turns(time, t_ref, phi_ref, f0, f1, f2, scale)
    return np.asarray(np.interp(turns - np.floor(turns), *_period(phase, norm, normalize)))
