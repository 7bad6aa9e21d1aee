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
from dl3flow.simulate.events import observe

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


def test_sampled_events(irfs: Path, tmp_path: Path) -> None:
    """Events of the same sky by both samplers: numbers within 4 sigma, energies, places and times from one distribution."""
    from gammapy.data import EventList as PeerEvents
    from gammapy.data import FixedPointingInfo, observatory_locations
    from gammapy.data import Observation as PeerObservation
    from gammapy.datasets import MapDataset, MapDatasetEventSampler
    from gammapy.irf import load_irf_dict_from_file
    from gammapy.makers import MapDatasetMaker
    from gammapy.maps import MapAxis, WcsGeom
    from gammapy.modeling.models import FoVBackgroundModel
    from gammapy.modeling.models import Models as PeerModels
    from scipy.stats import ks_2samp

    entry = _models("gauss0.2", 0.5)
    entry["components"][0]["spectral"]["parameters"][1]["value"] = 1e-10
    start = Time("2020-01-01", scale="tt")
    run = observe(
        1, parse_models(entry, "m"), read_irfs(irfs), POINTING, Gti([0] * u.s, [3600] * u.s, start), seed=3,
        energy=[0.05, 60] * u.TeV,
    )  # fmt: skip

    observation = PeerObservation.create(
        pointing=FixedPointingInfo(fixed_icrs=POINTING),
        obs_id=1,
        tstart=0 * u.s,
        tstop=LIVETIME,
        reference_time=start,
        irfs=load_irf_dict_from_file(irfs),
        location=observatory_locations["ctao_south"],
        deadtime_fraction=0.0,
    )
    geom = WcsGeom.create(
        skydir=POINTING, width=4, binsz=0.04, frame="icrs",
        axes=[MapAxis.from_energy_bounds("0.1 TeV", "30 TeV", nbin=24)],
    )  # fmt: skip
    empty = MapDataset.create(
        geom,
        energy_axis_true=MapAxis.from_energy_bounds("0.05 TeV", "60 TeV", nbin=48, name="energy_true"),
        migra_axis=MapAxis.from_bounds(0.2, 5, nbin=150, node_type="edges", name="migra"),
        binsz_irf=0.2,
        name="m",
    )
    made = MapDatasetMaker(selection=["exposure", "background", "psf", "edisp"]).run(empty, observation)
    made.models = [*PeerModels.from_dict(entry), FoVBackgroundModel(dataset_name="m")]
    theirs: Any = MapDatasetEventSampler(random_state=0).run(made, observation)
    assert isinstance(theirs, PeerEvents)

    inside = geom.to_image().contains(run.events.radec) & (
        np.abs(np.log(run.events.energy.value / 3**0.5)) < np.log(300) / 2
    )
    is_source = np.asarray(theirs.table["MC_ID"]) == 1
    for number, chosen in ((1, is_source), (0, ~is_source)):
        mine = inside & (run.events.mc_id == number)
        n, m = int(mine.sum()), int(chosen.sum())
        assert min(n, m) > 5_000
        # the peer draws energies even within its bins, in which spectra fall: it has some more above their edges
        assert n == pytest.approx(m, abs=4 * np.sqrt(n + m) + 0.02 * m)
        place = theirs.table[chosen]
        least = {"energy": 0.03, "lat": 0.015, "time": 0.015}
        pairs = {
            "energy": (np.log(run.events.energy.value[mine]), np.log(np.asarray(place["ENERGY"]))),
            "lat": (run.events.radec.dec.deg[mine], np.asarray(place["DEC"])),
            "time": (
                run.events.time.value[mine],
                (theirs.time[chosen] - start).to_value("s"),
            ),
        }
        for name, (a, b) in pairs.items():
            assert ks_2samp(a, b).statistic < least[name] + 1.5 * np.sqrt((n + m) / (n * m)), (number, name)
