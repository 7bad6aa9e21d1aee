"""Products: the writer, provenance, and the fit, table and text files."""

import hashlib
import json
import os
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from dl3flow.data.products import Contour, DatasetStat, FitResult, FluxPoints, LightCurve, Profile
from dl3flow.errors import InputError
from dl3flow.fit.systematics import response_model
from dl3flow.io.files import check_regular_file
from dl3flow.io.models_yaml import parse_models
from dl3flow.io.products import (
    collect_provenance,
    read_fit,
    read_flux_points,
    read_light_curve,
    read_observation_table,
    write_fit,
    write_observation_table,
    write_product,
    write_table,
    write_text,
)
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


@pytest.fixture
def fit_result():
    spectral = {"type": "pl", "parameters": [{"name": "index", "value": 8 / 3, "error": 0.1, "min": 1.0}]}
    models = parse_models(
        {
            "components": [
                {"name": "crab", "spectral": spectral, "spatial": {"type": "point", "frame": "galactic"}}
            ]
        },
        "x",
    )
    counts, signal, background = np.array([[10.0, 3, 1], [6.1, 1.2, 0.3], [4.5, 1.5, 1 / 3]])
    edges = np.geomspace(1, 10, 4) * u.TeV
    dataset = DatasetStat("run-1", -27.6784, 100, edges, counts, signal, background)
    covariance = np.array([[0.01, 1e-14], [1e-14, 1e-26]])
    minimiser = {"name": "migrad", "edm": 1e-7, "n_evaluations": 42, "at_limit": [], "warnings": ["so so"]}
    free = ("crab.index", "crab.amplitude")
    return FitResult(True, "converged", -27.6784, models, free, covariance, (dataset,), minimiser)


