"""Spatial models with an edge: the disk and the shell; and the constant, which has none.

An edge is sharper than pixels, so that a pixel's share, taken at a few points, would jump while the edge moves. For pixels
each point therefore stands for its cell: the edge is spread by the width of that cell, and the share is smooth.
"""

from typing import Any

import numpy as np
import scipy

from dl3flow.models.around import Around, Ellipse, position_rows
from dl3flow.models.spatial_registry import SPATIAL_MODELS, Expansion
from dl3flow.units import Angle, InverseSolidAngle, Number

_ONE_DEGREE = float(np.radians(1.0))
_POLES = {"lat_0": (-90.0, 90.0)}
_LEAST = 1e-12
_THINNEST = 1e-3
# argument of erfc at one edge's width from the radius; the number is that of gammapy's docs
_EDGE = 2.326174307353347
# edge widths beyond the radius at which exp(-18) of the disk is left
_BEYOND = 1.8
_ANGLES = np.pi * (np.arange(256) + 0.5) / 256


def _disk_norm(r_0: float, e: float) -> tuple[float, float, float]:
    """One over the solid angle of an ellipse on the sphere, and the derivatives of its logarithm by ``r_0`` and ``e``.

    The solid angle is the integral over the position angle of 1 - cos(edge), with sin^2(edge) =
    sin^2(a) sin^2(b) / (sin^2(b) cos^2 + sin^2(a) sin^2); periodic, so that equal steps converge exponentially.
    """
    k = np.sqrt(1 - e**2)
    minor = r_0 * k
    s_a, s_b = np.sin(r_0) ** 2, np.sin(minor) ** 2
    cos2, sin2 = np.cos(_ANGLES) ** 2, np.sin(_ANGLES) ** 2
    low = s_b * cos2 + s_a * sin2
    q = s_a * s_b / low
    root = np.sqrt(1 - q)
    area = 2 * np.pi * float(np.mean(q / (1 + root)))
    # d(1 - sqrt(1 - q)) = dq / 2 sqrt(1 - q)
    by_a = np.sin(2 * r_0) * s_b**2 * cos2 / low**2 / (2 * root)
    by_b = np.sin(2 * minor) * s_a**2 * sin2 / low**2 / (2 * root)
    mean_a, mean_b = 2 * np.pi * float(np.mean(by_a)), 2 * np.pi * float(np.mean(by_b))
    return 1 / area, -(mean_a + k * mean_b) / area, r_0 * e / k * mean_b / area


def _expand_disk(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: float,
    lat_0: float,
    r_0: float,
    e: float,
    phi: float,
    edge_width: float,
    *,
    is_free: np.ndarray,
    cell: float = 0.0,
    order: int = 0,
) -> Expansion:
    r_0 = max(abs(r_0), _LEAST)
    at = Around.create(lon, lat, lon_0, lat_0)
    ellipse = Ellipse.create(at, r_0, e, phi)
    norm, norm_by_r, norm_by_e = _disk_norm(r_0, e)
    edge = ellipse.width * edge_width
    # erfc(_EDGE x / edge) is a Gaussian's of variance edge^2 / 2 _EDGE^2; a square cell adds cell^2 / 12 in every direction
    spread = np.sqrt(edge**2 + _EDGE**2 * cell**2 / 6 + _LEAST**2)
    beyond = at.distance - ellipse.width
    t = _EDGE * beyond / spread
    f = np.asarray(0.5 * norm * scipy.special.erfc(t))
    if order == 0:
        return Expansion(f)
    by_t = -norm * _EDGE / np.sqrt(np.pi) * np.exp(-np.minimum(t**2, 700.0))
    by_spread = by_t * beyond * edge / spread**3
    by_width = -by_t / spread - by_spread * edge_width
    every = [
        *position_rows(at, by_t / spread, ellipse, by_width),
        by_width * ellipse.width / r_0 + norm_by_r * f,
        by_width * ellipse.by_e + norm_by_e * f,
        -by_width * ellipse.by_angle,
        -by_spread * ellipse.width,
    ]
    return Expansion(f, _stacked(every, is_free, f))


def _stacked(every: list[np.ndarray], is_free: np.ndarray, like: np.ndarray) -> np.ndarray:
    rows = [every[k] + np.zeros_like(like) for k in np.flatnonzero(is_free)]
    return np.array(rows) if rows else np.zeros((0, *like.shape))


