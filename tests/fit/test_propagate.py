"""Errors of what follows from a fit: by hand, and by two methods."""

from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.products import DatasetStat, FitResult, Samples
from dl3flow.errors import InputError
from dl3flow.fit.propagate import (
    butterfly_table,
    derived,
    draw,
    energy_flux,
    error_band,
    integral_flux,
    pivot_energy,
    spectral_numbers,
)
from dl3flow.models.source import Component, Models, Parameter, Source

DNDE = u.Unit("cm-2 s-1 TeV-1")


def _result(models: Models, free: tuple[str, ...], covariance: Any, edges: Any = None) -> FitResult:
    none = np.zeros(0)
    datasets = () if edges is None else (DatasetStat("d", 0.0, 1, edges * u.TeV, none, none, none),)
    return FitResult(True, "converged", 0.0, models, free, np.array(covariance, dtype=float), datasets, {})


def _power_law(covariance: Any, unit: u.UnitBase = DNDE, amplitude: float = 4e-11) -> FitResult:
    parameters = (
        Parameter("amplitude", amplitude, unit),
        Parameter("index", 2.0),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    )
    models = Models((Source("s", Component("power_law", parameters), None),))
    return _result(models, ("s.amplitude", "s.index"), covariance)


def _log_parabola(values: tuple[float, ...], covariance: Any) -> FitResult:
    units = (DNDE, u.TeV, u.one, u.one)
    parameters = tuple(
        Parameter(n, v, unit, frozen=n == "reference")
        for n, v, unit in zip(("amplitude", "reference", "alpha", "beta"), values, units, strict=True)
    )
    models = Models((Source("s", Component("log_parabola", parameters), None),))
    return _result(models, ("s.amplitude", "s.alpha", "s.beta"), covariance)


def test_band_of_a_power_law_by_hand() -> None:
    """f = A E^-2; (df)^2 = (f/A)^2 var A - 2 f^2/A ln E cov + f^2 ln^2 E var G, with 10 % on A, 0.2 on G, correlation 0.5."""
    a, g = 4e-12, 0.2
    result = _power_law([[a**2, 0.5 * a * g], [0.5 * a * g, g**2]])
    band = error_band(result, "s", [1, np.e] * u.TeV)
    assert band.value.to_value(DNDE) == pytest.approx([4e-11, 4e-11 / np.e**2])
    relative = (band.error / band.value).to_value("")
    assert relative == pytest.approx([0.1, np.sqrt(0.01 - 2 * 0.1 * 0.5 * 0.2 + 0.04)])
    assert band.errn is band.errp


def test_units_of_the_user_are_respected() -> None:
    result = _power_law([[(4e-8) ** 2, 0], [0, 0.04]], u.Unit("m-2 s-1 TeV-1"), 4e-7)
    band = error_band(result, "s", 1 * u.TeV)
    assert band.error.to_value(DNDE)[0] == pytest.approx(4e-12)


def test_integral_fluxes_by_hand() -> None:
    """From 1 to 10 TeV A (1 - 1/10) photons, A ln 10 of energy; the amplitude alone has an error."""
    result = _power_law([[(4e-12) ** 2, 0], [0, 0]])
    flux = integral_flux(result, "s", 1 * u.TeV, 10 * u.TeV)
    assert flux.value.to_value("cm-2 s-1") == pytest.approx(0.9 * 4e-11, rel=1e-12)
    assert flux.error.to_value("cm-2 s-1") == pytest.approx(0.9 * 4e-12, rel=1e-12)
    energy = energy_flux(result, "s", 1 * u.TeV, 10 * u.TeV)
    assert energy.value.to_value("TeV cm-2 s-1") == pytest.approx(4e-11 * np.log(10), rel=1e-12)
    assert energy.errp.to_value("TeV cm-2 s-1") == pytest.approx(4e-12 * np.log(10), rel=1e-12)


def test_error_by_index_of_an_integral() -> None:
    """Above 1 TeV A / (G - 1): with G = 2 +- 0.1 the relative error is 0.1."""
    result = _power_law([[0, 0], [0, 0.01]])
    flux = integral_flux(result, "s", 1 * u.TeV)
    assert flux.value.to_value("cm-2 s-1") == pytest.approx(4e-11, rel=1e-6)
    assert float(flux.error / flux.value) == pytest.approx(0.1, rel=1e-5)


