"""HDF5 datasets: exact round trips, equal bytes, and one sentence for each damage."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import h5py
import numpy as np
import pytest

from dl3flow.data.dataset import ExpectedCounts, MaskReasons
from dl3flow.data.events import Gti
from dl3flow.errors import InputError
from dl3flow.io.hdf5 import read_dataset, read_failure, read_provenance, write_dataset, write_failure


@pytest.fixture
def path(tmp_path, make_dataset, provenance):
    path = tmp_path / "23523.h5"
    write_dataset(path, make_dataset(reasons=True), provenance)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edisp": "migra"},
        {"frame": "galactic"},
        {"with_psf": False, "mask_fit": False},
        {"n_energy": 1, "shape": (2, 2)},
        {"background": "off"},
        {"background": None, "reasons": True},
        {
            "region": "icrs;circle(83.63, 22.01, 0.11)",
            "with_psf": False,
            "background": "off",
            "reasons": True,
        },
        {"region": "galactic;circle(184.5, -5.8, 0.2)", "with_psf": False},
        {"region": "icrs;point(83.63, 22.01)", "with_psf": False, "background": "off", "mask_fit": False},
        {
            "region": "icrs;circle(83.63, 22.01, 0.1)\ncircle(84, 22, 0.1)",
            "with_psf": False,
            "edisp": "migra",
        },
    ],
)
def test_round_trip_is_exact(tmp_path, make_dataset, provenance, assert_equal, options):
    dataset = make_dataset(**options)
    write_dataset(tmp_path / "a.h5", dataset, provenance)
    assert_equal(read_dataset(tmp_path / "a.h5"), dataset)
    assert read_failure(tmp_path / "a.h5") is None
    assert read_provenance(tmp_path / "a.h5") == provenance.to_mapping()


def test_file_of_the_first_format(make_dataset, provenance, assert_equal):
    # written by the code of format 1 from the same numbers
    path = Path(__file__).with_name("dataset_1.h5")
    assert_equal(read_dataset(path), make_dataset())
    assert read_provenance(path) == provenance.to_mapping()


def test_spectra_keep_all_digits(tmp_path, make_dataset, provenance):
    dataset = make_dataset(region="icrs;circle(83.63, 22.01, 0.11)", with_psf=False, background="off")
    third = dataset.background.acceptance.with_data(np.full((3, 1, 1), 1 / 3))
    dataset = replace(dataset, background=replace(dataset.background, acceptance=third))
    write_dataset(tmp_path / "a.h5", dataset, provenance)
    assert (read_dataset(tmp_path / "a.h5").background.acceptance.data == 1 / 3).all()


def test_reasons_name_their_bits(tmp_path, make_dataset, provenance):
    bits = np.zeros((3, 6, 8), dtype=np.uint8)
    bits[1, 2, 3], bits[2, 0, 0] = 3, 2
    dataset = replace(make_dataset(), reasons=MaskReasons(("aeff_default", "offset_max"), bits))
    write_dataset(tmp_path / "a.h5", dataset, provenance)
    found = read_dataset(tmp_path / "a.h5").reasons
    assert np.argwhere(found.dropped("aeff_default")).tolist() == [[1, 2, 3]]
    assert np.argwhere(found.dropped("offset_max")).tolist() == [[1, 2, 3], [2, 0, 0]]


def test_no_edisp_and_no_good_time(tmp_path, make_dataset, provenance):
    dataset = make_dataset()
    empty = Gti([] * u.s, [] * u.s, dataset.gti.reference)
    write_dataset(
        tmp_path / "a.h5", replace(dataset, edisp=None, gti=empty, meta={"norm": np.nan}), provenance
    )
    found = read_dataset(tmp_path / "a.h5")
    assert found.edisp is None
    assert found.gti.ontime == 0 * u.s
    assert found.meta == {"norm": None}


def test_cutout_keeps_its_place(tmp_path, make_dataset, provenance):
    dataset = make_dataset()
    counts = dataset.counts
    part = counts.geom.part((2, 4), (1, 6))
    small = replace(counts, geom=part, data=counts.data[:, 2:4, 1:6])
    exposure = replace(dataset.exposure, geom=part, data=dataset.exposure.data[:, 2:4, 1:6])
    cut = replace(
        dataset,
        counts=small,
        background=ExpectedCounts(small),
        exposure=exposure,
        mask_safe=small.data > 0,
        mask_fit=None,
    )
    write_dataset(tmp_path / "a.h5", cut, provenance)
    assert read_dataset(tmp_path / "a.h5").geom.offset_in(counts.geom) == (2, 1)
    assert read_dataset(tmp_path / "a.h5").geom.corner == (2, 1)


def test_equal_datasets_give_equal_bytes(path, make_dataset, provenance):
    # Time stamps in HDF5 have a resolution of one second.
    time.sleep(1.1)
    again = path.with_name("again.h5")
    write_dataset(again, make_dataset(reasons=True), provenance)
    assert again.read_bytes() == path.read_bytes()


def test_bytes_do_not_depend_on_the_hash_seed(path):
    code = "import sys; from pathlib import Path; from dl3flow.io import hdf5; from dl3flow.io.provenance import Provenance; "
    code += "p = Provenance('s', 'c', '{\"b\":1,\"a\":2}', {'x': [], 'y': []}, {'n': '1', 'm': '2'}); "
    code += "hdf5.write_dataset(Path(sys.argv[2]), hdf5.read_dataset(Path(sys.argv[1])), p)"
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, path, path.with_name(seed)], env=env, check=True)
    assert path.with_name("1").read_bytes() == path.with_name("2").read_bytes()


def test_sparse_counts_compress(tmp_path, make_dataset, provenance):
    dataset = make_dataset(shape=(250, 250), n_energy=11, n_true=2)
    counts = np.zeros((11, 250, 250))
    counts[0, ::25, ::25] = 1
    dataset = replace(dataset, counts=replace(dataset.counts, data=counts))
    write_dataset(tmp_path / "a.h5", dataset, provenance)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["counts/data"].id.get_storage_size() < counts.size * 4 / 50
    np.testing.assert_array_equal(read_dataset(tmp_path / "a.h5").counts.data, counts)


def test_failure_record(tmp_path, provenance):
    write_failure(tmp_path / "a.h5", "run-1", 7, "events.fits: HDU EVENTS is missing", provenance)
    assert read_failure(tmp_path / "a.h5") == "events.fits: HDU EVENTS is missing"
    with pytest.raises(InputError, match=r"a\.h5: holds no dataset, .*: events.fits: HDU EVENTS is missing"):
        read_dataset(tmp_path / "a.h5")


def test_long_texts_are_kept_and_guarded(tmp_path, make_dataset, provenance):
    long = replace(provenance, inputs={"runs": [{"name": f"run-{n}"} for n in range(5000)]})
    dataset = replace(make_dataset(), meta={"note": "x" * 100_000})
    path = tmp_path / "a.h5"
    write_dataset(path, dataset, long)
    assert read_dataset(path).meta == dataset.meta
    assert read_provenance(path) == long.to_mapping()
    with h5py.File(path) as file:
        at = file["meta/json"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="'/meta/json' is damaged"):
        read_dataset(path)


def _edit(change):
    def spoil(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return spoil


def _attribute(place, key, value):
    return _edit(lambda file: file[place].attrs.__setitem__(key, value))


def _replace(name, make):
    def change(file):
        del file[name]
        make(file, name)

    return _edit(change)


def _flip_in_exposure(path):
    with h5py.File(path) as file:
        at = file["exposure/data"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 40] ^= 4
    path.write_bytes(content)


def _virtual(file, name):
    layout = h5py.VirtualLayout(shape=(3, 6, 8), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(3, 6, 8))
    file.create_virtual_dataset(name, layout)


BAD = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "not an HDF5 file"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cut short"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    "other format": (_attribute("/", "format", np.bytes_("other")), "is not a dl3flow dataset"),
    "no format": (_edit(lambda file: file.attrs.__delitem__("format")), "is not a dl3flow dataset"),
    "newer": (_attribute("/", "format", np.bytes_("dl3flow.dataset/3")), "newer than"),
    "no background": (_edit(lambda file: file.__delitem__("background")), "has no 'background'"),
    "background of no kind": (_attribute("background", "kind", np.bytes_("ring")), "of kind 'ring'"),
    "off without acceptance": (
        _attribute("background", "kind", np.bytes_("off")),
        "'/background' has no 'acceptance'",
    ),
    "no region": (_attribute("counts", "region", np.bytes_("icrs;nothing")), "cannot read the DS9 region"),
    "nameless reason": (_attribute("masks", "reasons", np.bytes_('["offset_max"]')), "bits without a name"),
    "reasons no list": (_attribute("masks", "reasons", np.bytes_('{"a":1}')), "is no list of names"),
    "no reasons": (_edit(lambda file: file.__delitem__("masks/reasons")), "has no 'reasons'"),
    "no counts": (_edit(lambda file: file.__delitem__("counts")), "has no 'counts'"),
    "no psf": (_edit(lambda file: file.__delitem__("psf")), "has no 'psf'"),
    "no data": (_edit(lambda file: file.__delitem__("psf/response/data")), "has no 'data'"),
    "no mask": (_edit(lambda file: file.__delitem__("masks/fit")), "has no 'fit'"),
    "no unit": (_edit(lambda file: file["exposure"].attrs.__delitem__("unit")), "attribute 'unit'"),
    "unknown unit": (_attribute("exposure", "unit", np.bytes_("foo")), "foo"),
    "external link": (
        _replace("background", lambda f, n: f.__setitem__(n, h5py.ExternalLink("/etc/passwd", "x"))),
        "is a link",
    ),
    "soft link": (
        _replace("background", lambda f, n: f.__setitem__(n, h5py.SoftLink("/counts"))),
        "is a link",
    ),
    "external storage": (
        _replace(
            "counts/data",
            lambda f, n: f.create_dataset(n, (3, 6, 8), "f4", external=[("/etc/passwd", 0, 576)]),
        ),
        "in other files",
    ),
    "virtual": (_replace("counts/data", _virtual), "in other files"),
    "wrong shape": (
        _replace("counts/data", lambda f, n: f.create_dataset(n, data=np.ones((3, 6, 7)))),
        r"shape \(3, 6, 7\)",
    ),
    "wrong type": (
        _replace("counts/data", lambda f, n: f.create_dataset(n, data=np.ones((3, 6, 8), int))),
        "type int64",
    ),
    "bomb": (
        _replace("counts/data", lambda f, n: f.create_dataset(n, (3, 6, 8), "f4", chunks=(1, 6, 8))),
        "more than it can hold",
    ),
    "other pixels": (_attribute("background/counts", "lon_0", 10.0), "not on the pixels"),
    "other energies": (
        _attribute("background/counts", "energy_edges", np.array([1.0, 2, 3, 4])),
        "not on the pixels",
    ),
    "edges fall": (_attribute("counts", "energy_edges", np.array([4.0, 3, 2, 1])), "do not increase"),
    "edges NaN": (_attribute("counts", "energy_edges", np.array([1, np.nan, 3, 4])), "do not increase"),
    "mask of 2": (
        _replace("masks/safe", lambda f, n: f.create_dataset(n, data=np.full((3, 6, 8), 2, "u1"))),
        "other than 0 and 1",
    ),
    "gti": (_replace("gti/stop", lambda f, n: f.create_dataset(n, data=np.ones(3))), "2 starts and 3 stops"),
    "axis": (_attribute("psf/response", "axes", np.bytes_("energy_true radius")), "radius"),
    "flipped bit": (_flip_in_exposure, "'/exposure/data' is damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_one_sentence(path, case):
    spoil, words = BAD[case]
    spoil(path)
    with pytest.raises(InputError, match=words) as caught:
        read_dataset(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_flipped_bit_goes_unnoticed(path, assert_equal):
    # Every 37th byte of the file: what can be read after a flip is what was written.
    expected, content = read_dataset(path), path.read_bytes()
    refused = 0
    for at in range(8, len(content), 37):
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        try:
            found = read_dataset(path)
        except InputError:
            refused += 1
        else:
            assert_equal(found, expected)
    assert refused > 100
