"""Stacking rules by arithmetic on synthetic datasets."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.source import Models
from dl3flow.reduce.stack import stack

MakeDataset = Callable[..., Dataset]


@pytest.fixture
def geometries(small_dataset: MakeDataset) -> tuple[SkyGeometry, SkyGeometry]:
    whole = small_dataset()
    assert whole.psf is not None
    return whole.geom, whole.psf.psf.geom


def _with_mask(dataset: Dataset, mask: np.ndarray) -> Dataset:
    return replace(dataset, mask_safe=mask)


def test_sums_over_safe_bins(small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]) -> None:
    a, b = small_dataset("a", seed=1), small_dataset("b", seed=2)
    mask = np.ones((3, 40, 40), dtype=bool)
    mask[0, :10] = False  # one energy unsafe in the south
    mask[:, :, 35:] = False  # nothing safe in the west
    total = stack([a, _with_mask(b, mask)], "sum", *geometries)
    assert np.array_equal(total.counts.data, a.counts.data + b.counts.data * mask)
    assert total.background.counts.data == pytest.approx(
        a.background.counts.data + b.background.counts.data * mask
    )
    exposure = a.exposure.data + b.exposure.data * mask.any(axis=0)
    assert total.exposure.data == pytest.approx(exposure)
    assert total.mask_safe.all()
    assert total.meta["livetime"] == 1900.0
    assert total.meta["obs_ids"] == [1, 2]
    assert total.gti.ontime.to_value("s") == 2000.0
    assert total.mask_fit is None


def test_dispersion_is_averaged_into_safe_energies_only(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    a, b = small_dataset("a", seed=1), small_dataset("b", seed=2)
    assert a.edisp is not None
    assert b.edisp is not None
    sharper = np.zeros((5, 3, 4, 4))
    sharper[:3] = np.eye(3)[:, :, None, None]
    b = replace(b, edisp=replace(b.edisp, edisp=b.edisp.edisp.with_data(sharper)))
    mask = np.ones((3, 40, 40), dtype=bool)
    mask[0] = False
    total = stack([a, _with_mask(b, mask)], "sum", *geometries)
    assert total.edisp is not None
    kept = sharper * np.array([0, 1, 1])[None, :, None, None]
    # equal exposures: the plain mean
    assert total.edisp.edisp.data == pytest.approx((a.edisp.edisp.data + kept) / 2)


def test_a_cutout_lands_on_its_place(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    half = small_dataset("half", part="half", seed=3)
    total = stack([half], "sum", *geometries)
    assert total.counts.data[:, :, 20:].sum() == half.counts.data.sum()
    assert total.counts.data[:, :, :20].sum() == 0
    assert not total.mask_safe[:, :, :20].any()
    assert total.psf is not None
    assert half.psf is not None
    assert total.psf.psf.data[:, :, :, 2:] == pytest.approx(half.psf.psf.data, rel=1e-12)
    assert total.psf.psf.data[:, :, :, :2].sum() == 0


@pytest.mark.parametrize("seed", range(4))
def test_prediction_of_the_stack_is_the_sum_of_predictions(
    seed: int,
    small_dataset: MakeDataset,
    geometries: tuple[SkyGeometry, SkyGeometry],
    point_models: Callable[..., Models],
) -> None:
    """With random energy thresholds and alike responses, npred is conserved (the purpose of the rules)."""
    rng = np.random.default_rng(seed)
    runs = []
    for k in range(3):
        mask = np.ones((3, 40, 40), dtype=bool)
        mask[: rng.integers(0, 3)] = False
        runs.append(_with_mask(small_dataset(f"r{k}", seed=k), mask))
    total = stack(runs, "sum", *geometries)
    expected = sum(np.where(r.mask, sum(predict_counts(r, point_models())), 0.0) for r in runs)
    found = np.where(total.mask, sum(predict_counts(total, point_models())), 0.0)
    assert found.sum(axis=(1, 2)) == pytest.approx(expected.sum(axis=(1, 2)), rel=1e-9)


def test_order_changes_nothing_but_rounding(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    runs = [small_dataset(f"r{k}", seed=k) for k in range(4)]
    one, other = stack(runs, "s", *geometries), stack(runs[::-1], "s", *geometries)
    assert np.array_equal(one.counts.data, other.counts.data)
    assert one.background.counts.data == pytest.approx(other.background.counts.data, rel=1e-14)
    again = stack(runs, "s", *geometries)
    assert np.array_equal(one.background.counts.data, again.background.counts.data)


def test_what_does_not_fit_together_is_refused(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    a = small_dataset("a")
    with pytest.raises(
        InputError, match=r"'a' \(T I\) and 'b' \(X I\) are of different instruments: fit them jointly"
    ):
        stack([a, replace(small_dataset("b"), meta={**a.meta, "telescope": "X"})], "s", *geometries)
    with pytest.raises(InputError, match="do not have the same responses"):
        stack([a, replace(small_dataset("b"), psf=None)], "s", *geometries)
    with pytest.raises(InputError, match="no dataset to stack: all observations were left out"):
        stack([], "s", *geometries)
