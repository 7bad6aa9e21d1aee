"""Spatial models that are bright in the middle: the point, the Gaussian, its generalisation, and one that shrinks with energy."""

from typing import Any

import numpy as np
import scipy

from dl3flow.models.around import Around, Ellipse, position_rows
from dl3flow.models.spatial_registry import SPATIAL_MODELS, Expansion
from dl3flow.units import Angle, Energy, Number

_ONE_DEGREE = float(np.radians(1.0))
_POLES = {"lat_0": (-90.0, 90.0)}
_TURN = {"e": (0.0, 1.0), "phi": (-180.0, 180.0)}
# a width of zero is a point, not a division by zero
_LEAST = 1e-12
# least width that points resolve, and where it begins to matter, as parts of their distance
_RESOLVED, _BLENDED = 0.6, 0.8
# -ln of the density, relative to the centre, at the edge of a window: it must not show in differences of the likelihood
_EDGE = 18.0


def _point_radius(lon_0: float, lat_0: float) -> float:
    return 0.0


@SPATIAL_MODELS.register(
    "PointSpatialModel", "point", radius=_point_radius, is_point=True, frozen=(), limits=_POLES
)
def point(lon: np.ndarray, lat: np.ndarray, lon_0: Angle = 0.0, lat_0: Angle = 0.0) -> np.ndarray:
    """All flux from one direction; its density is infinite there and zero elsewhere."""
    return np.where((lon == lon_0) & (lat == lat_0), np.inf, 0.0)


def _round_gauss(
    lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float, sigma: Any, order: int
) -> tuple[np.ndarray, list[np.ndarray], dict[tuple[int, int], np.ndarray]]:
    """Density of a Gaussian on the sphere, its derivatives by lon_0, lat_0 and sigma, and its second ones by pairs.

    With u = 1 - cos(distance) and a = 1 - cos(sigma), each a sum of squared sines without cancellation:
    exp(-u / 2a) / (4 pi a (1 - exp(-1/a))). ``sigma`` may be an array that broadcasts with the directions.
    """
    sigma = np.maximum(np.abs(sigma), _LEAST)
    cos_0, sin_0, cos_1 = np.cos(lat_0), np.sin(lat_0), np.cos(lat)
    d_lon, d_lat = np.asarray(lon - lon_0), np.asarray(lat - lat_0)
    versine_lon, versine_lat = 2 * np.sin(0.5 * d_lon) ** 2, 2 * np.sin(0.5 * d_lat) ** 2
    level = cos_1 * cos_0
    u = versine_lat + level * versine_lon
    a = 2 * np.sin(0.5 * sigma) ** 2
    f = np.asarray(np.exp(u * (-0.5 / a)) * (1 / (-4 * np.pi * a * np.expm1(-1 / a))))
    if order == 0:
        return f, [], {}
    sin_lon = np.sin(d_lon)
    u_lon, u_lat = -level * sin_lon, -(np.sin(d_lat) + cos_1 * sin_0 * versine_lon)
    # what is left of the norm's derivative by a where the Gaussian covers much of the sphere
    rest = np.exp(-1 / a) / (-(a**2) * np.expm1(-1 / a))
    a_1, a_2 = np.sin(sigma), np.cos(sigma)
    slope = u * (0.5 / a**2) + (rest - 1 / a)
    h, g = a_1 * slope, f * (-0.5 / a)
    first = [g * u_lon, g * u_lat, f * h]
    if order == 1:
        return f, first, {}
    half = -0.5 / a
    mixed = g * (h - a_1 / a)
    return (
        f,
        first,
        {
            (0, 0): g * (half * u_lon**2 + level * (1 - versine_lon)),
            (0, 1): g * (half * u_lon * u_lat + cos_1 * sin_0 * sin_lon),
            (1, 1): g * (half * u_lat**2 + 1 - versine_lat - level * versine_lon),
            (0, 2): mixed * u_lon,
            (1, 2): mixed * u_lat,
            (2, 2): f
            * (h**2 + a_2 * slope + a_1**2 * (1 / a**2 - u / a**3 + rest * (1 / a**2 - 2 / a + rest))),
        },
    )


