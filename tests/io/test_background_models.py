"""Background models of several zenith bins: round trip, and what a reader of GADF finds."""

from collections.abc import Callable
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.io.background_models import read_background_models, write_background_models
from dl3flow.io.fits_products import read_provenance
from dl3flow.io.provenance import collect_provenance
from dl3flow.irf.table import IrfTable

RATE = u.Unit("s-1 MeV-1 sr-1")


@pytest.fixture
def provenance():
    return collect_provenance("model_background", "0" * 64, {"a": 1}, {})


def model(zenith: float, kind: str = "bkg_3d") -> IrfTable:
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 3)
    half = 2 * u.deg
    if kind == "bkg_2d":
        axes: tuple[Axis, ...] = (energy, Axis.from_bounds("offset", 0 * u.deg, half, 4, "lin"))
    else:
        axes = (energy, *(Axis.from_bounds(name, -half, half, 4, "lin") for name in ("fov_lon", "fov_lat")))
    shape = tuple(axis.n_bins for axis in axes)
    rate = 1e-6 * (1 + np.arange(np.prod(shape), dtype=float)).reshape(shape)
    meta = {
        "is_pointlike": False,
        "fov_alignment": "RADEC",
        "zenith": zenith,
        "zenith_min": zenith - 5,
        "zenith_max": zenith + 5,
        "obs_ids": [7, 8],
        "norms": [0.9, 1.1],
        "lo_thres": 1 * u.TeV,
        "hi_thres": 8 * u.TeV,
        "ontime": 3366.0,
        "n_events": 1234,
        "telescope": "T",
        "instrument": "I",
        "warnings": ["observation 9 at zenith 80.0 deg lies in no zenith bin and is left out"],
    }
    return IrfTable(kind, axes, {"BKG": rate}, {"BKG": RATE}, meta)


@pytest.mark.parametrize("kind", ["bkg_2d", "bkg_3d"])
def test_models_come_back_by_increasing_zenith(tmp_path: Path, provenance, kind: str) -> None:
    path = tmp_path / "background.fits"
    write_background_models(path, (model(40, kind), model(20, kind)), provenance)
    found = read_background_models(path)
    assert [table.meta["zenith"] for table in found] == [20, 40]
    expected = model(20, kind)
    for mine, theirs in zip(expected.axes, found[0].axes, strict=True):
        assert mine.is_close(theirs)
        assert mine.scale == theirs.scale
    assert np.array_equal(found[0].data["BKG"], expected.data["BKG"])
    assert found[0].units["BKG"] == RATE
    assert dict(found[0].meta) == dict(expected.meta)
    assert read_provenance(path)["step"] == "model_background"


def test_the_tables_are_by_gadf_and_the_keywords_documented(tmp_path: Path, provenance) -> None:
    path = tmp_path / "background.fits"
    write_background_models(path, (model(40), model(20)), provenance)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "BKG_1", "BKG_2", "PROVENANCE"]
        header = hdus["BKG_2"].header
        assert [header[key] for key in ("HDUCLASS", "HDUCLAS1", "HDUCLAS2", "HDUCLAS3", "HDUCLAS4")] == [
            "GADF", "RESPONSE", "BKG", "FULL-ENCLOSURE", "BKG_3D",
        ]  # fmt: skip
        assert header["FOVALIGN"] == "RADEC"
        assert (header["ZEN_PNT"], header["ZEN_MIN"], header["ZEN_MAX"]) == (40, 35, 45)
        assert (header["LO_THRES"], header["HI_THRES"]) == (1, 8)
        assert (header["N_RUNS"], header["N_EVENTS"], header["ONTIME"]) == (2, 1234, 3366)
        # one row, the axes fastest first: energy is the slowest in the file's array too
        assert hdus["BKG_2"].data["BKG"].shape == (1, 4, 4, 3)


def test_one_model_is_called_as_readers_expect_and_equal_models_give_equal_bytes(
    tmp_path: Path, provenance
) -> None:
    paths = [tmp_path / name for name in ("a.fits", "b.fits")]
    for path in paths:
        write_background_models(path, (model(20),), provenance)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with fits.open(paths[0]) as hdus:
        assert hdus[1].name == "BKG"


def break_class(hdus: fits.HDUList) -> None:
    hdus[1].header["HDUCLAS4"] = "AEFF_2D"


def drop_tables(hdus: fits.HDUList) -> None:
    del hdus[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [(break_class, "HDUCLAS2 is 'BKG'"), (drop_tables, "there is no HDU named BKG")],
)
def test_wrong_files_are_refused_in_a_sentence(
    tmp_path: Path, provenance, change: Callable[[fits.HDUList], None], message: str
) -> None:
    path = tmp_path / "background.fits"
    write_background_models(path, (model(20),), provenance)
    with fits.open(path, mode="update", checksum=False) as hdus:
        change(hdus)
        for hdu in hdus:
            hdu.add_checksum()
    with pytest.raises(InputError, match=message):
        read_background_models(path)
