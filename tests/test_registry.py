"""Binding of configuration entries to signatures, and what a wrong entry is told."""

from typing import Annotated, Literal

import astropy.units as u
import pytest

from dl3flow.errors import InputError
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.registry import Registry, convert

RINGS = Registry("background method")


@RINGS.register("ring-background")
def ring(
    data: object,
    *,
    r_in: u.Quantity[u.deg],
    width: Annotated[float, u.rad],
    mode: Literal["a", "b"] = "a",
    n: int = 3,
) -> str:
    """For these tests."""
    return f"{r_in} {width:.6f} {mode} {n}"


def test_options_are_converted_by_their_annotation() -> None:
    plugin, options = RINGS.bind({"name": "ring", "r_in": "42 arcmin", "width": "180 deg"}, "background")
    assert options["r_in"].to_value("deg") == pytest.approx(0.7)
    assert options["width"] == pytest.approx(3.14159265)
    assert (options["mode"], options["n"]) == ("a", 3)
    assert plugin(None, **options) == "42.0 arcmin 3.141593 a 3"
    assert RINGS.find("ring-background", "x") is plugin


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "rign"}, ["background.name", "unknown background method 'rign'", "did you mean 'ring'?"]),
        ({"name": "ring", "width": "1 deg"}, ["option 'r_in' of 'ring' is missing"]),
        (
            {"name": "ring", "r_in": "1 deg", "witdh": "1 deg"},
            ["unknown option 'witdh'", "did you mean 'width'?", "mode, n, r_in, width"],
        ),
        (
            {"name": "ring", "r_in": 0.7, "width": "1 deg"},
            ["background.r_in", "such as `1 deg`", "bare number 0.7"],
        ),
        ({"name": "ring", "r_in": "0.7 TeV", "width": "1 deg"}, ["background.r_in", "unit 'TeV'"]),
        ({"name": "ring", "r_in": "nan deg", "width": "1 deg"}, ["background.r_in", "one finite value"]),
        (
            {"name": "ring", "r_in": "1 deg", "width": "1 deg", "mode": "c"},
            ["'c' is not possible", "(choices: a, b)"],
        ),
        (
            {"name": "ring", "r_in": "1 deg", "width": "1 deg", "n": 1.5},
            ["background.n", "whole number", "1.5"],
        ),
        ({"name": "ring", "r_in": "1 deg", "width": "1 deg", "n": True}, ["background.n", "whole number"]),
        ("ring", ["expected an entry with a `name`", "'ring'"]),
    ],
)
def test_a_wrong_entry_is_told_in_one_sentence(entry: object, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        RINGS.bind(entry, "background")
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_parser_does_not_name_what_it_reads() -> None:
    with pytest.raises(
        InputError, match=r"^x.length: expected a value with a unit such as `1 deg`, found the bare number 2$"
    ):
        convert(2, PositiveAngle, "x.length")


def test_a_name_is_taken_once() -> None:
    registry = Registry("thing")
    registry.register("tag")(ring.function)
    with pytest.raises(KeyError, match="registered twice"):
        registry.register()(ring.function)


def test_none_is_kept_where_it_is_allowed() -> None:
    assert convert(None, int | None, "n") is None
    assert convert([1, 2], list[int], "n") == [1, 2]
    with pytest.raises(InputError, match=r"n\[1\]: expected a whole number, found 'x'"):
        convert([1, "x"], list[int], "n")
