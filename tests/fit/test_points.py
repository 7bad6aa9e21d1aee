"""Flux points fitted by their profiles and limits: values by hand, derivatives by differences, and as the counts they came from."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, FluxPointsData, NormProfiles
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import fit
from dl3flow.fit.points import build_points_stat
from dl3flow.kernels.profiles import with_minimum
from dl3flow.models.source import Models

DNDE = u.Unit("cm-2 s-1 TeV-1")
MakeModels = Callable[..., Models]


def _points(stat_type: str, **fields: object) -> FluxPointsData:
    """Three points of 2e-11, 2e-13, 2e-15; errors of 10 % below and 20 % above."""
    truth = np.array([2e-11, 2e-13, 2e-15]) * DNDE
    used = np.array([True, True, True])
    return FluxPointsData(
        "p",
        [1, 10, 100] * u.TeV,
        truth,
        0.1 * truth,
        0.2 * truth,
        used,
        {"warnings": []},
        stat_type,
        **fields,
    )


def _profiled() -> FluxPointsData:
    """Profiles ((norm - 2) / 0.3)^2 of a reference of 1e-11, 1e-13, 1e-15; the last point has none and is not used."""
    norm = np.array([0.0, 1.0, 2.0, 3.0])
    profile = ((norm - 2) / 0.3) ** 2
    none = np.zeros(0)
    profiles = NormProfiles(
        np.array([1e-11, 1e-13, 1e-15]) * DNDE, (norm, norm, none), (profile, profile, none)
    )
    return replace(_points("profile", profiles=profiles), mask=np.array([True, True, False]))


def _limited() -> FluxPointsData:
    """The last point is a limit of 4e-15, two errors above nothing."""
    limit = np.array([np.nan, np.nan, 4e-15]) * DNDE
    return _points("distrib", limit=limit, limit_error=0.5 * limit)


def test_profiles_by_hand() -> None:
    stat, slope, _ = build_points_stat(_profiled())(np.array([2.6e-11, 1.7e-13]))
    assert stat == pytest.approx([4.0, 1.0])
    assert slope == pytest.approx([2 * 2 / 0.3e-11, -2 / 0.3e-13])


def test_limits_by_hand() -> None:
    """Errors by the model's side for points; 2 ln 2 at the limit."""
    stat, slope, _ = build_points_stat(_limited())(np.array([2.4e-11, 1.9e-13, 4e-15]))
    assert stat == pytest.approx([1.0, 0.25, 2 * np.log(2)])
    assert slope[2] == pytest.approx(2 * np.sqrt(2 / np.pi) / 2e-15)


@pytest.mark.parametrize("make", [_profiled, _limited])
def test_derivatives(make: Callable[[], FluxPointsData]) -> None:
    stat = build_points_stat(make())
    at = np.array([2.3e-11, 1.6e-13, 5e-15])[: make().mask.sum()]
    low, here, high = (stat(at * (1 + d)) for d in (-1e-5, 0, 1e-5))
    assert (high[0] - low[0]) / (2e-5 * at) == pytest.approx(here[1], rel=1e-6)
    assert (high[1] - low[1]) / (2e-5 * at) == pytest.approx(here[2], rel=1e-6)


@pytest.mark.parametrize("make", [_profiled, _limited])
def test_gradient_of_the_joint_statistic(
    make: Callable[[], FluxPointsData], spectral_models: MakeModels
) -> None:
    likelihood = build_likelihood([make()], spectral_models(2.2e-11, 2.1))
    gradient = likelihood.gradient(likelihood.start)
    for k, value in enumerate(likelihood.start):
        step = np.zeros(len(likelihood.start))
        step[k] = 1e-6 * value
        rise = likelihood.stat(likelihood.start + step) - likelihood.stat(likelihood.start - step)
        assert gradient[k] == pytest.approx(rise / (2 * step[k]), rel=1e-5, abs=1e-6)


def test_a_limit_pulls_a_spectrum_down(spectral_models: MakeModels) -> None:
    """A third point that is only known to be below 1e-16 in place of 2e-15 makes the spectrum softer than 2."""
    points = _limited()
    assert points.limit is not None
    low = np.array([np.nan, np.nan, 1e-16]) * DNDE
    result = fit([replace(points, limit=low, limit_error=0.5 * low)], spectral_models(2e-11))
    assert result.success, result.message
    assert result.parameter("s.index").value > 2.05
    free = fit(
        [replace(points, limit=20 * points.limit, limit_error=10 * points.limit)], spectral_models(2e-11)
    )
    assert free.parameter("s.index").value == pytest.approx(2.0, abs=0.02)


def test_profiles_are_as_good_as_the_counts(
    spectrum: Callable[..., Dataset], spectral_models: MakeModels
) -> None:
    """Ten bins of Poisson counts, and the profile of each: the same spectrum and errors, to a few per cent of these."""
    dataset = spectrum(seed=6, level=3.0, amplitude=1e-10)
    direct = fit([dataset], spectral_models(1e-10))
    edges = dataset.energy.edges.to_value(u.TeV)
    energy = np.sqrt(edges[:-1] * edges[1:])
    signal = 1e-10 * (1 / edges[:-1] - 1 / edges[1:]) * 1e12
    n = dataset.counts.data[:, 0, 0]
    scans = [np.linspace(0, 3 * (n[k] + 3) / signal[k], 25) for k in range(10)]
    found = []
    for k, norm in enumerate(scans):
        mu = norm * signal[k] + 3.0
        best = max((n[k] - 3.0) / signal[k], 0.0)
        at_best = 2 * (best * signal[k] + 3 - n[k] * np.log(best * signal[k] + 3))
        found.append(with_minimum(norm, 2 * (mu - n[k] * np.log(mu)), best, at_best))
    reference = 1e-10 * energy**-2.0 * DNDE
    profiles = NormProfiles(reference, tuple(x for x, _ in found), tuple(y for _, y in found))
    points = FluxPointsData(
        "p",
        energy * u.TeV,
        reference,
        reference,
        reference,
        np.ones(10, dtype=bool),
        {"warnings": []},
        "profile",
        profiles,
    )
    result = fit([points], spectral_models(1e-10))
    for name in result.free:
        one, other = direct.parameter(name), result.parameter(name)
        assert abs(one.value - other.value) < 0.05 * one.error
        assert other.error == pytest.approx(one.error, rel=0.05)
