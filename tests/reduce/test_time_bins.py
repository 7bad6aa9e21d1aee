"""Bins of time and phase, planned from an index."""

import astropy.units as u
import pytest
from astropy.time import Time

from dl3flow.data.index import ObservationEntry
from dl3flow.reduce.time_bins import (
    bins_of_spans,
    parse_phase_edges,
    parse_time_binning,
    plan_phase_bins,
    plan_time_bins,
)

REFERENCE = 53000.0


def entry(
    obs_id: int, start: float, minutes: float, lon: float | None = None, timesys: str = "tt"
) -> ObservationEntry:
    """A run that starts so many days after the reference."""
    location = None if lon is None else (lon, -23.0, 1800.0)
    seconds = start * 86400
    return ObservationEntry(
        obs_id,
        "t",
        0.0,
        0.0,
        seconds,
        seconds + 60 * minutes,
        REFERENCE,
        timesys,
        None,
        None,
        "T",
        {},
        location,
    )


RUNS = [entry(1, 0.80, 28), entry(2, 0.85, 28), entry(3, 1.10, 28), entry(4, 1.80, 28)]


def test_one_bin_per_run_needs_no_times() -> None:
    found = plan_time_bins(parse_time_binning("run"), [entry(7, float("nan"), 1), RUNS[0]])
    assert [(b.label, b.obs_ids, b.cut) for b in found] == [("7", (7,), ""), ("1", (1,), "")]


def test_nights_last_from_noon_to_noon() -> None:
    found = plan_time_bins(parse_time_binning("night"), RUNS)
    # without a place the third run, 5.5 h after the second, is of the same night
    assert [(b.label, b.obs_ids) for b in found] == [
        ("night-2003-12-27", (1, 2, 3)),
        ("night-2003-12-28", (4,)),
    ]
    at_greenwich = [entry(k, start, 28, lon=0.0) for k, start in ((1, 0.45), (2, 0.55), (3, 1.45))]
    assert [b.obs_ids for b in plan_time_bins(parse_time_binning("night"), at_greenwich)] == [(1,), (2, 3)]
    # six hours further east noon comes a quarter of a day earlier
    in_the_east = [entry(k, start, 28, lon=90.0) for k, start in ((1, 0.20), (2, 0.30), (3, 0.55))]
    assert [b.obs_ids for b in plan_time_bins(parse_time_binning("night"), in_the_east)] == [(1,), (2, 3)]


def test_bins_of_a_width_lie_on_a_grid_that_further_runs_do_not_move() -> None:
    binning = parse_time_binning({"width": "10 min"})
    first = plan_time_bins(binning, RUNS[:1])
    # 19:12 to 19:40, in TT
    assert [b.label[-8:] for b in first] == ["19-10-00", "19-20-00", "19-30-00"]
    assert all(b.cut == "time" and b.obs_ids == (1,) for b in first)
    assert first[1].high - first[1].low == pytest.approx(10 / 1440, abs=1e-9)
    every = plan_time_bins(binning, RUNS)
    assert every[: len(first)] == first
    assert [b.label for b in every] == sorted(b.label for b in every)
    # two runs within one bin
    shared = plan_time_bins(parse_time_binning({"width": "1 d"}), RUNS)
    assert [b.obs_ids for b in shared] == [(1, 2), (3, 4)]
    moved = plan_time_bins(parse_time_binning({"width": "1 d", "start": "MJD 53000.5"}), RUNS)
    assert [b.obs_ids for b in moved] == [(1, 2, 3), (4,)]


@pytest.mark.parametrize("second", ["00", "00.316", "00.816"])
def test_bins_of_a_second_have_names_of_their_own(second: str) -> None:
    binning = parse_time_binning({"width": "1 s", "start": f"2006-07-29 20:30:{second}"})
    found = bins_of_spans(binning, {1: (53945.9, 53945.9 + 60 / 86400)}, {})
    assert len({each.label for each in found}) == len(found) >= 60


def test_intervals_hold_the_runs_that_they_meet_and_empty_ones_are_none() -> None:
    start = Time(53000.8, format="mjd", scale="tt").utc
    texts = [f"MJD {float((start + k * u.min).mjd)!r}" for k in (0, 14, 28, 60)]
    pairs = [[texts[0], texts[1]], [texts[1], texts[2]], [texts[2], texts[3]]]
    found = plan_time_bins(parse_time_binning({"intervals": pairs[::-1]}), RUNS[:1])
    # the last one only touches the end of the run
    assert [b.obs_ids for b in found] == [(1,), (1,)]
    assert found[0].low == pytest.approx(53000.8, abs=1e-9)
    assert found[0].high == pytest.approx(found[1].low, abs=1e-9)


@pytest.mark.parametrize(
    ("binning", "words"),
    [
        ("nights", "expected `run`, `night`"),
        ({"width": "0.5 s"}, "1 s or more"),
        ({"width": "1 m"}, "width"),
        ({"width": "1 h", "stop": 3}, "expected `run`"),
        ({"intervals": []}, "expected a list of intervals"),
        ({"intervals": [["2004-01-01"]]}, r"expected `\[start, stop\]`"),
        ({"intervals": [["2004-01-02", "2004-01-01"]]}, "1 s or more"),
        ({"intervals": [["2004-01-01", "2004-01-03"], ["2004-01-02", "2004-01-04"]]}, "must not overlap"),
    ],
)
def test_what_is_no_binning_is_refused(binning: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_time_binning(binning)


def test_times_that_the_index_does_not_tell_and_too_many_bins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"observation 7 was taken.*take `time: run`"):
        plan_time_bins(parse_time_binning("night"), [entry(7, float("nan"), 1)])
    with pytest.raises(ValueError, match="make `width` larger"):
        plan_time_bins(parse_time_binning({"width": "1 s"}), [entry(k, k, 28) for k in range(9)])


def test_phases() -> None:
    assert parse_phase_edges(4) == (0.0, 0.25, 0.5, 0.75, 1.0)
    found = plan_phase_bins(parse_phase_edges([0.9, 1.0, 1.2]), RUNS[:2])
    assert [(b.low, b.high, b.obs_ids, b.cut) for b in found] == [
        (0.9, 1.0, (1, 2), "phase"),
        (1.0, 1.2, (1, 2), "phase"),
    ]
    for wrong in (1, True, [0.5], [0.5, 0.4], [0, 1.5], "x"):
        with pytest.raises(ValueError, match="expected a number of bins"):
            parse_phase_edges(wrong)
