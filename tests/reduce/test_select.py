import datetime
from dataclasses import replace

import pytest

from dl3flow.data.index import ObservationEntry
from dl3flow.errors import InputError
from dl3flow.reduce.select import select_observations

# 2004-12-08T00:00:00 UTC is MJD 53347; TT was 64.184 s ahead.
CRAB = ObservationEntry(
    obs_id=1, target="Crab", ra=83.63, dec=22.51, tstart=64.184, tstop=64.184 + 1800, reference=53347.0, timesys="tt",
    livetime=1700.0, quality=0, telescope="HESS", hdus={},
)  # fmt: skip
MSH = replace(
    CRAB, obs_id=2, target="MSH 15-52", ra=228.6, dec=-58.8, tstart=86400.0, tstop=88000.0, livetime=200.0
)
POOR = replace(CRAB, obs_id=3, dec=21.51, tstart=172800.0, tstop=174600.0, quality=2, livetime=None)
ENTRIES = [CRAB, MSH, POOR]


def selected(criteria, entries=ENTRIES):
    return [s.entry.obs_id for s in select_observations(entries, criteria) if s.reason is None]


def reasons(criteria, entries=ENTRIES):
    return {s.entry.obs_id: s.reason for s in select_observations(entries, criteria) if s.reason}


def test_no_criterion_selects_all():
    assert selected({}) == [1, 2, 3]


def test_obs_ids_keep_their_order():
    assert selected({"obs_ids": [3, 1]}) == [3, 1]
    assert reasons({"obs_ids": [3, 1]}) == {2: "not in obs_ids"}


def test_target():
    assert selected({"target": "Crab"}) == [1, 3]
    assert selected({"target": ["MSH 15-52", "Crab"]}) == [1, 2, 3]
    assert reasons({"target": "Crab"}) == {2: "target is 'MSH 15-52', not 'Crab'"}


def test_cone():
    """The pointings lie 0.5 deg north and south of the centre."""
    cone = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg", "radius": "0.501 deg"}
    assert selected({"cone": cone}) == [1, 3]
    with pytest.raises(InputError, match="pointing is 0.50 deg from the cone's centre, beyond 0.499 deg"):
        select_observations([CRAB], {"cone": {**cone, "radius": "0.499 deg"}})
    # l, b of the Crab nebula
    galactic = {"frame": "galactic", "lon": "184.557 deg", "lat": "-5.784 deg", "radius": "0.52 deg"}
    assert selected({"cone": galactic}) == [1, 3]


def test_box():
    """In the frame's own longitude and latitude, across 0 too; MSH 15-52 lies at l = 320.3, b = -1.2 deg."""
    box = {"frame": "icrs", "lon": "83 deg", "lat": "22.4 deg", "width": "1.3 deg", "height": "1 deg"}
    assert selected({"box": box}) == [1]
    assert selected({"box": {**box, "height": "2 deg"}}) == [1, 3]
    plane = {"frame": "galactic", "lon": "5 deg", "lat": "0 deg", "width": "100 deg", "height": "4 deg"}
    assert selected({"box": plane}) == [2]
    assert reasons({"box": plane})[1] == "pointing lies outside the box"
    with pytest.raises(InputError, match=r"select\.box: `width` and `height` must be above 0"):
        selected({"box": {**plane, "width": "-1 deg"}})
    with pytest.raises(InputError, match=r"select\.box\.frame"):
        selected({"box": {**plane, "frame": "mars"}})


def test_zenith():
    entries = [replace(CRAB, zenith=44.0), replace(MSH, zenith=36.0), POOR]
    assert selected({"zenith": {"max": "40 deg"}}, entries) == [2]
    assert selected({"zenith": {"min": "40 deg", "max": "50 deg"}}, entries) == [1]
    assert reasons({"zenith": {"max": "40 deg"}}, entries) == {
        1: "zenith angle is 44.0 deg, above 40 deg",
        3: "the index has no zenith angle",
    }
    with pytest.raises(InputError, match="expected `{min: 20 deg, max: 45 deg}`"):
        selected({"zenith": 40}, entries)


def test_exclude_inverts():
    assert selected({"exclude": {"obs_ids": [1]}}) == [2, 3]
    assert selected({"target": "Crab", "exclude": {"quality": {"max": 0}}}) == [3]
    # all criteria within it must hold
    both = {"target": "Crab", "time": {"stop": "2004-12-09"}}
    assert selected({"exclude": both}) == [2, 3]
    assert reasons({"exclude": both}) == {1: "excluded by target and time"}
    assert selected({"exclude": {"exclude": {"obs_ids": [1]}}}) == [1]
    with pytest.raises(InputError, match=r"select\.exclude: unknown criterion 'runs'"):
        selected({"exclude": {"runs": [1]}})
    with pytest.raises(InputError, match=r"select\.exclude: expected criteria"):
        selected({"exclude": {}})


