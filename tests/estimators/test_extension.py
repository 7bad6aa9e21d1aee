"""Extension of synthetic sources of known size."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.source import Component, Models, Parameter

MakeDataset = Callable[..., Dataset]
MakeModels = Callable[..., Models]


def estimate(datasets: list[Dataset], result: FitResult, **options: Any) -> ProductTable:
    function, bound = TABLES.bind({"name": "extension", "source": "s", "n_points": 4, **options}, "extension")
    return function(datasets, result, **bound)


def gaussian(models: Models, sigma: float) -> Models:
    (source,) = models.sources
    size = Parameter("sigma", sigma, u.deg, min=0.0)
    round_ = (Parameter("e", 0.0, frozen=True), Parameter("phi", 0.0, u.deg, frozen=True))
    spatial = Component("gauss", (*source.spatial.parameters, size, *round_))
    return replace(models, sources=(replace(source, spatial=spatial),))


def drawn(dataset: Dataset, models: Models, seed: int) -> Dataset:
    expected = dataset.mu_bkg + predict_counts(dataset, models)[0]
    counts = np.random.default_rng(seed).poisson(expected).astype(float)
    return replace(dataset, counts=dataset.counts.with_data(counts))


@pytest.fixture(scope="module")
def wide(small_dataset: MakeDataset, point_models: MakeModels) -> tuple[Dataset, FitResult]:
    """A Gaussian of 0.12 deg, fitted as a point."""
    data = drawn(small_dataset(), gaussian(point_models(6e-10), 0.12), 3)
    return data, fit([data], point_models(5e-10))


def test_a_wide_source_is_told_from_a_point(
    wide: tuple[Dataset, FitResult], point_models: MakeModels
) -> None:
    data, result = wide
    found = estimate([data], result)
    meta = found.meta
    assert abs(meta["size"] - 0.12) < 3 * meta["size_err"] < 0.05
    assert meta["size_errn"] == pytest.approx(meta["size_err"], rel=0.2)
    assert meta["size_errp"] == pytest.approx(meta["size_err"], rel=0.2)
    assert meta["warnings"] == []
    # the statistic of the same fits by themselves
    alternative = fit([data], gaussian(point_models(5e-10), 0.1))
    tiny = {"s.sigma": replace(alternative.parameter("s.sigma"), value=1e-5, frozen=True)}
    null = fit([data], alternative.models.with_parameters(tiny))
    assert meta["ts"] == pytest.approx(null.stat - alternative.stat, abs=0.01)
    # the model `point`, shared out among four pixels, would be taken for an extended source
    assert null.stat > result.stat + 10
    assert meta["ts"] > 30
    assert meta["sigma"] == pytest.approx(np.sqrt(meta["ts"]))
    assert found.table["stat"][0] == pytest.approx(meta["ts"])
    assert "half of that of chi2 with one degree of freedom" in meta["comparison"]
    assert found.table["size"][0] == 0
    # nearly a parabola about the best size
    assert meta["size_ul"] == pytest.approx(meta["size"] + 2 * meta["size_errp"], rel=0.05)
    at_limit = alternative.models.with_parameters(
        {"s.sigma": replace(alternative.parameter("s.sigma"), value=meta["size_ul"], frozen=True)}
    )
    assert fit([data], at_limit).stat - alternative.stat == pytest.approx(4, abs=0.05)
    assert found.meta["summary"][0] == ["test statistic of the extension", meta["ts"]]


def test_a_fit_of_the_shape_itself_gives_the_same(
    wide: tuple[Dataset, FitResult], point_models: MakeModels
) -> None:
    data, result = wide
    from_point = estimate([data], result).meta
    from_shape = estimate([data], fit([data], gaussian(point_models(5e-10), 0.1))).meta
    assert from_shape["ts"] == pytest.approx(from_point["ts"], abs=0.01)
    assert from_shape["size_ul"] == pytest.approx(from_point["size_ul"], rel=2e-3)


def test_a_point_has_a_limit(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    data = drawn(small_dataset(), gaussian(point_models(6e-10), 1e-5), 5)
    result = fit([data], point_models(5e-10))
    limits = {}
    for shape, most in (("gauss", 0.08), ("disk", 0.16)):
        meta = estimate([data], result, shape=shape).meta
        limits[shape] = meta["size_ul"]
        assert -1e-3 < meta["ts"] < 6
        assert meta["p_value"] > 0.005
        assert meta["size"] < meta["size_ul"] < most
    wider = estimate([data], result, n_sigma_ul=3).meta
    assert wider["size_ul"] > limits["gauss"]
    assert wider["ul_conf"] == pytest.approx(0.9973, abs=1e-4)


def test_a_faint_source_has_none_within_reach(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    data = drawn(small_dataset(), point_models(4e-12), 7)
    found = estimate([data], fit([data], point_models(4e-12)), max_size="0.15 deg")
    assert np.isnan(found.meta["size_ul"])
    assert found.table["size"][-1].to_value("deg") == pytest.approx(0.15)
    told = " ".join(found.meta["warnings"])
    assert "does not exclude any size up to max_size (0.15 deg): there is no upper limit" in told


def test_data_that_see_nothing_end_the_search(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    data = small_dataset()
    dark = replace(data, mask_safe=np.zeros_like(data.mask_safe))
    meta = estimate([dark], fit([data], point_models())).meta
    assert np.isnan([meta["size_err"], meta["size_ul"]]).all()
    assert any("no dataset has a bin in the fit" in told for told in meta["warnings"])


def test_a_size_at_its_end_has_no_error(wide: tuple[Dataset, FitResult]) -> None:
    data, result = wide
    meta = estimate([data], result, max_size="0.06 deg").meta
    assert meta["size"] == pytest.approx(0.06)
    assert np.isnan([meta["size_err"], meta["size_ul"]]).all()
    assert any("the size ends at max_size (0.06 deg)" in told for told in meta["warnings"])


def test_what_cannot_be_tested(wide: tuple[Dataset, FitResult]) -> None:
    data, result = wide
    with pytest.raises(InputError, match=r"no source 't' in the fit \(choices: s\)"):
        estimate([data], result, source="t")
    shell = Component("shell", result.models.sources[0].spatial.parameters)
    other = replace(result.models.sources[0], spatial=shell)
    with pytest.raises(InputError, match="the source 's' has the spatial model 'shell'"):
        estimate([data], replace(result, models=replace(result.models, sources=(other,))))
    with pytest.raises(InputError, match=r"max_size \(0.01 deg\) is below the size of the pixels, 0.05 deg"):
        estimate([data], result, max_size="0.01 deg")
    region = Map(RegionGeometry("icrs;circle(83.63, 22.01, 0.3)"), data.counts.axes, np.zeros((3, 1, 1)))
    with pytest.raises(InputError, match="none of the fit's data is a map"):
        estimate([replace(data, counts=region)], result)
    with pytest.raises(InputError, match="n_points: expected a whole number from 3 to 200, found 2"):
        estimate([data], result, n_points=2)
