"""Errors of integral fluxes against the reference's linear propagation, in both methods."""

from collections.abc import Callable
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.products import FitResult
from dl3flow.fit.propagate import integral_flux
from dl3flow.models.source import Component, Models, Parameter, Source

ORDER = {
    "pl": ("power_law", ("amplitude", "index", "reference")),
    "lp": ("log_parabola", ("amplitude", "reference", "alpha", "beta")),
    "ecpl": ("exp_cutoff_power_law", ("amplitude", "index", "reference", "lambda_", "alpha")),
}


def _result(fit: dict[str, Any], kind: str) -> FitResult:
    entries = {p["name"]: p for p in fit["parameters"]}
    name, order = ORDER[kind]
    parameters = tuple(
        Parameter(n, e["value"], u.Unit(e["unit"]), frozen=e["frozen"])
        for n, e in ((n, entries[n]) for n in order)
    )
    models = Models((Source("s", Component(name, parameters), None),))
    free = tuple(f"s.{n}" for n in fit["free"])
    return FitResult(True, "converged", 0.0, models, free, np.array(fit["covariance"]), (), {})


@pytest.mark.parametrize("which", ["joint", "stacked"])
@pytest.mark.parametrize("kind", ["pl", "lp", "ecpl"])
def test_both_methods_agree_where_the_peer_loses_the_amplitude(
    reference: Callable[[str], tuple[dict[str, Any], Any]], which: str, kind: str
) -> None:
    """Of the log parabola's 5.6 % sampling in the parameters' own units lost two fifths."""
    case, _ = reference("E_reflected_crab4")
    fit = case["seed"]["fits"][f"{which}|{kind}"]
    result = _result(fit, kind)
    value, error = fit["flux_1_10TeV_cm-2s-1_value_err_linear"]
    flux = integral_flux(result, "s", 1 * u.TeV, 10 * u.TeV)
    assert flux.value.to_value("cm-2 s-1") == pytest.approx(value, rel=1e-4)
    # the covariance is given to six digits
    assert flux.error.to_value("cm-2 s-1") == pytest.approx(error, rel=5e-4)
    drawn = integral_flux(result, "s", 1 * u.TeV, 10 * u.TeV, method="samples", n_samples=10_000, seed=1)
    assert drawn.error.to_value("cm-2 s-1") == pytest.approx(error, rel=0.035)
    # a cutoff makes the flux skew
    for found in (drawn.errn, drawn.errp):
        assert found.to_value("cm-2 s-1") == pytest.approx(error, rel=0.08)
