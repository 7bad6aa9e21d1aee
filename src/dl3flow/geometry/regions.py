"""Regions on the sky as pixel masks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.errors import InputError
from dl3flow.geometry import shapes
from dl3flow.geometry.sky import SkyGeometry

# pixels nearer than this to a source show its tail, not the background
AWAY = 0.3 * u.deg
_PLANE = ("TAN", "SIN", "STG", "ZEA")
_HORIZON = 75 * u.deg


def parse_regions(text: str, where: str, *, is_point_allowed: bool = False) -> shapes.Regions:
    """Regions from DS9 text such as ``icrs;circle(83.63, 22.01, 0.2)`` (degrees).

    Raises
    ------
    InputError
        If the text holds no region on the sky.
    """
    try:
        with warnings.catch_warnings():
            # a line that it does not understand is a warning to the parser, and would go missing
            warnings.simplefilter("error")
            found = shapes.Regions.parse(text, format="ds9")
    except Exception as error:  # the parser raises many kinds
        raise InputError(f"{where}: cannot read the DS9 region text '{text}': {error}") from None
    if not len(found):
        raise InputError(
            f"{where}: no region in '{text}': write DS9 text such as `icrs;circle(83.63, 22.01, 0.2)`"
        )
    for region in found:
        if not hasattr(region, "to_pixel"):
            raise InputError(
                f"{where}: the region '{text}' is in pixels: begin it with a frame such as `icrs;`"
            )
        without_area = (shapes.PointSkyRegion, shapes.LineSkyRegion, shapes.TextSkyRegion)
        if isinstance(region, without_area) and not (
            is_point_allowed and isinstance(region, shapes.PointSkyRegion)
        ):
            kind = type(region).__name__.removesuffix("SkyRegion").lower()
            raise InputError(
                f"{where}: a {kind} covers no area: write a circle, ellipse, box, annulus or polygon"
            )
        if not region.meta.get("include", True):
            raise InputError(f"{where}: `-` before a region is not supported: write what is to be covered")
    return found


def region_mask(geom: SkyGeometry, regions: shapes.Regions) -> np.ndarray:
    """True for the pixels of ``geom`` whose centre lies in any of the regions; shape (n_lat, n_lon)."""
    y, x = np.indices(geom.shape)
    inside = np.zeros(geom.shape, dtype=bool)
    for region in regions:
        if not _is_behind(region, geom):
            inside |= region.to_pixel(geom.wcs).contains(shapes.PixCoord(x, y))
    return inside


def _is_behind(region: shapes.SkyRegion, geom: SkyGeometry) -> bool:
    """True if a plane map cannot show the region's place: drawn near or behind its horizon a region may cover anything."""
    if geom.proj not in _PLANE:
        return False
    at = region.center if hasattr(region, "center") else region.vertices[0]
    reference = SkyCoord(geom.lon_0 * u.deg, geom.lat_0 * u.deg, frame=geom.frame)
    return bool(at.separation(reference) > _HORIZON)


def exclusion_mask(
    geom: SkyGeometry, regions: shapes.Regions, whole: SkyGeometry, binsz: u.Quantity | None = None
) -> np.ndarray:
    """True for the pixels outside all regions, that is usable for background; shape (n_lat, n_lon).

    With ``binsz`` the regions are drawn on pixels of that size on the centre and width of ``whole``, the geometry that
    ``geom`` is cut from, and each pixel of ``geom`` takes the value of the one that holds its centre: so behaves a mask
    that is made once for all observations of an analysis. Pixels off that map (the fields of off runs) are drawn as they are.
    """
    if binsz is None:
        return ~region_mask(geom, regions)
    drawn = whole.coarser(binsz)
    usable = sample_mask(drawn, ~region_mask(drawn, regions), geom)
    is_off = sample_mask(drawn, np.zeros(drawn.shape, dtype=bool), geom)
    return np.where(is_off, ~region_mask(geom, regions), usable) if is_off.any() else usable


def away_mask(
    geom: SkyGeometry,
    exclusion: shapes.Regions | None,
    positions: Mapping[str, Sequence[float]],
    radius: u.Quantity = AWAY,
) -> np.ndarray:
    """True for the pixels that show the background alone: outside the exclusion, or where there is none, far from sources.

    Parameters
    ----------
    geom : SkyGeometry
    exclusion : Regions or None
    positions : mapping of name to (lon, lat)
        Sources, ICRS, deg; they count only without an exclusion.
    radius : Quantity
        What is far.

    Returns
    -------
    away : bool array, shape (n_lat, n_lon)
    """
    if exclusion is not None:
        return ~region_mask(geom, exclusion)
    away = np.ones(geom.shape, dtype=bool)
    for lon, lat in positions.values():
        away &= geom.separation(SkyCoord(lon, lat, unit="deg")) >= radius.to_value(u.rad)
    return away


def sample_mask(source: SkyGeometry, mask: np.ndarray, geom: SkyGeometry) -> np.ndarray:
    """Value of a mask on ``source`` at the pixel centres of ``geom``; True off the source's map."""
    lon, lat = geom.lonlat
    j, i, inside = source.index(SkyCoord(lon * u.rad, lat * u.rad, frame=geom.frame))
    return np.where(inside, mask[np.where(inside, j, 0), np.where(inside, i, 0)], True)


def bounding_box(regions: shapes.Regions) -> tuple[SkyCoord, u.Quantity]:
    """Middle of the regions, and the side of a square around it that holds them all.

    Parameters
    ----------
    regions : Regions
        At least one; within a few tens of degrees of one another.

    Raises
    ------
    InputError
        If they lie too far apart.
    """
    first = regions[0]
    at = first.center if hasattr(first, "center") else first.vertices[0]
    # a coarse plane whose pixel coordinates are degrees on the sky
    plane = SkyGeometry.create(at, 10 * u.deg, 0.01 * u.deg, "TAN")
    for region in regions:
        if _is_behind(region, plane):
            raise InputError(
                "regions: they lie more than 75 deg apart, which no map of them can show: give each its own analysis"
            )
    boxes = [region.to_pixel(plane.wcs).bounding_box for region in regions]
    low = [min(box.ixmin for box in boxes), min(box.iymin for box in boxes)]
    high = [max(box.ixmax for box in boxes), max(box.iymax for box in boxes)]
    middle = plane.wcs.all_pix2world([[(a + b - 1) / 2 for a, b in zip(low, high, strict=True)]], 0)[0]
    side = max(b - a for a, b in zip(low, high, strict=True)) * plane.binsz * u.deg
    return SkyCoord(middle[0] * u.deg, middle[1] * u.deg, frame=plane.frame), side
