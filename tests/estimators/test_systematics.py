"""What estimators make of a fit whose systematic errors scale the background."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.estimators import MAPS, TABLES
from dl3flow.fit.minimise import fit
from dl3flow.models.source import Component, Models, Parameter, ResponseModel


def scaled(models: Models, factor: float) -> Models:
    """Models with a frozen factor on the background of all datasets."""
    values = {"energy_scale": 0.0, "exposure_scale": 1.0, "background_scale": factor}
    parameters = tuple(Parameter(name, value, frozen=True) for name, value in values.items())
    return replace(models, responses=(ResponseModel("r", Component("response_scale", parameters)),))


def test_flux_points_scale_measured_backgrounds_as_the_fit_does(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    """A factor of 1.5 on alpha is an acceptance of 1.5 in place of 1."""
    dataset = small_dataset(seed=3, amplitude=3e-10)
    ones, off = np.ones(dataset.counts.data.shape), np.round(dataset.background.counts.data * 5)
    columns = []
    for acceptance, models in ((1.0, scaled(point_models(), 1.5)), (1.5, point_models())):
        background = OffCounts(*(dataset.counts.with_data(v) for v in (off, acceptance * ones, 5 * ones)))
        measured = replace(dataset, background=background)
        result = fit([measured], models)
        entry = {"name": "flux_points", "source": "s", "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 1}}
        estimate, options = TABLES.bind(entry, "sed")
        row = estimate([measured], result, **options).table[0]
        columns.append([row[name] for name in ("norm", "norm_err", "ts", "npred", "stat")])
    assert columns[0] == pytest.approx(columns[1], rel=1e-4)


def test_excess_map_scales_the_expected_background_as_the_fit_does(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    class Fit:
        models = scaled(point_models(), 1.5)

    dataset = small_dataset(seed=3)
    estimate, options = MAPS.bind({"name": "excess_map", "correlation_radius": "0.15 deg"}, "map")
    plain, found = (estimate([dataset], of, **options).maps["background"].data for of in (None, Fit()))
    assert found == pytest.approx(1.5 * plain)
