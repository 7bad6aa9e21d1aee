"""Light curves and their variability against gammapy: files with energy bands, and the measures of one series."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from dl3flow.data.products import LightCurve
from dl3flow.io.products import read_light_curve, write_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.kernels.variability import excess_variance, fastest_changes, fraction, point_to_point_variance

pytestmark = pytest.mark.peer
pytest.importorskip("gammapy", reason="gammapy is not installed: make peer")

from gammapy.estimators import FluxPoints  # noqa: E402
from gammapy.stats import compute_flux_doubling, compute_fpp, compute_fvar  # noqa: E402

FLUX = np.array([3.1, 4.0, 2.2, 6.5, 5.9, 3.3, 2.0])
ERROR = np.array([0.4, 0.5, 0.3, 0.6, 0.6, 0.4, 0.3])
TIME = np.array([0.0, 1.0, 2.5, 3.0, 4.5, 5.0, 7.0])


def test_fractional_variability() -> None:
    theirs, their_error = compute_fvar(FLUX, ERROR)
    value, error = fraction(*excess_variance(FLUX, ERROR))
    assert (value, error) == (pytest.approx(float(theirs)), pytest.approx(float(their_error)))


def test_point_to_point_variability() -> None:
    """Theirs lacks the factor 1/2 of Edelson et al. (2002), without which white noise would not give the same as Fvar."""
    theirs, _ = compute_fpp(FLUX, ERROR)
    noise = np.mean(ERROR**2)
    value, _ = fraction(*point_to_point_variance(FLUX, ERROR))
    mean = FLUX.mean()
    assert value == pytest.approx(np.sqrt(0.5 * ((theirs * mean) ** 2 + noise) - noise) / mean)


def test_doubling_and_halving() -> None:
    theirs = compute_flux_doubling(FLUX[:, None], ERROR[:, None], TIME * u.d)
    rise, fall = fastest_changes(TIME, FLUX, ERROR)
    for name, found in (("doubling", rise), ("halving", fall)):
        assert found.time == pytest.approx(theirs[name].to_value("d").item())
        assert found.error == pytest.approx(theirs[f"{name}_err"].to_value("d").item())
        assert found.at == pytest.approx(theirs[f"{name}_coord"].to_value("d").item())


@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_a_light_curve_of_several_energy_bands(tmp_path: Path, suffix: str) -> None:
    days, edges = np.array([60000.0, 60001.0, 60003.0]), np.array([1.0, 3.0, 10.0])
    rows, bands = np.repeat(np.arange(3), 2), np.tile(np.arange(2), 3)
    norm = np.arange(1.0, 7.0)
    table = QTable(
        {
            "time_min": days[rows] * u.d,
            "time_max": (days[rows] + 0.5) * u.d,
            "e_ref": np.sqrt(edges[bands] * edges[bands + 1]) * u.TeV,
            "e_min": edges[bands] * u.TeV,
            "e_max": edges[bands + 1] * u.TeV,
            "ref_dnde": np.array([3e-12, 2e-13])[bands] * u.Unit("cm-2 s-1 TeV-1"),
            "ref_flux": np.array([2e-11, 3e-12])[bands] * u.Unit("cm-2 s-1"),
            "ref_eflux": np.array([3e-11, 2e-11])[bands] * u.Unit("TeV cm-2 s-1"),
            "ref_e2dnde": np.array([1e-11, 6e-12])[bands] * u.Unit("TeV cm-2 s-1"),
            "norm": norm,
            "norm_err": 0.1 * norm,
            "norm_ul": 1.3 * norm,
            "ts": norm**2,
            "sqrt_ts": norm,
            "counts": 10 * norm,
            "npred": 9.0 * norm,
            "npred_excess": 5.0 * norm,
            "is_ul": norm < 2,
            "success": norm > 0,
            "livetime": (1000.0 * (rows + 1)) * u.s,
            "dataset": np.array(["a", "b", "c"])[rows],
        }
    )
    curve = LightCurve(table, {"sed_type": "likelihood", "n_bands": 2, "ul_conf": 0.95})
    write_table(tmp_path / f"ours.{suffix}", curve, collect_provenance("test", "0", {}, {}))
    found = FluxPoints.read(tmp_path / f"ours.{suffix}", format="lightcurve")
    assert found.norm.data.shape == (3, 2, 1, 1)
    np.testing.assert_allclose(found.norm.data.ravel(), norm)
    # what gammapy reads has no reference spectrum but the differential fluxes of the file
    unit = "cm-2 s-1 TeV-1"
    np.testing.assert_allclose(
        found.dnde.quantity.to_value(unit).ravel(), (norm * table["ref_dnde"]).to_value(unit)
    )
    np.testing.assert_allclose(found.geom.axes["time"].time_min.tt.mjd, days)
    found.write(tmp_path / f"theirs.{suffix}", format="lightcurve", sed_type="likelihood")
    back = read_light_curve(tmp_path / f"theirs.{suffix}")
    assert back.meta["n_bands"] == 2
    np.testing.assert_allclose(back.table["norm"], norm)
    np.testing.assert_allclose(back.table["time_min"].to_value("d"), days[rows], atol=1e-9)
