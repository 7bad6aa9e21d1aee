"""Small datasets with simple numbers, for the round trips of all formats."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.provenance import Provenance


def _dataset(
    edisp="kernel",
    frame="icrs",
    with_psf=True,
    mask_fit=True,
    n_energy=3,
    n_true=5,
    shape=(6, 8),
    name="run-1",
    region=None,
    background="expected",
    reasons=False,
):
    rng = np.random.default_rng(1)

    def values(*size):
        return rng.uniform(0.5, 2, size).astype(np.float32).astype(float)

    center = SkyCoord(83.63 * u.deg, 22.01 * u.deg, frame=frame)
    geom = SkyGeometry.create(center, (shape[1] * 0.1 * u.deg, shape[0] * 0.1 * u.deg), 0.1 * u.deg)
    coarse = geom.coarser(0.3 * u.deg)
    if region is not None:
        geom = coarse = RegionGeometry(region)
        shape = geom.shape
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, n_energy)
    true = Axis.from_bounds("energy_true", 0.3 * u.TeV, 30 * u.TeV, n_true)
    rad = Axis.from_bounds("rad", 0 * u.deg, 0.6 * u.deg, 7, "lin")
    migra = Axis.from_bounds("migra", 0.2 * u.one, 5 * u.one, 9, "lin")
    second = energy if edisp == "kernel" else migra
    exposure = Map(coarse, (true,), values(n_true, *coarse.shape), u.Unit("m2 s"))
    mask = rng.uniform(size=(n_energy, *shape)) > 0.3
    counts = Map(geom, (energy,), rng.poisson(2, (n_energy, *shape)).astype(float))
    model = ExpectedCounts(Map(geom, (energy,), values(n_energy, *shape)))
    exposures = Map(geom, (true,), values(n_true, *shape) * 2.0**30, u.Unit("m2 s"))
    spread = values(n_true, 7, *coarse.shape)
    dispersion = values(n_true, second.n_bins, *coarse.shape)
    off = OffCounts(
        Map(geom, (energy,), rng.poisson(5, (n_energy, *shape)).astype(float)),
        Map(geom, (energy,), values(n_energy, *shape)),
        Map(geom, (energy,), np.round(values(n_energy, *shape) * 3)),
    )
    return Dataset(
        name=name,
        counts=counts,
        background={"expected": model, "off": off, None: None}[background],
        exposure=exposures,
        psf=PsfMap(Map(coarse, (true, rad), spread, u.Unit("sr-1")), exposure) if with_psf else None,
        edisp=EdispMap(Map(coarse, (true, second), dispersion), exposure),
        mask_safe=mask,
        mask_fit=~mask if mask_fit else None,
        gti=Gti(
            [100.25, 900] * u.s,
            [500, 1000.125] * u.s,
            Time(51910, 0.000742870368412695, format="mjd", scale="tt"),
        ),
        meta={
            "obs_ids": [23523],
            "livetime": 1581.736764695497,
            "telescope": "HESS",
            "background": {"norm": 1.02},
        },
        reasons=MaskReasons(("aeff_default", "offset_max"), rng.integers(0, 4, mask.shape).astype(np.uint8))
        if reasons
        else None,
    )


@pytest.fixture
def make_dataset():
    """A function that makes a dataset whose values are float32 numbers."""
    return _dataset


@pytest.fixture
def provenance():
    """A provenance as a step would hand over."""
    return Provenance(
        "reduce_observation",
        "c0de",
        '{"binsz":"0.1 deg"}',
        {"observation": [{"name": "a.fits", "sha256": "00"}]},
        {"dl3flow": "0.1"},
    )


def _assert_maps_equal(one, two):
    assert one.geom == two.geom
    assert one.unit == two.unit
    assert one.data.dtype == float
    np.testing.assert_array_equal(one.data, two.data)
    assert [a.name for a in one.axes] == [a.name for a in two.axes]
    for a, b in zip(one.axes, two.axes, strict=True):
        assert a.scale == b.scale
        assert a.unit == b.unit
        np.testing.assert_array_equal(a.edges.value, b.edges.value)


def _assert_equal(one, two):
    for name in ("counts", "exposure"):
        _assert_maps_equal(getattr(one, name), getattr(two, name))
    assert type(one.background) is type(two.background)
    if one.background is not None:
        _assert_maps_equal(one.background.counts, two.background.counts)
    if isinstance(one.background, OffCounts):
        _assert_maps_equal(one.background.acceptance, two.background.acceptance)
        _assert_maps_equal(one.background.acceptance_off, two.background.acceptance_off)
    assert (one.reasons is None) == (two.reasons is None)
    if one.reasons is not None:
        assert one.reasons.names == two.reasons.names
        assert two.reasons.bits.dtype == np.uint8
        np.testing.assert_array_equal(one.reasons.bits, two.reasons.bits)
    assert (one.psf is None) == (two.psf is None)
    assert (one.edisp is None) == (two.edisp is None)
    if one.psf is not None:
        _assert_maps_equal(one.psf.psf, two.psf.psf)
        _assert_maps_equal(one.psf.exposure, two.psf.exposure)
    if one.edisp is not None:
        _assert_maps_equal(one.edisp.edisp, two.edisp.edisp)
        _assert_maps_equal(one.edisp.exposure, two.edisp.exposure)
    np.testing.assert_array_equal(one.mask_safe, two.mask_safe)
    assert one.mask_safe.dtype == bool
    assert (one.mask_fit is None) == (two.mask_fit is None)
    if one.mask_fit is not None:
        np.testing.assert_array_equal(one.mask_fit, two.mask_fit)
    np.testing.assert_array_equal(one.gti.start.to_value(u.s), two.gti.start.to_value(u.s))
    np.testing.assert_array_equal(one.gti.stop.to_value(u.s), two.gti.stop.to_value(u.s))
    assert one.gti.reference == two.gti.reference
    assert one.gti.reference.scale == two.gti.reference.scale
    assert one.name == two.name
    assert dict(one.meta) == dict(two.meta)


@pytest.fixture
def assert_equal():
    """A function that compares two datasets number by number."""
    return _assert_equal
