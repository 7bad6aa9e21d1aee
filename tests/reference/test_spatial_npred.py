"""Counts that extended sources are expected to give in one H.E.S.S. run, against those of the independent implementation."""

from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.fit.npred import predict_counts
from dl3flow.models.pixels import PixelGrid
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.reduce import RECIPES

from .conftest import CENTER, DNDE

ENTRY = {
    "name": "cube",
    "center": CENTER,
    "width": "5 deg",
    "binsz": "0.05 deg",
    "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 11},
    "energy_true": {"min": "0.3 TeV", "max": "10 TeV", "nbin": 31},
}
POINT = (20.35500, 15.41194, 12.20039, 9.95631, 8.00325, 6.28169, 4.93839, 3.85589, 2.90807, 2.07501, 1.28621)
POSITION = (Parameter("lon_0", 83.63, u.deg), Parameter("lat_0", 22.01, u.deg))


@pytest.fixture(scope="module")
def dataset(crab_observations: dict[int, Any]) -> Dataset:
    recipe, options = RECIPES.bind(ENTRY, "cube")
    return recipe(crab_observations[23592], "run", **options)


def counts(dataset: Dataset, kind: str, *shape: Parameter) -> np.ndarray:
    spectral = Component(
        "power_law",
        (Parameter("amplitude", 4e-11, DNDE), Parameter("index", 2.6), Parameter("reference", 1.0, u.TeV)),
    )
    source = Source("crab", spectral, Component(kind, (*POSITION, *shape)))
    return predict_counts(dataset, Models((source,)))[0].sum(axis=(1, 2))


def test_a_point(dataset: Dataset) -> None:
    assert counts(dataset, "point") == pytest.approx(POINT, rel=1e-5)


def test_an_elliptical_gaussian(dataset: Dataset) -> None:
    shape = Parameter("sigma", 0.2, u.deg), Parameter("e", 0.5), Parameter("phi", 30.0, u.deg)
    assert counts(dataset, "gauss", *shape)[:2] == pytest.approx([20.02851, 15.19453], rel=1e-5)


def test_a_disk(dataset: Dataset) -> None:
    """The reference takes the disk at 2 x 2 points of each pixel, whose sum is 0.9979: ours is one."""
    shape = (
        Parameter("r_0", 0.3, u.deg),
        Parameter("e", 0.0),
        Parameter("phi", 0.0, u.deg),
        Parameter("edge_width", 0.01),
    )
    grid = PixelGrid.create(dataset.counts.sky, 2, "icrs")
    values = np.radians([83.63, 22.01, 0.3])
    sampled = grid.averaged(SPATIAL_MODELS.find("disk", "").function(grid.lon, grid.lat, *values))
    assert sampled.sum() == pytest.approx(0.9978736, abs=1e-7)
    assert counts(dataset, "disk", *shape)[0] * sampled.sum() == pytest.approx(20.09398, rel=1e-4)
