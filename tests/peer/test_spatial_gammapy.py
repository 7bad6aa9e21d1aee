"""Densities and defaults of every spatial model, and a template's, are those of gammapy."""

import logging
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest

from dl3flow.geometry import fov
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Component
from dl3flow.models.spatial import SPATIAL_MODELS

pytest.importorskip("gammapy", reason="gammapy is not installed: make peer")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

CENTER = np.radians([83.63, 22.01])
SHAPES = {
    "point": {},
    "gauss": {"sigma": 0.2, "e": 0.6, "phi": 30.0},
    "gauss-general": {"r_0": 0.3, "eta": 0.35, "e": 0.4, "phi": -50.0},
    "disk": {"r_0": 0.4, "e": 0.7, "phi": 100.0, "edge_width": 0.2},
    "shell": {"radius": 0.3, "width": 0.2},
    "shell2": {"r_0": 0.5, "eta": 0.3},
    "const": {"value": 1.7},
}
ROUND = {"gauss": {"sigma": 3.0}, "gauss-general": {"r_0": 0.3, "eta": 0.9}, "disk": {"r_0": 5.0}}


def theirs(tag: str):
    from gammapy.modeling.models import SPATIAL_MODEL_REGISTRY

    return SPATIAL_MODEL_REGISTRY.get_cls(tag)


def directions(reach: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    distance = np.radians(reach) * np.sqrt(generator.random(200))
    return fov.displaced(*CENTER, distance, generator.uniform(0, 2 * np.pi, 200))


@pytest.mark.parametrize("tag", SHAPES)
def test_defaults_limits_and_what_is_frozen(tag: str) -> None:
    plugin = SPATIAL_MODELS.find(tag, tag)
    model = theirs(tag)()
    assert list(model.tag) == [plugin.tags[0], plugin.tags[1]]
    assert list(plugin.parameters) == model.parameters.names
    for parameter in model.parameters:
        unit, default = plugin.parameters[parameter.name]
        assert default == pytest.approx(parameter.quantity.to_value(unit))
        assert (parameter.name in plugin.companions["frozen"]) == parameter.frozen
        limits = plugin.companions["limits"].get(parameter.name, (np.nan, np.nan))
        assert limits == pytest.approx((parameter.min, parameter.max), nan_ok=True)


@pytest.mark.parametrize(
    ("tag", "is_round"), [*((t, False) for t in SHAPES if t != "point"), *((t, True) for t in ROUND)]
)
def test_densities(tag: str, is_round: bool) -> None:
    values = (ROUND if is_round else SHAPES)[tag]
    plugin = SPATIAL_MODELS.find(tag, tag)
    model = theirs(tag)()
    given = []
    for name, (unit, default) in plugin.parameters.items():
        place = {"lon_0": CENTER[0], "lat_0": CENTER[1]}.get(name)
        parameter = model.parameters[name]
        if place is not None:
            parameter.quantity = place * u.rad
        elif name in values:
            parameter.value = values[name]
        given.append(parameter.quantity.to_value(unit) if (place is not None or name in values) else default)
    lon, lat = directions(10 if is_round else 0.7)
    expected = u.Quantity(model(lon * u.rad, lat * u.rad)).to_value("sr-1")
    found = plugin.function(lon, lat, *given)
    # the root at a shell's edge makes rounding of the distance large
    assert found == pytest.approx(
        np.broadcast_to(expected, found.shape), rel=1e-6, abs=1e-7 * np.max(expected)
    )


def our_template(path: Path, **entry: object) -> ModelFunction:
    from dl3flow.io.template_maps import read_template_map

    return resolve(Component("template", (), {**read_template_map(path, entry), **entry}), "spatial", "here")


def check_template(path: Path, *, normalize: bool, unit: str, shift: float = 0.0) -> None:
    from gammapy.modeling.models import TemplateSpatialModel

    logging.getLogger("gammapy").setLevel(logging.ERROR)
    model = TemplateSpatialModel.read(path, normalize=normalize)
    ours = our_template(path, normalize=normalize)
    geom = model.map.geom.to_image()
    center = geom.center_skydir.data
    # between pixel centres, where both interpolate
    ny, nx = geom.data_shape
    generator = np.random.default_rng(2)
    x, y = generator.uniform(1, nx - 2, 300), generator.uniform(1, ny - 2, 300)
    lon, lat = (np.radians(v) for v in geom.wcs.all_pix2world(x, y, 0))
    values = center.lon.rad + np.radians(shift), center.lat.rad - np.radians(shift)
    model.lon_0.quantity, model.lat_0.quantity = (v * u.rad for v in values)
    if model.is_energy_dependent:
        axis = model.map.geom.axes["energy_true"]
        energy = np.geomspace(axis.center[1], axis.center[-2], 7)
        expected = u.Quantity(model(lon * u.rad, lat * u.rad, energy[:, None])).to_value(unit)
        found = ours.function(lon, lat, energy.to_value("TeV"), *values)
    else:
        expected = u.Quantity(model(lon * u.rad, lat * u.rad)).to_value(unit)
        found = ours.function(lon, lat, None, *values)
    assert expected.max() > 0
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.05])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n_energy", [0, 4])
def test_templates(tmp_path: Path, n_energy: int, normalize: bool, shift: float) -> None:
    from gammapy.maps import Map, MapAxis

    axes = [MapAxis.from_energy_bounds("1 TeV", "10 TeV", n_energy, name="energy_true")] if n_energy else []
    template = Map.create(skydir=(83.6, 22.0), npix=(24, 20), binsz=0.1, axes=axes, unit="deg-2", proj="TAN")
    template.data = np.random.default_rng(5).uniform(0.1, 3, template.data.shape)
    template.write(tmp_path / "template.fits")
    check_template(tmp_path / "template.fits", normalize=normalize, unit="sr-1", shift=shift)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_diffuse_emission_of_fermi(public_data: Path, normalize: bool) -> None:
    path = public_data / "fermi-3fhl-crab" / "Fermi-LAT-3FHL_iem.fits"
    if not path.is_file():
        pytest.skip(f"the diffuse emission is absent: {path}")
    check_template(path, normalize=normalize, unit="sr-1" if normalize else "cm-2 s-1 TeV-1 sr-1")
