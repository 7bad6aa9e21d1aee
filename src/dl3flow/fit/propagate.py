"""What follows from a fit with its errors: bands of spectra, integral fluxes, pivot energies, any function of parameters.

Errors are propagated through the correlation matrix and parameters in units of their errors: in the parameters' own
units a covariance holds numbers 20 orders of magnitude apart, and the smallest are lost in decompositions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import astropy.units as u
import numpy as np
from astropy.table import QTable
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from dl3flow.data.products import FitResult, Samples
from dl3flow.errors import InputError, choices
from dl3flow.fit.binding import Binding, bind, free_parameters
from dl3flow.kernels.integrate import gauss_legendre_bins
from dl3flow.units import DNDE, EFLUX, ENERGY, FLUX

Method = Literal["covariance", "samples"]

_N_SAMPLES = 10_000
# part of a Gaussian variable below and above one standard deviation
_QUANTILES = (float(ndtr(-1.0)), float(ndtr(1.0)))
# of differences, in errors of the parameter; the error of the five-point rule is of the fourth power
_STEP = 0.03
_BINS_PER_DECADE = 20
_DECADES_TO_INFINITY = 8
# a last decade with more than this of an integral to infinity is no end
_TAIL = 1e-6
# a search for a pivot energy reaches this far beyond a reference energy where the data's range is not known
_DECADES_AROUND = 3
_N_PIVOT = 200


@dataclass(frozen=True, eq=False)
class Derived:
    """Quantities that follow from fitted parameters.

    Attributes
    ----------
    value : Quantity, shape (...)
        At the best fit.
    errn, errp : Quantity, shape (...)
        Distances (both positive) to the ends of the 68 % interval; equal by linear propagation.
    covariance : array, shape (n, n)
        Of the flattened values, in their unit squared.
    """

    value: u.Quantity
    errn: u.Quantity
    errp: u.Quantity
    covariance: np.ndarray

    @property
    def error(self) -> u.Quantity:
        """Standard deviation."""
        return np.sqrt(np.diag(self.covariance)).reshape(self.value.shape) * self.value.unit


def derived(
    result: FitResult,
    function: Callable[[Mapping[str, u.Quantity]], Any],
    method: Method = "covariance",
    n_samples: int = _N_SAMPLES,
    seed: int = 0,
    samples: Samples | None = None,
) -> Derived:
    """Any function of a fit's parameters, with correlated errors.

    Parameters
    ----------
    result : FitResult
    function : function (mapping of Quantity by full name) -> number, array or Quantity
        Such as ``lambda p: p["crab.amplitude"] * p["crab.index"]``.
    method : 'covariance' or 'samples'
        Linear propagation by differences of the function over a small part of each error, or draws from the Gaussian of
        the covariance within the parameters' limits.
    n_samples, seed : int
        Of the draws.
    samples : Samples or None
        Of a posterior, in place of draws from a Gaussian.

    Raises
    ------
    InputError
        If the covariance is not finite, or hardly any draw lies within the limits.
    """
    best = _best_vector(result)
    at = u.Quantity(function(_parameters_at(result, best)))

    def values(x: np.ndarray) -> np.ndarray:
        return np.ravel(u.Quantity(function(_parameters_at(result, x))).to_value(at.unit))

    if method == "covariance" and samples is None:
        jacobian = _differences(values, best, _errors(result), at.size)
        return _linear(result, at, jacobian)
    return _sampled(at, np.array([values(x) for x in draw(result, n_samples, seed, samples)]))


def error_band(
    result: FitResult,
    source: str,
    energy: u.Quantity,
    method: Method = "covariance",
    n_samples: int = _N_SAMPLES,
    seed: int = 0,
    samples: Samples | None = None,
) -> Derived:
    """Differential flux of a source at the best fit with its 68 % band.

    Parameters
    ----------
    result : FitResult
    source : str
    energy : Quantity, shape (n,)
    method, n_samples, seed, samples
        As in `derived`; linear propagation is by the model's analytic gradient where it has one.

    Returns
    -------
    band : Derived, shape (n,), cm-2 s-1 TeV-1

    Raises
    ------
    InputError
        If the fit has no such source, or as in `derived`.
    """
    binding = _spectrum(result, source)
    e = np.atleast_1d(energy.to_value(ENERGY))
    return _propagated(result, binding, e, np.eye(len(e)), DNDE, method, n_samples, seed, samples)


def integral_flux(
    result: FitResult,
    source: str,
    low: u.Quantity,
    high: u.Quantity | None = None,
    method: Method = "covariance",
    n_samples: int = _N_SAMPLES,
    seed: int = 0,
    samples: Samples | None = None,
) -> Derived:
    """Photon flux of a source between two energies, or above one.

    Parameters
    ----------
    result : FitResult
    source : str
    low : Quantity
    high : Quantity or None
        None is infinity.
    method, n_samples, seed, samples
        As in `error_band`.

    Returns
    -------
    flux : Derived, scalar, cm-2 s-1

    Raises
    ------
    InputError
        If the energies are in no order, the integral to infinity does not converge, or as in `error_band`.
    """
    return _integral(result, source, low, high, 0, FLUX, method, n_samples, seed, samples)


def energy_flux(
    result: FitResult,
    source: str,
    low: u.Quantity,
    high: u.Quantity | None = None,
    method: Method = "covariance",
    n_samples: int = _N_SAMPLES,
    seed: int = 0,
    samples: Samples | None = None,
) -> Derived:
    """Energy flux of a source between two energies, or above one, in TeV cm-2 s-1; as `integral_flux`."""
    return _integral(result, source, low, high, 1, EFLUX, method, n_samples, seed, samples)


def pivot_energy(
    result: FitResult, source: str, low: u.Quantity | None = None, high: u.Quantity | None = None
) -> u.Quantity:
    """Energy at which a source's flux has its smallest relative error.

    For a power law where amplitude and index are not correlated: reference x exp(cov(amplitude, index) / (amplitude
    var(index))); for other spectra the smallest relative error within ``low`` and ``high``.

    Parameters
    ----------
    result : FitResult
    source : str
    low, high : Quantity or None
        Range of the search; None is that of the fit's datasets.

    Returns
    -------
    energy : Quantity
        NaN where the relative error is the same, or zero, at all energies: fewer than two free spectral parameters.
    """
    binding = _spectrum(result, source)
    free = np.unique(binding.slots[binding.is_free])
    free = free[np.diag(result.covariance)[free] > 0]
    if len(free) < 2:
        return np.nan * ENERGY
    if binding.plugin.name == "power_law" and len(free) == 2 and binding.slots[2] < 0:
        (amplitude, _, reference), (a, g, _) = binding.start, binding.slots
        covariance = result.covariance[np.ix_((a, g), (a, g))] * np.outer(
            binding.factors[:2], binding.factors[:2]
        )
        return reference * np.exp(covariance[0, 1] / (amplitude * covariance[1, 1])) * ENERGY
    root = _root(result)

    def relative_error(log_energy: float | np.ndarray) -> np.ndarray:
        e = np.exp(np.atleast_1d(log_energy))
        jacobian = _jacobian(result, binding, e)
        spread = np.sqrt(((root.T @ jacobian) ** 2).sum(axis=0))
        return np.asarray(spread / np.abs(_evaluate(binding, binding.start, e)))

    first, last = np.log(_search_range(result, binding, low, high))
    grid = np.linspace(first, last, _N_PIVOT)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        errors = np.nan_to_num(relative_error(grid), nan=np.inf)
    k = int(np.argmin(errors))
    ends = grid[max(k - 1, 0)], grid[min(k + 1, _N_PIVOT - 1)]
    found = minimize_scalar(
        lambda x: float(relative_error(x)[0]), bounds=ends, method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(found.x)) * ENERGY


def fitted_range(result: FitResult, source: str) -> u.Quantity:
    """Lowest and highest energy of the fit's counts; of a fit without any, decades around the reference energy."""
    return _known_range(result, _spectrum(result, source)) * ENERGY