def test_an_integral_without_end_is_refused() -> None:
    result = _power_law([[1e-24, 0], [0, 0.01]])
    with pytest.raises(InputError, match="has no end for this spectrum: give the upper energy"):
        energy_flux(result, "s", 1 * u.TeV)
    with pytest.raises(InputError, match="give two energies in increasing order"):
        integral_flux(result, "s", 10 * u.TeV, 1 * u.TeV)
    with pytest.raises(InputError, match="no source 't' in the fit"):
        error_band(result, "t", 1 * u.TeV)


def test_correlations_close_to_one_keep_their_digits() -> None:
    """Amplitude at a reference far from the pivot, correlation 1 - 5e-9: at the pivot 1e-4 of the error is left.

    ln f = ln A - G ln E with var(ln A) = L^2 var G + s^2, cov = L var G: at ln E = L only s is left.
    """
    level, g, s = 10.0, 0.1, 1e-4
    a = 4e-11
    covariance = [[a**2 * (level**2 * g**2 + s**2), a * level * g**2], [a * level * g**2, g**2]]
    result = _power_law(covariance)
    assert covariance[0][1] / np.sqrt(covariance[0][0] * covariance[1][1]) > 0.999999
    assert pivot_energy(result, "s").to_value(u.TeV) == pytest.approx(np.exp(level), rel=1e-9)
    band = error_band(result, "s", np.exp(level) * u.TeV)
    assert (band.error / band.value).to_value("")[0] == pytest.approx(s, rel=1e-4)
    drawn = error_band(result, "s", np.exp(level) * u.TeV, method="samples", n_samples=400, seed=2)
    # the spread of index alone makes e^L wide; second order in it remains
    assert (drawn.error / drawn.value).to_value("")[0] < 3


def test_pivot_energy_of_a_power_law_and_of_others() -> None:
    """The closed form, and the search, on the same covariance; a log parabola without curvature is a power law."""
    a, g, rho = 4e-12, 0.2, -0.6
    result = _power_law([[a**2, rho * a * g], [rho * a * g, g**2]])
    pivot = np.exp(rho * a / (4e-11 * g))
    assert pivot_energy(result, "s").to_value(u.TeV) == pytest.approx(pivot, rel=1e-12)
    covariance = np.zeros((3, 3))
    covariance[:2, :2] = [[a**2, rho * a * g], [rho * a * g, g**2]]
    curved = _log_parabola((4e-11, 1.0, 2.0, 0.0), covariance)
    found = pivot_energy(curved, "s", 0.1 * u.TeV, 100 * u.TeV)
    assert found.to_value(u.TeV) == pytest.approx(pivot, rel=1e-6)
    # the fit knows no range: three decades around the reference
    assert pivot_energy(curved, "s").to_value(u.TeV) == pytest.approx(pivot, rel=1e-6)
    one = _result(curved.models, curved.free, np.diag([a**2, 0, 0]))
    assert np.isnan(pivot_energy(one, "s"))


def test_a_pivot_outside_the_data_is_looked_for_within() -> None:
    a, g, rho = 4e-12, 0.02, -0.6
    covariance = np.zeros((3, 3))
    covariance[:2, :2] = [[a**2, rho * a * g], [rho * a * g, g**2]]
    curved = _log_parabola((4e-11, 1.0, 2.0, 0.0), covariance)
    result = _result(curved.models, curved.free, covariance, [1.0, 10.0])
    assert pivot_energy(result, "s").to_value(u.TeV) == pytest.approx(1.0, rel=1e-3)


def test_linked_and_frozen_parameters() -> None:
    """Two sources share one index: the band of the second moves with the first's row of the covariance."""

    def source(name: str, *, frozen: bool) -> Source:
        parameters = (
            Parameter("amplitude", 1e-12, DNDE, frozen=frozen),
            Parameter("index", 2.0, link="both"),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        )
        return Source(name, Component("power_law", parameters), None)

    models = Models((source("a", frozen=False), source("b", frozen=True)))
    result = _result(models, ("a.amplitude", "a.index"), np.diag([1e-26, 0.01]))
    band = error_band(result, "b", [1, np.e] * u.TeV)
    assert (band.error / band.value).to_value("") == pytest.approx([0.0, 0.1], abs=1e-12)
    ratio = derived(result, lambda p: p["b.index"] / p["a.index"])
    assert float(ratio.value) == pytest.approx(1.0)
    assert float(ratio.error) == pytest.approx(0.0, abs=1e-12)


