"""Makers of synthetic products as fixtures."""

from collections.abc import Callable

import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import Butterfly, FitResult, FluxPoints, LightCurve, SkyMap

from .examples import (
    make_butterfly,
    make_dataset,
    make_flux_points,
    make_light_curve,
    make_result,
    make_sky_map,
)


@pytest.fixture
def result() -> Callable[..., FitResult]:
    """Factory of fits."""
    return make_result


@pytest.fixture
def flux_points() -> Callable[..., FluxPoints]:
    """Factory of flux points."""
    return make_flux_points


@pytest.fixture
def butterfly() -> Callable[..., Butterfly]:
    """Factory of spectra at as many energies, and one more."""
    return make_butterfly


@pytest.fixture
def light_curve() -> Callable[..., LightCurve]:
    """Factory of light curves."""
    return make_light_curve


@pytest.fixture
def sky_map() -> Callable[..., SkyMap]:
    """Factory of sky maps."""
    return make_sky_map


@pytest.fixture
def dataset() -> Callable[..., Dataset]:
    """Factory of datasets."""
    return make_dataset
