"""Backgrounds that turn with the horizon, and exposure in reconstructed energy, by hand."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time

from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.table import IrfTable
from dl3flow.reduce.response import background_map, reco_exposure

ENERGY = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 2)
NAMIBIA = (16.5, -23.27, 1835.0)


def tilted(alignment: str) -> IrfTable:
    """A rate that grows by exp(1) for each degree upward, and not sideways."""
    energy = Axis.from_bounds("energy", 0.1 * u.TeV, 100 * u.TeV, 3)
    lon, lat = (Axis.from_bounds(name, -3 * u.deg, 3 * u.deg, 12, "lin") for name in ("fov_lon", "fov_lat"))
    rate = np.broadcast_to(np.exp(lat.centers.to_value("deg")), (3, 12, 12))
    unit = u.Unit("s-1 TeV-1 sr-1")
    return IrfTable("bkg_3d", (energy, lon, lat), {"BKG": rate}, {"BKG": unit}, {"fov_alignment": alignment})


def test_axes_of_the_horizon() -> None:
    when = Time("2020-03-01T22:00:00") + [0, 1] * u.h
    at = SkyCoord(120, -40, unit="deg")
    axes, azimuth, altitude = fov.altaz_axes(at, when, NAMIBIA)
    assert axes @ np.swapaxes(axes, 1, 2) == pytest.approx(np.array([np.eye(3)] * 2), abs=1e-12)
    site = EarthLocation.from_geodetic(*NAMIBIA)
    for n in (0, 1):
        frame = AltAz(obstime=when[n], location=site)
        near = SkyCoord(120.4, -39.3, unit="deg")
        there, here = near.transform_to(frame), at.transform_to(frame)
        assert (azimuth[n], altitude[n]) == pytest.approx((here.az.rad, here.alt.rad), abs=1e-12)
        # against the azimuth, and up; to two seconds of arc of differential aberration
        expected = fov.sky_to_fov(there.az.rad, there.alt.rad, here.az.rad, here.alt.rad)
        assert fov.vectors_to_fov(near.cartesian.xyz.value, axes[n]) == pytest.approx(expected, abs=1e-5)


def test_a_background_that_follows_the_zenith(demo_run: Observation) -> None:
    pointing = demo_run.pointing
    geom = SkyGeometry.create(pointing, 2 * u.deg, 0.1 * u.deg, "TAN")
    site = EarthLocation.from_geodetic(*NAMIBIA)
    place = dict(zip(("geolon", "geolat", "altitude"), NAMIBIA, strict=True))
    start = Time("2020-01-01T19:00:00")
    still = replace(
        demo_run, gti=Gti([0.0] * u.s, [2.0] * u.s, start), meta={**demo_run.meta, "location": place}
    )
    found = background_map(still, tilted("ALTAZ"), geom, ENERGY).data
    frame = AltAz(obstime=start, location=site)
    lon, lat = geom.lonlat
    pixels, here = SkyCoord(lon, lat, unit="rad").transform_to(frame), pointing.transform_to(frame)
    _, up = fov.sky_to_fov(pixels.az.rad, pixels.alt.rad, here.az.rad, here.alt.rad)
    # 1 / TeV over bins of 1 to 10 TeV, 2 s
    expected = np.exp(np.degrees(up)) * geom.solid_angle.to_value("sr") * 2
    for n in (0, 1):
        width = ENERGY.widths.to_value("TeV")[n]
        assert found[n] == pytest.approx(expected * width, rel=1e-4)
    # two hours: coarse and fine steps agree, and time is not lost between intervals
    long = replace(still, gti=Gti([0.0] * u.s, [7200.0] * u.s, start))
    split = replace(still, gti=Gti([0.0, 3000.0] * u.s, [3000.0, 7200.0] * u.s, start))
    coarse, fine, parts = (
        background_map(run, tilted("ALTAZ"), geom, ENERGY, fov_rotation_step=step * u.deg).data
        for run, step in ((long, 4), (long, 1), (split, 4))
    )
    assert coarse == pytest.approx(fine, rel=5e-3)
    assert parts == pytest.approx(fine, rel=5e-3)
    assert np.abs(fine / (found * 3600) - 1).max() > 0.3
    flat = background_map(long, tilted("RADEC"), geom, ENERGY).data
    assert np.abs(fine / flat - 1).max() > 0.3


def test_a_horizon_needs_a_place(demo_run: Observation) -> None:
    geom = SkyGeometry.create(demo_run.pointing, 1 * u.deg, 0.5 * u.deg, "TAN")
    nowhere = replace(demo_run, meta={**demo_run.meta, "location": None})
    with pytest.raises(
        InputError, match="observation 1001: the background has FOVALIGN = ALTAZ, and the place"
    ):
        background_map(nowhere, tilted("ALTAZ"), geom, ENERGY)
    assert background_map(nowhere, tilted("RADEC"), geom, ENERGY).data.min() > 0


def test_exposure_in_reconstructed_energy_by_hand(small_dataset) -> None:
    dataset = small_dataset()
    # true bins 1-2, 2-4 TeV with exposures 3 and 9; all of the first and half of the second stay in 1-2 TeV
    true = Axis("energy_true", [1, 2, 4] * u.TeV, "log")
    energy = Axis("energy", [1, 2, 4] * u.TeV, "log")
    geom, geom_irf = dataset.geom, dataset.edisp.edisp.geom
    exposure = Map(
        geom, (true,), np.broadcast_to(np.array([3.0, 9.0])[:, None, None], (2, *geom.shape)), u.Unit("m2 s")
    )
    kernel = np.broadcast_to(np.array([[1.0, 0.0], [0.5, 0.5]])[:, :, None, None], (2, 2, *geom_irf.shape))
    counts = Map(geom, (energy,), np.zeros((2, *geom.shape)))
    edisp = EdispMap(Map(geom_irf, (true, energy), kernel), dataset.edisp.exposure)
    folded = reco_exposure(replace(dataset, counts=counts, exposure=exposure, edisp=edisp))
    # index 2: fluxes 1/2 and 1/4
    assert folded.axes[0].name == "energy"
    assert folded.data[:, 0, 0] == pytest.approx([(0.5 * 3 + 0.25 * 4.5) / 0.5, 4.5], rel=1e-6)
    steep = reco_exposure(
        replace(dataset, counts=counts, exposure=exposure, edisp=edisp), lambda e: 7 * e**-3
    )
    # index 3: fluxes 3/8 and 3/32
    assert steep.data[:, 3, 5] == pytest.approx([3 + 4.5 / 4, 4.5], rel=1e-6)
    plain = reco_exposure(replace(dataset, counts=counts, exposure=exposure, edisp=None))
    assert np.array_equal(plain.quantity, exposure.quantity)
