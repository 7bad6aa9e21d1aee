"""Which numbers of a fit's free vector feed which model parameters, and in what units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dl3flow.errors import InputError
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Model, Models, full_names


@dataclass(frozen=True, eq=False)
class Binding:
    """One component's parameters in internal units, as a function of the free vector.

    Attributes
    ----------
    plugin : ModelFunction
    start : array, shape (n_par,)
        Values in internal units; what frozen parameters keep.
    slots : int array, shape (n_par,)
        Position in the free vector, -1 for a frozen parameter.
    factors : array, shape (n_par,)
        Internal units per unit of the free vector.
    """

    plugin: ModelFunction
    start: np.ndarray
    slots: np.ndarray
    factors: np.ndarray

    @property
    def is_free(self) -> np.ndarray:
        """True for the parameters that vary."""
        return self.slots >= 0

    def values(self, x: np.ndarray) -> np.ndarray:
        """Parameters in internal units at the free vector ``x``."""
        values = self.start.copy()
        free = self.is_free
        values[free] = x[self.slots[free]] * self.factors[free]
        return values

    def pull(self, by_parameter: np.ndarray, gradient: np.ndarray) -> None:
        """Add derivatives by this component's parameters (internal units) to the gradient by the free vector."""
        free = self.is_free
        np.add.at(gradient, self.slots[free], by_parameter[free] * self.factors[free])


def free_parameters(models: Models) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Names of the free vector's entries, and for every free parameter the position of its entry.

    Parameters that carry one link label share the entry of the first of them.

    Raises
    ------
    InputError
        If linked parameters do not have the same unit.
    """
    names: list[str] = []
    position: dict[str, int] = {}
    labels: dict[str, int] = {}
    for name, parameter in models.parameters().items():
        if parameter.frozen:
            continue
        if parameter.link and parameter.link in labels:
            position[name] = labels[parameter.link]
            leader = names[position[name]]
            if models.parameters()[leader].unit != parameter.unit:
                raise InputError(
                    f"parameters '{leader}' and '{name}' are linked but have different units: give them one"
                )
            continue
        position[name] = len(names)
        if parameter.link:
            labels[parameter.link] = len(names)
        names.append(name)
    return tuple(names), position


def bind(model: Model, part: str, position: Mapping[str, int]) -> Binding:
    """Binding of one part (spectral, spatial, temporal) of a model.

    Raises
    ------
    InputError
        If a value is not finite.
    """
    component = model.parts[part]
    found = resolve(component, part, f"model '{model.name}'")
    start, slots, factors = [], [], []
    for name, parameter, unit in zip(full_names(model)[part], component.parameters, found.units, strict=True):
        factor = float((1.0 * parameter.unit).to_value(unit))
        if not np.isfinite(parameter.value):
            raise InputError(
                f"model '{model.name}': the parameter '{parameter.name}' is {parameter.value}: give it a finite value"
            )
        start.append(parameter.value * factor)
        factors.append(factor)
        slots.append(position.get(name, -1))
    return Binding(found, np.array(start), np.array(slots, dtype=int), np.array(factors))


def for_dataset(name: str, datasets: Sequence[str] | None) -> bool:
    """True if a model restricted to ``datasets`` (None: all) applies to the dataset of that name."""
    return datasets is None or name in datasets
