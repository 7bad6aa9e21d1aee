"""Case L: two MAGIC runs with directional cuts by energy, from the events to the fit."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.limits import limit_energies
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import predict_counts
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.models.source import Component, Models, Parameter, Source

SECTIONS = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;point(83.63, 22.01)",
        "energy": {"min": "50 GeV", "max": "100 TeV", "nbin": 17},
        "energy_true": {"min": "10 GeV", "max": "100 TeV", "nbin": 40},
    },
    "safe_mask": [{"name": "aeff_default"}],
    "background": {"name": "wobble", "n_off": 3},
}


def crab(alpha: float, beta: float) -> Models:
    parameters = (
        Parameter("amplitude", 3.8e-11, u.Unit("cm-2 s-1 TeV-1")),
        Parameter("reference", 1.0, u.TeV, frozen=True),
        Parameter("alpha", alpha),
        Parameter("beta", beta),
    )
    return Models((Source("crab", Component("log_parabola", parameters), None),))


@pytest.fixture(scope="module")
def case(reference: Any) -> dict[str, Any]:
    return reference("L_magic_rad_max")[0]["magic"]


@pytest.fixture(scope="module")
def runs(public_data: Path) -> list[Dataset]:
    root = public_data / "magic" / "rad_max" / "data"
    chain = parse_chain(SECTIONS, "")
    entries = sorted(read_index(root), key=lambda e: e.obs_id)
    found = [
        reduce_observation(read_observation(entry, root), f"magic-{entry.obs_id}", chain) for entry in entries
    ]
    return limit_energies(found, {"magic": ["80 GeV", "20 TeV"]})


def test_counts_and_exposure(runs: list[Dataset], case: dict[str, Any]) -> None:
    for run, row in zip(runs, case["runs"], strict=True):
        assert isinstance(run.background, OffCounts)
        assert run.counts.data[:, 0, 0].tolist() == row["n_on_per_energy"]
        assert run.background.counts.data[:, 0, 0].tolist() == row["n_off_per_energy"]
        assert run.background.acceptance_off.data.max() == row["acceptance_off"][0]
        assert run.mask_safe.sum() == row["n_safe"]
        assert run.meta["livetime"] == pytest.approx(row["livetime_s"], rel=1e-7)
        exposure = run.exposure.quantity.to_value("m2 s")[:, 0, 0]
        listed = np.array(row["exposure_m2s"])
        assert exposure[::2] == pytest.approx(listed, rel=1e-6)
    assert [int(run.mask.sum()) for run in runs] == case["n_fit_bins"]


def test_fixed_parameters(runs: list[Dataset], case: dict[str, Any]) -> None:
    models, expected = crab(2.5, 0.1), case["fixed_lp_3.8e-11_2.5_0.1"]
    alone = [build_likelihood([run], models) for run in runs]
    stats = [likelihood.stat(likelihood.start) for likelihood in alone]
    assert stats == pytest.approx(expected["stat"], abs=1e-3)
    inside = [predict_counts(run, models)[0][run.mask].sum() for run in runs]
    assert inside == pytest.approx(expected["npred_signal_in_mask"], rel=1e-4)


def test_fit(runs: list[Dataset], case: dict[str, Any]) -> None:
    expected, found = case["fits"]["joint|lp"], fit(runs, crab(2.5, 0.1))
    assert found.success, found.message
    assert found.stat == pytest.approx(expected["total_stat"], abs=1e-3)
    parameters = found.models.parameters()
    for row in expected["parameters"]:
        if not row["frozen"]:
            assert parameters[f"crab.{row['name']}"].value == pytest.approx(
                row["value"], abs=0.005 * row["error"]
            )
            assert parameters[f"crab.{row['name']}"].error == pytest.approx(row["error"], rel=0.01)
