from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time

from dl3flow.data.binning import uncut_places
from dl3flow.data.events import EventList, Gti
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.irf.table import IrfTable
from dl3flow.reduce import RECIPES
from dl3flow.reduce.filter import (
    TimeIntervals,
    filter_observation,
    parse_times,
    split_observation,
)
from dl3flow.reduce.safe_mask import apply_safe_masks
from dl3flow.registry import Plugin

EVENT_FILTER = Plugin("events", filter_observation)
# a leap second (2016-12-31) lies between this reference and the events, so that UTC and TT cannot be confused
REFERENCE = Time("2016-01-01", scale="tt")
START = Time("2017-03-01T00:00:00", scale="utc")
OFFSET = (START - REFERENCE).to_value("s")


@pytest.fixture
def run(demo_run):
    """Ten events, one every 100 s, at energies of 1 to 10 TeV and phases 0.05, 0.15, ...; good from 0 to 400 and 500 to 1000 s."""
    n = np.arange(10)
    bits = np.zeros((10, 32), dtype=bool)
    bits[n, n % 3] = True
    events = EventList(
        n,
        (OFFSET + 100 * n + 50) * u.s,
        REFERENCE,
        demo_run.pointing.directional_offset_by(0 * u.deg, 0.1 * n * u.deg),
        (n + 1.0) * u.TeV,
        bits,
        0.1 * n + 0.05,
    )
    gti = Gti((OFFSET + np.array([0.0, 500.0])) * u.s, (OFFSET + np.array([400.0, 1000.0])) * u.s, REFERENCE)
    meta = {**demo_run.meta, "tstart": OFFSET, "tstop": OFFSET + 1000, "warnings": ["first"]}
    for array in (events.event_id, events.phase, bits):
        array.setflags(write=False)
    return replace(demo_run, events=events, gti=gti, meta=meta, deadtime_fraction=0.1)


def bind(**options):
    return EVENT_FILTER.bind(options, "events")


def ids(observation):
    return observation.events.event_id.tolist()


def test_nothing_asked_changes_nothing(run):
    found = filter_observation(run)
    assert ids(found) == list(range(10))
    assert found.meta == run.meta
    assert found.livetime.value == pytest.approx(900 * 0.9)


def test_time(run):
    """00:04:10 to 00:09:10 UTC are 250 to 550 s: 150 s of the first good interval and 50 s of the second."""
    found = filter_observation(
        run, **bind(time={"start": "2017-03-01 00:04:10", "stop": "2017-03-01T00:09:10"})
    )
    # the event at 250 s is in, that at 550 s is not
    assert ids(found) == [2, 3, 4]
    assert found.ontime.to_value("s") == pytest.approx(200)
    assert found.livetime.to_value("s") == pytest.approx(180)
    assert found.meta["tstart"] == pytest.approx(OFFSET + 250)
    assert found.meta["tstop"] == pytest.approx(OFFSET + 550)
    assert found.meta["warnings"] == ["first", "OBS_ID 1001: 3 of 10 events were kept by time"]
    assert run.meta["warnings"] == ["first"]
    assert run.ontime.to_value("s") == pytest.approx(900)


def test_several_times_in_any_order(run):
    intervals = [["2017-03-01 00:10", "2017-03-01 00:12"], ["2017-03-01 00:00", "2017-03-01 00:02"]]
    found = filter_observation(run, **bind(time=intervals))
    assert ids(found) == [0, 6]
    assert found.ontime.to_value("s") == pytest.approx(240)


def test_time_without_good_time_is_refused(run):
    times = bind(time=["2017-03-01 00:06:50", "2017-03-01 00:08:10"])
    with pytest.raises(InputError, match="OBS_ID 1001: no good time lies in the intervals of `time`"):
        filter_observation(run, **times)


def test_phase_wraps_and_its_share_is_recorded(run):
    found = filter_observation(run, **bind(phase=[0.85, 0.25]))
    assert ids(found) == [0, 1, 8, 9]
    assert found.meta["phase_fraction"] == pytest.approx(0.4)
    assert found.meta["phase"] == [[0.0, 0.25], [0.85, 1.0]]
    assert found.ontime == run.ontime
    assert found.livetime.to_value("s") == pytest.approx(900 * 0.9 * 0.4)
    with pytest.raises(InputError, match="already selected by phase"):
        filter_observation(found, **bind(phase=[0.0, 0.1]))


