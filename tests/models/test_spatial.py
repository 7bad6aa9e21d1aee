"""Contracts that every registered spatial model inherits, and values by hand."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from dl3flow.geometry import fov
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.resolve import ModelFunction
from dl3flow.models.spatial import SPATIAL_MODELS

from . import spatial_cases as cases

NAMES = SPATIAL_MODELS.names()
SMOOTH = [n for n in NAMES if n != "point"]
CENTERED = [n for n in SMOOTH if not SPATIAL_MODELS.find(n, n).companions.get("is_absolute")]
GRADIENTS = [n for n in NAMES if "gradient" in SPATIAL_MODELS.find(n, n).companions]


def around(distance: float = 0.15, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Directions around the models' centre, up to that many degrees from it; they cannot be written into."""
    generator = np.random.default_rng(3)
    angle = generator.uniform(0, 2 * np.pi, n)
    lon, lat = fov.displaced(*cases.CENTER, np.radians(distance) * np.sqrt(generator.random(n)), angle)
    for array in (lon, lat):
        array.setflags(write=False)
    return lon, lat


def at(found: ModelFunction, lon: np.ndarray, lat: np.ndarray, values: np.ndarray) -> np.ndarray:
    first = (cases.energies(found),) if "by_energy" in found.companions else ()
    return found.function(lon, lat, *first, *values)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_density_is_finite_not_negative_and_vectorised(name: str) -> None:
    found, values = cases.model(name), cases.values_of(name)
    lon, lat = around()
    density = at(found, lon, lat, values)
    assert density.shape[-1:] == lon.shape
    assert np.all(np.isfinite(density) & (density >= 0))
    assert density.max() > 0
    assert at(found, lon.reshape(5, 6), lat.reshape(5, 6), values).reshape(density.shape) == pytest.approx(
        density, rel=1e-13
    )
    assert at(found, lon[4], lat[4], values) == pytest.approx(density[..., 4], rel=1e-13)


@pytest.mark.parametrize("name", CENTERED)
def test_the_integral_over_the_sphere_is_one(name: str) -> None:
    """In rings around the centre, each a mean over position angles."""
    found, values = cases.model(name), cases.values_of(name)
    angle = 2 * np.pi * (np.arange(64) + 0.5) / 64
    edges = np.linspace(0, np.radians(0.9), 3001)
    rings = 0.5 * (edges[1:] + edges[:-1])
    lon, lat = fov.displaced(*cases.CENTER, rings[:, None], angle)
    mean = at(found, lon, lat, values).mean(axis=-1)
    total = (mean * 2 * np.pi * np.sin(rings) * np.diff(edges)).sum(axis=-1)
    # an ellipse of a Gaussian has the norm of a flat sky, a disk that of a sharp edge
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", CENTERED)
def test_a_source_is_the_same_on_the_other_side_of_its_centre(name: str) -> None:
    found, values = cases.model(name), cases.values_of(name)
    distance, angle = np.radians(np.linspace(0.01, 0.19, 9)), np.linspace(0.3, 5, 9)
    near = at(found, *fov.displaced(*cases.CENTER, distance, angle), values)
    far = at(found, *fov.displaced(*cases.CENTER, distance, angle + np.pi), values)
    assert far == pytest.approx(near, rel=1e-7)


