"""Goodness of fit on spectra of known truth: right models pass, wrong ones do not, and probabilities are uniform."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, ExpectedCounts, FluxPointsData, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.goodness import draw_counts, goodness, saturated_stat
from dl3flow.fit.minimise import fit
from dl3flow.models.source import Models

Make = Callable[..., Dataset]
MakeModels = Callable[..., Models]


def _frozen(models: Models) -> Models:
    return models.with_parameters({n: replace(p, frozen=True) for n, p in models.parameters().items()})


def test_by_hand(spectrum: Make, spectral_models: MakeModels) -> None:
    """8 bins of 25 expected background counts without signal, 30 in the first: 2 (25 - 30 + 30 ln 1.2) and 25 / 25."""
    dataset = spectrum(seed=None, n_energy=8, level=25.0, amplitude=0.0)
    counts = dataset.counts.data.copy()
    counts[0] = 30
    dataset = replace(dataset, counts=replace(dataset.counts, data=counts))
    models = _frozen(spectral_models(0.0))
    result = fit([dataset], models)
    found = goodness([dataset], result)
    assert found.value == pytest.approx(2 * (25 - 30 + 30 * np.log(1.2)))
    assert found.value == pytest.approx(saturated_stat(dataset, models))
    # the mean of 25 counts is 1 + 1 / 150
    assert found.expected == pytest.approx(8 * (1 + 1 / 150), rel=1e-3)
    assert found.deviation == pytest.approx(4.0, rel=0.02)
    assert (found.n_bins, found.n_free) == (8, 0)
    grouped = goodness([dataset], result, "chi2")
    assert (grouped.value, grouped.expected, grouped.n_bins) == (pytest.approx(1.0), 8.0, 8)
    assert "goodness of fit (chi2): 1.0, expected 8.0 +- 4.0 for 8 groups of bins" in grouped.sentence
    two = goodness([dataset], result, "chi2", at_least=50.0)
    assert (two.n_bins, two.value) == (4, pytest.approx(25 / 50))


@pytest.mark.parametrize("alpha", [None, 0.2])
@pytest.mark.parametrize("method", ["cash", "chi2"])
def test_probabilities_of_right_models_are_uniform(
    spectrum: Make, spectral_models: MakeModels, alpha: float | None, method: str
) -> None:
    """Forty spectra: mean 1/2 +- 0.046 and a spread of 0.29, tested at three sigma."""
    found = []
    for seed in range(40):
        dataset = spectrum(seed=seed, n_energy=20, level=6.0, alpha=alpha)
        found.append(goodness([dataset], fit([dataset], spectral_models()), method).p_value)
    assert np.mean(found) == pytest.approx(0.5, abs=0.14)
    assert 0.2 < np.std(found) < 0.37


@pytest.mark.parametrize("alpha", [None, 0.2])
def test_a_wrong_model_fails(spectrum: Make, spectral_models: MakeModels, alpha: float | None) -> None:
    dataset = spectrum(seed=1, level=6.0, alpha=alpha, amplitude=3e-10)
    models = spectral_models(3e-10, 3.0)
    models = models.with_parameters({"s.index": replace(models.parameters()["s.index"], frozen=True)})
    result = fit([dataset], models)
    assert goodness([dataset], result).p_value < 1e-4
    assert goodness([dataset], result, "chi2").p_value < 1e-4


def test_measured_backgrounds_are_grouped_and_that_is_told(
    spectrum: Make, spectral_models: MakeModels
) -> None:
    """One bin of 30 on and 100 off at alpha 0.2 with 10 expected signal: (30 - 20 - 10)^2 / (30 + 4)."""
    dataset = spectrum(seed=None, n_energy=1, level=20.0, alpha=0.2, amplitude=1e-11 / 0.99, exposure=1e8)
    counts = replace(dataset.counts, data=np.full((1, 1, 1), 36.0))
    dataset = replace(dataset, counts=counts)
    found = goodness([dataset], fit([dataset], _frozen(spectral_models(1e-11 / 0.99))))
    assert found.value == pytest.approx(6**2 / 34, rel=1e-3)
    assert "spectrum: its background is measured" in found.warnings[0]


def test_more_parameters_than_bins_say_nothing(spectrum: Make, spectral_models: MakeModels) -> None:
    dataset = spectrum(seed=3, n_energy=2, level=20.0)
    found = goodness([dataset], fit([dataset], spectral_models()), "chi2", at_least=1e4)
    assert np.isnan(found.p_value)
    assert "not more bins with counts than free parameters" in found.warnings[0]


def test_toys(spectrum: Make, spectral_models: MakeModels) -> None:
    """As the moments say, on few counts; the same for the same seed; a wrong model is beyond all toys."""
    dataset = spectrum(seed=5, level=2.0, alpha=0.5)
    result = fit([dataset], spectral_models())
    one, same = (goodness([dataset], result, "toys", n_toys=40, seed=1) for _ in range(2))
    assert one.value == pytest.approx(saturated_stat(dataset, result.models))
    assert (one.expected, one.p_value) == (same.expected, same.p_value)
    assert 0.02 < one.p_value <= 1
    wrong = replace(dataset, counts=replace(dataset.counts, data=dataset.counts.data[::-1] * 5))
    assert goodness([wrong], fit([wrong], _frozen(spectral_models())), "toys", n_toys=20).p_value == 1 / 21
    with pytest.raises(InputError, match="ask for at least 20"):
        goodness([dataset], result, "toys", n_toys=3)


def test_drawn_counts_follow_the_models(spectrum: Make, spectral_models: MakeModels) -> None:
    """Means over a thousand bins; the input keeps its counts."""
    dataset = spectrum(seed=2, n_energy=1000, level=3.0, alpha=0.25, amplitude=0.0)
    before = dataset.counts.data.copy()
    drawn = draw_counts(dataset, spectral_models(0.0), np.random.default_rng(1))
    assert np.array_equal(dataset.counts.data, before)
    assert isinstance(drawn.background, OffCounts)
    assert isinstance(dataset.background, OffCounts)
    # without signal on and off together tell the background: (n_on + n_off) / (1 + alpha)
    together = (before + dataset.background.counts.data).mean() / 1.25
    assert drawn.background.counts.data.mean() == pytest.approx(together, abs=4 * np.sqrt(12 / 1000))
    assert drawn.counts.data.mean() == pytest.approx(0.25 * together, abs=4 * np.sqrt(3 / 1000))
    known = draw_counts(
        replace(dataset, background=ExpectedCounts(replace(dataset.counts, data=np.full(before.shape, 3.0)))),
        spectral_models(0.0),
        np.random.default_rng(1),
    )
    assert known.counts.data.mean() == pytest.approx(3.0, abs=4 * np.sqrt(3 / 1000))


def test_flux_points(spectral_models: MakeModels) -> None:
    """Three points one error away each: chi2 3."""
    unit = u.Unit("cm-2 s-1 TeV-1")
    truth = 3e-11 * np.array([1.0, 0.01, 1e-4]) * unit
    error = 0.1 * truth
    points = FluxPointsData(
        "p", [1, 10, 100] * u.TeV, truth + error, error, error, np.ones(3, dtype=bool), {"warnings": []}
    )
    result = fit([points], _frozen(spectral_models()))
    found = goodness([points], result)
    assert (found.value, found.expected, found.n_bins) == (pytest.approx(3.0), 3.0, 3)
    # chi2 of 3 with 3 degrees of freedom
    assert found.p_value == pytest.approx(0.3916, abs=1e-4)
    with pytest.raises(InputError, match="flux points only"):
        goodness([points], result, "toys")
