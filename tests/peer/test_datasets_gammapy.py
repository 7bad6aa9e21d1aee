"""Measured backgrounds and spectra in files that either side wrote: gammapy opens them and finds the same statistic and fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import fit
from dl3flow.io.datasets_yaml import read_datasets, write_datasets
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.models_yaml import parse_models, write_models
from dl3flow.io.ogip import read_ogip, write_ogip
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.region_files import read_region_file, write_region_file
from dl3flow.models.source import Models
from dl3flow.reduce.stack import stack

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
theirs = pytest.importorskip("gammapy.datasets", reason="gammapy is not installed: make peer")

PROVENANCE = collect_provenance("test", "", {}, {})
RUNS = (23523, 23526)
CIRCLE = "icrs;circle(83.63, 22.01, 0.11)"
SPECTRUM = {
    "name": "spectrum",
    "region": CIRCLE,
    "energy": {"min": "0.5 TeV", "max": "30 TeV", "nbin": 12},
    "energy_true": {"min": "0.2 TeV", "max": "60 TeV", "nbin": 30},
    "containment_correction": True,
}
CUBE = {
    "name": "cube",
    "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
    # an odd number of pixels, of the responses too: on an even one the source lies on a corner
    "width": "3 deg",
    "binsz": "0.04 deg",
    "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4},
    "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 10},
}
MASK = [{"name": "aeff_max", "percent": 10}]
KINDS = {
    "SpectrumDataset": {"recipe": SPECTRUM, "safe_mask": MASK},
    "SpectrumDatasetOnOff": {"recipe": SPECTRUM, "safe_mask": MASK, "background": {"name": "reflected"}},
    "MapDataset": {"recipe": CUBE, "safe_mask": MASK},
    "MapDatasetOnOff": {
        "recipe": CUBE,
        "safe_mask": MASK,
        "background": {
            "name": "ring",
            "r_in": "0.4 deg",
            "width": "0.3 deg",
            "exclusion": "icrs;circle(83.63, 22.01, 0.3)",
        },
    },
}


@pytest.fixture(scope="module")
def observations(hess_dl3: Path) -> list[Any]:
    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    return [read_observation(entries[obs_id], hess_dl3) for obs_id in RUNS]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, observations: list[Any]) -> tuple[str, Dataset]:
    """One reduced run of each kind."""
    chain = parse_chain(KINDS[request.param], "")
    return request.param, reduce_observation(observations[0], "run", chain)


@pytest.fixture(scope="module")
def spectra(observations: list[Any]) -> list[Dataset]:
    chain = parse_chain(KINDS["SpectrumDatasetOnOff"], "")
    return [reduce_observation(run, f"run-{n}", chain) for n, run in zip(RUNS, observations, strict=True)]


def models_of(kind: str) -> Models:
    """A power law, which both sides integrate exactly, at the Crab's place for maps; a spectrum needs none."""
    spectral = {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "amplitude", "value": 3.5e-11, "unit": "cm-2 s-1 TeV-1"},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
            {"name": "index", "value": 2.5},
        ],
    }
    place = [
        {"name": "lon_0", "value": 83.63, "unit": "deg", "frozen": True},
        {"name": "lat_0", "value": 22.01, "unit": "deg", "frozen": True},
    ]
    entry: dict[str, Any] = {"name": "crab", "type": "SkyModel", "spectral": spectral}
    if kind.startswith("Map"):
        entry["spatial"] = {"type": "PointSpatialModel", "frame": "icrs", "parameters": place}
    return parse_models({"components": [entry]}, "models")


