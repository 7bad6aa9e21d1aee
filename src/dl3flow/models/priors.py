"""Priors: -2 ln of the probability density of what is known of a parameter beforehand.

Functions take a parameter's value and the prior's own parameters, all in the unit of the parameter, and keep the density's
normalisation, so that totals compare with those of the field's other programs. Companions ``gradient`` and ``curvature``
give the first and second derivative by the value, ``problem`` a few words on own parameters that make no density (empty if
they do), and ``limits`` the range outside which the density is zero.
"""

import math

from dl3flow.registry import Registry

PRIORS = Registry("prior")
# where the second derivative of a pointed density diverges, in units of its width: its value there
_CLOSEST = 1e-6


def _is_wide(mu: float = 0.0, sigma: float = 1.0) -> str:
    return "" if sigma > 0 else f"`sigma` must be above 0, found {sigma:g}"


def _gaussian_gradient(value: float, *, mu: float = 0.0, sigma: float = 1.0) -> float:
    return 2 * (value - mu) / sigma**2


def _gaussian_curvature(value: float, *, mu: float = 0.0, sigma: float = 1.0) -> float:
    return 2 / sigma**2


@PRIORS.register(
    "GaussianPrior", gradient=_gaussian_gradient, curvature=_gaussian_curvature, problem=_is_wide
)
def gaussian(value: float, *, mu: float = 0.0, sigma: float = 1.0) -> float:
    """Normal distribution around ``mu`` of width ``sigma``."""
    return ((value - mu) / sigma) ** 2 + math.log(2 * math.pi * sigma**2)


def _has_shape(mu: float = 0.0, sigma: float = 1.0, eta: float = 0.5) -> str:
    return _is_wide(mu, sigma) or ("" if eta > 0 else f"`eta` must be above 0, found {eta:g}")


def _generalised_gradient(value: float, *, mu: float = 0.0, sigma: float = 1.0, eta: float = 0.5) -> float:
    scale, power = math.sqrt(2) * sigma, 1 / eta
    x = (value - mu) / scale
    return float(2 * power * math.copysign(abs(x) ** (power - 1), x) / scale) if x else 0.0


def _generalised_curvature(value: float, *, mu: float = 0.0, sigma: float = 1.0, eta: float = 0.5) -> float:
    scale, power = math.sqrt(2) * sigma, 1 / eta
    x = max(abs(value - mu) / scale, _CLOSEST)
    return float(2 * power * (power - 1) * x ** (power - 2) / scale**2)


@PRIORS.register(
    "GeneralizedGaussianPrior",
    gradient=_generalised_gradient,
    curvature=_generalised_curvature,
    problem=_has_shape,
)
def generalized_gaussian(value: float, *, mu: float = 0.0, sigma: float = 1.0, eta: float = 0.5) -> float:
    """exp(-(|value - ``mu``| / (sqrt(2) ``sigma``))^(1 / ``eta``)): normal for 0.5, Laplace for 1, a box towards 0."""
    scale = math.sqrt(2) * sigma
    log_norm = math.log(2 * scale * eta) + math.lgamma(eta)
    return float(2 * (abs(value - mu) / scale) ** (1 / eta) + 2 * log_norm)


def _is_range(min: float = 0.0, max: float = 1.0) -> str:
    return "" if min < max else f"`min` must be below `max`, found {min:g} and {max:g}"


def _limits(*, min: float = 0.0, max: float = 1.0) -> tuple[float, float]:
    return min, max


def _flat(value: float, *, min: float = 0.0, max: float = 1.0) -> float:
    return 0.0


@PRIORS.register("UniformPrior", gradient=_flat, curvature=_flat, problem=_is_range, limits=_limits)
def uniform(value: float, *, min: float = 0.0, max: float = 1.0) -> float:
    """Any value from ``min`` to ``max`` alike, none outside."""
    return 2 * math.log(max - min) if min <= value <= max else math.inf


def _is_positive_range(min: float = 1e-14, max: float = 1e-10) -> str:
    return _is_range(min, max) or ("" if min > 0 else f"`min` must be above 0, found {min:g}")


def _positive_limits(*, min: float = 1e-14, max: float = 1e-10) -> tuple[float, float]:
    return min, max


def _log_uniform_gradient(value: float, *, min: float = 1e-14, max: float = 1e-10) -> float:
    return 2 / value if min <= value <= max else 0.0


def _log_uniform_curvature(value: float, *, min: float = 1e-14, max: float = 1e-10) -> float:
    return -2 / value**2 if min <= value <= max else 0.0


@PRIORS.register(
    "LogUniformPrior",
    gradient=_log_uniform_gradient,
    curvature=_log_uniform_curvature,
    problem=_is_positive_range,
    limits=_positive_limits,
)
def log_uniform(value: float, *, min: float = 1e-14, max: float = 1e-10) -> float:
    """Any logarithm from that of ``min`` to that of ``max`` alike, none outside."""
    return 2 * math.log(value * math.log(max / min)) if min <= value <= max else math.inf
