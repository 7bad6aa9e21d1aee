"""Likelihood profiles and propagated errors against gammapy: tables written by either are read by the other."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table

from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.fit.points import build_points_stat
from dl3flow.fit.propagate import error_band, pivot_energy
from dl3flow.io.flux_points_data import read_flux_points_data
from dl3flow.io.products import write_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.kernels.counts_interval import cash_interval, wstat_interval
from dl3flow.models.source import Component, Models, Parameter, Source

pytestmark = pytest.mark.peer
gammapy_estimators = pytest.importorskip("gammapy.estimators", reason="gammapy is not installed: make peer")

DNDE = u.Unit("cm-2 s-1 TeV-1")
EDGES = np.geomspace(1, 100, 4) * u.TeV
N_ON, SIGNAL, BACKGROUND = np.array([30.0, 12.0, 4.0]), np.array([20.0, 10.0, 3.0]), 2.0


def _table() -> Table:
    """Three points of a power law of index 2, with profiles of Poisson counts on norms from 0.2 to 5."""
    norms = np.geomspace(0.2, 5, 11)
    mu = norms * SIGNAL[:, None] + BACKGROUND
    best = (N_ON - BACKGROUND) / SIGNAL
    e_ref = np.sqrt(EDGES[:-1] * EDGES[1:])
    return Table(
        {
            "e_ref": e_ref,
            "e_min": EDGES[:-1],
            "e_max": EDGES[1:],
            "ref_dnde": 1e-11 * e_ref.value**-2 * DNDE,
            "ref_flux": np.full(3, 1e-11) * u.Unit("cm-2 s-1"),
            "ref_eflux": np.full(3, 1e-11) * u.Unit("TeV cm-2 s-1"),
            "ref_e2dnde": np.full(3, 1e-11) * u.Unit("TeV cm-2 s-1"),
            "norm": best,
            "norm_err": np.sqrt(N_ON) / SIGNAL,
            "stat": 2 * (N_ON - N_ON * np.log(N_ON)),
            "stat_scan": 2 * (mu - N_ON[:, None] * np.log(mu)),
            "norm_scan": np.tile(norms, (3, 1)),
            "is_ul": np.zeros(3, dtype=bool),
        },
        meta={"SED_TYPE": "likelihood"},
    )


def _theirs(path: Path, name: str = "p"):  # noqa: ANN202
    from gammapy.datasets import FluxPointsDataset
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel

    points = gammapy_estimators.FluxPoints.read(path, sed_type="likelihood")
    model = SkyModel(PowerLawSpectralModel(index=2, amplitude=1e-11 * DNDE), name="s")
    return FluxPointsDataset(model, points, stat_type="profile", name=name), model


def test_statistics_of_profiles_agree(tmp_path: Path) -> None:
    """At the norms of the profile to rounding; between them to the difference of the two interpolations."""
    _table().write(tmp_path / "p.fits")
    theirs, model = _theirs(tmp_path / "p.fits")
    data = read_flux_points_data(tmp_path / "p.fits", "p", "profile")
    ours = build_points_stat(data)
    norms = np.geomspace(0.2, 5, 11)
    for norm in norms:
        model.spectral_model.amplitude.value = norm * 1e-11
        expected = norm * 1e-11 * data.energy_ref.to_value(u.TeV) ** -2.0
        assert ours(expected)[0].sum() == pytest.approx(theirs.stat_sum(), rel=1e-6)
    for norm in np.sqrt(norms[3:-1] * norms[4:]):
        model.spectral_model.amplitude.value = norm * 1e-11
        expected = norm * 1e-11 * data.energy_ref.to_value(u.TeV) ** -2.0
        exact = 2 * (norm * SIGNAL + BACKGROUND - N_ON * np.log(norm * SIGNAL + BACKGROUND))
        exact -= 2 * (N_ON - N_ON * np.log(N_ON))
        mine, peer = ours(expected)[0].sum() - exact.sum(), theirs.stat_sum() - exact.sum()
        assert mine == pytest.approx(peer, abs=0.1)
        # the root of the statistic is closer to a line than the statistic to a parabola
        assert abs(mine) < abs(peer) or abs(peer) < 0.02
        assert abs(mine) < max(0.05, 2e-3 * exact.sum())


def test_gammapy_reads_our_profiles(tmp_path: Path) -> None:
    table = _table()
    points = FluxPoints(QTable(table), {"sed_type": "likelihood"})
    write_table(tmp_path / "ours.fits", points, collect_provenance("test", "0", {}, {}))
    theirs = gammapy_estimators.FluxPoints.read(tmp_path / "ours.fits", sed_type="likelihood")
    assert theirs.has_stat_profiles
    assert theirs.stat_scan.data.squeeze() == pytest.approx(np.asarray(table["stat_scan"]))
    assert theirs.stat_scan.geom.axes["norm"].center == pytest.approx(np.geomspace(0.2, 5, 11))


def test_errors_of_a_spectrum_agree() -> None:
    """Pivot energies to rounding; the peer's errors are quantiles of draws, and so are ours by that method."""
    from gammapy.modeling.models import PowerLawSpectralModel

    covariance = np.array([[(4e-12) ** 2, 0.3 * 4e-12 * 0.2], [0.3 * 4e-12 * 0.2, 0.04]])
    parameters = (
        Parameter("amplitude", 4e-11, DNDE),
        Parameter("index", 2.3),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    )
    models = Models((Source("s", Component("power_law", parameters), None),))
    result = FitResult(True, "", 0.0, models, ("s.amplitude", "s.index"), covariance, (), {})
    theirs = PowerLawSpectralModel(amplitude=4e-11 * DNDE, index=2.3, reference=1 * u.TeV)
    full = np.zeros((3, 3))
    full[np.ix_((1, 0), (1, 0))] = covariance
    theirs.covariance = full
    assert pivot_energy(result, "s").to_value(u.TeV) == pytest.approx(theirs.pivot_energy.to_value(u.TeV))
    for energy in [0.5, 3.0, 20.0] * u.TeV:
        value, errn, errp = theirs.evaluate_error(energy, n_samples=20_000)
        band = error_band(result, "s", energy, method="samples", n_samples=20_000, seed=1)
        assert band.value[0].to_value(DNDE) == pytest.approx(value.to_value(DNDE), rel=0.03)
        assert band.errn[0].to_value(DNDE) == pytest.approx(errn.to_value(DNDE), rel=0.06)
        assert band.errp[0].to_value(DNDE) == pytest.approx(errp.to_value(DNDE), rel=0.06)


@pytest.mark.parametrize(
    ("n_on", "n_off", "alpha"), [(13, 11, 0.5), (3, 40, 0.1), (0, 5, 0.2), (200, 80, 1.0)]
)
def test_intervals_of_counts_agree(n_on: float, n_off: float, alpha: float) -> None:
    from gammapy.stats import CashCountsStatistic, WStatCountsStatistic

    pairs = [
        (cash_interval(n_on, alpha * n_off), CashCountsStatistic(n_on, alpha * n_off)),
        (wstat_interval(n_on, n_off, alpha), WStatCountsStatistic(n_on, n_off, alpha)),
    ]
    for ours, theirs in pairs:
        assert float(ours.excess) == pytest.approx(float(np.ravel(theirs.n_sig)[0]))
        assert float(ours.error) == pytest.approx(float(np.ravel(theirs.error)[0]))
        assert float(ours.ts) == pytest.approx(float(np.ravel(theirs.ts)[0]), abs=1e-9)
        assert float(ours.errp) == pytest.approx(float(np.ravel(theirs.compute_errp())[0]), abs=1e-4)
        if n_on > 0:
            assert float(ours.errn) == pytest.approx(float(np.ravel(theirs.compute_errn())[0]), abs=1e-4)
