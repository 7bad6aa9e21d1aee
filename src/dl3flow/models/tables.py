"""Spectra given as numbers at energies: interpolation in the logarithm of both, and the template spectrum."""

from typing import Annotated

import astropy.units as u
import numpy as np

from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.units import DNDE, ENERGY

Energies = Annotated[np.ndarray, ENERGY]
Fluxes = Annotated[np.ndarray, DNDE]
Numbers = Annotated[np.ndarray, u.dimensionless_unscaled]

# stands for zero in a logarithm, and is taken for zero after it, as the field does
_TINY = float(np.finfo(float).tiny)


def log_or_tiny(values: np.ndarray) -> np.ndarray:
    """Logarithm, with the smallest normal number in place of what is not above it."""
    return np.asarray(np.log(np.maximum(values, _TINY)))


def places(nodes: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the node at the left of each ``x`` and its distance from it in units of the step.

    Beyond the outermost nodes the index is that of the nearest interval, and the fraction below 0 or above 1: a straight
    line continues. A single node is a constant.

    Parameters
    ----------
    nodes : array, shape (m,), increasing
    x : array, any shape

    Returns
    -------
    left : int array, shape of x
    fraction : array, shape of x
    """
    x = np.asarray(x, dtype=float)
    if len(nodes) == 1:
        return np.zeros(x.shape, dtype=int), np.zeros(x.shape)
    left = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    return left, (x - nodes[left]) / (nodes[left + 1] - nodes[left])


def line_through(values: np.ndarray, left: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Values at nodes interpolated at `places`."""
    right = np.minimum(left + 1, len(values) - 1)
    return np.asarray(values[left] * (1 - fraction) + values[right] * fraction)


def check_nodes(energy: np.ndarray, at_least: int) -> str | None:
    """What is wrong with nodes in energy (TeV), in words."""
    if np.ndim(energy) != 1 or np.size(energy) < at_least:
        return f"`energy` has {np.size(energy)} values, and must list at least {at_least}"
    if not (np.isfinite(energy).all() and np.all(np.asarray(energy) > 0) and np.all(np.diff(energy) > 0)):
        return "`energy` must be finite, above 0 and increasing"
    return None


def _check_template(*, energy: np.ndarray, values: np.ndarray) -> str | None:
    if wrong := check_nodes(energy, 1):
        return wrong
    if np.shape(values) != np.shape(energy):
        return f"`values` has {np.size(values)} numbers for {len(energy)} energies, and must have as many"
    if not (np.isfinite(values).all() and np.all(np.asarray(values) >= 0)):
        return "`values` must be finite and not below 0"
    return None


def _template_gradient(at: np.ndarray, *, energy: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.zeros((0, *np.shape(at)))


def _interpolated(at: np.ndarray, energy: np.ndarray, values: np.ndarray) -> np.ndarray:
    found = np.exp(line_through(log_or_tiny(values), *places(np.log(energy), np.log(at))))
    return np.where(found > 2 * _TINY, found, 0.0)


def _template_breaks(*, energy: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(energy)


@SPECTRAL_MODELS.register(
    "TemplateSpectralModel",
    "template",
    gradient=_template_gradient,
    breaks=_template_breaks,
    check=_check_template,
)
def template(at: np.ndarray, *, energy: Energies, values: Fluxes) -> np.ndarray:
    """Differential flux ``values`` at ``energy``, straight between them and beyond in log-log; it has no parameters."""
    return _interpolated(at, energy, values)


@NORM_MODELS.register(
    gradient=_template_gradient, breaks=_template_breaks, check=_check_template, stands_for="template"
)
def template_norm(at: np.ndarray, *, energy: Energies, values: Numbers) -> np.ndarray:
    """Factor ``values`` at ``energy``, straight between them and beyond in log-log; it has no parameters."""
    return _interpolated(at, energy, values)
