"""Contracts that every registered model inherits, and values by hand."""

import numpy as np
import pytest
from scipy.integrate import quad

from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import PixelGrid, oversampling, pixel_fractions
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.registry import Plugin

SPECTRA = [*SPECTRAL_MODELS, *NORM_MODELS]
ENERGY = np.geomspace(0.1, 50, 40)
ENERGY.setflags(write=False)


def _values(plugin: Plugin) -> np.ndarray:
    defaults = np.array([float(default) for _, default in plugin.parameters.values()])
    names = list(plugin.parameters)
    # away from the defaults, so that no derivative vanishes by chance
    return defaults + np.array(
        [0.05 if n in ("tilt", "lambda_", "alpha", "beta", "e", "phi") else 0.0 for n in names]
    )


@pytest.mark.parametrize("plugin", SPECTRA, ids=lambda p: p.name)
def test_a_spectrum_is_finite_positive_and_vectorised(plugin: Plugin) -> None:
    values = _values(plugin)
    flux = plugin.function(ENERGY, *values)
    assert flux.shape == ENERGY.shape
    assert np.all(np.isfinite(flux) & (flux > 0))
    assert plugin.function(ENERGY[3], *values) == flux[3]
    assert plugin.function(ENERGY.reshape(4, 10), *values).ravel() == pytest.approx(flux, rel=1e-14)


@pytest.mark.parametrize("plugin", SPECTRA, ids=lambda p: p.name)
def test_a_gradient_agrees_with_differences(plugin: Plugin) -> None:
    values = _values(plugin)
    gradient = plugin.companions["gradient"](ENERGY, *values)
    assert gradient.shape == (len(values), len(ENERGY))
    for k, value in enumerate(values):
        step = np.zeros(len(values))
        step[k] = 1e-5 * max(abs(value), 1e-2) if value > 1e-6 else 1e-5 * abs(value)
        numeric = (plugin.function(ENERGY, *(values + step)) - plugin.function(ENERGY, *(values - step))) / (
            2 * step[k]
        )
        assert gradient[k] == pytest.approx(numeric, rel=1e-6, abs=1e-6 * np.abs(numeric).max())


def test_spectra_by_hand() -> None:
    find = SPECTRAL_MODELS.find
    assert find("pl", "").function(10.0, 1e-12, 2.0, 1.0) == pytest.approx(1e-14)
    assert find("lp", "").function(10.0, 1e-12, 1.0, 2.0, 0.5) == pytest.approx(
        1e-14 * 10 ** (-0.5 * np.log(10))
    )
    assert find("ecpl", "").function(10.0, 1e-12, 2.0, 1.0, 0.1, 1.0) == pytest.approx(1e-14 / np.e)
    assert NORM_MODELS.find("pl-norm", "").function(100.0, 2.0, 0.5, 1.0) == pytest.approx(0.2)


def test_the_gaussian_integrates_to_one() -> None:
    gauss = SPATIAL_MODELS.find("gauss", "").function
    for sigma in (0.05, 1.0, 20.0):
        s = np.radians(sigma)
        total, _ = quad(
            lambda r, s=s: 2 * np.pi * np.sin(r) * float(gauss(0.0, r, 0.0, 0.0, s, 0.0, 0.0)),
            0,
            min(12 * s, np.pi),
        )
        assert total == pytest.approx(1, abs=1e-6)


GEOM = SkyGeometry("icrs", "CAR", 83.63, 22.01, 0.02, (41, 41), (21.0, 21.0))


@pytest.mark.parametrize("name", SPATIAL_MODELS.names())
@pytest.mark.parametrize("shift", [0.0, 0.003, 0.0099])
def test_pixel_shares_sum_to_one_about_the_true_centre(name: str, shift: float) -> None:
    plugin = SPATIAL_MODELS.find(name, "")
    for size in (0.0002, 0.004, 0.05):
        values = np.array([float(d) for _, d in plugin.parameters.values()])
        values[:2] = np.radians([83.63 + shift, 22.01 - shift])
        if "size" in plugin.companions:
            values[list(plugin.parameters).index(plugin.companions["size"])] = np.radians(size)
        grid = PixelGrid.create(GEOM, oversampling(plugin, values, GEOM), "icrs")
        shares = pixel_fractions(plugin, values, grid)
        x, y = GEOM.pixel_at(values[0], values[1], "icrs")
        assert shares.sum() == pytest.approx(1, abs=1e-12)
        assert (shares.sum(axis=0) @ np.arange(41), shares.sum(axis=1) @ np.arange(41)) == pytest.approx(
            (x, y), abs=1e-6
        )


def test_a_point_is_shared_by_area() -> None:
    plugin = SPATIAL_MODELS.find("point", "")
    lon, lat = GEOM.wcs.all_pix2world(20.25, 19.5, 0)
    shares = pixel_fractions(plugin, np.radians([lon, lat]), PixelGrid.create(GEOM, 1, "icrs"))
    assert shares[19:21, 20:22] == pytest.approx(np.array([[0.375, 0.125], [0.375, 0.125]]), abs=1e-9)
    assert shares.sum() == pytest.approx(1)


def test_an_ellipse_points_north_at_phi_zero() -> None:
    plugin = SPATIAL_MODELS.find("gauss", "")
    values = np.array([np.radians(83.63), np.radians(22.01), np.radians(0.06), 0.8, 0.0])
    shares = pixel_fractions(plugin, values, PixelGrid.create(GEOM, 4, "icrs"))
    offsets = np.arange(41) - 20
    tall, wide = (
        np.sqrt((shares.sum(axis=1) * offsets**2).sum()),
        np.sqrt((shares.sum(axis=0) * offsets**2).sum()),
    )
    assert tall * 0.02 == pytest.approx(0.06, rel=0.02)
    assert wide / tall == pytest.approx(0.6, rel=0.02)
    values[4] = np.pi / 2
    turned = pixel_fractions(plugin, values, PixelGrid.create(GEOM, 4, "icrs"))
    assert (turned.sum(axis=0) * offsets**2).sum() > (turned.sum(axis=1) * offsets**2).sum()


def test_models_are_changed_by_full_name() -> None:
    point = Component("point", (Parameter("lon_0", 1.0), Parameter("lat_0", 2.0)))
    spectrum = Component(
        "power_law", (Parameter("amplitude", 1e-12), Parameter("index", 2.0), Parameter("reference", 1.0))
    )
    models = Models((Source("a", spectrum, point), Source("b", spectrum, point)))
    changed = models.with_parameters({"b.index": Parameter("index", 3.0)})
    assert changed.parameters()["b.index"].value == 3.0
    assert changed.parameters()["a.index"].value == 2.0
    assert models.parameters()["b.index"].value == 2.0