def test_fit_round_trip_is_exact(tmp_path, fit_result, provenance):
    write_fit(tmp_path / "fit.json", fit_result, provenance)
    found = read_fit(tmp_path / "fit.json")
    assert str(found.models) == str(fit_result.models)
    np.testing.assert_array_equal(found.covariance, fit_result.covariance)
    for name in ("success", "message", "stat", "free", "minimiser", "n_bins"):
        assert getattr(found, name) == getattr(fit_result, name)
    one, other = found.datasets[0], fit_result.datasets[0]
    assert (one.name, one.stat, one.n_bins) == (other.name, other.stat, other.n_bins)
    np.testing.assert_array_equal(one.energy_edges, other.energy_edges)
    for name in ("counts_per_energy", "signal_per_energy", "background_per_energy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_fit_file_holds_what_the_contract_says(tmp_path, fit_result, provenance):
    write_fit(tmp_path / "fit.json", fit_result, provenance)
    content = json.loads((tmp_path / "fit.json").read_text())
    assert list(content)[:8] == [
        "format",
        "success",
        "message",
        "stat",
        "n_bins",
        "n_free",
        "parameters",
        "covariance",
    ]
    assert content["format"] == "dl3flow.fit/1"
    assert (content["n_bins"], content["n_free"]) == (100, 2)
    index = next(p for p in content["parameters"] if p["name"] == "crab.index")
    assert index == {
        "name": "crab.index", "value": 8 / 3, "error": 0.1, "error_minus": None, "error_plus": None,
        "unit": "", "frozen": False, "min": 1.0, "max": None,
    }  # fmt: skip
    assert content["covariance"]["names"] == ["crab.index", "crab.amplitude"]
    (dataset,) = content["datasets"]
    assert (dataset["counts"], dataset["npred_signal"]) == (14, pytest.approx(7.6))
    assert dataset["npred"] == pytest.approx(7.6 + 6 + 1 / 3)
    assert content["provenance"]["step"] == "reduce_observation"
    assert "NaN" not in (tmp_path / "fit.json").read_text()


def test_fit_without_free_parameters_or_a_finite_stat(tmp_path, fit_result, provenance):
    result = replace(fit_result, free=(), covariance=np.zeros((0, 0)), stat=np.nan)
    write_fit(tmp_path / "fit.json", result, provenance)
    found = read_fit(tmp_path / "fit.json")
    assert found.covariance.shape == (0, 0)
    assert np.isnan(found.stat)


def _change(*keys, value=None, drop=False):
    def spoil(content):
        for key in keys[:-1]:
            content = content[key]
        if drop:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return spoil


BAD_FITS = {
    "newer": (_change("format", value="dl3flow.fit/2"), "newer dl3flow"),
    "other": (_change("format", value="x"), "expected 'dl3flow.fit/1'"),
    "no models": (_change("models", drop=True), "'models' is missing"),
    "no stat": (_change("stat", drop=True), "'stat' is missing"),
    "success as text": (_change("success", value="yes"), "'success' is 'yes'"),
    "matrix too small": (_change("covariance", "matrix", value=[[1.0]]), "1 numbers for 2 parameters"),
    "matrix ragged": (
        _change("covariance", "matrix", value=[[1.0], [1, 2]]),
        "covariance.matrix: expected numbers",
    ),
    "matrix of other parameters": (
        _change("covariance", "names", value=["a.b", "c.d"]),
        "no parameter 'a.b'",
    ),
    "spectrum too short": (
        _change("datasets", 0, "counts_per_energy", value=[1.0]),
        "one number per energy bin",
    ),
    "dataset is a number": (_change("datasets", 0, value=3), "an entry of `datasets` is 3"),
    "unknown model": (
        _change("models", "components", 0, "spectral", "type", value="plx"),
        "unknown spectral model 'plx'",
    ),
    "value null": (
        _change("models", "components", 0, "spectral", "parameters", 0, "value", value=None),
        "expected a number",
    ),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_fit_is_refused_in_one_sentence(tmp_path, fit_result, provenance, case):
    spoil, words = BAD_FITS[case]
    path = tmp_path / "fit.json"
    write_fit(path, fit_result, provenance)
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words) as caught:
        read_fit(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_no_json(tmp_path, text):
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(InputError, match="empty|JSON|no mapping"):
        read_fit(tmp_path / "fit.json")


def _columns(n):
    energy = np.geomspace(1, 10, n + 1)
    numbers = np.arange(1.0, n + 1)
    plain = {
        "norm": numbers / 3,
        "norm_err": numbers / 30,
        "norm_errn": numbers / 31,
        "norm_errp": numbers / 29,
    }
    plain |= {
        "norm_ul": np.where(numbers == 2, np.nan, numbers),
        "ts": numbers**2,
        "sqrt_ts": numbers,
        "npred": numbers,
    }
    plain |= {"npred_excess": numbers / 2, "counts": numbers, "stat": -numbers, "stat_null": numbers * 0}
    return {
        "e_ref": np.sqrt(energy[1:] * energy[:-1]) * u.TeV,
        "e_min": energy[:-1] * u.TeV,
        "e_max": energy[1:] * u.TeV,
        "ref_dnde": numbers * 1e-12 / 7 * u.Unit("cm-2 s-1 TeV-1"),
        "ref_flux": numbers * 1e-12 * u.Unit("cm-2 s-1"),
        "ref_eflux": numbers * 1e-12 * u.Unit("TeV cm-2 s-1"),
        "ref_e2dnde": numbers * 1e-12 * u.Unit("TeV cm-2 s-1"),
        **plain,
        "is_ul": numbers == 2,
        "success": numbers != 3,
    }


META = {"source": "crab", "sed_type": "likelihood", "n_sigma": 1.0, "n_sigma_ul": 2.0, "ul_conf": 0.9545}


def _points():
    return FluxPoints(QTable(_columns(3)), META)


def _curve():
    times = {"time_min": [53343.92234009259, 53345.0] * u.d, "time_max": [53343.94186555556, 53345.1] * u.d}
    return LightCurve(
        QTable({**times, **_columns(2), "dataset": ["run-1", "run-22"]}), {**META, "time": "run"}
    )


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
@pytest.mark.parametrize(("make", "read"), [(_points, read_flux_points), (_curve, read_light_curve)])
def test_table_round_trip_is_exact(tmp_path, provenance, make, read, suffix):
    product = make()
    path = tmp_path / f"sed.{suffix}"
    write_table(path, product, provenance)
    found = read(path)
    assert type(found) is type(product)
    assert found.meta == product.meta
    assert found.table.colnames == product.table.colnames
    for name in product.table.colnames:
        one, other = found.table[name], product.table[name]
        assert getattr(one, "unit", None) == getattr(other, "unit", None)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    before = path.read_bytes()
    write_table(path, product, provenance)
    assert path.read_bytes() == before


def test_fits_table_has_right_checksums(tmp_path, provenance):
    write_table(tmp_path / "sed.fits", _points(), provenance)
    with fits.open(
        tmp_path / "sed.fits", checksum=True
    ) as hdus:  # a wrong one is a warning, so an error here
        assert hdus["FLUXPOINTS"].header["SED_TYPE"] == "likelihood"
        assert hdus["FLUXPOINTS"].header["UL_CONF"] == 0.9545
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "FLUXPOINTS", "PROVENANCE"]


def test_table_of_unknown_ending(tmp_path, provenance):
    with pytest.raises(InputError, match=r"end its name in \.ecsv or \.fits"):
        write_table(tmp_path / "sed.csv", _points(), provenance)


def _retext(old, new):
    def spoil(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return spoil


def _recard(old, new):
    def spoil(path):
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))

    return spoil


