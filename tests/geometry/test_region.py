"""A region's own pixels: how much of them it covers."""

import astropy.units as u
import numpy as np
import pytest

from dl3flow.geometry.region import RegionGeometry


@pytest.mark.parametrize("radius", [0.03, 0.05, 0.1, 0.11, 0.2])
@pytest.mark.parametrize("place", ["icrs;circle(83.63, 22.01, {})", "galactic;circle(0.003, 88.007, {})"])
def test_a_circle_covers_its_solid_angle(place: str, radius: float) -> None:
    region = RegionGeometry(place.format(radius))
    expected = 2 * np.pi * (1 - np.cos(np.radians(radius)))
    assert region.solid_angle.to_value(u.sr)[0, 0] == pytest.approx(
        expected, rel=0.015 if radius < 0.1 else 0.003
    )
    whole = region.cover[region.cover.shape[0] // 2, region.cover.shape[1] // 2]
    assert whole == 1
    assert region.cover[0, 0] == 0
    assert np.array_equal(region.cover > 0.5, region.grid_mask) or radius < 0.1


def test_a_point_covers_nothing() -> None:
    assert RegionGeometry("icrs;point(83.63, 22.01)").solid_angle.value.tolist() == [[0]]
