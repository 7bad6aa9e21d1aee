"""Parameter, Component, Source and BackgroundModel: what a fit varies."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import astropy.units as u
import numpy as np


@dataclass(frozen=True)
class Parameter:
    """One number of a model.

    Attributes
    ----------
    name : str
    value, error, min, max : float
        In ``unit``; NaN limits are none.
    unit : unit
        As the user wrote it.
    frozen : bool
        True keeps the value in a fit.
    link : str
        Label that makes all parameters that carry it one; empty for none.
    """

    name: str
    value: float
    unit: u.UnitBase = u.dimensionless_unscaled
    error: float = 0.0
    min: float = np.nan
    max: float = np.nan
    frozen: bool = False
    link: str = ""

    @property
    def quantity(self) -> u.Quantity:
        """Value with its unit."""
        return self.value * self.unit


@dataclass(frozen=True)
class Component:
    """A registered spectral or spatial function with its parameters.

    Attributes
    ----------
    kind : str
        Name in the registry, such as ``power_law``.
    parameters : tuple of Parameter
        In the order of the function's signature.
    options : mapping
        What is not a parameter: the ``frame`` of a spatial model.
    """

    kind: str
    parameters: tuple[Parameter, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)


@dataclass(frozen=True)
class Source:
    """A gamma-ray source: a spectrum at a place, seen by all or some datasets.

    Attributes
    ----------
    name : str
    spectral : Component
    spatial : Component or None
        None for a source that only spectra see, whole.
    datasets : tuple of str, or None
        Names of the datasets that see it; None is all.
    """

    name: str
    spectral: Component
    spatial: Component | None
    datasets: tuple[str, ...] | None = None

    @property
    def components(self) -> tuple[Component, ...]:
        """Spectral part, and spatial part if there is one."""
        return (self.spectral,) if self.spatial is None else (self.spectral, self.spatial)

    def parameter(self, name: str) -> Parameter:
        """Parameter of that name, of either part."""
        return next(p for component in self.components for p in component.parameters if p.name == name)


@dataclass(frozen=True)
class BackgroundModel:
    """Correction of a dataset's background: norm x (energy / reference)^-tilt.

    Attributes
    ----------
    name : str
    spectral : Component
        ``power_law_norm``: norm, tilt, reference.
    datasets : tuple of str, or None
    """

    name: str
    spectral: Component
    datasets: tuple[str, ...] | None = None

    @property
    def components(self) -> tuple[Component, ...]:
        """The spectral part."""
        return (self.spectral,)


@dataclass(frozen=True)
class Models:
    """All that a fit varies: sources and backgrounds, in the order of the file."""

    sources: tuple[Source, ...]
    backgrounds: tuple[BackgroundModel, ...] = ()

    @property
    def all(self) -> tuple[Source | BackgroundModel, ...]:
        """Sources, then backgrounds."""
        return (*self.sources, *self.backgrounds)

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by its full name ``model.parameter``."""
        return {f"{m.name}.{p.name}": p for m in self.all for c in m.components for p in c.parameters}

    def with_parameters(self, changed: Mapping[str, Parameter]) -> "Models":
        """Same models with the named parameters replaced."""

        def component(model: str, old: Component) -> Component:
            return replace(old, parameters=tuple(changed.get(f"{model}.{p.name}", p) for p in old.parameters))

        sources = tuple(
            replace(
                s,
                spectral=component(s.name, s.spectral),
                spatial=None if s.spatial is None else component(s.name, s.spatial),
            )
            for s in self.sources
        )
        backgrounds = tuple(replace(b, spectral=component(b.name, b.spectral)) for b in self.backgrounds)
        return Models(sources, backgrounds)
