"""Temporal models: a factor on a source's flux against time, and its mean over good time intervals.

Functions take times in MJD (TT) as days and parameters in days, and return a dimensionless factor; a gradient has one row
per parameter. Companions ``integral`` and ``integral_gradient`` take the starts and stops of intervals, in days, in place
of times and give integrals in days in closed form: steps in time would miss a flare that is short against a night.
The parameter ``t_ref`` is a MJD in the time scale that the option ``scale`` names, as in the field's files.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import astropy.units as u
import numpy as np
import scipy
from astropy.time import Time

from dl3flow.errors import InputError
from dl3flow.models.spectral import above_zero
from dl3flow.registry import Registry
from dl3flow.units import Number

if TYPE_CHECKING:
    from dl3flow.models.resolve import ModelFunction

TEMPORAL_MODELS = Registry("temporal model")

Days = Annotated[float, u.d]
PerDay = Annotated[float, u.Unit("d-1")]
Pulsation = Annotated[float, u.Unit("rad / d")]
Frequency = Annotated[float, u.Unit("s-1")]
FrequencyChange = Annotated[float, u.Unit("s-2")]
FrequencyBend = Annotated[float, u.Unit("s-3")]
Times = Annotated[np.ndarray, u.d]
Numbers = Annotated[np.ndarray, u.dimensionless_unscaled]
Scale = Literal["utc", "tt", "tai", "tdb", "tcb", "tcg"]

_YEAR_2000 = 51544.0
_DAY = 86400.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_FIRST_PANELS, _LAST_PANELS, _PRECISION = 16, 2**14, 1e-10
_STEP = 1e-5


def mean_factor(model: "ModelFunction", values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> float:
    """Mean of a temporal model over good time intervals.

    Parameters
    ----------
    model : ModelFunction
        Of a temporal component.
    values : array, shape (n_par,)
        In internal units.
    start, stop : array, shape (n_intervals,), MJD (TT)

    Returns
    -------
    factor : float
        Integral over the intervals divided by their total length.

    Raises
    ------
    InputError
        If there is no time to take the mean over, or the model is another at every energy.
    """
    total = _length(model, start, stop)
    integral = model.companions.get("integral")
    found = integral(start, stop, *values) if integral else _quadrature(model.function, start, stop, values)
    return float(np.sum(found)) / total


def mean_factor_gradient(
    model: "ModelFunction", values: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> np.ndarray:
    """Derivatives of `mean_factor` by the parameters, shape (n_par,).

    A model with neither ``integral_gradient`` nor ``gradient`` is differentiated in small steps.
    """
    total = _length(model, start, stop)
    if by_interval := model.companions.get("integral_gradient"):
        return np.asarray(np.sum(by_interval(start, stop, *values), axis=-1)) / total
    if by_time := model.companions.get("gradient"):
        return np.asarray(np.sum(_quadrature(by_time, start, stop, values), axis=-1) / total)
    found = []
    for n, value in enumerate(values):
        step = np.zeros(len(values))
        step[n] = _STEP * (abs(value) or 1.0)
        up, down = (mean_factor(model, np.asarray(values) + way * step, start, stop) for way in (1, -1))
        found.append((up - down) / (2 * step[n]))
    return np.array(found)


def _length(model: "ModelFunction", start: np.ndarray, stop: np.ndarray) -> float:
    if model.companions.get("by_energy"):
        raise InputError(
            f"the temporal model '{model.name}' changes with energy, which simulations know and fits do not: fit bands of energy, "
            "each with a model such as 'exp_decay'"
        )
    total = float(np.sum(np.asarray(stop) - start))
    if not total > 0:
        raise InputError(
            f"the temporal model '{model.name}' needs good time intervals, and there are none: reduce the data with times"
        )
    return total


def _quadrature(
    function: Callable[..., Any], start: np.ndarray, stop: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Integral over each interval by Gauss-Legendre panels, which are halved until their sum stays the same."""
    last = None
    panels = _FIRST_PANELS
    while True:
        edges = np.linspace(start, stop, panels + 1, axis=-1)
        half = np.diff(edges)[..., None] / 2
        times = (edges[:-1] if edges.ndim == 1 else edges[:, :-1])[..., None] + half * (1 + _NODES)
        found = np.sum(function(times, *values) * half * _WEIGHTS, axis=(-2, -1))
        if panels >= _LAST_PANELS or (
            last is not None and np.allclose(found, last, rtol=_PRECISION, atol=1e-300)
        ):
            return np.asarray(found)
        last, panels = found, 4 * panels


