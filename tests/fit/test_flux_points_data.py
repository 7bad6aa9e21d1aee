"""Flux points as data of a fit: chi2 by hand, its gradient, and beside counts."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, FluxPointsData
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.limits import limit_energies, limit_sky
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.models.source import Models

DNDE = u.Unit("cm-2 s-1 TeV-1")


def _points(values: list[float], errn: list[float], errp: list[float], used: list[bool]) -> FluxPointsData:
    energy = 10.0 ** np.arange(len(values)) * u.TeV
    return FluxPointsData(
        "p", energy, values * DNDE, errn * DNDE, errp * DNDE, np.array(used), {"warnings": []}
    )


def test_chi2_by_hand(point_models: Callable[..., Models]) -> None:
    """The model is 3e-10, 3e-12, 3e-14 at 1, 10, 100 TeV; the error is that on the model's side; limits do not count."""
    models = point_models(3e-10, 2.0)
    points = _points([2e-10, 5e-12, 1e-14], [1e-11, 1e-12, 1e-14], [5e-11, 4e-12, 1e-14], [True, True, False])
    found = build_likelihood([points], models).stat(build_likelihood([points], models).start)
    assert found == pytest.approx((1e-10 / 5e-11) ** 2 + (2e-12 / 1e-12) ** 2)


def test_gradient(point_models: Callable[..., Models]) -> None:
    points = _points([2e-10, 5e-12, 1e-14], [1e-11, 1e-12, 1e-14], [5e-11, 4e-12, 1e-14], [True] * 3)
    likelihood = build_likelihood([points], point_models(3e-10, 2.0))
    gradient = likelihood.gradient(likelihood.start)
    for k, value in enumerate(likelihood.start):
        step = np.zeros(len(likelihood.start))
        step[k] = 1e-6 * value
        rise = likelihood.stat(likelihood.start + step) - likelihood.stat(likelihood.start - step)
        assert gradient[k] == pytest.approx(rise / (2 * step[k]), rel=1e-5, abs=1e-6)


def test_points_alone_give_the_spectrum_they_came_from(point_models: Callable[..., Models]) -> None:
    truth = [3e-10, 3e-10 * 10**-2.5, 3e-10 * 100**-2.5]
    points = _points(truth, [0.1 * v for v in truth], [0.1 * v for v in truth], [True] * 3)
    result = fit([points], point_models(1e-10, 2.0))
    assert result.success, result.message
    assert result.parameter("s.amplitude").value == pytest.approx(3e-10, rel=1e-3)
    assert result.parameter("s.index").value == pytest.approx(2.5, abs=1e-3)
    assert result.stat == pytest.approx(0, abs=1e-4)
    # the place is not theirs to tell
    assert sum("s.lon_0 was kept" in w for w in result.minimiser["warnings"]) == 1
    (row,) = result.datasets
    assert (row.name, row.n_bins, len(row.counts_per_energy)) == ("p", 3, 0)


def test_beside_counts(small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]) -> None:
    counts = small_dataset("d", seed=3)
    truth = [3e-10, 3e-10 * 10**-2.5, 3e-10 * 100**-2.5]
    points = _points(truth, [0.02 * v for v in truth], [0.02 * v for v in truth], [True] * 3)
    models = add_backgrounds([counts, points], point_models(), ["norm"])
    assert [b.name for b in models.backgrounds] == ["d-bkg"]
    alone, both = fit([counts], models), fit([counts, points], models)
    assert both.success, both.message
    assert both.parameter("s.index").error < 0.5 * alone.parameter("s.index").error
    assert both.stat == pytest.approx(sum(d.stat for d in both.datasets), abs=1e-6)
    estimate, options = TABLES.bind(
        {"name": "flux_points", "source": "s", "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 3}}, "sed"
    )
    table = estimate([counts, points], both, **options)
    assert table.table["counts"].sum() == counts.counts.data.sum()
    assert table.meta["warnings"] == [
        "only counts make new points: p of the fit, flux points themselves, are not in them"
    ]


def test_limits() -> None:
    points = _points([1.0] * 3, [1.0] * 3, [1.0] * 3, [True, True, False])
    (limited,) = limit_energies([points], {"p": ["5 TeV", "500 TeV"]})
    assert isinstance(limited, FluxPointsData)
    assert limited.mask.tolist() == [False, True, False]
    with pytest.raises(InputError, match="flux points have no sky"):
        limit_sky([points], {"p": "icrs;circle(1, 1, 1)"})


def test_points_left_out_are_told_and_none_at_all_is_refused(point_models: Callable[..., Models]) -> None:
    points = _points([3e-10, 1e-12, 1e-14], [1e-11] * 3, [1e-11] * 3, [True, True, False])
    told = replace(points, meta={"warnings": ["p: 1 of 3 flux points are limits"]})
    assert "p: 1 of 3 flux points are limits" in fit([told], point_models()).minimiser["warnings"]
    none = replace(points, mask=np.zeros(3, dtype=bool))
    models = point_models()
    spectral = replace(models, sources=(replace(models.sources[0], spatial=None),))
    with pytest.raises(InputError, match="source 's' is seen by no dataset"):
        fit([none], spectral)
