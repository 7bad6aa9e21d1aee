"""What the reduction makes of responses, against gammapy's makers."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.irf.psf import point_spread
from dl3flow.irf.table import IrfTable
from dl3flow.reduce import RECIPES
from dl3flow.reduce.response import background_map, reco_exposure

pytest.importorskip("gammapy")
pytestmark = pytest.mark.peer

CENTER = SkyCoord(83.63, 22.01, unit="deg")


@pytest.fixture(scope="module")
def pair(demo_dl3):
    """First simulated run, as gammapy and as we read it."""
    from gammapy.data import DataStore

    theirs = DataStore.from_dir(demo_dl3).get_observations([1001], required_irf="full-enclosure")[0]
    return theirs, read_observation(read_index(demo_dl3)[0], demo_dl3)


def geometries(energy, frame="icrs"):
    from gammapy.maps import MapAxis, WcsGeom

    axes = [MapAxis.from_edges(energy.edges, name="energy", interp="log")]
    geom = WcsGeom.create(skydir=CENTER, width=3, binsz=0.1, frame=frame, proj="TAN", axes=axes)
    center = CENTER if frame == "icrs" else CENTER.galactic
    return geom, SkyGeometry.create(center, 3 * u.deg, 0.1 * u.deg, "TAN")


@pytest.mark.parametrize("frame", ["icrs", "galactic"])
@pytest.mark.parametrize("step", [0.2, 1.0])
def test_a_background_aligned_with_the_horizon(pair, frame, step):
    from gammapy.irf import Background3D
    from gammapy.makers.utils import make_map_background_irf

    observation, ours = pair
    x, y = (ours.bkg.axis(name).centers.to_value("deg") for name in ("fov_lon", "fov_lat"))
    # nothing about it is symmetric: flat to one corner, with a bright spot off the axes
    spot = np.exp(-0.5 * (((x[:, None] - 1.2) / 0.4) ** 2 + ((y - 0.5) / 0.6) ** 2))
    rate = ours.bkg.quantity.max(axis=(1, 2))[:, None, None] * (1 + 0.2 * x[:, None] + 3 * spot)
    column = ours.bkg.column
    table = replace(
        ours.bkg,
        data={column: rate.to_value(ours.bkg.units[column])},
        meta={**ours.bkg.meta, "fov_alignment": "ALTAZ"},
    )
    bkg = Background3D(
        observation.bkg.axes, rate.to("s-1 MeV-1 sr-1").value, "s-1 MeV-1 sr-1", fov_alignment="ALTAZ"
    )
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 4)
    geom, sky = geometries(energy, frame)
    expected = make_map_background_irf(
        observation.pointing,
        ours.ontime,
        bkg,
        geom,
        observation.tstart,
        fov_rotation_step=step * u.deg,
        location=observation.observatory_earth_location,
    ).data
    found = background_map(ours, table, sky, energy, fov_rotation_step=step * u.deg).data
    assert found == pytest.approx(expected, rel=2e-3)
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-5)
    # a mirrored or unrotated field would show
    covered = expected > 0
    for mirrored in (found[:, ::-1], found[:, :, ::-1]):
        assert np.abs(mirrored[covered] / expected[covered] - 1).max() > 0.3
    still = background_map(
        ours, replace(table, meta={**table.meta, "fov_alignment": "RADEC"}), sky, energy
    ).data
    assert np.abs(still[covered] / expected[covered] - 1).max() > 0.3


@pytest.mark.parametrize("factor", [1, 3])
def test_an_oversampled_background(pair, factor):
    from gammapy.makers.utils import make_map_background_irf

    observation, ours = pair
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 2)
    geom, sky = geometries(energy)
    expected = make_map_background_irf(
        observation.pointing, ours.ontime, observation.bkg, geom, observation.tstart, oversampling=factor
    ).data
    found = background_map(ours, ours.bkg, sky, energy, oversampling=factor).data
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("index", [2.0, 3.0])
def test_exposure_in_reconstructed_energy(pair, index):
    from gammapy.datasets import MapDataset
    from gammapy.estimators.utils import estimate_exposure_reco_energy
    from gammapy.makers import MapDatasetMaker
    from gammapy.maps import MapAxis
    from gammapy.modeling.models import PowerLawSpectralModel

    observation, ours = pair
    recipe, options = RECIPES.bind(
        {
            "name": "cube",
            "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
            "width": "3 deg",
            "binsz": "0.1 deg",
            "proj": "TAN",
            "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4},
            "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 12},
        },
        "recipe",
    )
    dataset = recipe(ours, "run", **options)
    geom, _ = geometries(dataset.energy)
    true = MapAxis.from_edges(dataset.energy_true.edges, name="energy_true", interp="log")
    theirs = MapDatasetMaker().run(MapDataset.create(geom, energy_axis_true=true), observation)
    expected = estimate_exposure_reco_energy(theirs, PowerLawSpectralModel(index=index))
    found = reco_exposure(dataset, lambda energy: energy**-index)
    assert found.quantity.to_value("m2 s") == pytest.approx(expected.quantity.to_value("m2 s"), rel=1e-5)
    if index == 2:
        assert np.array_equal(reco_exposure(dataset).data, found.data)


def test_king_profiles(pair):
    from gammapy.irf import PSFKing
    from gammapy.maps import MapAxis

    energy, offset = [0.1, 1, 10, 100] * u.TeV, [0, 1, 2, 3] * u.deg
    true = MapAxis.from_energy_edges(energy, name="energy_true")
    theta = MapAxis.from_edges(offset, name="offset")
    gamma = np.array([[1.0, 2.0, 2.5], [1.5, 3.0, 4.0], [2.0, 2.0, 6.0]])
    sigma = np.array([[0.1, 0.05, 0.1], [0.04, 0.06, 0.08], [0.05, 0.03, 0.04]])
    data = np.zeros((3, 3), dtype=[("gamma", float), ("sigma", float)])
    data["gamma"], data["sigma"] = gamma, sigma
    theirs = PSFKing([true, theta], data, {"gamma": u.dimensionless_unscaled, "sigma": u.deg})
    axes = (Axis("energy_true", energy, "log"), Axis("offset", offset))
    ours = IrfTable(
        "psf_king",
        axes,
        {"GAMMA": gamma, "SIGMA": sigma},
        {"GAMMA": u.dimensionless_unscaled, "SIGMA": u.deg},
    )
    rad = Axis.from_bounds("rad", 0 * u.deg, 20 * u.deg, 20000, "lin")
    where, at = [0.5, 2, 40] * u.TeV, [0.6, 1.2, 2.4] * u.deg
    found = point_spread(ours, where, rad, at).to_value("sr-1")
    expected = theirs.evaluate(
        energy_true=where[:, None, None], rad=rad.centers[:, None], offset=at
    ).to_value("sr-1")
    # ours holds all of the light on the axis
    ring = 2 * np.pi * rad.centers.to_value("rad") * rad.widths.to_value("rad")
    held = np.einsum("ero,r->eo", expected, ring)
    assert held.max() == pytest.approx(1, abs=1e-4)
    assert found == pytest.approx(expected / held[:, None], rel=1e-9)
    # a gamma of 1 marks an empty cell
    assert not point_spread(ours, axes[0].centers[:1], rad, axes[1].centers[:1]).value.any()
