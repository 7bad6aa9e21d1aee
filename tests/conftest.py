"""Fixtures that many tests share: public data, and the demo's simulated runs."""

import os
from pathlib import Path

import pytest
import yaml

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
    from dl3flow.io.gadf import write_hdu_index, write_observation, write_observation_index
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
