"""SkyGeometry: pixels on the sky by a WCS; centres, exact solid angles, cutouts, region masks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from dl3flow.errors import InputError, choices
from dl3flow.geometry import fov
from dl3flow.registry import convert

if TYPE_CHECKING:
    from dl3flow.geometry.region import Geometry

FRAMES = {"icrs": ("RA--", "DEC-"), "galactic": ("GLON", "GLAT")}
PROJECTIONS = ("CAR", "TAN", "AIT", "SIN", "ZEA", "STG")
_MAX_PIXELS = 100_000_000
CutoutMode = Literal["trim", "partial", "strict"]


@dataclass(frozen=True)
class SkyGeometry:
    """Square-celled pixels on the sky.

    Attributes
    ----------
    frame : 'icrs' or 'galactic'
    proj : str
        WCS projection code.
    lon_0, lat_0 : float
        Reference direction (CRVAL), deg.
    binsz : float
        Pixel size, deg.
    shape : (n_lat, n_lon)
    crpix : (x, y)
        Reference pixel, FITS convention (first pixel is 1).
    corner : (j, i)
        Position of the first pixel in the geometry this was cut from; (0, 0) for an original.
    """

    frame: str
    proj: str
    lon_0: float
    lat_0: float
    binsz: float
    shape: tuple[int, int]
    crpix: tuple[float, float]
    corner: tuple[int, int] = (0, 0)

    @classmethod
    def create(
        cls,
        center: SkyCoord,
        width: u.Quantity | tuple[u.Quantity, u.Quantity],
        binsz: u.Quantity,
        proj: str = "CAR",
    ) -> "SkyGeometry":
        """Geometry centred on ``center``, of ``width`` (lon, lat) or one width for both.

        Raises
        ------
        InputError
            If it would have no pixel or more than 100 million.
        """
        wide, high = width if isinstance(width, tuple) else (width, width)
        size = float(binsz.to_value(u.deg))
        n_lon, n_lat = (round(float(w.to_value(u.deg)) / size) for w in (wide, high))
        if n_lon < 1 or n_lat < 1:
            raise InputError(
                f"a map of width {width} has no pixel of size {binsz}: make `width` larger or `binsz` smaller"
            )
        if n_lon * n_lat > _MAX_PIXELS:
            raise InputError(
                f"a map of {n_lon} x {n_lat} pixels is too large: make `width` smaller or `binsz` larger"
            )
        frame = "galactic" if center.frame.name == "galactic" else "icrs"
        at = center.transform_to(frame).spherical
        crpix = ((n_lon + 1) / 2, (n_lat + 1) / 2)
        return cls(frame, proj, float(at.lon.deg), float(at.lat.deg), size, (n_lat, n_lon), crpix)

    @cached_property
    def wcs(self) -> WCS:
        """The astropy WCS of the pixels."""
        wcs = WCS(naxis=2)
        lon, lat = FRAMES[self.frame]
        wcs.wcs.ctype = [f"{lon}-{self.proj}", f"{lat}-{self.proj}"]
        wcs.wcs.crval = [self.lon_0, self.lat_0]
        wcs.wcs.cdelt = [-self.binsz, self.binsz]
        wcs.wcs.crpix = list(self.crpix)
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.set()
        wcs.array_shape = self.shape
        return wcs

    @classmethod
    def from_wcs(cls, wcs: WCS, shape: tuple[int, int], where: str) -> "SkyGeometry":
        """Geometry of an astropy WCS with square pixels and no rotation.

        Raises
        ------
        InputError
            If the frame, projection or pixel shape is not supported.
        """
        lon_type = wcs.wcs.ctype[0]
        frames = {kind[0].strip("-"): name for name, kind in FRAMES.items()}
        frame = frames.get(lon_type.split("-")[0])
        if frame is None:
            raise InputError(
                f"{where}: the coordinate type '{lon_type}' is not supported {choices(lon_type, frames)}"
            )
        dx, dy = wcs.wcs.cdelt
        if not math.isclose(-dx, dy, rel_tol=1e-6):
            raise InputError(f"{where}: pixels must be square with CDELT1 = -CDELT2, found {dx} and {dy}")
        lon_0, lat_0 = (float(v) for v in wcs.wcs.crval)
        crpix = (float(wcs.wcs.crpix[0]), float(wcs.wcs.crpix[1]))
        return cls(
            frame, lon_type.split("-")[-1], lon_0, lat_0, float(dy), (int(shape[0]), int(shape[1])), crpix
        )

    @cached_property
    def lonlat(self) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of the pixel centres in the geometry's frame, rad; NaN off the projection."""
        y, x = np.indices(self.shape, dtype=float)
        lon, lat = self.wcs.all_pix2world(x, y, 0)
        return np.radians(lon), np.radians(lat)

    def _vectors(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Unit vectors (3, n_rows, n_columns) at zero-based pixel coordinates."""
        x, y = (
            np.radians(-self.binsz * (columns + 1 - self.crpix[0])),
            np.radians(self.binsz * (rows + 1 - self.crpix[1])),
        )
        found = fov.projected_vectors(self.proj, x, y, math.radians(self.lon_0), math.radians(self.lat_0))
        if found is None:
            lon, lat = self.wcs.all_pix2world(*np.meshgrid(columns, rows), 0)
            found = fov.unit_vectors(np.radians(lon), np.radians(lat))
        return found

    @cached_property
    def vectors(self) -> np.ndarray:
        """Unit vectors of the pixel centres in the geometry's frame, shape (3, n_lat, n_lon); NaN off the projection."""
        ny, nx = self.shape
        return self._vectors(np.arange(nx, dtype=float), np.arange(ny, dtype=float))

    @property
    def center(self) -> SkyCoord:
        """Direction at the middle of the map."""
        lon, lat = self.wcs.all_pix2world((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2, 0)
        return SkyCoord(lon * u.deg, lat * u.deg, frame=self.frame)

    @cached_property
    def solid_angle(self) -> u.Quantity:
        """Solid angle of each pixel, shape (n_lat, n_lon), sr: two plane triangles between its corners."""
        ny, nx = self.shape
        corners = self._vectors(np.arange(nx + 1) - 0.5, np.arange(ny + 1) - 0.5)
        low_left, low_right = corners[:, :-1, :-1], corners[:, :-1, 1:]
        up_left, up_right = corners[:, 1:, :-1], corners[:, 1:, 1:]
        first = _parallelogram(low_right - low_left, up_left - low_left)
        second = _parallelogram(up_left - up_right, low_right - up_right)
        return 0.5 * (first + second) * u.sr

    def position(self, where: SkyCoord) -> tuple[float, float]:
        """Longitude and latitude of one direction in the geometry's frame, rad."""
        at = (where if where.frame.name == self.frame else where.transform_to(self.frame)).spherical
        return float(at.lon.rad), float(at.lat.rad)

    def separation(self, where: SkyCoord) -> np.ndarray:
        """Distance of the pixel centres to one direction, rad, shape (n_lat, n_lon)."""
        return fov.distance(self.vectors, *self.position(where))

    def fov_lonlat(self, pointing: SkyCoord) -> tuple[np.ndarray, np.ndarray]:
        """Field-of-view coordinates (RADEC alignment, rad) of the pixel centres."""
        at = pointing.icrs.spherical
        return self.fov_on(fov.basis(float(at.lon.rad), float(at.lat.rad)))

    def fov_on(self, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Field-of-view coordinates of the pixel centres on axes (3, 3) in ICRS; see `fov.vectors_to_fov`."""
        if self.frame != "icrs":  # a rotation turns every vector alike
            turned = SkyCoord(*axes.T, representation_type="cartesian", frame="icrs").transform_to(self.frame)
            axes = turned.cartesian.xyz.value.T
        return fov.vectors_to_fov(self.vectors, axes)

    def pixel(self, where: SkyCoord) -> tuple[np.ndarray, np.ndarray]:
        """Zero-based pixel coordinates (x, y) of directions."""
        at = (where if where.frame.name == self.frame else where.transform_to(self.frame)).spherical
        x, y = self.wcs.all_world2pix(at.lon.deg, at.lat.deg, 0)
        return x, y

    def pixel_at(self, lon: float, lat: float, frame: str) -> tuple[float, float]:
        """Zero-based pixel (x, y) of one direction in rad of ``frame``; NaN off the projection."""
        if frame != self.frame:
            lon, lat = self.position(SkyCoord(lon * u.rad, lat * u.rad, frame=frame))
        x, y = self.wcs.all_world2pix(math.degrees(lon), math.degrees(lat), 0)
        return float(x), float(y)

    def index(self, where: SkyCoord) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel (j, i) of each direction, by rounding, and whether it lies on the map."""
        x, y = self.pixel(where)
        inside = np.isfinite(x) & np.isfinite(y)
        i, j = (np.where(inside, np.round(v), -1).astype(int) for v in (x, y))
        inside &= (i >= 0) & (i < self.shape[1]) & (j >= 0) & (j < self.shape[0])
        return j, i, inside

    def nearest(self, where: SkyCoord) -> tuple[int, int]:
        """Pixel (j, i) nearest to one direction, the border pixel for a direction off the map."""
        x, y = self.pixel(where)
        ny, nx = self.shape
        return int(np.clip(np.round(y), 0, ny - 1)), int(np.clip(np.round(x), 0, nx - 1))

    def cutout(
        self, where: SkyCoord, width: u.Quantity, min_pixels: int = 1, mode: CutoutMode = "trim"
    ) -> "SkyGeometry":
        """Pixels of this grid of ``width`` around a direction.

        Parameters
        ----------
        where : SkyCoord
        width : Quantity
        min_pixels : int
            Smallest number of pixels along each side.
        mode : 'trim', 'partial' or 'strict'
            What is done where they reach beyond the border of this geometry: cut there, keep them all (`masks.pixels_on`
            fills values), or refuse.

        Raises
        ------
        InputError
            If the part shares no pixel with this geometry, or with ``strict`` not all of its own.
        """
        size = max(round(width.to_value(u.deg) / self.binsz), min_pixels)
        x, y = self.pixel(where)
        slices = []
        for center, n in ((float(y), self.shape[0]), (float(x), self.shape[1])):
            low = math.ceil(center - size / 2) if np.isfinite(center) else n
            start, stop = max(low, 0), min(low + size, n)
            if stop <= start or (mode == "strict" and stop - start < size):
                at = where.icrs
                found = "has no pixel" if stop <= start else "does not hold all pixels"
                remedy = (
                    "no overlap"
                    if stop <= start
                    else "make the width smaller, or take the mode `trim` or `partial`"
                )
                raise InputError(
                    f"the map centred on ({self.lon_0:.4f}, {self.lat_0:.4f}) deg {found} within {width} of "
                    f"({at.ra.deg:.4f}, {at.dec.deg:.4f}) deg: {remedy}"
                )
            slices.append((low, low + size) if mode == "partial" else (start, stop))
        return self.part(slices[0], slices[1])

    def downsampled(self, factor: int) -> "SkyGeometry":
        """Geometry whose pixels are squares of ``factor`` x ``factor`` of the present ones.

        Raises
        ------
        InputError
            If the pixels do not come in such squares.
        """
        if factor < 1 or any(n % factor for n in self.shape):
            raise InputError(
                f"a map of {self.shape[1]} x {self.shape[0]} pixels has no whole squares of {factor} x {factor} of them: take a "
                "factor that divides both, or a cutout first"
            )
        x, y = ((c - 0.5) / factor + 0.5 for c in self.crpix)
        return replace(
            self,
            binsz=self.binsz * factor,
            shape=(self.shape[0] // factor, self.shape[1] // factor),
            crpix=(x, y),
            corner=(self.corner[0] // factor, self.corner[1] // factor),
        )

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> "SkyGeometry":
        """Pixels ``rows[0]:rows[1], columns[0]:columns[1]`` of this geometry."""
        return replace(
            self,
            shape=(rows[1] - rows[0], columns[1] - columns[0]),
            crpix=(self.crpix[0] - columns[0], self.crpix[1] - rows[0]),
            corner=(self.corner[0] + rows[0], self.corner[1] + columns[0]),
        )

    def offset_in(self, parent: "Geometry") -> tuple[int, int]:
        """Row and column of this geometry's first pixel on the grid of ``parent``; may be negative.

        Raises
        ------
        InputError
            If the two are not cut from one grid.
        """
        if not isinstance(parent, SkyGeometry):
            raise InputError(f"a map and a spectrum are not on one pixel grid: {self} and {parent}")
        same = (
            self.frame == parent.frame
            and self.proj == parent.proj
            and all(
                math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
                for a, b in (
                    (self.lon_0, parent.lon_0),
                    (self.lat_0, parent.lat_0),
                    (self.binsz, parent.binsz),
                )
            )
        )
        column, row = parent.crpix[0] - self.crpix[0], parent.crpix[1] - self.crpix[1]
        if not same or abs(row - round(row)) > 1e-6 or abs(column - round(column)) > 1e-6:
            raise InputError(f"maps are not on one pixel grid: {self} and {parent}")
        return round(row), round(column)

    def overlap(self, other: "Geometry") -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Slices of this geometry and of ``other`` that cover their common pixels; empty slices if there are none."""
        mine, theirs = [], []
        for shift, n, m in zip(other.offset_in(self), self.shape, other.shape, strict=True):
            start, stop = max(shift, 0), max(min(shift + m, n), max(shift, 0))
            mine.append(slice(start, stop))
            theirs.append(slice(start - shift, stop - shift))
        return (mine[0], mine[1]), (theirs[0], theirs[1])

    def coarser(self, binsz: u.Quantity) -> "SkyGeometry":
        """Geometry of the same centre and width with larger pixels, for response maps."""
        width = (self.shape[1] * self.binsz * u.deg, self.shape[0] * self.binsz * u.deg)
        return SkyGeometry.create(self.center, width, binsz, self.proj)


def _parallelogram(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area spanned by two vectors (3, ...) each."""
    (ax, ay, az), (bx, by, bz) = a, b
    return np.asarray(np.sqrt((ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2))


def parse_sky_position(entry: Any) -> SkyCoord:
    """Direction from ``{frame: icrs, lon: 83.63 deg, lat: 22.01 deg}``.

    Raises
    ------
    ValueError
        If a key is missing or unknown, a value is no angle, or the latitude is out of range.
    """
    if not isinstance(entry, Mapping) or set(entry) != {"frame", "lon", "lat"}:
        raise ValueError(f"expected `{{frame: icrs, lon: 83.63 deg, lat: 22.01 deg}}`, found {entry!r}")
    frame = entry["frame"]
    if frame not in FRAMES:
        raise ValueError(f"unknown frame '{frame}': {choices(str(frame), FRAMES)}")
    lon, lat = (convert(entry[key], Annotated[u.Quantity, u.deg], key) for key in ("lon", "lat"))
    if abs(lat) > 90 * u.deg:
        raise ValueError(f"`lat` must lie between -90 and 90 deg, found '{entry['lat']}'")
    return SkyCoord(lon, lat, frame=frame)


SkyPosition = Annotated[SkyCoord, parse_sky_position]


def parse_center(entry: Any) -> SkyCoord | None:
    """Direction as for `parse_sky_position`; None for the text ``pointing``: that of each observation.

    Raises
    ------
    ValueError
        If it is neither.
    """
    return None if entry == "pointing" else parse_sky_position(entry)


SkyCenter = Annotated[SkyCoord, parse_center]
