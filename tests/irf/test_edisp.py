"""Dispersion kernels: bins by hand, and the short order of sums against the long one, with negative entries."""

import astropy.units as u
import numpy as np
import pytest

from dl3flow.geometry.axis import Axis
from dl3flow.irf.edisp import dispersion_kernels, kernels_from_density, migra_density
from dl3flow.irf.table import IrfTable

TRUE = Axis("energy_true", [0.1, 1, 10, 100] * u.TeV, "log")
MIGRA = Axis.from_bounds("migra", u.Quantity(0.0), u.Quantity(2.0), 4, "lin")
OFFSET = Axis.from_nodes("offset", [0, 1, 2] * u.deg)


def table(density: np.ndarray, migra: Axis = MIGRA) -> IrfTable:
    data = np.broadcast_to(density, (3, migra.n_bins, 3)).copy()
    data.setflags(write=False)
    return IrfTable(
        "edisp_2d", (TRUE, migra, OFFSET), {"MATRIX": data}, {"MATRIX": u.dimensionless_unscaled}, {}
    )


def test_parts_of_bins_by_hand() -> None:
    # migra bins 0-0.5, 0.5-1, 1-1.5, 1.5-2 with probabilities 0.1, 0.4, 0.3, 0.2
    edisp = table(np.array([0.2, 0.8, 0.6, 0.4])[:, None])
    true = Axis("energy_true", [0.5, 2] * u.TeV, "log")  # centre 1 TeV
    energy = Axis("energy", [0.25, 0.75, 1.25, 4] * u.TeV, "log")
    kernel = dispersion_kernels(edisp, true, energy, [0.5] * u.deg)
    assert kernel[0, :, 0] == pytest.approx([0.05 + 0.2, 0.2 + 0.15, 0.15 + 0.2])
    # a table that is not normalised is
    doubled = dispersion_kernels(table(np.array([0.4, 1.6, 1.2, 0.8])[:, None]), true, energy, [0.5] * u.deg)
    assert doubled == pytest.approx(kernel)
    nothing = dispersion_kernels(table(np.zeros((4, 1))), true, energy, [0.5] * u.deg)
    assert not nothing.any()


@pytest.mark.parametrize("negative", [False, True])
def test_sums_before_pixels_are_sums_after_them(negative: bool) -> None:
    generator = np.random.default_rng(3)
    migra = Axis.from_bounds("migra", u.Quantity(0.2), u.Quantity(3.0), 30, "lin")
    density = generator.uniform(0, 1, (3, 30, 3))
    if negative:
        density[1, :, 2] -= 0.3
    edisp = table(density, migra)
    true = Axis.from_bounds("energy_true", 0.2 * u.TeV, 50 * u.TeV, 7)
    energy = Axis.from_bounds("energy", 0.1 * u.TeV, 100 * u.TeV, 9)
    # between nodes, extrapolated beyond the last (to 2.5 deg), outside
    offset = [0.0, 0.3, 1.7, 2.0, 2.2, 2.5, 2.6, 1.5] * u.deg
    found = dispersion_kernels(edisp, true, energy, offset)
    long = migra_density(edisp, true.centers, offset, migra)
    assert long.min() == 0
    assert found == pytest.approx(kernels_from_density(long, migra, true, energy), abs=1e-14)
    assert not found[:, :, 6].any()
    assert found[2:5, :, :4].sum(axis=1) == pytest.approx(1, abs=1e-12)
