"""Spectral models: differential flux against energy, with their analytic gradients.

Functions take energies in TeV and parameters in internal units (TeV, cm, s), and return cm-2 s-1 TeV-1; norm models
return a dimensionless factor. A gradient has one row per parameter, in the order of the function's signature. The
defaults are the values that a parameter takes when a model file does not give it.
"""

import numpy as np

from dl3flow.registry import Registry
from dl3flow.units import Energy, Flux, InverseEnergy, Number

SPECTRAL_MODELS = Registry("spectral model")
NORM_MODELS = Registry("norm model")


def _power_law_gradient(energy: np.ndarray, amplitude: float, index: float, reference: float) -> np.ndarray:
    shape = (energy / reference) ** -index
    return np.array(
        [shape, -amplitude * shape * np.log(energy / reference), amplitude * shape * index / reference]
    )


@SPECTRAL_MODELS.register("PowerLawSpectralModel", "pl", gradient=_power_law_gradient)
def power_law(
    energy: np.ndarray, amplitude: Flux = 1e-12, index: Number = 2.0, reference: Energy = 1.0
) -> np.ndarray:
    """``amplitude`` at ``reference``; ``index`` is positive for a falling spectrum."""
    return amplitude * (energy / reference) ** -index


def _log_parabola_gradient(
    energy: np.ndarray, amplitude: float, reference: float, alpha: float, beta: float
) -> np.ndarray:
    x = np.log(energy / reference)
    value = np.exp(-(alpha + beta * x) * x)
    flux = amplitude * value
    return np.array([value, flux * (alpha + 2 * beta * x) / reference, -flux * x, -flux * x**2])


@SPECTRAL_MODELS.register("LogParabolaSpectralModel", "lp", gradient=_log_parabola_gradient)
def log_parabola(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    reference: Energy = 10.0,
    alpha: Number = 2.0,
    beta: Number = 1.0,
) -> np.ndarray:
    """Power law whose index ``alpha`` grows by ``beta`` times the natural logarithm of energy / ``reference``."""
    x = np.log(energy / reference)
    return amplitude * np.exp(-(alpha + beta * x) * x)


def _cutoff_gradient(
    energy: np.ndarray, amplitude: float, index: float, reference: float, lambda_: float, alpha: float
) -> np.ndarray:
    shape = exp_cutoff_power_law.function(energy, 1.0, index, reference, lambda_, alpha)
    flux = amplitude * shape
    cut = (lambda_ * energy) ** alpha
    # lim x^a ln(x) = 0 at lambda = 0, where the logarithm itself diverges
    log_cut = np.where(
        lambda_ * energy > 0, np.log(np.where(lambda_ * energy > 0, lambda_ * energy, 1.0)), 0.0
    )
    by_lambda = -flux * alpha * energy**alpha * lambda_ ** (alpha - 1) if alpha != 1 else -flux * energy
    return np.array(
        [
            shape,
            -flux * np.log(energy / reference),
            flux * index / reference,
            by_lambda,
            -flux * cut * log_cut,
        ]
    )


@SPECTRAL_MODELS.register("ExpCutoffPowerLawSpectralModel", "ecpl", gradient=_cutoff_gradient)
def exp_cutoff_power_law(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    index: Number = 1.5,
    reference: Energy = 1.0,
    lambda_: InverseEnergy = 0.1,
    alpha: Number = 1.0,
) -> np.ndarray:
    """Power law times exp(-(``lambda_`` energy)^``alpha``)."""
    # a trial step below zero continues the straight exponential instead of ending in NaN
    cut = lambda_ * energy if alpha == 1 else np.maximum(lambda_ * energy, 0.0) ** alpha
    return amplitude * (energy / reference) ** -index * np.exp(-cut)


def _power_law_norm_gradient(energy: np.ndarray, norm: float, tilt: float, reference: float) -> np.ndarray:
    shape = (energy / reference) ** -tilt
    return np.array([shape, -norm * shape * np.log(energy / reference), norm * shape * tilt / reference])


@NORM_MODELS.register("PowerLawNormSpectralModel", "pl-norm", gradient=_power_law_norm_gradient)
def power_law_norm(
    energy: np.ndarray, norm: Number = 1.0, tilt: Number = 0.0, reference: Energy = 1.0
) -> np.ndarray:
    """Factor ``norm`` at ``reference``, falling with energy for a positive ``tilt``."""
    return norm * (energy / reference) ** -tilt
