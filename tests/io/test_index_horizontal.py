"""Zenith and azimuth of the observation index: read, written, and absent."""

from dataclasses import replace
from pathlib import Path

import pytest

from dl3flow.data.index import ObservationEntry
from dl3flow.io.gadf_index import read_index, write_hdu_index, write_observation_index


def test_both_come_back_and_an_unknown_one_stays_unknown(demo_dl3: Path, tmp_path: Path) -> None:
    first, second, *_ = read_index(demo_dl3)
    assert (first.zenith, first.azimuth) == (None, None)
    entries = [replace(first, zenith=31.25, azimuth=180.5), second]
    write_observation_index(tmp_path / "obs-index.fits.gz", entries)
    write_hdu_index(tmp_path / "hdu-index.fits.gz", [replace(entry, hdus={}) for entry in entries])
    found = read_index(tmp_path)
    assert [(entry.zenith, entry.azimuth) for entry in found] == [(31.25, 180.5), (None, None)]
    assert ObservationEntry.from_json(entries[0].to_json()) == entries[0]


def test_public_index_states_both(hess_dl3: Path) -> None:
    entries = {entry.obs_id: entry for entry in read_index(hess_dl3)}
    assert entries[23523].zenith == pytest.approx(48.61021, abs=1e-4)
    assert entries[23523].azimuth == pytest.approx(22.481705, abs=1e-5)
