"""The test statistic of a source has the right null: all else fitted again, in closed forms of one bin."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.fit.minimise import fit, source_ts
from dl3flow.models.source import Models, Source

Make = Callable[..., Dataset]
MakeModels = Callable[..., Models]


def _counted(dataset: Dataset, n: float) -> Dataset:
    return replace(dataset, counts=replace(dataset.counts, data=np.full(dataset.counts.data.shape, n)))


def _with_known_index(models: Models) -> Models:
    return models.with_parameters({"s.index": replace(models.parameters()["s.index"], frozen=True)})


def _named(source: Source, name: str) -> Source:
    return replace(source, name=name)


def test_a_known_background(spectrum: Make, spectral_models: MakeModels) -> None:
    """30 counts on 20: 2 (20 - 30 + 30 ln 1.5), in `fit.json` and alone."""
    dataset = _counted(spectrum(seed=None, n_energy=1, level=20.0), 30.0)
    result = fit([dataset], _with_known_index(spectral_models(1e-12)))
    expected = 2 * (20 - 30 + 30 * np.log(1.5))
    assert result.minimiser["ts"]["s"] == pytest.approx(expected, abs=1e-6)
    assert source_ts([dataset], result, "s") == pytest.approx(expected, abs=1e-6)


def test_a_measured_background_is_that_of_li_and_ma(spectrum: Make, spectral_models: MakeModels) -> None:
    """13 on, 11 off, alpha 0.5: 4.380, without any signal left in the null."""
    dataset = spectrum(seed=None, n_energy=1, level=5.5, alpha=0.5)
    assert isinstance(dataset.background, OffCounts)
    off = replace(dataset.background.counts, data=np.full((1, 1, 1), 11.0))
    dataset = _counted(replace(dataset, background=replace(dataset.background, counts=off)), 13.0)
    result = fit([dataset], _with_known_index(spectral_models(1e-12)))
    equation_17 = 2 * (13 * np.log(3 * 13 / 24) + 11 * np.log(1.5 * 11 / 24))
    assert result.minimiser["ts"]["s"] == pytest.approx(equation_17, abs=1e-5)


def test_the_other_source_is_fitted_again(spectrum: Make, spectral_models: MakeModels) -> None:
    """Of two sources of one shape either can go: the other takes its counts. Were it kept as it was, it could not."""
    dataset = spectrum(seed=2, level=5.0, amplitude=3e-10)
    (one,) = _with_known_index(spectral_models(1.5e-10)).sources
    both = Models((one, _named(one, "t")))
    amplitude = both.parameters()["t.amplitude"]
    # of two amplitudes of one shape only the sum is known: one is held while the fit is made
    held = both.with_parameters({"t.amplitude": replace(amplitude, frozen=True)})
    result = fit([dataset], held)
    free = replace(result, models=result.models.with_parameters({"t.amplitude": amplitude}))
    assert source_ts([dataset], free, "s") == pytest.approx(0, abs=1e-4)
    assert source_ts([dataset], result, "s") > 50
    assert result.minimiser["ts"]["t"] == pytest.approx(0, abs=1e-4)


def test_a_source_on_its_limit_has_none(spectrum: Make, spectral_models: MakeModels) -> None:
    """10 counts on 20: the amplitude ends at zero, and nothing is gained. Without a limit the deficit has a statistic."""
    dataset = _counted(spectrum(seed=None, n_energy=1, level=20.0), 10.0)
    bounded = fit([dataset], _with_known_index(spectral_models(1e-12, low=0.0)))
    assert bounded.minimiser["ts"]["s"] == pytest.approx(0, abs=1e-3)
    free = fit([dataset], _with_known_index(spectral_models(1e-12)))
    assert free.minimiser["ts"]["s"] == pytest.approx(2 * (20 - 10 + 10 * np.log(0.5)), abs=1e-5)
    assert free.parameter("s.amplitude").value < 0
