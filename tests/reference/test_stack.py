"""Case B: four Crab runs with the FoV background, cut out and stacked, against the published tutorial's numbers."""

from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset
from dl3flow.kernels.convolve import containment_radii

from .conftest import RADIUS, between_pixels, hat_between_centers

VARIANTS = [("seed", "stacked_seed"), ("wide", "stacked_wide_true_axis")]


@pytest.fixture(scope="module")
def case(reference: Any) -> tuple[dict[str, Any], Any]:
    return reference("B_stack_crab4")


@pytest.mark.parametrize("tag", ["seed", "wide"])
def test_each_run(tag: str, scaled_runs: dict[str, list[Dataset]], case: Any) -> None:
    for run, expected in zip(scaled_runs[tag], case[0][f"runs_{tag}"], strict=True):
        safe, norm = run.mask_safe, run.meta["background"]["norm"]
        assert list(run.geom.shape[::-1]) == expected["npix_cutout"]
        assert run.counts.data.sum() == expected["counts_all"]
        assert run.background.counts.data.sum() / norm == pytest.approx(expected["background_all"], rel=1e-6)
        assert safe.sum() == expected["n_safe_bins"]
        assert run.counts.data[safe].sum() == expected["counts_safe"]
        assert run.background.counts.data[safe].sum() / norm == pytest.approx(
            expected["background_safe_irf"], rel=1e-6
        )
        assert norm == pytest.approx(expected["fov_norm"], rel=1e-5)
        assert run.meta["background"]["norm_err"] == pytest.approx(expected["fov_norm_error"], rel=1e-5)
        assert run.meta["livetime"] == pytest.approx(expected["livetime_s"], rel=1e-9)


def test_the_published_numbers(stacks: dict[str, Dataset], scaled_runs: dict[str, list[Dataset]]) -> None:
    stacked = stacks["wide"]
    assert stacked.counts.data.sum() == 7972
    assert stacked.mask.sum() == 687214
    assert stacked.background.counts.data.sum() == pytest.approx(7555.42, abs=0.005)
    norms = [run.meta["background"]["norm"] for run in scaled_runs["wide"]]
    assert norms == pytest.approx([0.9582, 0.9905, 1.0395, 0.9537], abs=5e-5)


@pytest.mark.parametrize(("tag", "name"), VARIANTS)
def test_stack(tag: str, name: str, stacks: dict[str, Dataset], case: Any) -> None:
    expected, stacked = case[0][name], stacks[tag]
    exposure = stacked.exposure.quantity.to_value("m2 s")
    assert stacked.counts.data.sum(axis=(1, 2)).tolist() == expected["counts_per_energy"]
    assert stacked.mask_safe.sum(axis=(1, 2)).tolist() == expected["n_safe_per_energy"]
    assert stacked.background.counts.data.sum() == pytest.approx(expected["background"], rel=1e-5)
    per_energy = stacked.background.counts.data.sum(axis=(1, 2))
    assert per_energy == pytest.approx(np.array(expected["background_per_energy"]), rel=1e-5)
    assert exposure.max() == pytest.approx(expected["exposure_max"], rel=1e-5)
    assert exposure[exposure > 0].min() == pytest.approx(expected["exposure_min_positive"], rel=1e-5)
    assert exposure.mean(axis=(1, 2)) == pytest.approx(
        np.array(expected["exposure_mean_per_etrue_m2s"]), rel=1e-5
    )
    assert len(stacked.gti.start) == expected["gti_n"]
    assert stacked.gti.ontime.to_value("s") == expected["gti_sum_s"]


@pytest.mark.parametrize(("tag", "name"), VARIANTS)
def test_responses_at_positions(tag: str, name: str, stacks: dict[str, Dataset], case: Any) -> None:
    stacked = stacks[tag]
    assert stacked.psf is not None
    assert stacked.edisp is not None
    psf, edisp = stacked.psf.psf, stacked.edisp.edisp
    profiles = hat_between_centers(stacked.energy_true, [1.2, 2, 5, 9])
    of_2_tev = int(np.argmin(np.abs(np.log(stacked.energy_true.centers.to_value("TeV")) - np.log(2))))
    for place in case[0][name]["at_positions"].values():
        at = SkyCoord(*place["ra_dec"], unit="deg")
        j, i = stacked.geom.nearest(at)
        exposure = stacked.exposure.quantity.to_value("m2 s")[:, j, i]
        assert exposure == pytest.approx(np.array(place["exposure_m2s_pixel"]), rel=1e-5)
        background = stacked.background.counts.data[:, j, i]
        assert background == pytest.approx(np.array(place["background_pixel"]), rel=1e-5)
        j, i = psf.geom.nearest(at)
        assert edisp.data[:, :, j, i].sum(axis=1) == pytest.approx(np.array(place["edisp_rowsums"]), abs=1e-4)
        assert edisp.data[of_2_tev, :, j, i] == pytest.approx(
            np.array(place["edisp_row_etrue_of_2TeV"]), abs=1e-4
        )
        edges = psf.axis("rad").edges.to_value("deg")
        for key, fraction in (("psf_r68_deg_at_1.2_2_5_9TeV", 0.68), ("psf_r95_deg_at_1.2_2_5_9TeV", 0.95)):
            found = containment_radii(profiles @ between_pixels(psf, at), edges, fraction)
            assert found == pytest.approx(place[key], abs=RADIUS)


def test_maps_pixel_by_pixel(stacks: dict[str, Dataset], case: Any) -> None:
    arrays, stacked = case[1], stacks["seed"]
    counts = np.zeros(stacked.counts.data.shape)
    counts[tuple(arrays["counts_idx"])] = arrays["counts_val"]
    assert np.array_equal(stacked.counts.data, counts)
    blocks = stacked.background.counts.data[:, :248, :248].reshape(11, 62, 4, 62, 4).sum(axis=(2, 4))
    assert blocks == pytest.approx(arrays["background_4x4"], rel=1e-4)
    exposure = stacked.exposure.quantity.to_value("m2 s")[:, ::8, ::8]
    assert exposure == pytest.approx(arrays["exposure_sub"], rel=1e-4)
    n_safe = stacked.mask_safe.sum(axis=0)[::2, ::2]
    assert np.array_equal(n_safe, arrays["n_safe_map"])
    wide = stacks["wide"].edisp
    assert wide is not None
    assert wide.edisp.data[:, :, 12, 12] == pytest.approx(arrays["edisp_crab_wide"], abs=1e-4)
