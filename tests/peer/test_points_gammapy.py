"""Spectra of the public Crab runs: flux points, with the rest refitted too, sensitivity, counts and theta squared against gammapy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.data.observation import Observation
from dl3flow.data.products import FitResult
from dl3flow.estimators import EVENT_TABLES, TABLES
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.models_yaml import parse_models, write_models
from dl3flow.io.provenance import collect_provenance

pytestmark = pytest.mark.peer
gammapy_estimators = pytest.importorskip("gammapy.estimators", reason="gammapy is not installed: make peer")

PROVENANCE = collect_provenance("test", "", {}, {})
CRAB = SkyCoord(83.63, 22.01, unit="deg")
RUNS = (23523, 23526, 23559, 23592)
SPECTRUM = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.11)",
        "energy": {"min": "0.8 TeV", "max": "40 TeV", "nbin": 12},
        "energy_true": {"min": "0.3 TeV", "max": "100 TeV", "nbin": 40},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {"name": "reflected"},
}
CUBE = {
    "recipe": {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "1.8 deg",
        "binsz": "0.02 deg",
        "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4},
        "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 12},
    },
    "safe_mask": [{"name": "aeff_default"}],
    "background": {"name": "fov", "method": "scale", "exclusion": "icrs;circle(83.63, 22.01, 0.2)"},
}
COLUMNS = ("norm_err", "norm_errn", "norm_errp", "norm_ul")


def models_of(spatial: dict[str, Any] | None = None) -> Any:
    spectral = {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "index", "value": 2.5},
            {"name": "amplitude", "value": 3e-11, "unit": "cm-2 s-1 TeV-1"},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
        ],
    }
    component = {"name": "crab", "type": "SkyModel", "spectral": spectral}
    return parse_models(
        {"components": [{**component, **({"spatial": spatial} if spatial else {})}]}, "models"
    )


@pytest.fixture(scope="module")
def observations(hess_dl3: Path) -> dict[int, Observation]:
    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    return {n: read_observation(entries[n], hess_dl3) for n in RUNS}


def _files(folder: Path, datasets: list[Dataset], result: FitResult) -> tuple[list[Path], Path]:
    paths = [folder / f"{d.name}.fits" for d in datasets]
    for path, dataset in zip(paths, datasets, strict=True):
        write_fits_dataset(path, dataset, PROVENANCE)
    models = folder / "models.yaml"
    write_models(models, result.models, result.free, result.covariance, PROVENANCE)
    return paths, models


@pytest.fixture(scope="module")
def spectra(
    observations: dict[int, Observation], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Dataset], FitResult, list[Any]]:
    """Four on-off spectra from files, our joint fit, and gammapy's datasets with its models."""
    from gammapy.datasets import Datasets, SpectrumDatasetOnOff
    from gammapy.modeling.models import Models

    chain = parse_chain(SPECTRUM, "")
    reduced = [reduce_observation(observations[n], f"run-{n}", chain) for n in RUNS]
    result = fit(reduced, models_of())
    paths, models = _files(tmp_path_factory.mktemp("spectra"), reduced, result)
    theirs = Datasets(
        [SpectrumDatasetOnOff.read(p, name=d.name) for p, d in zip(paths, reduced, strict=True)]
    )
    theirs.models = Models.read(models)
    ours = [read_fits_dataset(p, d.name) for p, d in zip(paths, reduced, strict=True)]
    return ours, result, theirs


def _compare(ours: Any, theirs: Any, least_ts: float, near: float = 0.01) -> int:
    """Points with a test statistic above ``least_ts``: 1 % of the errors and limits, 2 % of an error in the norm."""
    strong = np.asarray(ours["ts"]) > least_ts
    assert len(ours) == len(theirs)
    sigma = np.asarray(ours["norm_err"])
    assert np.abs((np.asarray(ours["norm"]) - np.asarray(theirs["norm"])) / sigma)[strong].max() < 0.02
    for name in COLUMNS:
        assert np.asarray(ours[name])[strong] == pytest.approx(np.asarray(theirs[name])[strong], rel=near), (
            name
        )
    assert np.asarray(ours["ts"])[strong] == pytest.approx(np.asarray(theirs["ts"])[strong], rel=2e-3)
    return int(strong.sum())


