"""Likelihood profiles of flux points: by hand, and from the estimator through a file to data of a fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FluxPoints
from dl3flow.estimators import TABLES
from dl3flow.estimators.norms import profile_columns
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.io.flux_points_data import read_flux_points_data
from dl3flow.io.products import read_table, write_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.kernels.norm import ExpectedBins, fit_norms
from dl3flow.kernels.profiles import profile_stat
from dl3flow.models.source import Models


def test_profiles_by_hand() -> None:
    """9 counts, 3 of background, 2 per norm: 2 (2 c + 3 - 9 ln(2 c + 3)); the second point has no counts: 2 (c + 1)."""
    both = ExpectedBins(np.array([9.0, 0.0]), np.array([2.0, 1.0]), np.array([3.0, 1.0]))
    parts = [both.grouped(np.array([0, 1]), 2)]
    fits = fit_norms(parts)
    columns = {"norm": fits.norm, "norm_err": fits.err, "norm_errp": fits.errp}
    found = profile_columns(parts, columns)
    norms = found["norm_scan"][0]
    assert np.array_equal(norms, found["norm_scan"][1])
    assert norms[0] == 0
    # the best norm is 3, its error sqrt(9) / 2
    assert norms.max() >= 3 + 4 * 1.5
    # at whole errors around it, to the tenth of an error that norms are apart at least
    for wanted in (0.0, 1.5, 3.0, 4.5, 6.0):
        assert np.abs(norms - wanted).min() < 0.15
    assert np.diff(norms).min() > 0.04
    assert found["stat_scan"][0] == pytest.approx(2 * (2 * norms + 3 - 9 * np.log(2 * norms + 3)))
    assert found["stat_scan"][1] == pytest.approx(2 * (norms + 1))
    asked = profile_columns(parts, columns, [2.0, 0.5])
    assert asked["norm_scan"].tolist() == [[0.5, 2.0], [0.5, 2.0]]
    assert asked["stat_scan"][1] == pytest.approx([3, 6])


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
def test_points_with_profiles_are_data(
    small_dataset: Callable[..., Dataset],
    point_models: Callable[..., Models],
    tmp_path: Path,
    suffix: str,
) -> None:
    """Written, read as a product with the same columns, and read as data whose profile is that of the counts."""
    dataset = small_dataset("d", seed=3)
    result = fit([dataset], add_backgrounds([dataset], point_models(), []))
    entry = {"name": "flux_points", "source": "s", "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 3}}
    estimate, options = TABLES.bind({**entry, "profiles": True}, "sed")
    points = estimate([dataset], result, **options)
    path = tmp_path / f"points.{suffix}"
    write_table(path, points, collect_provenance("test", "0", {}, {}))
    again = read_table(path)
    assert isinstance(again, FluxPoints)
    assert again.table["stat_scan"] == pytest.approx(points.table["stat_scan"])
    data = read_flux_points_data(path, "points", "profile")
    assert data.profiles is not None
    assert data.mask.all()
    for k in range(3):
        row = points.table[k]
        at = row["norm"] + np.array([-1.0, 0.0, 1.0]) * row["norm_err"]
        found, slope, curvature = profile_stat(at, data.profiles.norm[k], data.profiles.stat[k])
        assert found == pytest.approx([1, 0, 1], abs=0.35)
        assert slope[1] * row["norm_err"] == pytest.approx(0, abs=0.02)
        assert curvature[1] * row["norm_err"] ** 2 == pytest.approx(2, rel=0.05)
    plain = estimate([dataset], result, **TABLES.bind(entry, "sed")[1])
    assert "norm_scan" not in plain.table.colnames