def _resolved_width(sigma: Any, cell: float) -> tuple[Any, Any, Any]:
    """Width of at least what points at this distance resolve, and its first and second derivative by ``sigma``.

    Narrower, a Gaussian falls between the points and jumps from one to the next. Where it is three times as wide as their
    distance, as `oversampling` has it, its square is the same to a part in 10^7.
    """
    if cell == 0:
        return sigma, 1.0, 0.0
    extra = _RESOLVED**2 * cell**2 * np.exp(-((sigma / (_BLENDED * cell)) ** 2))
    width = np.sqrt(sigma**2 + extra)
    slope = 1 - extra / (_BLENDED * cell) ** 2
    bend = extra / (_BLENDED * cell) ** 4
    return (
        width,
        sigma * slope / width,
        (slope + 2 * sigma**2 * bend) / width - (sigma * slope) ** 2 / width**3,
    )


def _sampled_gauss(
    lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float, sigma: Any, order: int, cell: float
) -> tuple[np.ndarray, list[np.ndarray], dict[tuple[int, int], np.ndarray]]:
    """`_round_gauss` of `_resolved_width`, with its derivatives by ``sigma`` itself."""
    width, slope, bend = _resolved_width(sigma, cell)
    f, first, second = _round_gauss(lon, lat, lon_0, lat_0, width, order)
    if order > 1:
        second[2, 2] = second[2, 2] * slope**2 + first[2] * bend
        second[0, 2], second[1, 2] = second[0, 2] * slope, second[1, 2] * slope
    if order > 0:
        first[2] = first[2] * slope
    return f, first, second


def _expand_gauss(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: float,
    lat_0: float,
    sigma: float,
    e: float,
    phi: float,
    *,
    is_free: np.ndarray,
    cell: float = 0.0,
    order: int = 0,
) -> Expansion:
    free = [int(k) for k in np.flatnonzero(is_free)]
    if e == 0:
        f, first, second = _sampled_gauss(lon, lat, lon_0, lat_0, sigma, order, cell)
        # by e and phi a circle does not change to first order
        rows = [first[k] if k < 3 else np.zeros_like(f) for k in free] if order else []
        is_round = order == 2 and not is_free[3:].any()
        pairs = [[second[min(k, m), max(k, m)] for m in free] for k in free] if is_round else None
        return Expansion(f, _stacked(rows, f) if order else None, np.array(pairs) if pairs else None)
    sigma = max(abs(sigma), _LEAST)
    at = Around.create(lon, lat, lon_0, lat_0)
    ellipse = Ellipse.create(at, sigma, e, phi)
    minor = np.sqrt(1 - e**2)
    u, a = 2 * np.sin(0.5 * at.distance) ** 2, 2 * np.sin(0.5 * ellipse.width) ** 2
    f = np.asarray(np.exp(-0.5 * u / a) / (2 * np.pi * sigma**2 * minor))
    if order == 0:
        return Expansion(f)
    by_width = 0.5 * f * u * np.sin(ellipse.width) / a**2
    every = [
        *position_rows(at, -0.5 * f * at.sine / a, ellipse, by_width),
        by_width * ellipse.width / sigma - 2 * f / sigma,
        by_width * ellipse.by_e + f * e / (1 - e**2),
        -by_width * ellipse.by_angle,
    ]
    return Expansion(f, _stacked([every[k] for k in free], f))