def test_phase_from_an_ephemeris(run):
    """A period of 400 s from the start: events at 50, 150, ... s have the phases 1/8, 3/8, 5/8, 7/8 in turn."""
    options = bind(ephemeris={"epoch": START.tdb.mjd, "f0": "0.0025 Hz"}, phase=[0.25, 0.5])
    found = filter_observation(replace(run, events=replace(run.events, phase=None)), **options)
    assert ids(found) == [1, 5, 9]
    assert found.events.phase == pytest.approx([0.375] * 3, abs=1e-5)


def test_phase_without_column_is_refused(run):
    with pytest.raises(InputError, match="have no column 'PHASE': give `ephemeris`"):
        filter_observation(replace(run, events=replace(run.events, phase=None)), **bind(phase=[0.0, 0.5]))


def test_event_types_of_a_bit_mask(run):
    assert ids(filter_observation(run, **bind(event_types=[1]))) == [1, 4, 7]
    assert ids(filter_observation(run, **bind(event_types=[1, 2]))) == [1, 2, 4, 5, 7, 8]
    with pytest.raises(InputError, match="bits 0 to 31, there is no bit 32"):
        filter_observation(run, **bind(event_types=[32]))


def test_event_types_of_numbers(run):
    numbered = replace(run, events=replace(run.events, event_type=np.arange(10) % 4))
    assert ids(filter_observation(numbered, **bind(event_types=[3, 0]))) == [0, 3, 4, 7, 8]
    with pytest.raises(InputError, match="have no column 'EVENT_TYPE'"):
        filter_observation(replace(run, events=replace(run.events, event_type=None)), **bind(event_types=[1]))


def test_energy_is_half_open(run):
    found = filter_observation(run, **bind(energy={"min": "3 TeV", "max": "6000 GeV"}))
    assert found.events.energy.to_value("TeV").tolist() == [3, 4, 5]


def test_offset(run):
    found = filter_observation(run, **bind(offset="0.35 deg"))
    assert ids(found) == [0, 1, 2, 3]
    assert "kept by offset (up to 0.35 deg)" in found.meta["warnings"][-1]


def test_all_criteria_hold_together(run):
    options = bind(
        energy={"min": "2 TeV", "max": "9 TeV"}, offset="0.65 deg", event_types=[0], phase=[0.1, 0.5]
    )
    assert ids(filter_observation(run, **options)) == [3]


def test_bins_that_a_cut_empties_become_unsafe(demo_run):
    """0.6 to 11 TeV of bins from 0.1 to 10 TeV, four per decade: the first bin whole above 0.6 TeV begins at 1 TeV."""
    entry = {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "3 deg",
        "binsz": "0.1 deg",
        "energy": {"min": "0.1 TeV", "max": "10 TeV", "nbin": 8},
        "energy_true": {"min": "0.05 TeV", "max": "50 TeV", "nbin": 12},
    }
    recipe, options = RECIPES.bind(entry, "recipe")
    cut = filter_observation(demo_run, **bind(energy={"min": "0.6 TeV", "max": "11 TeV"}, offset="1 deg"))
    again = filter_observation(cut, **bind(energy={"min": "0.1 TeV", "max": "100 TeV"}, offset="2 deg"))
    masked = apply_safe_masks(again, recipe(again, "run", **options), [])
    assert masked.mask_safe.any(axis=(1, 2)).tolist() == [False] * 4 + [True] * 4
    # with their corners
    away = masked.geom.separation(demo_run.pointing) + np.radians(
        masked.geom.binsz / np.sqrt(2)
    ) > np.radians(1)
    assert away.any()
    assert not masked.mask_safe[:, away].any()
    assert masked.mask_safe[4:, ~away].all()
    assert masked.reasons.names == ("no response", "events.energy", "events.offset")
    # the counts of safe bins are those without a cut
    whole = recipe(demo_run, "run", **options)
    inside = masked.geom.separation(demo_run.pointing) < np.radians(0.9)
    assert np.array_equal(masked.counts.data[4:, inside], whole.counts.data[4:, inside])
    assert whole.counts.data[4:, inside].sum() > 100