def _gradient_of(expand: Any, n_parameters: int) -> Any:
    """Companion ``gradient`` from the companion ``expand``."""

    def gradient(lon: np.ndarray, lat: np.ndarray, *values: float) -> np.ndarray:
        found: np.ndarray = expand(
            lon, lat, *values, is_free=np.ones(n_parameters, dtype=bool), order=1
        ).gradient
        return found

    return gradient


def _disk_radius(lon_0: float, lat_0: float, r_0: float, e: float, phi: float, edge_width: float) -> float:
    return r_0 * (1 + _BEYOND * edge_width)


def _disk_resolution(
    lon_0: float, lat_0: float, r_0: float, e: float, phi: float, edge_width: float
) -> float:
    return float(r_0 * np.sqrt(1 - e**2)) / 20


@SPATIAL_MODELS.register(
    "DiskSpatialModel",
    "disk",
    radius=_disk_radius,
    resolution=_disk_resolution,
    size="r_0",
    gradient=_gradient_of(_expand_disk, 6),
    expand=_expand_disk,
    frozen=("e", "phi", "edge_width"),
    limits={
        **_POLES,
        "r_0": (0.0, np.nan),
        "e": (0.0, 1.0),
        "phi": (-180.0, 180.0),
        "edge_width": (0.0, 1.0),
    },
)
def disk(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: Angle = 0.0,
    lat_0: Angle = 0.0,
    r_0: Angle = _ONE_DEGREE,
    e: Number = 0.0,
    phi: Angle = 0.0,
    edge_width: Number = 0.01,
) -> np.ndarray:
    """Constant within an ellipse of semi-major axis ``r_0``, eccentricity ``e``, major axis at ``phi`` east of north.

    The edge is an error function that falls from 95 to 5 % within ``edge_width`` times the radius (gammapy docs, "Disk
    spatial model"); the norm is that of a sharp edge.
    """
    values = (lon_0, lat_0, r_0, e, phi, edge_width)
    return _expand_disk(lon, lat, *values, is_free=np.zeros(6, dtype=bool)).density


