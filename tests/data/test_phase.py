import numpy as np
import pytest
from astropy.time import Time, TimeDelta

from dl3flow.data.phase import Ephemeris, PhaseIntervals, parse_ephemeris, parse_phases
from dl3flow.errors import InputError


@pytest.mark.parametrize(
    ("entry", "bounds", "fraction"),
    [
        ([0.2, 0.5], [(0.2, 0.5)], 0.3),
        ([[0.25, 0.5], [0.75, 1.0]], [(0.25, 0.5), (0.75, 1.0)], 0.5),
        ([0.75, 1.25], [(0.0, 0.25), (0.75, 1.0)], 0.5),
        ([0.75, 0.25], [(0.0, 0.25), (0.75, 1.0)], 0.5),
        ([-0.25, 0.25], [(0.0, 0.25), (0.75, 1.0)], 0.5),
        ([0, 1], [(0.0, 1.0)], 1.0),
    ],
)
def test_intervals(entry, bounds, fraction):
    found = parse_phases(entry)
    assert list(found.bounds) == bounds
    assert found.fraction == pytest.approx(fraction)


def test_limits_are_half_open():
    found = PhaseIntervals.from_pairs([(0.75, 0.25)]).contains(
        np.array([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999])
    )
    assert found.tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ([0.5], "expected phases such as"),
        ("0.2-0.5", "expected phases such as"),
        ([[0.1, "x"]], "expected phases such as"),
        ([], "expected phases such as"),
        ([0.2, 0.2], "spans more than 0"),
        ([0.2, 1.5], "at most 1"),
        ([0.2, 5.0], "from 0 to 1"),
        ([[0.2, 0.5], [0.4, 0.6]], "must not overlap"),
    ],
)
def test_wrong_intervals(entry, expected):
    with pytest.raises(ValueError, match=expected):
        parse_phases(entry)


def test_phase_of_a_slowing_rotation():
    """0.25 s after the epoch at 2 Hz: half a turn; at 10 s with f1 = -0.01 Hz/s, 20 - 0.5 turns."""
    epoch = Time(54686, format="mjd", scale="tdb")
    rotation = Ephemeris(54686.0, 2.0, -0.01)
    found = rotation.phase(epoch + TimeDelta([0.25, 10.0], format="sec"))
    assert found == pytest.approx([0.5 - 0.01 / 32, 0.5], abs=1e-9)


def test_microseconds_survive_ten_years():
    """A turn of 33 ms, 3653 days later, to 1e-4 of a turn; the time is given in UTC."""
    rotation = Ephemeris(54686.0, 30.0)
    start = Time(54686 + 3653, format="mjd", scale="tdb")
    times = (start + TimeDelta([0.0, 1 / 120], format="sec")).utc
    assert rotation.phase(times) == pytest.approx([0.0, 0.25], abs=1e-4)


def test_ephemeris_option():
    found = parse_ephemeris({"epoch": 54686.15, "f0": "0.03 kHz", "f1": "-3.7e-10 Hz / s"})
    assert (found.epoch, found.f0, found.f1, found.f2) == (54686.15, 30.0, -3.7e-10, 0.0)


@pytest.mark.parametrize(
    "entry",
    [
        {"f0": "30 Hz"},
        {"epoch": 54686, "f0": 30},
        {"epoch": 54686, "f0": "-1 Hz"},
        {"epoch": "x", "f0": "1 Hz"},
        3,
    ],
)
def test_wrong_ephemeris(entry):
    with pytest.raises((ValueError, InputError)):
        parse_ephemeris(entry)
