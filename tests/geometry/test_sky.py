"""Sky pixels: solid angles, cutouts, grids, regions."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.errors import InputError
from dl3flow.geometry.regions import exclusion_mask, parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry, parse_sky_position

CRAB = SkyCoord(83.63, 22.01, unit="deg")


@pytest.fixture
def geom() -> SkyGeometry:
    return SkyGeometry.create(CRAB, 5 * u.deg, 0.05 * u.deg)


def test_published_solid_angle_of_the_central_pixel(geom: SkyGeometry) -> None:
    # 7.6154e-07 sr at the centre of this geometry, 7.6083e-07 at a corner (independent implementation)
    assert geom.solid_angle[50, 50].to_value("sr") == pytest.approx(7.6154e-07, rel=1e-5)
    assert geom.solid_angle[0, 0].to_value("sr") == pytest.approx(7.6083e-07, rel=1e-5)


@pytest.mark.parametrize("proj", ["CAR", "TAN", "SIN", "ZEA", "STG", "AIT"])
def test_solid_angles_of_a_small_map_add_up_to_its_area(proj: str) -> None:
    small = SkyGeometry.create(SkyCoord(10, 60, unit="deg"), 0.5 * u.deg, 0.05 * u.deg, proj)
    assert small.solid_angle.sum().to_value("deg2") == pytest.approx(0.25, rel=1e-3)


def test_center_and_pixels_round_trip(geom: SkyGeometry) -> None:
    assert geom.shape == (100, 100)
    assert geom.center.separation(CRAB).arcsec < 1e-6
    j, i, inside = geom.index(SkyCoord([83.63, 83.63, 0], [22.02, 30, 0], unit="deg"))
    assert inside.tolist() == [True, False, False]
    assert j[0] == 50
    x, y = geom.pixel_at(np.radians(83.63), np.radians(22.01), "icrs")
    assert (x, y) == (pytest.approx(49.5), pytest.approx(49.5))
    galactic = CRAB.galactic
    assert geom.pixel_at(galactic.l.rad, galactic.b.rad, "galactic") == pytest.approx((49.5, 49.5), abs=1e-6)


def test_a_cutout_keeps_the_grid_and_knows_its_place(geom: SkyGeometry) -> None:
    pointing = SkyCoord(82.0133, 22.0144, unit="deg")
    part = geom.cutout(pointing, 3 * u.deg)
    row, column = part.offset_in(geom)
    assert part.shape == (60, 50)  # cut at the border of the map in longitude
    assert (row, column) == part.corner
    lon, lat = part.lonlat
    whole_lon, whole_lat = geom.lonlat
    rows, columns = slice(row, row + 60), slice(column, column + 50)
    assert lon == pytest.approx(whole_lon[rows, columns], abs=1e-12)
    assert lat == pytest.approx(whole_lat[rows, columns], abs=1e-12)
    here, there = geom.overlap(part)
    assert (here, there) == ((rows, columns), (slice(0, 60), slice(0, 50)))


def test_no_overlap_is_one_sentence(geom: SkyGeometry) -> None:
    with pytest.raises(
        InputError, match=r"has no pixel within 3\.0 deg of \(120\.0000, 22\.0000\) deg: no overlap"
    ):
        geom.cutout(SkyCoord(120, 22, unit="deg"), 3 * u.deg)


def test_different_grids_do_not_mix(geom: SkyGeometry) -> None:
    other = SkyGeometry.create(SkyCoord(83.64, 22.01, unit="deg"), 5 * u.deg, 0.05 * u.deg)
    with pytest.raises(InputError, match="not on one pixel grid"):
        other.offset_in(geom)


@pytest.mark.parametrize(("width", "binsz"), [(1e-3, 0.02), (180, 1e-3)])
def test_impossible_sizes(width: float, binsz: float) -> None:
    with pytest.raises(InputError, match="`width`"):
        SkyGeometry.create(CRAB, width * u.deg, binsz * u.deg)


def test_the_seam_of_longitude_and_the_pole_are_ordinary_places() -> None:
    seam = SkyGeometry.create(SkyCoord(0, 10, unit="deg"), 1 * u.deg, 0.1 * u.deg)
    assert np.degrees(seam.separation(SkyCoord(359.95, 10, unit="deg"))).min() < 0.06
    pole = SkyGeometry.create(SkyCoord(30, 89.9, unit="deg"), 1 * u.deg, 0.1 * u.deg, "TAN")
    assert np.degrees(pole.separation(SkyCoord(0, 90, unit="deg"))).min() < 0.08
    assert pole.solid_angle.sum().to_value("deg2") == pytest.approx(1, rel=2e-3)


def test_galactic_geometry_of_an_icrs_place() -> None:
    geom = SkyGeometry.create(CRAB.galactic, 1 * u.deg, 0.1 * u.deg)
    assert geom.frame == "galactic"
    assert geom.center.icrs.separation(CRAB).arcsec < 1e-6
    fov_lon, fov_lat = geom.fov_lonlat(CRAB)
    assert np.degrees(np.hypot(fov_lon, fov_lat)) == pytest.approx(
        np.degrees(geom.separation(CRAB)), abs=1e-5
    )


def test_regions_by_pixel_centre(geom: SkyGeometry) -> None:
    regions = parse_regions("icrs;circle(83.63, 22.01, 0.2)", "exclusion")
    inside = region_mask(geom, regions)
    assert inside.sum() == np.count_nonzero(geom.separation(CRAB) <= np.radians(0.2))
    assert np.array_equal(exclusion_mask(geom, regions, geom), ~inside)
    fine = SkyGeometry.create(CRAB, 5 * u.deg, 0.01 * u.deg)
    drawn = exclusion_mask(fine, regions, fine, 0.05 * u.deg)
    assert (~drawn).sum() == 25 * inside.sum()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "icrs;circle(a, b)",
        "image;circle(10, 10, 3)",
        "icrs;point(83.63, 22.01)",
        "icrs;line(83, 22, 84, 22)",
        "icrs\ncircle(83.63, 22.01, 0.2)\ncircel(84, 22, 0.2)",
        "icrs;-circle(83.63, 22.01, 0.2)",
    ],
)
def test_wrong_regions_are_told(text: str) -> None:
    with pytest.raises(InputError, match="exclusion"):
        parse_regions(text, "exclusion")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"frame": "fk4", "lon": "1 deg", "lat": "2 deg"}, "unknown frame 'fk4'"),
        ({"frame": "icrs", "lon": "1 deg", "lat": "100 deg"}, "between -90 and 90 deg, found '100 deg'"),
        ({"frame": "icrs", "lon": "1 deg"}, "expected"),
        ({"frame": "icrs", "lon": 1, "lat": "2 deg"}, "lon: .*bare number"),
    ],
)
def test_wrong_positions(entry: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_sky_position(entry)
