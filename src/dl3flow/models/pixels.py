"""A spatial model on pixels: the share of a source's flux in each pixel of a window."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.resolve import ModelFunction

# a model so small that this does not resolve it is a point but for rounding: its centroid and sum are exact
_MAX_OVERSAMPLING = 10


@dataclass(frozen=True, eq=False)
class PixelGrid:
    """Points at which a model is evaluated in a window of pixels; made once for many evaluations.

    Attributes
    ----------
    geom : SkyGeometry
        Window that holds the whole model.
    factor : int
        Points per pixel and direction; see `oversampling`.
    frame : str
        Frame of the model.
    lon, lat : array, shape (n_lat x factor, n_lon x factor)
        Directions in that frame, rad.
    """

    geom: SkyGeometry
    factor: int
    frame: str
    lon: np.ndarray
    lat: np.ndarray

    @classmethod
    def create(cls, geom: SkyGeometry, factor: int, frame: str) -> "PixelGrid":
        """Grid of ``factor`` x ``factor`` points in each pixel of ``geom``."""
        steps = (np.arange(factor) + 0.5) / factor - 0.5
        y = (np.arange(geom.shape[0])[:, None] + steps).reshape(-1, 1)
        x = (np.arange(geom.shape[1])[:, None] + steps).reshape(1, -1)
        lon, lat = geom.wcs.all_pix2world(*np.broadcast_arrays(x, y), 0)
        lon, lat = np.radians(lon), np.radians(lat)
        if frame != geom.frame:
            sky = SkyCoord(lon * u.rad, lat * u.rad, frame=geom.frame).transform_to(frame).spherical
            lon, lat = sky.lon.rad, sky.lat.rad
        return cls(geom, factor, frame, lon, lat)


def pixel_fractions(model: ModelFunction, values: np.ndarray, grid: PixelGrid) -> np.ndarray:
    """Share of the flux in each pixel of a window.

    A point is shared among the four nearest pixels so that its centroid is exact. Another model is averaged over the
    points of each pixel, times the pixel's solid angle, scaled to a sum of one and moved until its centroid is exact
    too: this changes only models smaller than a pixel, which so keep their position within the pixel.

    Parameters
    ----------
    model : ModelFunction
        Spatial.
    values : array, shape (n_par,)
        Parameters in rad, in the frame of the grid.
    grid : PixelGrid

    Returns
    -------
    fractions : array, shape (n_lat, n_lon)
    """
    x, y = grid.geom.pixel_at(values[0], values[1], grid.frame)
    if model.companions.get("is_point"):
        return _share_bilinear(grid.geom, x, y)
    density = model.function(grid.lon, grid.lat, *values)
    density = np.where(np.isfinite(density), density, 0.0)
    (ny, nx), factor = grid.geom.shape, grid.factor
    fractions = density.reshape(ny, factor, nx, factor).mean(axis=(1, 3)) * grid.geom.solid_angle.value
    total = fractions.sum()
    return _centred(fractions / total, x, y) if total > 0 else _share_bilinear(grid.geom, x, y)


def _centred(fractions: np.ndarray, x: float, y: float) -> np.ndarray:
    """Fractions whose centroid is the pixel (x, y): moved by at most a pixel with Lagrange's four-point formula."""
    for axis, center in ((0, y), (1, x)):
        profile = fractions.sum(axis=1 - axis)
        shift = center - float(profile @ np.arange(len(profile)))
        if 0 < abs(shift) < 1:
            direction, d = int(np.sign(shift)), abs(shift)
            weights = {
                -1: -d * (d - 1) * (d - 2) / 6,
                0: (d + 1) * (d - 1) * (d - 2) / 2,
                1: -(d + 1) * d * (d - 2) / 2,
                2: (d + 1) * d * (d - 1) / 6,
            }
            fractions = sum(
                (w * np.roll(fractions, n * direction, axis=axis) for n, w in weights.items()), np.zeros(())
            )
    return fractions


def _share_bilinear(geom: SkyGeometry, x: float, y: float) -> np.ndarray:
    fractions = np.zeros(geom.shape)
    i, j = int(np.floor(x)), int(np.floor(y))
    dx, dy = x - i, y - j
    for row, by_row in ((j, 1 - dy), (j + 1, dy)):
        for column, by_column in ((i, 1 - dx), (i + 1, dx)):
            if 0 <= row < geom.shape[0] and 0 <= column < geom.shape[1]:
                fractions[row, column] = by_row * by_column
    return fractions


def oversampling(model: ModelFunction, values: np.ndarray, geom: SkyGeometry) -> int:
    """Points per pixel and direction that resolve the model at these parameters."""
    if "resolution" not in model.companions:
        return 1
    resolution = max(model.companions["resolution"](*values), 1e-12)
    return int(np.clip(np.ceil(np.radians(geom.binsz) / resolution), 1, _MAX_OVERSAMPLING))
