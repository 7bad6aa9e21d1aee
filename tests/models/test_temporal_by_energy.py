"""Temporal models that are another at every energy: values and integrals by hand, and that fits refuse them."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from scipy.integrate import quad

from dl3flow.errors import InputError
from dl3flow.io.model_components import parse_component
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Component
from dl3flow.models.temporal import TEMPORAL_MODELS, mean_factor, mean_factor_gradient

TT = {"scale": "tt"}
DECAY = (0.02, 60000.0, -0.5, 1.0)
TABLE = {
    "time": np.array([0.0, 1.0, 3.0]),
    "energy": np.array([1.0, 10.0]),
    "norm": np.array([[0.0, 2.0, 2.0], [4.0, 0.0, 0.0]]),
    **TT,
}


def model(name: str, options: dict) -> ModelFunction:
    return resolve(Component(name, (), options), "temporal", "test")


def test_a_decay_is_faster_at_high_energies() -> None:
    """By hand: 0.02 d at 1 TeV, and 0.02 / sqrt(4) = 0.01 d at 4 TeV."""
    found = model("exp_decay_by_energy", TT).function(
        np.array([60000.02, 60000.02]), np.array([1.0, 4.0]), *DECAY
    )
    assert found == pytest.approx([np.exp(-1), np.exp(-2)], rel=1e-9)


def test_the_integral_is_that_of_the_function() -> None:
    decay = model("exp_decay_by_energy", TT)
    for energy in (0.3, 7.0):
        expected = quad(decay.function, 60000.01, 60000.05, args=(energy, *DECAY), epsrel=1e-11)[0]
        found = decay.companions["integral"](np.array(60000.01), np.array(60000.05), np.array(energy), *DECAY)
        assert float(found) == pytest.approx(expected, rel=1e-9)


def test_a_table_between_its_nodes() -> None:
    """Half-way in time and, at sqrt(10) TeV, in log energy; constant beyond the table."""
    table = model("light_curve_by_energy", TABLE)

    def at(day: float, energy: float) -> float:
        return float(table.function(np.array(60000.0 + day), np.array(energy), 60000.0))

    assert at(0.5, 1.0) == pytest.approx(1.0)
    assert at(0.5, 10.0) == pytest.approx(2.0)
    assert at(0.5, np.sqrt(10)) == pytest.approx(1.5)
    assert at(9.0, 0.1) == pytest.approx(2.0)
    assert at(-1.0, 99.0) == pytest.approx(4.0)
    folded = table.function(60000.0 + np.array([[0.0], [0.5]]), np.array([1.0, 10.0]), 60000.0)
    assert folded == pytest.approx(np.array([[0.0, 4.0], [1.0, 2.0]]))


@pytest.mark.parametrize("name", [p.name for p in TEMPORAL_MODELS if p.companions.get("by_energy")])
def test_a_fit_refuses_it_in_a_sentence(name: str) -> None:
    found = model(name, TABLE if name == "light_curve_by_energy" else TT)
    values, night = np.array(DECAY[: len(found.units)]), (np.array([60000.0]), np.array([60000.1]))
    for function in (mean_factor, mean_factor_gradient):
        with pytest.raises(
            InputError, match="changes with energy, which simulations know and fits do not: fit bands"
        ):
            function(found, values, *night)


def test_a_table_of_the_wrong_shape_is_refused() -> None:
    entry = {
        "type": "template-by-energy",
        "time": {"data": [0, 1], "unit": "h"},
        "energy": {"data": [1, 10], "unit": "TeV"},
        "norm": [[1, 1, 1], [2, 2, 2]],
    }
    with pytest.raises(
        InputError, match="`norm` has the shape .2, 3., and must list one light curve of 2 numbers"
    ):
        parse_component(entry, "temporal", "test", Path())
    found = parse_component({**entry, "norm": [[1, 1], [2, 2]]}, "temporal", "test", Path())
    assert found.options["time"] == pytest.approx([0, 1 / 24])
    assert found["t_ref"].quantity == 51544 * u.d
