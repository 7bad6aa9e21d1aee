"""Counts in bins of phase: by hand, and what is refused."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.data.events import EventList, Gti
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.estimators import EVENT_TABLES
from dl3flow.irf.table import IrfTable

REFERENCE = Time(53000, format="mjd", scale="tt")
POINTING = SkyCoord(10 * u.deg, 20 * u.deg)


def observation(phases: list[float] | None, lon: list[float] | None = None, obs_id: int = 1) -> Observation:
    """A run with one event per phase, at the longitudes given; the effective area plays no part."""
    n = len(phases if phases is not None else lon)
    at = SkyCoord(([10.0] * n if lon is None else lon) * u.deg, [20.0] * n * u.deg)
    phase = None if phases is None else np.array(phases)
    energy = np.geomspace(1, 10, n) * u.TeV
    events = EventList(np.arange(n), np.full(n, 5.0) * u.s, REFERENCE, at, energy, None, phase)
    gti = Gti([0.0] * u.s, [10.0] * u.s, REFERENCE)
    aeff: IrfTable = None  # type: ignore[assignment]
    return Observation(obs_id, events, gti, POINTING, 0.0, aeff, None, None, None, {})


def make(runs: list[Observation], **options: object):
    plugin, bound = EVENT_TABLES.bind(
        {"name": "phasogram", "region": "icrs;circle(10, 20, 0.5)", **options}, "x"
    )
    return plugin(iter(runs), **bound)


def test_counts_of_all_runs_in_bins_and_the_background_of_the_off_phases() -> None:
    first = observation([0.05, 0.1, 0.12, 0.3, 0.6], [10, 10, 10, 10, 15])
    second = observation([0.2, 0.55, 0.8, 0.99], obs_id=2)
    table = make([first, second], n_bins=4, off_phase=[0.5, 1.0])
    # the event at 15 deg lies outside the region
    assert table.table["counts"].tolist() == [4, 1, 1, 2]
    # three events in half a period: 1.5 in a quarter
    assert table.table["background"].tolist() == [1.5] * 4
    assert table.table["excess"].tolist() == [2.5, -0.5, -0.5, 0.5]
    # Li & Ma, equation 17, of 4 on and 3 off with alpha 1/2
    expected = 2 * (4 * np.log(3 * 4 / 7) + 3 * np.log(1.5 * 3 / 7))
    assert table.table["sqrt_ts"][0] == pytest.approx(np.sqrt(expected), rel=1e-12)
    assert table.table["sqrt_ts"][1] < 0
    told = dict(table.meta["summary"])
    assert (told["observations"], told["events"]) == (2, 8)


def test_energies_choose_events() -> None:
    run = observation([0.1, 0.1, 0.6, 0.6])
    counts = make([run], n_bins=2, energy={"min": "2 TeV", "max": "20 TeV"}).table["counts"]
    # at 1, 2.15, 4.6 and 10 TeV
    assert counts.tolist() == [1, 2]


def test_no_events_are_a_table_of_zeros_with_a_warning() -> None:
    table = make([observation([])], n_bins=3, off_phase=[0.5, 1.0])
    assert table.table["counts"].tolist() == [0, 0, 0]
    assert table.table["sqrt_ts"].tolist() == [0, 0, 0]
    assert "nothing to test" in table.meta["warnings"][0]


def test_events_without_phases_or_with_some_only_are_refused() -> None:
    with pytest.raises(InputError, match=r"observation 1: .*add a column PHASE"):
        make([observation(None, [10.0])])
    with pytest.raises(InputError, match=r"leave `phase` out of `events`"):
        make([replace(observation([0.1]), meta={"phase_fraction": 0.5})])
    with pytest.raises(InputError, match=r"n_bins: expected a whole number from 2"):
        make([observation([0.1])], n_bins=1)
