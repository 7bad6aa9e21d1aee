"""Temporal models: by-hand means over good time intervals, and what every plug-in must hold."""

import numpy as np
import pytest
from astropy.time import Time
from scipy.integrate import quad

from dl3flow.errors import InputError
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Component
from dl3flow.models.temporal import TEMPORAL_MODELS, mean_factor, mean_factor_gradient, to_tt

START = np.array([51544.9, 51546.05, 51548.0])
STOP = np.array([51545.2, 51547.0, 51549.0])
TT = {"scale": "tt"}
LIGHT_CURVE = {"time": np.array([0, 1, 2.3, 3, 4.0]), "norm": np.array([0.2, 1, -0.5, 0.7, 0.3]), **TT}
PHASE_CURVE = {"phase": np.linspace(0.025, 0.975, 20), "norm": 1 + np.sin(6 * np.linspace(0, 1, 20)), **TT}
# those whose mean a fit can take: see test_temporal_by_energy for the others
STEADY_IN_ENERGY = [p.name for p in TEMPORAL_MODELS if not p.companions.get("by_energy")]
# values away from the defaults; a plug-in that is not here is tested at its defaults
CASES = {
    "linear": ((1.2, 0.03, 51545.3), TT),
    "exp_decay": ((0.7, 51544.2), TT),
    "gauss": ((51546.1, 0.3), TT),
    "generalized_gauss": ((51546.4, 0.4, 0.9, 0.7), TT),
    "power_law": ((-0.7, 51543.9, 1.3), TT),
    "sine": ((0.6, 5.0, 51544.4), TT),
    "light_curve": ((51544.3,), LIGHT_CURVE),
    "phase_curve": ((51544.3, 0.3, 2e-5, 0.0, 0.0), PHASE_CURVE),
}


def model(name: str, options: dict | None = None) -> ModelFunction:
    return resolve(Component(name, (), options or {}), "temporal", "test")


def case(name: str) -> tuple[ModelFunction, np.ndarray]:
    plugin = TEMPORAL_MODELS.find(name, "test")
    defaults = tuple(default for _, default in plugin.parameters.values())
    values, options = CASES.get(name, (defaults, {}))
    return model(name, options), np.array(values)


def kinks(name: str, values: np.ndarray) -> list[float]:
    if name == "light_curve":
        # the zeros between and beyond the nodes too
        return [
            *(values[0] + LIGHT_CURVE["time"]),
            values[0] + 1 + 1.3 / 1.5,
            values[0] + 2.3 + 0.7 * 0.5 / 1.2,
        ]
    if name == "phase_curve":
        turns = np.arange(-2, 20)[:, None] + [0.0, *PHASE_CURVE["phase"][1:-1]]
        return list(values[0] + (turns.ravel() - values[1]) / (values[2] * 86400))
    return [values[0]] if name == "generalized_gauss" else []


def integral(name: str, found: ModelFunction, values: np.ndarray, start: float, stop: float) -> float:
    edges = [start, *sorted(t for t in kinks(name, values) if start < t < stop), stop]
    pieces = zip(edges[:-1], edges[1:], strict=True)
    return sum(
        quad(lambda t: float(found.function(np.array(t), *values)), a, b, epsrel=1e-11)[0] for a, b in pieces
    )


@pytest.mark.parametrize("name", STEADY_IN_ENERGY)
def test_the_mean_is_the_integral_over_the_intervals(name: str) -> None:
    found, values = case(name)
    expected = sum(integral(name, found, values, a, b) for a, b in zip(START, STOP, strict=True))
    assert mean_factor(found, values, START, STOP) == pytest.approx(expected / np.sum(STOP - START), rel=1e-9)


@pytest.mark.parametrize("name", STEADY_IN_ENERGY)
def test_derivatives_are_those_of_differences(name: str) -> None:
    found, values = case(name)
    times = np.random.default_rng(0).uniform(51544.5, 51550, 40)
    rows, mean = (
        found.companions["gradient"](times, *values),
        mean_factor_gradient(found, values, START, STOP),
    )
    assert rows.shape == (len(values), 40)
    assert mean.shape == (len(values),)
    for n, value in enumerate(values):
        step = np.zeros(len(values))
        step[n] = {"phase_curve": [1e-6, 1e-6, 1e-12, 1e-17, 1e-22]}.get(name, [1e-5] * 5)[n]
        up, down = values + step, values - step
        width = up[n] - down[n]
        expected = (found.function(times, *up) - found.function(times, *down)) / width
        assert rows[n] == pytest.approx(expected, rel=1e-5, abs=1e-5 * np.max(np.abs(rows[n]))), value
        by_mean = (mean_factor(found, up, START, STOP) - mean_factor(found, down, START, STOP)) / width
        assert mean[n] == pytest.approx(by_mean, rel=1e-5), value


@pytest.mark.parametrize("name", STEADY_IN_ENERGY)
def test_nothing_is_written_into_the_times(name: str) -> None:
    found, values = case(name)
    times, start, stop = (np.array(x) for x in (START, START, STOP))
    for array in (times, start, stop):
        array.flags.writeable = False
    assert found.function(times, *values).shape == (3,)
    assert np.isfinite(mean_factor(found, values, start, stop))


