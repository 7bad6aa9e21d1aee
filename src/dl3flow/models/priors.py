"""Priors: -2 ln of what is known of a parameter beforehand, up to a constant.

Functions take a parameter's value and the prior's own parameters in the same unit; companions ``gradient`` and
``curvature`` give the first and second derivative by the value.
"""

from dl3flow.registry import Registry

PRIORS = Registry("prior")


def _gaussian_gradient(value: float, *, mu: float, sigma: float) -> float:
    return 2 * (value - mu) / sigma**2


def _gaussian_curvature(value: float, *, mu: float, sigma: float) -> float:
    return 2 / sigma**2


@PRIORS.register("GaussianPrior", gradient=_gaussian_gradient, curvature=_gaussian_curvature)
def gaussian(value: float, *, mu: float = 0.0, sigma: float = 1.0) -> float:
    """Normal distribution around ``mu`` of width ``sigma``."""
    return ((value - mu) / sigma) ** 2
