"""A component as one function of its parameters: the registered function with the component's options bound to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.errors import InputError
from dl3flow.models import cutoffs, ebl, norms, references, tables, temporal_by_energy, temporal_templates
from dl3flow.models.compound import find_operator
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
# imported for what they register: the code that a fit may run
_FILES = (cutoffs, ebl, norms, references, tables, temporal_by_energy, temporal_templates)


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
    found = next((r for r in registries if component.kind in r), registries[0])
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
        For an unknown kind or operator, or a compound of what cannot be combined.
    """
    if component.kind == "compound":
        if flux_power(component, where) not in (0, 1):
            raise InputError(
                f"{where}: the compound is neither a flux nor a factor: multiply spectra by norm models only"
            )
        return _resolve_compound(component, part, where)
    return _resolve_one(component, part, where)


def flux_power(component: Component, where: str) -> int:
    """Power of a differential flux in what a spectral component returns: 1 for a spectrum, 0 for a factor.

    Raises
    ------
    InputError
        For an unknown kind or operator, or a compound of what cannot be combined.
    """
    if component.kind != "compound":
        return int(component.kind not in NORM_MODELS.names())
    name = component.options.get("operator")
    operator = find_operator(name, where)
    if len(component.parts) != 2:
        raise InputError(f"{where}: a compound has {len(component.parts)} parts: give it two")
    power = operator.power(*(flux_power(p, where) for p in component.parts))
    if power is None:
        first, second = (p.kind for p in component.parts)
        raise InputError(
            f"{where}: the operator '{name}' cannot join '{first}' and '{second}', a flux and a factor: it takes {operator.rule}"
        )
    return power


def _resolve_compound(component: Component, part: str, where: str) -> ModelFunction:
    found = (_resolve_compound if p.kind == "compound" else _resolve_one for p in component.parts)
    return _combined(component, [f(p, part, where) for f, p in zip(found, component.parts, strict=True)])


def _resolve_one(component: Component, part: str, where: str) -> ModelFunction:
    plugin = find_model(component, part, where)
    options = _bound(plugin, component.options)
    return ModelFunction(
        plugin.name,
        partial(plugin.function, **options) if options else plugin.function,
        tuple(unit for unit, _ in parameters_of(plugin, component.options).values()),
        {k: _with_options(k, v, options) for k, v in plugin.companions.items()},
    )


def _with_options(name: str, companion: Any, options: dict[str, Any]) -> Any:
    if not callable(companion):
        return companion
    # a fact that the options decide, not a function of the parameters
    return companion(**options) if name == "by_energy" else partial(companion, **options)


def _bound(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in plugin.options}


def _combined(component: Component, parts: list[ModelFunction]) -> ModelFunction:
    """Two functions of energy joined by an operator; values are those of the first, then those of the second."""
    first, second = parts
    n = len(first.units)
    operator = find_operator(component.options.get("operator"), "compound")

    def function(energy: np.ndarray, *values: float) -> np.ndarray:
        return np.asarray(
            operator.function(first.function(energy, *values[:n]), second.function(energy, *values[n:]))
        )

    def gradient(energy: np.ndarray, *values: float) -> np.ndarray:
        one, other = first.function(energy, *values[:n]), second.function(energy, *values[n:])
        value = operator.function(one, other)
        by_first = first.companions["gradient"](energy, *values[:n])
        by_second = second.companions["gradient"](energy, *values[n:])
        # without parameters there is no derivative, and the rule may not exist, as that of a power of a negative number
        if len(by_first):
            by_first = by_first * operator.by_first(one, other, value)
        if len(by_second):
            by_second = by_second * operator.by_second(one, other, value)
        return np.concatenate([by_first, by_second])

    def told(name: str, values: tuple[float, ...]) -> list[tuple[str, Any]]:
        pairs = zip(parts, (values[:n], values[n:]), strict=True)
        return [(p.name, p.companions[name](*v)) for p, v in pairs if name in p.companions]

    def breaks(*values: float) -> np.ndarray:
        found = [energies for _, energies in told("breaks", values)]
        return np.unique(np.concatenate(found)) if found else np.zeros(0)

    def check(*values: float) -> str | None:
        wrong = [w if name == "compound" else f"of '{name}', {w}" for name, w in told("check", values) if w]
        return wrong[0] if wrong else None

    own: dict[str, Any] = {"breaks": breaks, "check": check}
    companions = {name: f for name, f in own.items() if any(name in p.companions for p in parts)}
    if all("gradient" in p.companions for p in parts):
        companions["gradient"] = gradient
    return ModelFunction("compound", function, (*first.units, *second.units), companions)