def test_time():
    """The first run starts on the stroke of midnight UTC and lasts half an hour."""
    assert selected({"time": {"start": "2004-12-08", "stop": "2004-12-08 00:30:00"}}) == [1]
    assert selected({"time": {"start": datetime.date(2004, 12, 9)}}) == [3]
    assert selected({"time": {"stop": "MJD 53348.5"}}) == [1, 2]
    found = reasons({"time": {"start": "2004-12-08 00:00:01"}})
    assert found == {1: "starts at 2004-12-08T00:00:00 UTC, before 2004-12-08 00:00:01"}


def test_livetime_and_quality():
    assert reasons({"livetime": {"min": "5 min"}}) == {
        2: "livetime is 200 s, below 5 min",
        3: "the index has no livetime",
    }
    assert reasons({"quality": {"max": 1}}) == {3: "quality is 2, above 1"}


def test_criteria_combine_and_each_reason_is_told():
    assert selected({"target": "Crab", "quality": {"max": 0}}) == [1]
    assert reasons({"target": "Crab", "livetime": {"min": "5 min"}})[2] == (
        "target is 'MSH 15-52', not 'Crab'; livetime is 200 s, below 5 min"
    )


CONE = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg", "radius": "1 deg"}
WRONG = [
    ({"targets": "Crab"}, "unknown criterion 'targets': did you mean 'target'?"),
    ({"obs_ids": [1, 9]}, r"obs_ids: there is no observation 9 \(choices: 1, 2, 3\)"),
    ({"obs_ids": "1"}, "obs_ids: expected a list, found '1'"),
    ({"obs_ids": ["1"]}, r"obs_ids\[0\]: expected a whole number, found '1'"),
    ({"obs_ids": [1, 1]}, "obs_ids: 1 is listed twice"),
    ({"target": "crab"}, "there is no target 'crab': did you mean 'Crab'"),
    ({"target": 5}, "target: expected a list, found 5"),
    ({"cone": {**CONE, "radius": "-1 deg"}}, "cone.radius: must be above 0, found '-1 deg'"),
    ({"cone": {**CONE, "lat": "100 deg"}}, "cone.lat: must lie between -90 and 90 deg"),
    ({"cone": {**CONE, "lon": 83.63}}, "cone.lon: .* found the bare number 83.63"),
    ({"cone": {**CONE, "frame": "fk4"}}, "cone.frame: unknown frame 'fk4'"),
    ({"cone": {"lon": "83.63 deg"}}, "cone: expected `{frame: icrs"),
    ({"time": {"from": "2004-12-08"}}, "time: expected `{start:"),
    ({"time": {"start": "last week"}}, "time.start: expected UTC text such as .* found 'last week'"),
    ({"time": {"start": 53347}}, "time.start: expected UTC text such as .* found 53347"),
    ({"time": {"start": "2005-01-01", "stop": "2004-01-01"}}, "`start` .* must be before `stop`"),
    ({"livetime": {"min": 300}}, "livetime.min: .* found the bare number 300"),
    ({"quality": {"max": "good"}}, "quality.max: expected a whole number, found 'good'"),
    ({"quality": {"max": -1}}, "none of the 3 observations meets all criteria"),
    (["Crab"], "expected criteria such as"),
]


@pytest.mark.parametrize(("criteria", "expected"), WRONG)
def test_wrong_criteria_are_refused(criteria, expected):
    with pytest.raises(InputError, match=expected) as error:
        select_observations(ENTRIES, criteria, "a.yaml: observations.hess.select")
    assert str(error.value).startswith("a.yaml: observations.hess.select")
    assert "\n" not in str(error.value)


def test_time_needs_a_reference():
    with pytest.raises(InputError, match="the index has no MJDREFI"):
        select_observations([replace(CRAB, reference=None)], {"time": {"start": "2004-12-08"}})


def test_empty_index():
    with pytest.raises(InputError, match="the index has no observations"):
        select_observations([], {})


def test_crab_of_hess(hess_dl3):
    from dl3flow.io.gadf_index import read_index

    assert selected({"target": "Crab"}, read_index(hess_dl3)) == [23523, 23526, 23559, 23592]
