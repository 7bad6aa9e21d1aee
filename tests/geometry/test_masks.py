"""Masks grown, shrunk and moved; images on other pixels."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.errors import InputError
from dl3flow.geometry.masks import (
    boundary_mask,
    dilate,
    erode,
    interpolate_map,
    pixels_on,
    significance_mask,
)
from dl3flow.geometry.regions import away_mask, parse_regions, sample_mask
from dl3flow.geometry.sky import SkyGeometry

CRAB = SkyCoord(83.63, 22.01, unit="deg")


@pytest.fixture
def geom() -> SkyGeometry:
    return SkyGeometry.create(CRAB, 4 * u.deg, 0.1 * u.deg, "TAN")


def test_boundary(geom: SkyGeometry) -> None:
    inner = boundary_mask(geom, 0.5 * u.deg)
    # centres are at 0.05, 0.15 ... from the border: the sixth pixel is the first
    assert inner.sum() == 30 * 30
    assert inner[5, 5]
    assert not inner[4, 20]
    assert boundary_mask(geom, 0.05 * u.deg).all()


def test_grown_and_shrunk_by_a_disk(geom: SkyGeometry) -> None:
    one = np.zeros((2, *geom.shape), dtype=bool)
    one[0, 20, 20] = True
    grown = dilate(one, 0.2 * u.deg, geom)
    assert grown[0].sum() == 13
    assert not grown[1].any()
    assert np.array_equal(erode(grown, 0.2 * u.deg, geom), one)
    # the border is no edge of a mask
    assert erode(np.ones(geom.shape, dtype=bool), 1 * u.deg, geom).all()


def test_exclusion_from_significance() -> None:
    sqrt_ts = np.zeros((10, 10))
    sqrt_ts[2, 2:6] = [3.5, 6, 4, 3.1]
    sqrt_ts[3, 6] = 3.2  # touches by a corner
    sqrt_ts[8, 8] = 4.9
    sqrt_ts[2, 8] = np.nan
    usable = significance_mask(sqrt_ts, 5, 3)
    assert np.argwhere(~usable).tolist() == [[2, 2], [2, 3], [2, 4], [2, 5], [3, 6]]
    assert significance_mask(sqrt_ts, 10, 3).all()


def test_pixels_of_a_part_and_beyond(geom: SkyGeometry) -> None:
    values = np.arange(2.0 * 1600).reshape(2, 40, 40)
    inside = geom.part((3, 8), (10, 20))
    assert np.array_equal(pixels_on(values, geom, inside, -1), values[:, 3:8, 10:20])
    beyond = geom.part((-2, 3), (38, 42))
    placed = pixels_on(values, geom, beyond, -1)
    assert placed.shape == (2, 5, 4)
    assert np.array_equal(placed[:, 2:, :2], values[:, :3, 38:])
    assert np.all(placed[:, :2] == -1)
    assert np.all(placed[:, :, 2:] == -1)
    lon, _ = geom.lonlat
    assert beyond.lonlat[0][2:, :2] == pytest.approx(lon[:3, 38:])


def test_modes_of_a_cutout(geom: SkyGeometry) -> None:
    corner = SkyCoord(85.6, 23.8, unit="deg")
    whole = geom.cutout(corner, 1 * u.deg, mode="partial")
    assert whole.shape == (10, 10)
    assert whole.center.separation(corner).deg < 0.1
    trimmed = geom.cutout(corner, 1 * u.deg)
    here, _ = whole.overlap(trimmed)
    assert trimmed.shape == (here[0].stop - here[0].start, here[1].stop - here[1].start)
    assert trimmed.shape[0] < 10
    assert geom.cutout(CRAB, 1 * u.deg, mode="strict").shape == (10, 10)
    with pytest.raises(InputError, match="does not hold all pixels within 1.0 deg .* `trim` or `partial`"):
        geom.cutout(corner, 1 * u.deg, mode="strict")
    for mode in ("trim", "partial", "strict"):
        with pytest.raises(InputError, match="no overlap"):
            geom.cutout(SkyCoord(120, 22, unit="deg"), 1 * u.deg, mode=mode)


def test_larger_pixels_cover_the_same_sky(geom: SkyGeometry) -> None:
    larger = geom.downsampled(4)
    assert larger.shape == (10, 10)
    assert larger.solid_angle.sum().to_value("sr") == pytest.approx(
        geom.solid_angle.sum().to_value("sr"), rel=2e-5
    )
    x, y = geom.wcs.all_pix2world(1.5, 1.5, 0)
    assert [np.degrees(v[0, 0]) for v in larger.lonlat] == pytest.approx([float(x), float(y)], abs=1e-9)
    with pytest.raises(InputError, match="40 x 40 pixels has no whole squares of 7 x 7"):
        geom.downsampled(7)


def test_interpolation_is_exact_for_a_plane(geom: SkyGeometry) -> None:
    lon, lat = geom.lonlat
    fine = SkyGeometry.create(CRAB, 2 * u.deg, 0.03 * u.deg, "TAN")
    y, x = np.indices(geom.shape)
    at_x, at_y = geom.pixel(SkyCoord(*fine.lonlat, unit="rad"))
    moved = interpolate_map(np.stack([2.0 * x - y, np.ones(geom.shape)]), geom, fine)
    assert moved[0] == pytest.approx(2 * at_x - at_y)
    assert moved[1] == pytest.approx(1)


@pytest.mark.parametrize("frame", ["icrs", "galactic"])
def test_off_the_map_there_is_nothing(frame: str, geom: SkyGeometry) -> None:
    wide = SkyGeometry.create(CRAB.transform_to(frame), 6 * u.deg, 0.2 * u.deg, "CAR")
    moved = interpolate_map(np.ones(geom.shape), geom, wide)
    covered = np.isfinite(moved)
    assert covered.sum() == pytest.approx(400, abs=25)
    assert moved[covered] == pytest.approx(1)
    counts = interpolate_map(np.ones(geom.shape), geom, wide, preserve_counts=True)
    assert counts.sum() == pytest.approx(1600)
    assert counts[15, 15] == pytest.approx(4, rel=0.1)


def test_counts_are_collected(geom: SkyGeometry) -> None:
    counts = np.random.default_rng(1).poisson(3.0, (2, *geom.shape)).astype(float)
    merged = interpolate_map(counts, geom, geom.downsampled(2), preserve_counts=True)
    assert merged == pytest.approx(counts.reshape(2, 20, 2, 20, 2).sum(axis=(2, 4)))
    # and shared out evenly to pixels that divide them
    fine = SkyGeometry.create(CRAB, 4 * u.deg, 0.02 * u.deg, "TAN")
    shared = interpolate_map(counts[0], geom, fine, preserve_counts=True)
    assert shared.sum() == pytest.approx(counts[0].sum(), rel=1e-9)
    assert shared.reshape(40, 5, 40, 5).sum(axis=(1, 3)) == pytest.approx(counts[0], rel=1e-6)
    assert np.all(shared[100:105, 100:105] > 0)


def test_a_mask_on_other_pixels_and_in_another_frame(geom: SkyGeometry) -> None:
    near = geom.separation(CRAB) < np.radians(1)
    galactic = SkyGeometry.create(CRAB.galactic, 3 * u.deg, 0.05 * u.deg, "CAR")
    moved = sample_mask(geom, near, galactic)
    distance = np.degrees(galactic.separation(CRAB))
    assert moved[distance < 0.92].all()
    assert not moved[(distance > 1.08) & (distance < 1.9)].any()


def test_pixels_that_show_the_background_alone(geom: SkyGeometry) -> None:
    crab = {"crab": (83.63, 22.01)}
    assert away_mask(geom, None, {}).all()
    far = away_mask(geom, None, crab)
    assert np.array_equal(far, geom.separation(CRAB) >= np.radians(0.3))
    elsewhere = parse_regions("icrs;circle(82.63, 22.01, 0.5)", "exclusion")
    assert away_mask(geom, elsewhere, crab)[20, 20]
