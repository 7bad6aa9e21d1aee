"""The spectrum's band as an estimator: by hand, in a file, in words and drawn."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.products import Butterfly, DatasetStat, FitResult
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.io.products import read_table, write_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.plots import PLOTS
from dl3flow.report.tables import in_words, product_table

DNDE = u.Unit("cm-2 s-1 TeV-1")


def _result(covariance: Any, *, is_frozen: bool = False, message: str = "") -> FitResult:
    parameters = (
        Parameter("amplitude", 4e-11, DNDE, frozen=is_frozen),
        Parameter("index", 2.0, frozen=is_frozen),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    )
    models = Models((Source("crab", Component("power_law", parameters), None),))
    none = np.zeros(0)
    stat = DatasetStat("d", 0.0, 1, [0.5, 2.0, 50.0] * u.TeV, none, none, none)
    free = () if is_frozen else ("crab.amplitude", "crab.index")
    return FitResult(not message, message, 0.0, models, free, np.array(covariance), (stat,), {})


def _estimate(result: FitResult, **options: Any) -> Butterfly:
    function, bound = TABLES.bind({"name": "butterfly", "source": "crab", **options}, "test")
    return function([], result, **bound)


# 10 % on the amplitude, 0.2 on the index, correlation -0.5: the pivot is exp(-0.25) TeV
COVARIANCE = [[(4e-12) ** 2, -0.5 * 4e-12 * 0.2], [-0.5 * 4e-12 * 0.2, 0.04]]


def test_band_over_the_range_of_the_data() -> None:
    found = _estimate(_result(COVARIANCE))
    energy = found.table["energy"].to_value(u.TeV)
    assert (len(energy), energy[0], energy[-1]) == (51, pytest.approx(0.5), pytest.approx(50))
    assert found.table["dnde"].to_value(DNDE) == pytest.approx(4e-11 * energy**-2)
    logs = np.log(energy)
    relative = np.sqrt(0.01 + 2 * 0.1 * 0.1 * logs + 0.04 * logs**2)
    assert (found.table["dnde_errp"] / found.table["dnde"]).to_value("") == pytest.approx(relative)
    assert found.meta["pivot_energy"] == pytest.approx(np.exp(-0.25))
    assert found.meta["warnings"] == []


def test_energies_and_method_of_the_user() -> None:
    axis = {"min": "1 TeV", "max": "100 TeV", "nbin": 2}
    found = _estimate(_result(COVARIANCE), energy=axis, method="samples", n_samples=5000, seed=3)
    assert found.table["energy"].to_value(u.TeV) == pytest.approx([1, 10, 100])
    low, high = (found.table[c][2] / found.table["dnde"][2] for c in ("dnde_errn", "dnde_errp"))
    # at 100 TeV the logarithm of the flux varies by 0.975: exp(0.975) - 1 upwards, 1 - exp(-0.975) downwards
    assert float(low) == pytest.approx(1 - np.exp(-0.975), abs=0.04)
    assert float(high) == pytest.approx(np.exp(0.975) - 1, abs=0.1)
    with pytest.raises(InputError, match="expected a whole number from 100 on, found 3"):
        _estimate(_result(COVARIANCE), n_samples=3)
    with pytest.raises(InputError, match="no source 'crab2' in the fit"):
        _estimate(_result(COVARIANCE), source="crab2")


def test_what_is_doubtful_is_told() -> None:
    assert _estimate(_result(COVARIANCE, message="no minimum")).meta["warnings"] == [
        "the fit is doubtful, and so is the band: no minimum"
    ]
    frozen = _estimate(_result(np.zeros((0, 0)), is_frozen=True))
    assert frozen.meta["warnings"] == ["crab has no free spectral parameter, so its band has no width"]
    assert np.isnan(frozen.meta["pivot_energy"])


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
def test_file(tmp_path: Path, suffix: str) -> None:
    found = _estimate(_result(COVARIANCE))
    path = tmp_path / f"band.{suffix}"
    write_table(path, found, collect_provenance("test", "0", {}, {}))
    again = read_table(path)
    assert isinstance(again, Butterfly)
    assert again.table.colnames == found.table.colnames
    for name in found.table.colnames:
        assert again.table[name].unit == found.table[name].unit
        assert again.table[name].value == pytest.approx(found.table[name].value, rel=1e-12)
    assert again.meta == found.meta


def test_report() -> None:
    found = _estimate(_result(COVARIANCE))
    assert (
        in_words(found) == "spectrum at 51 energies with its 68 % band, smallest relative error at 0.779 TeV"
    )
    table = product_table("band", found)
    assert len(table.rows) == 51
    assert table.rows[0][0] == "0.5"
    assert "crab" in table.caption


def test_picture() -> None:
    """The best fit and the band in E^2 dN/dE, and the pivot energy in both panels."""
    found = _estimate(_result(COVARIANCE))
    upper, lower = PLOTS.find("butterfly", "test")(found, None).axes
    curve, pivot = upper.lines
    assert curve.get_ydata() == pytest.approx(np.full(51, 4e-11))
    assert pivot.get_xdata() == pytest.approx([np.exp(-0.25)] * 2)
    (band,) = lower.collections
    tops = band.get_paths()[0].vertices[:, 1]
    assert tops.max() == pytest.approx(100 * (found.table["dnde_errp"] / found.table["dnde"]).max().value)
    assert lower.get_xlabel() == "Energy (TeV)"
