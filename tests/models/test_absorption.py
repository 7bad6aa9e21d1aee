"""Absorption taken out of spectra: wherever it stands in a compound, with the values that the compound has."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.models.absorption import transmission, without_absorption
from dl3flow.models.compound import compound
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Component, Parameter

ENERGY = np.array([0.5, 1.0, 4.0])


def _power_law(amplitude: float = 2e-11) -> Component:
    unit = u.Unit("cm-2 s-1 TeV-1")
    reference = Parameter("reference", 1.0, u.TeV)
    return Component(
        "power_law", (Parameter("amplitude", amplitude, unit), Parameter("index", 2.0), reference)
    )


def _absorption(alpha_norm: float = 1.0) -> Component:
    """Optical depth 0.3 z per TeV, exactly at the nodes."""
    redshift = np.array([0.0, 1.0])
    options = {"energy": ENERGY, "param": redshift, "values": np.exp(-0.3 * redshift[:, None] * ENERGY)}
    return Component(
        "ebl_absorption", (Parameter("redshift", 0.5), Parameter("alpha_norm", alpha_norm)), options
    )


def _at(component: Component) -> np.ndarray:
    found = resolve(component, "spectral", "test")
    values = [p.quantity.to_value(unit) for p, unit in zip(component.parameters, found.units, strict=True)]
    return np.asarray(found.function(ENERGY, *values))


def test_what_is_left_times_what_is_transmitted_is_the_whole() -> None:
    bend = Component(
        "power_law_norm", (Parameter("norm", 2.0), Parameter("tilt", 0.5), Parameter("reference", 1.0, u.TeV))
    )
    for whole in (
        compound("mul", _power_law(), _absorption()),
        compound("mul", _absorption(), _power_law()),
        compound("mul", compound("mul", _power_law(), _absorption()), bend),
        compound("mul", _power_law(), compound("mul", _absorption(), bend)),
    ):
        share = transmission(whole, ENERGY)
        assert share == pytest.approx(np.exp(-0.15 * ENERGY))
        assert _at(without_absorption(whole)) * share == pytest.approx(_at(whole))


def test_values_are_those_of_the_compound() -> None:
    """A fit changes the compound's parameters, not those of its parts."""
    whole = compound("mul", _power_law(), _absorption())
    fitted = {"amplitude": 5e-11, "alpha_norm": 2.0}
    changed = tuple(replace(p, value=fitted.get(p.name, p.value)) for p in whole.parameters)
    whole = replace(whole, parameters=changed)
    assert _at(without_absorption(whole)) == pytest.approx(5e-11 * ENERGY**-2)
    assert transmission(whole, ENERGY) == pytest.approx(np.exp(-0.3 * ENERGY))


def test_a_spectrum_without_absorption_is_itself() -> None:
    plain = _power_law()
    total = compound("add", plain, compound("mul", _power_law(), _absorption()))
    for component in (plain, total):
        assert without_absorption(component) is component
        assert transmission(component, ENERGY).tolist() == [1, 1, 1]
