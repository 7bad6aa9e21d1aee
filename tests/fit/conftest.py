"""Spectra of one region with the same bins of true and reconstructed energy, whose fits take milliseconds."""

from collections.abc import Callable

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import Map
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.source import Component, Models, Parameter, Source

DNDE = u.Unit("cm-2 s-1 TeV-1")


def _spectral_models(amplitude: float = 3e-11, index: float = 2.0, *, low: float = np.nan) -> Models:
    parameters = (
        Parameter("amplitude", amplitude, DNDE, min=low),
        Parameter("index", index),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    )
    return Models((Source("s", Component("power_law", parameters), None),))


def _spectrum(
    name: str = "spectrum",
    *,
    seed: int | None = 0,
    n_energy: int = 10,
    level: float = 5.0,
    alpha: float | None = None,
    amplitude: float = 3e-11,
    exposure: float = 1e8,
) -> Dataset:
    """Counts of a power law of index 2 on a flat background of ``level`` per bin, from 1 to 100 TeV.

    The background is expected, or for an ``alpha`` measured with 1 / alpha of the exposure. Without a seed counts are
    the expectation.
    """
    energy = Axis.from_bounds("energy", 1 * u.TeV, 100 * u.TeV, n_energy)
    energy_true = Axis.from_bounds("energy_true", 1 * u.TeV, 100 * u.TeV, n_energy)
    geom = RegionGeometry("icrs;circle(83.63, 22.01, 0.2)")
    edges = energy.edges.to_value(u.TeV)
    signal = amplitude * (1 / edges[:-1] - 1 / edges[1:]) * exposure * 1e4
    shape = (n_energy, 1, 1)
    expected = (signal + level).reshape(shape)
    random = None if seed is None else np.random.default_rng(seed)
    counts = expected if random is None else random.poisson(expected).astype(float)
    background: ExpectedCounts | OffCounts = ExpectedCounts(Map(geom, (energy,), np.full(shape, level)))
    if alpha is not None:
        off = np.full(shape, level / alpha)
        off = off if random is None else random.poisson(off).astype(float)
        background = OffCounts(
            Map(geom, (energy,), off),
            Map(geom, (energy,), np.full(shape, alpha)),
            Map(geom, (energy,), np.ones(shape)),
        )
    return Dataset(
        name=name,
        counts=Map(geom, (energy,), counts),
        background=background,
        exposure=Map(geom, (energy_true,), np.full(shape, exposure), u.Unit("m2 s")),
        psf=None,
        edisp=None,
        mask_safe=np.ones(shape, dtype=bool),
        mask_fit=None,
        gti=Gti([0.0] * u.s, [1000.0] * u.s, Time(60000, format="mjd", scale="tt")),
        meta={"obs_ids": [1], "livetime": 950.0, "ontime": 1000.0, "telescope": "T", "instrument": "I"},
    )


@pytest.fixture(scope="session")
def spectrum() -> Callable[..., Dataset]:
    """Maker of small spectra."""
    return _spectrum


@pytest.fixture(scope="session")
def spectral_models() -> Callable[..., Models]:
    """Maker of the model that the small spectra were drawn from, a source ``s`` without a place."""
    return _spectral_models
