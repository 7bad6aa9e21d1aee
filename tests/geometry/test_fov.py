import numpy as np
import pytest

from dl3flow.errors import InputError
from dl3flow.geometry import fov

DEG = np.pi / 180


def test_fov_lon_runs_against_the_longitude_of_the_sky():
    """On the equator a degree east is fov_lon = -1, a degree north fov_lat = +1."""
    lon, lat = fov.sky_to_fov(np.array([11.0, 10.0]) * DEG, np.array([0.0, 1.0]) * DEG, 10 * DEG, 0.0)
    assert np.allclose(lon / DEG, [-1, 0], atol=1e-12)
    assert np.allclose(lat / DEG, [0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("lon_0", "lat_0"), [(83.6, 22.0), (0.2, -59.0), (359.9, 0.0), (120.0, 89.5), (10.0, -90.0)]
)
def test_fov_to_sky_inverts_sky_to_fov(lon_0, lat_0):
    grid = np.linspace(-3, 3, 13) * DEG
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    lon, lat = fov.fov_to_sky(x, y, lon_0 * DEG, lat_0 * DEG)
    assert ((lon >= 0) & (lon < 2 * np.pi)).all()
    back_x, back_y = fov.sky_to_fov(lon, lat, lon_0 * DEG, lat_0 * DEG)
    assert np.allclose(back_x, x, atol=1e-12)
    assert np.allclose(back_y, y, atol=1e-12)
    # the distance to the pointing is that of the field of view
    assert np.allclose(
        fov.separation(lon, lat, lon_0 * DEG, lat_0 * DEG), fov.separation(x, y, 0.0, 0.0), atol=1e-12
    )


def test_displaced_by_a_position_angle():
    """From the equator: 90 deg of position angle is east; a step over the pole comes down on the other side."""
    lon, lat = fov.displaced(
        np.array([350.0, 0.0, 30.0]) * DEG,
        np.array([0.0, 0.0, 80.0]) * DEG,
        20 * DEG,
        np.array([90, 0, 0]) * DEG,
    )
    assert np.allclose(lon / DEG, [10, 0, 210])
    assert np.allclose(lat / DEG, [0, 20, 80])


def test_galactic_centre_in_icrs():
    lon, lat = fov.icrs_lonlat("galactic", 0.0, 0.0, "frame")
    assert lon / DEG == pytest.approx(266.40499, abs=1e-4)
    assert lat / DEG == pytest.approx(-28.93617, abs=1e-4)
    assert fov.icrs_lonlat("icrs", 0.1, 0.2, "frame") == (0.1, 0.2)
    with pytest.raises(InputError, match=r"frame: unknown frame 'fk5': .*choices: galactic, icrs"):
        fov.icrs_lonlat("fk5", 0.0, 0.0, "frame")