@pytest.mark.parametrize("name", CENTERED)
def test_a_source_moves_with_its_position(name: str) -> None:
    """Also over the seam at zero longitude, and to 60 degrees from the equator."""
    found, values = cases.model(name), cases.values_of(name)
    distance, angle = np.radians(np.linspace(0.01, 0.19, 9)), np.linspace(0.3, 5, 9)
    here = at(found, *fov.displaced(*cases.CENTER, distance, angle), values)
    moved = values.copy()
    moved[:2] = 1e-3, 1.05
    there = at(found, *fov.displaced(*moved[:2], distance, angle), moved)
    assert there == pytest.approx(here, rel=1e-7)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_agree_with_differences(name: str) -> None:
    found, values = cases.model(name), cases.values_of(name)
    lon, lat = around()
    first = (cases.energies(found),) if "by_energy" in found.companions else ()
    gradient = found.companions["gradient"](lon, lat, *first, *values)
    density = found.function(lon, lat, *first, *values)
    assert gradient.shape == (len(values), *density.shape)
    for k in range(len(values)):
        step = np.zeros(len(values))
        step[k] = 1e-8 if str(found.units[k]) == "rad" and k < 3 else 1e-6 * max(abs(values[k]), 0.1)
        ahead, behind = (at(found, lon, lat, values + s * step) for s in (1, -1))
        numeric = (ahead - behind) / (2 * step[k])
        noise = 1e-15 * density.max() / step[k]
        assert gradient[k] == pytest.approx(numeric, rel=1e-5, abs=1e-6 * np.abs(numeric).max() + noise)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_parameters_is_true_of_some(name: str) -> None:
    plugin = SPATIAL_MODELS.find(name, name)
    for key in ("frozen", "limits"):
        assert set(plugin.companions[key]) <= set(plugin.parameters)
    assert plugin.companions.get("size", "lon_0") in plugin.parameters or name == "constant"
    assert list(plugin.parameters)[:2] == ["lon_0", "lat_0"] or name == "constant"


def test_the_round_gaussian_covers_the_sphere() -> None:
    gauss = SPATIAL_MODELS.find("gauss", "").function
    gradient = SPATIAL_MODELS.find("gauss", "").companions["gradient"]
    for sigma in (0.05, 20.0, 100.0):
        s = np.radians(sigma)
        total, _ = quad(
            lambda r, s=s: (
                2 * np.pi * np.sin(r) * float(gauss(0.0, np.pi / 2 - r, 0.0, np.pi / 2, s, 0.0, 0.0))
            ),
            0,
            min(12 * s, np.pi),
        )
        assert total == pytest.approx(1, abs=1e-7)
        # so the width moves the flux and makes none
        change, _ = quad(
            lambda r, s=s: np.sin(r) * float(gradient(0.0, np.pi / 2 - r, 0.0, np.pi / 2, s, 0.0, 0.0)[2]),
            0,
            min(12 * s, np.pi),
        )
        assert change == pytest.approx(0, abs=1e-6 / s)


def test_an_ellipse_that_is_a_circle_is_one() -> None:
    lon, lat = around()
    for name in ("gauss", "gauss_general", "disk"):
        found = cases.model(name)
        nearly = at(found, lon, lat, cases.values_of(name, e=1e-4, phi=20.0))
        assert nearly == pytest.approx(at(found, lon, lat, cases.values_of(name, **cases.ROUND)), rel=1e-4)


def test_the_generalised_gaussian_is_a_gaussian_at_one_half() -> None:
    """Of the width r_0 / sqrt(2); the two differ by the sphere, a part in sigma^2."""
    lon, lat = around()
    general = at(
        cases.model("gauss_general"),
        lon,
        lat,
        cases.values_of("gauss_general", r_0=0.1, eta=0.5, **cases.ROUND),
    )
    gauss = at(
        cases.model("gauss"), lon, lat, cases.values_of("gauss", sigma=0.1 / np.sqrt(2), **cases.ROUND)
    )
    assert general == pytest.approx(gauss, rel=1e-5)


def test_the_disk_by_hand() -> None:
    """One over its solid angle inside, half of that at the radius, 5 % half an edge's width beyond it."""
    disk, r = cases.model("disk"), np.radians(0.5)
    values = cases.values_of("disk", r_0=0.5, edge_width=0.1, **cases.ROUND)
    distances = np.array([0.0, 1.0, 1.05, 1.5]) * r
    found = at(disk, *fov.displaced(*cases.CENTER, distances, 0.4), values)
    area = 2 * np.pi * (1 - np.cos(r))
    expected = np.array([1, 0.5, 0.5 * (1 - erf(0.5 * 2.326174307353347)), 0]) / area
    assert found == pytest.approx(expected, abs=1e-9 / area)
    assert expected[2] * area == pytest.approx(0.05, abs=1e-4)


