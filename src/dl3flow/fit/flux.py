"""Flux of a source in true-energy bins, or at energies, with its first and second derivatives by the free vector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dl3flow.fit.binding import Binding
from dl3flow.kernels.integrate import gauss_legendre_bins
from dl3flow.models.resolve import ModelFunction

# relative steps of central differences: of an analytic gradient, and of a function for first and second derivatives
_GRADIENT_STEP, _STEP, _CURVATURE_STEP = 1e-4, 1e-5, 1e-3


@dataclass(frozen=True, eq=False)
class Varied:
    """An array that depends on some entries of the free vector.

    Attributes
    ----------
    slots : int array, shape (n,)
        Entries of the free vector, each once.
    value : array, shape (...)
    gradient : array, shape (n, ...)
    second : function () -> array, shape (n, n, ...)
        Second derivatives, made when they are asked for.
    """

    slots: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    second: Callable[[], np.ndarray]

    @cached_property
    def curvature(self) -> np.ndarray:
        """Second derivatives."""
        return self.second()


VariedFunction = Callable[[np.ndarray], Varied]


def vary_function(
    binding: Binding, function: Callable[..., np.ndarray], gradient: Callable[..., np.ndarray] | None
) -> VariedFunction:
    """Function of the free vector from one of a component's parameters.

    Second derivatives are central differences of the gradient, which is one of the function where none is given.

    Parameters
    ----------
    binding : Binding
    function : function (*values) -> array
    gradient : function (*values) -> array, shape (n_par, ...), or None
    """
    free = np.flatnonzero(binding.is_free)
    slots, to_slot = shared_slots(binding)

    def derivative(values: np.ndarray, step: float) -> np.ndarray:
        if gradient is not None:
            return np.asarray(gradient(*values))[free]
        return _differences(lambda v: np.asarray(function(*v)), values, free, step)

    def varied(x: np.ndarray) -> Varied:
        values = binding.values(x)
        at = np.asarray(function(*values))
        if not len(free):
            return Varied(slots, at, np.zeros((0, *at.shape)), lambda: np.zeros((0, 0, *at.shape)))
        by_own = derivative(values, _STEP)

        def curvature() -> np.ndarray:
            step = _GRADIENT_STEP if gradient is not None else _CURVATURE_STEP
            second = _differences(lambda v: derivative(v, step), values, free, step)
            second = 0.5 * (second + second.swapaxes(0, 1))
            return np.tensordot(to_slot, np.tensordot(to_slot, second, (1, 1)), (1, 1))

        return Varied(slots, at, np.tensordot(to_slot, by_own, 1), curvature)

    return varied


def shared_slots(binding: Binding) -> tuple[np.ndarray, np.ndarray]:
    """Entries of the free vector that a binding depends on, each once, and d(free parameter)/d(entry), shape (n, n_free)."""
    free = np.flatnonzero(binding.is_free)
    slots, inverse = np.unique(binding.slots[free], return_inverse=True)
    to_slot = np.zeros((len(slots), len(free)))
    to_slot[inverse, np.arange(len(free))] = binding.factors[free]
    return slots, to_slot


def _differences(
    function: Callable[[np.ndarray], np.ndarray], values: np.ndarray, which: np.ndarray, step: float
) -> np.ndarray:
    """Central differences of ``function`` by the chosen values, along a new first axis."""
    rows = []
    for k in which:
        shift = np.zeros(len(values))
        shift[k] = step * (abs(values[k]) if values[k] != 0 else 1.0)
        rows.append((function(values + shift) - function(values - shift)) / (2 * shift[k]))
    return np.array(rows)


def build_bin_flux(
    binding: Binding, edges: np.ndarray, energy_scale: Binding | None = None
) -> VariedFunction:
    """Integral flux in bins, cm-2 s-1.

    Parameters
    ----------
    binding : Binding
        Of a spectral component.
    edges : array, shape (n_true + 1,), TeV
    energy_scale : Binding, optional
        z, by which photons are taken for ones of (1 + z) times their energy: the spectrum S(E) is seen as
        S(E / (1 + z)) / (1 + z). Nigro et al. (2019), equation 4.
    """
    points, weights = gauss_legendre_bins(edges)
    return _build(binding, edges, points, weights, energy_scale)


def build_point_flux(
    binding: Binding, energy: np.ndarray, energy_scale: Binding | None = None
) -> VariedFunction:
    """Differential flux at energies (TeV), cm-2 s-1 TeV-1."""
    # a bin of one point with the weight one is that point
    return _build(binding, None, energy[:, None], np.ones((len(energy), 1)), energy_scale)


def _build(
    binding: Binding,
    edges: np.ndarray | None,
    points: np.ndarray,
    weights: np.ndarray,
    energy_scale: Binding | None,
) -> VariedFunction:
    model = binding.plugin
    analytic = model.companions.get("gradient")
    nodes = _kinked_nodes(model, edges) if edges is not None and "breaks" in model.companions else None

    def sums(of: Callable[..., np.ndarray], values: Sequence[float], z: float = 0.0) -> np.ndarray:
        p, w, first = (points, weights, None) if nodes is None else nodes(values, 1 + z)
        per_bin = (w * of(p / (1 + z), *values)).sum(axis=-1) / (1 + z)
        return np.asarray(per_bin if first is None else np.add.reduceat(per_bin, first, axis=-1))

    if energy_scale is None:
        return vary_function(
            binding,
            lambda *v: sums(model.function, v),
            None if analytic is None else lambda *v: sums(analytic, v),
        )
    joined = Binding(
        model,
        np.append(binding.start, energy_scale.start),
        np.append(binding.slots, energy_scale.slots),
        np.append(binding.factors, energy_scale.factors),
    )

    def function(*v: float) -> np.ndarray:
        return sums(model.function, v[:-1], v[-1])

    def gradient(*v: float) -> np.ndarray:
        by_z = (function(*v[:-1], v[-1] + _STEP) - function(*v[:-1], v[-1] - _STEP)) / (2 * _STEP)
        assert analytic is not None
        return np.concatenate([sums(analytic, v[:-1], v[-1]), by_z[None]])

    return vary_function(joined, function, None if analytic is None else gradient)


def _kinked_nodes(
    model: ModelFunction, edges: np.ndarray
) -> Callable[[Sequence[float], float], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Points and weights on bins divided where the model has kinks, and the first part of each bin."""

    def nodes(values: Sequence[float], stretch: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        breaks = np.asarray(model.companions["breaks"](*values), dtype=float) * stretch
        inside = breaks[(breaks > edges[0] * (1 + 1e-9)) & (breaks < edges[-1] * (1 - 1e-9))]
        fine = np.union1d(edges, inside)
        return *gauss_legendre_bins(fine), np.searchsorted(fine, edges[:-1])

    return nodes


def scaled(flux: Varied, factor: Varied) -> Varied:
    """Product of an array and a number that both vary."""
    slots = np.union1d(flux.slots, factor.slots)
    a, b = (np.searchsorted(slots, part.slots) for part in (flux, factor))
    shape = flux.value.shape
    gradient = np.zeros((len(slots), *shape))
    gradient[a] += flux.gradient * factor.value
    by_factor = factor.gradient.reshape(-1, *([1] * len(shape)))
    gradient[b] += by_factor * flux.value

    def curvature() -> np.ndarray:
        second = np.zeros((len(slots), len(slots), *shape))
        second[np.ix_(a, a)] += flux.curvature * factor.value
        second[np.ix_(b, b)] += factor.curvature.reshape(len(b), len(b), *([1] * len(shape))) * flux.value
        mixed = flux.gradient[:, None] * by_factor[None]
        second[np.ix_(a, b)] += mixed
        second[np.ix_(b, a)] += mixed.swapaxes(0, 1)
        return second

    return Varied(slots, flux.value * factor.value, gradient, curvature)
