"""Priors: densities that integrate to one, values by hand, and derivatives."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from dl3flow.models.priors import PRIORS

CASES = {
    "gaussian": {"mu": 0.4, "sigma": 0.2},
    "generalized_gaussian": {"mu": 0.4, "sigma": 0.2, "eta": 0.3},
    "uniform": {"min": 0.2, "max": 0.8},
    "log_uniform": {"min": 0.2, "max": 5.0},
}


@pytest.mark.parametrize("name", PRIORS.names())
def test_the_density_integrates_to_one(name: str) -> None:
    prior, own = PRIORS.find(name, "test"), CASES.get(name, {})
    limits = prior.companions.get("limits")
    low, high = limits(**own) if limits else (-3.0, 4.0)
    found = quad(lambda x: math.exp(-prior(x, **own) / 2), low, high, points=[0.4], epsabs=1e-12)[0]
    assert found == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("name", PRIORS.names())
@pytest.mark.parametrize("value", [0.25, 0.47, 0.79])
def test_derivatives_are_those_of_differences(name: str, value: float) -> None:
    prior, own, step = PRIORS.find(name, "test"), CASES.get(name, {}), 1e-4
    at = [prior(value + k * step, **own) for k in (-1, 0, 1)]
    assert prior.companions["gradient"](value, **own) == pytest.approx(
        (at[2] - at[0]) / (2 * step), rel=1e-6, abs=1e-6
    )
    bend = (at[2] - 2 * at[1] + at[0]) / step**2
    assert prior.companions["curvature"](value, **own) == pytest.approx(bend, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "own", "expected"),
    [
        # one width off, and the norm of the density: 1 + ln(2 pi 4)
        ("gaussian", 3.0, {"mu": 1.0, "sigma": 2.0}, 1 + math.log(8 * math.pi)),
        ("gaussian", 1.0, {"mu": 1.0, "sigma": 2.0}, math.log(8 * math.pi)),
        # a normal distribution, and a Laplace distribution of scale 2 sqrt(2)
        ("generalized_gaussian", 3.0, {"mu": 1.0, "sigma": 2.0, "eta": 0.5}, 1 + math.log(8 * math.pi)),
        (
            "generalized_gaussian",
            3.0,
            {"mu": 1.0, "sigma": 2.0, "eta": 1.0},
            2 * (2 / math.sqrt(8) + math.log(2 * math.sqrt(8))),
        ),
        ("uniform", 3.0, {"min": 1.0, "max": 5.0}, 2 * math.log(4)),
        ("uniform", 0.9, {"min": 1.0, "max": 5.0}, math.inf),
        ("log_uniform", 2.0, {"min": 1.0, "max": math.e}, 2 * math.log(2)),
        ("log_uniform", 3.0, {"min": 1.0, "max": math.e}, math.inf),
        ("log_uniform", -1.0, {"min": 1.0, "max": math.e}, math.inf),
    ],
)
def test_values_by_hand(name: str, value: float, own: dict[str, float], expected: float) -> None:
    assert PRIORS.find(name, "test")(value, **own) == pytest.approx(expected, rel=1e-12)


def test_a_pointed_density_has_derivatives_at_its_peak() -> None:
    prior = PRIORS.find("generalized_gaussian", "test")
    assert prior.companions["gradient"](0.4, mu=0.4, sigma=0.2, eta=0.8) == 0
    assert np.isfinite(prior.companions["curvature"](0.4, mu=0.4, sigma=0.2, eta=0.8))


@pytest.mark.parametrize(
    ("name", "own", "said"),
    [
        ("gaussian", {"sigma": 0.0}, "`sigma` must be above 0, found 0"),
        ("gaussian", {"sigma": math.nan}, "`sigma` must be above 0, found nan"),
        ("generalized_gaussian", {"eta": -1.0}, "`eta` must be above 0, found -1"),
        ("uniform", {"min": 2.0}, "`min` must be below `max`, found 2 and 1"),
        ("log_uniform", {"min": 0.0}, "`min` must be above 0, found 0"),
    ],
)
def test_what_is_no_density_is_told(name: str, own: dict[str, float], said: str) -> None:
    prior = PRIORS.find(name, "test")
    assert prior.companions["problem"](**own) == said
    assert prior.companions["problem"]() == ""
