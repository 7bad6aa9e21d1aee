"""Containment of a point source in a circle, and radii of directional cuts, by arithmetic."""

from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.irf.containment import containment
from dl3flow.irf.rad_max import cut_radius, largest_radius
from dl3flow.irf.table import IrfTable

ENERGY = Axis.from_bounds("energy_true", 1 * u.TeV, 100 * u.TeV, 2)
OFFSET = Axis("offset", [0, 1, 2] * u.deg)


def table(kind: str, axes: tuple[Axis, ...], values: dict[str, tuple[Any, str]]) -> IrfTable:
    shape = tuple(axis.n_bins for axis in axes)
    data = {name: np.broadcast_to(np.asarray(v, dtype=float), shape) for name, (v, _) in values.items()}
    return IrfTable(kind, axes, data, {name: u.Unit(unit) for name, (_, unit) in values.items()})


def test_a_gaussian_holds_39_percent_within_its_width() -> None:
    psf = table(
        "psf_3gauss",
        (ENERGY, OFFSET),
        {
            "SCALE": (1, "sr-1"), "SIGMA_1": (0.1, "deg"), "AMPL_2": (0, ""), "SIGMA_2": (0, "deg"),
            "AMPL_3": (0, ""), "SIGMA_3": (0, "deg"),
        },
    )  # fmt: skip
    found = containment(psf, [2, 50] * u.TeV, 0.1 * u.deg, [0.5, 1.2] * u.deg)
    assert found == pytest.approx(np.full((2, 2), 1 - np.exp(-0.5)), rel=1e-12)
    assert containment(psf, [2] * u.TeV, 1 * u.deg, [0.5] * u.deg) == pytest.approx(1.0, abs=1e-12)


def test_a_second_gaussian_weighs_by_amplitude_times_square_of_width() -> None:
    psf = table(
        "psf_3gauss",
        (ENERGY, OFFSET),
        {
            "SCALE": (1, "sr-1"), "SIGMA_1": (0.1, "deg"), "AMPL_2": (0.25, ""), "SIGMA_2": (0.2, "deg"),
            "AMPL_3": (0, ""), "SIGMA_3": (0, "deg"),
        },
    )  # fmt: skip
    # 0.25 x 2^2 = 1: both hold as many photons
    expected = 0.5 * (1 - np.exp(-0.5)) + 0.5 * (1 - np.exp(-0.125))
    assert containment(psf, [2] * u.TeV, 0.1 * u.deg, [0.5] * u.deg) == pytest.approx(expected, rel=1e-12)


def test_a_king_profile() -> None:
    psf = table("psf_king", (ENERGY, OFFSET), {"SIGMA": (0.1, "deg"), "GAMMA": (2.0, "")})
    # 1 - (1 + r^2 / (2 gamma sigma^2))^(1 - gamma) at r = 2 sigma: 1 - 2^-1
    assert containment(psf, [2] * u.TeV, 0.2 * u.deg, [0.5] * u.deg) == pytest.approx(0.5, rel=1e-12)


def test_a_table_is_summed_ring_by_ring() -> None:
    rad = Axis("rad", [0, 0.1, 0.2, 0.3] * u.deg)
    rings = (2 * np.pi * rad.centers * rad.widths).to_value("sr")
    # half, three tenths and two tenths of the photons
    psf = table("psf_table", (ENERGY, OFFSET, rad), {"RPSF": (np.array([0.5, 0.3, 0.2]) / rings, "sr-1")})
    for radius, expected in ((0.1, 0.5), (0.15, 0.65), (0.2, 0.8), (0.3, 1.0), (2.0, 1.0)):
        found = containment(psf, [2, 50] * u.TeV, radius * u.deg, [0.5] * u.deg)
        assert found == pytest.approx(np.full((2, 1), expected), rel=1e-9)


def test_outside_the_response_nothing_is_held() -> None:
    psf = table("psf_king", (ENERGY, OFFSET), {"SIGMA": (0.1, "deg"), "GAMMA": (2.0, "")})
    assert containment(psf, [200] * u.TeV, 0.2 * u.deg, [0.5] * u.deg) == 0
    with pytest.raises(InputError, match="unknown point-spread shape with a containment 'psf_moffat'"):
        containment(table("psf_moffat", (ENERGY,), {}), [2] * u.TeV, 0.2 * u.deg, [0.5] * u.deg)


def test_the_cut_is_that_of_the_nearest_bin() -> None:
    energy = Axis("energy", [1, 10, 100] * u.TeV, "log")
    cuts = table("rad_max_2d", (energy, OFFSET), {"RAD_MAX": ([[0.3, 0.4], [0.1, 0.2]], "deg")})
    at = [0.5, 2, 9.99, 10.01, 1000] * u.TeV
    assert cut_radius(cuts, at, 0.4 * u.deg).to_value("deg") == pytest.approx([0.3, 0.3, 0.3, 0.1, 0.1])
    assert cut_radius(cuts, at, 5 * u.deg).to_value("deg") == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2])
    for low, high, expected in ((20, 50, 0.1), (5, 50, 0.3), (200, 500, 0.1), (0.1, 0.5, 0.3)):
        axis = Axis("energy", [low, high] * u.TeV, "log")
        assert largest_radius(cuts, axis, 0.4 * u.deg).to_value("deg") == pytest.approx(expected)
