"""Separable rates: exact where counts are their expectation."""

import numpy as np
import pytest

from dl3flow.kernels.acceptance import (
    extended,
    fit_separable,
    joined_bins,
    local_index,
    mean_over_center,
    power_law_tail,
    radial_shape,
    smoothed_shape,
)


def test_groups_of_energies() -> None:
    assert joined_bins(np.array([0, 3, 2, 9, 1, 4, 1]), 5).tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert joined_bins(np.array([1, 1]), 5).tolist() == [0, 0]


def test_mean_of_a_power_law_over_its_value_at_the_centre() -> None:
    edges = np.array([1.0, 4.0])  # centre 2
    # E^-2: (1 - 1/4) / 3 = 1/4, which is the value at 2; E^0 is flat; E^1: 2.5 over 2
    assert mean_over_center(edges, np.array([2.0])) == pytest.approx([1.0])
    assert mean_over_center(edges, np.array([0.0])) == pytest.approx([1.0])
    assert mean_over_center(edges, np.array([-1.0])) == pytest.approx([1.25])
    # E^-1: ln 4 / 3 over 1/2
    assert mean_over_center(edges, np.array([1.0])) == pytest.approx([2 * np.log(4) / 3])


def test_local_index_of_a_power_law_with_a_gap() -> None:
    energy = np.array([1.0, 2.0, 4.0, 8.0])
    assert local_index(energy, np.array([0.0, 2.0**-3, 4.0**-3, 8.0**-3])) == pytest.approx([0, 3, 3, 3])


def test_tail_is_the_power_law_that_made_the_counts() -> None:
    edges = np.geomspace(1, 100, 11)
    center = np.sqrt(edges[1:] * edges[:-1])
    index = np.full(10, 2.7)
    exposure = np.linspace(1, 2, 10)
    spectrum = 2000 * center**-2.7
    counts = spectrum * mean_over_center(edges, index) * np.diff(edges) * exposure
    few = counts < 25
    assert 2 < np.count_nonzero(few) < 7
    broken = np.where(few, 0.0, spectrum)
    assert power_law_tail(edges, broken, counts, exposure) == pytest.approx(spectrum, rel=1e-4)
    # bins without exposure stay without rate
    blind = exposure.copy()
    blind[-1] = 0
    assert power_law_tail(edges, broken, np.where(blind > 0, counts, 0), blind)[-1] == 0
    assert np.array_equal(power_law_tail(edges, spectrum, counts * 1e6, exposure), spectrum)


def test_one_bin_more_at_each_end_goes_on_as_a_power_law() -> None:
    edges = np.geomspace(1, 64, 7)
    spectrum = np.sqrt(edges[1:] * edges[:-1]) ** -2.5
    measured = spectrum * np.array([0, 0, 1, 1, 1, 0])
    assert extended(edges, measured) == pytest.approx(spectrum * np.array([0, 1, 1, 1, 1, 1]))
    assert np.array_equal(extended(edges, spectrum), spectrum)
    one = np.array([0.0, 3, 0, 0, 0, 0])
    assert np.array_equal(extended(edges, one), one)


def test_norms_spectrum_and_shape_are_found_from_expectations() -> None:
    rng = np.random.default_rng(1)
    offset = np.arange(6) + 0.5
    shape = np.exp(-0.3 * offset)
    spectrum = np.array([9.0, 4.0, 2.0, 1.0])
    norms, ontime = np.array([0.6, 1.0, 1.7]), np.array([100.0, 300.0, 200.0])
    norms = norms * ontime.sum() / (norms * ontime).sum()
    energies = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]], dtype=bool)
    area = rng.uniform(0.2, 1, (3, 6))
    mu = (norms * ontime)[:, None, None] * energies[:, :, None] * area[:, None] * spectrum[:, None] * shape
    found = fit_separable(
        mu.sum(axis=0), mu.sum(axis=(1, 2)), ontime, energies, area, 1, radial_shape(offset, 0.0)
    )
    assert found.norms == pytest.approx(norms, rel=1e-6)
    rate = found.spectrum[:, None] * found.shape
    assert rate == pytest.approx(spectrum[:, None] * shape, rel=1e-6)
    assert found.spectrum * found.exposure == pytest.approx(mu.sum(axis=(0, 2)))


def test_few_counts_share_one_shape() -> None:
    counts = np.array([[80.0, 20.0], [3.0, 0.0], [0.0, 1.0]])
    found = fit_separable(
        counts,
        np.array([104.0]),
        np.ones(1),
        np.ones((1, 3), dtype=bool),
        np.ones((1, 2)),
        100,
        radial_shape(np.array([0.5, 1.5])),
    )
    assert found.shape == pytest.approx(np.tile([2 * 83 / 104, 2 * 21 / 104], (3, 1)))
    assert found.spectrum == pytest.approx([50, 1.5, 0.5])


def test_rings_of_few_counts_join_and_those_beyond_the_camera_have_no_rate() -> None:
    shape = radial_shape(np.array([0.5, 1.5, 2.5]))
    counts = np.array([[8.0, 0.0, 0.0], [8.0, 2.0, 0.0]])
    assert shape(counts, np.full((2, 3), 4.0)) == pytest.approx(np.array([[1, 1, 0], [2, 0.5, 0]]))
    # 900 and 300 counts, then 150 + 90 that join, at the mean offset 3 between the values 3 and 1.2
    many = radial_shape(np.array([0.5, 1.5, 2.5, 3.5]))(
        np.array([[900.0, 300.0, 150.0, 90.0]]), np.full((1, 4), 100.0)
    )[0]
    assert many[:2] == pytest.approx([9, 3])
    assert many[2] == pytest.approx(3 * (1.2 / 3) ** (1 / 1.5))
    assert many[3] == pytest.approx(1.2)


def test_smoothing_keeps_a_radial_camera_and_follows_a_gradient() -> None:
    x = np.arange(-9.5, 10)
    lon, lat = np.meshgrid(x, x, indexing="ij")
    offset = np.hypot(lon, lat).ravel()
    radial = np.exp(-0.5 * (offset / 8) ** 2)
    shape = smoothed_shape(offset, (20, 20), 2.0)
    flat = np.ones((1, 400))
    inner = offset < 9
    assert shape(1e4 * radial[None], flat)[0, inner] == pytest.approx(1e4 * radial[inner], rel=0.02)
    tilted = radial * (1 + 0.03 * lon.ravel())
    found = shape(1e4 * tilted[None], flat)[0]
    assert found[inner] == pytest.approx(1e4 * tilted[inner], rel=0.06)
    # about one count where the kernel reaches: nearly the radial profile, which the gradient leaves by up to 27 %
    assert shape(0.05 * tilted[None], flat)[0, inner] == pytest.approx(0.05 * radial[inner], rel=0.1)