def butterfly_table(
    result: FitResult,
    source: str,
    energy: u.Quantity,
    method: Method = "covariance",
    n_samples: int = _N_SAMPLES,
    seed: int = 0,
    samples: Samples | None = None,
) -> QTable:
    """Best-fit spectrum of a source with its 68 % band.

    Returns
    -------
    table : QTable
        energy, dnde, dnde_err (standard deviation), dnde_errn and dnde_errp (to the ends of the 68 % interval).
    """
    band = error_band(result, source, energy, method, n_samples, seed, samples)
    columns = {"dnde": band.value, "dnde_err": band.error, "dnde_errn": band.errn, "dnde_errp": band.errp}
    return QTable({"energy": energy.to(ENERGY), **columns})


def draw(result: FitResult, n_samples: int, seed: int, samples: Samples | None = None) -> np.ndarray:
    """Free vectors drawn from the Gaussian of a fit's covariance, without those outside a parameter's limits.

    Parameters
    ----------
    result : FitResult
    n_samples, seed : int
    samples : Samples or None
        Of a posterior of the same parameters; its vectors in place of draws.

    Returns
    -------
    x : array, shape (n_samples, n_free)

    Raises
    ------
    InputError
        If hardly any draw lies within the limits, or samples lack a parameter.
    """
    if samples is not None:
        if missing := [name for name in result.free if name not in samples.names]:
            raise InputError(
                f"the samples have no parameter '{missing[0]}' {choices(missing[0], samples.names)}: draw them from this fit"
            )
        return np.asarray(samples.values[:, [samples.names.index(name) for name in result.free]])
    random = np.random.default_rng(seed)
    best, root = _best_vector(result), _root(result)
    parameters = [result.parameter(name) for name in result.free]
    # a fit that ended on a limit has half of its Gaussian there
    low = np.array([-np.inf if np.isnan(p.min) else p.min for p in parameters])
    high = np.array([np.inf if np.isnan(p.max) else p.max for p in parameters])
    found: list[np.ndarray] = []
    for _ in range(100):
        x = best + random.standard_normal((n_samples, len(best))) @ root.T
        found.append(x[np.all((x >= low) & (x <= high), axis=1)])
        if sum(map(len, found)) >= n_samples:
            return np.concatenate(found)[:n_samples]
    raise InputError(
        "less than one in a hundred draws from the covariance lies within the limits of the parameters: "
        "sample the posterior in its place"
    )


