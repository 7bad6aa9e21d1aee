"""Off regions of several shapes, their counts, exposures and thresholds, against gammapy on a public H.E.S.S. run."""

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

pytestmark = pytest.mark.peer
gammapy_makers = pytest.importorskip("gammapy.makers", reason="gammapy is not installed: make peer")

CRAB = SkyCoord(83.63, 22.01, unit="deg")
SHAPES = {
    "circle": "icrs;circle(83.63, 22.01, 0.11)",
    "circle elsewhere": "icrs;circle(83.0, 22.4, 0.15)",
    "galactic circle": "galactic;circle(184.5575, -5.7844, 0.13)",
    "ellipse": "icrs;ellipse(83.63, 22.01, 0.2, 0.1, 30)",
    "box": "icrs;box(83.63, 22.01, 0.3, 0.12, 70)",
}
EXCLUSION = "icrs;circle(83.63, 22.01, 0.3)"
LIMITS = ("0.3 TeV", "30 TeV", 12), ("0.1 TeV", "100 TeV", 30)


@pytest.fixture(scope="module", params=[23523, 23592])
def pair(request: pytest.FixtureRequest, hess_dl3: Path) -> tuple[Observation, Any]:
    """One run as both sides read it."""
    from gammapy.data import DataStore

    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    return read_observation(entries[request.param], hess_dl3), DataStore.from_dir(hess_dl3).obs(request.param)


def ours(observation: Observation, text: str, **changes: Any) -> Dataset:
    energy, true = ({"min": low, "max": high, "nbin": n} for low, high, n in LIMITS)
    entry = {"name": "spectrum", "region": text, "energy": energy, "energy_true": true, **changes}
    recipe, options = RECIPES.bind(entry, "recipe")
    return recipe(observation, "run", **options)


def theirs(observation: Any, text: str, **options: Any) -> Any:
    from gammapy.datasets import SpectrumDataset
    from gammapy.maps import MapAxis, RegionGeom

    energy, true = (
        MapAxis.from_energy_bounds(low, high, n, name=name)
        for (low, high, n), name in zip(LIMITS, ("energy", "energy_true"), strict=True)
    )
    geom = RegionGeom.create(Regions.parse(text, format="ds9")[0], axes=[energy])
    maker = gammapy_makers.SpectrumDatasetMaker(selection=["counts", "exposure", "edisp"], **options)
    return maker.run(SpectrumDataset.create(geom, energy_axis_true=true), observation)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_excluded", [False, True])
def test_reflected_regions_of_any_shape(shape: str, is_excluded: bool, pair: tuple[Observation, Any]) -> None:
    from gammapy.maps import WcsGeom, WcsNDMap

    mine, other = pair
    drawn = SkyGeometry.create(CRAB, 5 * u.deg, 0.02 * u.deg)
    usable = np.ones(drawn.shape, dtype=bool)
    if is_excluded:
        usable = ~region_mask(drawn, parse_regions(EXCLUSION, "exclusion"))
    geom = WcsGeom.create(skydir=CRAB, width=5, binsz=0.02)
    maker = gammapy_makers.ReflectedRegionsBackgroundMaker(exclusion_mask=WcsNDMap(geom, data=usable))
    dataset = maker.run(theirs(other, SHAPES[shape]), other)
    reflected, options = BACKGROUNDS.bind({"name": "reflected"}, "background")
    found = reflected(
        mine,
        ours(mine, SHAPES[shape]),
        BackgroundInputs(lambda at: sample_mask(drawn, usable, at)),
        **options,
    )
    assert isinstance(found.background, OffCounts)
    assert found.counts.data[:, 0, 0].tolist() == dataset.counts.data[:, 0, 0].tolist()
    assert found.meta["background"]["n_regions"] == dataset.acceptance_off.data.max()
    assert found.background.counts.data[:, 0, 0].tolist() == dataset.counts_off.data[:, 0, 0].tolist()
    assert found.exposure.data == pytest.approx(dataset.exposure.quantity.to_value("m2 s"), rel=1e-6)


@pytest.mark.parametrize("n_off", [1, 5])
def test_places_at_equal_angles(n_off: int, pair: tuple[Observation, Any]) -> None:
    mine, other = pair
    finder = gammapy_makers.WobbleRegionsFinder(n_off_regions=n_off)
    maker = gammapy_makers.ReflectedRegionsBackgroundMaker(region_finder=finder)
    dataset = maker.run(theirs(other, SHAPES["circle"]), other)
    wobble, options = BACKGROUNDS.bind({"name": "wobble", "n_off": n_off}, "background")
    everywhere = BackgroundInputs(lambda at: np.ones(at.shape, dtype=bool))
    found = wobble(mine, ours(mine, SHAPES["circle"]), everywhere, **options)
    assert isinstance(found.background, OffCounts)
    assert found.background.counts.data[:, 0, 0].tolist() == dataset.counts_off.data[:, 0, 0].tolist()
    assert np.all(found.background.acceptance_off.data == n_off)


@pytest.mark.parametrize("radius", [0.05, 0.11, 0.4])
def test_containment_of_circles(radius: float, pair: tuple[Observation, Any]) -> None:
    mine, other = pair
    text = f"icrs;circle(83.63, 22.01, {radius})"
    expected = theirs(other, text, containment_correction=True).exposure.quantity.to_value("m2 s")
    found = ours(mine, text, containment_correction=True).exposure.data
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9 * expected.max())


@pytest.mark.parametrize("offset", [None, 0.7, 1.5])
@pytest.mark.parametrize("name", ["aeff_max", "edisp_bias", "bkg_peak"])
def test_thresholds_of_the_responses_themselves(
    name: str, offset: float | None, pair: tuple[Observation, Any]
) -> None:
    mine, other = pair
    place = {} if offset is None else {"fixed_offset": offset * u.deg}
    maker = gammapy_makers.SafeMaskMaker(irfs="DL3", **place)
    expected = getattr(maker, f"make_mask_energy_{name}")(theirs(other, SHAPES["circle"]), other).data
    own = {} if offset is None or name == "bkg_peak" else {"fixed_offset": f"{offset} deg"}
    mask, options = SAFE_MASKS.bind({"name": name, "irfs": "DL3", **own}, "safe_mask")
    found = mask(mine, ours(mine, SHAPES["circle"]), **options)
    assert found.bins[:, 0, 0].tolist() == expected[:, 0, 0].tolist()
    assert 0 < found.bins.sum() < 12
