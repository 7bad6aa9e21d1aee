"""Fake counts follow their expectation, and a fit gives back what was put in."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import predict_counts
from dl3flow.models.source import Models
from dl3flow.simulate.fake import fake


def _with_off(dataset: Dataset, alpha: float) -> Dataset:
    ones = np.ones(dataset.counts.data.shape)
    maps = (dataset.mu_bkg / alpha, ones, ones / alpha)
    return replace(dataset, background=OffCounts(*(dataset.counts.with_data(data) for data in maps)))


def test_counts_follow_the_expectation(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    dataset = small_dataset()
    signal, background = predict_counts(dataset, point_models())
    total = float((signal + background).sum())
    drawn = [fake(dataset, signal, seed).counts.data.sum() for seed in range(20)]
    # twenty totals: their mean within three of its standard deviations, their width near the root
    assert np.mean(drawn) == pytest.approx(total, abs=3 * np.sqrt(total / 20))
    assert np.std(drawn) == pytest.approx(np.sqrt(total), rel=0.5)
    assert np.array_equal(fake(dataset, signal, 3).counts.data, fake(dataset, signal, 3).counts.data)
    assert isinstance(fake(dataset, signal, 3).background, ExpectedCounts)


def test_off_counts_are_those_of_the_background(small_dataset: Callable[..., Dataset]) -> None:
    dataset = _with_off(small_dataset(), 0.1)
    found = fake(dataset, np.zeros(dataset.counts.data.shape), 5)
    assert isinstance(found.background, OffCounts)
    expected = dataset.mu_bkg.sum() / 0.1
    assert found.background.counts.data.sum() == pytest.approx(expected, abs=4 * np.sqrt(expected))
    # without a signal the excess is none
    error = np.sqrt(dataset.mu_bkg.sum() * 1.1)
    assert found.counts.data.sum() - found.mu_bkg.sum() == pytest.approx(0, abs=4 * error)


def test_a_fit_finds_what_was_put_in(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    dataset, truth = _with_off(small_dataset(), 0.2), point_models(1e-9)
    faked = fake(dataset, predict_counts(dataset, truth)[0], 11)
    found = fit([faked], truth).models.parameters()
    for name, p in truth.parameters().items():
        if not p.frozen:
            assert found[name].value == pytest.approx(p.value, abs=4 * found[name].error), name


def test_what_cannot_be_drawn_is_refused(small_dataset: Callable[..., Dataset]) -> None:
    dataset = small_dataset()
    with pytest.raises(InputError, match="the signal to draw from must be finite, not negative"):
        fake(dataset, -np.ones(dataset.counts.data.shape), 1)
    with pytest.raises(InputError, match="it has no background to draw from"):
        fake(replace(dataset, background=None), np.zeros(dataset.counts.data.shape), 1)
