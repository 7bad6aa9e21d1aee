"""Spectra, rings, further runs, maps without a stack and OGIP files through the whole workflow."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dl3flow.data.dataset import ExpectedCounts, OffCounts
from dl3flow.geometry.region import RegionGeometry
from dl3flow.io.background_models import read_background_models
from dl3flow.io.fits_datasets import read_fits_dataset
from dl3flow.io.hdf5 import read_dataset
from dl3flow.io.ogip import read_ogip

from .conftest import Project

pytestmark = pytest.mark.xdist_group("kinds")

EMPTY_RUNS = """\
  - {obs_id: 3, target: none, pointing: {lon: 70 deg, lat: 22 deg}, start: "2024-01-12 21:00:00", duration: 15 min}
  - {obs_id: 4, target: none, pointing: {lon: 71 deg, lat: 21 deg}, start: "2024-01-12 21:30:00", duration: 15 min}
"""
EXTRA_RUN = """\
  - {obs_id: 5, target: none, pointing: {lon: 72 deg, lat: 21 deg}, start: "2024-01-22 21:30:00", duration: 15 min}
"""
ANALYSIS = """\
observations:
  runs: {data: sim, select: {target: crab}}
  empty: {data: sim, select: {target: none}}
reductions:
  spectrum:
    observations: runs
    recipe: &spectrum
      name: spectrum
      region: "icrs;circle(83.63, 22.01, 0.15)"
      energy: {min: 1 TeV, max: 10 TeV, nbin: 3}
      energy_true: {min: 0.5 TeV, max: 20 TeV, nbin: 8}
      containment_correction: true
    background: {name: reflected}
    ogip: true
  ring:
    observations: runs
    recipe: &cube
      name: cube
      center: {frame: icrs, lon: 83.63 deg, lat: 22.01 deg}
      width: 2 deg
      binsz: 0.05 deg
      energy: {min: 1 TeV, max: 10 TeV, nbin: 3}
      energy_true: {min: 0.5 TeV, max: 20 TeV, nbin: 8}
    background: {name: ring, r_in: 0.4 deg, width: 0.2 deg, exclusion: "icrs;circle(83.63, 22.01, 0.3)"}
  on-off:
    observations: runs
    recipe: *spectrum
    background: {name: off_runs, runs: {observations: empty, epoch: 2 day}}
  built:
    observations: runs
    recipe: *cube
    background:
      name: acceptance
      exclusion: "icrs;circle(83.63, 22.01, 0.3)"
      runs: {observations: empty}
      model: {kind: bkg_2d, energy: {min: 0.6 TeV, max: 20 TeV, nbin: 8}, radius: 1.5 deg}
  fields:
    observations: runs
    recipe: {<<: *cube, center: pointing}
models:
  components:
    - name: crab
      type: SkyModel
      spectral:
        type: curved
        parameters:
          - {name: index, value: 2.6}
          - {name: amplitude, value: 4.0e-11, unit: cm-2 s-1 TeV-1}
inputs:
  stored: {reader: ogip, path: stored}
fits:
  joint: {datasets: [spectrum, stored], mode: joint, energy: {stored: [2 TeV, 10 TeV]}}
  grouped:
    datasets: [spectrum, on-off]
    mode: {name: grouped, by: epoch, edges: ["2024-01-12 19:00:00", "2024-01-12 20:20:00", "2024-01-12 22:00:00"]}
    minos: [crab.index]
    profiles: [{name: crab.index, n: 5, n_sigma: 2}]
    contours: [{names: [crab.amplitude, crab.index], n_points: 12}]
    systematics: {energy_scale: {on-off: 0.1}}
plugins: [config/curved.py]
references:
  - {fit: grouped, source: crab, label: the truth, parameters: {index: {value: 2.6, error: 0.1}}}
estimators:
  sed: {name: flux_points, fit: joint, source: crab, energy: {min: 1 TeV, max: 10 TeV, nbin: 3}}
  sky: {name: excess_map, reduction: ring, correlation_radius: 0.15 deg}
"""
PLUGIN = '''\
"""A power law of the user's own."""

import numpy as np

from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.units import Flux, Number


def gradient(energy, amplitude, index):
    return np.array([energy**-index, -amplitude * np.log(energy) * energy**-index])


