"""Directions as seen from a centre: distance, position angle, width of an ellipse, and how they change when it moves."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Around:
    """Directions in polar coordinates around a centre.

    Attributes
    ----------
    distance : array
        Along great circles, rad.
    sine, cosine : array
        Of the distance.
    east, north : array
        Sine and cosine of the position angle; both are zero at the centre itself.
    sin_0, cos_0 : float
        Of the centre's latitude.
    """

    distance: np.ndarray
    sine: np.ndarray
    cosine: np.ndarray
    east: np.ndarray
    north: np.ndarray
    sin_0: float
    cos_0: float

    @classmethod
    def create(cls, lon: np.ndarray, lat: np.ndarray, lon_0: float, lat_0: float) -> "Around":
        """Directions in rad around a centre, by Vincenty's formula (exact at 0 and pi)."""
        d_lon = np.asarray(lon - lon_0)
        sin_0, cos_0 = float(np.sin(lat_0)), float(np.cos(lat_0))
        sin_1, cos_1 = np.sin(lat), np.cos(lat)
        level = cos_1 * np.cos(d_lon)
        east, north = cos_1 * np.sin(d_lon), cos_0 * sin_1 - sin_0 * level
        sine, cosine = np.hypot(east, north), sin_0 * sin_1 + cos_0 * level
        far = np.where(sine > 0, sine, 1.0)
        return cls(np.arctan2(sine, cosine), sine, cosine, east / far, north / far, sin_0, cos_0)

    def distance_by_position(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the distance by longitude and latitude of the centre."""
        return -self.cos_0 * self.east, -self.north

    def angle_by_position(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the position angle by longitude and latitude of the centre."""
        cotangent = self.cosine / np.where(self.sine > 0, self.sine, np.inf)
        return self.sin_0 - self.north * self.cos_0 * cotangent, self.east * cotangent


@dataclass(frozen=True, eq=False)
class Ellipse:
    """Distance from the centre to the edge of an ellipse in the direction of each point, and its derivatives.

    w = a k / sqrt(1 - e^2 cos^2(phi - psi)), k = sqrt(1 - e^2), psi the position angle.

    Attributes
    ----------
    width : array
        rad; the number ``a`` itself for a circle.
    by_angle, by_e : array
        Derivatives by the position angle (that by ``phi`` is its opposite) and by the eccentricity.
    """

    width: np.ndarray
    by_angle: np.ndarray
    by_e: np.ndarray

    @classmethod
    def create(cls, at: Around, major: float, e: float, phi: float) -> "Ellipse":
        """Ellipse with the semi-major axis ``major`` at ``phi`` east of north, rad."""
        if e == 0:
            zero = np.zeros(())
            return cls(np.asarray(major), zero, zero)
        sin_phi, cos_phi = np.sin(phi), np.cos(phi)
        # at the centre itself any direction will do
        along = cos_phi * at.north + sin_phi * at.east
        across = sin_phi * at.north - cos_phi * at.east
        inverse = 1 / (1 - e**2 * along**2)
        width = major * np.sqrt((1 - e**2) * inverse)
        return cls(
            width, width * e**2 * along * across * inverse, width * e * (along**2 * inverse - 1 / (1 - e**2))
        )


def position_rows(
    at: Around, by_distance: np.ndarray, ellipse: Ellipse | None = None, by_width: np.ndarray | None = None
) -> list[np.ndarray]:
    """Derivatives by longitude and latitude of the centre of what depends on the distance and on an ellipse's width."""
    rows = [by_distance * d for d in at.distance_by_position()]
    if ellipse is None or by_width is None or not np.ndim(ellipse.by_angle):
        return rows
    by_angle = by_width * ellipse.by_angle
    return [row + by_angle * turn for row, turn in zip(rows, at.angle_by_position(), strict=True)]
