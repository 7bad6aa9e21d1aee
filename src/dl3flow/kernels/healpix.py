"""Bilinear interpolation on HEALPix pixels in RING order."""

import numpy as np


def ring_layout(nside: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings of pixels from north to south (Gorski et al. 2005, ApJ 622, 759, equations 4 to 9).

    Returns
    -------
    z : array, shape (4 nside - 1,)
        Cosine of the colatitude.
    n_pixels : int array
    shift : array
        Longitude of the first pixel in units of the pixel spacing, 0.5 or 0.
    """
    ring = np.arange(1, 4 * nside)
    from_pole = np.minimum(np.minimum(ring, nside), 4 * nside - ring)
    cap = 1 - from_pole**2 / (3 * nside**2)
    z = np.where(ring < nside, cap, np.where(ring > 3 * nside, -cap, 4 / 3 - 2 * ring / (3 * nside)))
    is_cap = (ring < nside) | (ring > 3 * nside)
    return z, 4 * from_pole, np.where(is_cap | ((ring - nside) % 2 == 0), 0.5, 0.0)


def ring_weights(nside: int, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels around a direction and their weights: linear in colatitude between rings, in longitude along each.

    Between a pole and its ring the mean of the four pixels there is the value at the pole.

    Parameters
    ----------
    nside : int
    lon, lat : array, shape (n,)
        Rad.

    Returns
    -------
    pixels : int array, shape (n, 8)
        A pixel can occur twice.
    weights : array, shape (n, 8)
        Sum 1.
    """
    z, count, shift = ring_layout(nside)
    theta = np.arccos(z)
    first = np.concatenate([[0], np.cumsum(count)])[:-1]
    colatitude = np.pi / 2 - np.asarray(lat, dtype=float)
    above = np.searchsorted(theta, colatitude, side="right") - 1
    upper, lower = np.maximum(above, 0), np.minimum(above + 1, len(z) - 1)
    # a pole counts as a ring at colatitude 0 or pi
    north = np.where(above < 0, 0.0, theta[upper])
    south = np.where(above + 1 >= len(z), np.pi, theta[lower])
    fraction = (colatitude - north) / (south - north)
    pixels, weights = [], []
    for ring, share, is_pole in (
        (upper, 1 - fraction, above < 0),
        (lower, fraction, above + 1 >= len(z)),
    ):
        x = np.mod(lon, 2 * np.pi) / (2 * np.pi) * count[ring] - shift[ring]
        left = np.floor(x)
        f = x - left
        for step, weight in enumerate((1 - f, f, np.zeros_like(f), np.zeros_like(f))):
            pixels.append(first[ring] + np.mod(left.astype(int) + step, count[ring]))
            weights.append(share * np.where(is_pole, 0.25, weight))
    return np.stack(pixels, axis=-1), np.stack(weights, axis=-1)
