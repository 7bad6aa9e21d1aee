"""A small copy of the project with its own source tree, and a finished run of it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SIMULATION = """\
seed: 7
energy: {min: 0.5 TeV, max: 50 TeV}
instrument: {area: 2e5 m2, threshold: 0.5 TeV, background_rate: 0.5 Hz, field: 2 deg}
sources:
  - name: crab
    lon: 83.63 deg
    lat: 22.01 deg
    spectral: {type: power_law, amplitude: 4e-11 cm-2 s-1 TeV-1, index: 2.6, reference: 1 TeV}
observations:
  - {obs_id: 1, target: crab, wobble: {offset: 0.5 deg, angle: 0 deg}, start: "2024-01-12 20:00:00", duration: 15 min}
  - {obs_id: 2, target: crab, wobble: {offset: 0.5 deg, angle: 180 deg}, start: "2024-01-12 20:30:00", duration: 15 min}
"""

ANALYSIS = """\
observations:
  runs: {data: sim}
reductions:
  cube:
    observations: runs
    recipe:
      name: cube
      center: {frame: icrs, lon: 83.63 deg, lat: 22.01 deg}
      width: 2 deg
      binsz: 0.1 deg
      energy: {min: 1 TeV, max: 10 TeV, nbin: 3}
      energy_true: {min: 0.5 TeV, max: 20 TeV, nbin: 8}
      binsz_irf: 0.5 deg
    safe_mask: [{name: offset_max, offset_max: 1.5 deg}]
    background: {name: fov, exclusion: "icrs;circle(83.63, 22.01, 0.3)"}
models: config/models/crab.yaml
fits:
  joint: {datasets: [cube], mode: joint}
estimators:
  sed: {name: flux_points, fit: joint, source: crab, energy: {min: 1 TeV, max: 10 TeV, nbin: 3}}
  curve: {name: light_curve, fit: joint, source: crab}
  parts: {name: light_curve, reduction: cube, source: crab, time: {width: 20 min}}
  sky: {name: excess_map, reduction: cube, correlation_radius: 0.15 deg}
"""

CONFIG = """\
analyses: [config/analyses/small.yaml]
results: results
data:
  sim: {simulate: config/simulations/small.yaml}
"""


@dataclass(frozen=True)
class Project:
    """A folder in which the workflow runs."""

    root: Path

    def command(self, *arguments: str) -> list[str]:
        """Command line of snakemake, with the Python of this test."""
        return [sys.executable, "-m", "snakemake", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which the copied source tree is the one that is imported."""
        return {**os.environ, "PYTHONPATH": str(self.root / "src"), "PYTHONWARNINGS": "default"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run snakemake to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def planned(self, *arguments: str) -> set[str]:
        """What a dry run would do, by the messages of the jobs."""
        done = self.run("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout
        return set(re.findall(r"^Job \d+: (.*)$", done.stdout, re.MULTILINE))

    @contextmanager
    def edited(self, name: str, old: str, new: str) -> Iterator[None]:
        """Change a file for a moment; the old text must be there once."""
        path = self.root / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} holds {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)

    def products(self) -> dict[str, bytes]:
        """Content of all products, by their path below the results; logs are none."""
        base = self.root / "results"
        files = (path for path in base.rglob("*") if path.is_file())
        named = {str(path.relative_to(base)): path for path in files}
        return {name: path.read_bytes() for name, path in named.items() if not name.startswith("logs/")}


def copy_project(root: Path) -> Project:
    """Copy the workflow and the library, with a small analysis of simulated data."""
    for name in ("workflow", "profiles", "src", "config/models"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "Snakefile", root)
    for name, text in {
        "config.yaml": CONFIG,
        "simulations/small.yaml": SIMULATION,
        "analyses/small.yaml": ANALYSIS,
    }.items():
        path = root / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Project(root)


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Project]:
    """Make a project in a new folder of that name."""
    return lambda name: copy_project(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def finished(make_project: Callable[[str], Project]) -> Project:
    """A project whose analysis has run to its end."""
    project = make_project("finished")
    done = project.run()
    assert done.returncode == 0, done.stdout
    return project
