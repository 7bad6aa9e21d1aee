import numpy as np
import pytest

from dl3flow.kernels.healpix import ring_layout, ring_weights


def centers(nside):
    z, count, shift = ring_layout(nside)
    lon = np.concatenate([2 * np.pi * (np.arange(n) + s) / n for n, s in zip(count, shift, strict=True)])
    return lon, np.arcsin(np.repeat(z, count))


def test_layout_of_the_base_pixels():
    """12 pixels: four at sin(lat) = 2/3 and -2/3 between the quadrants, four on the equator at their borders."""
    lon, lat = centers(1)
    assert np.sin(lat) == pytest.approx([2 / 3] * 4 + [0] * 4 + [-2 / 3] * 4)
    assert np.degrees(lon) == pytest.approx([45, 135, 225, 315, 0, 90, 180, 270, 45, 135, 225, 315])


@pytest.mark.parametrize("nside", [1, 2, 4, 32])
def test_pixels_share_the_sky_evenly(nside):
    """As many pixels as 12 nside**2, whose directions sum to zero and have the second moment of a uniform sphere."""
    lon, lat = centers(nside)
    assert len(lon) == 12 * nside**2
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    assert np.abs([x.sum(), y.sum(), z.sum()]).max() < 1e-9
    if nside == 32:
        assert (z**2).mean() == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize("nside", [1, 2, 8])
def test_a_centre_has_its_own_pixel(nside):
    lon, lat = centers(nside)
    pixels, weights = ring_weights(nside, lon, lat)
    own = (weights * (pixels == np.arange(len(lon))[:, None])).sum(axis=1)
    assert own == pytest.approx(np.ones(len(lon)))


def test_weights_are_a_mean():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-10, 10, 1000), np.arcsin(rng.uniform(-1, 1, 1000))
    lon, lat = np.append(lon, [0.3, 0.3]), np.append(lat, [np.pi / 2, -np.pi / 2])
    pixels, weights = ring_weights(8, lon, lat)
    assert weights.sum(axis=1) == pytest.approx(np.ones(1002))
    assert weights.min() > -1e-12
    assert (pixels.min(), pixels.max()) == (0, 767)
    # each pole is the mean of the four pixels around it
    assert sorted(pixels[1000][weights[1000] > 0]) == [0, 1, 2, 3]
    assert sorted(pixels[1001][weights[1001] > 0]) == [764, 765, 766, 767]


def test_smooth_field():
    """sin(lat) is found everywhere to the square of the pixel size (1.8 deg: 1e-3)."""
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(0, 2 * np.pi, 2000), np.arcsin(rng.uniform(-1, 1, 2000))
    pixels, weights = ring_weights(32, lon, lat)
    assert (np.sin(centers(32)[1])[pixels] * weights).sum(axis=1) == pytest.approx(np.sin(lat), abs=1e-3)
