"""Stacking rules by arithmetic on synthetic datasets."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map
from dl3flow.errors import InputError
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
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


def test_point_spreads_are_averaged_with_the_exposure(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    a, b = small_dataset("a", seed=1), small_dataset("b", seed=2)
    assert a.psf is not None
    assert b.psf is not None
    psf = b.psf
    # twice the density with three times the exposure: (1 + 3 x 2) / (1 + 3)
    heavier = replace(
        psf,
        psf=psf.psf.with_data(2 * psf.psf.data),
        exposure=psf.exposure.with_data(3 * psf.exposure.data),
    )
    # the mask of single energies is of no matter to the point spread, that of all of them is
    mask = np.ones((3, 40, 40), dtype=bool)
    mask[0] = False
    mask[:, :, :20] = False
    total = stack([a, _with_mask(replace(b, psf=heavier), mask)], "sum", *geometries)
    assert total.psf is not None
    assert total.psf.psf.data[..., 2:] == pytest.approx(1.75 * a.psf.psf.data[..., 2:], rel=1e-12)
    assert total.psf.psf.data[..., :2] == pytest.approx(a.psf.psf.data[..., :2], rel=1e-12)
    assert total.psf.exposure.data[..., 2:] == pytest.approx(4 * a.psf.exposure.data[..., 2:], rel=1e-12)


def test_fit_masks_are_dropped(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    a, b = small_dataset("a", seed=1), small_dataset("b", seed=2)
    limited = replace(a, mask_fit=np.zeros((3, 40, 40), dtype=bool))
    total = stack([limited, b], "sum", *geometries)
    assert total.mask_fit is None
    assert np.array_equal(total.counts.data, a.counts.data + b.counts.data)
    assert total.mask.all()


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


@pytest.mark.parametrize("seed", range(4))
def test_prediction_is_kept_with_random_sky_masks(
    seed: int,
    small_dataset: MakeDataset,
    geometries: tuple[SkyGeometry, SkyGeometry],
    point_models: Callable[..., Models],
) -> None:
    """Alike responses, each run blind in other pixels: every bin's prediction is the sum of theirs."""
    rng = np.random.default_rng(seed)
    runs = [
        _with_mask(
            small_dataset(f"r{k}", seed=k), np.broadcast_to(rng.random((40, 40)) < 0.7, (3, 40, 40)).copy()
        )
        for k in range(3)
    ]
    total = stack(runs, "sum", *geometries)
    expected = sum(np.where(r.mask, sum(predict_counts(r, point_models())), 0.0) for r in runs)
    found = np.where(total.mask, sum(predict_counts(total, point_models())), 0.0)
    assert found == pytest.approx(expected, rel=1e-9)


def _spectrum(seed: int, *, empty_off: bool = False) -> Dataset:
    """A spectrum with off counts, random responses and a random energy threshold."""
    rng = np.random.default_rng(seed)
    geom = RegionGeometry("icrs;circle(83.63, 22.01, 0.2)")
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 4)
    energy_true = Axis.from_bounds("energy_true", 0.5 * u.TeV, 20 * u.TeV, 6)
    exposure = Map(geom, (energy_true,), 1e8 * (1 + rng.random((6, 1, 1))), u.Unit("m2 s"))
    n_off = rng.poisson(0 if empty_off else 8, (4, 1, 1)).astype(float)
    alpha_off = float(rng.integers(3, 20))
    maps = [Map(geom, (energy,), v) for v in (n_off, np.ones((4, 1, 1)), np.full((4, 1, 1), alpha_off))]
    mask = np.arange(4) >= rng.integers(0, 3)
    return Dataset(
        name=f"s-{seed}",
        counts=Map(geom, (energy,), rng.poisson(20, (4, 1, 1)).astype(float)),
        background=OffCounts(*maps),
        exposure=exposure,
        psf=None,
        edisp=EdispMap(Map(geom, (energy_true, energy), rng.random((6, 4, 1, 1)) / 4), exposure),
        mask_safe=mask[:, None, None],
        mask_fit=None,
        gti=Gti([0.0] * u.s, [1000.0] * u.s, Time(60000 + seed, format="mjd", scale="tt")),
        meta={"obs_ids": [seed], "livetime": 950.0, "ontime": 1000.0, "telescope": "T", "instrument": "I"},
    )


@pytest.mark.parametrize("seed", range(5))
def test_spectra_with_random_responses_and_thresholds_keep_their_prediction(
    seed: int, point_models: Callable[..., Models]
) -> None:
    runs = [_spectrum(10 * seed + k) for k in range(4)]
    total = stack(runs, "sum", runs[0].geom, runs[0].geom)
    expected = sum(np.where(r.mask, predict_counts(r, point_models())[0], 0.0) for r in runs)
    assert np.where(total.mask, predict_counts(total, point_models())[0], 0.0) == pytest.approx(expected)
    # what is measured adds up: counts, off counts and the background that they give
    for quantity in ("counts", "off", "background"):
        sums = [sum(np.where(r.mask_safe, _part(r, quantity), 0.0) for r in runs), _part(total, quantity)]
        assert sums[1] == pytest.approx(sums[0], abs=1e-12)


def _part(dataset: Dataset, quantity: str) -> np.ndarray:
    assert isinstance(dataset.background, OffCounts)
    parts = {
        "counts": dataset.counts.data,
        "off": dataset.background.counts.data,
        "background": dataset.mu_bkg,
    }
    return np.asarray(parts[quantity])


