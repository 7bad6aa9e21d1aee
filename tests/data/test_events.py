import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.data.events import EventList, Gti

REFERENCE = Time(53000, format="mjd", scale="tt")


def gti(*pairs, reference=REFERENCE):
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return Gti(table[:, 0] * u.s, table[:, 1] * u.s, reference)


def pairs(found):
    return list(zip(found.start.to_value("s").tolist(), found.stop.to_value("s").tolist(), strict=True))


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([(0, 10)], [(2, 4), (6, 20)], [(2, 4), (6, 10)]),
        ([(0, 10), (20, 30)], [(5, 25)], [(5, 10), (20, 25)]),
        ([(0, 10)], [(0, 10)], [(0, 10)]),
        ([(0, 10)], [(10, 20)], []),
        ([(0, 10)], [], []),
        ([], [(0, 10)], []),
        # out of order, overlapping and touching intervals count once
        ([(5, 10), (0, 6), (10, 12)], [(1, 11)], [(1, 11)]),
        # an interval without length has no time
        ([(5, 5)], [(0, 10)], []),
    ],
)
def test_intersection(one, two, expected):
    assert pairs(gti(*one).intersection(gti(*two))) == expected
    assert pairs(gti(*two).intersection(gti(*one))) == expected


def test_intersection_of_other_reference():
    later = gti((0, 10), reference=REFERENCE + 5 * u.s)
    found = gti((0, 8)).intersection(later)
    assert np.allclose(pairs(found), [(5, 8)], atol=1e-9)
    assert found.reference == REFERENCE


def test_intersection_is_what_both_contain():
    """On 200 random sets of intervals, ontime equals the share of a fine grid of times inside both."""
    rng = np.random.default_rng(3)
    grid = np.arange(0.5, 100) * u.s
    for _ in range(200):
        one, two = (
            gti(*[(a, a + b) for a, b in zip(rng.integers(0, 90, 4), rng.integers(0, 10, 4), strict=True)])
            for _ in range(2)
        )
        assert one.intersection(two).ontime.value == (one.contains(grid) & two.contains(grid)).sum()


def test_selection_takes_every_column_along():
    radec = SkyCoord([1, 2, 3] * u.deg, [0, 0, 0] * u.deg)
    bits = np.eye(3, dtype=bool)
    events = EventList(
        np.array([7, 8, 9]),
        [1, 2, 3] * u.s,
        REFERENCE,
        radec,
        [1, 2, 4] * u.TeV,
        bits,
        np.array([0.1, 0.2, 0.3]),
    )
    found = events.select(np.array([True, False, True]))
    assert found.event_id.tolist() == [7, 9]
    assert found.time.to_value("s").tolist() == [1, 3]
    assert found.radec.ra.deg.tolist() == [1, 3]
    assert found.energy.value.tolist() == [1, 4]
    assert found.event_type.tolist() == [[True, False, False], [False, False, True]]
    assert found.phase.tolist() == [0.1, 0.3]
    assert len(events) == 3
