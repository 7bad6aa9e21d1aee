"""Background rates by hand: power laws in energy, linear logarithms over the field, gaps, alignments."""

import astropy.units as u
import numpy as np
import pytest

from dl3flow.geometry.axis import Axis
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.table import IrfTable

UNIT = u.Unit("s-1 TeV-1 sr-1")
ENERGY = Axis.from_bounds("energy", 0.1 * u.TeV, 100 * u.TeV, 6)
LON, LAT = (Axis.from_bounds(name, -2 * u.deg, 2 * u.deg, 8, "lin") for name in ("fov_lon", "fov_lat"))
AT = np.zeros(1)


def cube(rate: np.ndarray, alignment: str = "RADEC") -> IrfTable:
    data = np.broadcast_to(rate, (6, 8, 8)).copy()
    data.setflags(write=False)
    return IrfTable("bkg_3d", (ENERGY, LON, LAT), {"BKG": data}, {"BKG": UNIT}, {"fov_alignment": alignment})


def power_law(index: float) -> np.ndarray:
    return ENERGY.centers.to_value("TeV")[:, None, None] ** -index


def test_a_power_law_is_integrated_exactly() -> None:
    bins = Axis("energy", [1, 2, 8] * u.TeV, "log")
    # over [1, 2]: 1 - 1/2; over [2, 8]: 1/2 - 1/8
    for oversampling in (1, 4):
        rate = background_rate(cube(power_law(2)), bins, AT, AT, oversampling=oversampling)
        assert rate.to_value("s-1 sr-1")[:, 0] == pytest.approx([0.5, 0.375], rel=1e-12)
    flat = background_rate(cube(power_law(1)), bins, AT, AT).to_value("s-1 sr-1")[:, 0]
    assert flat == pytest.approx([np.log(2), np.log(4)], rel=1e-12)


def test_a_broken_power_law_needs_parts() -> None:
    # index 0 below 10 TeV and 2 above, the break on a node of the table
    rate = np.minimum(1.0, (ENERGY.centers.to_value("TeV") / ENERGY.centers[4].to_value("TeV")) ** -2.0)
    node, last = (ENERGY.centers[n].to_value("TeV") for n in (4, 5))
    exact = (node - 1) + node**2 * (1 / node - 1 / last)
    bins = Axis("energy", [1, last] * u.TeV, "log")
    found = [
        background_rate(cube(rate[:, None, None]), bins, AT, AT, oversampling=n).value[0, 0]
        for n in (1, 1000)
    ]
    assert found[0] < 0.7 * exact
    assert found[1] == pytest.approx(exact, rel=1e-4)


def test_gaps_between_energies_are_filled_if_asked_for() -> None:
    rate = np.ones(6) * [1, 0, 100, 1, 0, 0]
    bins = Axis("energy", ENERGY.centers[[1, 1]] * [0.999, 1.001], "log")
    table = cube(rate[:, None, None])
    # the second of three values is the geometric mean of its neighbours
    filled = background_rate(table, bins, AT, AT).value[0, 0] / bins.widths.value[0]
    assert filled == pytest.approx(10, rel=1e-3)
    assert background_rate(table, bins, AT, AT, fill_gaps=False).value[0, 0] == pytest.approx(0, abs=1e-12)
    # beyond the last energy with a rate nothing is filled
    above = Axis("energy", ENERGY.centers[[5, 5]] * [0.99, 1.01], "log")
    assert background_rate(table, above, AT, AT).value[0, 0] == 0


@pytest.mark.parametrize(("alignment", "sign"), [("RADEC", 1), ("ALTAZ", 1), ("REVERSE_LON_RADEC", -1)])
def test_the_logarithm_is_linear_over_the_field(alignment: str, sign: int) -> None:
    x, y = (axis.centers.to_value("deg") for axis in (LON, LAT))
    table = cube(power_law(2) * np.exp(0.3 * x[:, None] - 0.7 * y), alignment)
    lon, lat = np.radians([0.1, -1.3, 1.95, 0.0, 2.1]), np.radians([0.2, 0.9, -1.99, 2.05, 0.0])
    bins = Axis("energy", [1, 2] * u.TeV, "log")
    found = background_rate(table, bins, lon, lat).value[0]
    expected = 0.5 * np.exp(0.3 * sign * np.degrees(lon) - 0.7 * np.degrees(lat))
    assert found[:3] == pytest.approx(expected[:3], rel=1e-9)
    assert found[3:].tolist() == [0, 0]


def test_a_radial_table_reaches_to_its_last_edge() -> None:
    offset = Axis.from_bounds("offset", 0 * u.deg, 3 * u.deg, 3, "lin")
    data = power_law(2)[:, :, 0] * np.array([4.0, 2.0, 1.0])
    table = IrfTable("bkg_2d", (ENERGY, offset), {"BKG": data}, {"BKG": UNIT}, {})
    bins = Axis("energy", [1, 2] * u.TeV, "log")
    at = np.radians([0.5, 1.0, 2.5, 2.9, 4.5])
    found = background_rate(table, bins, at * 0.6, at * 0.8).value[0]
    # nodes at 0.5, 1.5 and 2.5 deg; half-way in the logarithm is the geometric mean; flat beyond the last node
    assert found == pytest.approx([2, 0.5 * np.sqrt(8), 0.5, 0.5, 0], rel=1e-9)


def test_many_points_are_the_points_one_by_one() -> None:
    generator = np.random.default_rng(1)
    table = cube(power_law(2.7) * np.exp(generator.normal(size=(6, 8, 8))))
    lon, lat = np.radians(generator.uniform(-2.2, 2.2, (2, 5000)))
    bins = Axis.from_bounds("energy", 0.2 * u.TeV, 90 * u.TeV, 5)
    whole = background_rate(table, bins, lon, lat).value
    for n in (0, 2047, 2048, 4999):
        one = background_rate(table, bins, lon[n : n + 1], lat[n : n + 1]).value[:, 0]
        assert np.array_equal(whole[:, n], one)
