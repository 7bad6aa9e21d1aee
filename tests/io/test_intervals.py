"""Tables of time intervals: numbers, texts, times, units and what cannot be read."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from astropy.time import Time

from dl3flow.errors import InputError
from dl3flow.io.intervals import read_intervals

MJD = np.array([53945.0, 53946.0])


def mjd(pairs: list[list[str]]) -> np.ndarray:
    """Ends as MJD (TT)."""
    return np.array([[Time(text, scale="utc").tt.mjd for text in pair] for pair in pairs])


def seconds(low: list[float], high: list[float]) -> QTable:
    """As good time intervals are written: s after the header's reference."""
    return QTable(
        {"start": low * u.s, "stop": high * u.s}, meta={"MJDREFI": 53945, "MJDREFF": 0.5, "TIMESYS": "TT"}
    )


@pytest.mark.parametrize(
    ("table", "name"),
    [
        (QTable({"time_min": MJD, "time_max": MJD + 0.25}), "t.csv"),
        (QTable({"time_min": MJD * u.d, "time_max": (MJD + 0.25) * u.d}), "t.fits"),
        (QTable({"time_min": (24 * MJD) * u.h, "time_max": (24 * MJD + 6) * u.h}), "t.ecsv"),
        (
            QTable({n: Time(MJD + d, format="mjd", scale="tt") for n, d in (("start", 0), ("stop", 0.25))}),
            "t.ecsv",
        ),
        (seconds([-43200, 43200], [-21600, 64800]), "t.fits"),
        (
            QTable(
                {
                    n: Time(MJD + d, format="mjd", scale="tt").utc.isot
                    for n, d in (("start", 0), ("stop", 0.25))
                }
            ),
            "t.fits",
        ),
    ],
)
def test_all_ways_to_write_the_same(table: QTable, name: str, tmp_path: Path) -> None:
    table.write(tmp_path / name)
    expected = np.array([MJD, MJD + 0.25]).T
    assert mjd(read_intervals(tmp_path / name)) == pytest.approx(expected, abs=2e-8, rel=0)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"time_min": [np.nan], "time_max": [53945.0]}, "hold no times .not all are finite"),
        ({"time_min": [1] * u.TeV, "time_max": [2] * u.TeV}, "hold no times .'TeV'"),
        ({"begin": [1.0], "end": [2.0]}, "has neither the columns 'time_min' and 'time_max'"),
    ],
)
def test_a_wrong_table_is_refused(columns: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "t.ecsv"
    QTable(columns).write(path)
    with pytest.raises(InputError, match=expected):
        read_intervals(path)
