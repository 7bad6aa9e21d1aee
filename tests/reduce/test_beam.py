"""The beam of a map, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.maps import PsfMap
from dl3flow.reduce.beam import beam_radius


def test_a_gaussian_holds_its_part_within_its_radius(small_dataset):
    # 1 - exp(-r^2 / 2 sigma^2) = 0.68 at sigma = 0.08 deg
    expected = 0.08 * np.sqrt(-2 * np.log(0.32))
    assert beam_radius([small_dataset()]) == pytest.approx(expected, rel=0.01)
    assert beam_radius([small_dataset(seed=1), small_dataset(seed=2)]) == pytest.approx(expected, rel=0.01)
    assert beam_radius([small_dataset()], content=0.95) == pytest.approx(
        0.08 * np.sqrt(-2 * np.log(0.05)), rel=0.01
    )


def test_energies_count_by_exposure_and_spectrum(small_dataset):
    dataset = small_dataset()
    psf = dataset.psf
    # all light of the lowest energy bin in the first ring, of the others in the second
    rad = psf.psf.axes[1]
    ring = 2 * np.pi * rad.centers.to_value("rad") * rad.widths.to_value("rad")
    values = np.zeros(psf.psf.data.shape)
    values[1, 0], values[2:, 1] = 1 / ring[0], 1 / ring[1]
    exposure = np.ones(psf.exposure.data.shape)
    other = replace(dataset, psf=PsfMap(psf.psf.with_data(values), psf.exposure.with_data(exposure)))
    edges = dataset.energy_true.edges.value
    weight = 1 / edges[:-1] - 1 / edges[1:]
    # the bins from 0.5 to 20 TeV that reach into 1 to 10 TeV
    used = (edges[1:] > 1) & (edges[:-1] < 10)
    first = np.where(np.arange(5) == 1, weight, 0)[used].sum()
    second = np.where(np.arange(5) >= 2, weight, 0)[used].sum()
    share = first / (first + second)
    assert beam_radius([other], content=0.5 * share) == pytest.approx(0.5 * 0.01)
    assert beam_radius([other], content=share + 0.5 * (1 - share)) == pytest.approx(0.015)


def test_without_a_point_spread_there_is_none(small_dataset):
    assert beam_radius([replace(small_dataset(), psf=None)]) is None
    assert beam_radius([]) is None
