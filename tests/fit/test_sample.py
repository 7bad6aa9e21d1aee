"""Samplers on posteriors that are known, and the posterior of a fit."""

import builtins
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.fit.minimise import fit
from dl3flow.fit.propagate import integral_flux
from dl3flow.fit.sample import SAMPLERS, autocorrelation_time, build_log_posterior, sample
from dl3flow.models.source import Models, Prior

Make = Callable[..., Dataset]
MakeModels = Callable[..., Models]

MEAN = np.array([3e-12, 2.5, -40.0])
SIGMA = np.array([2e-13, 0.1, 5.0])
CORRELATION = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 1.0]])
_INVERSE = np.linalg.inv(CORRELATION)


def gaussian(x: np.ndarray) -> float:
    pull = (x - MEAN) / SIGMA
    return float(-0.5 * pull @ _INVERSE @ pull)


def _needs(name: str) -> None:
    if name == "emcee":
        pytest.importorskip("emcee", reason="the optional sampler emcee is not installed")


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_a_gaussian_is_returned(name: str) -> None:
    """Mean to 0.05 of the errors, errors to 5 %, correlations to 0.05, from a start that is too narrow and off."""
    _needs(name)
    start = MEAN + SIGMA * (1 + 0.3 * np.random.default_rng(1).standard_normal((40, 3)))
    chain = SAMPLERS.find(name, "test")(gaussian, start, 7, n_steps=2500)
    assert chain.values.shape == (2500, 40, 3)
    kept = chain.values[500:].reshape(-1, 3)
    pulls = (kept - MEAN) / SIGMA
    assert pulls.mean(axis=0) == pytest.approx(np.zeros(3), abs=0.05)
    assert np.cov(pulls.T) == pytest.approx(CORRELATION, abs=0.06)
    assert 0.3 < chain.acceptance < 0.9
    assert chain.log_posterior[10, 3] == pytest.approx(gaussian(chain.values[10, 3]))


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_the_same_seed_gives_the_same_chain(name: str) -> None:
    _needs(name)
    start = MEAN + SIGMA * np.random.default_rng(1).standard_normal((8, 3))
    kept = start.copy()
    start.setflags(write=False)
    run = SAMPLERS.find(name, "test")
    one, two, other = (run(gaussian, start, seed, n_steps=20) for seed in (3, 3, 4))
    assert np.array_equal(one.values, two.values)
    assert not np.array_equal(one.values, other.values)
    assert np.array_equal(start, kept)


def test_an_edge_holds_walkers_back() -> None:
    """An exponential above zero: mean 1, 63.2 % below 1."""

    def exponential(x: np.ndarray) -> float:
        return -float(x[0]) if x[0] >= 0 else -np.inf

    start = np.random.default_rng(1).random((20, 1))
    values = SAMPLERS.find("stretch", "test")(exponential, start, 1, n_steps=4000).values[500:]
    assert values.min() >= 0
    assert values.mean() == pytest.approx(1.0, abs=0.05)
    assert (values < 1).mean() == pytest.approx(1 - np.exp(-1), abs=0.02)


def test_correlation_times() -> None:
    """x_k = 0.9 x_(k-1) + noise: (1 + 0.9) / (1 - 0.9) = 19 steps; independent numbers: 1."""
    random = np.random.default_rng(1)
    noise = random.standard_normal((20_000, 8))
    assert autocorrelation_time(noise) == pytest.approx(1.0, abs=0.1)
    x = np.zeros_like(noise)
    for k in range(1, len(x)):
        x[k] = 0.9 * x[k - 1] + noise[k]
    assert autocorrelation_time(x) == pytest.approx(19.0, rel=0.1)
    assert np.isnan(autocorrelation_time(np.ones((100, 2))))


def test_posterior_of_a_fit(spectrum: Make, spectral_models: MakeModels) -> None:
    """Of many counts it is the Gaussian of the fit; flux errors from its samples are those of the covariance."""
    dataset = spectrum(seed=4, n_energy=4, level=50.0, amplitude=1e-8)
    result = fit([dataset], spectral_models(1e-8))
    found = sample([dataset], result, {"name": "stretch", "n_steps": 400}, seed=2)
    assert found.names == result.free
    assert found.values.shape == (300 * 32, 2)
    errors = np.sqrt(np.diag(result.covariance))
    best = [result.parameter(n).value for n in result.free]
    assert (found.mean - best) / errors == pytest.approx([0, 0], abs=0.25)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(errors, rel=0.15)
    assert np.all(found.autocorrelation > 1)
    assert np.all(found.n_effective < len(found.values))
    low, high = found.interval("s.index")
    assert (high - low) / 2 == pytest.approx(result.parameter("s.index").error, rel=0.15)
    flux = integral_flux(result, "s", 1 * u.TeV, 10 * u.TeV)
    sampled = integral_flux(result, "s", 1 * u.TeV, 10 * u.TeV, samples=found)
    assert sampled.error.value == pytest.approx(flux.error.value, rel=0.15)
    assert (found.meta["sampler"], found.meta["n_burn"], found.meta["seed"]) == ("stretch", 100, 2)


