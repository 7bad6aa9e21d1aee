"""Regions far from a map: none of its pixels."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.errors import InputError
from dl3flow.geometry.regions import bounding_box, exclusion_mask, parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry


@pytest.mark.parametrize("distance", [5, 60, 89, 95, 150, 180])
@pytest.mark.parametrize("shape", ["circle({}, 0, 0.3)", "ellipse({}, 0, 1, 2, 30)", "box({}, 0, 1, 2, 30)"])
def test_a_region_elsewhere_covers_no_pixel(distance: int, shape: str) -> None:
    geom = SkyGeometry.create(SkyCoord(0, 0, unit="deg"), 5 * u.deg, 0.1 * u.deg, "TAN")
    assert not region_mask(geom, parse_regions(f"icrs;{shape.format(distance)}", "here")).any()


def test_a_region_on_the_map_covers_its_area() -> None:
    geom = SkyGeometry.create(SkyCoord(0, 0, unit="deg"), 5 * u.deg, 0.02 * u.deg, "TAN")
    covered = region_mask(geom, parse_regions("icrs;circle(1, 0, 0.5)", "here")).sum() * 0.02**2
    assert covered == pytest.approx(np.pi * 0.5**2, rel=0.01)


def test_regions_too_far_apart_for_a_map_are_refused() -> None:
    regions = parse_regions("icrs;circle(83.63, 22.01, 0.1)\nicrs;circle(263, -22, 0.1)", "here")
    with pytest.raises(InputError, match="more than 75 deg apart"):
        bounding_box(regions)


def test_an_exclusion_drawn_for_one_field_holds_in_another_too() -> None:
    regions = parse_regions("icrs;circle(0, 0, 0.5)\nicrs;circle(90, 10, 0.5)", "here")
    whole, elsewhere = (
        SkyGeometry.create(SkyCoord(*at, unit="deg"), 4 * u.deg, 0.05 * u.deg, "TAN")
        for at in ((0, 0), (90, 10))
    )
    for geom in (whole, elsewhere):
        usable = exclusion_mask(geom, regions, whole, 0.2 * u.deg)
        assert not usable[40, 40]
        assert (~usable).sum() * 0.05**2 == pytest.approx(np.pi * 0.5**2, abs=0.16)