BAD_TABLES = {
    "missing": ("ecsv", lambda path: path.unlink(), "no such file"),
    "empty": ("ecsv", lambda path: path.write_text(""), "empty"),
    "csv": ("ecsv", lambda path: path.write_text("a,b\n1,2\n"), "not an ECSV table"),
    "header only": ("ecsv", lambda path: path.write_text("# %ECSV 1.0\n# ---\n"), "damaged"),
    "cut in a row": ("ecsv", lambda path: path.write_bytes(path.read_bytes()[:-80]), "damaged"),
    "cut in the last number": ("ecsv", lambda path: path.write_bytes(path.read_bytes()[:-2]), "cut short"),
    "cut between rows": (
        "ecsv",
        lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1])),
        "ends after 2 rows, it is cut short",
    ),
    "sed type": ("ecsv", _retext("SED_TYPE: likelihood", "SED_TYPE: dnde"), "'dnde' is not supported"),
    "no column": ("ecsv", _retext("ref_dnde", "ref_dn"), "'ref_dnde' is missing: did you mean 'ref_e2dnde'"),
    "unit": ("ecsv", _retext("name: e_min, unit: TeV", "name: e_min, unit: m"), "'e_min' has the unit 'm'"),
    "unknown unit": (
        "ecsv",
        _retext("name: e_min, unit: TeV", "name: e_min, unit: TeVV"),
        "unknown unit 'TeVV'",
    ),
    "fits card": ("fits", _recard(b"TUNIT4  = '", b"TUNIT4  = \xff"), "damaged header"),
    "fits missing": ("fits", lambda path: path.unlink(), "no such file"),
    "fits cut": (
        "fits",
        lambda path: path.write_bytes(path.read_bytes()[:6000]),
        "not a FITS extension",
    ),
    "fits text": ("fits", lambda path: path.write_text("x"), "not a FITS file"),
    "fits flipped": (
        "fits",
        lambda path: path.write_bytes(
            path.read_bytes().replace(np.array([1 / 3], ">f8").tobytes(), b"\0" * 8)
        ),
        "does not match",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_table_is_refused_in_one_sentence(tmp_path, provenance, case):
    suffix, spoil, words = BAD_TABLES[case]
    path = tmp_path / f"sed.{suffix}"
    write_table(path, _points(), provenance)
    spoil(path)
    with pytest.raises(InputError, match=words) as caught:
        read_flux_points(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_light_curve_is_not_taken_for_flux_points(tmp_path, provenance):
    write_table(tmp_path / "a.ecsv", _curve(), provenance)
    with pytest.raises(InputError, match="looks like a light curve"):
        read_flux_points(tmp_path / "a.ecsv")
    write_table(tmp_path / "b.ecsv", _points(), provenance)
    with pytest.raises(InputError, match="looks like flux points"):
        read_light_curve(tmp_path / "b.ecsv")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("TIMESYS: tt", "TIMESYS: utc", "not days of TT"),
        ("MJDREFI: 0", "MJDREFI: zero", "must be numbers, found 'zero'"),
    ],
)
def test_times_of_another_kind(tmp_path, provenance, old, new, words):
    write_table(tmp_path / "a.ecsv", _curve(), provenance)
    _retext(old, new)(tmp_path / "a.ecsv")
    with pytest.raises(InputError, match=words):
        read_light_curve(tmp_path / "a.ecsv")


