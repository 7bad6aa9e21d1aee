"""Point spreads by hand: Gaussians with unused components, King profiles."""

import astropy.units as u
import numpy as np
import pytest

from dl3flow.geometry.axis import Axis
from dl3flow.irf.psf import point_spread
from dl3flow.irf.table import IrfTable

TRUE = Axis("energy_true", [0.1, 10] * u.TeV, "log")
OFFSET = Axis.from_nodes("offset", [0, 2] * u.deg)
RAD = Axis.from_bounds("rad", 0 * u.deg, 30 * u.deg, 30000, "lin")
RING = 2 * np.pi * RAD.centers.to_value("rad") * RAD.widths.to_value("rad")


def parametric(kind: str, **columns: tuple[list[float], str]) -> IrfTable:
    data = {name: np.array([values]) for name, (values, _) in columns.items()}
    return IrfTable(
        kind, (TRUE, OFFSET), data, {name: u.Unit(unit) for name, (_, unit) in columns.items()}, {}
    )


def held(psf: IrfTable, radius: float, offset: float) -> float:
    """Share of the light within a radius in deg."""
    density = point_spread(psf, [1] * u.TeV, RAD, [offset] * u.deg).to_value("sr-1")[0, :, 0]
    assert (density * RING).sum() == pytest.approx(1, abs=1e-12)
    return float((density * RING)[RAD.centers.to_value("deg") < radius].sum())


def test_half_of_a_king_profile() -> None:
    psf = parametric("psf_king", GAMMA=([2, 4], ""), SIGMA=([0.1, 0.1], "deg"))
    # 1 - (1 + r^2 / (2 gamma sigma^2))^(1 - gamma): half within 0.2 deg for gamma 2; gamma is 3 half-way
    assert held(psf, 0.2, 0) == pytest.approx(0.5, abs=2e-3)
    assert held(psf, np.sqrt(6 * (np.sqrt(2) - 1)) * 0.1, 1) == pytest.approx(0.5, abs=2e-3)
    for empty in (
        parametric("psf_king", GAMMA=([1, 1], ""), SIGMA=([0.1, 0.1], "deg")),
        parametric("psf_king", GAMMA=([2, 2], ""), SIGMA=([0, 0], "deg")),
    ):
        assert not point_spread(empty, [1] * u.TeV, RAD, [0] * u.deg).value.any()


def test_unused_gaussians_leave_the_others_alone() -> None:
    unused = {
        "AMPL_2": ([0, 0], ""),
        "SIGMA_2": ([0, 0], "deg"),
        "AMPL_3": ([5, 5], ""),
        "SIGMA_3": ([0, 0], "deg"),
    }
    psf = parametric("psf_3gauss", SCALE=([1, 1], "sr-1"), SIGMA_1=([0.1, 0.1], "deg"), **unused)
    # a Gaussian holds half of its light within sqrt(2 ln 2) sigma
    assert held(psf, 0.1 * np.sqrt(2 * np.log(2)), 0) == pytest.approx(0.5, abs=2e-3)
    dark = parametric("psf_3gauss", SCALE=([0, 0], "sr-1"), SIGMA_1=([0, 0], "deg"), **unused)
    assert not point_spread(dark, [1] * u.TeV, RAD, [0] * u.deg).value.any()