def _stacked(rows: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.array(rows) if rows else np.zeros((0, *like.shape))


def _gauss_gradient(lon: np.ndarray, lat: np.ndarray, *values: float) -> np.ndarray:
    found = _expand_gauss(lon, lat, *values, is_free=np.ones(5, dtype=bool), order=1).gradient
    assert found is not None  # asked for
    return found


def _gauss_radius(lon_0: float, lat_0: float, sigma: float, e: float, phi: float) -> float:
    return 6 * sigma


def _gauss_resolution(lon_0: float, lat_0: float, sigma: float, e: float, phi: float) -> float:
    return sigma * float(np.sqrt(1 - e**2)) / 3


@SPATIAL_MODELS.register(
    "GaussianSpatialModel",
    "gauss",
    radius=_gauss_radius,
    resolution=_gauss_resolution,
    size="sigma",
    gradient=_gauss_gradient,
    expand=_expand_gauss,
    frozen=("e", "phi"),
    limits={**_POLES, "sigma": (0.0, np.nan), **_TURN},
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
    return _expand_gauss(lon, lat, lon_0, lat_0, sigma, e, phi, is_free=np.zeros(5, dtype=bool)).density


def _expand_general(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: float,
    lat_0: float,
    r_0: float,
    eta: float,
    e: float,
    phi: float,
    *,
    is_free: np.ndarray,
    cell: float = 0.0,
    order: int = 0,
) -> Expansion:
    r_0 = max(abs(r_0), _LEAST)
    at = Around.create(lon, lat, lon_0, lat_0)
    ellipse = Ellipse.create(at, r_0, e, phi)
    norm = 1 / (2 * np.pi * np.sqrt(1 - e**2) * r_0**2 * eta * scipy.special.gamma(2 * eta))
    # the logarithm of zero times zero is zero
    log_z = np.log(np.maximum(at.distance / ellipse.width, 1e-300))
    # where this is more there is no density left
    power = np.exp(np.minimum(log_z / eta, 20.0))
    f = np.asarray(norm * np.exp(-power))
    if order == 0:
        return Expansion(f)
    steep = f * power / eta
    by_width = steep / ellipse.width
    every = [
        *position_rows(at, -steep / np.maximum(at.distance, 1e-300), ellipse, by_width),
        (steep - 2 * f) / r_0,
        steep * log_z / eta - f * (1 / eta + 2 * scipy.special.digamma(2 * eta)),
        by_width * ellipse.by_e + f * e / (1 - e**2),
        -by_width * ellipse.by_angle,
    ]
    return Expansion(f, _stacked([every[k] + np.zeros_like(f) for k in np.flatnonzero(is_free)], f))


def _general_gradient(lon: np.ndarray, lat: np.ndarray, *values: float) -> np.ndarray:
    found = _expand_general(lon, lat, *values, is_free=np.ones(6, dtype=bool), order=1).gradient
    assert found is not None  # asked for
    return found


def _general_radius(lon_0: float, lat_0: float, r_0: float, eta: float, e: float, phi: float) -> float:
    return float(r_0 * _EDGE**eta)


def _general_resolution(lon_0: float, lat_0: float, r_0: float, eta: float, e: float, phi: float) -> float:
    minor = r_0 * np.sqrt(1 - e**2)
    # a cusp in the middle at eta = 1, a steep edge where eta is small
    return float(minor * min(1 / (3 + 8 * eta), eta))


@SPATIAL_MODELS.register(
    "GeneralizedGaussianSpatialModel",
    "gauss-general",
    radius=_general_radius,
    resolution=_general_resolution,
    size="r_0",
    gradient=_general_gradient,
    expand=_expand_general,
    frozen=("e", "phi"),
    limits={**_POLES, "eta": (0.01, 1.0), **_TURN},
)
def gauss_general(
    lon: np.ndarray,
    lat: np.ndarray,
    lon_0: Angle = 0.0,
    lat_0: Angle = 0.0,
    r_0: Angle = _ONE_DEGREE,
    eta: Number = 0.5,
    e: Number = 0.0,
    phi: Angle = 0.0,
) -> np.ndarray:
    """From a disk (``eta`` towards 0) by a Gaussian (0.5) to an exponential fall (1), of major width ``r_0``.

    exp(-(s / w)^(1 / eta)) / (2 pi r_0 b eta Gamma(2 eta)), b the minor width and w that in the direction of each pixel
    (gammapy docs, "Generalized Gaussian spatial model"); the norm is that of a flat sky.
    """
    values = (lon_0, lat_0, r_0, eta, e, phi)
    return _expand_general(lon, lat, *values, is_free=np.zeros(6, dtype=bool)).density


def _width_at(energy: np.ndarray, sigma: float, delta: float, reference: float) -> np.ndarray:
    return np.asarray(sigma * (np.asarray(energy) / reference) ** -delta)


def _expand_by_energy(
    lon: np.ndarray,
    lat: np.ndarray,
    energy: np.ndarray,
    lon_0: float,
    lat_0: float,
    sigma: float,
    delta: float,
    reference: float,
    *,
    is_free: np.ndarray,
    cell: float = 0.0,
    order: int = 0,
) -> Expansion:
    """By the chain rule from the round Gaussian of each energy's own width."""
    energy = np.asarray(energy, dtype=float)
    energy = energy.reshape(*energy.shape, *(1,) * np.ndim(lon))
    ratio, log_e = _width_at(energy, 1.0, delta, reference), np.log(energy / reference)
    width = sigma * ratio
    f, first, second = _sampled_gauss(lon, lat, lon_0, lat_0, width, order, cell)
    free = np.flatnonzero(is_free)
    if order == 0:
        return Expansion(f)
    grown = [ratio, -width * log_e, width * delta / reference]
    gradient = [first[k] if k < 2 else first[2] * grown[k - 2] for k in free]
    if order == 1:
        return Expansion(f, _stacked(gradient, f))
    bent = {
        (3, 3): width * log_e**2,
        (2, 3): -ratio * log_e,
        (2, 4): ratio * delta / reference,
        (3, 4): width * (1 - delta * log_e) / reference,
        (4, 4): width * delta * (delta - 1) / reference**2,
    }

    def pair(k: int, m: int) -> np.ndarray:
        k, m = min(k, m), max(k, m)
        if m < 2:
            return second[k, m]
        if k < 2:
            return np.asarray(second[k, 2] * grown[m - 2])
        return np.asarray(second[2, 2] * grown[k - 2] * grown[m - 2] + first[2] * bent.get((k, m), 0.0))

    pairs = [[pair(int(k), int(m)) for m in free] for k in free]
    return Expansion(f, _stacked(gradient, f), np.array(pairs) if pairs else None)


def _by_energy_gradient(lon: np.ndarray, lat: np.ndarray, energy: np.ndarray, *values: float) -> np.ndarray:
    found = _expand_by_energy(lon, lat, energy, *values, is_free=np.ones(5, dtype=bool), order=1).gradient
    assert found is not None  # asked for
    return found


def _by_energy_radius(
    lon_0: float, lat_0: float, sigma: float, delta: float, reference: float, *, energy: np.ndarray
) -> float:
    return 6 * float(np.max(_width_at(energy, sigma, delta, reference)))


def _by_energy_resolution(
    lon_0: float, lat_0: float, sigma: float, delta: float, reference: float, *, energy: np.ndarray
) -> float:
    return float(np.min(_width_at(energy, sigma, delta, reference))) / 3


@SPATIAL_MODELS.register(
    "gauss-by-energy",
    radius=_by_energy_radius,
    resolution=_by_energy_resolution,
    size="sigma",
    by_energy=True,
    gradient=_by_energy_gradient,
    expand=_expand_by_energy,
    frozen=("reference",),
    limits={**_POLES, "sigma": (0.0, np.nan)},
)
def gauss_by_energy(
    lon: np.ndarray,
    lat: np.ndarray,
    energy: np.ndarray,
    lon_0: Angle = 0.0,
    lat_0: Angle = 0.0,
    sigma: Angle = _ONE_DEGREE,
    delta: Number = 0.0,
    reference: Energy = 1.0,
) -> np.ndarray:
    """Round Gaussian of width ``sigma`` (energy / ``reference``)^-``delta``: a source that shrinks with energy if delta > 0.

    So do nebulae whose electrons cool on their way out; the value is one image per energy, before the axes of the sky.
    """
    values = (lon_0, lat_0, sigma, delta, reference)
    return _expand_by_energy(lon, lat, energy, *values, is_free=np.zeros(5, dtype=bool)).density
