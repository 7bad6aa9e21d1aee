"""Fits of every kind of spectrum, kinks and compounds included: exact gradients, and the truth from expected counts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import predict_counts
from dl3flow.models.compound import compound
from dl3flow.models.resolve import find_model, parameters_of
from dl3flow.models.source import Component, Models, Parameter, Source

NODES = np.array([1.0, 4.4, 19.0, 70.0])
TEMPLATE = {"energy": NODES, "values": np.array([3e-11, 2e-12, 1e-13, 2e-15])}
# optical depths of 30 % per unit of ln(energy), and half of it at half the redshift
DEPTH = 0.3 * np.log(np.array([1.0, 3.0, 10.0, 30.0, 100.0])) ** 1.5
TABLE = {
    "energy": np.array([1.0, 3.0, 10.0, 30.0, 100.0]),
    "param": np.array([0.05, 0.1, 0.2]),
    "values": np.exp(-np.outer([0.5, 1.0, 2.1], DEPTH)),
}


def component(
    kind: str, free: dict[str, float], options: dict[str, Any] | None = None, **fixed: float
) -> Component:
    plugin = find_model(Component(kind, ()), "spectral", "")
    known = parameters_of(plugin, options or {})
    values = {name: float(default) for name, (_, default) in known.items()} | fixed | free
    parameters = [Parameter(n, values[n], unit, frozen=n not in free) for n, (unit, _) in known.items()]
    return Component(plugin.name, tuple(parameters), options or {})


PL = component("power_law", {"amplitude": 3e-11, "index": 1.8})
CASES = {
    "broken": component(
        "broken_power_law", {"index1": 1.5, "index2": 2.6, "amplitude": 3e-12, "ebreak": 7.7}
    ),
    "smooth": component(
        "smooth_broken_power_law",
        {"index1": 1.5, "index2": 3.1, "amplitude": 3e-11, "ebreak": 7.7},
        beta=0.2,
    ),
    "integral": component("power_law_2", {"amplitude": 3e-11, "index": 1.0}, emin=1.0, emax=50.0),
    "cutoff": component(
        "exp_cutoff_power_law", {"amplitude": 3e-11, "index": 1.8, "lambda_": 0.04, "alpha": 1.0}
    ),
    "absorbed": compound("mul", PL, component("ebl_absorption", {"redshift": 0.13}, TABLE, alpha_norm=1.0)),
    "absorbed by more": compound(
        "mul", PL, component("ebl_absorption", {"alpha_norm": 1.2}, TABLE, redshift=0.13)
    ),
    "template": compound(
        "mul",
        component("template", {}, TEMPLATE),
        component("power_law_norm", {"norm": 1.2, "tilt": 0.1}),
    ),
    "piecewise": compound(
        "mul",
        component("power_law", {}, amplitude=3e-11, index=1.8),
        component(
            "piecewise_norm", {"norm_0": 0.8, "norm_1": 1.3, "norm_2": 1.0, "norm_3": 0.7}, {"energy": NODES}
        ),
    ),
    "line on a continuum": compound(
        "add", PL, component("gauss", {"amplitude": 5e-12, "mean": 8.0}, sigma=1.5)
    ),
}


def source(spectral: Component) -> Models:
    return Models((Source("s", spectral, None),))


@pytest.mark.parametrize("name", CASES)
def test_a_fit_of_expected_counts_gives_the_truth(name: str, spectrum: Callable[..., Dataset]) -> None:
    empty = spectrum(seed=None, level=2.0, n_energy=24, exposure=3e9)
    truth = source(CASES[name])
    signal, background = predict_counts(empty, truth)
    dataset = replace(empty, counts=empty.counts.with_data(signal + background))
    free = {n: p for n, p in truth.parameters().items() if not p.frozen}
    moved = {n: replace(p, value=p.value * (1.15 if k % 2 else 0.9)) for k, (n, p) in enumerate(free.items())}
    start = truth.with_parameters(moved)

    likelihood = build_likelihood([dataset], start)
    x = likelihood.start
    gradient = likelihood.gradient(x) * np.abs(x)
    numeric = np.zeros(len(x))
    for k in range(len(x)):
        step = np.zeros(len(x))
        step[k] = 1e-4
        at = [likelihood.stat(x * (1 + n * step)) for n in (1, -1, 2, -2)]
        numeric[k] = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * 1e-4)
    assert gradient == pytest.approx(numeric, rel=0, abs=1e-6 * np.abs(numeric).max())

    result = fit([dataset], start)
    assert result.success, result.message
    found = result.models.parameters()
    for n, parameter in free.items():
        assert found[n].value == pytest.approx(parameter.value, abs=0.01 * found[n].error), n
