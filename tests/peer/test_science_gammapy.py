"""The same statistic, models and flux points as gammapy, from files that either side wrote.

gammapy divides pixels of a point-spread kernel by 1 to 4 by default, which is not converged (it moves the statistic by
0.2 to 0.8): the comparisons set 20 on its side, as in the reference case of kernel convergence.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult
from dl3flow.estimators import TABLES
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.models_yaml import parse_models, write_models
from dl3flow.io.provenance import collect_provenance
from dl3flow.reduce.stack import stack

pytestmark = pytest.mark.peer
gammapy_datasets = pytest.importorskip("gammapy.datasets", reason="gammapy is not installed: make peer")

PROVENANCE = collect_provenance("test", "", {}, {})
SHAPES = {
    "point": {"type": "PointSpatialModel", "frame": "icrs", "parameters": []},
    "gauss": {
        "type": "GaussianSpatialModel",
        "frame": "icrs",
        "parameters": [{"name": "sigma", "value": 0.05, "unit": "deg"}],
    },
}


def models_of(shape: str) -> Any:
    """A power law at the Crab's place."""
    spatial = dict(SHAPES[shape])
    place = [
        {"name": "lon_0", "value": 83.63, "unit": "deg"},
        {"name": "lat_0", "value": 22.01, "unit": "deg"},
    ]
    spatial["parameters"] = place + spatial["parameters"]
    spectral = {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "index", "value": 2.5},
            {"name": "amplitude", "value": 3e-11, "unit": "cm-2 s-1 TeV-1"},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
        ],
    }
    entry = {"components": [{"name": "crab", "type": "SkyModel", "spectral": spectral, "spatial": spatial}]}
    return parse_models(entry, "models")


@pytest.fixture(scope="module")
def stacked(hess_dl3: Path) -> Dataset:
    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    sections = {
        "recipe": {
            "name": "cube",
            "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
            # an odd number of response pixels: on an even one the source lies on a corner, and each side may round its way
            "width": "4.2 deg",
            "binsz": "0.02 deg",
            "cutout": "5 deg",
            "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 6},
            "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 16},
        },
        "safe_mask": [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": "2.4 deg"}],
        "background": {"name": "fov", "method": "scale", "exclusion": "icrs;circle(83.63, 22.01, 0.2)"},
    }
    chain = parse_chain(sections, "")
    runs = [
        reduce_observation(read_observation(entries[obs_id], hess_dl3), f"cube-{obs_id}", chain)
        for obs_id in (23523, 23526)
    ]
    geometries = chain.geometries
    assert geometries is not None
    return stack(runs, "cube", *geometries)


@pytest.fixture(scope="module")
def stacked_file(stacked: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peer") / "stacked.fits"
    write_fits_dataset(path, stacked, PROVENANCE)
    return path


@pytest.fixture
def converged_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import gammapy.irf.psf.map as psf_map

    def twenty(psf: Any, geom: Any, position: Any, **_: Any) -> np.ndarray:
        return np.full(psf.psf_map.geom.axes["energy_true"].nbin, 20)

    monkeypatch.setattr(psf_map, "_psf_upsampling_factor", twenty)
    return


def peer_stat(path: Path, models_file: Path) -> float:
    """Statistic that gammapy computes for our file and our models."""
    from gammapy.modeling.models import Models

    dataset = gammapy_datasets.MapDataset.read(path, name="cube")
    dataset.models = Models.read(models_file)
    return float(dataset.stat_sum())


@pytest.mark.usefixtures("converged_kernels")
@pytest.mark.parametrize("shape", ["point", "gauss"])
def test_gammapy_computes_our_statistic_from_our_files(
    shape: str, stacked: Dataset, stacked_file: Path, tmp_path: Path
) -> None:
    models = add_backgrounds([stacked], models_of(shape), ["norm"])
    norm = models.parameters()["cube-bkg.norm"]
    models = models.with_parameters({"cube-bkg.norm": replace(norm, value=0.97)})
    path = tmp_path / "models.yaml"
    free = tuple(n for n, p in models.parameters().items() if not p.frozen)
    write_models(path, models, free, np.zeros((len(free), len(free))), PROVENANCE)
    likelihood = build_likelihood([read_fits_dataset(stacked_file, "cube")], models)
    assert peer_stat(stacked_file, path) == pytest.approx(likelihood.stat(likelihood.start), abs=1e-2)


@pytest.mark.usefixtures("converged_kernels")
def test_we_compute_its_statistic_from_its_file(stacked_file: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.fits"
    gammapy_datasets.MapDataset.read(stacked_file, name="cube").write(theirs)
    models = add_backgrounds([read_fits_dataset(theirs, "cube")], models_of("point"), ["norm"])
    path = tmp_path / "models.yaml"
    free = tuple(n for n, p in models.parameters().items() if not p.frozen)
    write_models(path, models, free, np.zeros((len(free), len(free))), PROVENANCE)
    likelihood = build_likelihood([read_fits_dataset(theirs, "cube")], models)
    assert likelihood.stat(likelihood.start) == pytest.approx(peer_stat(theirs, path), abs=1e-2)


@pytest.fixture(scope="module")
def result(stacked: Dataset) -> FitResult:
    return fit([stacked], add_backgrounds([stacked], models_of("point"), ["norm"]))


@pytest.mark.usefixtures("converged_kernels")
@pytest.mark.filterwarnings("ignore")
def test_flux_points_agree(stacked: Dataset, stacked_file: Path, result: FitResult, tmp_path: Path) -> None:
    from gammapy.estimators import FluxPointsEstimator
    from gammapy.modeling.models import Models

    path = tmp_path / "models.yaml"
    write_models(path, result.models, result.free, result.covariance, PROVENANCE)
    dataset = gammapy_datasets.MapDataset.read(stacked_file, name="cube")
    dataset.models = Models.read(path)
    edges = stacked.energy.edges[::2]
    estimator = FluxPointsEstimator(energy_edges=edges, source="crab", selection_optional=["errn-errp", "ul"])
    theirs = estimator.run([dataset]).to_table(sed_type="likelihood", formatted=False)
    estimate = TABLES.find("flux_points", "")
    options = {"source": "crab", "n_sigma": 1.0, "n_sigma_ul": 2.0}
    energy = replace(stacked.energy, edges=edges)
    ours = estimate([stacked], result, energy=energy, **options).table
    assert len(ours) == len(theirs) == 3
    sigma = np.asarray(ours["norm_err"])
    assert np.asarray(ours["ref_dnde"].value) == pytest.approx(np.asarray(theirs["ref_dnde"]), rel=1e-4)
    assert np.all(np.abs(np.asarray(ours["norm"]) - np.asarray(theirs["norm"])) < 0.02 * sigma)
    for name in ("norm_err", "norm_errn", "norm_errp", "norm_ul"):
        assert np.asarray(ours[name]) == pytest.approx(np.asarray(theirs[name]), rel=0.01), name
    assert np.asarray(ours["ts"]) == pytest.approx(np.asarray(theirs["ts"]), rel=1e-3)