def _linear(result: FitResult, at: u.Quantity, jacobian: np.ndarray) -> Derived:
    """Linear propagation; ``jacobian`` has one row per free parameter and one column per value."""
    spread = _root(result).T @ jacobian
    covariance = spread.T @ spread
    error = np.sqrt(np.diag(covariance)).reshape(at.shape) * at.unit
    return Derived(at, error, error, covariance)


def _sampled(at: u.Quantity, values: np.ndarray) -> Derived:
    low, high = np.quantile(values, _QUANTILES, axis=0)
    best = np.ravel(at.value)
    # of a skew distribution the best fit may lie outside the interval
    errn, errp = (np.maximum(d, 0.0).reshape(at.shape) * at.unit for d in (best - low, high - best))
    scale = np.maximum(np.abs(values).max(axis=0), np.finfo(float).tiny)
    covariance = np.atleast_2d(np.cov(values / scale, rowvar=False)) * np.outer(scale, scale)
    return Derived(at, errn, errp, covariance)


def _root(result: FitResult) -> np.ndarray:
    """Matrix R with covariance = R R^T, from the eigenvectors of the correlation matrix."""
    if not np.all(np.isfinite(result.covariance)):
        raise InputError("the fit's covariance is not finite, so no error follows from it: repair the fit")
    sigma = _errors(result)
    safe = np.where(sigma > 0, sigma, 1.0)
    correlation = result.covariance / safe[:, None] / safe
    eigenvalues, vectors = np.linalg.eigh(0.5 * (correlation + correlation.T))
    return np.asarray(sigma[:, None] * vectors * np.sqrt(np.maximum(eigenvalues, 0.0)))