def _ball(distance: np.ndarray, radius: float, cell: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth of a ball along the line of sight, sqrt(R^2 - s^2), and its derivatives by ``s`` and ``R``.

    With a ``cell`` it is averaged twice along the radius over cell / sqrt(2), which has the variance of the cell: a second
    difference of the second antiderivative, in closed form.
    """
    if cell == 0:
        depth = np.sqrt(np.maximum(radius**2 - distance**2, 0.0))
        inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
        return depth, -distance * inverse, radius * inverse
    step = cell / np.sqrt(2)
    parts = [_antiderivatives(distance + n * step, radius) for n in (-1, 0, 1)]
    depth, by_distance, by_radius = ((a - 2 * b + c) / step**2 for a, b, c in zip(*parts, strict=True))
    return np.maximum(depth, 0.0), by_distance, by_radius


def _antiderivatives(s: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Second antiderivative G of the depth by ``s``, its first derivative, and its derivative by the radius."""
    inside = np.clip(s, -radius, radius)
    depth, angle = np.sqrt(radius**2 - inside**2), np.arcsin(inside / radius)
    first = 0.5 * (inside * depth + radius**2 * angle)
    second = 0.5 * (radius**2 * (inside * angle + depth) - depth**3 / 3)
    outside = s - inside
    return second + first * outside, first, radius * (inside * angle + depth + angle * outside)


def _expand_shell(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: float,
    lat_0: float,
    radius: float,
    width: float,
    *,
    is_free: np.ndarray,
    cell: float = 0.0,
    order: int = 0,
) -> Expansion:
    density, rows = _shell_rows(lon, lat, lon_0, lat_0, radius + width, radius, cell)
    if order == 0:
        return Expansion(density)
    by_lon, by_lat, by_outer, by_inner = rows
    return Expansion(density, _stacked([by_lon, by_lat, by_outer + by_inner, by_outer], is_free, density))


def _shell_rows(
    lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float, outer: float, inner: float, cell: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Density of a shell seen from outside, and its derivatives by position, outer and inner radius."""
    outer = max(outer, _LEAST)
    # thinner than this a shell is a ring, whose width makes no difference
    is_ring = inner > (1 - _THINNEST) * outer
    inner = (1 - _THINNEST) * outer if is_ring else max(inner, 0.0)
    at = Around.create(lon, lat, lon_0, lat_0)
    whole = _ball(at.distance, outer, cell)
    hole = _ball(at.distance, inner, cell) if inner > 0 else (np.zeros_like(at.distance),) * 3
    volume = (outer - inner) * (outer**2 + outer * inner + inner**2)
    norm = 3 / (2 * np.pi * volume)
    density = norm * (whole[0] - hole[0])
    by_outer = norm * whole[2] - density * 3 * outer**2 / volume
    by_inner = -norm * hole[2] + density * 3 * inner**2 / volume
    if is_ring:
        by_outer, by_inner = by_outer + (1 - _THINNEST) * by_inner, np.zeros_like(by_inner)
    return density, [*position_rows(at, norm * (whole[1] - hole[1])), by_outer, by_inner]


def _shell_radius(lon_0: float, lat_0: float, radius: float, width: float) -> float:
    return radius + width


def _shell_resolution(lon_0: float, lat_0: float, radius: float, width: float) -> float:
    return min(width / 3, (radius + width) / 20)


@SPATIAL_MODELS.register(
    "ShellSpatialModel",
    "shell",
    radius=_shell_radius,
    resolution=_shell_resolution,
    size="radius",
    gradient=_gradient_of(_expand_shell, 4),
    expand=_expand_shell,
    frozen=(),
    limits=_POLES,
)
def shell(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: Angle = 0.0,
    lat_0: Angle = 0.0,
    radius: Angle = _ONE_DEGREE,
    width: Angle = 0.2 * _ONE_DEGREE,
) -> np.ndarray:
    """Projection of a shell that shines evenly between the inner ``radius`` and ``radius`` + ``width``.

    3 (sqrt(R^2 - s^2) - sqrt(r^2 - s^2)) / (2 pi (R^3 - r^3)) (gammapy docs, "Shell spatial model"); the norm is that of a
    flat sky.
    """
    values = (lon_0, lat_0, radius, width)
    return _expand_shell(lon, lat, *values, is_free=np.zeros(4, dtype=bool)).density


def _expand_shell2(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: float,
    lat_0: float,
    r_0: float,
    eta: float,
    *,
    is_free: np.ndarray,
    cell: float = 0.0,
    order: int = 0,
) -> Expansion:
    density, rows = _shell_rows(lon, lat, lon_0, lat_0, r_0, (1 - eta) * r_0, cell)
    if order == 0:
        return Expansion(density)
    by_lon, by_lat, by_outer, by_inner = rows
    every = [by_lon, by_lat, by_outer + (1 - eta) * by_inner, -r_0 * by_inner]
    return Expansion(density, _stacked(every, is_free, density))


def _shell2_radius(lon_0: float, lat_0: float, r_0: float, eta: float) -> float:
    return r_0


def _shell2_resolution(lon_0: float, lat_0: float, r_0: float, eta: float) -> float:
    return r_0 * min(eta / 3, 1 / 20)


@SPATIAL_MODELS.register(
    "Shell2SpatialModel",
    "shell2",
    radius=_shell2_radius,
    resolution=_shell2_resolution,
    size="r_0",
    gradient=_gradient_of(_expand_shell2, 4),
    expand=_expand_shell2,
    frozen=(),
    limits={**_POLES, "eta": (0.02, 1.0)},
)
def shell2(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: Angle = 0.0,
    lat_0: Angle = 0.0,
    r_0: Angle = _ONE_DEGREE,
    eta: Number = 0.2,
) -> np.ndarray:
    """A `shell` by its outer radius ``r_0`` and its width ``eta`` as a part of it; a thin one is a ring on the sky."""
    return _expand_shell2(lon, lat, lon_0, lat_0, r_0, eta, is_free=np.zeros(4, dtype=bool)).density


def _constant_gradient(lon: np.ndarray, lat: np.ndarray, value: float) -> np.ndarray:
    return np.ones((1, *np.broadcast_shapes(np.shape(lon), np.shape(lat))))


@SPATIAL_MODELS.register(
    "ConstantSpatialModel",
    "const",
    radius=lambda value: float(np.pi),
    resolution=lambda value: float(np.pi),
    center=lambda: None,
    is_everywhere=True,
    is_absolute=True,
    gradient=_constant_gradient,
    frozen=("value",),
    limits={},
)
def constant(lon: np.ndarray, lat: np.ndarray, value: InverseSolidAngle = 1.0) -> np.ndarray:
    """The same ``value`` everywhere: not normalised, so that a spectrum's amplitude is per solid angle."""
    return value + np.zeros(np.broadcast_shapes(np.shape(lon), np.shape(lat)))
