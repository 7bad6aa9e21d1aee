"""Predictions of defined models at several offsets against gammapy: the reference case M with a response that is here.

Case M was made with the CTA 1DC response, which is not among the public data; all else is as there, on the prod5 response of
the southern site.
"""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.data.events import EventList, Gti
from dl3flow.data.observation import Observation
from dl3flow.fit.npred import predict_counts
from dl3flow.io.gadf_irf import read_irfs
from dl3flow.io.models_yaml import parse_models

pytestmark = pytest.mark.peer
gammapy_makers = pytest.importorskip("gammapy.makers", reason="gammapy is not installed: make peer")

IRFS = "cta-caldb/Prod5-South-20deg-AverageAz-14MSTs37SSTs.180000s-v0.1.fits.gz"
POINTING = SkyCoord(83.63 * u.deg, 22.01 * u.deg)
LIVETIME = 3600 * u.s
SECTIONS = {
    "recipe": {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "5 deg",
        "binsz": "0.02 deg",
        "energy": {"min": "0.1 TeV", "max": "30 TeV", "nbin": 12},
        "energy_true": {"min": "0.05 TeV", "max": "60 TeV", "nbin": 36},
        "binsz_irf": "0.2 deg",
    },
    "safe_mask": [{"name": "offset_max", "offset_max": "2.4 deg"}],
}
SHAPES = {"point": None, "gauss0.05": 0.05, "gauss0.2": 0.2}


@pytest.fixture(scope="module")
def irfs(public_data: Path) -> Path:
    path = public_data / IRFS
    if not path.is_file():
        pytest.skip(f"the prod5 responses are absent: {path}")
    return path


@pytest.fixture(scope="module")
def ours(irfs: Path) -> Dataset:
    tables = read_irfs(irfs)
    start = Time("2020-01-01", scale="tt")
    events = EventList(np.zeros(0, dtype=int), [] * u.s, start, SkyCoord([] * u.deg, [] * u.deg), [] * u.TeV)
    observation = Observation(
        obs_id=1,
        events=events,
        gti=Gti([0] * u.s, [3600] * u.s, start),
        pointing=POINTING,
        deadtime_fraction=0.0,
        aeff=tables["aeff"],
        edisp=tables["edisp"],
        psf=tables["psf"],
        bkg=tables["bkg"],
        meta={"telescope": "CTA", "instrument": "", "warnings": []},
    )
    return reduce_observation(observation, "m", parse_chain(SECTIONS, ""))


@pytest.fixture(scope="module")
def theirs(irfs: Path) -> Any:
    from gammapy.data import FixedPointingInfo
    from gammapy.data import Observation as PeerObservation
    from gammapy.datasets import MapDataset
    from gammapy.irf import load_irf_dict_from_file
    from gammapy.makers import MapDatasetMaker, SafeMaskMaker
    from gammapy.maps import MapAxis, WcsGeom

    observation = PeerObservation.create(
        pointing=FixedPointingInfo(fixed_icrs=POINTING),
        obs_id=1,
        livetime=LIVETIME,
        irfs=load_irf_dict_from_file(irfs),
        deadtime_fraction=0.0,
    )
    energy = MapAxis.from_energy_bounds("0.1 TeV", "30 TeV", nbin=12)
    true = MapAxis.from_energy_bounds("0.05 TeV", "60 TeV", nbin=36, name="energy_true")
    geom = WcsGeom.create(skydir=POINTING, width=5, binsz=0.02, frame="icrs", axes=[energy])
    empty = MapDataset.create(geom, energy_axis_true=true, binsz_irf=0.2, name="m")
    made = MapDatasetMaker(selection=["exposure", "background", "psf", "edisp"]).run(empty, observation)
    return SafeMaskMaker(methods=["offset-max"], offset_max="2.4 deg").run(made, observation)


def _models(shape: str, offset: float) -> dict[str, Any]:
    sigma = SHAPES[shape]
    spatial: dict[str, Any] = {
        "type": "PointSpatialModel" if sigma is None else "GaussianSpatialModel",
        "frame": "icrs",
        "parameters": [
            {"name": "lon_0", "value": 83.63, "unit": "deg"},
            {"name": "lat_0", "value": 22.01 + offset, "unit": "deg"},
        ],
    }
    if sigma is not None:
        spatial["parameters"].append({"name": "sigma", "value": sigma, "unit": "deg"})
    spectral = {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "index", "value": 2.2},
            {"name": "amplitude", "value": 1e-11, "unit": "cm-2 s-1 TeV-1"},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
        ],
    }
    return {"components": [{"name": "s", "type": "SkyModel", "spectral": spectral, "spatial": spatial}]}


def test_reduction(ours: Dataset, theirs: Any) -> None:
    assert np.array_equal(ours.mask_safe, theirs.mask_safe.data)
    background = theirs.background.data.sum(axis=(1, 2))
    assert ours.mu_bkg.sum(axis=(1, 2)) == pytest.approx(background, rel=1e-4)
    j, i = ours.counts.sky.nearest(POINTING)
    expected = theirs.exposure.quantity.to_value("m2 s")[:, j, i]
    assert ours.exposure.quantity.to_value("m2 s")[:, j, i] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_prediction(shape: str, offset: float, ours: Dataset, theirs: Any) -> None:
    from gammapy.modeling.models import Models

    entry = _models(shape, offset)
    found, _ = predict_counts(ours, parse_models(entry, "m"))
    peer = theirs.copy(name="m")
    peer.models = Models.from_dict(entry)
    expected = peer.npred_signal().data
    assert found.sum(axis=(1, 2)) == pytest.approx(expected.sum(axis=(1, 2)), rel=2e-3)
    center = SkyCoord(83.63 * u.deg, (22.01 + offset) * u.deg)
    distance = np.degrees(ours.counts.sky.separation(center))
    for radius, near in ((0.05, 0.02), (0.1, 0.01), (0.3, 0.01)):
        inside = distance < radius
        assert found[:, inside].sum() == pytest.approx(expected[:, inside].sum(), rel=near)
