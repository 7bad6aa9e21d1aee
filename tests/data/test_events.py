import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.data.events import EventList, Gti, stack_events
from dl3flow.geometry.region import RegionGeometry

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


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([(0, 10)], [(20, 30)], [(0, 10), (20, 30)]),
        # touching and overlapping intervals become one, the same one counts once
        ([(0, 10)], [(10, 20)], [(0, 20)]),
        ([(0, 10), (20, 30)], [(5, 25)], [(0, 30)]),
        ([(0, 10)], [(0, 10)], [(0, 10)]),
        ([(20, 30), (0, 40)], [], [(0, 40)]),
    ],
)
def test_union(one, two, expected):
    for found in (gti(*one).union(gti(*two)), gti(*two).union(gti(*one))):
        assert pairs(found) == expected
        assert found.ontime.to_value("s") == sum(stop - start for start, stop in expected)


def test_union_of_other_reference():
    found = gti((0, 10)).union(gti((0, 10), reference=REFERENCE + 5 * u.s))
    assert np.allclose(pairs(found), [(0, 15)], atol=1e-9)
    assert found.reference == REFERENCE


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


def three(reference=REFERENCE, **columns):
    radec = SkyCoord([1, 2, 3] * u.deg, [0, 0.5, 0] * u.deg)
    return EventList(np.array([7, 8, 9]), [1, 2, 3] * u.s, reference, radec, [1, 2, 4] * u.TeV, **columns)


def test_selection_by_region_and_number():
    events = three()
    _, _, inside = RegionGeometry("icrs;circle(2, 0.4, 0.2)").index(events.radec)
    assert events.select(inside).event_id.tolist() == [8]
    assert events.select(np.isin(events.event_id, [7, 9])).energy.to_value("TeV").tolist() == [1, 4]


def test_stack_counts_from_one_reference():
    later = three(REFERENCE + 100 * u.s, phase=np.array([0.1, 0.2, 0.3]))
    found = stack_events([three(phase=np.zeros(3)), later])
    assert found.event_id.tolist() == [7, 8, 9, 7, 8, 9]
    assert found.time.to_value("s") == pytest.approx([1, 2, 3, 101, 102, 103], abs=1e-9)
    assert found.reference == REFERENCE
    assert found.radec.dec.deg.tolist() == [0, 0.5, 0, 0, 0.5, 0]
    assert found.phase.tolist() == [0, 0, 0, 0.1, 0.2, 0.3]
    assert found.event_type is None


def test_stack_drops_columns_of_two_forms():
    bits = three(event_type=np.zeros((3, 32), dtype=bool))
    numbers = three(event_type=np.arange(3))
    assert stack_events([bits, numbers]).event_type is None
    assert stack_events([bits, three()]).event_type is None
    assert stack_events([numbers, numbers]).event_type.tolist() == [0, 1, 2, 0, 1, 2]
