"""Cases E, L and G: spectra with off regions from DL3, against every count and response of the independent implementation."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from regions import Regions

from dl3flow.background import BACKGROUNDS
from dl3flow.background.registry import BackgroundInputs
from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.observation import Observation
from dl3flow.geometry.regions import parse_regions, region_mask, sample_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.safe_mask import apply_safe_masks

from .conftest import CRAB_RUNS

CRAB = SkyCoord(83.63, 22.01, unit="deg")
EVERYWHERE = BackgroundInputs(lambda geom: np.ones(geom.shape, dtype=bool))
# radius of the on region; projection, width and region of the exclusion mask, on pixels of 0.05 deg
SET_UPS = {
    "seed": (0.2, "CAR", 5.0, "icrs;circle(83.63, 22.01, 0.2)"),
    "tutorial": (0.11, "TAN", 7.5, "galactic;circle(183.604, -8.708, 0.5)"),
}
# what the founding document prints for the seed: counts on and off, and the number of off regions
PRINTED = {23523: (137, 131, 6), 23592: (111, 287, 21), 23526: (136, 105, 6), 23559: (99, 218, 22)}


def edges(axis: dict[str, Any]) -> dict[str, list[str]]:
    return {"edges": [f"{edge!r} {axis['unit']}" for edge in axis["edges"]]}


def spectrum(observation: Observation, **entry: Any) -> Dataset:
    recipe, options = RECIPES.bind({"name": "spectrum", **entry}, "recipe")
    return recipe(observation, "run", **options)


def off_counts(dataset: Dataset) -> OffCounts:
    assert isinstance(dataset.background, OffCounts)
    return dataset.background


def excluding(set_up: str) -> BackgroundInputs:
    """Exclusion as a mask on coarse pixels, as the cases drew it."""
    _, proj, width, text = SET_UPS[set_up]
    drawn = SkyGeometry.create(CRAB, width * u.deg, 0.05 * u.deg, proj)
    usable = ~region_mask(drawn, parse_regions(text, "exclusion"))
    return BackgroundInputs(lambda geom: sample_mask(drawn, usable, geom))


@pytest.fixture(scope="module")
def spectra(reference: Any, crab_observations: dict[int, Any]) -> dict[tuple[str, int], Dataset]:
    """Case E: both set-ups of the four Crab runs, with safe masks and off counts."""
    inputs = reference("E_reflected_crab4")[0]["inputs"]
    masks = [SAFE_MASKS.bind({"name": "aeff_max", "percent": 10.0}, "safe_mask")]
    found = {}
    for set_up, (radius, *_) in SET_UPS.items():
        case = inputs[set_up]
        for obs_id in CRAB_RUNS:
            observation = crab_observations[obs_id]
            dataset = spectrum(
                observation,
                region=f"icrs;circle(83.63, 22.01, {radius})",
                energy=edges(case["energy"]),
                energy_true=edges(case["energy_true"]),
                containment_correction=case["containment_correction"],
            )
            reflected, options = BACKGROUNDS.bind({"name": "reflected"}, "background")
            dataset = apply_safe_masks(observation, dataset, masks)
            found[set_up, obs_id] = reflected(observation, dataset, excluding(set_up), **options)
    return found


@pytest.mark.parametrize("obs_id", CRAB_RUNS)
@pytest.mark.parametrize("set_up", SET_UPS)
def test_counts_and_regions(
    set_up: str, obs_id: int, spectra: dict[tuple[str, int], Dataset], reference: Any, crab_observations: Any
) -> None:
    case = next(r for r in reference("E_reflected_crab4")[0][set_up]["runs"] if r["obs_id"] == obs_id)
    dataset = spectra[set_up, obs_id]
    off = off_counts(dataset)
    assert dataset.counts.data[:, 0, 0].tolist() == case["n_on_per_energy"]
    assert off.counts.data[:, 0, 0].tolist() == case["n_off_per_energy"]
    assert np.all(off.acceptance.data == 1)
    assert np.all(off.acceptance_off.data == case["n_off_regions"])
    assert off.alpha == pytest.approx(case["alpha"], rel=1e-8)
    pointing = crab_observations[obs_id].pointing
    regions = Regions.parse(dataset.meta["background"]["regions"], format="ds9")
    assert len(regions) == dataset.meta["background"]["n_regions"] == case["n_off_regions"]
    angles = sorted(float(pointing.position_angle(region.center).deg) for region in regions)
    assert angles == pytest.approx(case["off_region_position_angles_deg_about_pointing"], abs=2e-4)
    distances = [float(pointing.separation(region.center).deg) for region in regions]
    assert distances == pytest.approx([case["offset_deg"]] * len(regions), abs=1e-5)
    safe = np.flatnonzero(dataset.mask_safe[:, 0, 0])
    assert [safe[0], safe[-1]] == case["safe_bins"]
    assert len(safe) == safe[-1] - safe[0] + 1
    assert dataset.counts.data[dataset.mask_safe].sum() == case["n_on_safe"]
    assert off.counts.data[dataset.mask_safe].sum() == case["n_off_safe"]
    limits = dataset.energy.edges[[safe[0], safe[-1] + 1]].to_value("TeV")
    assert limits == pytest.approx(case["safe_energy_range_TeV"], rel=1e-6)


@pytest.mark.parametrize("obs_id", CRAB_RUNS)
def test_the_founding_document_prints_the_same(obs_id: int, spectra: dict[tuple[str, int], Dataset]) -> None:
    dataset = spectra["seed", obs_id]
    off = off_counts(dataset)
    found = (dataset.counts.data.sum(), off.counts.data.sum(), dataset.meta["background"]["n_regions"])
    assert found == PRINTED[obs_id]


@pytest.mark.parametrize("obs_id", CRAB_RUNS)
@pytest.mark.parametrize("set_up", SET_UPS)
def test_exposure_with_containment_and_dispersion(
    set_up: str, obs_id: int, spectra: dict[tuple[str, int], Dataset], reference: Any
) -> None:
    case = next(r for r in reference("E_reflected_crab4")[0][set_up]["runs"] if r["obs_id"] == obs_id)
    dataset = spectra[set_up, obs_id]
    exposure = dataset.exposure.quantity[:, 0, 0]
    bins = dataset.energy_true.index([1, 2, 5] * u.TeV)
    assert exposure[bins].to_value("m2 s") == pytest.approx(case["exposure_m2s_at_1_2_5TeV_bins"], rel=1e-6)
    assert exposure.to_value("cm2 s").sum() == pytest.approx(case["exposure_cm2s_sum"], rel=1e-6)
    assert dataset.edisp is not None
    row = dataset.edisp.edisp.data[bins[1], :, 0, 0]
    assert row == pytest.approx(case["edisp_row_2TeV"], abs=1e-6)


def test_directional_cuts_by_energy(reference: Any, public_data: Path) -> None:
    root = public_data / "magic" / "rad_max" / "data"
    if not root.is_dir():
        pytest.skip(f"the MAGIC runs are absent: {root}")
    case = reference("L_magic_rad_max")[0]["magic"]
    entries = {e.obs_id: e for e in read_index(root)}
    masks = [SAFE_MASKS.bind({"name": "aeff_default"}, "safe_mask")]
    wobble, options = BACKGROUNDS.bind({"name": "wobble", "n_off": 3}, "background")
    for run in case["runs"]:
        observation = read_observation(entries[run["obs_id"]], root)
        assert observation.livetime.to_value("s") == pytest.approx(run["livetime_s"], rel=1e-8)
        dataset = spectrum(
            observation,
            region="icrs;point(83.63, 22.01)",
            energy=edges(case["inputs"]["energy"]),
            energy_true=edges(case["inputs"]["energy_true"]),
        )
        dataset = apply_safe_masks(observation, dataset, masks)
        dataset = wobble(observation, dataset, EVERYWHERE, **options)
        off = off_counts(dataset)
        assert dataset.counts.data[:, 0, 0].tolist() == run["n_on_per_energy"]
        assert off.counts.data[:, 0, 0].tolist() == run["n_off_per_energy"]
        assert dataset.counts.data.sum() == run["n_on"]
        assert off.counts.data.sum() == run["n_off"]
        assert np.all(off.acceptance.data == run["acceptance"])
        assert np.all(off.acceptance_off.data == run["acceptance_off"])
        # the case lists every second bin of true energy
        assert dataset.exposure.data[::2, 0, 0] == pytest.approx(run["exposure_m2s"], rel=1e-6)
        safe = np.flatnonzero(dataset.mask_safe[:, 0, 0])
        assert [safe[0], safe[-1], len(safe)] == [*run["safe_bins"], run["n_safe"]]


@pytest.mark.parametrize(
    "instrument", ["hess", "magic", "veritas", pytest.param("fact", marks=pytest.mark.slow)]
)
def test_joint_crab_from_events(instrument: str, reference: Any, public_data: Path) -> None:
    root = public_data / ("hess-dl3-dr1" if instrument == "hess" else f"joint-crab/dl3/{instrument}")
    if not root.is_dir():
        pytest.skip(f"the runs are absent: {root}")
    case = reference("G_joint_crab_paper")[0]["dl3"]
    numbers, radius = case[instrument], case["inputs"]["on_radius_deg"][instrument]
    lon, lat = case["inputs"]["source"]
    axis = {"min": "0.01 TeV", "max": "100 TeV", "nbin": 80}
    listed = {run["obs_id"]: run for run in numbers["runs_first_4"]}
    entries = {e.obs_id: e for e in read_index(root)}
    obs_ids = CRAB_RUNS if instrument == "hess" else sorted(entries)
    assert len(obs_ids) == numbers["n_obs"]
    reflected, options = BACKGROUNDS.bind({"name": "reflected"}, "background")
    total = np.zeros(2)
    for obs_id in obs_ids:
        observation = read_observation(entries[obs_id], root)
        dataset = spectrum(
            observation,
            region=f"icrs;circle({lon}, {lat}, {radius})",
            energy=axis,
            energy_true=axis,
            containment_correction=instrument == "hess",
        )
        dataset = reflected(observation, dataset, EVERYWHERE, **options)
        off = off_counts(dataset)
        found = [dataset.counts.data.sum(), off.counts.data.sum()]
        total += found
        assert not [text for text in dataset.meta["warnings"] if "RAD_MAX" in text]
        if obs_id in listed:
            run = listed[obs_id]
            assert found == [run["n_on"], run["n_off"]]
            assert off.acceptance_off.data.max() == run["acceptance_off"]
            assert observation.livetime.to_value("s") == pytest.approx(run["livetime_s"], rel=1e-8)
            offset = dataset.geom.separation(observation.pointing)[0, 0]
            assert np.degrees(offset) == pytest.approx(run["offset_deg"], abs=1e-6)
    assert total.tolist() == [numbers["n_on_total"], numbers["n_off_total"]]
