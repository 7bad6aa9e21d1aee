"""Masks and images on sky pixels: drawn, grown, shrunk, moved between geometries. True is use, unless said otherwise."""

import math

import astropy.units as u
import numpy as np
import scipy
from astropy.coordinates import SkyCoord

from dl3flow.geometry.sky import SkyGeometry

# subdivisions of a pixel's side whose counts are shared out to other pixels
_FEWEST, _MOST = 3, 32


def boundary_mask(geom: SkyGeometry, width: u.Quantity) -> np.ndarray:
    """True for the pixels whose centre is at least ``width`` from the border of the map; shape (n_lat, n_lon)."""
    far = (
        np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) * geom.binsz >= width.to_value(u.deg) - 1e-9
        for n in geom.shape
    )
    rows, columns = far
    return np.asarray(rows[:, None] & columns[None, :])


def dilate(mask: np.ndarray, radius: u.Quantity, geom: SkyGeometry) -> np.ndarray:
    """True for the pixels whose centre lies within ``radius`` (in the plane of the pixels) of one that is True.

    Parameters
    ----------
    mask : bool array, shape (..., n_lat, n_lon)
    radius : Quantity
    geom : SkyGeometry
    """
    reach = radius.to_value(u.deg) / geom.binsz + 1e-9
    images = mask.reshape(-1, *mask.shape[-2:])
    grown = [
        scipy.ndimage.distance_transform_edt(~image) <= reach if image.any() else image for image in images
    ]
    return np.array(grown, dtype=bool).reshape(mask.shape)


def erode(mask: np.ndarray, radius: u.Quantity, geom: SkyGeometry) -> np.ndarray:
    """True for the pixels that have none that is False within ``radius``; what lies off the map is unknown, not False."""
    return ~dilate(~mask, radius, geom)


def significance_mask(sqrt_ts: np.ndarray, high: float, low: float) -> np.ndarray:
    """False where a map is significant, for an exclusion: around every pixel above ``high``, as far as it is above ``low``.

    Pixels are neighbours by their sides or corners. NaN is not significant.

    Parameters
    ----------
    sqrt_ts : array, shape (n_lat, n_lon)
    high, low : float
    """
    islands, _ = scipy.ndimage.label(np.nan_to_num(sqrt_ts, nan=-np.inf) > low, np.ones((3, 3)))
    peaks = np.unique(islands[np.nan_to_num(sqrt_ts, nan=-np.inf) > high])
    return ~np.isin(islands, peaks[peaks > 0])


def pixels_on(values: np.ndarray, geom: SkyGeometry, part: SkyGeometry, fill: float) -> np.ndarray:
    """Values of ``geom`` on another geometry of the same pixel grid, ``fill`` where it reaches beyond.

    Parameters
    ----------
    values : array, shape (..., n_lat, n_lon)
    geom, part : SkyGeometry
    fill : float

    Returns
    -------
    placed : array of the same type
        A view of ``values`` where the part lies within.

    Raises
    ------
    InputError
        If the two are not on one grid.
    """
    here, there = part.overlap(geom)
    inner = values[..., *there]
    if inner.shape[-2:] == part.shape:
        return np.asarray(inner)
    placed = np.full((*values.shape[:-2], *part.shape), fill, dtype=values.dtype)
    placed[..., *here] = inner
    return placed


def interpolate_map(
    values: np.ndarray, geom: SkyGeometry, to: SkyGeometry, *, preserve_counts: bool = False
) -> np.ndarray:
    """Values on other pixels, of any size, projection and frame.

    Parameters
    ----------
    values : array, shape (..., n_lat, n_lon)
        On ``geom``.
    geom, to : SkyGeometry
    preserve_counts : bool
        False: the value between the pixel centres, by bilinear interpolation, for quantities such as a flux. True: each
        pixel's value is spread over its area and collected by the pixels of ``to``, for counts, whose sum is kept.

    Returns
    -------
    moved : array, shape (..., to.n_lat, to.n_lon)
        Off the map of ``geom``: NaN, or with ``preserve_counts`` 0.
    """
    images = values.reshape(-1, *geom.shape)
    moved = _collected(images, geom, to) if preserve_counts else _interpolated(images, geom, to)
    return moved.reshape(*values.shape[:-2], *to.shape)


def _interpolated(images: np.ndarray, geom: SkyGeometry, to: SkyGeometry) -> np.ndarray:
    lon, lat = to.lonlat
    x, y = geom.pixel(SkyCoord(lon * u.rad, lat * u.rad, frame=to.frame))
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x <= geom.shape[1] - 0.5) & (y >= -0.5) & (y <= geom.shape[0] - 0.5)
    at = np.where(inside, np.array([y, x]), 0.0)
    # beyond the outermost centres, but on the map: the value of the border
    found = [
        scipy.ndimage.map_coordinates(image.astype(float), at, order=1, mode="nearest") for image in images
    ]
    return np.where(inside, np.array(found), np.nan)


def _collected(images: np.ndarray, geom: SkyGeometry, to: SkyGeometry) -> np.ndarray:
    # so fine that every pixel of the new geometry holds some; odd, so that the centre is among them
    n = min(max(math.ceil(2 * geom.binsz / to.binsz), _FEWEST), _MOST) | 1
    moved = np.zeros((len(images), to.shape[0] * to.shape[1]))
    rows, columns = np.indices(geom.shape, dtype=float)
    for dy in (np.arange(n) + 0.5) / n - 0.5:
        for dx in (np.arange(n) + 0.5) / n - 0.5:
            lon, lat = geom.wcs.all_pix2world(columns + dx, rows + dy, 0)
            j, i, inside = to.index(SkyCoord(lon * u.deg, lat * u.deg, frame=geom.frame))
            target = (j * to.shape[1] + i)[inside]
            for total, image in zip(moved, images, strict=True):
                total += np.bincount(target, image[inside] / n**2, len(total))
    return moved
