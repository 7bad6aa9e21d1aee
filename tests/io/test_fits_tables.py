"""The quick reader of plain tables gives what astropy gives, and leaves everything else to it."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from dl3flow.errors import InputError
from dl3flow.io.fits_files import find_table, open_fits, open_tables, raw_column
from dl3flow.io.fits_tables import PlainTable, parse_tables


def table(**changes: object) -> fits.BinTableHDU:
    columns = [
        fits.Column("ID", "K", array=[1, -2, 2**40]),
        fits.Column("ENERGY", "E", unit="TeV", array=[0.5, 1.5, np.nan]),
        fits.Column("NAME", "6A", array=["a", "bc", ""]),
        fits.Column("CUBE", "6D", dim="(3,2)", array=np.arange(18.0).reshape(3, 2, 3)),
        fits.Column("PAIR", "2I", array=np.arange(6).reshape(3, 2)),
    ]
    hdu = fits.BinTableHDU.from_columns(columns, name="data")
    hdu.header["TEXT"] = ("it's 'quoted', odd", "a / comment")
    hdu.header["FLOAT"], hdu.header["SMALL"], hdu.header["WHOLE"], hdu.header["YES"] = 1.5, 1e-30, -7, True
    hdu.header["EMPTY"] = ""
    hdu.header["COMMENT"] = "said in passing"
    for key, value in changes.items():
        hdu.header[key] = value
    return hdu


def write(path: Path, *hdus: fits.BinTableHDU, checksum: bool = False) -> Path:
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, checksum=checksum)
    return path


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_a_plain_table_as_astropy_reads_it(tmp_path: Path, checksum: bool, suffix: str) -> None:
    path = write(tmp_path / f"t{suffix}", table(), checksum=checksum)
    with open_tables(path) as quick, open_fits(path) as slow:
        ours, theirs = find_table(quick, "Data", "t"), find_table(slow, "Data", "t")
        assert isinstance(ours, PlainTable)
        assert ours.name == theirs.name == "DATA"
        for key, value in ours.header.items():
            assert (value, type(value)) == (theirs.header[key], type(theirs.header[key]))
        assert set(theirs.header) - set(ours.header) == {"COMMENT"}
        for mine, column in zip(ours.columns, theirs.columns, strict=True):
            assert (mine.name, mine.unit, mine.format) == (column.name, column.unit, column.format)
            found, expected = raw_column(ours, mine.name, "t"), raw_column(theirs, mine.name, "t")
            assert found.dtype.isnative
            assert found.dtype.kind == expected.dtype.kind
            np.testing.assert_array_equal(found, expected)
    assert raw_column(ours, "CUBE", "t")[1, 1, 2] == 11


def test_what_is_not_plain_is_left_to_astropy(tmp_path: Path) -> None:
    scaled = table()
    scaled.columns["ID"].bzero = 5
    uneven = fits.Column("V", "PE()", array=np.array([[1.0], [1.0, 2.0]], dtype=object))
    logical = fits.Column("L", "L", array=[True, False])
    odd = {
        "scaled": scaled,
        "continued": table(LONG="x" * 100),
        "variable": fits.BinTableHDU.from_columns([uneven]),
        "logical": fits.BinTableHDU.from_columns([logical]),
        "image": fits.ImageHDU(np.zeros((2, 2))),
    }
    for name, hdu in odd.items():
        path = write(tmp_path / f"{name}.fits", hdu)
        assert parse_tables(path.read_bytes()) is None
        with open_tables(path) as hdus:
            assert isinstance(hdus, fits.HDUList)


def test_a_damaged_plain_table_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.fits", table(), checksum=True)
    content = path.read_bytes()
    assert parse_tables(content) is not None
    for changed in (content[:-2880], content + b"\0" * 2880, content.replace(b"K       ", b"Q       ")):
        assert parse_tables(changed) is None
    at = content.rindex(b"bc")
    path.write_bytes(content[:at] + b"x" + content[at + 1 :])
    assert parse_tables(path.read_bytes()) is None
    with pytest.raises(InputError, match="its DATASUM does not match"), open_tables(path) as hdus:
        find_table(hdus, "DATA", "t")