def test_compounds() -> None:
    """A power law times a power-law norm of tilt 0.5 +- 0.1: at e TeV the flux varies by 10 %."""
    law = Component(
        "power_law",
        (
            Parameter("amplitude", 1e-12, DNDE, frozen=True),
            Parameter("index", 2.0, frozen=True),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        ),
    )
    norm = Component(
        "power_law_norm",
        (
            Parameter("norm", 1.0, frozen=True),
            Parameter("tilt", 0.5),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        ),
    )
    names = ("amplitude", "index", "reference", "norm", "tilt", "reference_2")
    every = tuple(
        Parameter(n, p.value, p.unit, frozen=p.frozen)
        for n, p in zip(names, (*law.parameters, *norm.parameters), strict=True)
    )
    models = Models((Source("s", Component("compound", every, {"operator": "mul"}, (law, norm)), None),))
    band = error_band(_result(models, ("s.tilt",), [[0.01]]), "s", np.e * u.TeV)
    assert band.value.to_value(DNDE)[0] == pytest.approx(1e-12 * np.exp(-2.5))
    assert (band.error / band.value).to_value("")[0] == pytest.approx(0.1)


def test_any_function_of_parameters() -> None:
    """A G = 8e-11, error by hand: sqrt(G^2 var A + 2 A G cov + A^2 var G); two values with their covariance."""
    a, g = 4e-12, 0.2
    result = _power_law([[a**2, 0.5 * a * g], [0.5 * a * g, g**2]])
    product = derived(result, lambda p: p["s.amplitude"] * p["s.index"])
    variance = 4 * a**2 + 2 * 4e-11 * 2 * 0.5 * a * g + (4e-11 * g) ** 2
    assert product.value.to_value(DNDE) == pytest.approx(8e-11)
    assert product.error.to_value(DNDE) == pytest.approx(np.sqrt(variance), rel=1e-9)
    both = derived(result, lambda p: u.Quantity([p["s.index"], 3 * p["s.index"]]))
    assert both.covariance == pytest.approx(0.04 * np.array([[1, 3], [3, 9]]), rel=1e-9)
    drawn = derived(result, lambda p: p["s.amplitude"] * p["s.index"], method="samples", seed=3)
    assert drawn.error.to_value(DNDE) == pytest.approx(np.sqrt(variance), rel=0.03)


def test_draws_are_those_of_the_covariance_and_of_the_seed() -> None:
    a, g = 4e-12, 0.2
    result = _power_law([[a**2, 0.9 * a * g], [0.9 * a * g, g**2]])
    x = draw(result, 20_000, 5)
    assert np.array_equal(x, draw(result, 20_000, 5))
    assert not np.array_equal(x, draw(result, 20_000, 6))
    assert x.mean(axis=0) == pytest.approx([4e-11, 2.0], rel=0.01)
    scaled = (x - [4e-11, 2.0]) / [a, g]
    assert np.cov(scaled.T) == pytest.approx(np.array([[1, 0.9], [0.9, 1]]), abs=0.03)


def test_asymmetric_errors_of_a_skew_quantity() -> None:
    """exp(x) with x = 0 +- 1: 68 % within 1/e and e."""
    parameters = (Parameter("amplitude", 0.0, DNDE), Parameter("index", 2.0, frozen=True))
    reference = Parameter("reference", 1.0, u.TeV, frozen=True)
    models = Models((Source("s", Component("power_law", (*parameters, reference)), None),))
    result = _result(models, ("s.amplitude",), [[1.0]])
    found = derived(
        result,
        lambda p: np.exp(p["s.amplitude"].value),
        method="samples",
        n_samples=50_000,
    )
    assert float(found.errn) == pytest.approx(1 - 1 / np.e, abs=0.01)
    assert float(found.errp) == pytest.approx(np.e - 1, abs=0.04)