def test_observation_table_round_trip(tmp_path, provenance):
    rows = [
        {"obs_id": 23523, "target": "Crab", "ra": 83.63, "quality": None, "used": True, "reason": ""},
        {
            "obs_id": 1,
            "target": 'Off µ, "x"',
            "ra": None,
            "quality": 2,
            "used": False,
            "reason": "no GTI: a, b",
            "n": [1, 2],
        },
    ]
    path = tmp_path / "observations.ecsv"
    write_observation_table(path, rows, provenance)
    found = read_observation_table(path)
    assert found[0] == {**rows[0], "n": ""}
    assert found[1] == {**rows[1], "n": "[1,2]"}
    assert [type(found[1][name]) for name in ("obs_id", "used", "quality")] == [int, bool, int]
    before = path.read_bytes()
    write_observation_table(path, rows, provenance)
    assert path.read_bytes() == before


def test_observation_table_without_rows(tmp_path, provenance):
    write_observation_table(tmp_path / "a.ecsv", [], provenance)
    assert read_observation_table(tmp_path / "a.ecsv") == []


@pytest.mark.parametrize(
    ("text", "words"), [("obs_id\n1\n", "not an ECSV"), ("# %ECSV 1.0\n# x: [\n", "damaged")]
)
def test_bad_observation_table(tmp_path, text, words):
    (tmp_path / "a.ecsv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_observation_table(tmp_path / "a.ecsv")


def test_errors_profiles_contours_and_systematics_are_read_back(tmp_path, fit_result, provenance):
    scale = response_model("a-response", ["run-1"], {"energy_scale": 0.15})
    moved = replace(scale.scale.parameters[0], value=0.06, error=0.05)
    scale = replace(scale, scale=replace(scale.scale, parameters=(moved, *scale.scale.parameters[1:])))
    result = replace(
        fit_result,
        models=replace(fit_result.models, responses=(scale,)),
        datasets=(replace(fit_result.datasets[0], obs_ids=(7, 8)),),
        minos={"crab.index": (0.09, 0.11), "crab.amplitude": (np.nan, 2e-13)},
        profiles={"crab.index": Profile("crab.index", np.array([2.5, 2.7]), np.array([1.5, np.nan]))},
        contours=tuple(
            Contour(("crab.index", "crab.amplitude"), n, n * np.array([2.5, 2.7, 2.6]), np.array([1, 2, 3.0]))
            for n in (1.0, 2.0)
        ),
    )
    write_fit(tmp_path / "fit.json", result, provenance)
    content = json.loads((tmp_path / "fit.json").read_text())
    index = next(p for p in content["parameters"] if p["name"] == "crab.index")
    assert (index["error_minus"], index["error_plus"]) == (0.09, 0.11)
    assert content["systematics"] == [
        {
            "name": "a-response.energy_scale",
            "datasets": ["run-1"],
            "value": 0.06,
            "error": 0.05,
            "prior": {"kind": "gaussian", "mu": 0.0, "sigma": 0.15},
            "pull": pytest.approx(0.4),
        }
    ]
    assert [c["n_sigma"] for c in content["contours"]["crab.index, crab.amplitude"]] == [1.0, 2.0]
    found = read_fit(tmp_path / "fit.json")
    assert found.minos["crab.index"] == (0.09, 0.11)
    assert np.isnan(found.minos["crab.amplitude"][0])
    assert found.minos["crab.amplitude"][1] == 2e-13
    np.testing.assert_array_equal(found.profiles["crab.index"].stat, [1.5, np.nan])
    assert [c.n_sigma for c in found.contours] == [1.0, 2.0]
    np.testing.assert_array_equal(found.contours[1].x, 2 * np.array([2.5, 2.7, 2.6]))
    assert str(found.models.responses) == str(result.models.responses)
    assert found.datasets[0].obs_ids == (7, 8)
    assert found.systematics[0][3] == pytest.approx(0.4)
