"""RegionGeometry: one pixel, a region of the sky; what a spectrum is made on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.errors import InputError
from dl3flow.geometry import fov, shapes
from dl3flow.geometry.regions import bounding_box, parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry

# pixels on which regions are drawn and integrated
BINSZ = 0.01 * u.deg
# parts along each side of such a pixel, in which its share of the region is counted
_PARTS = 5
# stands for the region of a spectrum whose file does not say where on the sky it was taken
UNKNOWN = "icrs;point(0, 0)"


@dataclass(frozen=True)
class RegionGeometry:
    """One pixel that is a region of the sky, or a point for directional cuts by energy.

    It answers what a `SkyGeometry` answers, with the shape (1, 1).

    Attributes
    ----------
    text : str
        DS9 region text; several regions are their union.
    """

    text: str

    shape = (1, 1)

    def __post_init__(self) -> None:
        if (
            any(isinstance(region, shapes.PointSkyRegion) for region in self.regions)
            and len(self.regions) > 1
        ):
            raise InputError(f"region '{self.text}': a point stands for a directional cut and must be alone")

    @cached_property
    def regions(self) -> shapes.Regions:
        """The regions."""
        return parse_regions(self.text, "region", is_point_allowed=True)

    @property
    def is_point(self) -> bool:
        """True for a point: the events to take lie within the observation's RAD_MAX of it."""
        return isinstance(self.regions[0], shapes.PointSkyRegion)

    @property
    def is_known(self) -> bool:
        """False where a file did not say where on the sky its spectrum was taken."""
        return self.text != UNKNOWN

    @property
    def frame(self) -> str:
        """Frame of `center`: icrs or galactic."""
        return str(self.center.frame.name)

    @cached_property
    def center(self) -> SkyCoord:
        """Direction in the middle of the region."""
        if len(self.regions) == 1 and hasattr(self.regions[0], "center"):
            found = self.regions[0].center
        else:
            found, _ = bounding_box(self.regions)
        return found if found.frame.name in ("icrs", "galactic") else found.icrs

    @cached_property
    def radius(self) -> u.Quantity | None:
        """Radius where the region is one circle, else None."""
        return getattr(self.regions[0], "radius", None) if len(self.regions) == 1 else None

    @cached_property
    def grid(self) -> SkyGeometry:
        """Pixels (TAN) on which the region is drawn.

        Raises
        ------
        InputError
            For a point, which has no area.
        """
        if self.is_point:
            raise InputError(f"region '{self.text}': a point has no area: write a circle")
        _, width = bounding_box(self.regions)
        return SkyGeometry.create(self.center, width + 4 * BINSZ, BINSZ, "TAN")

    @cached_property
    def grid_mask(self) -> np.ndarray:
        """True for the pixels of `grid` whose centre lies in the region; shape (n_lat, n_lon)."""
        return region_mask(self.grid, self.regions)

    @cached_property
    def cover(self) -> np.ndarray:
        """Share of each pixel of `grid` that lies in the region; shape (n_lat, n_lon).

        Counted in parts of the pixels: those of a circle of 0.1 deg that have their centre inside are 1 % too large.
        """
        fine = region_mask(self.grid.coarser(BINSZ / _PARTS), self.regions)
        n_lat, n_lon = self.grid.shape
        return np.asarray(fine.reshape(n_lat, _PARTS, n_lon, _PARTS).mean(axis=(1, 3)))

    @property
    def binsz(self) -> float:
        """Pixel size of `grid`, deg."""
        return float(BINSZ.to_value(u.deg))

    @cached_property
    def solid_angle(self) -> u.Quantity:
        """Solid angle of the region, shape (1, 1), sr; zero for a point."""
        area = 0.0 if self.is_point else float((self.grid.solid_angle.to_value(u.sr) * self.cover).sum())
        return np.array([[area]]) * u.sr

    @property
    def lonlat(self) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of `center` in the frame, rad; shape (1, 1) each."""
        at = self.center.spherical
        return np.array([[at.lon.rad]]), np.array([[at.lat.rad]])

    def position(self, where: SkyCoord) -> tuple[float, float]:
        """Longitude and latitude of one direction in the geometry's frame, rad."""
        at = where.transform_to(self.frame).spherical
        return float(at.lon.rad), float(at.lat.rad)

    def separation(self, where: SkyCoord) -> np.ndarray:
        """Distance of `center` to one direction, rad, shape (1, 1)."""
        return fov.separation(*self.lonlat, *self.position(where))

    def fov_lonlat(self, pointing: SkyCoord) -> tuple[np.ndarray, np.ndarray]:
        """Field-of-view coordinates (RADEC alignment, rad) of `center`; shape (1, 1) each."""
        at, to = self.center.icrs, pointing.icrs
        return fov.sky_to_fov(np.array([[at.ra.rad]]), np.array([[at.dec.rad]]), to.ra.rad, to.dec.rad)

    @cached_property
    def _shapes(self) -> list[shapes.PixelRegion]:
        """The regions on the pixels of `grid`."""
        return [region.to_pixel(self.grid.wcs) for region in self.regions]

    def contains(self, where: SkyCoord) -> np.ndarray:
        """True for directions in the region; never for a point."""
        inside = np.zeros(where.shape, dtype=bool)
        if not self.is_point:
            at = shapes.PixCoord.from_sky(where, self.grid.wcs)
            for region in self._shapes:
                inside |= np.asarray(region.contains(at))
        return inside

    def index(self, where: SkyCoord) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel (j, i) of each direction, always (0, 0), and whether it lies in the region."""
        zero = np.zeros(where.shape, dtype=int)
        return zero, zero, self.contains(where)

    def nearest(self, where: SkyCoord) -> tuple[int, int]:
        """The only pixel."""
        return 0, 0

    def cutout(self, where: SkyCoord, width: u.Quantity, min_pixels: int = 1) -> RegionGeometry:
        """The region itself: one pixel cannot be cut."""
        return self

    def offset_in(self, parent: SkyGeometry | RegionGeometry) -> tuple[int, int]:
        """Row and column of the only pixel in ``parent``.

        Raises
        ------
        InputError
            If that is another region, or a map.
        """
        if self != parent:
            raise InputError(f"spectra are not of one region: {self} and {parent}")
        return 0, 0

    def overlap(self, other: SkyGeometry | RegionGeometry) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Slices of this geometry and of ``other`` that cover their common pixel."""
        self.offset_in(other)
        whole = (slice(0, 1), slice(0, 1))
        return whole, whole


Geometry = SkyGeometry | RegionGeometry


def parse_region(entry: Any) -> RegionGeometry:
    """Region from DS9 text such as ``icrs;circle(83.63, 22.01, 0.11)``; a point asks for directional cuts.

    Raises
    ------
    ValueError
        If it is no text or no region.
    """
    if not isinstance(entry, str):
        raise ValueError(
            f"expected DS9 region text such as `icrs;circle(83.63, 22.01, 0.11)`, found {entry!r}"
        )
    try:
        return RegionGeometry(entry.strip())
    except InputError as error:
        raise ValueError(str(error)) from None


Region = Annotated[RegionGeometry, parse_region]
