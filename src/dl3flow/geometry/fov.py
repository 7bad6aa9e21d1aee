"""Sky to field-of-view coordinates: offset, fov_lon, fov_lat around a pointing."""

from typing import Any

import numpy as np

from dl3flow.errors import InputError, choices


def unit_vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Cartesian unit vectors of directions in rad; shape (3, ...)."""
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def basis(lon: float, lat: float) -> np.ndarray:
    """Unit vectors (3, 3) of a direction in rad and of the east and north there; their components are the columns."""
    return np.array(
        [
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)],
            [-np.sin(lon), np.cos(lon), 0.0],
            [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
        ]
    )


def rotated(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Product of a 3 x 3 matrix with vectors of shape (3, ...), the same for a vector wherever it stands in the array."""
    x, y, z = vectors
    return np.array([row[0] * x + row[1] * y + row[2] * z for row in matrix])


def projected_vectors(
    proj: str, x: np.ndarray, y: np.ndarray, lon_0: float, lat_0: float
) -> np.ndarray | None:
    """Unit vectors of points on the plane of a map; Calabretta & Greisen (2002), sections 5.1.3 and 5.2.3.

    Parameters
    ----------
    proj : str
        WCS projection code.
    x, y : array, shape (n_lon,), (n_lat,)
        Columns and rows on the plane, eastward and northward of the reference direction, rad.
    lon_0, lat_0 : float
        Reference direction, rad.

    Returns
    -------
    vectors : array, shape (3, n_lat, n_lon), or None
        None for projections other than TAN and CAR, a reference within a degree of a pole, where the standard turns the
        map, or a map beyond the whole sky.
    """
    if proj not in ("TAN", "CAR") or abs(lat_0) > np.radians(89):
        return None
    y = y[:, None]
    if proj == "TAN":
        forward = 1 / np.sqrt(1 + x**2 + y**2)
        native = np.array([forward, forward * x, forward * y])
    elif np.abs(x).max() > np.pi or np.abs(y).max() > np.pi / 2:
        return None
    else:
        native = np.array([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y) + 0 * x])
    return rotated(native, basis(lon_0, lat_0).T)


def distance(vectors: np.ndarray, lon: float, lat: float) -> np.ndarray:
    """Great-circle distance in rad of unit vectors (3, ...) to one direction, by the chord (exact near 0)."""
    x, y, z = vectors
    a, b, c = basis(lon, lat)[0]
    chord = np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)
    return np.asarray(2 * np.arcsin(np.minimum(0.5 * chord, 1.0)))


def vectors_to_fov(vectors: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Field-of-view longitude and latitude, rad, of unit vectors (3, ...); see `sky_to_fov`.

    Parameters
    ----------
    axes : array, shape (3, 3)
        The pointing, its east and its north in the frame of the vectors, as `basis` gives them.
    """
    forward, east, north = rotated(vectors, axes)
    return -np.arctan2(east, forward), np.arcsin(np.clip(north, -1, 1))


def altaz_axes(pointing: Any, times: Any, location: tuple[float, float, float]) -> tuple[np.ndarray, ...]:
    """Axes of the field of view aligned with the horizon, in ICRS, while a telescope follows one direction.

    Parameters
    ----------
    pointing : SkyCoord
    times : Time, shape (n,)
    location : tuple
        Longitude and latitude of the observatory, deg, and altitude, m.

    Returns
    -------
    axes : array, shape (n, 3, 3)
        For each time the pointing and the directions of growing azimuth and altitude there, for `vectors_to_fov`:
        ``fov_lat`` is up and ``fov_lon`` against the azimuth.
    azimuth, altitude : array, shape (n,)
        Of the pointing, rad.
    """
    # slow to import, and rarely needed
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.utils import iers

    lon, lat, altitude = location
    site = EarthLocation.from_geodetic(lon, lat, altitude)
    # the Earth's rotation of the installed tables, which a field's orientation needs to a minute of arc only: no download
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        frame = AltAz(obstime=times, location=site)
        at = pointing.icrs.transform_to(frame)
        az, alt = at.az.rad, at.alt.rad
        # a degree up along the meridian of azimuth, also beyond the zenith
        raised = alt + np.radians(1.0)
        over = raised > np.pi / 2
        above = SkyCoord(
            np.where(over, az + np.pi, az), np.where(over, np.pi - raised, raised), unit="rad", frame=frame
        ).icrs.cartesian.xyz.value.T
    forward = pointing.icrs.cartesian.xyz.value
    up = above - (above @ forward)[:, None] * forward
    up /= np.linalg.norm(up, axis=1)[:, None]
    forward = np.broadcast_to(forward, up.shape)
    return np.stack([forward, np.cross(forward, up), up], axis=1), az, alt


def separation(lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float) -> np.ndarray:
    """Great-circle distance in rad to one direction, by Vincenty's formula (exact at 0 and pi)."""
    d_lon = lon - lon_0
    sin_d, cos_d = np.sin(d_lon), np.cos(d_lon)
    sin_0, cos_0, sin_1, cos_1 = np.sin(lat_0), np.cos(lat_0), np.sin(lat), np.cos(lat)
    return np.asarray(
        np.arctan2(
            np.hypot(cos_1 * sin_d, cos_0 * sin_1 - sin_0 * cos_1 * cos_d),
            sin_0 * sin_1 + cos_0 * cos_1 * cos_d,
        )
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


def fov_to_sky(
    fov_lon: np.ndarray, fov_lat: np.ndarray, lon_0: float, lat_0: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sky directions of field-of-view coordinates: the inverse of :func:`sky_to_fov`.

    Parameters
    ----------
    fov_lon, fov_lat : array
        Rad.
    lon_0, lat_0 : float
        Pointing, rad.

    Returns
    -------
    lon, lat : array
        Rad, in the frame of the pointing; longitudes in [0, 2 pi).
    """
    x, y, z = unit_vectors(-np.asarray(fov_lon), np.asarray(fov_lat))
    cos_0, sin_0 = np.cos(lat_0), np.sin(lat_0)
    lon = lon_0 + np.arctan2(y, cos_0 * x - sin_0 * z)
    return lon % (2 * np.pi), np.arcsin(np.clip(sin_0 * x + cos_0 * z, -1, 1))


def displaced(
    lon: np.ndarray, lat: np.ndarray, distance: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Directions at a great-circle distance and position angle (north through east) from others, all in rad."""
    sin_lat = np.sin(lat) * np.cos(distance) + np.cos(lat) * np.sin(distance) * np.cos(angle)
    new_lat = np.arcsin(np.clip(sin_lat, -1, 1))
    east = np.sin(angle) * np.sin(distance) * np.cos(lat)
    return (lon + np.arctan2(east, np.cos(distance) - np.sin(lat) * sin_lat)) % (2 * np.pi), new_lat


def icrs_lonlat(frame: Any, lon: float, lat: float, where: str) -> tuple[float, float]:
    """Right ascension and declination in rad of a direction in the frame ``icrs`` or ``galactic``.

    Raises
    ------
    InputError
        Listing the frames if it is neither.
    """
    if frame == "icrs":
        return lon, lat
    if frame == "galactic":
        from astropy.coordinates import (
            SkyCoord,
        )  # slow to import, and rarely needed where configurations are parsed

        at = SkyCoord(lon, lat, unit="rad", frame="galactic").icrs
        return float(at.ra.rad), float(at.dec.rad)
    raise InputError(f"{where}: unknown frame '{frame}': {choices(str(frame), ('icrs', 'galactic'))}")
