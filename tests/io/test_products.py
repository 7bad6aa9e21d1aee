"""Products: the writer, provenance, and the fit, table and text files."""

import hashlib
import os

import pytest

from dl3flow.errors import InputError
from dl3flow.io.files import check_regular_file
from dl3flow.io.products import collect_provenance, write_product, write_text
from dl3flow.io.provenance import canonical_json, file_sha256


def test_write_product_publishes_whole_file(tmp_path):
    path = tmp_path / "new" / "folder" / "x.fits"
    seen = []

    def write(temporary):
        seen.append(temporary)
        temporary.write_text("whole")

    write_product(path, write)
    assert path.read_text() == "whole"
    assert seen[0].parent == path.parent
    assert seen[0].suffix == ".fits"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_write_product_keeps_the_old_file_when_writing_fails(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("ha")
        raise error

    with pytest.raises(error):
        write_product(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_product_says_that_the_disk_is_full(tmp_path):
    def write(temporary):
        raise OSError(28, os.strerror(28))

    with pytest.raises(InputError, match=r"x\.txt: cannot be written \(No space left on device\)"):
        write_product(tmp_path / "x.txt", write)


def test_write_text_keeps_bytes(tmp_path):
    write_text(tmp_path / "x.txt", "a\nµ")
    assert (tmp_path / "x.txt").read_bytes() == b"a\n\xc2\xb5"


def test_pipe_is_refused_without_opening_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe or device"):
        check_regular_file(tmp_path / "pipe")


def test_sha256_of_a_file_longer_than_one_block(tmp_path):
    content = b"0123456789abcdef" * 100_000
    (tmp_path / "x").write_bytes(content)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_canonical_json():
    assert canonical_json({"b": [1.5, float("nan")], "a": "µ"}) == r'{"a":"\u00b5","b":[1.5,null]}'


def test_provenance_names_no_folder_and_does_not_depend_on_the_order_of_keys(tmp_path):
    (tmp_path / "events.fits").write_bytes(b"abc")
    inputs = {"observation": [tmp_path / "events.fits"]}
    made = collect_provenance("reduce", "c0de", {"b": 1, "a": 0.1}, inputs)
    again = collect_provenance("reduce", "c0de", {"a": 0.1, "b": 1}, inputs)
    assert made.to_json() == again.to_json()
    assert str(tmp_path) not in made.to_json()
    assert made.inputs["observation"] == [
        {"name": "events.fits", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    ]
    assert made.to_mapping()["options"] == {"a": 0.1, "b": 1}
    assert {"dl3flow", "numpy", "astropy", "python"} <= set(made.versions)


def test_provenance_of_a_missing_input(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        collect_provenance("reduce", "c0de", {}, {"x": [tmp_path / "none"]})
