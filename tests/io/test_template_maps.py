"""Maps that spatial models are read from: units, energies, what is refused, and the model that they make."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.skymaps import write_sky_map
from dl3flow.io.template_maps import read_template_map
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Component

GEOM = SkyGeometry("galactic", "CAR", 184.5, -5.8, 0.1, (6, 8), (4.5, 3.5))
PROVENANCE = collect_provenance("test", "", {}, {})
ENERGY = Axis.from_bounds("energy_true", 1 * u.GeV, 100 * u.GeV, 2)


def write(path: Path, data: np.ndarray, unit: str, axes: tuple[Axis, ...] = ()) -> Path:
    write_sky_map(path, SkyMap({"template": Map(GEOM, axes, data, u.Unit(unit))}, {}), PROVENANCE)
    return path


def test_an_image_is_in_inverse_steradian(tmp_path: Path) -> None:
    data = np.arange(48.0).reshape(6, 8)
    path = write(tmp_path / "a.fits", data, "deg-2")
    options = read_template_map(path, {"normalize": False})
    assert options["frame"] == "galactic"
    assert options["geom"].shape == (6, 8)
    assert "edges" not in options
    assert options["values"] == pytest.approx(data * (180 / np.pi) ** 2, rel=1e-6)
    # of shares only the ratios count
    assert read_template_map(path)["values"] == pytest.approx(data)


def test_a_cube_of_fluxes_is_in_internal_units(tmp_path: Path) -> None:
    data = np.ones((2, 6, 8)) * np.array([3.0, 0.5])[:, None, None]
    path = write(tmp_path / "a.fits", data, "m-2 s-1 MeV-1 sr-1", (ENERGY,))
    options = read_template_map(path, {"normalize": False})
    assert options["edges"] == pytest.approx([1e-3, 1e-2, 1e-1])
    assert options["values"] == pytest.approx(data * 1e6 / 1e4, rel=1e-6)


def test_a_template_read_is_the_map(tmp_path: Path) -> None:
    """At pixel centres the model is the map, at bin centres of energy; halfway it is the geometric mean."""
    y, x = np.indices(GEOM.shape)
    data = np.stack([np.exp(0.1 * x - 0.2 * y), 2 + 0.1 * x])
    path = write(tmp_path / "a.fits", data, "sr-1", (ENERGY,))
    options = read_template_map(path, {"normalize": False})
    found = resolve(Component("template", (), {**options, "normalize": False}), "spatial", "here")
    lon, lat = GEOM.lonlat
    middle = np.radians([184.5, -5.8])
    center = (float(GEOM.center.l.rad), float(GEOM.center.b.rad))
    energy = ENERGY.centers.to_value("TeV")
    at = found.function(lon, lat, energy, *center)
    assert at == pytest.approx(data, rel=1e-6)
    between = found.function(lon, lat, np.array([1e-2]), *center)
    assert between[0] == pytest.approx(np.sqrt(data[0] * data[1]), rel=1e-6)
    half = np.radians(GEOM.wcs.all_pix2world(2.5, 3, 0))
    assert found.function(*half, energy, *center)[0] == pytest.approx(
        np.sqrt(data[0, 3, 2] * data[0, 3, 3]), rel=1e-6
    )
    # a power law beyond the bin centres, nothing beyond the edges of energy and sky
    steep = data[1, 3, 3] / data[0, 3, 3]
    ends = found.function(lon[3, 3], lat[3, 3], np.array([1.001e-3, 0.9e-3, 0.2]), *center)
    assert ends[0] == pytest.approx(data[0, 3, 3] * steep**-0.4996, rel=1e-3)
    assert ends[1:] == pytest.approx(0)
    outside = np.radians(GEOM.wcs.all_pix2world([-0.6, 7.6, 3], [3, 3, 5.6], 0))
    assert not found.function(*outside, energy, *center).any()
    assert middle == pytest.approx(center, abs=1e-6)


def test_what_is_refused(tmp_path: Path) -> None:
    data = np.ones((6, 8))
    counts = write(tmp_path / "a.fits", data, "ph")
    assert read_template_map(counts)["values"] == pytest.approx(data)
    with pytest.raises(InputError, match="unit 'ph', expected 'sr-1'"):
        read_template_map(counts, {"normalize": False})
    data[2, 3] = -0.5
    with pytest.raises(InputError, match=r"HDU TEMPLATE: has negative values, the least -0\.5"):
        read_template_map(write(tmp_path / "b.fits", data, "sr-1"))
    with pytest.raises(InputError, match="no value above zero"):
        read_template_map(write(tmp_path / "c.fits", 0 * data, "sr-1"))
    rad = Axis.from_bounds("rad", 0 * u.deg, 1 * u.deg, 2, "lin")
    with pytest.raises(InputError, match=r"found \['rad'\]"):
        read_template_map(write(tmp_path / "d.fits", np.ones((2, 6, 8)), "sr-1", (rad,)))


def test_a_missing_value_is_none(tmp_path: Path) -> None:
    """Off the projection a map has no value: nothing comes from there."""
    data = np.ones((6, 8))
    data[0, 0] = np.nan
    assert read_template_map(write(tmp_path / "a.fits", data, "sr-1"))["values"][0, 0] == 0
