"""Kinds of options that background methods share."""

from typing import Annotated, Any

import astropy.units as u

from dl3flow.registry import convert


def parse_angle(entry: Any) -> u.Quantity:
    """Angle of zero or more from text such as ``0.1 rad``.

    Raises
    ------
    ValueError
        If it has no angular unit or is negative.
    """
    angle = convert(entry, Annotated[u.Quantity, u.rad], "value")
    if angle < 0 * u.rad:
        raise ValueError(f"expected an angle of 0 or more, found '{entry}'")
    return angle


def parse_count(entry: Any) -> int:
    """Whole number of at least 1.

    Raises
    ------
    ValueError
        If it is not.
    """
    number = convert(entry, int, "value")
    if number < 1:
        raise ValueError(f"expected at least 1, found {number}")
    return int(number)


def parse_turn(entry: Any) -> u.Quantity:
    """Angle of a thousandth of a radian or more, from text: a search in smaller steps around a circle takes minutes.

    Raises
    ------
    ValueError
        If it has no angular unit or is smaller.
    """
    angle = parse_angle(entry)
    if angle < _SMALLEST_TURN:
        raise ValueError(f"expected an angle of at least {_SMALLEST_TURN}, found '{entry}'")
    return angle


_SMALLEST_TURN = 0.001 * u.rad
Distance = Annotated[u.Quantity, parse_angle]
Turn = Annotated[u.Quantity, parse_turn]
Count = Annotated[int, parse_count]