def test_the_same_seed_gives_the_same_samples(spectrum: Make, spectral_models: MakeModels) -> None:
    dataset = spectrum(seed=4, n_energy=4, level=50.0, amplitude=1e-8)
    result = fit([dataset], spectral_models(1e-8))
    one, two, other = (
        sample([dataset], result, {"name": "stretch", "n_steps": 10}, seed=seed) for seed in (2, 2, 3)
    )
    assert np.array_equal(one.values, two.values)
    assert not np.array_equal(one.values, other.values)


def test_log_posterior_is_half_the_statistic(spectrum: Make, spectral_models: MakeModels) -> None:
    """0 at the best fit, about -1/2 one error away along an eigenvector, minus infinity beyond a limit."""
    dataset = spectrum(seed=4, level=50.0, amplitude=3e-10)
    result = fit([dataset], spectral_models(3e-10, low=0.0))
    log_posterior = build_log_posterior([dataset], result)
    best = np.array([result.parameter(n).value for n in result.free])
    assert log_posterior(best) == pytest.approx(0, abs=1e-6)
    root = np.linalg.cholesky(result.covariance / np.outer(best, best))
    for k in range(2):
        assert log_posterior(best * (1 + root[:, k])) == pytest.approx(-0.5, abs=0.06)
    assert log_posterior(np.array([-1e-12, 2.0])) == -np.inf


def test_a_limit_shapes_the_posterior(spectrum: Make, spectral_models: MakeModels) -> None:
    """Background alone: the amplitude, which cannot be negative, piles up at zero."""
    dataset = spectrum(seed=None, n_energy=5, level=100.0, amplitude=0.0)
    models = spectral_models(3e-12, low=0.0)
    models = models.with_parameters({"s.index": replace(models.parameters()["s.index"], frozen=True)})
    free = spectral_models(3e-12)
    free = free.with_parameters({"s.index": replace(free.parameters()["s.index"], frozen=True)})
    error = fit([dataset], free).parameter("s.amplitude").error
    result = replace(fit([dataset], models), covariance=np.array([[error**2]]))
    found = sample([dataset], result, {"name": "stretch", "n_steps": 300}, seed=1)
    assert found.values.min() >= 0
    # half a Gaussian of the free fit's error
    assert found.mean[0] == pytest.approx(error * np.sqrt(2 / np.pi), rel=0.15)


def test_limits_of_a_prior(spectrum: Make, spectral_models: MakeModels) -> None:
    dataset = spectrum(seed=4, level=50.0, amplitude=3e-10)
    result = fit([dataset], spectral_models(3e-10))
    index = result.parameter("s.index")
    prior = Prior("uniform", {"min": index.value - 0.01, "max": index.value + 0.01})
    narrow = replace(result, models=result.models.with_parameters({"s.index": replace(index, prior=prior)}))
    found = sample([dataset], narrow, {"name": "stretch", "n_steps": 60}, seed=1)
    column = found.values[:, found.names.index("s.index")]
    assert column.min() >= index.value - 0.01
    assert column.max() <= index.value + 0.01
    # a uniform density of width 0.02
    assert column.std() == pytest.approx(0.02 / np.sqrt(12), rel=0.2)


def test_a_short_chain_says_so(spectrum: Make, spectral_models: MakeModels) -> None:
    dataset = spectrum(seed=4, level=50.0, amplitude=3e-10)
    result = fit([dataset], spectral_models(3e-10))
    found = sample([dataset], result, {"name": "stretch", "n_steps": 40}, n_burn=0)
    assert "the samples are independent enough" in found.meta["warnings"][0]
    with pytest.raises(InputError, match=r"40 of 40 steps cannot be left out: lower `n_burn`"):
        sample([dataset], result, {"name": "stretch", "n_steps": 40}, n_burn=40)
    with pytest.raises(InputError, match="3 walkers for 2 parameters: take an even number of at least 4"):
        sample([dataset], result, n_walkers=3)
    with pytest.raises(InputError, match="unknown sampler 'emce'"):
        sample([dataset], result, "emce")
    frozen = replace(result, free=(), covariance=np.zeros((0, 0)))
    with pytest.raises(InputError, match="no free parameter"):
        sample([dataset], frozen)
    with pytest.raises(InputError, match="no error, so walkers have no place to start"):
        sample([dataset], replace(result, covariance=np.zeros((2, 2))))


def test_a_sampler_that_is_not_installed_is_asked_for(
    spectrum: Make, spectral_models: MakeModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = spectrum(seed=4, level=50.0, amplitude=3e-10)
    result = fit([dataset], spectral_models(3e-10))
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "emcee":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'dl3flow\[sampling\]'"):
        sample([dataset], result, "emcee")


def test_the_optional_sampler_agrees_with_ours(spectrum: Make, spectral_models: MakeModels) -> None:
    _needs("emcee")
    dataset = spectrum(seed=4, n_energy=4, level=50.0, amplitude=1e-8)
    result = fit([dataset], spectral_models(1e-8))
    ours, theirs = (
        sample([dataset], result, {"name": name, "n_steps": 200}, seed=1) for name in ("stretch", "emcee")
    )
    errors = np.sqrt(np.diag(result.covariance))
    assert (ours.mean - theirs.mean) / errors == pytest.approx([0, 0], abs=0.3)
    assert np.sqrt(np.diag(ours.covariance)) == pytest.approx(np.sqrt(np.diag(theirs.covariance)), rel=0.2)
