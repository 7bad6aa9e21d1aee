"""Reshaped datasets predict the same counts; measured backgrounds keep alpha n_off."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons, OffCounts
from dl3flow.data.maps import EdispMap, Map
from dl3flow.errors import InputError
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.source import Models
from dl3flow.reduce.reshape import cutout, downsample, resample_energy, slice_energy, to_image

MakeDataset = Callable[..., Dataset]
CRAB = SkyCoord(83.63, 22.01, unit="deg")
# decades cut in three, of which the first two are one bin
MERGED = Axis("energy", [1, 10 ** (2 / 3), 10] * u.TeV, "log")


def masked(dataset: Dataset, energies: list[bool]) -> Dataset:
    """Safe in some energies, and only in a disk around a place beside the source."""
    disk = dataset.geom.separation(SkyCoord(83.5, 22.2, unit="deg")) < np.radians(0.6)
    return replace(dataset, mask_safe=np.array(energies)[:, None, None] & disk)


def measured(dataset: Dataset) -> Dataset:
    """With off counts, whose alpha changes with energy and place; no off counts in some bins."""
    rng = np.random.default_rng(7)
    like = dataset.counts
    acceptance = 1 + rng.random(like.data.shape)
    acceptance_off = acceptance * np.array([5.0, 10, 20])[:, None, None]
    acceptance_off[:, :3, :3] = 0
    counts = np.where(acceptance_off > 0, rng.poisson(0.7, like.data.shape), 0).astype(float)
    off = OffCounts(*(like.with_data(v) for v in (counts, acceptance, acceptance_off)))
    for values in (counts, acceptance, acceptance_off):
        values.setflags(write=False)
    return replace(dataset, background=off)


def merge(values: np.ndarray, axis: Axis) -> np.ndarray:
    """Sum of (3, ...) over the bins of one of the two axes in use here."""
    return values.sum(axis=0)[None] if axis.n_bins == 1 else np.stack([values[0] + values[1], values[2]])


@pytest.mark.parametrize("axis", [MERGED, Axis("energy", [1, 10] * u.TeV, "log")])
@pytest.mark.parametrize("lat", [22.01, 22.9])
@pytest.mark.parametrize("energies", [[True, True, True], [False, True, True], [True, False, True]])
def test_merged_energies_predict_what_their_safe_bins_did(
    energies: list[bool],
    lat: float,
    axis: Axis,
    small_dataset: MakeDataset,
    point_models: Callable[..., Models],
) -> None:
    dataset, models = masked(small_dataset(), energies), point_models(lat=lat)
    signal, background = predict_counts(dataset, models)
    merged = resample_energy(dataset, axis)
    of_merged = predict_counts(merged, models)
    safe = merged.mask_safe
    assert np.array_equal(safe, merge(dataset.mask_safe, axis) > 0)
    assert of_merged[0][safe] == pytest.approx(merge(signal * dataset.mask_safe, axis)[safe], rel=1e-12)
    assert of_merged[1] == pytest.approx(merge(background * dataset.mask_safe, axis), rel=1e-12)
    assert np.array_equal(merged.counts.data, merge(dataset.counts.data * dataset.mask_safe, axis))
    assert merged.energy_true is dataset.energy_true
    assert merged.exposure is dataset.exposure


def test_image_is_one_bin_over_all_energies(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    image = to_image(dataset)
    assert image.energy.edges.to_value("TeV") == pytest.approx([1, 10])
    assert image.counts.data.shape == (1, 40, 40)
    assert image.counts.data.sum() == dataset.counts.data.sum()
    assert image.name == dataset.name


def test_measured_backgrounds_keep_what_they_expect(small_dataset: MakeDataset) -> None:
    dataset = measured(masked(small_dataset(), [True, False, True]))
    image = to_image(dataset)
    assert isinstance(dataset.background, OffCounts)
    assert isinstance(image.background, OffCounts)
    safe, off = dataset.mask_safe, image.background
    assert np.array_equal(off.counts.data[0], np.where(safe, dataset.background.counts.data, 0).sum(axis=0))
    assert image.mu_bkg[0] == pytest.approx(np.where(safe, dataset.mu_bkg, 0).sum(axis=0), rel=1e-12)
    acceptance = np.where(safe, dataset.background.acceptance.data, 0).sum(axis=0)
    assert off.acceptance.data[0] == pytest.approx(acceptance)
    none = (off.counts.data[0] == 0) & safe.any(axis=0)
    acceptance_off = np.where(safe, dataset.background.acceptance_off.data, 0).sum(axis=0)
    assert none.any()
    assert off.acceptance_off.data[0][none] == pytest.approx(acceptance_off[none])


def test_two_off_bins_by_hand(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    values = [np.zeros((3, 40, 40)) for _ in range(3)]
    for n, (counts, acceptance, acceptance_off) in enumerate([(10, 1, 5), (30, 2, 4), (0, 0, 0)]):
        for array, value in zip(values, (counts, acceptance, acceptance_off), strict=True):
            array[n] = value
    off = OffCounts(*(dataset.counts.with_data(v) for v in values))
    merged = to_image(replace(dataset, background=off)).background
    assert isinstance(merged, OffCounts)
    # alpha n_off: 0.2 x 10 + 0.5 x 30 = 17 of 40 off counts with the acceptance 3
    assert merged.counts.data[0, 9, 9] == 40
    assert merged.alpha[0, 9, 9] == pytest.approx(17 / 40)
    assert merged.acceptance_off.data[0, 9, 9] == pytest.approx(3 * 40 / 17)


@pytest.mark.parametrize("form", ["migra", "none"])
def test_other_forms_of_dispersion(
    form: str, small_dataset: MakeDataset, point_models: Callable[..., Models]
) -> None:
    dataset, models = small_dataset(), point_models()
    assert dataset.edisp is not None
    if form == "none":
        keep = Map(
            dataset.geom,
            (dataset.energy.renamed("energy_true"),),
            dataset.exposure.data[:3],
            dataset.exposure.unit,
        )
        dataset = replace(dataset, exposure=keep, edisp=None, psf=None)
    else:
        migra = Axis.from_bounds("migra", u.Quantity(0.2), u.Quantity(5), 48, "lin")
        density = np.exp(-0.5 * ((migra.centers.value - 1) / 0.3) ** 2)
        density /= (density * migra.widths.value).sum()
        values = np.broadcast_to(density[None, :, None, None], (5, 48, 4, 4))
        geom = dataset.edisp.edisp.geom
        dataset = replace(
            dataset,
            edisp=EdispMap(Map(geom, (dataset.energy_true, migra), values), dataset.edisp.exposure),
        )
    signal = predict_counts(dataset, models)[0]
    assert predict_counts(to_image(dataset), models)[0][0] == pytest.approx(signal.sum(axis=0), rel=1e-9)
    part = slice_energy(dataset, 2 * u.TeV, None)
    assert predict_counts(part, models)[0] == pytest.approx(signal[1:], rel=1e-9)


def test_edges_must_be_the_datasets(small_dataset: MakeDataset) -> None:
    with pytest.raises(
        InputError, match=r"dataset 'small': 3 TeV is no edge of its axis 'energy', .* 1 to 10 TeV in 3 bins"
    ):
        resample_energy(small_dataset(), Axis("energy", [1, 3, 10] * u.TeV, "log"))


def test_fit_masks_and_reasons_are_merged(small_dataset: MakeDataset) -> None:
    dataset = small_dataset()
    fit = np.ones((3, 40, 40), dtype=bool)
    fit[0, :5] = False
    fit[:, 30:] = False
    bits = np.zeros((3, 40, 40), dtype=np.uint8)
    bits[0] = 1
    bits[:, 35:] |= 2
    image = to_image(
        replace(dataset, mask_fit=fit, mask_safe=bits == 0, reasons=MaskReasons(("low", "far"), bits))
    )
    assert image.reasons is not None
    assert np.array_equal(image.mask_safe[0], np.arange(40)[:, None] < 35 + np.zeros(40))
    assert np.all(image.reasons.bits[0, 35:] == 3)
    assert not image.reasons.bits[0, :35].any()
    assert image.mask_fit is not None
    assert image.mask_fit[0].sum() == 30 * 40
    # where energy 0 is not safe, that it is not fitted takes nothing away
    assert "warnings" not in image.meta
    told = to_image(replace(dataset, mask_fit=fit)).meta["warnings"]
    assert told == [
        "dataset 'small': 200 merged energy bins hold bins in and bins off the fit range: they are fitted whole"
    ]


def test_slice_keeps_whole_bins(small_dataset: MakeDataset, point_models: Callable[..., Models]) -> None:
    dataset = measured(small_dataset())
    part = slice_energy(dataset, 2 * u.TeV, 10 * u.TeV)
    assert part.energy.edges.to_value("TeV") == pytest.approx(10 ** (np.arange(1, 4) / 3))
    assert np.array_equal(part.counts.data, dataset.counts.data[1:])
    signal, background = predict_counts(dataset, point_models())
    found = predict_counts(part, point_models())
    assert found[0] == pytest.approx(signal[1:], rel=1e-12)
    assert found[1] == pytest.approx(background[1:], rel=1e-12)
    with pytest.raises(InputError, match=r"no energy bin lies whole between 3\.0 TeV and 4\.0 TeV"):
        slice_energy(dataset, 3 * u.TeV, 4 * u.TeV)


@pytest.mark.parametrize("mode", ["trim", "partial", "strict"])
def test_cutouts_predict_the_same(
    mode: str, small_dataset: MakeDataset, point_models: Callable[..., Models]
) -> None:
    dataset, models = small_dataset(), point_models()
    # 21 pixels around the source, off its response pixel's centre
    part = cutout(dataset, SkyCoord(83.6, 22.05, unit="deg"), 1.05 * u.deg, mode)
    here, there = dataset.geom.overlap(part.geom)
    assert part.geom.shape == (21, 21)
    for mine, whole in zip(predict_counts(part, models), predict_counts(dataset, models), strict=True):
        assert mine == pytest.approx(whole[:, *here], rel=1e-9, abs=1e-12)
    assert np.array_equal(part.counts.data, dataset.counts.data[:, *here])


def test_cutouts_at_the_border(small_dataset: MakeDataset, point_models: Callable[..., Models]) -> None:
    dataset, corner = measured(small_dataset()), SkyCoord(84.6, 22.9, unit="deg")
    trimmed = cutout(dataset, corner, 1 * u.deg, "trim")
    padded = cutout(dataset, corner, 1 * u.deg, "partial")
    assert padded.geom.shape == (20, 20)
    assert np.prod(trimmed.geom.shape) < 400
    here, there = padded.geom.overlap(trimmed.geom)
    assert padded.counts.data.sum() == trimmed.counts.data.sum()
    assert np.array_equal(padded.counts.data[:, *here], trimmed.counts.data)
    assert padded.mask_safe.sum() == trimmed.mask_safe.size
    assert padded.exposure.data[:, *here] == pytest.approx(trimmed.exposure.data)
    assert padded.mu_bkg.sum() == pytest.approx(trimmed.mu_bkg.sum())
    models = point_models(lon=84.5, lat=22.8)
    expected = predict_counts(dataset, models)[0][:, *dataset.geom.overlap(trimmed.geom)[0]]
    assert predict_counts(trimmed, models)[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    with pytest.raises(InputError, match="does not hold all pixels within 1.0 deg"):
        cutout(dataset, corner, 1 * u.deg, "strict")


def test_larger_pixels_predict_the_same(
    small_dataset: MakeDataset, point_models: Callable[..., Models]
) -> None:
    dataset, models = small_dataset(), point_models()
    mask = dataset.mask_safe.copy()
    mask[:, 7, 9] = False
    larger = downsample(replace(dataset, mask_safe=mask), 2)
    assert larger.geom.shape == (20, 20)
    assert larger.geom.binsz == pytest.approx(0.1)
    assert larger.geom.center.separation(dataset.geom.center).arcsec < 1e-3
    assert not larger.mask_safe[:, 3, 4].any()
    assert (~larger.mask_safe).sum() == 3
    blocks = dataset.counts.data.reshape(3, 20, 2, 20, 2).sum(axis=(2, 4))
    assert larger.counts.data == pytest.approx(np.where(larger.mask_safe, blocks, 0))
    signal, background = predict_counts(dataset, models)
    found = predict_counts(larger, models)
    # the exposure changes by 10 % per degree, its mean over a pixel hardly
    assert found[0].sum(axis=(1, 2)) == pytest.approx(signal.sum(axis=(1, 2)), rel=2e-3)
    assert np.where(larger.mask_safe, found[1], 0).sum() == pytest.approx(
        background.sum() - background[:, 6:8, 8:10].sum()
    )
    with pytest.raises(InputError, match="no whole squares of 3 x 3"):
        downsample(dataset, 3)


def test_larger_pixels_keep_measured_backgrounds_and_say_what_they_share(small_dataset: MakeDataset) -> None:
    dataset = measured(small_dataset())
    larger = downsample(dataset, 4)
    assert larger.mu_bkg == pytest.approx(dataset.mu_bkg.reshape(3, 10, 4, 10, 4).sum(axis=(2, 4)), rel=1e-12)
    assert "count more than once" in larger.meta["warnings"][0]


def test_a_spectrum_merges_its_energies_and_is_never_cut(
    small_dataset: MakeDataset, point_models: Callable[..., Models]
) -> None:
    dataset = small_dataset()
    region = RegionGeometry("icrs;circle(83.63, 22.01, 0.2)")
    assert dataset.edisp is not None

    def there(of: Map) -> Map:
        return replace(of, geom=region, data=of.data[..., :1, :1])

    spectrum = replace(
        dataset,
        counts=there(dataset.counts),
        background=ExpectedCounts(there(dataset.background.counts)),
        exposure=there(dataset.exposure),
        psf=None,
        edisp=EdispMap(there(dataset.edisp.edisp), there(dataset.edisp.exposure)),
        mask_safe=np.array([False, True, True])[:, None, None],
    )
    models = point_models()
    signal, background = (p.ravel() for p in predict_counts(spectrum, models))
    found = [p.ravel() for p in predict_counts(to_image(spectrum), models)]
    assert signal[1:].sum() > 0
    assert found[0] == pytest.approx(signal[1:].sum(), rel=1e-12)
    assert found[1] == pytest.approx(background[1:].sum(), rel=1e-12)
    assert cutout(spectrum, CRAB, 1 * u.deg) is spectrum
    with pytest.raises(InputError, match="is no map"):
        downsample(spectrum, 2)
