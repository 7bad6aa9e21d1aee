"""Tables of pointings: what they say, and the sentence for each that is wrong."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.time import Time

from dl3flow.errors import InputError
from dl3flow.io.pointings import read_pointings


def test_a_table_with_units(tmp_path: Path) -> None:
    path = tmp_path / "p.ecsv"
    table = QTable(
        {"OBS_ID": [11, 12], "RA": [1.0, 2.0] * u.rad, "DEC": [3.0, -4.0] * u.deg, "duration": [0.5, 1] * u.h}
    )
    table["START"], table["TARGET"] = ["2024-01-12 20:00", "2024-01-12 21:00"], ["a", "b"]
    table.write(path, format="ascii.ecsv")
    first, second = read_pointings(path)
    assert (first["obs_id"], first["target"], first["start"]) == (11, "a", "2024-01-12 20:00")
    assert second["duration"] == "3600.0 s"
    assert u.Quantity(first["pointing"]["lon"]).to_value("rad") == pytest.approx(1.0)
    assert second["pointing"]["lat"] == "-4.0 deg"


@pytest.mark.parametrize("name", ["p.fits", "p.csv"])
def test_bare_numbers_are_degrees_seconds_and_days(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Table({"glon": [10.0], "glat": [0.5], "start": [60000.25], "duration": [1800]}).write(path)
    (found,) = read_pointings(path)
    at = SkyCoord(u.Quantity(found["pointing"]["lon"]), u.Quantity(found["pointing"]["lat"]))
    assert at.separation(SkyCoord(10, 0.5, unit="deg", frame="galactic")) < 1e-9 * u.deg
    assert (found["obs_id"], found["start"], found["duration"]) == (1, "MJD 60000.25", "1800.0 s")


def test_moments_are_utc(tmp_path: Path) -> None:
    start = Time([60000.0], format="mjd", scale="tt")
    QTable({**GOOD, "START": start}).write(tmp_path / "p.ecsv")
    (found,) = read_pointings(tmp_path / "p.ecsv")
    assert found["start"] == "2023-02-24T23:58:50.816"


GOOD = {"RA": [1.0], "DEC": [2.0], "START": [60000.0], "DURATION": [1.0]}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"DEC": None}, "has neither the columns RA and DEC nor GLON and GLAT"),
        ({"START": None}, "has no column START .it has RA, DEC, DURATION.: add it"),
        ({"DURATION": [np.nan]}, "column DURATION: expected one finite number per row"),
        ({"RA": ["x"]}, "column RA: expected one finite number per row"),
        ({"RA": [1.0] * u.s}, "column RA: has the unit 's', expected one such as 'deg'"),
        ({"START": [np.nan]}, "column START: expected one finite number per row"),
        ({"START": [7e8] * u.s}, "column START: has the unit 's', expected UTC text, or MJD in days"),
        ({"OBS_ID": [1.5]}, "column OBS_ID, row 1: expected a whole number, found 1.5"),
    ],
)
def test_a_wrong_table_is_refused(columns: dict, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "p.ecsv"
    QTable({k: v for k, v in {**GOOD, **columns}.items() if v is not None}).write(path, format="ascii.ecsv")
    with pytest.raises(InputError, match=expected) as error:
        read_pointings(path)
    assert str(path) in str(error.value)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo three\n")
    with pytest.raises(InputError, match="the table of pointings cannot be read|has neither the columns"):
        read_pointings(tmp_path / "p.txt")
    with pytest.raises(InputError, match="a table of pointings is no '.yaml' file"):
        read_pointings(tmp_path / "p.yaml")
    QTable({k: v[:0] for k, v in GOOD.items()}).write(tmp_path / "p.ecsv", format="ascii.ecsv")
    with pytest.raises(InputError, match="the table has no row"):
        read_pointings(tmp_path / "p.ecsv")
