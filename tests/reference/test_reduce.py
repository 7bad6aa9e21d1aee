"""Case A: one H.E.S.S. run reduced to a cube, against every number of the independent implementation."""

from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset
from dl3flow.irf.edisp import kernels_from_density
from dl3flow.kernels.convolve import containment_radii
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.safe_mask import apply_safe_masks

from .conftest import CENTER, RADIUS, between_pixels, hat_between_centers

ENTRY = {
    "name": "cube",
    "center": CENTER,
    "width": "5 deg",
    "binsz": "0.05 deg",
    "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 11},
    "energy_true": {"min": "0.3 TeV", "max": "10 TeV", "nbin": 31},
}


@pytest.fixture(scope="module")
def case(reference: Any) -> tuple[dict[str, Any], Any]:
    numbers, arrays = reference("A_reduce_23592")
    return numbers, arrays


@pytest.fixture(scope="module")
def dataset(crab_observations: dict[int, Any]) -> Dataset:
    recipe, options = RECIPES.bind(ENTRY, "cube")
    return recipe(crab_observations[23592], "run", **options)


@pytest.fixture(scope="module")
def migra_dataset(crab_observations: dict[int, Any]) -> Dataset:
    recipe, options = RECIPES.bind({**ENTRY, "edisp": "migra"}, "cube")
    return recipe(crab_observations[23592], "run", **options)


def test_observation_times_and_pointing(crab_observations: dict[int, Any], case: Any) -> None:
    inputs, run = case[0]["inputs"], crab_observations[23592]
    assert run.livetime.to_value("s") == pytest.approx(inputs["livetime_s"], rel=1e-9)
    assert run.ontime.to_value("s") == inputs["ontime_s"]
    assert len(run.events) == inputs["n_events_file"]
    assert [run.pointing.ra.deg, run.pointing.dec.deg] == pytest.approx(inputs["pointing_icrs_deg"], abs=1e-9)
    assert run.aeff.meta["lo_thres"].to_value("TeV") == pytest.approx(inputs["LO_THRES"], rel=1e-6)


def test_counts_equal_in_every_bin(dataset: Dataset, case: Any) -> None:
    numbers, arrays = case
    expected = np.zeros(dataset.counts.data.shape)
    expected[tuple(arrays["counts_idx"])] = arrays["counts_val"]
    assert np.array_equal(dataset.counts.data, expected)
    assert dataset.counts.data.sum() == 2016
    assert dataset.counts.data.sum(axis=(1, 2)).tolist() == numbers["numbers"]["counts_per_energy"]


def test_background_per_energy_and_pixel(dataset: Dataset, case: Any) -> None:
    numbers, arrays = case[0]["numbers"], case[1]
    background = dataset.background.counts.data
    assert background.sum() == pytest.approx(numbers["totals"]["background"], rel=1e-6)
    assert background.sum(axis=(1, 2)) == pytest.approx(np.array(numbers["background_per_energy"]), rel=1e-6)
    assert background[:, ::4, ::4] == pytest.approx(arrays["background"], rel=1e-4, abs=1e-12)
    assert np.count_nonzero(~(background > 0)) == numbers["n_bkg_zero_or_nan"]


def test_exposure_in_every_layer_and_at_positions(dataset: Dataset, case: Any) -> None:
    numbers, exposure = case[0]["numbers"], dataset.exposure.quantity.to_value("m2 s")
    totals = numbers["totals"]
    assert exposure.max() == pytest.approx(totals["exposure_max"], rel=1e-6)
    assert exposure[exposure > 0].min() == pytest.approx(totals["exposure_min_positive"], rel=1e-6)
    assert np.count_nonzero(exposure == 0) == totals["n_zero_exposure_voxels"]
    assert exposure.mean(axis=(1, 2)) == pytest.approx(
        np.array(numbers["exposure_mean_per_etrue_m2s"]), rel=1e-6
    )
    sampled = case[1]["exposure"]
    assert exposure[::3, ::8, ::8] == pytest.approx(sampled, abs=1e-6 * exposure.max())
    for place in numbers["at_positions"].values():
        i, j = place["pixel_xy"]
        expected = np.array(place["exposure_m2s"])
        bright = expected > 1e-3 * expected.max()
        assert exposure[bright, j, i] == pytest.approx(expected[bright], rel=1e-6)
        assert exposure[:, j, i] == pytest.approx(expected, abs=1e-3 * expected.max())
        assert dataset.background.counts.data[:, j, i] == pytest.approx(
            np.array(place["background"]), rel=1e-6
        )