@SPECTRAL_MODELS.register(gradient=gradient)
def curved(energy, amplitude: Flux = 1e-12, index: Number = 2.0):
    """A power law at 1 TeV."""
    return amplitude * energy**-index
'''
ARGUMENTS = ("--config", 'analyses=["config/analyses/kinds.yaml"]')


@pytest.fixture(scope="module")
def project(make_project: Callable[[str], Project]) -> Project:
    """A project whose analysis of all kinds has run to its end, twice: first to make the OGIP files that it then reads."""
    project = make_project("kinds")
    simulation = project.root / "config" / "simulations" / "small.yaml"
    simulation.write_text(simulation.read_text() + EMPTY_RUNS)
    analysis = project.root / "config" / "analyses" / "kinds.yaml"
    (project.root / "config" / "curved.py").write_text(PLUGIN)
    first = ANALYSIS.replace("inputs:\n  stored: {reader: ogip, path: stored}\n", "")
    first = first.replace("[spectrum, stored]", "[spectrum]").replace(
        ", energy: {stored: [2 TeV, 10 TeV]}", ""
    )
    analysis.write_text(first)
    ogip = "results/kinds/dl4/spectrum/ogip"
    done = project.run(*ARGUMENTS, "--", ogip)
    assert done.returncode == 0, done.stdout
    (project.root / ogip).rename(project.root / "stored")
    analysis.write_text(ANALYSIS)
    done = project.run(*ARGUMENTS)
    assert done.returncode == 0, done.stdout
    return project


def _dl4(project: Project, name: str) -> Path:
    return project.root / "results" / "kinds" / "dl4" / name


def test_kinds_of_datasets(project: Project) -> None:
    spectrum = read_fits_dataset(_dl4(project, "spectrum/stacked.fits"), "spectrum")
    assert isinstance(spectrum.geom, RegionGeometry)
    assert isinstance(spectrum.background, OffCounts)
    ring = read_fits_dataset(_dl4(project, "ring/stacked.fits"), "ring")
    assert isinstance(ring.background, OffCounts)
    assert ring.energy.n_bins == 1
    # the same events inside the circle, whatever the recipe
    distance = np.degrees(ring.counts.sky.separation(spectrum.geom.center))
    inside = ring.counts.data[0][distance < 0.15].sum()
    assert inside == pytest.approx(spectrum.counts.data.sum(), rel=0.1)
    built = read_fits_dataset(_dl4(project, "built/stacked.fits"), "built")
    assert isinstance(built.background, ExpectedCounts)
    # outside the exclusion the norms make the expectation the counts
    assert built.mu_bkg.sum() == pytest.approx(built.counts.data.sum(), rel=0.25)


def test_off_counts_of_further_runs_are_theirs(project: Project) -> None:
    run = read_dataset(_dl4(project, "on-off/1.h5"))
    assert isinstance(run.background, OffCounts)
    # two runs as long as this one
    assert run.background.acceptance_off.data == pytest.approx(2.0, rel=1e-3)
    reflected = read_dataset(_dl4(project, "spectrum/1.h5"))
    assert np.array_equal(run.counts.data, reflected.counts.data)


def test_models_are_built_once_and_readable(project: Project) -> None:
    (model,) = read_background_models(_dl4(project, "built/background.fits"))
    assert model.kind == "bkg_2d"
    assert sorted(model.meta["obs_ids"]) == [3, 4]


def test_maps_around_each_pointing_are_not_stacked(project: Project) -> None:
    assert sorted(path.name for path in _dl4(project, "fields").iterdir()) == ["1.h5", "2.h5"]
    one, two = (read_dataset(_dl4(project, f"fields/{n}.h5")) for n in (1, 2))
    assert one.counts.sky.lat_0 - two.counts.sky.lat_0 == pytest.approx(1.0, abs=1e-3)


def test_ogip_files_hold_the_spectra(project: Project) -> None:
    folder = _dl4(project, "spectrum/ogip")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.fits")}
    of = ("obs1", "obs2")
    kinds = ("pha", "bkg", "arf", "rmf")
    assert names == {f"{kind}_{which}.fits" for kind in kinds for which in of} | {
        f"stacked/{kind}_spectrum.fits" for kind in kinds
    }
    stack = read_fits_dataset(_dl4(project, "spectrum/stacked.fits"), "spectrum")
    written = read_ogip(_dl4(project, "spectrum/ogip/stacked/pha_spectrum.fits"))
    assert np.array_equal(written.counts.data, stack.counts.data)
    assert written.mu_bkg == pytest.approx(stack.mu_bkg, rel=1e-6)


def test_data_reduced_elsewhere_join_the_fit(project: Project) -> None:
    fit = json.loads((project.root / "results/kinds/dl5/joint/fit.json").read_text())
    assert fit["success"]
    assert [d["name"] for d in fit["datasets"]] == ["spectrum-1", "spectrum-2", "stored-0", "stored-1"]
    own, stored = fit["datasets"][0], fit["datasets"][2]
    # the limits of the input hold for it alone: one of three bins begins below 2 TeV
    assert (own["n_bins"], stored["n_bins"]) == (3, 2)
    assert stored["counts"] < own["counts"]


def test_groups_are_stacked_and_joined_with_all_that_is_asked_of_them(project: Project) -> None:
    fit = json.loads((project.root / "results/kinds/dl5/grouped/fit.json").read_text())
    assert fit["success"], fit["message"]
    # the first run ends at 20:15, the second begins at 20:30
    assert [d["obs_ids"] for d in fit["datasets"]] == [[1], [2], [1], [2]]
    assert [d["name"].split("-epoch-")[0] for d in fit["datasets"]] == [
        "on-off",
        "on-off",
        "spectrum",
        "spectrum",
    ]
    index = next(p for p in fit["parameters"] if p["name"] == "crab.index")
    # a likelihood of many counts is nearly a parabola
    assert index["error_minus"] == pytest.approx(index["error"], rel=0.15)
    assert index["error_plus"] == pytest.approx(index["error"], rel=0.15)
    profile = fit["profiles"]["crab.index"]
    assert profile["values"] == pytest.approx(
        [index["value"] + k * index["error"] for k in (-2, -1, 0, 1, 2)]
    )
    below, low, best, high, above = profile["stat"]
    # skew with so few counts, but not in the mean of both sides
    assert (below + above, low + high) == (pytest.approx(8, rel=0.1), pytest.approx(2, rel=0.1))
    assert best == pytest.approx(0, abs=1e-6)
    ((contour,),) = fit["contours"].values()
    # both parameters together within 68 %: 1.515 errors of each
    reach = 0.5 * (max(contour["y"]) - min(contour["y"]))
    assert reach == pytest.approx(1.515 * index["error"], rel=0.1)
    (scale,) = fit["systematics"]
    assert scale["name"] == "on-off-response.energy_scale"
    assert scale["prior"] == {"kind": "gaussian", "mu": 0, "sigma": 0.1}
    assert 0 < scale["error"] < 0.1
    assert scale["pull"] == pytest.approx(scale["value"] / 0.1)
    page = (project.root / "results/kinds/report.html").read_text()
    for text in ("Systematic errors of fit grouped", "Fit grouped beside the truth", "With MINOS errors"):
        assert text in page, text


def test_an_edited_plugin_reruns_what_reads_models(project: Project) -> None:
    with project.edited("config/curved.py", "amplitude * energy**-index", "1.0 * amplitude * energy**-index"):
        planned = project.planned(*ARGUMENTS)
    of = {f"{verb} kinds/{name}" for name in ("joint", "grouped") for verb in ("Fit", "Plot")}
    of |= {"Estimate kinds/sed", "Plot kinds/sed", "Write the report of kinds"}
    assert planned == of


def test_a_second_run_does_nothing_and_a_further_run_remakes_only_its_models(project: Project) -> None:
    assert project.planned(*ARGUMENTS) == set()
    simulation = project.root / "config" / "simulations" / "small.yaml"
    text = simulation.read_text()
    simulation.write_text(text + EXTRA_RUN)
    try:
        planned = project.planned(*ARGUMENTS)
    finally:
        simulation.write_text(text)
    reductions = {job for job in planned if job.startswith("Reduce observation")}
    # ten days away: it matches no run, but the models are built from all
    assert reductions == {f"Reduce observation {n} to kinds/built" for n in (1, 2)}
    assert "Build the background models of kinds/built" in planned
    assert not {"Fit kinds/joint", "Stack kinds/spectrum", "Stack kinds/on-off"} & planned
