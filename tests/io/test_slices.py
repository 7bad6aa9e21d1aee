"""Slices as files: what is read is what was written, and damage is noticed."""

import json
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.slices import Band, Slice, failed_slice
from dl3flow.errors import InputError
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.slices import read_slice, write_slice
from dl3flow.kernels.norm import ExpectedBins, MeasuredBins

PROVENANCE = collect_provenance("test", "0", {}, {})


def example() -> Slice:
    random = np.random.default_rng(1)
    first = Band(
        [0.5, 2] * u.TeV,
        (ExpectedBins(*random.random((3, 7))), MeasuredBins(*random.random((5, 4)))),
        3,
        2.5,
        -1.5,
    )
    empty = Band([2, 9] * u.TeV, (ExpectedBins(*np.zeros((3, 0))),))
    return Slice("2004-12-08", 53347.1, 53347.2, (first, empty), ("a", "b"), 1234.5 * u.s, warnings=("why",))


def test_numbers_survive_to_the_last_bit(tmp_path: Path) -> None:
    path, written = tmp_path / "a.json", example()
    write_slice(path, written, PROVENANCE)
    found = read_slice(path)
    for name in ("label", "low", "high", "datasets", "failure", "warnings"):
        assert getattr(found, name) == getattr(written, name)
    assert found.livetime == written.livetime
    for one, other in zip(found.bands, written.bands, strict=True):
        assert (one.counts, one.expected, one.stat) == (other.counts, other.expected, other.stat)
        assert (one.edges == other.edges).all()
        for mine, theirs in zip(one.parts, other.parts, strict=True):
            assert type(mine) is type(theirs)
            assert all((getattr(mine, key) == value).all() for key, value in vars(theirs).items())
    first = path.read_bytes()
    write_slice(path, written, PROVENANCE)
    assert path.read_bytes() == first


def test_a_failure_has_no_ends_and_no_bands(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.json", failed_slice("x", None, None, "no good time"), PROVENANCE)
    found = read_slice(tmp_path / "a.json")
    assert (found.failure, found.bands) == ("no good time", ())
    assert np.isnan([found.low, found.high]).all()


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_slice(path, example(), PROVENANCE)
    whole = path.read_text()
    path.write_text(whole[:200])
    with pytest.raises(InputError, match=r"a\.json: not valid JSON.*delete it"):
        read_slice(path)
    content = json.loads(whole)
    data = content["bands"][0]["parts"][0]["data"]
    content["bands"][0]["parts"][0]["data"] = ("B" if data[0] == "A" else "A") + data[1:]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.json: damaged.*checksum"):
        read_slice(path)
    path.write_text(json.dumps({"format": "dl3flow.fit/1"}))
    with pytest.raises(InputError, match=r"expected 'dl3flow.slice/1'"):
        read_slice(path)
