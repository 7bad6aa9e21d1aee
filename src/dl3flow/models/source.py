"""Parameter, Component, Source, BackgroundModel and ResponseModel: what a fit varies."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import astropy.units as u
import numpy as np


@dataclass(frozen=True)
class Prior:
    """What is known of a parameter beforehand: -2 ln of it is added to the statistic of a fit.

    Attributes
    ----------
    kind : str
        Name in the registry of priors, such as ``gaussian``.
    values : mapping of float
        Its own parameters, in the unit of the parameter that it is for.
    weight : float
    """

    kind: str
    values: Mapping[str, float]
    weight: float = 1.0


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
    prior : Prior or None
    """

    name: str
    value: float
    unit: u.UnitBase = u.dimensionless_unscaled
    error: float = 0.0
    min: float = np.nan
    max: float = np.nan
    frozen: bool = False
    link: str = ""
    prior: Prior | None = None

    @property
    def quantity(self) -> u.Quantity:
        """Value with its unit."""
        return self.value * self.unit


@dataclass(frozen=True)
class Component:
    """A registered spectral, spatial or temporal function with its parameters.

    Attributes
    ----------
    kind : str
        Name in the registry, such as ``power_law``; ``compound`` for several spectral functions combined.
    parameters : tuple of Parameter
        In the order of the function's signature; of a compound, those of all its parts in their order, with names of
        their own (a name that an earlier part has too gets ``_2``).
    options : mapping
        What is not a parameter: the ``frame`` of a spatial model, the nodes of a template, the operator of a compound.
    parts : tuple of Component
        What a compound combines; their values are those in ``parameters``.
    """

    kind: str
    parameters: tuple[Parameter, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple["Component", ...] = ()

    def __getitem__(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)


@dataclass(frozen=True)
class Source:
    """A gamma-ray source: a spectrum at a place and in time, seen by all or some datasets.

    Attributes
    ----------
    name : str
    spectral : Component
    spatial : Component or None
        None for a source that only spectra see, whole.
    datasets : tuple of str, or None
        Names of the datasets that see it; None is all.
    temporal : Component or None
        Factor on the flux in time; None is steady.
    without_irf : tuple of str
        Responses that are not applied to it, of ``exposure``, ``psf`` and ``edisp``.
    """

    name: str
    spectral: Component
    spatial: Component | None
    datasets: tuple[str, ...] | None = None
    temporal: Component | None = None
    without_irf: tuple[str, ...] = ()

    @cached_property
    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        """See the function of that name."""
        return _full_names(self)

    @property
    def parts(self) -> Mapping[str, Component]:
        """Spectral part, and spatial and temporal part if there are any, by those names."""
        found = {"spectral": self.spectral, "spatial": self.spatial, "temporal": self.temporal}
        return {name: part for name, part in found.items() if part is not None}

    def parameter(self, name: str) -> Parameter:
        """Parameter by its name without the source's."""
        return _own(self)[name]


@dataclass(frozen=True)
class BackgroundModel:
    """Expected background of a dataset: norm x (energy / reference)^-tilt times its background, or another such factor.

    Attributes
    ----------
    name : str
    spectral : Component
        A norm model, such as ``power_law_norm``: norm, tilt, reference.
    datasets : tuple of str, or None
    template : Map or None
        Expected counts that the factor multiplies in place of the dataset's background, and that are added to it.
    template_file : str
        Where ``template`` was read from.
    """

    name: str
    spectral: Component
    datasets: tuple[str, ...] | None = None
    template: Any = None
    template_file: str = ""

    @cached_property
    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        """See the function of that name."""
        return _full_names(self)

    @property
    def parts(self) -> Mapping[str, Component]:
        """The spectral part."""
        return {"spectral": self.spectral}


@dataclass(frozen=True)
class ResponseModel:
    """How wrong the responses of some datasets may be: systematic errors as parameters of the fit, with their priors.

    Attributes
    ----------
    name : str
    scale : Component
        ``response_scale``: energy_scale (z: a photon of energy E is taken for one of (1 + z) E), exposure_scale (factor on
        the exposure) and background_scale (factor on the background, expected or measured).
    datasets : tuple of str, or None
    """

    name: str
    scale: Component
    datasets: tuple[str, ...] | None = None

    @cached_property
    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        """See the function of that name."""
        return _full_names(self)

    @property
    def parts(self) -> Mapping[str, Component]:
        """The one part."""
        return {"scale": self.scale}


Model = Source | BackgroundModel | ResponseModel


def full_names(model: Model) -> Mapping[str, tuple[str, ...]]:
    """Names of a model's parameters in a fit, ``model.parameter``, by part.

    A name that an earlier part has too is told apart by its part: ``crab.spatial.sigma``.
    """
    return model.full_names


def _full_names(model: Model) -> Mapping[str, tuple[str, ...]]:
    seen: set[str] = set()
    names = {}
    for part, component in model.parts.items():
        own = [p.name for p in component.parameters]
        names[part] = tuple(f"{model.name}.{part}.{n}" if n in seen else f"{model.name}.{n}" for n in own)
        seen.update(own)
    return names


def _own(model: Model) -> dict[str, Parameter]:
    names = full_names(model)
    return {
        full[len(model.name) + 1 :]: p
        for part, component in model.parts.items()
        for full, p in zip(names[part], component.parameters, strict=True)
    }


@dataclass(frozen=True)
class Models:
    """All that a fit varies: sources, backgrounds and responses, in the order of the file."""

    sources: tuple[Source, ...]
    backgrounds: tuple[BackgroundModel, ...] = ()
    responses: tuple[ResponseModel, ...] = ()

    @property
    def all(self) -> tuple[Model, ...]:
        """Sources, then backgrounds, then responses."""
        return (*self.sources, *self.backgrounds, *self.responses)

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by its full name (`full_names`)."""
        return {f"{m.name}.{name}": p for m in self.all for name, p in _own(m).items()}

    def with_parameters(self, changed: Mapping[str, Parameter]) -> "Models":
        """Same models with the named parameters replaced."""
        if not changed:
            return self

        def changed_parts(model: Model) -> dict[str, Any]:
            names = full_names(model)
            return {
                part: replace(
                    old,
                    parameters=tuple(
                        changed.get(n, p) for n, p in zip(names[part], old.parameters, strict=True)
                    ),
                )
                for part, old in model.parts.items()
            }

        return Models(
            tuple(replace(m, **changed_parts(m)) for m in self.sources),
            tuple(replace(m, **changed_parts(m)) for m in self.backgrounds),
            tuple(replace(m, **changed_parts(m)) for m in self.responses),
        )