@pytest.mark.filterwarnings("ignore")
def test_joint_points_of_spectra(spectra: tuple[list[Dataset], FitResult, list[Any]]) -> None:
    ours, result, theirs = spectra
    edges = ours[0].energy.edges[::2]
    estimator = gammapy_estimators.FluxPointsEstimator(
        energy_edges=edges, source="crab", selection_optional=["errn-errp", "ul"]
    )
    table = estimator.run(theirs).to_table(sed_type="likelihood", formatted=False)
    estimate, options = TABLES.bind(
        {"name": "flux_points", "source": "crab", "energy": {"edges": [str(e) for e in edges]}}, "sed"
    )
    points = estimate(ours, result, **options)
    assert _compare(points.table, table, 4.0) >= 4
    for kind in ("dnde", "flux", "eflux"):
        reference = points.table[f"ref_{kind}"]
        assert reference.to_value(table[f"ref_{kind}"].unit) == pytest.approx(
            np.asarray(table[f"ref_{kind}"]), rel=1e-4
        )
    # measured backgrounds leave nothing to fit anew
    again = estimate(ours, result, **{**options, "reoptimize": True}).table
    assert np.asarray(again["norm"]) == pytest.approx(np.asarray(points.table["norm"]), rel=1e-4, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_points_of_maps_with_the_background_fitted_anew(
    observations: dict[int, Observation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run, four bins: norm and tilt of the background free in each on their side, its norm on ours (one energy)."""
    import gammapy.irf.psf.map as psf_map
    from gammapy.datasets import Datasets, MapDataset
    from gammapy.modeling.models import Models

    monkeypatch.setattr(
        psf_map,
        "_psf_upsampling_factor",
        lambda psf, geom, position, **_: np.full(psf.psf_map.geom.axes["energy_true"].nbin, 20),
    )
    place = [
        {"name": "lon_0", "value": 83.63, "unit": "deg", "frozen": True},
        {"name": "lat_0", "value": 22.01, "unit": "deg", "frozen": True},
    ]
    point = {"type": "PointSpatialModel", "frame": "icrs", "parameters": place}
    dataset = reduce_observation(observations[23523], "run", parse_chain(CUBE, ""))
    result = fit([dataset], add_backgrounds([dataset], models_of(point), ["norm"]))
    (path,), models = _files(tmp_path, [dataset], result)
    theirs = Datasets([MapDataset.read(path, name="run")])
    theirs.models = Models.read(models)
    edges = dataset.energy.edges
    estimator = gammapy_estimators.FluxPointsEstimator(
        energy_edges=edges, source="crab", selection_optional=["errn-errp", "ul"], reoptimize=True
    )
    table = estimator.run(theirs).to_table(sed_type="likelihood", formatted=False)
    estimate, options = TABLES.bind(
        {
            "name": "flux_points",
            "source": "crab",
            "energy": {"edges": [str(e) for e in edges]},
            "reoptimize": True,
        },
        "sed",
    )
    ours = estimate([read_fits_dataset(path, "run")], result, **options).table
    assert _compare(ours, table, 4.0) >= 3


@pytest.mark.filterwarnings("ignore")
def test_sensitivity(spectra: tuple[list[Dataset], FitResult, list[Any]]) -> None:
    from gammapy.modeling.models import PowerLawSpectralModel

    ours, _, theirs = spectra
    estimator = gammapy_estimators.SensitivityEstimator(
        spectral_model=PowerLawSpectralModel(index=2.3), n_sigma=5, gamma_min=10, bkg_syst_fraction=0.05
    )
    decided = set()
    for mine, other in zip(ours, theirs, strict=True):
        table = estimator.run(other.copy(name=other.name))
        estimate, options = TABLES.bind({"name": "sensitivity", "index": 2.3}, "s")
        found = estimate([mine], None, **options).table
        used = mine.mask[:, 0, 0]
        assert used.sum() > 8
        assert np.asarray(found["excess"])[used] == pytest.approx(np.asarray(table["excess"])[used], rel=1e-3)
        assert found["e2dnde"].to_value("erg cm-2 s-1")[used] == pytest.approx(
            table["e2dnde"].quantity.to_value("erg cm-2 s-1")[used], rel=2e-3
        )
        assert list(found["criterion"][used]) == list(table["criterion"][used])
        decided |= set(table["criterion"][used])
    assert decided >= {"significance", "gamma"}


@pytest.mark.filterwarnings("ignore")
def test_counts_add_up_as_theirs(spectra: tuple[list[Dataset], FitResult, list[Any]]) -> None:
    ours, _, theirs = spectra
    expected = theirs.info_table(cumulative=True)
    estimate, options = TABLES.bind({"name": "counts_table", "cumulative": True}, "t")
    found = estimate(ours, None, **options).table
    order = np.argsort(found["counts"])
    assert np.array_equal(order, np.arange(len(RUNS)))
    assert found["counts"].tolist() == expected["counts"].tolist()
    assert found["counts_off"].tolist() == expected["counts_off"].tolist()
    for name in ("background", "excess", "sqrt_ts"):
        assert np.asarray(found[name]) == pytest.approx(np.asarray(expected[name]), rel=1e-4), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_off", [1, 3])
def test_theta_squared(observations: dict[int, Observation], hess_dl3: Path, n_off: int) -> None:
    from gammapy.data import DataStore
    from gammapy.makers.utils import make_theta_squared_table
    from gammapy.maps import MapAxis

    ids = list(RUNS[:2])
    axis = MapAxis.from_edges(np.linspace(0, 0.04, 9), unit="deg2", name="theta_squared", interp="lin")
    expected = make_theta_squared_table(
        DataStore.from_dir(hess_dl3).get_observations(ids),
        theta_squared_axis=axis,
        position=CRAB,
        off_regions_number=n_off,
    )
    entry = {
        "name": "theta_squared",
        "position": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "theta_max": "0.2 deg",
        "n_bins": 8,
        "n_off": n_off,
    }
    estimate, options = EVENT_TABLES.bind(entry, "theta2")
    table = estimate([observations[n] for n in ids], **options).table
    assert table["counts"].tolist() == expected["counts"].tolist()
    assert table["counts_off"].tolist() == expected["counts_off"].tolist()
    assert table["alpha"] == pytest.approx(np.asarray(expected["alpha"]))
    assert table["sqrt_ts"] == pytest.approx(np.asarray(expected["sqrt_ts"]), abs=1e-6)
    for name in ("excess_errn", "excess_errp"):
        assert table[name] == pytest.approx(np.asarray(expected[name]), rel=1e-3), name
