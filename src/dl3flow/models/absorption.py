"""Absorption on the way to us as a part of a spectrum: what it transmits, and the spectrum without it."""

import numpy as np

from dl3flow.models.compound import compound, own_parts
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Component
from dl3flow.models.spectral import NORM_MODELS


def without_absorption(spectral: Component) -> Component:
    """A spectrum with its factors of absorption taken out: the intrinsic one; the same object where it has none."""
    intrinsic, factors = _split(spectral)
    return spectral if not factors or intrinsic is None else intrinsic


def transmission(spectral: Component, energy: np.ndarray) -> np.ndarray:
    """Share of the photons that arrives at energies (TeV); one where a spectrum has no absorption."""
    share = np.ones(np.shape(energy))
    for factor in _split(spectral)[1]:
        found = resolve(factor, "spectral", "absorption")
        values = (p.quantity.to_value(unit) for p, unit in zip(factor.parameters, found.units, strict=True))
        share = share * np.asarray(found.function(energy, *values))
    return share


def _split(component: Component) -> tuple[Component | None, list[Component]]:
    """What is left of a component without absorption, None for nothing, and the factors of absorption."""
    if (
        component.kind in NORM_MODELS
        and NORM_MODELS.find(component.kind, "").companions.get("reads") == "ebl"
    ):
        return None, [component]
    if component.kind != "compound" or component.options.get("operator") != "mul":
        return component, []
    (first, one), (second, other) = (_split(part) for part in own_parts(component))
    if first is None or second is None:
        return first or second, [*one, *other]
    return compound("mul", first, second), [*one, *other]
