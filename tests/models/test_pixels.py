"""Shares of a source's flux in pixels, their derivatives, and where a component is: for every registered spatial model."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from scipy.special import erf

from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import (
    PixelGrid,
    declared_position,
    depends_on_energy,
    fraction_derivatives,
    oversampling,
    pixel_fractions,
    pixel_integrals,
    radius,
)
from dl3flow.models.resolve import ModelFunction
from dl3flow.models.source import Component, Parameter
from dl3flow.models.spatial import SPATIAL_MODELS

from . import spatial_cases as cases

NAMES = SPATIAL_MODELS.names()
SCALED = [n for n in NAMES if not SPATIAL_MODELS.find(n, n).companions.get("is_absolute")]
EXTENDED = [n for n in SCALED if n != "point"]
GEOM = SkyGeometry("icrs", "CAR", 83.63, 22.01, 0.02, (41, 41), (21.0, 21.0))


def grid_of(found: ModelFunction, values: np.ndarray, geom: SkyGeometry = cases.WINDOW) -> PixelGrid:
    grid = PixelGrid.create(geom, oversampling(found, values, geom, cases.energies(found)), "icrs")
    for array in (grid.lon, grid.lat, values):
        array.setflags(write=False)
    return grid


def centroids(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.indices(shares.shape[-2:])
    return (shares * x).sum(axis=(-2, -1)), (shares * y).sum(axis=(-2, -1))


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("shift", [0.0, 0.003, 0.0099])
def test_pixel_shares_sum_to_one_about_the_true_centre(name: str, shift: float) -> None:
    found = cases.model(name)
    names = cases.names_of(name)
    for size in (0.0002, 0.004, 0.05):
        values = cases.values_of(name, **cases.ROUND)
        values[:2] = np.radians([83.63 + shift, 22.01 - shift])
        if "size" in found.companions:
            values[names.index(found.companions["size"])] = np.radians(size)
        if name == "shell":
            values[names.index("width")] = 0.3 * np.radians(size)
        shares = pixel_fractions(found, values, grid_of(found, values, GEOM), cases.energies(found))
        x, y = GEOM.pixel_at(values[0], values[1], "icrs")
        assert shares.sum(axis=(-2, -1)) == pytest.approx(1, abs=1e-12)
        assert centroids(shares)[0] == pytest.approx(x, abs=1e-6)
        assert centroids(shares)[1] == pytest.approx(y, abs=1e-6)


@pytest.mark.parametrize("name", EXTENDED)
def test_a_tiny_source_is_a_point(name: str) -> None:
    """In the middle of a pixel all of it is there, as of a point."""
    found = cases.model(name)
    values = cases.values_of(name, **cases.ROUND)
    values[:2] = np.radians([83.63, 22.01])
    for key in ("sigma", "r_0", "radius", "width"):
        if key in cases.names_of(name):
            values[cases.names_of(name).index(key)] = 1e-7
    shares = pixel_fractions(found, values, grid_of(found, values, GEOM), cases.energies(found))
    expected = pixel_fractions(
        cases.model("point"), values[:2], PixelGrid.create(GEOM, 1, "icrs"), cases.energies(found)
    )
    assert shares == pytest.approx(np.broadcast_to(expected, shares.shape), abs=1e-6)


@pytest.mark.parametrize("name", EXTENDED)
def test_the_shares_are_the_integral_over_pixels(name: str) -> None:
    """The same from 12 x 12 points of the bare density in each pixel, which wants no smoothing."""
    found = cases.model(name)
    values = cases.values_of(name)
    shares = pixel_fractions(found, values, grid_of(found, values), cases.energies(found))
    fine = PixelGrid.create(cases.WINDOW, 12, "icrs")
    first = () if cases.energies(found) is None else (cases.ENERGY,)
    density = fine.averaged(found.function(fine.lon, fine.lat, *first, *values))
    # densities of flat-sky norms, pixels at an edge that count a few points
    assert density.sum(axis=(-2, -1)) == pytest.approx(1, abs=2e-3)
    assert np.abs(shares - density).sum(axis=(-2, -1)).max() < 0.01


@pytest.mark.parametrize("name", [*NAMES, "round gauss", "round disk", "cube"])
def test_derivatives_agree_with_differences(name: str) -> None:
    kind = {"round gauss": "gauss", "round disk": "disk", "cube": "template"}.get(name, name)
    options = cases.template_options(4) if name == "cube" else {}
    found = cases.model(kind, **options)
    values = cases.values_of(kind, **(cases.ROUND if name.startswith("round") else {}))
    energy, grid = cases.energies(found), grid_of(found, values)
    if name == "cube":
        energy = cases.ENERGY
    is_free = np.ones(len(values), dtype=bool)
    shares, gradient, curvature = fraction_derivatives(found, values, grid, is_free, energy)
    assert shares == pytest.approx(pixel_fractions(found, values, grid, energy), abs=1e-15)
    assert gradient.shape == (len(values), *shares.shape)
    assert curvature.shape == (len(values), len(values), *shares.shape)
    scales = np.abs(gradient).reshape(len(values), -1).max(axis=1)
    for k in range(len(values)):
        step = np.zeros(len(values))
        step[k] = (3e-4 * grid.cell) if str(found.units[k]) == "rad" else 1e-5 * max(abs(values[k]), 0.1)
        ahead, behind = (pixel_fractions(found, values + s * step, grid, energy) for s in (1, -1))
        numeric = (ahead - behind) / (2 * step[k])
        assert gradient[k] == pytest.approx(numeric, abs=1e-6 * scales[k] + 1e-9 * scales.max() * step[k])
        ahead, behind = (
            fraction_derivatives(found, values + s * step, grid, is_free, energy)[1] for s in (1, -1)
        )
        numeric = (ahead - behind) / (2 * step[k])
        for m in range(len(values)):
            largest = np.abs(curvature[k, m]).max()
            noise = 1e-8 * scales[m] / step[k]
            assert curvature[k, m] == pytest.approx(numeric[m], abs=1e-4 * largest + noise)
            assert curvature[k, m] == pytest.approx(curvature[m, k], abs=0)


def test_only_free_parameters_have_derivatives() -> None:
    for name in ("gauss", "disk", "gauss_by_energy", "point"):
        found = cases.model(name)
        values = cases.values_of(name)
        grid, energy = grid_of(found, values), cases.energies(found)
        everything = fraction_derivatives(found, values, grid, np.ones(len(values), dtype=bool), energy)
        is_free = np.zeros(len(values), dtype=bool)
        is_free[[1, len(values) - 1]] = True
        _, gradient, curvature = fraction_derivatives(found, values, grid, is_free, energy)
        assert gradient == pytest.approx(everything[1][is_free], rel=1e-9, abs=1e-9 * np.abs(gradient).max())
        at = np.ix_(is_free, is_free)
        assert curvature == pytest.approx(everything[2][at], rel=1e-6, abs=1e-6 * np.abs(curvature).max())
        _, gradient, curvature = fraction_derivatives(found, values, grid, is_free & False, energy)
        assert gradient.shape[0] == 0
        assert curvature.shape[:2] == (0, 0)


@pytest.mark.parametrize("name", EXTENDED)
def test_a_source_moved_by_a_pixel_is_the_same_source_there(name: str) -> None:
    found = cases.model(name)
    at = np.array([30.3, 29.8])
    geom = SkyGeometry("icrs", "TAN", 83.63, 22.01, 0.02, (61, 61), (31.0, 31.0))
    shares = []
    for pixel in (at, at + (2, -3)):
        values = cases.values_of(name)
        values[:2] = np.radians([float(v) for v in geom.wcs.all_pix2world(*pixel, 0)])
        grid = grid_of(found, values, geom)
        shares.append(pixel_fractions(found, values, grid, cases.energies(found)))
    moved = np.roll(shares[0], (-3, 2), axis=(-2, -1))
    # a tangential plane is the sphere but for a part in 10^4 at half a degree
    assert np.abs(moved - shares[1]).sum(axis=(-2, -1)).max() < 2e-3


def test_the_window_is_that_of_the_radius() -> None:
    """Beyond the radius there is nothing left: half a part in 10^7 of what the middle has."""
    for name in EXTENDED:
        found, values = cases.model(name), cases.values_of(name)
        energy = cases.energies(found)
        reach = radius(found, values, energy) * (1 + 1e-9)
        angle = np.linspace(0, 2 * np.pi, 100)
        lon, lat = fov.displaced(values[0], values[1], reach, angle)
        first = () if energy is None else (energy,)
        beyond = found.function(lon, lat, *first, *values)
        middle = np.max(found.function(cases.WINDOW.lonlat[0], cases.WINDOW.lonlat[1], *first, *values))
        assert np.max(beyond) < 5e-8 * middle, name


def test_one_image_per_energy() -> None:
    found, values = cases.model("gauss_by_energy"), cases.values_of("gauss_by_energy")
    grid = grid_of(found, values)
    assert depends_on_energy(found)
    shares = pixel_fractions(found, values, grid, cases.ENERGY)
    for image, energy in zip(shares, cases.ENERGY, strict=True):
        alone = cases.values_of("gauss", sigma=0.05 * energy**-0.2, **cases.ROUND)
        assert image == pytest.approx(pixel_fractions(cases.model("gauss"), alone, grid), abs=1e-14)
    assert radius(found, values, cases.ENERGY) == pytest.approx(6 * np.radians(0.05) * 0.5**-0.2)
    assert oversampling(found, values, cases.WINDOW, cases.ENERGY) == int(
        np.ceil(0.02 / (0.05 * 4**-0.2 / 3))
    )


def test_a_constant_is_its_value_times_the_solid_angle() -> None:
    found = cases.model("constant")
    shares, gradient, curvature = fraction_derivatives(
        found, np.array([2.0]), PixelGrid.create(GEOM, 1, "icrs"), np.array([True])
    )
    assert shares == pytest.approx(2 * GEOM.solid_angle.value)
    assert gradient[0] == pytest.approx(GEOM.solid_angle.value)
    assert not curvature.any()


def test_a_model_in_another_frame() -> None:
    at = SkyCoord(*CENTER_DEG, unit="deg").galactic
    values = cases.values_of("gauss")
    values[:2] = at.l.rad, at.b.rad
    found = cases.model("gauss")
    grid = PixelGrid.create(cases.WINDOW, 1, "galactic")
    is_free = np.array([True, True, False, False, False])
    _, gradient, curvature = fraction_derivatives(found, values, grid, is_free)
    for k in range(2):
        step = 1e-7 * np.eye(5)[k]
        numeric = (
            pixel_fractions(found, values + step, grid) - pixel_fractions(found, values - step, grid)
        ) / 2e-7
        assert gradient[k] == pytest.approx(numeric, abs=1e-6 * np.abs(numeric).max())


CENTER_DEG = np.degrees(cases.CENTER)


def test_where_a_component_is() -> None:
    point = Component(
        "point", (Parameter("lon_0", 10.0, u.deg), Parameter("lat_0", 0.1, u.rad)), {"frame": "galactic"}
    )
    at = declared_position(point)
    assert at is not None
    assert at.frame.name == "galactic"
    assert (at.l.deg, at.b.rad) == pytest.approx((10, 0.1))
    assert declared_position(Component("constant", (Parameter("value", 1.0, u.Unit("sr-1")),))) is None


@pytest.mark.parametrize("name", ["gauss", "gauss_by_energy", "disk", "shell"])
def test_a_source_narrower_than_the_points_moves_smoothly(name: str) -> None:
    """A tenth of the distance between points: it must not jump from one to the next, nor may its derivatives.

    Within a pixel and on one side of its centre, where a source that small is shared as a point is.
    """
    found, values = cases.model(name), cases.values_of(name, **cases.ROUND)
    if name == "gauss_by_energy":
        values[3] = 0.0
    values[2] = 0.1 * np.radians(0.002)
    grid = PixelGrid.create(cases.WINDOW.part((16, 32), (16, 32)), 10, "icrs")
    is_free = np.arange(len(values)) < 2
    energy = cases.energies(found)
    steps = np.linspace(0, np.radians(-0.004), 31)
    shares, slopes = [], []
    for step in steps:
        at = fraction_derivatives(found, values + step * (np.arange(len(values)) == 1), grid, is_free, energy)
        shares.append(at[0])
        slopes.append(at[1][1])
    change = np.diff(shares, axis=0)
    mean = 0.5 * (np.array(slopes)[1:] + slopes[:-1]) * (steps[1] - steps[0])
    assert np.abs(change - mean).max() < 2e-2 * np.abs(change).max()


@pytest.mark.parametrize("place", [24.4, 24.47, 24.499, 24.49975])
@pytest.mark.parametrize("part", [0.05, 0.3])
def test_a_width_that_points_do_not_resolve_hardly_matters(place: float, part: float) -> None:
    """Also near a border of two pixels: as wide as a part of the distance between points, what is nearest must not take all.

    Of the bare density the derivative is 2.6 shares per distance of points at one place, and none 0.03 pixels from there.
    """
    found = cases.model("gauss")
    values = cases.values_of("gauss", **cases.ROUND)
    values[:2] = np.radians([float(v) for v in cases.WINDOW.wcs.all_pix2world(place, 23.8, 0)])
    grid = PixelGrid.create(cases.WINDOW.part((16, 32), (16, 32)), 10, "icrs")
    values[2] = part * grid.cell
    is_free = np.array([False, False, True, False, False])
    _, gradient, _ = fraction_derivatives(found, values, grid, is_free)
    assert 1e-5 < np.abs(gradient).max() * grid.cell < 0.2 * part


def test_a_width_that_points_resolve_is_left_alone() -> None:
    found = cases.model("gauss")
    values = cases.values_of("gauss", sigma=0.006, **cases.ROUND)
    grid = PixelGrid.create(cases.WINDOW.part((16, 32), (16, 32)), 10, "icrs")
    sampled = found.companions["expand"](
        grid.lon, grid.lat, *values, is_free=np.zeros(5, dtype=bool), cell=grid.cell, order=0
    ).density
    bare = found.function(grid.lon, grid.lat, *values)
    assert sampled == pytest.approx(bare, abs=1e-7 * bare.max())


def test_a_shape_that_depends_on_energy_wants_energies() -> None:
    found, values = cases.model("gauss_by_energy"), cases.values_of("gauss_by_energy")
    grid = PixelGrid.create(cases.WINDOW, 1, "icrs")
    for ask in (
        lambda: pixel_fractions(found, values, grid),
        lambda: oversampling(found, values, cases.WINDOW),
        lambda: radius(found, values),
    ):
        with pytest.raises(InputError, match="its shape depends on energy, which only maps take"):
            ask()


def test_integrals_are_neither_scaled_nor_moved() -> None:
    found, values = cases.model("gauss"), cases.values_of("gauss", sigma=0.3, **cases.ROUND)
    grid = PixelGrid.create(cases.WINDOW, 1, "icrs")
    whole = pixel_integrals(found, values, grid)
    # a window of 0.98 deg holds erf(0.49 / 0.3 sqrt(2))^2 of it
    assert whole.sum() == pytest.approx(erf(0.49 / 0.3 / np.sqrt(2)) ** 2, abs=2e-3)
    template = pixel_integrals(cases.model("template"), np.radians([83.6, 22.0]), grid)
    # between rough pixels the geometric mean, as the field interpolates, is 1.4 % less than the arithmetic one
    assert template.sum() == pytest.approx(0.986, abs=1e-3)