def test_point_spread_profile_and_radii(dataset: Dataset, case: Any) -> None:
    numbers, arrays = case[0]["numbers"], case[1]
    assert dataset.psf is not None
    psf = dataset.psf.psf
    profile = psf.quantity[:, :, 12, 12].to_value("deg-2")
    assert profile == pytest.approx(arrays["psf_center"], rel=1e-5, abs=1e-6)
    rad = psf.axis("rad")
    ring = 2 * np.pi * rad.centers.to_value("rad") * rad.widths.to_value("rad")
    assert (psf.data[10, :, 12, 12] * ring).sum() == pytest.approx(1, abs=1e-12)
    profiles = hat_between_centers(psf.axis("energy_true"), [0.5, 1, 2, 5, 9])
    for place in numbers["at_positions"].values():
        at_energy = profiles @ between_pixels(psf, SkyCoord(*place["ra_dec_deg"], unit="deg"))
        for name, fraction in (
            ("psf_r68_deg_at_0.5_1_2_5_9TeV", 0.68),
            ("psf_r95_deg_at_0.5_1_2_5_9TeV", 0.95),
        ):
            found = containment_radii(at_energy, rad.edges.to_value("deg"), fraction)
            assert found == pytest.approx(place[name], abs=RADIUS)


def test_dispersion_kernels_and_density(dataset: Dataset, migra_dataset: Dataset, case: Any) -> None:
    numbers, arrays = case[0]["numbers"], case[1]
    assert dataset.edisp is not None
    assert migra_dataset.edisp is not None
    kernel = dataset.edisp.edisp.data[:, :, 12, 12]
    assert kernel == pytest.approx(arrays["edisp_center"], abs=1e-6)
    assert kernel.sum(axis=1) == pytest.approx(np.array(numbers["edisp_rowsums_kernelmap"]), abs=1e-6)
    density = migra_dataset.edisp.edisp
    by_migra = kernels_from_density(
        density.data[:, :, 12, 12], density.axes[1], dataset.energy_true, dataset.energy
    )
    assert by_migra == pytest.approx(arrays["edisp_center_migra"], abs=1e-6)
    assert by_migra.sum(axis=1) == pytest.approx(np.array(numbers["edisp_rowsums_migra"]), abs=1e-6)
    assert np.array_equal(migra_dataset.background.counts.data, dataset.background.counts.data)


@pytest.mark.parametrize(
    ("method", "options"), [("aeff_default", {}), ("offset_max", {"offset_max": "2.5 deg"})]
)
def test_safe_masks(
    method: str, options: dict[str, str], dataset: Dataset, crab_observations: dict[int, Any], case: Any
) -> None:
    expected = case[0]["numbers"]["safe_masks"][f"{method.replace('_', '-')}|kernelmap"]
    mask, bound = SAFE_MASKS.bind({"name": method, **options}, "safe_mask")
    safe = apply_safe_masks(crab_observations[23592], dataset, [(mask, bound)])
    assert safe.mask_safe.sum(axis=(1, 2)).tolist() == expected["per_energy"]
    assert safe.counts.data[safe.mask_safe].sum() == expected["counts_safe"]
    assert safe.background.counts.data[safe.mask_safe].sum() == pytest.approx(
        expected["background_safe"], rel=1e-6
    )


def test_safe_masks_on_a_wide_energy_axis(crab_observations: dict[int, Any], case: Any) -> None:
    expected = case[0]["numbers"]["wide_energy_axis"]
    entry = {
        **ENTRY,
        "binsz": "0.1 deg",
        "energy": {"min": "0.1 TeV", "max": "100 TeV", "nbin": 24},
        "energy_true": {"min": "0.05 TeV", "max": "120 TeV", "nbin": 48},
    }
    recipe, options = RECIPES.bind(entry, "cube")
    wide = recipe(crab_observations[23592], "run", **options)
    assert wide.counts.data.sum(axis=(1, 2)).tolist() == expected["counts_per_energy"]
    background = wide.background.counts.data.sum(axis=(1, 2))
    assert background == pytest.approx(np.array(expected["background_per_energy"]), rel=1e-6, abs=1e-6)
    aeff_default = SAFE_MASKS.find("aeff_default", "")
    safe = apply_safe_masks(crab_observations[23592], wide, [(aeff_default, {})])
    kept = np.array(expected["methods"]["aeff-default"]["per_energy"])
    # the last bin ends at HI_THRES to rounding: the case says to leave it out
    assert safe.mask_safe.sum(axis=(1, 2))[:-1].tolist() == kept[:-1].tolist()
    assert wide.energy.edges[8].to_value("TeV") == pytest.approx(1.0)
    assert kept[8] == 1750
