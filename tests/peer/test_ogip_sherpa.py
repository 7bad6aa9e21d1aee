"""Our OGIP spectra in sherpa: the same counts, masks, statistic and best fit."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import fit
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.models_yaml import parse_models
from dl3flow.io.ogip import read_ogip, write_ogip
from dl3flow.io.provenance import collect_provenance

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
ui = pytest.importorskip("sherpa.astro.ui", reason="sherpa is not installed")

PROVENANCE = collect_provenance("test", "", {}, {})
SECTIONS = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.11)",
        "energy": {"min": "0.5 TeV", "max": "30 TeV", "nbin": 12},
        "energy_true": {"min": "0.2 TeV", "max": "60 TeV", "nbin": 30},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {"name": "reflected"},
}
KEV = 1e-9  # TeV
UNIT = 1e-11  # of the amplitude, cm-2 s-1 TeV-1


@pytest.fixture(scope="module")
def spectra(hess_dl3: Path) -> list[Dataset]:
    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    chain = parse_chain(SECTIONS, "")
    return [
        reduce_observation(read_observation(entries[n], hess_dl3), f"run-{n}", chain) for n in (23523, 23592)
    ]


def power_law(name: str) -> Any:
    """A power law at 1 TeV, integrated over bins in keV: photons cm-2 s-1."""
    from sherpa.models import ArithmeticModel, Parameter

    class PowerLaw(ArithmeticModel):
        def __init__(self) -> None:
            self.amplitude = Parameter(name, "amplitude", 3.5, 1e-3, 1e3)
            self.index = Parameter(name, "index", 2.5, 0, 10)
            super().__init__(name, (self.amplitude, self.index))

        def calc(self, p: Sequence[float], low: Any, high: Any = None, **_: Any) -> np.ndarray:
            one, other = (np.asarray(energy) * KEV for energy in (low, high))
            power = 1 - p[1]
            return np.asarray(p[0] * UNIT / power * (other**power - one**power))

    return PowerLaw()


def our_models() -> Any:
    spectral = {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "amplitude", "value": 3.5e-11, "unit": "cm-2 s-1 TeV-1"},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
            {"name": "index", "value": 2.5},
        ],
    }
    return parse_models(
        {"components": [{"name": "crab", "type": "SkyModel", "spectral": spectral}]}, "models"
    )


def load(paths: Sequence[Path]) -> Any:
    """Load spectra into sherpa with one model for all."""
    logging.getLogger("sherpa").setLevel(logging.ERROR)
    ui.clean()
    ui.set_stat("wstat")
    model = power_law("crab")
    for n, path in enumerate(paths):
        ui.load_pha(n, str(path))
        ui.ignore_bad(n)
        ui.set_source(n, model)
    return model


def test_counts_and_masks(spectra: list[Dataset], tmp_path: Path) -> None:
    paths = [write_ogip(tmp_path, dataset, PROVENANCE) for dataset in spectra]
    load(paths)
    for n, dataset in enumerate(spectra):
        off = dataset.background
        assert isinstance(off, OffCounts)
        mask = dataset.mask_safe[:, 0, 0]
        np.testing.assert_array_equal(ui.get_data(n).counts, dataset.counts.data[:, 0, 0])
        np.testing.assert_array_equal(ui.get_bkg(n).counts, off.counts.data[:, 0, 0])
        np.testing.assert_array_equal(ui.get_data(n).mask, mask)
        np.testing.assert_allclose(ui.get_data(n).get_background_scale()[mask], off.alpha[mask, 0, 0])
        assert ui.get_data(n).exposure == dataset.meta["livetime"]
        assert ui.get_arf(n).specresp * dataset.meta["livetime"] == pytest.approx(
            dataset.exposure.quantity[:, 0, 0].to_value("cm2 s"), rel=1e-12
        )


def test_statistic_and_fit(spectra: list[Dataset], tmp_path: Path) -> None:
    paths = [write_ogip(tmp_path, dataset, PROVENANCE) for dataset in spectra]
    model = load(paths)
    datasets = [read_ogip(path) for path in paths]
    likelihood = build_likelihood(datasets, our_models())
    assert ui.calc_stat(0, 1) == pytest.approx(likelihood.stat(likelihood.start), rel=1e-5)
    ours = fit(datasets, our_models())
    ui.set_method("neldermead")
    ui.set_method_opt("ftol", 1e-12)
    ui.fit(0, 1)
    result = ui.get_fit_results()
    assert result.numpoints == ours.n_bins
    assert result.statval == pytest.approx(ours.stat, abs=1e-3)
    for found, name, unit in ((model.amplitude, "amplitude", UNIT), (model.index, "index", 1.0)):
        one = ours.parameter(f"crab.{name}")
        assert abs(one.value - found.val * unit) < 1e-3 * one.error, name
    ui.covar(0, 1)
    for error, name, unit in zip(
        ui.get_covar_results().parmaxes, ("amplitude", "index"), (UNIT, 1.0), strict=True
    ):
        assert error * unit == pytest.approx(ours.parameter(f"crab.{name}").error, rel=0.01), name


def test_public_spectra_through_our_writer(public_data: Path, tmp_path: Path) -> None:
    root = public_data / "joint-crab" / "spectra"
    for name in ("fermi/pha_obs0", "fact/pha_stacked", "hess/pha_obs23523", "veritas/pha_obs54809"):
        load([root / f"{name}.fits"])
        expected = ui.calc_stat(0)
        dataset = read_ogip(root / f"{name}.fits")
        load([write_ogip(tmp_path, dataset, PROVENANCE)])
        assert ui.calc_stat(0) == pytest.approx(expected, rel=1e-6)
        likelihood = build_likelihood([dataset], our_models())
        assert likelihood.stat(likelihood.start) == pytest.approx(expected, rel=1e-3)
