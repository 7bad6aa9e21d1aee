"""Norm models: factors on an expected background, or on a spectrum in a compound."""

from collections.abc import Mapping
from typing import Literal

import astropy.units as u
import numpy as np

from dl3flow.kernels.interpolate import hat_matrix
from dl3flow.models.cutoffs import exp_cutoff_gradient, exp_cutoff_power_law
from dl3flow.models.spectral import (
    NORM_MODELS,
    above_zero,
    log_parabola,
    log_parabola_gradient,
    power_law,
    power_law_gradient,
)
from dl3flow.models.tables import Energies, check_nodes, log_or_tiny
from dl3flow.units import Energy, InverseEnergy, Number


@NORM_MODELS.register("ScaleSpectralModel", gradient=lambda energy, norm: np.ones((1, *np.shape(energy))))
def scale(energy: np.ndarray, norm: Number = 1.0) -> np.ndarray:
    """The same factor at all energies."""
    return np.full(np.shape(energy), float(norm))


@NORM_MODELS.register(
    "PowerLawNormSpectralModel",
    "pl-norm",
    gradient=power_law_gradient,
    frozen=("tilt", "reference"),
    order=("tilt", "norm", "reference"),
    check=above_zero(reference=2),
)
def power_law_norm(
    energy: np.ndarray, norm: Number = 1.0, tilt: Number = 0.0, reference: Energy = 1.0
) -> np.ndarray:
    """Factor ``norm`` at ``reference``, falling with energy for a positive ``tilt``."""
    return np.asarray(power_law.function(energy, norm, tilt, reference))


@NORM_MODELS.register(
    "LogParabolaNormSpectralModel",
    "lp-norm",
    gradient=log_parabola_gradient,
    frozen=("reference",),
    check=above_zero(reference=1),
)
def log_parabola_norm(
    energy: np.ndarray,
    norm: Number = 1.0,
    reference: Energy = 10.0,
    alpha: Number = 0.0,
    beta: Number = 0.0,
) -> np.ndarray:
    """Factor ``norm`` at ``reference`` with the shape of a log parabola."""
    return np.asarray(log_parabola.function(energy, norm, reference, alpha, beta))


def _cutoff_norm_gradient(
    energy: np.ndarray, index: float, norm: float, reference: float, lambda_: float, alpha: float
) -> np.ndarray:
    rows = exp_cutoff_gradient(energy, norm, index, reference, lambda_, alpha)
    return rows[[1, 0, 2, 3, 4]]


@NORM_MODELS.register(
    "ExpCutoffPowerLawNormSpectralModel",
    "ecpl-norm",
    gradient=_cutoff_norm_gradient,
    frozen=("reference", "alpha"),
    check=above_zero(reference=2),
)
def exp_cutoff_power_law_norm(
    energy: np.ndarray,
    index: Number = 0.0,
    norm: Number = 1.0,
    reference: Energy = 1.0,
    lambda_: InverseEnergy = 0.1,
    alpha: Number = 1.0,
) -> np.ndarray:
    """Factor with the shape of a power law times exp(-(``lambda_`` energy)^``alpha``)."""
    return np.asarray(exp_cutoff_power_law.function(energy, norm, index, reference, lambda_, alpha))


def _weights(at: np.ndarray, energy: np.ndarray, interp: str) -> np.ndarray:
    """Share of each node in the value at each energy; beyond the outermost nodes theirs is all."""
    nodes, x = (np.log(energy), np.log(at)) if interp == "log" else (np.asarray(energy), np.asarray(at))
    return hat_matrix(nodes, np.clip(x, nodes[0], nodes[-1]), nodes[0], nodes[-1])


def _piecewise_gradient(at: np.ndarray, *norms: float, energy: np.ndarray, interp: str = "log") -> np.ndarray:
    weights = np.moveaxis(_weights(at, energy, interp), -1, 0)
    if interp == "lin":
        return weights
    values = np.array(norms)
    is_used = values > 0
    by_log = np.where(is_used, 1 / np.where(is_used, values, 1.0), 0.0)
    factor = np.exp(np.tensordot(log_or_tiny(values), weights, axes=1))
    return np.asarray(weights * factor * by_log.reshape(-1, *(1,) * np.ndim(at)))


def _piecewise_parameters(
    *, energy: np.ndarray, interp: str = "log"
) -> Mapping[str, tuple[u.UnitBase, float]]:
    return {f"norm_{n}": (u.dimensionless_unscaled, 1.0) for n in range(len(energy))}


def _check_piecewise(*norms: float, energy: np.ndarray, interp: str = "log") -> str | None:
    if wrong := check_nodes(energy, 2):
        return wrong
    negative = next((n for n, norm in enumerate(norms) if not norm > 0), None)
    if interp == "log" and negative is not None:
        return (
            f"`norm_{negative}` is {norms[negative]:g}, and must be above 0 for a logarithmic interpolation"
        )
    return None


def _piecewise_breaks(*norms: float, energy: np.ndarray, interp: str = "log") -> np.ndarray:
    return np.asarray(energy)


@NORM_MODELS.register(
    "PiecewiseNormSpectralModel",
    "piecewise-norm",
    gradient=_piecewise_gradient,
    parameters=_piecewise_parameters,
    breaks=_piecewise_breaks,
    check=_check_piecewise,
)
def piecewise_norm(
    at: np.ndarray, *norms: float, energy: Energies, interp: Literal["log", "lin"] = "log"
) -> np.ndarray:
    """Factor ``norm_0``, ``norm_1``... at the nodes ``energy``, constant beyond them.

    ``interp`` log is straight in the logarithms of energy and factor, lin in themselves.
    """
    weights = _weights(at, energy, interp)
    if interp == "lin":
        return np.asarray(weights @ np.array(norms))
    return np.asarray(np.exp(weights @ log_or_tiny(np.array(norms))))
