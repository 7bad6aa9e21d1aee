"""Samples of a posterior in HDF5: round trip, equal bytes, and files that are refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from dl3flow.data.products import Samples
from dl3flow.errors import InputError
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.samples import read_samples, write_samples


def _samples() -> Samples:
    values = np.array([[1e-12, 2.0], [3e-12, 2.5], [2e-12, 2.25]])
    meta = {"sampler": "stretch", "options": {"n_steps": 3}, "seed": 1, "n_burn": 0, "warnings": ["short"]}
    return Samples(
        ("s.amplitude", "s.index"), values, np.array([-1.0, -2.0, 0.0]), 1, 0.4, np.array([2.0, np.nan]), meta
    )


def test_round_trip(tmp_path: Path) -> None:
    samples, provenance = _samples(), collect_provenance("test", "0", {}, {})
    write_samples(tmp_path / "a.h5", samples, provenance)
    write_samples(tmp_path / "b.h5", samples, provenance)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    found = read_samples(tmp_path / "a.h5")
    assert found.names == samples.names
    for name in ("values", "log_posterior", "autocorrelation"):
        assert np.array_equal(getattr(found, name), getattr(samples, name), equal_nan=True)
    assert (found.n_walkers, found.acceptance, found.meta) == (1, 0.4, samples.meta)
    assert found.mean == pytest.approx([2e-12, 2.25])
    assert found.covariance == pytest.approx(np.array([[1e-24, 2.5e-13], [2.5e-13, 0.0625]]))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_samples(path, _samples(), collect_provenance("test", "0", {}, {}))
    with h5py.File(path, "a") as file:
        del file["log_posterior"]
    with pytest.raises(InputError, match="the samples are damaged"):
        read_samples(path)
    with h5py.File(path, "a") as file:
        file["log_posterior"] = np.zeros(2)
    with pytest.raises(InputError, match=r"shape \(3, 2\) for 2 parameters and 2 values"):
        read_samples(path)
    with h5py.File(path, "a") as file:
        file.attrs["format"] = "other"
    with pytest.raises(InputError, match="the format is 'other'"):
        read_samples(path)
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(InputError, match="the samples are damaged"):
        read_samples(path)
    with pytest.raises(InputError):
        read_samples(tmp_path / "none.h5")
