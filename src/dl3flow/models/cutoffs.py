"""Power laws with an exponential cutoff, in the parameters of several catalogues."""

import numpy as np

from dl3flow.models.spectral import SPECTRAL_MODELS, above_zero, bounded_exp, bounded_power, log_ratio
from dl3flow.units import Energy, Flux, InverseEnergy, Number

# at lambda 0 and alpha below 1 the derivative is infinite: this keeps it finite, and steep
_NEAR_ZERO = 1e-12
_MEV_PER_TEV = 1e6


def _cut(energy: np.ndarray, lambda_: float, alpha: float) -> np.ndarray:
    """Exponent of exp(-(lambda E)^alpha).

    A trial step to a negative ``lambda_`` continues oddly, -(-x)^alpha, instead of ending in NaN; for ``alpha`` 1 that is
    the straight exponential.
    """
    x = np.asarray(lambda_ * energy)
    return x if alpha == 1 else np.sign(x) * bounded_power(np.abs(x), alpha)


def _cut_derivatives(
    energy: np.ndarray, lambda_: float, alpha: float, power: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of that exponent, ``power``, by lambda and alpha."""
    size = np.abs(lambda_ * np.asarray(energy))
    steep = np.maximum(size, _NEAR_ZERO) if alpha < 1 else size
    by_lambda = alpha * energy * bounded_power(steep, alpha - 1)
    # lim x^a ln x = 0
    return by_lambda, power * np.log(np.where(size > 0, size, 1.0))


def exp_cutoff_gradient(
    energy: np.ndarray, amplitude: float, index: float, reference: float, lambda_: float, alpha: float
) -> np.ndarray:
    """Gradient of a power law with a cutoff, whether its amplitude is a flux or a factor."""
    power = _cut(energy, lambda_, alpha)
    by_lambda, by_alpha = _cut_derivatives(energy, lambda_, alpha, power)
    x = np.log(energy / reference)
    shape = bounded_exp(-index * x - power)
    flux = amplitude * shape
    return np.array([shape, -flux * x, flux * index / reference, -flux * by_lambda, -flux * by_alpha])


@SPECTRAL_MODELS.register(
    "ExpCutoffPowerLawSpectralModel",
    "ecpl",
    gradient=exp_cutoff_gradient,
    frozen=("reference", "alpha"),
    order=("index", "amplitude", "reference", "lambda_", "alpha"),
    check=above_zero(reference=2),
)
def exp_cutoff_power_law(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    index: Number = 1.5,
    reference: Energy = 1.0,
    lambda_: InverseEnergy = 0.1,
    alpha: Number = 1.0,
) -> np.ndarray:
    """Power law times exp(-(``lambda_`` energy)^``alpha``)."""
    return amplitude * bounded_exp(-index * np.log(energy / reference) - _cut(energy, lambda_, alpha))


def _cutoff_3fgl_gradient(
    energy: np.ndarray, index: float, amplitude: float, reference: float, ecut: float
) -> np.ndarray:
    shape = exp_cutoff_power_law_3fgl.function(energy, index, 1.0, reference, ecut)
    flux = amplitude * shape
    return np.array(
        [
            -flux * np.log(energy / reference),
            shape,
            flux * (index / reference + 1 / ecut),
            flux * (energy - reference) / ecut**2,
        ]
    )


@SPECTRAL_MODELS.register(
    "ExpCutoffPowerLaw3FGLSpectralModel",
    "ecpl-3fgl",
    gradient=_cutoff_3fgl_gradient,
    frozen=("reference",),
    check=above_zero(reference=2, ecut=3),
)
def exp_cutoff_power_law_3fgl(
    energy: np.ndarray,
    index: Number = 1.5,
    amplitude: Flux = 1e-12,
    reference: Energy = 1.0,
    ecut: Energy = 10.0,
) -> np.ndarray:
    """Power law times exp((``reference`` - energy) / ``ecut``): ``amplitude`` is the flux at ``reference``.

    Acero et al. (2015), the 3FGL catalogue.
    """
    return amplitude * bounded_exp(-index * np.log(energy / reference) + (reference - energy) / ecut)


def _super_3fgl_gradient(
    energy: np.ndarray, amplitude: float, reference: float, ecut: float, index_1: float, index_2: float
) -> np.ndarray:
    shape = super_exp_cutoff_power_law_3fgl.function(energy, 1.0, reference, ecut, index_1, index_2)
    flux = amplitude * shape
    power, power_0 = (bounded_power(np.abs(e / ecut), index_2) for e in (energy, reference))
    return np.array(
        [
            shape,
            flux * (index_1 + index_2 * power_0) / reference,
            flux * index_2 * (power - power_0) / ecut,
            -flux * np.log(energy / reference),
            flux * (power_0 * log_ratio(np.asarray(reference), ecut) - power * log_ratio(energy, ecut)),
        ]
    )


@SPECTRAL_MODELS.register(
    "SuperExpCutoffPowerLaw3FGLSpectralModel",
    "secpl-3fgl",
    gradient=_super_3fgl_gradient,
    frozen=("reference",),
    check=above_zero(reference=1, ecut=2),
)
def super_exp_cutoff_power_law_3fgl(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    reference: Energy = 1.0,
    ecut: Energy = 10.0,
    index_1: Number = 1.5,
    index_2: Number = 2.0,
) -> np.ndarray:
    """Power law times exp((``reference`` / ``ecut``)^``index_2`` - (energy / ``ecut``)^``index_2``).

    Acero et al. (2015), the 3FGL catalogue.
    """
    power, power_0 = (bounded_power(np.abs(e / ecut), index_2) for e in (energy, reference))
    cut = power_0 - power
    return amplitude * bounded_exp(-index_1 * np.log(energy / reference) + cut)


def _super_4fgl_gradient(
    energy: np.ndarray, amplitude: float, reference: float, expfactor: float, index_1: float, index_2: float
) -> np.ndarray:
    shape = super_exp_cutoff_power_law_4fgl.function(energy, 1.0, reference, expfactor, index_1, index_2)
    flux = amplitude * shape
    in_mev, in_mev_0 = energy * _MEV_PER_TEV, reference * _MEV_PER_TEV
    power, power_0 = (bounded_power(np.asarray(e), index_2) for e in (in_mev, in_mev_0))
    return np.array(
        [
            shape,
            flux * (index_1 + expfactor * index_2 * power_0) / reference,
            flux * (power_0 - power),
            -flux * np.log(energy / reference),
            flux * expfactor * (power_0 * np.log(in_mev_0) - power * np.log(in_mev)),
        ]
    )


@SPECTRAL_MODELS.register(
    "SuperExpCutoffPowerLaw4FGLSpectralModel",
    "secpl-4fgl",
    gradient=_super_4fgl_gradient,
    frozen=("reference",),
    check=above_zero(reference=1),
)
def super_exp_cutoff_power_law_4fgl(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    reference: Energy = 1.0,
    expfactor: Number = 1e-14,
    index_1: Number = 1.5,
    index_2: Number = 2.0,
) -> np.ndarray:
    """Power law times exp(``expfactor`` (``reference``^``index_2`` - energy^``index_2``)), these energies in MeV.

    Abdollahi et al. (2020), the 4FGL catalogue.
    """
    power, power_0 = (bounded_power(np.asarray(e * _MEV_PER_TEV), index_2) for e in (energy, reference))
    cut = expfactor * (power_0 - power)
    return amplitude * bounded_exp(-index_1 * np.log(energy / reference) + cut)


def _series(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(exp(y) - 1) / y, (exp(y) - 1 - y) / y^2 and the derivative of the latter, regular at y = 0."""
    y = np.minimum(y, 200.0)
    is_small = np.abs(y) < 0.1
    safe = np.where(is_small, 1.0, y)
    exp = np.exp(safe)
    coefficients = 1 / np.cumprod(np.arange(1.0, 14.0))  # 1 / n!, n = 1...
    near = np.where(is_small, y, 0.0)
    first = np.polynomial.polynomial.polyval(near, coefficients)
    second = np.polynomial.polynomial.polyval(near, coefficients[1:])
    third = np.polynomial.polynomial.polyval(near, coefficients[2:] * np.arange(1, 12))
    return (
        np.where(is_small, first, np.expm1(safe) / safe),
        np.where(is_small, second, (np.expm1(safe) - safe) / safe**2),
        np.where(is_small, third, (exp * (safe - 2) + safe + 2) / safe**3),
    )


def _super_4fgl_dr3_gradient(
    energy: np.ndarray, amplitude: float, reference: float, expfactor: float, index_1: float, index_2: float
) -> np.ndarray:
    x = np.log(energy / reference)
    first, second, third = _series(index_2 * x)
    shape = bounded_exp(-index_1 * x - expfactor * x**2 * second)
    flux = amplitude * shape
    return np.array(
        [
            shape,
            flux * (index_1 + expfactor * x * first) / reference,
            -flux * x**2 * second,
            -flux * x,
            -flux * expfactor * x**3 * third,
        ]
    )


@SPECTRAL_MODELS.register(
    "SuperExpCutoffPowerLaw4FGLDR3SpectralModel",
    "secpl-4fgl-dr3",
    gradient=_super_4fgl_dr3_gradient,
    frozen=("reference",),
    check=above_zero(reference=1),
)
def super_exp_cutoff_power_law_4fgl_dr3(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    reference: Energy = 1.0,
    expfactor: Number = 0.01,
    index_1: Number = 1.5,
    index_2: Number = 2.0,
) -> np.ndarray:
    """Cutoff power law of ``index_1`` and curvature ``expfactor`` at ``reference``, regular at ``index_2`` 0.

    With x = ln(E / reference): amplitude exp(-index_1 x - expfactor x^2 (exp(y) - 1 - y) / y^2), y = index_2 x.
    Abdollahi et al. (2022), the third data release of 4FGL.
    """
    x = np.log(energy / reference)
    _, second, _ = _series(index_2 * x)
    return amplitude * bounded_exp(-index_1 * x - expfactor * x**2 * second)