def test_split(run):
    """A grid of 300 s: 300, 100 + 100, 300 and 100 s of good time; the interval before the run is left out."""
    edges = START + np.arange(-300, 1500, 300) * u.s
    parts = split_observation(run, list(zip(edges[:-1], edges[1:], strict=True)))
    assert [part.ontime.to_value("s") for part in parts] == pytest.approx([300, 200, 300, 100])
    assert [ids(part) for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [part.meta["tstart"] - OFFSET for part in parts] == pytest.approx([0, 300, 600, 900])
    assert [part.meta["tstop"] - OFFSET for part in parts] == pytest.approx([300, 600, 900, 1000])
    assert sum(part.livetime for part in parts).to_value("s") == pytest.approx(run.livetime.to_value("s"))
    assert {part.obs_id for part in parts} == {1001}


def test_split_leaves_out_intervals_without_good_time(run):
    gap = TimeIntervals(START + [410, 600] * u.s, START + [490, 700] * u.s)
    assert [ids(part) for part in split_observation(run, gap)] == [[6]]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"start": "2017-03-01"}, "expected `{start"),
        (["2017-03-02", "2017-03-01"], "must be before `stop`"),
        ([["2017-03-01", "2017-03-03"], ["2017-03-02", "2017-03-04"]], "must not overlap"),
        (["yesterday", "2017-03-01"], "expected UTC text"),
        (5, "expected `{start"),
    ],
)
def test_wrong_times(entry, expected):
    with pytest.raises(ValueError, match=expected):
        parse_times(entry)


def test_unknown_option_is_refused():
    with pytest.raises(InputError, match="unknown option 'times' of 'events': did you mean 'time'"):
        bind(times=[])


def test_flare_of_pks_2155_in_ten_minutes(hess_dl3):
    """The 15 runs of the night cut into 34 intervals of 10 minutes from 20:30 UTC give 44 observations."""
    entries = [e for e in read_index(hess_dl3) if e.target.startswith("PKS 2155-304")]
    start = Time("2006-07-29T20:30", scale="utc")
    edges = start + np.arange(35) * 10 * u.min
    grid = TimeIntervals(edges[:-1], edges[1:])
    night = [
        e
        for e in entries
        if abs((Time(e.reference, e.tstart / 86400, format="mjd") - start).to_value("h")) < 12
    ]
    runs = [read_observation(entry, hess_dl3) for entry in night]
    parts = [part for run in runs for part in split_observation(run, grid)]
    assert len(runs) == 15
    assert len(parts) == 44
    # the peer's sums over the same 34 intervals
    assert sum(part.ontime for part in parts).to_value("s") == pytest.approx(18413)
    assert sum(len(part.events) for part in parts) == 110381


@pytest.mark.parametrize(
    ("offset", "is_safe"), [("0.75 deg", True), ("0.65 deg", False), ("0.45 deg", False)]
)
def test_a_region_across_the_limit_is_not_safe(demo_run, offset: str, is_safe: bool) -> None:
    """Its exposure is that of the whole region, and part of its events are gone."""
    center = demo_run.pointing.directional_offset_by(0 * u.deg, 0.5 * u.deg)
    text = f"icrs;circle({center.ra.deg}, {center.dec.deg}, 0.2)"
    cut = filter_observation(demo_run, **bind(offset=offset))
    entry = {"name": "spectrum", "region": text, "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4}}
    recipe, options = RECIPES.bind(entry, "recipe")
    masked = apply_safe_masks(cut, recipe(cut, "run", **options), [])
    assert masked.mask_safe.any() == is_safe
    assert masked.reasons.dropped("events.offset").any() != is_safe
    # so is a point that takes events within 0.2 deg
    point = RegionGeometry(f"icrs;point({center.ra.deg}, {center.dec.deg})")
    axes = Axis("energy", u.Quantity([1, 10], u.TeV), "log"), Axis("offset", u.Quantity([0, 3], u.deg), "lin")
    rad_max = IrfTable("rad_max_2d", axes, {"RAD_MAX": np.full((1, 1), 0.2)}, {"RAD_MAX": u.deg}, {})
    assert uncut_places(replace(cut, rad_max=rad_max), point).tolist() == [[is_safe]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], r"found \[\]"),
        (3, "found 3"),
        ([1, -1], "count from 0, found -1"),
        (["a"], "expected a whole number, found 'a'"),
    ],
)
def test_event_types_that_no_event_is_of_are_refused(entry: object, message: str) -> None:
    with pytest.raises(InputError, match=rf"events.event_types: .*{message}"):
        bind(event_types=entry)
