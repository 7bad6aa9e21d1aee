"""Theta squared: events placed by hand around a position and its off positions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.events import EventList
from dl3flow.data.observation import Observation
from dl3flow.data.products import ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators import EVENT_TABLES
from dl3flow.estimators.theta_squared import off_positions
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.kernels.statistics import wstat_ts

CRAB = SkyCoord(83.63, 22.01, unit="deg")
ENTRY = {"name": "theta_squared", "position": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}}


def table_of(observations: list[Observation], **more: Any) -> ProductTable:
    estimate, options = EVENT_TABLES.bind({**ENTRY, **more}, "theta2")
    return estimate(iter(observations), **options)


def _with_events(run: Observation, at: SkyCoord, energy: u.Quantity) -> Observation:
    """The run with events at some directions, at the start of its good time, seen from 0.5 deg south of the position."""
    n = len(at)
    shift = (run.gti.reference - run.events.reference).to(u.s)
    time = np.full(n, 1.0) * u.s + run.gti.start[0] + shift
    events = EventList(np.arange(n), time, run.events.reference, at, energy)
    return replace(run, events=events, pointing=CRAB.directional_offset_by(180 * u.deg, 0.5 * u.deg))


@pytest.fixture(scope="module")
def run(demo_run: Observation) -> Observation:
    """Ten events 0.05 deg and five 0.15 deg from the position, four and two so from the opposite place, one at no place."""
    pointing = CRAB.directional_offset_by(180 * u.deg, 0.5 * u.deg)
    opposite = pointing.directional_offset_by(180 * u.deg, 0.5 * u.deg)
    places = [
        (CRAB, 0.05, 10),
        (CRAB, 0.15, 5),
        (opposite, 0.05, 4),
        (opposite, 0.15, 2),
        (pointing, 0.0, 1),
    ]
    found = [
        center.directional_offset_by(k * 33 * u.deg, distance * u.deg)
        for center, distance, n in places
        for k in range(n)
    ]
    at = SkyCoord([c.ra.deg for c in found], [c.dec.deg for c in found], unit="deg")
    return _with_events(demo_run, at, np.geomspace(1, 8, len(at)) * u.TeV)


def test_events_by_hand(run: Observation) -> None:
    """Bins of 0.01 deg2 up to 0.2 deg: 0.0025 in the first, 0.0225 in the third."""
    product = table_of([run, run], theta_max="0.2 deg", n_bins=4, cut="0.1 deg")
    table = product.table
    assert table["theta2_max"].to_value("deg2") == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert table["counts"].tolist() == [20, 0, 10, 0]
    assert table["counts_off"].tolist() == [8, 0, 4, 0]
    assert table["acceptance"].tolist() == table["acceptance_off"].tolist() == [2, 2, 2, 2]
    assert table["excess"].tolist() == [12, 0, 6, 0]
    assert table["sqrt_ts"][0] == pytest.approx(
        np.sqrt(wstat_ts(np.array(20.0), np.array(8.0), np.array(1.0)))
    )
    assert table["excess_errp"][0] == pytest.approx(np.sqrt(28), rel=0.1)
    facts = dict(product.meta["summary"])
    assert facts["counts on"] == 20
    assert facts["counts off"] == 8
    assert facts["excess"] == 12
    assert facts["significance (sigma)"] == pytest.approx(table["sqrt_ts"][0])
    assert facts["livetime (h)"] == pytest.approx(2 * run.livetime.to_value("h"))
    assert product.meta["warnings"] == []


def test_several_off_positions_share_their_counts(run: Observation) -> None:
    """Three at right angles: only the opposite one holds events, of which a third counts."""
    table = table_of([run], theta_max="0.2 deg", n_bins=4, n_off=3).table
    assert table["counts_off"].tolist() == [4, 0, 2, 0]
    assert table["alpha"] == pytest.approx([1 / 3] * 4)
    assert table["excess"][0] == pytest.approx(10 - 4 / 3)
    at = off_positions(run.pointing, CRAB, 3)
    assert at.separation(run.pointing).to_value("deg") == pytest.approx([0.5] * 3)
    angles = run.pointing.position_angle(at).to_value("deg")
    assert angles == pytest.approx([90, 180, 270], abs=1e-6)


def test_energies_and_good_times_are_kept_to(run: Observation) -> None:
    low = table_of([run], theta_max="0.2 deg", n_bins=1, energy={"min": "1 TeV", "max": "2 TeV"}).table
    inside = (run.events.energy >= 1 * u.TeV) & (run.events.energy < 2 * u.TeV)
    assert low["counts"][0] == np.sum(inside[:15])
    late = replace(run, gti=replace(run.gti, start=run.gti.start + 5 * u.s))
    assert table_of([late], theta_max="0.2 deg").table["counts"].sum() == 0


def test_few_counts_are_no_error(run: Observation) -> None:
    none = _with_events(run, run.events.radec[:0], run.events.energy[:0])
    table = table_of([none], n_bins=3).table
    assert table["excess"].tolist() == [0, 0, 0]
    assert table["sqrt_ts"].tolist() == [0, 0, 0]
    # the statistic of no counts rises by 2 per count
    assert table["excess_errp"].tolist() == pytest.approx([0.5] * 3)


def test_what_cannot_be_used_is_told(run: Observation) -> None:
    pointed = replace(run, pointing=CRAB, obs_id=7)
    product = table_of([pointed, run], theta_max="0.2 deg")
    assert any(
        "pointed at the place itself, which leaves no off position, in 7" in w
        for w in product.meta["warnings"]
    )
    assert product.table["counts"].sum() == 15
    with pytest.raises(
        InputError, match="no observation can be used: the telescopes pointed at the place itself"
    ):
        table_of([pointed])
    with pytest.raises(InputError, match="there is no observation"):
        table_of([])
    wide = table_of([run], theta_max="0.9 deg", cut="0.2 deg")
    assert any("their outer bins hold its photons" in w for w in wide.meta["warnings"])
    with pytest.raises(InputError, match=r"`cut` \(0.5 deg\) lies beyond `theta_max` \(0.2 deg\)"):
        table_of([run], theta_max="0.2 deg", cut="0.5 deg")
    with pytest.raises(InputError, match="n_off: expected a whole number from 1 to 100, found 0"):
        EVENT_TABLES.bind({**ENTRY, "n_off": 0}, "theta2")


def test_the_crab(hess_dl3: Path) -> None:
    """The excess of the public runs lies within 0.1 deg, and none at the edge of the plot."""
    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    product = table_of(
        [read_observation(entries[n], hess_dl3) for n in (23523, 23526)], theta_max="0.4 deg", n_bins=16
    )
    table = product.table
    assert table["sqrt_ts"][0] > 15
    assert np.abs(table["sqrt_ts"][8:]).max() < 3.5
    assert np.asarray(table["theta2_max"].value) == pytest.approx(0.01 * np.arange(1, 17))
