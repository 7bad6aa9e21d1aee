"""Fixtures that many tests share: public data, and the demo's simulated runs."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# several test processes share the machine: threads of the linear algebra would only wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

import astropy.units as u
import numpy as np
import pytest
import yaml
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.simulate.plan import Simulation, parse_simulation

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of the public data, from DL3FLOW_DATA or beside the project."""
    path = Path(os.environ.get("DL3FLOW_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"public data are absent: {path} (set DL3FLOW_DATA)")
    return path


@pytest.fixture(scope="session")
def hess_dl3(public_data: Path) -> Path:
    """First public H.E.S.S. data release."""
    path = public_data / "hess-dl3-dr1"
    if not path.is_dir():
        pytest.skip(f"the H.E.S.S. data release is absent: {path}")
    return path


@pytest.fixture(scope="session")
def demo_config() -> dict:
    """Configuration of the embedded simulation, as YAML gives it."""
    return yaml.safe_load((ROOT / "config" / "simulations" / "demo.yaml").read_text())


@pytest.fixture(scope="session")
def demo(demo_config: dict) -> Simulation:
    """The embedded simulation."""
    return parse_simulation(demo_config, "demo.yaml")


@pytest.fixture(scope="session")
def demo_run(demo: Simulation):
    """First simulated observation."""
    from dl3flow.simulate.events import simulate_observation

    return simulate_observation(demo, 1001)


@pytest.fixture(scope="session")
def demo_dl3(demo: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded simulation written as a GADF data folder."""
    from dl3flow.io.gadf_index import write_hdu_index, write_observation_index
    from dl3flow.io.gadf_write import write_observation
    from dl3flow.simulate.events import simulate_observation
    from dl3flow.simulate.plan import observation_entries

    root = tmp_path_factory.mktemp("demo-dl3")
    (root / "data").mkdir()
    entries = observation_entries(demo)
    for entry in entries:
        write_observation(root / entry.paths[0], simulate_observation(demo, entry.obs_id))
    write_observation_index(root / "obs-index.fits.gz", entries)
    write_hdu_index(root / "hdu-index.fits.gz", entries)
    return root


def _small_dataset(
    name: str = "small", *, part: str = "whole", seed: int = 0, amplitude: float = 3e-10
) -> Dataset:
    """A synthetic dataset of 3 energy bins on 40 x 40 pixels (or its western half), counts drawn with ``seed``.

    Exposure falls to the north, the point spread is a Gaussian of 0.08 deg, and the source at the centre is a power law
    of index 2.5.
    """
    whole = SkyGeometry.create(SkyCoord(83.63, 22.01, unit="deg"), 2 * u.deg, 0.05 * u.deg)
    geom = whole if part == "whole" else whole.part((0, 40), (20, 40))
    whole_irf = whole.coarser(0.5 * u.deg)
    geom_irf = whole_irf if part == "whole" else whole_irf.part((0, 4), (2, 4))
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 3)
    energy_true = Axis.from_bounds("energy_true", 0.5 * u.TeV, 20 * u.TeV, 5)
    rad = Axis.from_bounds("rad", 0 * u.deg, 0.5 * u.deg, 50, "lin")
    unit = u.Unit("m2 s")

    def exposure(on: SkyGeometry) -> Map:
        north = np.degrees(on.lonlat[1]) - 22.01
        grow = np.linspace(1, 3, 5)[:, None, None]
        return Map(on, (energy_true,), 2e8 * grow * (1 - 0.1 * north), unit)

    density = np.exp(-0.5 * (rad.centers.to_value("deg") / 0.08) ** 2)
    ring = 2 * np.pi * rad.centers.to_value("rad") * rad.widths.to_value("rad")
    psf = np.broadcast_to((density / (density * ring).sum())[:, None, None], (5, 50, *geom_irf.shape))
    kernel = np.array([[0.1, 0, 0], [0.7, 0.1, 0], [0.1, 0.7, 0.1], [0, 0.2, 0.7], [0, 0, 0.2]])
    edisp = np.broadcast_to(kernel[:, :, None, None], (5, 3, *geom_irf.shape))
    level = np.array([0.9, 0.3, 0.1])[:, None, None]
    background = Map(
        geom,
        (energy,),
        np.broadcast_to(level * (1 + 0.2 * np.cos(geom.lonlat[0] * 40)), (3, *geom.shape)).copy(),
    )
    dataset = Dataset(
        name=name,
        counts=Map(geom, (energy,), np.zeros((3, *geom.shape))),
        background=ExpectedCounts(background),
        exposure=exposure(geom),
        psf=PsfMap(Map(geom_irf, (energy_true, rad), psf, u.Unit("sr-1")), exposure(geom_irf)),
        edisp=EdispMap(Map(geom_irf, (energy_true, energy), edisp), exposure(geom_irf)),
        mask_safe=np.ones((3, *geom.shape), dtype=bool),
        mask_fit=None,
        gti=Gti([0.0] * u.s, [1000.0] * u.s, Time(60000 + seed, format="mjd", scale="tt")),
        meta={"obs_ids": [seed], "livetime": 950.0, "ontime": 1000.0, "telescope": "T", "instrument": "I"},
    )
    signal, expected = predict_counts(dataset, _point_models(amplitude))
    drawn = np.random.default_rng(seed).poisson(signal + expected).astype(float)
    for values in (psf, edisp, background.data, drawn, dataset.mask_safe):
        values.setflags(write=False)
    return replace(dataset, counts=dataset.counts.with_data(drawn))


def _point_models(
    amplitude: float = 3e-10, index: float = 2.5, lon: float = 83.63, lat: float = 22.01
) -> Models:
    """A point source called ``s`` with a power law."""
    spectral = Component(
        "power_law",
        (
            Parameter("amplitude", amplitude, u.Unit("cm-2 s-1 TeV-1")),
            Parameter("index", index),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        ),
    )
    spatial = Component("point", (Parameter("lon_0", lon, u.deg), Parameter("lat_0", lat, u.deg)))
    return Models((Source("s", spectral, spatial),))


@pytest.fixture(scope="session")
def small_dataset() -> Callable[..., Dataset]:
    """Maker of synthetic datasets whose arrays cannot be written into."""
    return _small_dataset


@pytest.fixture(scope="session")
def point_models() -> Callable[..., Models]:
    """Maker of the model that the synthetic datasets were drawn from."""
    return _point_models
