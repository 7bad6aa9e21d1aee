"""Tables of absorption: their format, where named ones are found, and errors as sentences."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from dl3flow.errors import InputError
from dl3flow.io.ebl import EBL_FILES, find_ebl, read_ebl
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Component, Parameter

VALUES = np.array([[1.0, 0.9, 0.5], [1.0, 0.8, 0.25]])


def write_table(
    path: Path,
    values: np.ndarray = VALUES,
    redshift: Any = (0.1, 0.2),
    unit: str | None = None,
    low: Any = (1e8, 4e8, 16e8),
    name: str = "SPECTRA",
) -> Path:
    bounds = np.array(low)
    energies = [
        fits.Column(f"ENERG_{end}", "E", unit=unit, array=array)
        for end, array in (("LO", bounds), ("HI", bounds * 4))
    ]
    spectra = [
        fits.Column("PARAMVAL", "1E", array=np.array(redshift)),
        fits.Column("INTPSPEC", f"{values.shape[1]}E", array=values),
    ]
    tables = (("ENERGIES", energies), (name, spectra))
    hdus = [fits.BinTableHDU.from_columns(columns, name=hdu) for hdu, columns in tables]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def test_energies_are_centres_in_tev(tmp_path: Path) -> None:
    table = read_ebl(write_table(tmp_path / "t.fits"))
    assert table["energy"] == pytest.approx([0.2, 0.8, 3.2], rel=1e-6)
    assert table["param"] == pytest.approx([0.1, 0.2], rel=1e-6)
    assert table["values"] == pytest.approx(VALUES, rel=1e-6)
    assert read_ebl(write_table(tmp_path / "g.fits", unit="GeV"))["energy"][0] == pytest.approx(2e5, rel=1e-6)


def test_repeated_redshifts_count_once(tmp_path: Path) -> None:
    table = read_ebl(write_table(tmp_path / "t.fits", VALUES[[1, 0, 0]], (0.2, 0.1, 0.1)))
    assert table["param"] == pytest.approx([0.1, 0.2], rel=1e-6)
    assert table["values"][:, 2] == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "MODELS"}, "there is no HDU 'SPECTRA'"),
        ({"unit": "m"}, "the unit 'm' of ENERG_LO is no energy"),
        ({"values": VALUES[:, :2]}, r"INTPSPEC has the shape \(2, 2\) for 2 redshifts and 3 energies"),
        ({"values": VALUES * np.nan}, "is not finite, or negative"),
        ({"low": (4e8, 1e8, 16e8)}, "above 0 and increasing"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_ebl(write_table(tmp_path / "t.fits", **changes))


def test_named_tables_lie_below_the_public_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DL3FLOW_DATA", raising=False)
    with pytest.raises(InputError, match="DL3FLOW_DATA is not set for the table 'finke'"):
        find_ebl("finke", "m.yaml")
    monkeypatch.setenv("DL3FLOW_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=r"no file '.*ebl/frd_abs.fits.gz' for the table 'finke': put it there"
    ):
        find_ebl("finke", "m.yaml")
    with pytest.raises(InputError, match=r"m.yaml: unknown table 'dominges': .*dominguez"):
        find_ebl("dominges", "m.yaml")
    (tmp_path / "ebl").mkdir()
    path = write_table(tmp_path / "ebl" / "frd_abs.fits")
    assert find_ebl("finke", "m.yaml") == path
    packed = write_table(tmp_path / "ebl" / EBL_FILES["dominguez"])
    assert find_ebl("dominguez", "m.yaml") == packed
    assert read_ebl(packed)["param"] == pytest.approx([0.1, 0.2], rel=1e-6)


@pytest.mark.parametrize("name", ["dominguez", "franceschini"])
def test_published_tables(public_data: Path, name: str) -> None:
    """The gamma-ray horizon at redshift 0.1 is at 1 TeV: the optical depth there is one within 10 %."""
    path = public_data / "ebl" / EBL_FILES[name]
    if not path.is_file():
        pytest.skip(f"the table is absent: {path}")
    options = read_ebl(path)
    found = resolve(
        Component("ebl_absorption", (Parameter("redshift", 0.1), Parameter("alpha_norm", 1.0)), options),
        "spectral",
        "",
    )
    assert -np.log(found.function(np.array(1.0), 0.1, 1.0)) == pytest.approx(1.0, abs=0.1)
    assert found.function(np.array(0.03), 0.1, 1.0) == pytest.approx(1.0, abs=0.01)