@pytest.fixture
def converged_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_science_gammapy."""
    import gammapy.irf.psf.map as psf_map

    def twenty(psf: Any, geom: Any, position: Any, **_: Any) -> np.ndarray:
        return np.full(psf.psf_map.geom.axes["energy_true"].nbin, 20)

    monkeypatch.setattr(psf_map, "_psf_upsampling_factor", twenty)


def their_models(models: Models, folder: Path) -> Any:
    from gammapy.modeling.models import Models as TheirModels

    free = tuple(name for name, p in models.parameters().items() if not p.frozen)
    write_models(folder / "models.yaml", models, free, np.zeros((len(free), len(free))), PROVENANCE)
    return TheirModels.read(folder / "models.yaml")


def their_stat(dataset: Any, models: Models, folder: Path) -> float:
    dataset.models = their_models(models, folder)
    return float(dataset.stat_sum())


def our_stat(dataset: Dataset, models: Models) -> float:
    likelihood = build_likelihood([dataset], models)
    return likelihood.stat(likelihood.start)


@pytest.mark.usefixtures("converged_kernels")
def test_each_kind_has_the_same_statistic_on_both_sides(case: tuple[str, Dataset], tmp_path: Path) -> None:
    kind, dataset = case
    models = models_of(kind)
    write_fits_dataset(tmp_path / "ours.fits", dataset, PROVENANCE)
    opened = getattr(theirs, kind).read(tmp_path / "ours.fits", name="run")
    assert type(opened).__name__ == kind
    assert opened.counts.data.sum() == dataset.counts.data.sum()
    ours = our_stat(read_fits_dataset(tmp_path / "ours.fits"), models)
    assert their_stat(opened, models, tmp_path) == pytest.approx(ours, rel=1e-5, abs=1e-3)
    # and back: what gammapy writes of it
    opened.models = None
    opened.write(tmp_path / "theirs.fits", **({"format": "gadf"} if kind == "SpectrumDatasetOnOff" else {}))
    again = read_fits_dataset(tmp_path / "theirs.fits", "run")
    assert type(again.background) is type(dataset.background)
    assert our_stat(again, models) == pytest.approx(ours, rel=1e-6, abs=1e-4)
    np.testing.assert_array_equal(again.mask_safe, dataset.mask_safe)
    if isinstance(again.background, OffCounts) and isinstance(dataset.background, OffCounts):
        np.testing.assert_allclose(again.background.alpha, dataset.background.alpha, rtol=1e-6)
    if kind.startswith("Spectrum"):
        assert again.geom.center.separation(dataset.geom.center).deg < 1e-6
        assert again.geom.radius.to_value("deg") == pytest.approx(0.11, rel=1e-5)


def test_off_regions_are_handed_on(spectra: list[Dataset], tmp_path: Path) -> None:
    write_fits_dataset(tmp_path / "ours.fits", spectra[0], PROVENANCE)
    opened = theirs.SpectrumDatasetOnOff.read(tmp_path / "ours.fits")
    n_regions = spectra[0].meta["background"]["n_regions"]
    assert len(_flat(opened.counts_off.geom.region)) == n_regions


def _flat(region: Any) -> list[Any]:
    return [*_flat(region.region1), *_flat(region.region2)] if hasattr(region, "region1") else [region]


def test_lists_of_datasets(case: tuple[str, Dataset], tmp_path: Path) -> None:
    kind, dataset = case
    write_datasets(tmp_path / "ours.yaml", [dataset], PROVENANCE)
    (opened,) = theirs.Datasets.read(tmp_path / "ours.yaml", lazy=False)
    assert (type(opened).__name__, opened.name) == (kind, "run")
    (tmp_path / "theirs").mkdir()
    theirs.Datasets([opened]).write(tmp_path / "theirs" / "theirs.yaml")
    (again,) = read_datasets(tmp_path / "theirs" / "theirs.yaml")
    assert again.name == "run"
    np.testing.assert_array_equal(again.counts.data, dataset.counts.data)


def test_ogip_has_the_same_statistic_on_both_sides(spectra: list[Dataset], tmp_path: Path) -> None:
    models = models_of("Spectrum")
    for dataset in (*spectra, stack(spectra, "both", spectra[0].geom, spectra[0].geom)):
        path = write_ogip(tmp_path, dataset, PROVENANCE)
        ours = our_stat(read_ogip(path), models)
        assert ours == pytest.approx(our_stat(dataset, models), rel=1e-12)
        opened = theirs.SpectrumDatasetOnOff.read(path)
        assert their_stat(opened, models, tmp_path) == pytest.approx(ours, rel=1e-5)
        opened.models = None
        back = tmp_path / f"theirs_{dataset.name}"
        back.mkdir()
        opened.write(back / "pha_x.fits", format="ogip")
        again = read_ogip(back / "pha_x.fits")
        assert our_stat(again, models) == pytest.approx(ours, rel=1e-6)
        np.testing.assert_array_equal(again.mask_safe, dataset.mask_safe)
        assert again.meta["livetime"] == pytest.approx(dataset.meta["livetime"], rel=1e-12)


def test_gammapy_fits_the_same_from_our_ogip_files(spectra: list[Dataset], tmp_path: Path) -> None:
    from gammapy.modeling import Fit

    models = models_of("Spectrum")
    paths = [write_ogip(tmp_path, dataset, PROVENANCE) for dataset in spectra]
    ours = fit([read_ogip(path) for path in paths], models)
    opened = theirs.Datasets([theirs.SpectrumDatasetOnOff.read(path) for path in paths])
    opened.models = their_models(models, tmp_path)
    result = Fit(optimize_opts={"tol": 1e-4, "strategy": 2}).run(opened)
    assert result.success
    assert ours.success
    assert result.total_stat == pytest.approx(ours.stat, abs=1e-4)
    for name in ("amplitude", "index"):
        one, other = ours.parameter(f"crab.{name}"), opened.models.parameters[name]
        assert abs(one.value - other.value) < 1e-3 * one.error, name
        assert other.error == pytest.approx(one.error, rel=1e-2), name


def test_public_spectra_through_our_writer(public_data: Path, tmp_path: Path) -> None:
    models = models_of("Spectrum")
    root = public_data / "joint-crab" / "spectra"
    for name in ("fermi/pha_obs0", "fact/pha_stacked", "hess/pha_obs23523", "magic/pha_obs5029747"):
        original = theirs.SpectrumDatasetOnOff.read(root / f"{name}.fits")
        expected = their_stat(original, models, tmp_path)
        dataset = read_ogip(root / f"{name}.fits")
        assert our_stat(dataset, models) == pytest.approx(expected, rel=1e-4)
        written = theirs.SpectrumDatasetOnOff.read(write_ogip(tmp_path, dataset, PROVENANCE))
        assert their_stat(written, models, tmp_path) == pytest.approx(expected, rel=1e-9)


def test_region_files(tmp_path: Path) -> None:
    from regions import Regions

    text = "icrs;circle(83.63,22.01,0.11)\nellipse(84.0,22.0,0.2,0.1,30.0)"
    write_region_file(tmp_path / "a.reg", text, PROVENANCE)
    found = Regions.read(tmp_path / "a.reg", format="ds9")
    assert found[0].radius.to_value("deg") == pytest.approx(0.11)
    assert found[1].angle.to_value("deg") == pytest.approx(30)
    found.write(tmp_path / "b.reg", format="ds9", precision=12)
    assert read_region_file(tmp_path / "b.reg") == text
