"""Spatial models: where a source's flux comes from, per solid angle.

Functions take directions and parameters in rad and return sr-1; the integral over the sphere is one. ``lon_0`` and
``lat_0`` are in the frame of the model. A companion ``radius`` gives the distance beyond which the model is taken as
zero, ``resolution`` the angle below which it is smooth (pixels are divided until they are finer), ``size`` the name of
the parameter that is its extension.
"""

import numpy as np

from dl3flow.geometry import fov
from dl3flow.registry import Registry
from dl3flow.units import Angle, Number

SPATIAL_MODELS = Registry("spatial model")
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
