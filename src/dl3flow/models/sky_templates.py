"""A spatial model from a map of the sky, of one image or one per energy."""

import astropy.units as u
import numpy as np

from dl3flow.geometry import fov
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.spatial_registry import SPATIAL_MODELS
from dl3flow.units import Angle

_TINY = float(np.finfo(float).tiny)


def _parameters(*, geom: SkyGeometry, **_: object) -> dict[str, tuple[u.UnitBase, float]]:
    """Position as parameters; by default the middle of the map, where it is not moved."""
    lon, lat = map_center(geom)
    return {"lon_0": (u.rad, lon), "lat_0": (u.rad, lat)}


def map_center(geom: SkyGeometry) -> tuple[float, float]:
    """Longitude and latitude of the middle of a map in its own frame, rad."""
    at = geom.center.spherical
    return float(at.lon.rad), float(at.lat.rad)


def _radius(lon_0: float, lat_0: float, *, geom: SkyGeometry, **_: object) -> float:
    """Distance of the farthest corner of the border from the middle."""
    ny, nx = geom.shape
    x, y = np.meshgrid([-0.5, (nx - 1) / 2, nx - 0.5], [-0.5, (ny - 1) / 2, ny - 0.5])
    lon, lat = geom.wcs.all_pix2world(x, y, 0)
    if not np.isfinite(lon).all():
        return float(np.pi)
    middle = map_center(geom)
    return float(fov.separation(np.radians(lon), np.radians(lat), *middle).max())


def _resolution(lon_0: float, lat_0: float, *, geom: SkyGeometry, **_: object) -> float:
    return float(np.radians(geom.binsz))


@SPATIAL_MODELS.register(
    "TemplateSpatialModel",
    radius=_radius,
    resolution=_resolution,
    parameters=_parameters,
    by_energy=lambda *, edges=None, **_: edges is not None,
    is_absolute=True,
    reads="sky_template",
    frozen=("lon_0", "lat_0"),
    limits={"lat_0": (-90.0, 90.0)},
)
def template(
    lon: np.ndarray,
    lat: np.ndarray,
    energy: np.ndarray | None,
    lon_0: Angle = np.nan,
    lat_0: Angle = np.nan,
    *,
    geom: SkyGeometry,
    values: np.ndarray,
    edges: np.ndarray | None = None,
    normalize: bool = True,
    filename: str = "",
) -> np.ndarray:
    """Value of a map between its pixels, interpolated in the logarithm (gammapy docs, "Template spatial model").

    Parameters
    ----------
    lon, lat : array
        Directions in the frame of ``geom``.
    energy : array, shape (n_energy,), TeV, or None
        Where the map has energies; the value then is one image per energy, before the axes of the sky.
    lon_0, lat_0 : float
        The map is moved by their distance from its middle, in longitude and latitude: right for small distances.
    geom : SkyGeometry
    values : array, shape (n_lat, n_lon) or (n_bins, n_lat, n_lon)
        In sr-1, or cm-2 s-1 TeV-1 sr-1 under a spectrum that is a norm; negative ones and NaN are taken as zero.
    edges : array, shape (n_bins + 1,), TeV, or None
        Of the bins of energy, equal steps of the logarithm within each; beyond them the value is zero.
    normalize : bool
        Values are taken as shares of the flux per pixel, of each energy, that sum to one.
    filename : str
        Where the map was read from.
    """
    center = map_center(geom)
    lon, lat = lon - (lon_0 - center[0]), lat - (lat_0 - center[1])
    x, y = geom.wcs.all_world2pix(np.degrees(lon), np.degrees(lat), 0)
    x, y = _within_turn(np.asarray(x), geom), np.asarray(y)
    ny, nx = geom.shape
    inside = (x >= -0.5) & (x <= nx - 0.5) & (y >= -0.5) & (y <= ny - 0.5)
    planes = values.reshape(-1, ny, nx)
    norms = _norms(planes) if normalize else np.ones(len(planes))
    logs = _between_pixels(planes, np.where(inside, x, 0.0), np.where(inside, y, 0.0), geom, norms, normalize)
    if edges is None or energy is None:
        return np.where(inside, _without_tiny(logs[0]), 0.0)
    return np.where(inside, _between_energies(logs, np.asarray(energy, dtype=float), edges), 0.0)


def _within_turn(x: np.ndarray, geom: SkyGeometry) -> np.ndarray:
    """Columns on the map where a cylindrical projection goes once around."""
    if geom.proj != "CAR":
        return x
    turn = 360 / geom.binsz
    return np.where(x < -0.5, x + turn, np.where(x > geom.shape[1] - 0.5, x - turn, x))


def _norms(planes: np.ndarray) -> np.ndarray:
    sums = np.nansum(planes, axis=(1, 2))
    inverse: np.ndarray = np.divide(1.0, sums, out=np.zeros(len(planes)), where=sums != 0)
    return inverse


def _between_pixels(
    planes: np.ndarray, x: np.ndarray, y: np.ndarray, geom: SkyGeometry, norms: np.ndarray, per_pixel: bool
) -> np.ndarray:
    """Logarithm of each plane's value, linear between pixel centres and constant beyond the outermost."""
    ny, nx = geom.shape
    x, y = np.clip(x, 0, nx - 1), np.clip(y, 0, ny - 1)
    i, j = np.minimum(x.astype(int), max(nx - 2, 0)), np.minimum(y.astype(int), max(ny - 2, 0))
    fx, fy = x - i, y - j
    area = geom.solid_angle.value if per_pixel else None
    found = np.zeros((len(planes), *x.shape))
    for row, by_row in ((j, 1 - fy), (np.minimum(j + 1, ny - 1), fy)):
        for column, by_column in ((i, 1 - fx), (np.minimum(i + 1, nx - 1), fx)):
            at = np.nan_to_num(planes[:, row, column]) * norms.reshape(-1, *(1,) * x.ndim)
            if area is not None:
                at = at / area[row, column]
            found += np.log(np.maximum(at, _TINY)) * (by_row * by_column)
    return found


def _between_energies(logs: np.ndarray, energy: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Values at energies, a power law between bin centres and beyond the outermost; zero beyond the edges."""
    place = np.interp(np.log(energy), np.log(edges), np.arange(len(edges))) - 0.5
    n = np.clip(np.floor(place).astype(int), 0, max(len(logs) - 2, 0))
    m = np.minimum(n + 1, len(logs) - 1)
    part = (place - n).reshape(-1, *(1,) * (logs.ndim - 1))
    low, high = logs[n], logs[m]
    found = low * (1 - part) + high * part
    # a power law through nothing: no value beyond those on both sides
    is_beyond = (part < 0) | (part > 1)
    empty = np.minimum(low, high) < np.log(_TINY) + 1
    found = np.where(is_beyond & empty, np.where(part < 0, low, high), found)
    is_known = ((energy >= edges[0]) & (energy <= edges[-1])).reshape(part.shape)
    result = np.where(is_known, _without_tiny(found), 0.0)
    return result if energy.ndim else result[0]


def _without_tiny(logs: np.ndarray) -> np.ndarray:
    values = np.exp(logs)
    return np.where(values <= 2 * _TINY, 0.0, values)
