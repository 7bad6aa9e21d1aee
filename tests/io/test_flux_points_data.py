"""Flux points of others: kinds of columns, errors and limits."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table

from dl3flow.errors import InputError
from dl3flow.io.flux_points_data import read_flux_points_data

DNDE = u.Unit("cm-2 s-1 TeV-1")


def _write(path: Path, kind: str | None = None, **columns: object) -> Path:
    table = QTable({"e_ref": [1.0, 10.0] * u.TeV, **columns})
    if kind:
        table.meta["SED_TYPE"] = kind
    table.write(path, overwrite=True)
    return path


@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_dnde_with_symmetric_errors(tmp_path: Path, suffix: str) -> None:
    path = _write(
        tmp_path / f"p.{suffix}",
        "dnde",
        dnde=[2e-7, np.nan] * u.Unit("m-2 s-1 TeV-1"),
        dnde_err=[1e-7, np.nan] * u.Unit("m-2 s-1 TeV-1"),
        is_ul=[False, True],
    )
    found = read_flux_points_data(path, "p")
    assert found.dnde[0].to_value(DNDE) == pytest.approx(2e-11)
    assert found.errn[0] == found.errp[0]
    assert found.errn[0].to_value(DNDE) == pytest.approx(1e-11)
    assert found.mask.tolist() == [True, False]
    assert found.meta["warnings"] == ["p: 1 of 2 flux points are limits or have no error, and are not fitted"]


def test_energy_flux_and_asymmetric_errors(tmp_path: Path) -> None:
    unit = u.Unit("TeV cm-2 s-1")
    path = _write(
        tmp_path / "p.fits",
        "e2dnde",
        e2dnde=[2e-11, 3e-11] * unit,
        e2dnde_errn=[1e-11, 1e-11] * unit,
        e2dnde_errp=[2e-11, 2e-11] * unit,
    )
    found = read_flux_points_data(path, "p")
    # divided by the energy squared
    assert found.dnde.to_value(DNDE) == pytest.approx([2e-11, 3e-13])
    assert found.errp.to_value(DNDE) == pytest.approx([2e-11, 2e-13])
    assert found.mask.all()


def test_norms_of_a_reference(tmp_path: Path) -> None:
    """An open lower error is replaced by the symmetric one."""
    path = _write(
        tmp_path / "p.ecsv",
        "likelihood",
        ref_dnde=[1e-11, 1e-13] * DNDE,
        norm=[2.0, 0.5],
        norm_err=[0.2, 0.3],
        norm_errn=[0.1, np.nan],
        norm_errp=[0.3, 0.4],
    )
    found = read_flux_points_data(path, "p")
    assert found.dnde.to_value(DNDE) == pytest.approx([2e-11, 5e-14])
    assert found.errn.to_value(DNDE) == pytest.approx([1e-12, 3e-14])
    assert found.mask.all()


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    flux = [1e-11, 1e-13] * u.Unit("cm-2 s-1")
    with pytest.raises(InputError, match="SED_TYPE 'flux' need a spectrum to be fitted"):
        read_flux_points_data(_write(tmp_path / "a.fits", "flux", flux=flux, flux_err=flux), "p")
    with pytest.raises(InputError, match=r"the column 'dnde_err' is missing"):
        read_flux_points_data(_write(tmp_path / "b.fits", "dnde", dnde=[1, 2] * DNDE), "p")
    path = _write(tmp_path / "c.fits", "dnde", dnde=[1, 2] * u.TeV, dnde_err=[1, 2] * u.TeV)
    with pytest.raises(InputError, match=r"the column 'dnde' has the unit 'TeV'"):
        read_flux_points_data(path, "p")
    path = _write(tmp_path / "d.fits", "dnde", dnde=[1, 2] * DNDE, dnde_err=[0, 0] * DNDE)
    with pytest.raises(InputError, match="no point has a flux with an error"):
        read_flux_points_data(path, "p")
    Table({"x": [1.0]}).write(tmp_path / "e.fits")
    with pytest.raises(InputError, match="the column 'e_ref' is missing"):
        read_flux_points_data(tmp_path / "e.fits", "p")


def _likelihood(path: Path, **columns: object) -> Path:
    known = {"ref_dnde": [1e-11, 1e-13] * DNDE, "norm": [1.0, np.nan], "norm_err": [0.5, np.nan], **columns}
    return _write(path, "likelihood", **known)


@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_profiles(tmp_path: Path, suffix: str) -> None:
    """((norm - 1) / 0.5)^2 + 3 for one point, whose best fit joins its profile; the other has none."""
    norm = np.array([0.0, 0.75, 1.5, 3.0])
    stat = np.array([4 * (norm - 1) ** 2 + 3, np.full(4, np.nan)])
    scans = {"norm_scan": [norm, norm], "stat_scan": stat, "stat": [3.0, np.nan]}
    found = read_flux_points_data(_likelihood(tmp_path / f"p.{suffix}", **scans), "p", "profile")
    assert found.stat_type == "profile"
    assert found.profiles is not None
    assert found.profiles.norm[0].tolist() == [0.0, 0.75, 1.0, 1.5, 3.0]
    assert found.profiles.stat[0] == pytest.approx([4, 0.25, 0, 1, 16])
    assert len(found.profiles.norm[1]) == 0
    assert found.profiles.ref_dnde.to_value(DNDE) == pytest.approx([1e-11, 1e-13])
    assert found.mask.tolist() == [True, False]
    assert found.meta["warnings"] == ["p: 1 of 2 flux points have no likelihood profile, and are not fitted"]


def test_profiles_of_log_likelihoods(tmp_path: Path) -> None:
    """Half the statistic, from the best fit down."""
    norm = np.linspace(0, 2, 9)
    scans = {"norm_scan": [norm, norm], "dloglike_scan": [-2 * (norm - 1) ** 2] * 2}
    found = read_flux_points_data(_likelihood(tmp_path / "p.fits", **scans), "p", "profile")
    assert found.profiles is not None
    assert found.profiles.stat[1] == pytest.approx(4 * (norm - 1) ** 2, abs=1e-12)


def test_profiles_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the column 'norm_scan' is missing"):
        read_flux_points_data(_likelihood(tmp_path / "a.fits"), "p", "profile")
    nothing = {"norm_scan": [[1.0, 2.0]] * 2, "stat_scan": [[1.0, 2.0]] * 2}
    with pytest.raises(InputError, match="no point has a likelihood profile"):
        read_flux_points_data(_likelihood(tmp_path / "b.fits", **nothing), "p", "profile")


def test_a_table_with_profiles_is_fitted_by_chi2_as_well(tmp_path: Path) -> None:
    scans = {"norm_scan": [[0.5, 1.0, 2.0]] * 2, "stat_scan": [[1.0, 0.0, 4.0]] * 2}
    found = read_flux_points_data(_likelihood(tmp_path / "p.fits", **scans), "p")
    assert (found.stat_type, found.profiles) == ("chi2", None)
    assert found.errp[0].to_value(DNDE) == pytest.approx(5e-12)


def test_upper_limits(tmp_path: Path) -> None:
    """The second point is a limit of 4e-13; no error is known behind it, so it is half of that."""
    path = _likelihood(tmp_path / "p.ecsv", norm_ul=[2.0, 4.0], is_ul=[False, True])
    found = read_flux_points_data(path, "p", "distrib")
    assert found.limit is not None
    assert found.limit_error is not None
    assert found.mask.tolist() == [True, True]
    assert np.isnan(found.limit[0].value)
    assert found.limit[1].to_value(DNDE) == pytest.approx(4e-13)
    assert found.limit_error[1].to_value(DNDE) == pytest.approx(2e-13)
    assert found.meta["warnings"] == [
        "p: the errors behind 1 limits are not known, and taken as half of the limits"
    ]
