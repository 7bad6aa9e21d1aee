"""Shares of pixels, values of spatial models by hand, and models changed by name."""

import numpy as np
import pytest
from scipy.integrate import quad

from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import PixelGrid, pixel_fractions
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.models.spatial import SPATIAL_MODELS


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
