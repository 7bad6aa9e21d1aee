"""Spatial models: where a source's flux comes from, per solid angle, and its share in each pixel.

Functions take directions and parameters in rad and return sr-1; the integral over the sphere is one. ``lon_0`` and
``lat_0`` are in the frame of the model. A companion ``radius`` gives the distance beyond which the model is taken as
zero, ``resolution`` the angle below which it is smooth (pixels are divided until they are finer), ``size`` the name of
the parameter that is its extension.
"""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.geometry import fov
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.registry import Plugin, Registry
from dl3flow.units import Angle, Number

SPATIAL_MODELS = Registry("spatial model")
# a model so small that this does not resolve it is a point but for rounding: its centroid and sum are exact
_MAX_OVERSAMPLING = 10
_ONE_DEGREE = float(np.radians(1.0))


def _point_radius(lon_0: float, lat_0: float) -> float:
    return 0.0


@SPATIAL_MODELS.register("PointSpatialModel", "point", radius=_point_radius, is_point=True)
def point(lon: np.ndarray, lat: np.ndarray, lon_0: Angle = 0.0, lat_0: Angle = 0.0) -> np.ndarray:
    """All flux from one direction; its density is infinite there and zero elsewhere."""
    return np.where((lon == lon_0) & (lat == lat_0), np.inf, 0.0)


def _gauss_radius(lon_0: float, lat_0: float, sigma: float, e: float, phi: float) -> float:
    # exp(-18): the edge of the window must not show in differences of the likelihood
    return 6 * sigma


def _gauss_resolution(lon_0: float, lat_0: float, sigma: float, e: float, phi: float) -> float:
    return sigma * float(np.sqrt(1 - e**2)) / 3


@SPATIAL_MODELS.register(
    "GaussianSpatialModel", "gauss", radius=_gauss_radius, resolution=_gauss_resolution, size="sigma"
)
def gauss(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: Angle = 0.0,
    lat_0: Angle = 0.0,
    sigma: Angle = _ONE_DEGREE,
    e: Number = 0.0,
    phi: Angle = 0.0,
) -> np.ndarray:
    """Gaussian on the sphere of major width ``sigma``, eccentricity ``e``, major axis at ``phi`` east of north.

    exp(-(1 - cos s) / 2a) / (4 pi a (1 - exp(-1/a))) with a = 1 - cos sigma, s the distance to the centre
    (algorithms: the von Mises-Fisher distribution); an ellipse takes the width in the direction of each pixel.
    """
    distance = fov.separation(lon, lat, lon_0, lat_0)
    # 2 sin^2(x/2) is 1 - cos x without cancellation at small angles
    versine = 2 * np.sin(distance / 2) ** 2
    if e == 0:
        a = 2 * np.sin(sigma / 2) ** 2
        return np.asarray(np.exp(-0.5 * versine / a) / (-4 * np.pi * a * np.expm1(-1 / a)))
    minor = sigma * np.sqrt(1 - e**2)
    angle = phi - _position_angle(lon, lat, lon_0, lat_0)
    width = sigma * minor / np.hypot(sigma * np.sin(angle), minor * np.cos(angle))
    return np.asarray(np.exp(-0.5 * versine / (2 * np.sin(width / 2) ** 2)) / (2 * np.pi * sigma * minor))


def _position_angle(lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float) -> np.ndarray:
    d_lon = lon - lon_0
    return np.asarray(
        np.arctan2(
            np.sin(d_lon) * np.cos(lat),
            np.cos(lat_0) * np.sin(lat) - np.sin(lat_0) * np.cos(lat) * np.cos(d_lon),
        )
    )


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


def pixel_fractions(model: Plugin, values: np.ndarray, grid: PixelGrid) -> np.ndarray:
    """Share of the flux in each pixel of a window.

    A point is shared among the four nearest pixels so that its centroid is exact. Another model is averaged over the
    points of each pixel, times the pixel's solid angle, scaled to a sum of one and moved until its centroid is exact
    too: this changes only models smaller than a pixel, which so keep their position within the pixel.

    Parameters
    ----------
    model : Plugin
        Of `SPATIAL_MODELS`.
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


def oversampling(model: Plugin, values: np.ndarray, geom: SkyGeometry) -> int:
    """Points per pixel and direction that resolve the model at these parameters."""
    if "resolution" not in model.companions:
        return 1
    resolution = max(model.companions["resolution"](*values), 1e-12)
    return int(np.clip(np.ceil(np.radians(geom.binsz) / resolution), 1, _MAX_OVERSAMPLING))
