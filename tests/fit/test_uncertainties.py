"""What is asked of a finished fit: each number where it was asked for, and none of a fit that failed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult
from dl3flow.fit.minimise import fit
from dl3flow.fit.uncertainties import with_uncertainties
from dl3flow.models.source import Models, Parameter


@pytest.fixture(scope="module")
def case(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> tuple[list[Dataset], FitResult]:
    datasets = [small_dataset("a", seed=3)]
    models = point_models()
    frozen = {f"s.{n}": replace(p, frozen=True) for n, p in _places(models).items()}
    return datasets, fit(datasets, models.with_parameters(frozen))


def _places(models: Models) -> dict[str, Parameter]:
    return {n: models.sources[0].parameter(n) for n in ("lon_0", "lat_0")}


def test_nothing_asked_for_is_the_same_fit(case: tuple[list[Dataset], FitResult]) -> None:
    datasets, result = case
    assert with_uncertainties(datasets, result, {"minos": [], "contours": []}) is result


def test_what_is_asked_for_is_there(case: tuple[list[Dataset], FitResult]) -> None:
    datasets, result = case
    index = result.parameter("s.index")
    asked = {
        "minos": "all",
        "profiles": [
            {"name": "s.index", "n": 3, "n_sigma": 1},
            {"name": "s.amplitude", "values": [2e-10, 3e-10, 4e-10]},
        ],
        "contours": [{"names": ["s.amplitude", "s.index"], "n_sigma": [1, 2], "n_points": 12}],
    }
    found = with_uncertainties(datasets, result, asked)
    assert set(found.minos) == set(result.free)
    minus, plus = found.minos["s.index"]
    assert 0.5 * (minus + plus) == pytest.approx(index.error, rel=0.05)
    profile = found.profiles["s.index"]
    np.testing.assert_allclose(profile.values, index.value + index.error * np.array([-1, 0, 1]))
    assert profile.stat[1] == pytest.approx(0, abs=1e-6)
    # one on either side but for the skewness
    assert profile.stat[[0, 2]].mean() == pytest.approx(1, rel=0.05)
    np.testing.assert_array_equal(found.profiles["s.amplitude"].values, [2e-10, 3e-10, 4e-10])
    assert [(c.names, c.n_sigma) for c in found.contours] == [(("s.amplitude", "s.index"), n) for n in (1, 2)]
    small, large = (np.ptp(c.y) / 2 for c in found.contours)
    # chi2 of two degrees of freedom: 2.296 and 6.180
    assert small == pytest.approx(np.sqrt(2.296) * index.error, rel=0.1)
    assert large == pytest.approx(np.sqrt(6.180) * index.error, rel=0.1)


def test_a_profile_stays_within_the_limits(case: tuple[list[Dataset], FitResult]) -> None:
    datasets, result = case
    index = result.parameter("s.index")
    limited = {"s.index": replace(index, min=index.value - 0.5 * index.error)}
    result = replace(result, models=result.models.with_parameters(limited))
    asked = {"profiles": [{"name": "s.index", "n": 3, "n_sigma": 2}]}
    values = with_uncertainties(datasets, result, asked).profiles["s.index"].values
    assert values[[0, -1]] == pytest.approx([index.value - 0.5 * index.error, index.value + 2 * index.error])


def test_a_contour_along_a_limit_says_that_it_is_cut(case: tuple[list[Dataset], FitResult]) -> None:
    datasets, result = case
    index = result.parameter("s.index")
    limited = {"s.index": replace(index, min=index.value - 0.3 * index.error)}
    result = replace(result, models=result.models.with_parameters(limited))
    asked = {"contours": [{"names": ["s.amplitude", "s.index"], "n_sigma": [1], "n_points": 12}]}
    found = with_uncertainties(datasets, result, asked)
    (told,) = [s for s in found.minimiser["warnings"] if "contour" in s]
    assert "the contour of s.amplitude and s.index at 1 sigma is cut by a limit" in told
    whole = with_uncertainties(datasets, case[1], asked)
    assert not any("contour" in s for s in whole.minimiser["warnings"])


def test_a_fit_that_failed_says_that_nothing_was_computed(case: tuple[list[Dataset], FitResult]) -> None:
    datasets, result = case
    failed = replace(result, success=False, message="edm 3")
    found = with_uncertainties(datasets, failed, {"minos": "all", "profiles": [{"name": "s.index"}]})
    assert (found.minos, found.profiles) == ({}, {})
    assert "minos and profiles are not computed" in found.minimiser["warnings"][-1]
    assert found.doubts[0] == "the fit failed: edm 3"


def test_a_dataset_says_which_observations_it_holds(case: tuple[list[Dataset], FitResult]) -> None:
    _, result = case
    assert result.datasets[0].obs_ids == (3,)
