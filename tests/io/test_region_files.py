"""Region files: DS9 and FITS, and what is refused."""

import pytest

from dl3flow.errors import InputError
from dl3flow.geometry.region import RegionGeometry
from dl3flow.io.fits_products import read_provenance
from dl3flow.io.region_files import read_region_file, write_region_file

TWO = "icrs;circle(83.63,22.01,0.1)\nellipse(84.0,22.0,0.2,0.1,30.0)"


@pytest.mark.parametrize("name", ["a.reg", "a.fits"])
@pytest.mark.parametrize("text", ["icrs;circle(83.63,22.01,0.11)", TWO, "galactic;point(184.5,-5.8)"])
def test_round_trip(tmp_path, provenance, name, text):
    write_region_file(tmp_path / name, text, provenance)
    assert read_region_file(tmp_path / name) == text
    first = (tmp_path / name).read_bytes()
    write_region_file(tmp_path / name, text, provenance)
    assert (tmp_path / name).read_bytes() == first
    if name == "a.fits":
        assert read_provenance(tmp_path / name) == provenance.to_mapping()


def test_file_of_ds9(tmp_path):
    (tmp_path / "a.reg").write_text(
        "# Region file format: DS9 version 4.1\n"
        'global color=green dashlist=8 3 width=1 font="helvetica 10 normal roman"\n'
        'fk5\ncircle(5:34:31.2,+22:00:36,396") # color=red text={Crab}\n'
    )
    region = RegionGeometry(read_region_file(tmp_path / "a.reg"))
    assert region.radius.to_value("deg") == pytest.approx(0.11, rel=1e-12)
    # 5 h 34 m 31.2 s = 83.63 deg, 22 deg 0' 36" = 22.01 deg
    assert region.center.fk5.ra.deg == pytest.approx(83.63, abs=1e-8)
    assert region.center.fk5.dec.deg == pytest.approx(22.01, abs=1e-8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# nothing\n", "no region in"),
        ("icrs\ncircle(83,22,0.1)\nblob(1,2)\n", "cannot read the DS9 region text"),
        ("image\ncircle(83,22,0.1)\n", "is in pixels"),
        ("icrs\n-circle(83,22,0.1)\n", "is not supported"),
    ],
)
def test_bad_text_is_refused_in_one_sentence(tmp_path, text, words):
    (tmp_path / "a.reg").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_region_file(tmp_path / "a.reg")
    assert str(caught.value).startswith(f"{tmp_path / 'a.reg'}: ")
    assert "\n" not in str(caught.value)


def test_other_endings_and_no_region(tmp_path, provenance):
    with pytest.raises(InputError, match=r"a\.png: cannot write regions to a file ending in '\.png'"):
        write_region_file(tmp_path / "a.png", TWO, provenance)
    with pytest.raises(InputError, match="cannot read the DS9 region text"):
        write_region_file(tmp_path / "a.reg", "icrs;blob(1,2)", provenance)
    with pytest.raises(InputError, match="no such file"):
        read_region_file(tmp_path / "a.reg")
