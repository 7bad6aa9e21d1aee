"""gammapy reads the background models that we build and write, and expects the same counts from them."""

import logging
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.background.acceptance import acceptance
from dl3flow.background.build_acceptance import build_acceptance
from dl3flow.background.registry import BackgroundInputs
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.io.background_models import read_background_models, write_background_models
from dl3flow.io.provenance import collect_provenance
from dl3flow.reduce import RECIPES
from dl3flow.simulate.events import simulate_observation

pytest.importorskip("gammapy")
pytestmark = pytest.mark.peer

CENTER = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}
CUBE = {
    "center": CENTER,
    "width": "3 deg",
    "binsz": "0.1 deg",
    "energy": {"min": "1 TeV", "max": "20 TeV", "nbin": 4},
}


def usable(geom):
    return ~region_mask(geom, parse_regions("icrs;circle(83.63, 22.01, 0.3)", "here"))


@pytest.fixture(scope="module")
def runs(demo):
    return [simulate_observation(demo, obs_id) for obs_id in (1001, 1002, 1003, 1004)]


@pytest.mark.parametrize("kind", ["bkg_2d", "bkg_3d"])
def test_the_same_counts_are_expected(runs, tmp_path, caplog, kind):
    from gammapy.irf import Background2D, Background3D
    from gammapy.makers.utils import make_map_background_irf
    from gammapy.maps import MapAxis, WcsGeom

    energy = Axis.from_bounds("energy", 0.5 * u.TeV, 50 * u.TeV, 12)
    path = tmp_path / "background.fits"
    models = build_acceptance(iter(runs), usable, kind=kind, energy=energy, smoothing=0.5 * u.deg)
    write_background_models(path, models, collect_provenance("model_background", "0" * 64, {}, {}))
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = {"bkg_2d": Background2D, "bkg_3d": Background3D}[kind].read(path, hdu="BKG")
    assert [record.getMessage() for record in caplog.records] == []
    assert theirs.fov_alignment.value == "RADEC"

    run = runs[2]
    recipe, options = RECIPES.bind({"name": "cube", **CUBE}, "cube")
    dataset = recipe(run, "run", **options)
    ours = acceptance(
        run, dataset, BackgroundInputs(usable, models=read_background_models(path)), normalise=False
    )
    axis = MapAxis.from_edges(dataset.energy.edges, interp="log", name="energy")
    geom = WcsGeom.create(skydir=SkyCoord(83.63, 22.01, unit="deg"), width=3, binsz=0.1, axes=[axis])
    if kind == "bkg_2d":  # as its MapDatasetMaker does
        theirs = theirs.pad(1, mode="edge", axis_name="offset")
    expected = make_map_background_irf(run.pointing, run.ontime, theirs, geom, run.gti.reference).data
    assert ours.mu_bkg.sum() > 100
    assert np.allclose(ours.mu_bkg, expected, rtol=2e-3)
    # and what is expected is what the runs were simulated with: 6000 counts in all
    simulated = dataset.mu_bkg
    assert ours.mu_bkg.sum() == pytest.approx(simulated.sum(), rel=0.05)
    west = slice(None), slice(None), slice(15, None)
    ratio = ours.mu_bkg[west].sum() / ours.mu_bkg.sum() - simulated[west].sum() / simulated.sum()
    assert abs(ratio) < (0.015 if kind == "bkg_3d" else 0.06)


def test_tables_of_zenith_bins_are_found_by_their_names(runs, tmp_path):
    from gammapy.irf import Background2D

    energy = Axis.from_bounds("energy", 0.5 * u.TeV, 50 * u.TeV, 12)
    path = tmp_path / "background.fits"
    models = build_acceptance(
        runs, energy=energy, zenith_bins=[0 * u.deg, 46 * u.deg, 50 * u.deg, 90 * u.deg]
    )
    assert len(models) > 1
    write_background_models(path, models, collect_provenance("model_background", "0" * 64, {}, {}))
    for n, model in enumerate(models, 1):
        theirs = Background2D.read(path, hdu=f"BKG_{n}")
        assert np.array_equal(theirs.data, model.data["BKG"])
        assert theirs.meta["ZEN_PNT"] == model.meta["zenith"]
