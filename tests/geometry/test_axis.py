"""Axes: centres, nodes, bin membership, parsing."""

import astropy.units as u
import numpy as np
import pytest

from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis, parse_energy_edges, parse_positive_angle


def test_log_and_lin_centers() -> None:
    assert Axis.from_bounds("energy", 1 * u.TeV, 100 * u.TeV, 2).centers.value == pytest.approx(
        [10**0.5, 10**1.5]
    )
    assert Axis.from_bounds("rad", 0 * u.deg, 1 * u.deg, 2, "lin").centers.value == pytest.approx(
        [0.25, 0.75]
    )


def test_nodes_get_edges_half_way_and_half_a_step_beyond() -> None:
    axis = Axis.from_nodes("offset", [0, 0.5, 1, 1.5, 2, 2.5] * u.deg)
    assert axis.edges.value == pytest.approx([-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75])
    assert axis.centers.value.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


def test_a_value_on_an_edge_belongs_to_the_upper_bin_and_the_last_edge_to_the_last() -> None:
    axis = Axis("energy", [1, 2, 4] * u.TeV, "log")
    values = [0.999, 1, 1.999, 2, 4, 4.001] * u.TeV
    assert axis.index(values).tolist() == [-1, 0, 0, 1, 1, -1]
    assert axis.index(values.to("GeV")).tolist() == [-1, 0, 0, 1, 1, -1]


def test_contains_bin_asks_for_the_whole_bin_up_to_rounding() -> None:
    axis = Axis("energy", [1, 2, 4, 8] * u.TeV, "log")
    assert axis.contains_bin(2.0000001 * u.TeV, 8 * u.TeV).tolist() == [False, True, True]
    assert axis.contains_bin(2.1 * u.TeV, None).tolist() == [False, False, True]
    assert axis.contains_bin(None, 3.9 * u.TeV).tolist() == [True, False, False]


def test_energy_edges_from_text() -> None:
    edges = parse_energy_edges({"min": "1 TeV", "max": "10 TeV", "nbin": 11})
    assert edges[1].value == pytest.approx(1.23284673944)
    assert (edges[0], edges[-1]) == (1 * u.TeV, 10 * u.TeV)
    assert len(parse_energy_edges({"min": "100 GeV", "max": "10 TeV", "per_decade": 5})) == 11
    assert parse_energy_edges({"edges": ["1 TeV", "2000 GeV"]}).to_value("TeV").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"min": "10 TeV", "max": "1 TeV", "nbin": 3}, "`min` \\(10 TeV\\) must be below `max` \\(1 TeV\\)"),
        ({"min": "1 TeV", "max": "10 TeV", "nbin": 0}, "`nbin` must be at least 1, found 0"),
        ({"min": "1 TeV", "max": "10 TeV", "nbin": 100000}, "at most 10000"),
        ({"min": "0 TeV", "max": "10 TeV", "nbin": 3}, "`min` must be positive"),
        ({"min": "1 m", "max": "10 TeV", "nbin": 3}, "min: .*unit 'm'"),
        ({"min": "1 TeV", "nbin": 3}, "expected the keys"),
        ({"edges": ["2 TeV", "1 TeV"]}, "must be positive and increase"),
        ("1 TeV", "found '1 TeV'"),
    ],
)
def test_wrong_energies(entry: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_energy_edges(entry)


def test_angles_must_be_positive() -> None:
    assert parse_positive_angle("30 arcmin").to_value("deg") == pytest.approx(0.5)
    with pytest.raises(ValueError, match="above 0, found '-1 deg'"):
        parse_positive_angle("-1 deg")


def test_is_close_compares_name_and_edges() -> None:
    axis = Axis("energy", [1, 2] * u.TeV, "log")
    assert axis.is_close(Axis("energy", np.array([1000, 2000]) * u.GeV, "log"))
    assert not axis.is_close(axis.renamed("energy_true"))
    assert not axis.is_close(Axis("energy", [1, 2.1] * u.TeV, "log"))


def test_parts_and_places_of_edges() -> None:
    axis = Axis.from_bounds("energy", 1 * u.TeV, 100 * u.TeV, 4)
    part = axis.part(1, 3)
    assert part.edges.value == pytest.approx(10 ** np.array([0.5, 1, 1.5]))
    assert part.scale == "log"
    assert axis.edge_index([1e3, 1e4 * (1 + 1e-7), 1e5] * u.GeV, "here").tolist() == [0, 2, 4]
    with pytest.raises(InputError, match="here: 50 TeV is no edge of its axis 'energy'"):
        axis.edge_index([10, 50] * u.TeV, "here")