def test_draws_stay_within_limits() -> None:
    """Half a Gaussian: with a limit at the best fit, its mean is sqrt(2 / pi) errors above."""
    parameters = (
        Parameter("amplitude", 0.0, DNDE, min=0.0),
        Parameter("index", 2.0, frozen=True),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    )
    models = Models((Source("s", Component("power_law", parameters), None),))
    x = draw(_result(models, ("s.amplitude",), [[1e-24]]), 20_000, 1)
    assert x.min() >= 0
    assert x.mean() == pytest.approx(1e-12 * np.sqrt(2 / np.pi), rel=0.02)
    far = (Parameter("amplitude", 0.0, DNDE, min=5e-12), *parameters[1:])
    models = Models((Source("s", Component("power_law", far), None),))
    with pytest.raises(InputError, match="sample the posterior"):
        draw(_result(models, ("s.amplitude",), [[1e-24]]), 1000, 1)


def test_samples_of_a_posterior_take_the_place_of_draws() -> None:
    result = _power_law([[1e-24, 0], [0, 0.01]])
    values = np.array([[2.0, 4e-11], [3.0, 4e-11], [4.0, 4e-11]])
    samples = Samples(("s.index", "s.amplitude"), values, np.zeros(3), 1, 0.5, np.ones(2))
    assert draw(result, 10, 0, samples)[:, 1].tolist() == [2.0, 3.0, 4.0]
    band = error_band(result, "s", 10 * u.TeV, samples=samples)
    # 4e-13, 4e-14, 4e-15
    assert band.covariance[0, 0] == pytest.approx(np.var([4e-13, 4e-14, 4e-15], ddof=1))
    lacking = Samples(("s.index",), values[:, :1], np.zeros(3), 1, 0.5, np.ones(1))
    with pytest.raises(InputError, match=r"no parameter 's\.amplitude'"):
        draw(result, 10, 0, lacking)


def test_table_of_a_butterfly() -> None:
    result = _power_law([[(4e-12) ** 2, 0], [0, 0.04]])
    table = butterfly_table(result, "s", [1000, 2000] * u.GeV)
    assert table.colnames == ["energy", "dnde", "dnde_err", "dnde_errn", "dnde_errp"]
    assert table["energy"].to_value(u.TeV).tolist() == [1.0, 2.0]
    assert table["dnde_err"].to_value(DNDE)[0] == pytest.approx(4e-12)


def test_a_covariance_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="covariance is not finite"):
        error_band(_power_law([[np.nan, 0], [0, 0.04]]), "s", 1 * u.TeV)


def test_numbers_for_a_table_of_results() -> None:
    """A power law between 1 and 10 TeV, the range of the data: 3.6e-11 above 1 TeV, 1.2e-11 above 2.5 TeV."""
    a, g = 4e-12, 0.2
    known = _power_law([[a**2, -0.5 * a * g], [-0.5 * a * g, g**2]])
    result = _result(known.models, known.free, known.covariance, [1.0, 10.0])
    (found,) = spectral_numbers(result).values()
    assert list(found) == ["pivot energy", "flux, 1 to 10 TeV", "energy flux, 1 to 10 TeV"]
    assert found["pivot energy"].value.to_value(u.TeV) == pytest.approx(np.exp(-0.25))
    flux = found["flux, 1 to 10 TeV"]
    assert flux.value.to_value("cm-2 s-1") == pytest.approx(3.6e-11)
    # the mean of ln E over the photons is (1 - (1 + ln 10) / 10) / 0.9
    mean = (1 - (1 + np.log(10)) / 10) / 0.9
    assert float(flux.error / flux.value) == pytest.approx(np.sqrt(0.01 + 0.02 * mean + 0.04 * mean**2))
    several = spectral_numbers(result, [2.5, 5.0, 20.0] * u.TeV)["s"]
    assert several["flux, 2.5 to 10 TeV"].value.to_value("cm-2 s-1") == pytest.approx(1.2e-11)
    # 20 TeV is beyond the data
    assert sum(name.startswith("flux") for name in several) == 2
    every = known.models.parameters()
    frozen = known.models.with_parameters(
        {n: Parameter(p.name, p.value, p.unit, frozen=True) for n, p in every.items()}
    )
    assert spectral_numbers(_result(frozen, (), np.zeros((0, 0)), [1.0, 10.0])) == {}
