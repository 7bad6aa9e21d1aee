"""A component as one function of its parameters: the registered function with the component's options bound to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.models.source import Component
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.models.temporal import TEMPORAL_MODELS
from dl3flow.registry import Plugin, Registry

_REGISTRIES: Mapping[str, tuple[Registry, ...]] = {
    "spectral": (SPECTRAL_MODELS, NORM_MODELS),
    "spatial": (SPATIAL_MODELS,),
    "temporal": (TEMPORAL_MODELS,),
}
_OPERATORS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
}


@dataclass(frozen=True, eq=False)
class ModelFunction:
    """A function of positions (energies, directions or times) and parameter values, in internal units.

    Attributes
    ----------
    name : str
        In its registry.
    function : function (*positions, *values) -> array
    units : tuple of unit
        Internal unit of each parameter.
    companions : mapping
        As registered, with the options bound to those that are functions; ``gradient`` has the arguments of ``function``
        and returns one row per parameter.
    """

    name: str
    function: Callable[..., Any]
    units: tuple[u.UnitBase, ...]
    companions: Mapping[str, Any]


def find_model(component: Component, part: str, where: str) -> Plugin:
    """Registered function of a component that is the ``part`` (spectral, spatial, temporal) of a model.

    Raises
    ------
    InputError
        Listing the choices if there is none.
    """
    registries = _REGISTRIES[part]
    found = next((r for r in registries if component.kind in r.names()), registries[0])
    return found.find(component.kind, where)


def parameters_of(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, tuple[u.UnitBase, Any]]:
    """Internal unit and default of each parameter; of a model with as many as it has nodes, its companion says them."""
    by_options = plugin.companions.get("parameters")
    return dict(by_options(**_bound(plugin, options))) if by_options else plugin.parameters


def resolve(component: Component, part: str, where: str) -> ModelFunction:
    """Function of a component.

    Parameters
    ----------
    component : Component
    part : str
        spectral, spatial or temporal.
    where : str
        What an error names.

    Raises
    ------
    InputError
        For an unknown kind.
    """
    if component.kind == "compound":
        return _combined(component, [resolve(p, part, where) for p in component.parts])
    plugin = find_model(component, part, where)
    options = _bound(plugin, component.options)
    return ModelFunction(
        plugin.name,
        partial(plugin.function, **options) if options else plugin.function,
        tuple(unit for unit, _ in parameters_of(plugin, component.options).values()),
        {k: partial(v, **options) if options and callable(v) else v for k, v in plugin.companions.items()},
    )


def _bound(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in plugin.options}


def _combined(component: Component, parts: list[ModelFunction]) -> ModelFunction:
    """Two functions of energy joined by an operator; values are those of the first, then those of the second."""
    first, second = parts
    n, name = len(first.units), str(component.options["operator"])
    operator = _OPERATORS[name]

    def function(energy: np.ndarray, *values: float) -> np.ndarray:
        return np.asarray(operator(first.function(energy, *values[:n]), second.function(energy, *values[n:])))

    def gradient(energy: np.ndarray, *values: float) -> np.ndarray:
        one, other = (p.companions["gradient"] for p in parts)
        by_first, by_second = one(energy, *values[:n]), other(energy, *values[n:])
        if name == "mul":
            by_first = by_first * second.function(energy, *values[n:])
            by_second = by_second * first.function(energy, *values[:n])
        return np.concatenate([by_first, -by_second if name == "sub" else by_second])

    is_analytic = all("gradient" in p.companions for p in parts)
    return ModelFunction(
        "compound", function, (*first.units, *second.units), {"gradient": gradient} if is_analytic else {}
    )