@pytest.mark.parametrize(
    ("name", "values", "start", "stop", "expected"),
    [
        ("constant", (), 0.0, 3.0, 1.0),
        # 2 + 0.5 (t - 1) from 1 to 5: from 2 to 4
        ("linear", (2.0, 0.5, 1.0), 1.0, 5.0, 3.0),
        # a flare of 1 min in a night of 8 h, and one that lasts for ever
        ("exp_decay", (1 / 1440, 0.0), 0.0, 8 / 24, 1 / 480),
        ("exp_decay", (1e9, 0.0), 0.0, 1.0, 1.0),
        # sqrt(2 pi) sigma: a pulse of 10 s in the middle of a year, and its tail from 30 sigma on
        ("gauss", (180.0, 10 / 86400), 0.0, 365.0, np.sqrt(2 * np.pi) * 10 / 86400 / 365),
        ("gauss", (0.0, 1.0), 30.0, 31.0, np.exp(-450) / 30 * (1 - 1 / 900 + 3 / 900**2 - 15 / 900**3)),
        # of a Laplace profile exp(-|x| / 2 width): 2 (0.1 + 0.3) in 10 d
        ("generalized_gauss", (5.0, 0.1, 0.3, 1.0), -20.0, 30.0, 0.8 / 50),
        # x^2 from 0 to 3, and nothing before; 1/x; x^-1/2
        ("power_law", (2.0, 1.0, 1.0), 1.0, 4.0, 3.0),
        ("power_law", (2.0, 1.0, 1.0), -2.0, 4.0, 1.5),
        ("power_law", (-1.0, 0.0, 1.0), 1.0, np.e, 1 / (np.e - 1)),
        ("power_law", (-0.5, 0.0, 1.0), 0.0, 4.0, 1.0),
        # whole periods, half a period, and no turn at all
        ("sine", (0.5, 2 * np.pi, 0.0), 0.0, 1000.0, 1.0),
        ("sine", (1.0, np.pi, 0.0), 0.0, 1.0, 1 + 2 / np.pi),
        ("sine", (1.0, 0.0, 0.0), 0.0, 1.0, 1.0),
    ],
)
def test_means_by_hand(
    name: str, values: tuple[float, ...], start: float, stop: float, expected: float
) -> None:
    found = mean_factor(model(name, TT), np.array(values), np.array([start]), np.array([stop]))
    assert found == pytest.approx(expected, rel=1e-8, abs=0)


def test_a_mean_weighs_intervals_by_their_length() -> None:
    # 1 in one day and 4 in three: (1 + 12) / 4
    found = mean_factor(
        model("linear", TT), np.array([0.0, 1.0, 0.0]), np.array([0.5, 2.5]), np.array([1.5, 5.5])
    )
    assert found == pytest.approx(13 / 4)


def test_a_light_curve_goes_on_along_its_last_line_down_to_zero() -> None:
    options = {"time": np.array([0.0, 1.0, 2.0]), "norm": np.array([0.0, 2.0, 1.0]), **TT}
    found = model("light_curve", options)
    assert found.function(np.array([-1.0, 0.5, 1.5, 2.5, 3.5]), 0.0) == pytest.approx([0, 1, 1.5, 0.5, 0])
    # triangles and a trapezium: 1 + 1.5 + 0.5
    assert mean_factor(found, np.array([0.0]), np.array([-5.0]), np.array([5.0])) == pytest.approx(0.3)


def test_a_phase_curve_of_a_fast_pulsar_has_the_mean_of_its_period() -> None:
    options = {
        "phase": np.array([0.0, 0.5, 1.0]),
        "norm": np.array([0.0, 3.0, 0.0]),
        "normalize": False,
        **TT,
    }
    values = np.array([51544.0, 0.0, 29.946923, -3.77e-10, 0.0])
    found = mean_factor(model("phase_curve", options), values, START, STOP)
    assert found == pytest.approx(1.5, rel=1e-6)
    options["normalize"] = True
    assert mean_factor(model("phase_curve", options), values, START, STOP) == pytest.approx(1.0, rel=1e-6)
    # a quarter of a period of 4 d from its start: a triangle that rises to 1.5, of height 0.75 in the middle
    slow = np.array([51544.0, 0.0, 1 / (4 * 86400), 0.0, 0.0])
    quarter = mean_factor(model("phase_curve", options), slow, np.array([51544.0]), np.array([51545.0]))
    assert quarter == pytest.approx(0.5, rel=1e-9)


def test_a_model_without_closed_integral_is_integrated_in_steps() -> None:
    found = ModelFunction("mine", lambda t, width: np.exp(-(t**2) / (2 * width**2)), (), {})
    expected = np.sqrt(2 * np.pi) * 0.01 / 2
    assert mean_factor(found, np.array([0.01]), np.array([-1.0]), np.array([1.0])) == pytest.approx(
        expected, rel=1e-9
    )
    by_width = mean_factor_gradient(found, np.array([0.01]), np.array([-1.0]), np.array([1.0]))
    assert by_width == pytest.approx([expected / 0.01], rel=1e-6)


def test_no_time_has_no_mean() -> None:
    with pytest.raises(InputError, match="'constant' needs good time intervals, and there are none"):
        mean_factor(model("constant"), np.array([]), np.array([]), np.array([]))


def test_reference_times_are_in_their_scale() -> None:
    # 37 leap seconds and 32.184 s in 2020, 32 of them in 2000
    assert to_tt(58849.25, "utc") == pytest.approx(58849.25 + 69.184 / 86400, abs=1e-10)
    assert to_tt(51544.5, "utc") == pytest.approx(51544.5 + 64.184 / 86400, abs=1e-10)
    assert to_tt(58849.25, "tt") == 58849.25
    assert to_tt(58849.25, "tdb") == pytest.approx(
        Time(58849.25, format="mjd", scale="tdb").tt.mjd, abs=1e-10
    )
    peak = model("gauss").function(np.array([51544.0 + 64.184 / 86400]), 51544.0, 1e-6)
    assert peak == pytest.approx([1.0], abs=1e-9)
