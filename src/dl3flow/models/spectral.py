"""Spectral models: differential flux against energy, with their analytic gradients.

Functions take energies in TeV (positive, any shape) and parameters in internal units (TeV, cm, s), and return
cm-2 s-1 TeV-1; norm models return a dimensionless factor. Parameters are positional, options keyword-only; a function
with an option called ``energy`` names its first argument otherwise. The defaults are the values that a parameter takes
when a model file does not give it. Companions of a plug-in, of which all but the first may be absent:

``gradient(energy, *values, **options) -> array, shape (n_par, *energy.shape)``
    Derivative by every parameter, frozen ones too, in the order of the signature.
``parameters(**options) -> {name: (unit, default)}``
    For a model with as many parameters as its options say.
``frozen`` : tuple of str
    Names that a fit keeps unless it is told otherwise; absent is none.
``order`` : tuple of str
    Names in the order of the field's model files where that is not the signature's.
``breaks(*values, **options) -> array``
    Energies in TeV where the function or its derivative jumps, or outside which a narrow line vanishes: an integral over
    a bin is split there.
``check(*values, **options) -> str or None``
    What is wrong with values (in internal units) that no spectrum can have, as words that follow the name of the model.
``reads`` : str
    Kind of file that can hold the options, such as ``ebl`` (`io.ebl`).
``stands_for`` : str
    Name of the spectrum under whose name the field's model files hold this factor.
``component(**options) -> Component``
    A plug-in that only names a published spectrum stands for this component; a model file may spell it out.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import scipy

from dl3flow.registry import Registry
from dl3flow.units import FLUX, Energy, Flux, Number

SPECTRAL_MODELS = Registry("spectral model")
NORM_MODELS = Registry("norm model")

IntegralFlux = Annotated[float, FLUX]

# exp(200) is 1e86: a trial step far off gives a huge number instead of an overflow, in products of three too
_LARGEST_EXPONENT = 200.0
# below, the series is better than the difference that cancels
_SMALL = 1e-2


def bounded_exp(x: np.ndarray) -> np.ndarray:
    """exp(x) without overflow."""
    return np.asarray(np.exp(np.minimum(x, _LARGEST_EXPONENT)))


def bounded_power(base: np.ndarray, exponent: float) -> np.ndarray:
    """base^exponent without overflow, for a base that is not negative."""
    safe = np.where(np.asarray(base) > 0, base, 1.0)
    return np.where(np.asarray(base) > 0, bounded_exp(exponent * np.log(safe)), float(exponent == 0))


def log_ratio(energy: np.ndarray, scale: float) -> np.ndarray:
    """ln(energy / scale); a trial step to a negative scale is taken for the same energy, instead of ending in NaN."""
    return np.asarray(np.log(np.abs(energy / scale)))


def above_zero(**places: int) -> Callable[..., str | None]:
    """Companion ``check`` of a model whose named parameters, at these places among its values, must be above zero."""

    def check(*values: float, **options: object) -> str | None:
        wrong = next((name for name, place in places.items() if not values[place] > 0), None)
        return None if wrong is None else f"`{wrong}` is {values[places[wrong]]:g}, and must be above 0"

    return check


@SPECTRAL_MODELS.register(
    "ConstantSpectralModel", "const", gradient=lambda energy, const: np.ones((1, *np.shape(energy)))
)
def constant(energy: np.ndarray, const: Flux = 1e-12) -> np.ndarray:
    """The same differential flux at all energies."""
    return np.full(np.shape(energy), float(const))


def power_law_gradient(energy: np.ndarray, amplitude: float, index: float, reference: float) -> np.ndarray:
    """Gradient of a power law, whether its amplitude is a flux or a factor."""
    shape = (energy / reference) ** -index
    return np.array(
        [shape, -amplitude * shape * np.log(energy / reference), amplitude * shape * index / reference]
    )


@SPECTRAL_MODELS.register(
    "PowerLawSpectralModel",
    "pl",
    gradient=power_law_gradient,
    frozen=("reference",),
    order=("index", "amplitude", "reference"),
    check=above_zero(reference=2),
)
def power_law(
    energy: np.ndarray, amplitude: Flux = 1e-12, index: Number = 2.0, reference: Energy = 1.0
) -> np.ndarray:
    """``amplitude`` at ``reference``; ``index`` is positive for a falling spectrum."""
    return amplitude * (energy / reference) ** -index


def _langevin(x: float) -> float:
    """coth(x) - 1/x."""
    return x / 3 - x**3 / 45 + 2 * x**5 / 945 if abs(x) < _SMALL else float(1 / np.tanh(x) - 1 / x)


def _power_law_2_terms(index: float, emin: float, emax: float) -> tuple[float, float, float]:
    """1 - index, x as half of it times ln(emax / emin), and ln(x / sinh x)."""
    slope = 1 - index
    x = float(slope * np.log(emax / emin) / 2)
    size = abs(x)
    if size < _SMALL:
        return slope, x, -(x**2) / 6 + x**4 / 180
    return slope, x, float(np.log(2 * size) - size - np.log(-np.expm1(-2 * size)))


def _power_law_2_gradient(
    energy: np.ndarray, amplitude: float, index: float, emin: float, emax: float
) -> np.ndarray:
    slope, x, _ = _power_law_2_terms(index, emin, emax)
    shape = power_law_2.function(energy, 1.0, index, emin, emax)
    flux, width, langevin = amplitude * shape, np.log(emax / emin), _langevin(x)
    by_width = -1 / width - slope / 2 * langevin
    return np.array(
        [
            shape,
            flux * (width / 2 * langevin - np.log(energy / np.sqrt(emin * emax))),
            -flux * (by_width + slope / 2) / emin,
            flux * (by_width - slope / 2) / emax,
        ]
    )


def _check_power_law_2(amplitude: float, index: float, emin: float, emax: float) -> str | None:
    if not emin > 0:
        return f"`emin` is {emin:g} TeV, and must be above 0"
    return None if emin < emax else f"`emin` is {emin:g} TeV, and must be below `emax`, {emax:g} TeV"


@SPECTRAL_MODELS.register(
    "PowerLaw2SpectralModel",
    "pl-2",
    gradient=_power_law_2_gradient,
    frozen=("emin", "emax"),
    check=_check_power_law_2,
)
def power_law_2(
    energy: np.ndarray,
    amplitude: IntegralFlux = 1e-12,
    index: Number = 2.0,
    emin: Energy = 0.1,
    emax: Energy = 100.0,
) -> np.ndarray:
    """Power law of integral flux ``amplitude`` between ``emin`` and ``emax``.

    With s = 1 - index and L = ln(emax / emin): amplitude / (E L) (E / sqrt(emin emax))^s (s L / 2) / sinh(s L / 2),
    which is regular at index 1.
    """
    slope, _, log_ratio = _power_law_2_terms(index, emin, emax)
    middle = np.sqrt(emin * emax)
    shape = bounded_exp(log_ratio + (slope - 1) * np.log(energy / middle))
    return np.asarray(amplitude / (np.log(emax / emin) * middle) * shape)


def _broken_gradient(
    energy: np.ndarray, index1: float, index2: float, amplitude: float, ebreak: float
) -> np.ndarray:
    x = log_ratio(energy, ebreak)
    is_low = x < 0
    index = np.where(is_low, index1, index2)
    shape = bounded_exp(-index * x)
    flux = amplitude * shape
    return np.array(
        [-flux * np.where(is_low, x, 0.0), -flux * np.where(is_low, 0.0, x), shape, flux * index / ebreak]
    )


@SPECTRAL_MODELS.register(
    "BrokenPowerLawSpectralModel",
    "bpl",
    gradient=_broken_gradient,
    breaks=lambda index1, index2, amplitude, ebreak: np.array([ebreak]),
    check=above_zero(ebreak=3),
)
def broken_power_law(
    energy: np.ndarray,
    index1: Number = 2.0,
    index2: Number = 2.0,
    amplitude: Flux = 1e-12,
    ebreak: Energy = 1.0,
) -> np.ndarray:
    """``amplitude`` at ``ebreak``, with ``index1`` below and ``index2`` above it."""
    x = log_ratio(energy, ebreak)
    return amplitude * bounded_exp(-np.where(x < 0, index1, index2) * x)


def _smooth_terms(
    energy: np.ndarray, index1: float, index2: float, ebreak: float, beta: float
) -> tuple[np.ndarray, float, float]:
    """Steepness times ln(E / ebreak), the sign of the change of index, and a width that is not zero."""
    width = max(beta, 1e-200)
    sign = 1.0 if index2 >= index1 else -1.0
    return log_ratio(energy, ebreak) * (abs(index2 - index1) / width), sign, width


def _smooth_broken_gradient(
    energy: np.ndarray,
    index1: float,
    index2: float,
    amplitude: float,
    ebreak: float,
    reference: float,
    beta: float,
) -> np.ndarray:
    shape = smooth_broken_power_law.function(energy, index1, index2, 1.0, ebreak, reference, beta)
    flux = amplitude * shape
    t, sign, _ = _smooth_terms(energy, index1, index2, ebreak, beta)
    above, x = scipy.special.expit(t), log_ratio(energy, ebreak)
    return np.array(
        [
            flux * (above * x - np.log(energy / reference)),
            -flux * above * x,
            shape,
            flux * above * (index2 - index1) / ebreak,
            flux * index1 / reference,
            flux * sign * (above * t - np.logaddexp(0.0, t)),
        ]
    )


def _check_smooth_broken(
    index1: float, index2: float, amplitude: float, ebreak: float, reference: float, beta: float
) -> str | None:
    if index1 == index2:
        return (
            f"`index1` and `index2` are both {index1:g}, where this model is not continuous, and must differ"
        )
    return above_zero(ebreak=0, reference=1, beta=2)(ebreak, reference, beta)


@SPECTRAL_MODELS.register(
    "SmoothBrokenPowerLawSpectralModel",
    "sbpl",
    gradient=_smooth_broken_gradient,
    frozen=("reference", "beta"),
    breaks=lambda index1, index2, amplitude, ebreak, reference, beta: np.array([ebreak]),
    check=_check_smooth_broken,
)
def smooth_broken_power_law(
    energy: np.ndarray,
    index1: Number = 2.0,
    index2: Number = 2.0,
    amplitude: Flux = 1e-12,
    ebreak: Energy = 1.0,
    reference: Energy = 1.0,
    beta: Number = 1.0,
) -> np.ndarray:
    """Power law of ``index1`` that turns to ``index2`` around ``ebreak``, over a width of ``beta``.

    amplitude (E / reference)^-index1 (1 + (E / ebreak)^(|index2 - index1| / beta))^(-+ beta), with - for a spectrum that
    steepens. At ``beta`` 0 it is the sharp limit, up to the amplitude. Its value jumps by 4^beta above the break where
    the indices cross; equal ones count as steepening.
    """
    t, sign, width = _smooth_terms(energy, index1, index2, ebreak, beta)
    log = -index1 * np.log(energy / reference) - sign * width * np.logaddexp(0.0, t)
    return amplitude * bounded_exp(log)


def log_parabola_gradient(
    energy: np.ndarray, amplitude: float, reference: float, alpha: float, beta: float
) -> np.ndarray:
    """Gradient of a log parabola, whether its amplitude is a flux or a factor."""
    x = np.log(energy / reference)
    value = bounded_exp(-(alpha + beta * x) * x)
    flux = amplitude * value
    return np.array([value, flux * (alpha + 2 * beta * x) / reference, -flux * x, -flux * x**2])


@SPECTRAL_MODELS.register(
    "LogParabolaSpectralModel",
    "lp",
    gradient=log_parabola_gradient,
    frozen=("reference",),
    check=above_zero(reference=1),
)
def log_parabola(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    reference: Energy = 10.0,
    alpha: Number = 2.0,
    beta: Number = 1.0,
) -> np.ndarray:
    """Power law whose index ``alpha`` grows by ``beta`` times the natural logarithm of energy / ``reference``."""
    x = np.log(energy / reference)
    return amplitude * bounded_exp(-(alpha + beta * x) * x)


def _log_parabola_2_gradient(
    energy: np.ndarray, amplitude: float, reference: float, alpha: float, beta: float, escale: float
) -> np.ndarray:
    x, y = np.log(energy / reference), np.log(energy / escale)
    shape = bounded_exp(-(alpha + beta * y) * x)
    flux = amplitude * shape
    return np.array(
        [shape, flux * (alpha + beta * y) / reference, -flux * x, -flux * x * y, flux * beta * x / escale]
    )


@SPECTRAL_MODELS.register(
    "LogParabola2SpectralModel",
    "lp2",
    gradient=_log_parabola_2_gradient,
    frozen=("reference", "escale"),
    check=above_zero(reference=1, escale=4),
)
def log_parabola_2(
    energy: np.ndarray,
    amplitude: Flux = 1e-12,
    reference: Energy = 10.0,
    alpha: Number = 2.0,
    beta: Number = 1.0,
    escale: Energy = 1.0,
) -> np.ndarray:
    """Log parabola of ``amplitude`` at ``reference`` whose index is ``alpha`` at ``escale``, an energy of its own."""
    return amplitude * bounded_exp(-(alpha + beta * np.log(energy / escale)) * np.log(energy / reference))


def _gauss_gradient(energy: np.ndarray, amplitude: float, mean: float, sigma: float) -> np.ndarray:
    shape = gauss.function(energy, 1.0, mean, sigma)
    flux, z = amplitude * shape, (energy - mean) / sigma
    return np.array([shape, flux * z / sigma, flux * (z**2 - 1) / sigma])


def _gauss_breaks(amplitude: float, mean: float, sigma: float) -> np.ndarray:
    points = mean + abs(sigma) * np.array([-9.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 9.0])
    return points[points > 0]


@SPECTRAL_MODELS.register(
    "GaussianSpectralModel",
    "gauss",
    gradient=_gauss_gradient,
    breaks=_gauss_breaks,
    check=above_zero(sigma=2),
)
def gauss(
    energy: np.ndarray, amplitude: IntegralFlux = 1e-12, mean: Energy = 1.0, sigma: Energy = 2.0
) -> np.ndarray:
    """Line of integral flux ``amplitude`` (over negative energies too) at ``mean`` with the width ``sigma``."""
    # an accidental negative width in a fit is the same line
    z = (energy - mean) / sigma
    return np.asarray(amplitude / (abs(sigma) * np.sqrt(2 * np.pi)) * np.exp(-(z**2) / 2))


def _log_gauss_gradient(energy: np.ndarray, amplitude: float, mean: float, width: float) -> np.ndarray:
    shape = log_gauss.function(energy, 1.0, mean, width)
    flux, z = amplitude * shape, log_ratio(energy, mean) / width
    return np.array([shape, flux * z / (width * mean), flux * (z**2 - 1) / width])


@SPECTRAL_MODELS.register(gradient=_log_gauss_gradient, check=above_zero(mean=1, width=2))
def log_gauss(
    energy: np.ndarray, amplitude: IntegralFlux = 1e-12, mean: Energy = 0.107, width: Number = 0.776
) -> np.ndarray:
    """Log-normal bump of integral flux ``amplitude``: amplitude / (E w sqrt(2 pi)) exp(-ln(E / mean)^2 / 2 w^2)."""
    z = log_ratio(energy, mean) / width
    return np.asarray(amplitude / (energy * abs(width) * np.sqrt(2 * np.pi)) * np.exp(-(z**2) / 2))
