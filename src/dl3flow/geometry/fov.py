"""Sky to field-of-view coordinates: offset, fov_lon, fov_lat around a pointing."""

import numpy as np


def unit_vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Cartesian unit vectors of directions in rad; shape (3, ...)."""
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def separation(lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float) -> np.ndarray:
    """Great-circle distance in rad to one direction, by Vincenty's formula (exact at 0 and pi)."""
    d_lon = lon - lon_0
    sin_d, cos_d = np.sin(d_lon), np.cos(d_lon)
    sin_0, cos_0, sin_1, cos_1 = np.sin(lat_0), np.cos(lat_0), np.sin(lat), np.cos(lat)
    return np.asarray(
        np.arctan2(np.hypot(cos_1 * sin_d, cos_0 * sin_1 - sin_0 * cos_1 * cos_d), sin_0 * sin_1 + cos_0 * cos_1 * cos_d)
    )


def sky_to_fov(lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float) -> tuple[np.ndarray, np.ndarray]:
    """Field-of-view longitude and latitude of sky directions, RADEC alignment.

    The frame is centred on the pointing with ``fov_lat`` up (north) and ``fov_lon`` to the right, that is against
    the longitude of the sky (GADF, coordinates, "RADEC" alignment).

    Parameters
    ----------
    lon, lat : array
        Directions, rad.
    lon_0, lat_0 : float
        Pointing, rad, in the same frame.

    Returns
    -------
    fov_lon, fov_lat : array
        Rad.
    """
    x, y, z = unit_vectors(lon - lon_0, lat)
    cos_0, sin_0 = np.cos(lat_0), np.sin(lat_0)
    return -np.arctan2(y, cos_0 * x + sin_0 * z), np.arcsin(np.clip(cos_0 * z - sin_0 * x, -1, 1))