@lru_cache(maxsize=1024)
def _days_to_tt(scale: str, day: int) -> float:
    return float(Time(day, format="mjd", scale=scale).tt.mjd - day)


def to_tt(t_ref: float, scale: str) -> float:
    """MJD (TT) of one in another scale; the difference is taken as the same all day."""
    if scale == "tt" or not math.isfinite(t_ref):
        return t_ref
    return t_ref + _days_to_tt(scale, math.floor(t_ref))


def _constant_integral(start: np.ndarray, stop: np.ndarray, *, scale: Scale = "utc") -> np.ndarray:
    return np.asarray(stop - start)


def _constant_gradient(time: np.ndarray, *, scale: Scale = "utc") -> np.ndarray:
    return np.zeros((0, *np.shape(time)))


def _constant_integral_gradient(start: np.ndarray, stop: np.ndarray, *, scale: Scale = "utc") -> np.ndarray:
    return np.zeros((0, *np.shape(start)))


@TEMPORAL_MODELS.register(
    "ConstantTemporalModel",
    "const",
    gradient=_constant_gradient,
    integral=_constant_integral,
    integral_gradient=_constant_integral_gradient,
)
def constant(time: np.ndarray, *, scale: Scale = "utc") -> np.ndarray:
    """A steady source."""
    return np.ones(np.shape(time))