def test_off_counts_by_hand() -> None:
    """acceptance_off = acceptance x off / background; the mean alpha stands in where there are no off counts."""
    a, b = (_spectrum(k) for k in (1, 2))
    safe = np.ones((4, 1, 1), dtype=bool)

    def with_off(dataset: Dataset, n_off: list[float], acceptance_off: float) -> Dataset:
        assert isinstance(dataset.background, OffCounts)
        maps = (np.array(n_off)[:, None, None], np.full((4, 1, 1), acceptance_off))
        off = replace(
            dataset.background,
            counts=dataset.counts.with_data(maps[0]),
            acceptance_off=dataset.counts.with_data(maps[1]),
        )
        return replace(dataset, background=off, mask_safe=safe)

    total = stack([with_off(a, [10, 0, 0, 4], 10), with_off(b, [10, 5, 0, 0], 5)], "s", a.geom, a.geom)
    assert isinstance(total.background, OffCounts)
    # background per bin: 10/10 + 10/5, 5/5, 0, 4/10; mean alpha 4.4 / 29
    assert total.mu_bkg[:, 0, 0] == pytest.approx([3, 1, 0, 0.4])
    assert total.background.acceptance.data[:, 0, 0] == pytest.approx([2, 2, 2, 2])
    expected = [2 * 20 / 3, 2 * 5 / 1, 2 * 29 / 4.4, 2 * 4 / 0.4]
    assert total.background.acceptance_off.data[:, 0, 0] == pytest.approx(expected)


def test_no_off_counts_at_all_leave_the_alpha_of_the_acceptances() -> None:
    """They were looked for: without an alpha the statistic would leave the counts out."""
    runs = [_spectrum(k, empty_off=True) for k in range(2)]
    total = stack(runs, "s", runs[0].geom, runs[0].geom)
    assert isinstance(total.background, OffCounts)
    on, off = (
        sum(np.where(run.mask_safe, getattr(run.background, name).data, 0) for run in runs)
        for name in ("acceptance", "acceptance_off")
    )
    assert total.mask_safe.any()
    assert np.array_equal(
        total.background.alpha[total.mask_safe], (on / np.where(off > 0, off, 1))[total.mask_safe]
    )
    assert total.background.alpha[total.mask_safe].all()


def test_order_of_a_list_changes_no_bit(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    runs = [small_dataset(f"r{k}", seed=k) for k in range(4)]
    one, other = stack(runs, "s", *geometries), stack(runs[::-1], "s", *geometries)
    assert one.psf is not None
    assert other.psf is not None
    for mine, theirs in (
        (one.mu_bkg, other.mu_bkg),
        (one.exposure.data, other.exposure.data),
        (one.psf.psf.data, other.psf.psf.data),
    ):
        assert np.array_equal(mine, theirs)
    assert one.meta == other.meta
    # a stream is summed as it comes
    streamed = stack(iter(runs[::-1]), "s", *geometries)
    assert streamed.meta["obs_ids"] == [3, 2, 1, 0]
    assert streamed.mu_bkg == pytest.approx(one.mu_bkg, rel=1e-14)


def test_stacking_is_associative(
    small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]
) -> None:
    runs = [small_dataset(f"r{k}", seed=k) for k in range(3)]
    pair = stack(runs[:2], "pair", *geometries)
    one, other = stack([pair, runs[2]], "s", *geometries), stack(runs, "s", *geometries)
    assert one.mu_bkg == pytest.approx(other.mu_bkg, rel=1e-13)
    assert one.psf is not None
    assert other.psf is not None
    assert one.psf.psf.data == pytest.approx(other.psf.psf.data, rel=1e-12)
    spectra = [_spectrum(k) for k in range(3)]
    geom = spectra[0].geom
    pair = stack(spectra[:2], "pair", geom, geom)
    one, other = stack([pair, spectra[2]], "s", geom, geom), stack(spectra, "s", geom, geom)
    assert one.mu_bkg == pytest.approx(other.mu_bkg, rel=1e-13)
    assert isinstance(one.background, OffCounts)
    assert isinstance(other.background, OffCounts)
    assert one.background.acceptance_off.data == pytest.approx(other.background.acceptance_off.data)


def test_reasons_are_counted(small_dataset: MakeDataset, geometries: tuple[SkyGeometry, SkyGeometry]) -> None:
    bits = np.zeros((3, 40, 40), dtype=np.uint8)
    bits[0] = 1
    bits[:, :10] |= 2
    runs = [
        replace(
            small_dataset(f"r{k}", seed=k), reasons=MaskReasons(("low", "far"), bits), mask_safe=bits == 0
        )
        for k in range(2)
    ]
    assert np.array_equal(runs[0].reasons.dropped("far")[1], np.arange(40)[:, None] < np.full((1, 40), 10))
    found = stack(runs, "s", *geometries).meta["mask_reasons"]
    assert found == {"low": [3200, 0, 0], "far": [800, 800, 800], "all": [3200, 3200, 3200]}


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
    off = _spectrum(1)
    expected = replace(off, background=ExpectedCounts(off.counts), name="e")
    with pytest.raises(InputError, match=r"'e' \(expected counts\)|'s-1' \(measured off counts\)"):
        stack([off, expected], "s", off.geom, off.geom)
    with pytest.raises(InputError, match=r"event types \[0\]\).*hold different event types"):
        stack([replace(a, meta={**a.meta, "event_types": [0]}), small_dataset("b", seed=1)], "s", *geometries)
    lit = replace(a, meta={**a.meta, "phase": [[0.0, 0.4]]})
    with pytest.raises(InputError, match=r"\(all\) hold different phases"):
        stack([lit, small_dataset("b", seed=1)], "s", *geometries)
    assert stack([lit, lit], "s", *geometries).meta["phase"] == [[0.0, 0.4]]