def _errors(result: FitResult) -> np.ndarray:
    return np.sqrt(np.maximum(np.diag(result.covariance), 0.0))


def _best_vector(result: FitResult) -> np.ndarray:
    return np.array([result.parameter(name).value for name in result.free])


def _positions(result: FitResult) -> dict[str, int]:
    """Row of the covariance that each free parameter moves with, its own or that of the one it is linked to."""
    names, position = free_parameters(result.models)
    return {name: result.free.index(names[k]) for name, k in position.items() if names[k] in result.free}


def _parameters_at(result: FitResult, x: np.ndarray) -> dict[str, u.Quantity]:
    positions = _positions(result)
    return {
        name: (x[positions[name]] if name in positions else p.value) * p.unit
        for name, p in result.models.parameters().items()
    }


def _spectrum(result: FitResult, source: str) -> Binding:
    for found in result.models.sources:
        if found.name == source:
            return bind(found, "spectral", _positions(result))
    names = [s.name for s in result.models.sources]
    raise InputError(f"no source '{source}' in the fit {choices(source, names)}")


def _evaluate(binding: Binding, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
    return np.asarray(binding.plugin.function(energy, *values), dtype=float)


def _jacobian(result: FitResult, binding: Binding, energy: np.ndarray) -> np.ndarray:
    """Derivatives of a spectrum by the free vector, shape (n_free, n_energy)."""
    gradient = binding.plugin.companions.get("gradient")
    if gradient is None:
        best = _best_vector(result)
        return _differences(
            lambda x: _evaluate(binding, binding.values(x), energy), best, _errors(result), len(energy)
        )
    rows = np.asarray(gradient(energy, *binding.start))
    jacobian = np.zeros((len(result.free), len(energy)))
    free = binding.is_free
    np.add.at(jacobian, binding.slots[free], rows[free] * binding.factors[free, None])
    return jacobian


def _differences(
    function: Callable[[np.ndarray], np.ndarray], best: np.ndarray, errors: np.ndarray, size: int
) -> np.ndarray:
    """Derivatives by five-point differences, shape (n_free, size); zero for parameters without an error."""
    jacobian = np.zeros((len(best), size))
    for k in np.flatnonzero(errors > 0):
        step = np.zeros(len(best))
        step[k] = _STEP * errors[k]
        near, far = (function(best + n * step) - function(best - n * step) for n in (1, 2))
        jacobian[k] = (8 * near - far) / (12 * step[k])
    return jacobian


def _propagated(
    result: FitResult,
    binding: Binding,
    energy: np.ndarray,
    weights: np.ndarray,
    unit: u.UnitBase,
    method: Method,
    n_samples: int,
    seed: int,
    samples: Samples | None,
) -> Derived:
    """Sums of a spectrum at ``energy`` with ``weights``, shape (n_energy, n), and their errors."""
    at = _evaluate(binding, binding.start, energy) @ weights * unit
    if method == "covariance" and samples is None:
        return _linear(result, at, _jacobian(result, binding, energy) @ weights)
    drawn = draw(result, n_samples, seed, samples)
    return _sampled(at, np.array([_evaluate(binding, binding.values(x), energy) @ weights for x in drawn]))


def _integral(
    result: FitResult,
    source: str,
    low: u.Quantity,
    high: u.Quantity | None,
    power: int,
    unit: u.UnitBase,
    method: Method,
    n_samples: int,
    seed: int,
    samples: Samples | None,
) -> Derived:
    binding = _spectrum(result, source)
    start = float(low.to_value(ENERGY))
    is_open = high is None or not np.isfinite(high)
    end = start * 10**_DECADES_TO_INFINITY if high is None or is_open else float(high.to_value(ENERGY))
    if not 0 < start < end:
        raise InputError(f"no flux of '{source}' from {low} to {high}: give two energies in increasing order")
    n_bins = max(int(np.ceil(_BINS_PER_DECADE * np.log10(end / start))), 1)
    points, widths = gauss_legendre_bins(np.geomspace(start, end, n_bins + 1))
    energy, weights = points.ravel(), (widths * points**power).ravel()
    if is_open:
        parts = weights * _evaluate(binding, binding.start, energy)
        if not abs(parts[energy > end / 10].sum()) <= _TAIL * abs(parts.sum()):
            raise InputError(
                f"the flux of '{source}' above {low} has no end for this spectrum: give the upper energy too"
            )
    found = _propagated(result, binding, energy, weights[:, None], unit, method, n_samples, seed, samples)
    return Derived(found.value[0], found.errn[0], found.errp[0], found.covariance)


def _search_range(
    result: FitResult, binding: Binding, low: u.Quantity | None, high: u.Quantity | None
) -> tuple[float, float]:
    known = _known_range(result, binding)
    ends = (
        known[0] if low is None else float(low.to_value(ENERGY)),
        known[1] if high is None else float(high.to_value(ENERGY)),
    )
    if not 0 < ends[0] < ends[1]:
        raise InputError(f"no pivot energy from {low} to {high}: give two energies in increasing order")
    return ends


def _known_range(result: FitResult, binding: Binding) -> tuple[float, float]:
    edges = [d.energy_edges.to_value(ENERGY) for d in result.datasets if len(d.energy_edges) > 1]
    if edges:
        return min(float(e[0]) for e in edges), max(float(e[-1]) for e in edges)
    values = zip(binding.start, binding.plugin.units, strict=True)
    reference = next((float(v) for v, unit in values if unit == ENERGY and v > 0), 1.0)
    return reference * 10.0**-_DECADES_AROUND, reference * 10.0**_DECADES_AROUND


def spectral_numbers(
    result: FitResult, thresholds: u.Quantity | None = None
) -> dict[str, dict[str, Derived]]:
    """What a table of a fit's results says of each spectrum beside its parameters.

    Parameters
    ----------
    result : FitResult
    thresholds : Quantity, shape (n,), or None
        Lowest energies of integral fluxes; None is the lowest energy of the fit's counts.

    Returns
    -------
    numbers : dict by name of source
        ``pivot energy`` (without an error), and for each threshold ``flux, LOW to HIGH TeV`` and ``energy flux, ...``, up
        to the highest energy of the fit's counts. Sources without a free spectral parameter, or whose spectrum has no finite
        flux, are left out.
    """
    numbers: dict[str, dict[str, Derived]] = {}
    for source in result.models.sources:
        binding = _spectrum(result, source.name)
        if not binding.is_free.any():
            continue
        low, high = fitted_range(result, source.name)
        own: dict[str, Derived] = {}
        pivot = pivot_energy(result, source.name)
        if np.isfinite(pivot):
            none = np.zeros(()) * ENERGY
            own["pivot energy"] = Derived(pivot, none, none, np.zeros((1, 1)))
        for threshold in [low] if thresholds is None else [t for t in thresholds if t < high]:
            above = f"{threshold.to_value(ENERGY):.3g} to {high.to_value(ENERGY):.3g} TeV"
            for name, integral in (("flux", integral_flux), ("energy flux", energy_flux)):
                found = integral(result, source.name, threshold, high)
                if np.isfinite(found.value):
                    own[f"{name}, {above}"] = found
        numbers[source.name] = own
    return numbers
