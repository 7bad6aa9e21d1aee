"""Pixel centres and solid angles by the projections' own formulas, against the WCS library and by hand."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.geometry import fov
from dl3flow.geometry.sky import SkyGeometry


def geometry(
    proj: str, frame: str, lon: float, lat: float, width: float = 5, binsz: float = 0.25
) -> SkyGeometry:
    center = SkyCoord(lon, lat, unit="deg", frame=frame)
    return SkyGeometry.create(center, width * u.deg, binsz * u.deg, proj)


@pytest.mark.parametrize("proj", ["TAN", "CAR", "AIT", "SIN"])
@pytest.mark.parametrize("frame", ["icrs", "galactic"])
@pytest.mark.parametrize(("lon", "lat"), [(83.6, 22.0), (359.9, -60), (0.0, 0.0), (10, 89.9), (20, -90)])
def test_vectors_are_the_pixels_of_the_wcs(proj: str, frame: str, lon: float, lat: float) -> None:
    geom = geometry(proj, frame, lon, lat).part((2, 17), (5, 20))
    assert geom.vectors == pytest.approx(fov.unit_vectors(*geom.lonlat), abs=1e-13)
    pointing = SkyCoord(84.1, 22.4, unit="deg")
    expected = fov.separation(*geom.lonlat, *geom.position(pointing))
    assert geom.separation(pointing) == pytest.approx(expected, abs=1e-13)
    sky = SkyCoord(*(v * u.rad for v in geom.lonlat), frame=frame).icrs
    by_angles = fov.sky_to_fov(sky.ra.rad, sky.dec.rad, pointing.ra.rad, pointing.dec.rad)
    for found, angle in zip(geom.fov_lonlat(pointing), by_angles, strict=True):
        assert np.sin(found - angle) * np.cos(by_angles[1]) == pytest.approx(0, abs=1e-12)


def test_a_map_of_the_whole_sky_has_no_pixels_off_it() -> None:
    geom = geometry("CAR", "icrs", 0, 0, 360, 2)
    assert geom.shape == (180, 180)
    assert np.array_equal(np.isnan(geom.vectors[0]), np.isnan(geom.lonlat[0]))
    assert np.isnan(geom.vectors[0]).any()


def test_vectors_by_hand() -> None:
    # a pixel one radian tan^-1(1) = 45 deg east of the reference on the tangent plane
    found = fov.projected_vectors("TAN", np.array([0.0, 1.0]), np.array([0.0]), 0.0, 0.0)
    assert found is not None
    assert found[:, 0, 0].tolist() == [1, 0, 0]
    assert found[:, 0, 1] == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0])
    # 30 deg north of it on the cylinder
    found = fov.projected_vectors("CAR", np.array([0.0]), np.array([np.pi / 6]), np.pi / 2, 0.0)
    assert found is not None
    assert found[:, 0, 0] == pytest.approx([0, np.cos(np.pi / 6), 0.5])
    assert fov.distance(found, np.pi / 2, 0.0)[0, 0] == pytest.approx(np.pi / 6, rel=1e-15)
    lon, lat = fov.vectors_to_fov(np.array([[1.0], [0.01], [0.02]]), fov.basis(0, 0))
    assert [lon[0], lat[0]] == pytest.approx([-0.01, 0.02], rel=1e-3)


def test_a_part_has_the_very_numbers_of_the_whole() -> None:
    whole = geometry("TAN", "icrs", 83.63, 22.01, 5, 0.1)
    part = whole.part((7, 31), (3, 40))
    assert np.array_equal(part.vectors, whole.vectors[:, 7:31, 3:40])
    assert np.array_equal(part.solid_angle, whole.solid_angle[7:31, 3:40])
