"""Comparison of fits: probabilities by hand and by toys, what is nested, what lies on an edge, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from scipy.stats import chi2, norm

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import DatasetStat, FitResult
from dl3flow.errors import InputError
from dl3flow.fit.compare import compare, log_tail
from dl3flow.fit.minimise import fit
from dl3flow.models.source import Component, Models, Parameter, Source

DNDE = u.Unit("cm-2 s-1 TeV-1")


def _power_law(name: str = "s", **changes: Any) -> Source:
    parameters = (
        Parameter("amplitude", 1e-12, DNDE, **changes),
        Parameter("index", 2.0),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    )
    return Source(name, Component("power_law", parameters), None)


def _log_parabola(beta_limits: tuple[float, float] = (np.nan, np.nan), *, is_frozen: bool = False) -> Source:
    low, high = beta_limits
    parameters = (
        Parameter("amplitude", 1e-12, DNDE),
        Parameter("reference", 1.0, u.TeV, frozen=True),
        Parameter("alpha", 2.0),
        Parameter("beta", 0.0, min=low, max=high, frozen=is_frozen),
    )
    return Source("s", Component("log_parabola", parameters), None)


def _result(
    stat: float, *sources: Source, counts: float = 10.0, n_bins: int = 100, ok: bool = True
) -> FitResult:
    models = Models(sources)
    free = tuple(n for n, p in models.parameters().items() if not p.frozen)
    none = np.zeros(1)
    data = DatasetStat("d", stat, n_bins, [1, 10] * u.TeV, np.array([counts]), none, none)
    covariance = np.eye(len(free))
    return FitResult(ok, "" if ok else "no minimum", stat, models, free, covariance, (data,), {})


def test_one_parameter_within() -> None:
    """A curvature that may have either sign: 9 in stat are 3 sigma, 0.27 %."""
    found = compare(_result(109.0, _power_law()), _result(100.0, _log_parabola()))
    assert (found.ts, found.n_dof, found.is_boundary) == (9.0, 1, False)
    assert found.p_value == pytest.approx(0.0026998, rel=1e-4)
    assert found.sigma == pytest.approx(3.0)
    assert found.delta_aic == pytest.approx(2 - 9)
    assert found.delta_bic == pytest.approx(np.log(100) - 9)
    assert found.sentence == "9.00 in stat for 1 more free parameter: p = 0.0027, 3.0 sigma"


def test_one_parameter_on_an_edge() -> None:
    """A curvature that cannot be negative: half the probability, and still the root of the test statistic."""
    found = compare(_result(109.0, _power_law()), _result(100.0, _log_parabola((0.0, np.nan))))
    assert found.is_boundary
    assert found.p_value == pytest.approx(0.0013499, rel=1e-4)
    assert found.sigma == pytest.approx(3.0)
    assert "edge of what the alternative allows (s.beta)" in found.sentence
    assert "half of that of chi2 with one degree of freedom (Chernoff 1954)" in found.sentence


def test_the_same_parameter_frozen_and_free() -> None:
    frozen = _result(104.0, _log_parabola(is_frozen=True))
    found = compare(frozen, _result(100.0, _log_parabola()))
    assert (found.n_dof, found.is_boundary) == (1, False)
    assert found.sigma == pytest.approx(2.0)
    assert compare(frozen, _result(100.0, _log_parabola((0.0, np.nan)))).is_boundary


def test_an_extension_starts_at_its_edge() -> None:
    def placed(spatial: Component) -> Source:
        return replace(_power_law(), spatial=spatial)

    place = (Parameter("lon_0", 83.6, u.deg), Parameter("lat_0", 22.0, u.deg))
    size = Parameter("sigma", 0.1, u.deg)
    fixed = (Parameter("e", 0.0, frozen=True), Parameter("phi", 0.0, u.deg, frozen=True))
    point, gauss = Component("point", place), Component("gauss", (*place, size, *fixed))
    found = compare(_result(125.0, placed(point)), _result(100.0, placed(gauss)))
    assert (found.n_dof, found.is_boundary) == (1, True)
    assert found.sigma == pytest.approx(5.0)
    assert found.p_value == pytest.approx(norm.sf(5), rel=1e-6)


def test_a_further_source() -> None:
    """Amplitude at its edge and an index that means nothing without it: mean of one and two degrees, and a warning."""
    null = _result(110.0, _power_law())
    found = compare(null, _result(100.0, _power_law(), _power_law("t", min=0.0)))
    assert (found.n_dof, found.is_boundary) == (2, True)
    assert found.p_value == pytest.approx(0.5 * (chi2.sf(10, 1) + chi2.sf(10, 2)))
    assert found.sigma == pytest.approx(norm.isf(found.p_value))
    assert "without its source the parameters t.index mean nothing" in found.sentence
    # an amplitude that may be negative lies on no edge
    found = compare(null, _result(100.0, _power_law(), _power_law("t")))
    assert not found.is_boundary
    assert found.p_value == pytest.approx(chi2.sf(10, 2))


def test_probabilities_of_mixtures_and_far_tails() -> None:
    assert log_tail(0.0, 1) == 0
    assert np.exp(log_tail(5.0, 3)) == pytest.approx(chi2.sf(5, 3))
    two_edges = 0.25 * chi2.sf(5, 1) + 0.5 * chi2.sf(5, 2) + 0.25 * chi2.sf(5, 3)
    assert np.exp(log_tail(5.0, 3, 2)) == pytest.approx(two_edges)
    # two degrees of freedom: exactly exp(-ts / 2), also where that is no number any more
    assert log_tail(4000.0, 2) == pytest.approx(-2000)
    assert log_tail(4000.0, 4) == pytest.approx(-2000 + np.log(2001))
    far = compare(_result(10_100.0, _power_law()), _result(100.0, _log_parabola()))
    assert far.p_value == 0
    assert far.sigma == pytest.approx(100.0, rel=1e-9)
    # 2 phi(100) / 100 (1 - 1e-4)
    assert "p = 2.69e-2174" in far.sentence


def test_models_that_are_not_nested() -> None:
    """By criteria only: 2 more parameters cost 4, and 2 ln 100."""
    parameters = (
        Parameter("const", 1e-12, DNDE),
        Parameter("b", 1.0),
        Parameter("c", 1.0),
        Parameter("d", 1.0),
    )
    other = Source("s", Component("other", parameters), None)
    found = compare(_result(103.0, _power_law()), _result(100.0, other))
    assert np.isnan(found.p_value)
    assert np.isnan(found.sigma)
    assert (found.delta_aic, found.delta_bic) == (pytest.approx(1.0), pytest.approx(2 * np.log(100) - 3))
    assert "not nested" in found.sentence
    assert "the null is preferred" in found.sentence
    # who knows better may say so
    told = compare(_result(103.0, _power_law()), _result(100.0, other), is_nested=True)
    assert told.p_value == pytest.approx(np.exp(-1.5))
    # what is free in the null and frozen in the alternative
    frozen = replace(_power_law(), spectral=replace(_log_parabola().spectral, kind="log_parabola"))
    still = frozen.spectral.parameters[2]
    fixed = replace(
        frozen.spectral,
        parameters=(
            *frozen.spectral.parameters[:2],
            replace(still, frozen=True),
            frozen.spectral.parameters[3],
        ),
    )
    assert np.isnan(
        compare(_result(103.0, _power_law()), _result(100.0, replace(frozen, spectral=fixed))).sigma
    )


def _changed(result: FitResult, **changes: Any) -> FitResult:
    """A fit with parameters of ``s`` changed, a number being another value at which one is frozen."""
    old = result.models.parameters()
    values = {f"s.{n}": v for n, v in changes.items()}
    new = {n: replace(old[n], value=v, frozen=True) for n, v in values.items()}
    free = tuple(n for n in result.free if n not in values)
    return replace(result, models=result.models.with_parameters(new), free=free)


def test_what_is_frozen_in_both_must_agree() -> None:
    """A slope of 2.0 is no special case of one of 3.0, nor a curvature of 0 of one of 0.3."""
    null = _changed(_result(109.0, _power_law()), index=2.0)
    wide = _result(100.0, _log_parabola())
    assert compare(null, _changed(wide, alpha=2.0)).sigma == pytest.approx(3.0)
    apart = compare(null, _changed(wide, alpha=3.0))
    assert np.isnan(apart.sigma)
    assert "not nested" in apart.sentence
    assert compare(null, _changed(wide, beta=0.0)).sigma == pytest.approx(3.0)
    assert np.isnan(compare(null, _changed(wide, beta=0.3)).sigma)


def test_a_reference_matters_only_where_nothing_makes_up_for_it() -> None:
    null, wide = _result(109.0, _power_law()), _result(100.0, _log_parabola())
    assert compare(null, _changed(wide, reference=3.0)).sigma == pytest.approx(3.0)
    # the same energy in another unit is the same
    energy = replace(null.models.parameters()["s.reference"], value=1e3, unit=u.GeV)
    held = _changed(null, amplitude=1e-12)
    held = replace(held, models=held.models.with_parameters({"s.reference": energy}))
    assert compare(held, _changed(wide, amplitude=1e-12)).sigma == pytest.approx(3.0)
    assert np.isnan(compare(held, _changed(wide, amplitude=1e-12, reference=3.0)).sigma)


def test_a_further_source_that_cannot_vanish_is_no_wider_model() -> None:
    null = _result(110.0, _power_law())
    shining = _power_law("t", frozen=True)
    assert np.isnan(compare(null, _result(100.0, _power_law(), shining)).sigma)


def test_what_is_doubtful_is_said() -> None:
    worse = compare(_result(100.0, _power_law()), _result(101.0, _log_parabola(), ok=False))
    assert worse.p_value == 1
    assert worse.sigma == 0
    assert "the alternative fits worse than the null within it: its minimum was not found" in worse.sentence
    assert "the fit of the alternative is doubtful (no minimum)" in worse.sentence


def test_what_cannot_be_compared_is_refused() -> None:
    null, wide = _result(103.0, _power_law()), _result(100.0, _log_parabola())
    with pytest.raises(InputError, match="different bins or counts of 'd'"):
        compare(null, _result(100.0, _log_parabola(), counts=11.0))
    with pytest.raises(InputError, match="different bins or counts of 'd'"):
        compare(null, _result(100.0, _log_parabola(), n_bins=99))
    renamed = replace(wide, datasets=(replace(wide.datasets[0], name="e"),))
    with pytest.raises(InputError, match="different data"):
        compare(null, renamed)
    with pytest.raises(InputError, match="give the narrower model first"):
        compare(null, null)


def test_a_source_that_is_not_there(
    spectrum: Callable[..., Dataset], spectral_models: Callable[..., Models]
) -> None:
    """200 spectra of background alone: an amplitude that cannot be negative has no test statistic in half of them.

    With the index known, 50 % +- 3.5 % at zero, and 5 % +- 1.5 % above the 2.71 of a probability of 5 %, at three sigma.
    """
    found = []
    for seed in range(200):
        dataset = spectrum(seed=seed, n_energy=5, level=30.0, amplitude=0.0)
        models = spectral_models(1e-12, low=0.0)
        models = models.with_parameters({"s.index": replace(models.parameters()["s.index"], frozen=True)})
        alternative = fit([dataset], models)
        amplitude = models.parameters()["s.amplitude"]
        null = fit(
            [dataset], models.with_parameters({"s.amplitude": replace(amplitude, value=0.0, frozen=True)})
        )
        comparison = compare(null, alternative)
        assert comparison.is_boundary
        found.append((comparison.ts, comparison.p_value))
    ts, p_value = np.array(found).T
    assert np.mean(ts < 0.01) == pytest.approx(0.5, abs=0.107)
    assert np.mean(p_value < 0.05) == pytest.approx(0.05, abs=0.047)
    assert np.mean(p_value < 0.25) == pytest.approx(0.25, abs=0.093)