def _linear_gradient(
    time: np.ndarray, alpha: float, beta: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    one = np.ones(np.shape(time))
    return np.array([one, time - to_tt(t_ref, scale), -beta * one])


def _linear_integral(
    start: np.ndarray, stop: np.ndarray, alpha: float, beta: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    return np.asarray((stop - start) * linear.function((start + stop) / 2, alpha, beta, t_ref, scale=scale))


def _linear_integral_gradient(
    start: np.ndarray, stop: np.ndarray, alpha: float, beta: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    return np.asarray((stop - start) * _linear_gradient((start + stop) / 2, alpha, beta, t_ref, scale=scale))


@TEMPORAL_MODELS.register(
    "LinearTemporalModel",
    "linear",
    gradient=_linear_gradient,
    integral=_linear_integral,
    integral_gradient=_linear_integral_gradient,
    frozen={"t_ref"},
)
def linear(
    time: np.ndarray,
    alpha: Number = 1.0,
    beta: PerDay = 0.0,
    t_ref: Days = _YEAR_2000,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    """``alpha`` at ``t_ref``, growing by ``beta`` per day."""
    return np.asarray(alpha + beta * (time - to_tt(t_ref, scale)))


def _decay_gradient(time: np.ndarray, t0: float, t_ref: float, *, scale: Scale = "utc") -> np.ndarray:
    x = (time - to_tt(t_ref, scale)) / t0
    value = np.exp(-x)
    return np.array([value * x / t0, value / t0])


def _decay_integral(
    start: np.ndarray, stop: np.ndarray, t0: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    return np.asarray(
        -t0 * exp_decay.function(start, t0, t_ref, scale=scale) * np.expm1(-(stop - start) / t0)
    )


def _decay_integral_gradient(
    start: np.ndarray, stop: np.ndarray, t0: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    origin = to_tt(t_ref, scale)
    first, last = np.exp(-(start - origin) / t0), np.exp(-(stop - origin) / t0)
    value = _decay_integral(start, stop, t0, t_ref, scale=scale)
    return np.array([(value + (start - origin) * first - (stop - origin) * last) / t0, value / t0])


@TEMPORAL_MODELS.register(
    "ExpDecayTemporalModel",
    "exp-decay",
    gradient=_decay_gradient,
    integral=_decay_integral,
    integral_gradient=_decay_integral_gradient,
    check=above_zero(t0=0),
    frozen={"t_ref"},
)
def exp_decay(
    time: np.ndarray, t0: Days = 1.0, t_ref: Days = _YEAR_2000, *, scale: Scale = "utc"
) -> np.ndarray:
    """One at ``t_ref``, falling by a factor e in each ``t0``; greater than one before."""
    return np.asarray(np.exp(-(time - to_tt(t_ref, scale)) / t0))


def _gauss_gradient(time: np.ndarray, t_ref: float, sigma: float, *, scale: Scale = "utc") -> np.ndarray:
    x = (time - to_tt(t_ref, scale)) / sigma
    value = np.exp(-0.5 * x**2)
    return np.array([value * x / sigma, value * x**2 / sigma])


def _gauss_integral(
    start: np.ndarray, stop: np.ndarray, t_ref: float, sigma: float, *, scale: Scale = "utc"
) -> np.ndarray:
    low, high = ((time - to_tt(t_ref, scale)) / (math.sqrt(2) * sigma) for time in (start, stop))
    # in a tail the complement keeps the digits that differences of numbers near one lose
    area = np.where(
        low > 0,
        scipy.special.erfc(low) - scipy.special.erfc(high),
        np.where(
            high < 0,
            scipy.special.erfc(-high) - scipy.special.erfc(-low),
            scipy.special.erf(high) - scipy.special.erf(low),
        ),
    )
    return np.asarray(math.sqrt(math.pi / 2) * sigma * area)


def _gauss_integral_gradient(
    start: np.ndarray, stop: np.ndarray, t_ref: float, sigma: float, *, scale: Scale = "utc"
) -> np.ndarray:
    low, high = (time - to_tt(t_ref, scale) for time in (start, stop))
    first, last = (gauss.function(time, t_ref, sigma, scale=scale) for time in (start, stop))
    value = _gauss_integral(start, stop, t_ref, sigma, scale=scale)
    return np.array([first - last, (value + low * first - high * last) / sigma])


@TEMPORAL_MODELS.register(
    "GaussianTemporalModel",
    "gauss",
    gradient=_gauss_gradient,
    integral=_gauss_integral,
    integral_gradient=_gauss_integral_gradient,
    check=above_zero(sigma=1),
    frozen=(),
)
def gauss(
    time: np.ndarray, t_ref: Days = _YEAR_2000, sigma: Days = 1.0, *, scale: Scale = "utc"
) -> np.ndarray:
    """One at ``t_ref``, with the width ``sigma``."""
    return np.asarray(np.exp(-0.5 * ((time - to_tt(t_ref, scale)) / sigma) ** 2))


def _pulse_gradient(
    time: np.ndarray, t_ref: float, t_rise: float, t_decay: float, eta: float, *, scale: Scale = "utc"
) -> np.ndarray:
    elapsed = np.asarray(time - to_tt(t_ref, scale))
    is_rise = elapsed < 0
    width = np.where(is_rise, t_rise, t_decay)
    x = np.abs(elapsed) / width
    y = 0.5 * x ** (1 / eta)
    by_x = -np.exp(-y) * y / eta  # times x
    with np.errstate(divide="ignore", invalid="ignore"):
        by_t_ref = np.where(x > 0, -np.sign(elapsed) * by_x / (x * width), 0.0)
        log_x = np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), 0.0)
    by_width = -by_x / width
    return np.array(
        [
            by_t_ref,
            np.where(is_rise, by_width, 0.0),
            np.where(is_rise, 0.0, by_width),
            np.exp(-y) * y * log_x / eta**2,
        ]
    )


def _pulse_side(low: np.ndarray, high: np.ndarray, width: float, eta: float) -> np.ndarray:
    """Integral of exp(-(x / width)^(1 / eta) / 2) from ``low`` to ``high``, both from 0."""
    y_low, y_high = (0.5 * (x / width) ** (1 / eta) for x in (low, high))
    area = np.where(
        y_low > eta,
        scipy.special.gammaincc(eta, y_low) - scipy.special.gammaincc(eta, y_high),
        scipy.special.gammainc(eta, y_high) - scipy.special.gammainc(eta, y_low),
    )
    return np.asarray(width * 2**eta * eta * scipy.special.gamma(eta) * area)


def _pulse_integral(
    start: np.ndarray,
    stop: np.ndarray,
    t_ref: float,
    t_rise: float,
    t_decay: float,
    eta: float,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    low, high = (time - to_tt(t_ref, scale) for time in (start, stop))
    rise = _pulse_side(np.maximum(-high, 0), np.maximum(-low, 0), t_rise, eta)
    return np.asarray(rise + _pulse_side(np.maximum(low, 0), np.maximum(high, 0), t_decay, eta))


def _pulse_integral_gradient(
    start: np.ndarray,
    stop: np.ndarray,
    t_ref: float,
    t_rise: float,
    t_decay: float,
    eta: float,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    values = (t_ref, t_rise, t_decay, eta)
    low, high = (time - to_tt(t_ref, scale) for time in (start, stop))
    first, last = (generalized_gauss.function(time, *values, scale=scale) for time in (start, stop))

    def by_width(inner: np.ndarray, outer: np.ndarray, width: float) -> np.ndarray:
        at_inner, at_outer = (np.exp(-0.5 * (x / width) ** (1 / eta)) for x in (inner, outer))
        return np.asarray(
            (_pulse_side(inner, outer, width, eta) + inner * at_inner - outer * at_outer) / width
        )

    # the incomplete gamma function has no derivative by its order in closed form
    step = _STEP * eta
    up, down = (_pulse_integral(start, stop, *values[:3], eta + s, scale=scale) for s in (step, -step))
    return np.array(
        [
            first - last,
            by_width(np.maximum(-high, 0), np.maximum(-low, 0), t_rise),
            by_width(np.maximum(low, 0), np.maximum(high, 0), t_decay),
            (up - down) / (2 * step),
        ]
    )


@TEMPORAL_MODELS.register(
    "GeneralizedGaussianTemporalModel",
    "gengauss",
    gradient=_pulse_gradient,
    integral=_pulse_integral,
    integral_gradient=_pulse_integral_gradient,
    check=above_zero(t_rise=1, t_decay=2, eta=3),
    frozen=(),
)
def generalized_gauss(
    time: np.ndarray,
    t_ref: Days = _YEAR_2000,
    t_rise: Days = 1.0,
    t_decay: Days = 1.0,
    eta: Number = 0.5,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    """exp(-(|time - t_ref| / width)^(1 / ``eta``) / 2), with a width of its own before and after the peak.

    Norris et al. (2005), equation 1, with eta the inverse of their peakedness.
    """
    elapsed = time - to_tt(t_ref, scale)
    width = np.where(elapsed < 0, t_rise, t_decay)
    return np.asarray(np.exp(-0.5 * (np.abs(elapsed) / width) ** (1 / eta)))


def _power_gradient(
    time: np.ndarray, alpha: float, t_ref: float, t0: float, *, scale: Scale = "utc"
) -> np.ndarray:
    x = (time - to_tt(t_ref, scale)) / t0
    is_after = x > 0
    x = np.where(is_after, x, 1.0)
    value = np.where(is_after, x**alpha, 0.0)
    return np.array([value * np.log(x), -alpha * value / (x * t0), -alpha * value / t0])


def _power_area(x: np.ndarray, alpha: float) -> np.ndarray:
    """An antiderivative of x^alpha, for x from 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x) if alpha == -1 else x ** (alpha + 1) / (alpha + 1))


def _power_integral(
    start: np.ndarray,
    stop: np.ndarray,
    alpha: float,
    t_ref: float,
    t0: float,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    low, high = (np.maximum(time - to_tt(t_ref, scale), 0.0) / t0 for time in (start, stop))
    is_after = high > 0
    safe_high = np.where(is_after, high, 1.0)
    return np.where(
        is_after, t0 * (_power_area(safe_high, alpha) - _power_area(np.where(is_after, low, 1.0), alpha)), 0.0
    )


def _power_integral_gradient(
    start: np.ndarray,
    stop: np.ndarray,
    alpha: float,
    t_ref: float,
    t0: float,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    low, high = (np.maximum(time - to_tt(t_ref, scale), 0.0) / t0 for time in (start, stop))
    is_after = high > 0
    low, high = np.where(is_after, low, 1.0), np.where(is_after, high, 1.0)

    def at(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log = np.log(np.where(x > 0, x, 1.0))
        if alpha == -1:
            return log**2 / 2, np.where(x > 0, 1 / np.where(x > 0, x, 1.0), 0.0)
        area = np.where(x > 0, _power_area(np.where(x > 0, x, 1.0), alpha), 0.0)
        return area * (log - 1 / (alpha + 1)), np.where(x > 0, np.where(x > 0, x, 1.0) ** alpha, 0.0)

    (by_low, first), (by_high, last) = at(low), at(high)
    value = _power_integral(start, stop, alpha, t_ref, t0, scale=scale)
    return np.where(
        is_after,
        np.array([t0 * (by_high - by_low), first - last, value / t0 - (high * last - low * first)]),
        0.0,
    )


@TEMPORAL_MODELS.register(
    "PowerLawTemporalModel",
    "powerlaw",
    gradient=_power_gradient,
    integral=_power_integral,
    integral_gradient=_power_integral_gradient,
    check=above_zero(t0=2),
    frozen={"t_ref", "t0"},
)
def power_law(
    time: np.ndarray,
    alpha: Number = 1.0,
    t_ref: Days = _YEAR_2000,
    t0: Days = 1.0,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    """((time - t_ref) / t0)^``alpha`` after ``t_ref``, zero before: a source that starts there."""
    x = (time - to_tt(t_ref, scale)) / t0
    return np.where(x > 0, np.where(x > 0, x, 1.0) ** alpha, 0.0)


def _sine_gradient(
    time: np.ndarray, amp: float, omega: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    elapsed = time - to_tt(t_ref, scale)
    slope = amp * np.cos(omega * elapsed)
    return np.array([np.sin(omega * elapsed), slope * elapsed, -slope * omega])


def _sine_integral(
    start: np.ndarray, stop: np.ndarray, amp: float, omega: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    length, middle = stop - start, (start + stop) / 2 - to_tt(t_ref, scale)
    return np.asarray(length * (1 + amp * np.sin(omega * middle) * np.sinc(omega * length / (2 * np.pi))))


def _sine_integral_gradient(
    start: np.ndarray, stop: np.ndarray, amp: float, omega: float, t_ref: float, *, scale: Scale = "utc"
) -> np.ndarray:
    length, middle = stop - start, (start + stop) / 2 - to_tt(t_ref, scale)
    half = length / 2
    phase = omega * half
    share = np.sinc(phase / np.pi)
    # d/dx (sin x / x), whose numerator loses its digits at small x
    small = np.abs(phase) < 1e-3
    slope = np.where(small, -phase / 3, (np.cos(phase) - share) / np.where(small, 1.0, phase))
    sine, cosine = np.sin(omega * middle), np.cos(omega * middle)
    return np.array(
        [
            length * sine * share,
            amp * length * (middle * cosine * share + sine * half * slope),
            -amp * omega * length * cosine * share,
        ]
    )


@TEMPORAL_MODELS.register(
    "SineTemporalModel",
    "sinus",
    gradient=_sine_gradient,
    integral=_sine_integral,
    integral_gradient=_sine_integral_gradient,
    frozen=(),
)
def sine(
    time: np.ndarray,
    amp: Number = 1.0,
    omega: Pulsation = 1.0,
    t_ref: Days = _YEAR_2000,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    """1 + ``amp`` sin(``omega`` (time - ``t_ref``))."""
    return np.asarray(1 + amp * np.sin(omega * (time - to_tt(t_ref, scale))))
