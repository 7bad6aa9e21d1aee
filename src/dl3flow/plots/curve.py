"""Best-fit spectrum of a source with the band of its statistical error."""

import astropy.units as u
import numpy as np

from dl3flow.data.products import FitResult
from dl3flow.models.source import Parameter
from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.units import DNDE


def spectral_curve(
    result: FitResult, source: str, energy: u.Quantity
) -> tuple[u.Quantity, u.Quantity] | None:
    """Differential flux of a source at the best fit and its standard error by linear propagation.

    Parameters
    ----------
    result : FitResult
    source : str
    energy : Quantity, shape (n,)

    Returns
    -------
    dnde, error : Quantity, shape (n,), cm-2 s-1 TeV-1
        None if the fit has no such source.
    """
    found = next((s for s in result.models.sources if s.name == source), None)
    if found is None:
        return None
    plugin = SPECTRAL_MODELS.find(found.spectral.kind, f"source '{source}'")
    e = energy.to_value(u.TeV)
    parameters = found.spectral.parameters
    units = [plugin.parameters[p.name][0] for p in parameters]
    values = np.array([p.quantity.to_value(unit) for p, unit in zip(parameters, units, strict=True)])
    gradient = plugin.companions.get("gradient")
    rows = gradient(e, *values) if gradient is not None else _differences(plugin.function, e, values)
    jacobian = np.zeros((len(result.free), len(e)))
    for parameter, unit, row in zip(parameters, units, rows, strict=True):
        column = _free_column(result, f"{source}.{parameter.name}", parameter)
        if column is not None:
            jacobian[column] += row * (1 * parameter.unit).to_value(unit)
    variance = (
        np.einsum("ie,ij,je->e", jacobian, result.covariance, jacobian) if result.free else np.zeros(len(e))
    )
    return plugin(e, *values) * DNDE, np.sqrt(np.maximum(variance, 0)) * DNDE


def _free_column(result: FitResult, name: str, parameter: Parameter) -> int | None:
    """Row of the covariance that a parameter moves with: its own, or that of the parameter it is linked to."""
    if name in result.free:
        return result.free.index(name)
    if parameter.link:
        every = result.models.parameters()
        for n, other in enumerate(result.free):
            if other in every and every[other].link == parameter.link:
                return n
    return None


def _differences(function: object, energy: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Central differences, for a model without an analytic gradient."""
    assert callable(function)
    rows = []
    for n, value in enumerate(values):
        # cube root of the machine precision: smallest total error of a central difference
        step = 6e-6 * abs(value) or 6e-6
        up, down = values.copy(), values.copy()
        up[n] += step
        down[n] -= step
        rows.append((function(energy, *up) - function(energy, *down)) / (up[n] - down[n]))
    return np.array(rows)