def test_the_axes_of_a_disk() -> None:
    """The major axis at phi east of north, the minor sqrt(1 - e^2) of it."""
    disk = cases.model("disk")
    values = cases.values_of("disk", r_0=0.5, e=0.8, phi=30.0, edge_width=0.001)
    along = at(disk, *fov.displaced(*cases.CENTER, np.radians([0.49, 0.51]), np.radians(30)), values)
    across = at(disk, *fov.displaced(*cases.CENTER, np.radians([0.29, 0.31]), np.radians(120)), values)
    for inside, outside in (along, across):
        assert inside == pytest.approx(1 / (np.pi * 0.6 * np.radians(0.5) ** 2), rel=1e-4)
        assert outside < 1e-9 * inside


def test_the_shell_by_hand() -> None:
    """In the middle the depth is the width, at the inner radius that of the longest line through the shell."""
    r, w = np.radians(0.3), np.radians(0.1)
    norm = 3 / (2 * np.pi * ((r + w) ** 3 - r**3))
    shell = at(
        cases.model("shell"),
        *fov.displaced(*cases.CENTER, np.array([0.0, r, r + w, 2 * r]), 1.0),
        cases.values_of("shell", radius=0.3, width=0.1),
    )
    longest = np.sqrt((r + w) ** 2 - r**2)
    assert shell == pytest.approx(norm * np.array([w, longest, 0, 0]), rel=1e-6, abs=1e-6 * norm * w)
    lon, lat = around(0.5)
    other = at(cases.model("shell2"), lon, lat, cases.values_of("shell2", r_0=0.4, eta=0.25))
    assert other == pytest.approx(
        at(cases.model("shell"), lon, lat, cases.values_of("shell", radius=0.3, width=0.1)), rel=1e-9
    )


def test_the_width_falls_with_energy() -> None:
    lon, lat = around()
    found = at(
        cases.model("gauss_by_energy"), lon, lat, cases.values_of("gauss_by_energy", sigma=0.1, delta=0.5)
    )
    for row, energy in zip(found, cases.ENERGY, strict=True):
        gauss = cases.values_of("gauss", sigma=0.1 / np.sqrt(energy), **cases.ROUND)
        assert row == pytest.approx(at(cases.model("gauss"), lon, lat, gauss), rel=1e-12)


def test_shares_of_a_template() -> None:
    """Normalised, a pixel has its share of the sum; moved by a pixel, the template has moved by one."""
    options = cases.template_options()
    geom: SkyGeometry = options["geom"]
    found = cases.model("template", **options)
    center = (float(geom.center.ra.rad), float(geom.center.dec.rad))
    lon, lat = geom.lonlat
    density = found.function(lon, lat, None, *center)
    assert density * geom.solid_angle.value == pytest.approx(options["values"] / options["values"].sum())
    moved = found.function(lon, lat, None, center[0], center[1] + np.radians(0.03))
    assert moved[2:-1, 3:-3] == pytest.approx(density[1:-2, 3:-3], rel=2e-3)


def test_every_energy_of_a_template_is_normalised() -> None:
    options = cases.template_options(3)
    found = cases.model("template", **options)
    geom = options["geom"]
    centers = np.sqrt(options["edges"][1:] * options["edges"][:-1])
    lon, lat = geom.lonlat
    found_at = found.function(lon, lat, centers, float(geom.center.ra.rad), float(geom.center.dec.rad))
    assert (found_at * geom.solid_angle.value).sum(axis=(1, 2)) == pytest.approx(1, rel=1e-9)


def test_a_template_around_the_whole_sky() -> None:
    """Its first and last column are neighbours; a constant map is constant across the seam."""
    geom = SkyGeometry("galactic", "CAR", 0.0, 0.0, 5.0, (36, 72), (36.5, 18.5))
    found = cases.model("template", geom=geom, values=np.ones(geom.shape), normalize=False, frame="galactic")
    lon = np.radians([0.0, 179.0, 181.0, 182.6, 359.0, -177.0])
    center = geom.center.galactic
    density = found.function(lon, np.full(6, 0.3), None, float(center.l.rad), float(center.b.rad))
    assert density == pytest.approx(1)
    assert found.companions["radius"](0.0, 0.0) == pytest.approx(np.pi, abs=1e-6)
