"""Compounds: two spectral functions joined by an operator, at any depth."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dl3flow.errors import InputError, choices
from dl3flow.models.source import Component

_Array = Any


class Operator(NamedTuple):
    """What joins two functions.

    Attributes
    ----------
    function : function (first, second) -> array
    by_first, by_second : function (first, second, value) -> array
        Derivatives of the value by the two.
    power : function (first, second) -> int or None
        Power of a flux in the result, from those of the two (1 for a spectrum, 0 for a factor); None if they do not fit.
    rule : str
        What fits, in words.
    """

    function: Callable[[_Array, _Array], _Array]
    by_first: Callable[[_Array, _Array, _Array], _Array]
    by_second: Callable[[_Array, _Array, _Array], _Array]
    power: Callable[[int, int], int | None]
    rule: str


def _same(first: int, second: int) -> int | None:
    return first if first == second else None


def _factor_only(first: int, second: int) -> int | None:
    return 0 if first == second == 0 else None


_LIKE = "two spectra, or two factors"
OPERATORS: Mapping[str, Operator] = {
    "add": Operator(np.add, lambda a, b, v: 1.0, lambda a, b, v: 1.0, _same, _LIKE),
    "sub": Operator(np.subtract, lambda a, b, v: 1.0, lambda a, b, v: -1.0, _same, _LIKE),
    "mul": Operator(np.multiply, lambda a, b, v: b, lambda a, b, v: a, lambda a, b: a + b, "any two"),
    "truediv": Operator(
        np.divide, lambda a, b, v: 1 / b, lambda a, b, v: -v / b, lambda a, b: a - b, "any two"
    ),
    "pow": Operator(
        np.power,
        lambda a, b, v: b * np.power(a, b - 1),
        lambda a, b, v: v * np.log(a),
        _factor_only,
        "two factors",
    ),
}


def find_operator(name: Any, where: str) -> Operator:
    """Operator of that name.

    Raises
    ------
    InputError
        Listing the choices if there is none.
    """
    if name not in OPERATORS:
        raise InputError(f"{where}: unknown operator '{name}': {choices(str(name), OPERATORS)}")
    return OPERATORS[name]


def compound(operator: str, first: Component, second: Component) -> Component:
    """Component that joins two, with the parameters of both; a name that the first has too gets ``_2``, ``_3``..."""
    names: list[str] = [p.name for p in first.parameters]
    renamed = []
    for parameter in second.parameters:
        name, n = parameter.name, 2
        while name in names:
            name, n = f"{parameter.name}_{n}", n + 1
        names.append(name)
        renamed.append(replace(parameter, name=name))
    return Component("compound", (*first.parameters, *renamed), {"operator": operator}, (first, second))


def own_parts(component: Component) -> tuple[Component, ...]:
    """Parts of a compound with the values that the compound has, under their own names."""
    found, start = [], 0
    for part in component.parts:
        stop = start + len(part.parameters)
        own = zip(component.parameters[start:stop], part.parameters, strict=True)
        found.append(replace(part, parameters=tuple(replace(new, name=old.name) for new, old in own)))
        start = stop
    return tuple(found)
