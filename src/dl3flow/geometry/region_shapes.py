"""Regions as a table of shapes in pixels (the FITS region convention), and as DS9 text with all their digits."""

from __future__ import annotations

import re
import warnings

from astropy.table import QTable
from astropy.wcs import WCS

from dl3flow.errors import InputError
from dl3flow.geometry import shapes
from dl3flow.geometry.region import BINSZ, UNKNOWN, RegionGeometry
from dl3flow.geometry.regions import bounding_box, parse_regions
from dl3flow.geometry.sky import SkyGeometry

_DIGITS = 10  # of a degree: above the rounding of a projection, far below any pointing accuracy


def unknown_region() -> RegionGeometry:
    """Stand-in for the region of a spectrum whose file does not say where on the sky it was taken."""
    return RegionGeometry(UNKNOWN)


def shape_table(text: str) -> tuple[QTable, SkyGeometry]:
    """Shapes of DS9 region text, one row each, and the pixels in which they are given.

    Returns
    -------
    table : QTable
        SHAPE, X, Y, R and ROTANG as shapes need them. The first pixel is 0, as in all files of `regions` and gammapy,
        where the convention would have 1.
    pixels : SkyGeometry

    Raises
    ------
    InputError
        If the convention has no word for a shape.
    """
    found = parse_regions(text, "region", is_point_allowed=True)
    if any(isinstance(region, shapes.PointSkyRegion) for region in found):
        pixels = SkyGeometry.create(found[0].center, 5 * BINSZ, BINSZ, "TAN")
    else:
        center, width = bounding_box(found)
        pixels = SkyGeometry.create(center, width + 4 * BINSZ, BINSZ, "TAN")
    drawn = shapes.Regions([region.to_pixel(pixels.wcs) for region in found])
    try:
        with warnings.catch_warnings():
            # a shape that it cannot write is a warning to `regions`, and would go missing
            warnings.simplefilter("error")
            table = drawn.serialize(format="fits")
    except Exception as error:  # many kinds
        raise InputError(f"region '{text}': cannot be written as a FITS region ({error})") from None
    for row, region in enumerate(drawn):
        if isinstance(region, shapes.PolygonPixelRegion):  # filled up with zeros, which would be corners
            last = len(region.vertices.x) - 1
            for name in ("X", "Y"):
                table[name][row][last:] = table[name][row][last]
    return table, pixels


def text_of_shapes(table: QTable, wcs: WCS, where: str) -> str:
    """DS9 text of the shapes in a table.

    Raises
    ------
    InputError
        If there is none, or one is not known or excludes (``!``).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = shapes.Regions.parse(table, format="fits")
    except Exception as error:  # many kinds
        raise InputError(f"{where}: a shape of the region cannot be understood ({error})") from None
    if not len(found):
        raise InputError(f"{where}: holds no shape: name a region's file")
    if not all(region.meta.get("include", True) for region in found):
        raise InputError(f"{where}: an excluded shape (`!`) is not supported: write what is to be covered")
    return ds9_text(shapes.Regions([region.to_sky(wcs) for region in found]))


def ds9_text(regions: shapes.Regions) -> str:
    """DS9 text of regions, such as ``icrs;circle(83.63,22.01,0.11)``; one line for each after the first."""
    text = regions.serialize(format="ds9", precision=_DIGITS + 3)
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "global"))]
    short = [
        re.sub(r"-?\d+\.\d+", lambda found: repr(round(float(found[0]), _DIGITS)), line) for line in lines
    ]
    return ";".join(short[:2]) + "".join(f"\n{line}" for line in short[2:])
