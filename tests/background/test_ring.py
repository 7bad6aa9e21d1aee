"""Background methods ``ring`` and ``adaptive_ring``: by hand, and what every ring owes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.background import BACKGROUNDS
from dl3flow.background.registry import BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.errors import InputError
from dl3flow.kernels.convolve import circle_kernel, ring_kernel
from dl3flow.reduce.reshape import to_image

MakeDataset = Callable[..., Dataset]
RING = {"name": "ring", "r_in": "0.25 deg", "width": "0.15 deg"}
ADAPTIVE = {**RING, "name": "adaptive_ring", "r_out_max": "0.81 deg", "step": "0.05 deg", "theta": "0.1 deg"}
CRAB = SkyCoord(83.63, 22.01, unit="deg")


class Run:
    """All that a ring asks of an observation."""

    obs_id = 7


def everywhere(geom: Any) -> np.ndarray:
    return np.ones(geom.shape, dtype=bool)


def apply(dataset: Dataset, entry: dict[str, Any], usable: Any = everywhere) -> Dataset:
    method, options = BACKGROUNDS.bind(entry, "background")
    return method(Run(), dataset, BackgroundInputs(usable), **options)


def off_of(dataset: Dataset) -> OffCounts:
    assert isinstance(dataset.background, OffCounts)
    return dataset.background


def flat(dataset: Dataset) -> Dataset:
    """Half a background count and two counts in every bin."""
    background = dataset.counts.with_data(np.full(dataset.counts.data.shape, 0.5))
    counts = dataset.counts.with_data(np.full(dataset.counts.data.shape, 2.0))
    return replace(dataset, counts=counts, background=ExpectedCounts(background))


def test_pixels_of_a_ring_with_both_edges() -> None:
    # the published geometry: 0.5 to 0.8 deg on pixels of 0.02 deg
    assert ring_kernel(25, 40).sum() == 3084
    assert ring_kernel(0.5 / 0.02, 0.8 / 0.02).sum() == 3084
    assert circle_kernel(5).sum() == 81
    assert circle_kernel(0.4).tolist() == [[1.0]]
    assert ring_kernel(1, 1).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_uniform_sky(small_dataset: MakeDataset) -> None:
    dataset = flat(small_dataset())
    ring = apply(dataset, RING)
    off = off_of(ring)
    pixels = ring_kernel(5, 8).sum()
    assert np.all(off.counts.data[:, 20, 20] == 2 * pixels)
    assert off.acceptance_off.data[:, 20, 20] == pytest.approx(0.5 * pixels)
    # at every pixel, also where the border cuts the ring
    assert off.counts.data[0, 0, 0] < pixels
    assert ring.mu_bkg == pytest.approx(np.full(ring.mu_bkg.shape, 2.0), rel=1e-9)
    assert ring.mask_safe.all()
    assert off.acceptance.data is dataset.background.counts.data
    assert ring.meta["background"] == {"method": "ring", "r_in": 0.25, "width": pytest.approx(0.15)}


def test_counts_are_those_of_the_loop(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    safe = dataset.geom.separation(CRAB) < np.radians(0.9)
    dataset = replace(dataset, mask_safe=np.broadcast_to(safe, dataset.mask_safe.shape))
    outside = dataset.geom.separation(CRAB) > np.radians(0.2)
    ring = off_of(apply(dataset, RING, lambda geom: outside))
    y, x = np.indices((40, 40))
    for j, i in ((20, 20), (22, 25), (3, 20), (0, 0)):
        r = np.hypot(y - j, x - i)
        chosen = (r >= 5) & (r <= 8) & safe & outside
        assert np.array_equal(ring.counts.data[:, j, i], dataset.counts.data[:, chosen].sum(axis=1))
        assert ring.acceptance_off.data[:, j, i] == pytest.approx(
            dataset.background.counts.data[:, chosen].sum(axis=1), rel=1e-9
        )


def test_an_image_is_the_sum_of_its_energies(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    cube, image = off_of(apply(dataset, RING)), off_of(apply(to_image(dataset), RING))
    assert np.array_equal(image.counts.data[0], cube.counts.data.sum(axis=0))
    assert image.acceptance_off.data[0] == pytest.approx(cube.acceptance_off.data.sum(axis=0))


def test_pixels_without_a_ring_are_not_safe_and_told(small_dataset: MakeDataset) -> None:
    west = np.arange(40) >= 30
    ring = apply(to_image(flat(small_dataset())), RING, lambda geom: np.broadcast_to(west, geom.shape))
    reached = np.arange(40) >= 22
    assert np.array_equal(ring.mask_safe[0], np.broadcast_to(reached, (40, 40)))
    assert ring.meta["warnings"] == [
        "dataset 'small': 880 of 1600 safe bins are left out: their ring holds no safe pixel outside the exclusion"
    ]
    off = off_of(ring)
    assert not off.acceptance_off.data[~ring.mask_safe].any()
    assert not off.counts.data[~ring.mask_safe].any()
    assert np.isfinite(ring.mu_bkg).all()


@pytest.mark.parametrize("method", ["fixed_width", "fixed_r_in"])
def test_the_smallest_sufficient_ring(method: str, small_dataset: MakeDataset) -> None:
    dataset = to_image(flat(small_dataset()))
    # of uniform acceptance, alpha is a ratio of pixels: circle (13) over ring
    circle = circle_kernel(2).sum()
    grown = [(5 + n, 8 + n) if method == "fixed_width" else (5, 8 + n) for n in range(5)]
    sizes = [ring_kernel(*radii).sum() for radii in grown]
    threshold = float(circle / sizes[3])
    entry = {**ADAPTIVE, "method": method}
    ring = off_of(apply(dataset, {**entry, "threshold_alpha": threshold * 1.0001}))
    assert ring.counts.data[0, 20, 20] == 6 * sizes[3]
    assert ring.acceptance.data[0, 20, 20] == 1.5
    ring = off_of(apply(dataset, {**entry, "threshold_alpha": threshold * 0.9999}))
    assert ring.counts.data[0, 20, 20] == 6 * sizes[4]


def test_the_on_region_is_the_whole_circle(small_dataset: MakeDataset) -> None:
    dataset = to_image(flat(small_dataset()))
    ring_of_5 = ring_kernel(5, 8).sum()
    for theta, pixels in (("0.01 deg", 1), ("0.1 deg", 13), ("0.2 deg", 49)):
        found = off_of(
            apply(dataset, {**ADAPTIVE, "theta": theta, "threshold_alpha": 1.001 * pixels / ring_of_5})
        )
        assert found.counts.data[0, 20, 20] == 6 * ring_of_5
        found = off_of(
            apply(dataset, {**ADAPTIVE, "theta": theta, "threshold_alpha": 0.999 * pixels / ring_of_5})
        )
        assert found.counts.data[0, 20, 20] > 6 * ring_of_5


def test_a_large_source_needs_larger_rings(small_dataset: MakeDataset) -> None:
    dataset = to_image(flat(small_dataset()))
    outside = dataset.geom.separation(CRAB) > np.radians(0.5)
    y, x = np.indices((40, 40))
    r = np.hypot(y - 20, x - 20)
    held = [np.count_nonzero((r >= 5 + n) & (r <= 8 + n) & outside) for n in range(6)]
    first = next(n for n, pixels in enumerate(held) if pixels and 13 / pixels <= 0.1)
    assert first > 1
    ring = apply(dataset, {**ADAPTIVE, "threshold_alpha": 0.1}, lambda geom: outside)
    assert off_of(ring).counts.data[0, 20, 20] == 6 * held[first]
    assert ring.mu_bkg[ring.mask_safe] == pytest.approx(6.0, rel=1e-9)


def test_no_sufficient_ring_is_told_and_never_nan(small_dataset: MakeDataset) -> None:
    ring = apply(to_image(flat(small_dataset())), {**ADAPTIVE, "threshold_alpha": 0.06})
    assert 0 < ring.mask_safe.sum() < 1600
    assert ring.meta["warnings"][0].endswith("no ring out to 0.81 deg has an alpha of at most 0.06")
    assert ring.meta["warnings"][0].startswith(
        f"dataset 'small': {1600 - ring.mask_safe.sum()} of 1600 safe bins"
    )
    assert np.isfinite(ring.mu_bkg).all()
    assert np.isfinite(off_of(ring).counts.data).all()


@pytest.mark.parametrize("entry", [RING, ADAPTIVE])
def test_what_every_ring_owes(entry: dict[str, Any], small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    before = dataset.counts.data.copy(), dataset.background.counts.data.copy(), dataset.mask_safe.copy()
    ring = apply(dataset, entry)  # arrays of the dataset are read-only
    after = dataset.counts.data, dataset.background.counts.data, dataset.mask_safe
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    off = off_of(ring)
    assert np.all(off.alpha[ring.mask_safe] > 0)
    assert np.array_equal(off.counts.data, np.rint(off.counts.data))
    assert ring.counts is dataset.counts
    nothing = replace(dataset, counts=dataset.counts.with_data(np.zeros((3, 40, 40))))
    empty = apply(nothing, entry)
    assert not empty.mu_bkg.any()
    assert not (empty.counts.data - empty.mu_bkg).any()
    assert np.array_equal(empty.mask_safe, ring.mask_safe)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {**RING, "r_in": "0.26 deg", "width": "0.001 deg"},
            r"observation 7: .* holds no pixel of 0\.05 deg",
        ),
        ({**RING, "r_in": "-1 deg"}, "r_in: expected an angle above 0"),
        (
            {**ADAPTIVE, "r_out_max": "0.4 deg"},
            "no ring from 0.25 deg with the width 0.15 deg fits below r_out_max",
        ),
        ({**ADAPTIVE, "step": "1e-5 deg"}, "make `step`, 1e-05 deg, larger"),
        ({**ADAPTIVE, "threshold_alpha": 0}, "threshold_alpha: expected a number above 0, found 0"),
    ],
)
def test_wrong_options(entry: dict[str, Any], words: str, small_dataset: MakeDataset) -> None:
    with pytest.raises(InputError, match=words):
        apply(small_dataset(), entry)


def test_what_a_ring_cannot_use(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    with pytest.raises(InputError, match="observation 7: the background `ring` takes a background response"):
        apply(replace(dataset, background=None), RING)
    method, options = BACKGROUNDS.bind(RING, "background")
    with pytest.raises(InputError, match="cannot `subtract` sources"):
        method(Run(), dataset, BackgroundInputs(everywhere, np.zeros((3, 40, 40))), **options)
