"""Effective areas by hand: linear in the logarithm of the energy and in the offset, zero outside the axes."""

import astropy.units as u
import numpy as np
import pytest

from dl3flow.geometry.axis import Axis
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.table import IrfTable

# centres at 10^0.5, 10^1.5 and 10^2.5 TeV
TRUE = Axis("energy_true", [1, 10, 100, 1000] * u.TeV, "log")
OFFSET = Axis.from_nodes("offset", [0, 1, 2] * u.deg)


def table(area: np.ndarray, unit: str = "m2") -> IrfTable:
    data = np.broadcast_to(area, (3, 3)).astype(float)
    data.setflags(write=False)
    return IrfTable("aeff_2d", (TRUE, OFFSET), {"EFFAREA": data}, {"EFFAREA": u.Unit(unit)})


def test_between_and_beyond_the_nodes() -> None:
    # (1 + 2 log10 E) (3 - offset): 2, 4, 6 at the centres of the energies, times 3, 2, 1
    aeff = table(np.array([2, 4, 6])[:, None] * np.array([3, 2, 1]))
    found = effective_area(aeff, [10, 100, 2] * u.TeV, [0, 0.5, 2.25] * u.deg).to_value("m2")
    # the outermost nodes are extrapolated to the edges
    by_energy = np.array([3, 5, 1 + 2 * np.log10(2)])[:, None]
    assert found == pytest.approx(by_energy * np.array([3, 2.5, 0.75]))
    in_cm2 = effective_area(
        table(aeff.data["EFFAREA"] * 1e4, "cm2"), [10, 100, 2] * u.TeV, [0, 0.5, 2.25] * u.deg
    )
    assert in_cm2.to_value("m2") == pytest.approx(found)


def test_outside_of_the_edges_and_below_zero_there_is_none() -> None:
    aeff = table(np.array([1, 100, 100])[:, None])
    assert effective_area(aeff, [0.9, 1100] * u.TeV, [1] * u.deg).to_value("m2").tolist() == [[0], [0]]
    # edges of the offsets are half a step beyond the outer nodes
    assert effective_area(aeff, [30] * u.TeV, [2.49, 2.51] * u.deg)[0, 1] == 0
    assert effective_area(aeff, [30] * u.TeV, [2.49] * u.deg)[0, 0] > 0
    # a steep rise extrapolated to the first edge would be negative: 1 - 99 / 2 at 1 TeV
    assert effective_area(aeff, [1.0] * u.TeV, [1] * u.deg)[0, 0] == 0


def test_any_shape_of_offsets() -> None:
    aeff = table(np.arange(9).reshape(3, 3))
    offset = np.linspace(0, 2, 6).reshape(2, 3) * u.deg
    found = effective_area(aeff, TRUE.centers, offset).to_value("m2")
    assert found.shape == (3, 2, 3)
    assert found == pytest.approx(3 * np.arange(3)[:, None, None] + offset.value)
