import gzip
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from dl3flow.data.observation import HduEntry, ObservationEntry
from dl3flow.errors import InputError
from dl3flow.io.fits_files import open_fits
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index, write_hdu_index, write_observation_index
from dl3flow.io.gadf_irf import read_irf
from dl3flow.io.gadf_write import write_observation
from dl3flow.simulate.plan import observation_entries

IRFS = ("aeff", "edisp", "psf", "bkg")


# --- round trips ---


def assert_same_observation(one, two):
    for name in ("event_id", "time", "energy"):
        assert np.array_equal(getattr(one.events, name), getattr(two.events, name)), name
    assert np.array_equal(one.events.radec.ra.deg, two.events.radec.ra.deg)
    assert np.array_equal(one.events.radec.dec.deg, two.events.radec.dec.deg)
    assert np.array_equal(one.gti.start, two.gti.start)
    assert np.array_equal(one.gti.stop, two.gti.stop)
    assert one.gti.reference.scale == two.gti.reference.scale
    assert abs((one.gti.reference - two.gti.reference).to_value("ns")) < 1
    assert one.pointing.ra.deg == two.pointing.ra.deg
    assert one.pointing.dec.deg == two.pointing.dec.deg
    assert one.livetime == two.livetime
    for kind in IRFS:
        a, b = getattr(one, kind), getattr(two, kind)
        assert a.kind == b.kind
        assert a.meta == b.meta
        assert [axis.name for axis in a.axes] == [axis.name for axis in b.axes]
        for x, y in zip(a.axes, b.axes, strict=True):
            assert np.array_equal(x.edges.to_value(y.unit), y.edges.value)
            assert x.scale == y.scale
            assert (x.nodes is None) == (y.nodes is None)
        for column, values in a.data.items():
            assert np.array_equal(values, b.data[column]), (kind, column)
            assert a.units[column] == b.units[column]


def test_written_observation_is_read_back_bit_for_bit(demo, demo_run, demo_dl3):
    entry = read_index(demo_dl3)[0]
    found = read_observation(entry, demo_dl3)
    assert_same_observation(demo_run, found)
    assert found.meta == demo_run.meta


def test_written_index_is_read_back(demo, demo_dl3):
    assert read_index(demo_dl3) == observation_entries(demo)


def test_entry_survives_json(demo):
    entry = observation_entries(demo)[0]
    assert ObservationEntry.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_same_content_gives_the_same_bytes(demo_run, tmp_path):
    for name in ("a.fits.gz", "b.fits.gz"):
        write_observation(tmp_path / name, demo_run)
    assert (tmp_path / "a.fits.gz").read_bytes() == (tmp_path / "b.fits.gz").read_bytes()
    assert b"a.fits" not in (tmp_path / "a.fits.gz").read_bytes()[:30]
    with fits.open(tmp_path / "a.fits.gz") as hdus:
        for hdu in hdus:
            assert "DATE" not in hdu.header
            assert hdu.header.comments["CHECKSUM"] == hdu.header.comments["DATASUM"] == "verified on reading"


def test_hess_run_written_and_read_again(hess_dl3, tmp_path):
    """Float32, nodes, PSF_TABLE and a reversed background survive; the latter by its keyword."""
    entry = next(e for e in read_index(hess_dl3) if e.obs_id == 23523)
    one = read_observation(entry, hess_dl3)
    write_observation(tmp_path / "x.fits", one)
    hdus = {k: HduEntry("x.fits", k.upper(), v.kind) for k, v in entry.hdus.items()}
    two = read_observation(replace(entry, hdus=hdus), tmp_path)
    assert one.bkg.meta["fov_alignment"] == two.bkg.meta["fov_alignment"] == "REVERSE_LON_RADEC"
    assert_same_observation(one, two)


# --- public data ---


def test_hess_index(hess_dl3):
    entries = read_index(hess_dl3)
    assert len(entries) == 105
    assert sum(entry.target == "Crab" for entry in entries) == 4
    entry = next(e for e in entries if e.obs_id == 23592)
    assert entry.ra == pytest.approx(82.0133333, abs=1e-5)
    assert entry.livetime == pytest.approx(1581.26466581)
    assert entry.reference == pytest.approx(51910.00074287037)
    assert entry.hdus["bkg"] == HduEntry("data/hess_dl3_dr1_obs_id_023592.fits.gz", "bkg", "bkg_3d")
    assert entry.location == pytest.approx((16.5002222, -23.2717778, 1835))


def test_hess_run(hess_dl3):
    """Numbers of the reference reduction of run 23592."""
    entry = next(e for e in read_index(hess_dl3) if e.obs_id == 23592)
    run = read_observation(entry, hess_dl3)
    assert len(run.events) == 7334
    assert run.ontime == 1686 * u.s
    assert run.livetime.to_value("s") == pytest.approx(1581.26466581)
    assert run.deadtime_fraction == pytest.approx(0.0621206015)
    assert run.pointing.ra.deg == pytest.approx(82.0133333286, abs=1e-9)
    assert run.aeff.meta["lo_thres"].to_value("TeV") == pytest.approx(0.87096359)
    assert run.aeff.meta["hi_thres"] == 100 * u.TeV
    assert not run.aeff.meta["is_pointlike"]
    assert run.aeff.data["EFFAREA"].shape == (96, 6)
    assert run.edisp.data["MATRIX"].shape == (96, 160, 6)
    assert run.psf.data["RPSF"].shape == (32, 6, 144)
    assert run.bkg.data["BKG"].shape == (20, 50, 50)
    assert run.bkg.meta["fov_alignment"] == "REVERSE_LON_RADEC"
    assert run.aeff.axis("offset").nodes.value.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert run.psf.axis("rad").edges[-1].value == pytest.approx(0.66560578)
    assert run.meta["warnings"] == []
    with fits.open(hess_dl3 / entry.hdus["bkg"].path) as hdus:
        assert np.array_equal(run.bkg.data["BKG"], hdus["BKG"].data["BKG"][0])
        assert run.aeff.data["EFFAREA"][10, 2] == hdus["AEFF"].data["EFFAREA"][0][2, 10]
        assert run.edisp.data["MATRIX"][40, 60, 1] == hdus["EDISP"].data["MATRIX"][0][1, 60, 40]
        assert run.psf.data["RPSF"][20, 3, 7] == hdus["PSF"].data["RPSF"][0][7, 3, 20]


def test_all_hess_runs_are_read_without_a_warning(hess_dl3):
    runs = [read_observation(entry, hess_dl3) for entry in read_index(hess_dl3)]
    assert [run.obs_id for run in runs if run.meta["warnings"]] == []
    assert sum(len(run.events) for run in runs) > 100_000


@pytest.mark.parametrize("folder", ["joint-crab/dl3/veritas", "joint-crab/dl3/fact", "magic/rad_max/data"])
def test_other_public_runs(public_data, folder):
    """Point-like responses without background; no LIVETIME in an index; FILE_DIR blank or ``./``."""
    root = public_data / folder
    if not root.is_dir():
        pytest.skip(f"{folder} is absent")
    entry = read_index(root)[0]
    run = read_observation(entry, root)
    assert run.aeff.meta["is_pointlike"]
    assert run.bkg is None
    assert run.psf is None
    assert 200 < len(run.events) < 12000


def test_magic_events_a_turn_away_are_wrapped(public_data):
    root = public_data / "joint-crab" / "dl3" / "magic"
    if not root.is_dir():
        pytest.skip("joint-crab is absent")
    run = read_observation(read_index(root)[0], root)
    assert run.events.radec.ra.deg.max() < 90
    assert len(run.meta["warnings"]) == 2


# --- bad observations: each line is one file that must not be believed ---


def column(hdu, name, change):
    def apply(hdus):
        values = hdus[hdu].data[name]
        values[...] = change(values.copy())

    return apply


def unit(hdu, name, text):
    """Another unit of a column (None: no unit)."""
    return replaced(hdu, name, lambda c: fits.Column(name, c.format, unit=text, dim=c.dim, array=c.array))


def replaced(hdu, name, new):
    """Replace one column (None: leave it out)."""

    def apply(hdus):
        at = hdus.index_of(hdu)
        old = hdus[at]
        columns = [new(c) if c.name == name else c for c in old.columns if c.name != name or new]
        data = fits.BinTableHDU.from_columns(columns, name=hdu)
        for key, value in old.header.items():
            if key not in data.header and not key.startswith(("TTYPE", "TFORM", "TUNIT", "TDIM")):
                data.header[key] = value
        hdus[at] = data

    return apply


def key(hdu, name, value):
    def apply(hdus):
        if value is None:
            del hdus[hdu].header[name]
        else:
            hdus[hdu].header[name] = value

    return apply


def both(*changes):
    def apply(hdus):
        for change in changes:
            change(hdus)

    return apply


def without(hdu):
    return lambda hdus: hdus.pop(hdus.index_of(hdu))


def rows(hdu, pick):
    def apply(hdus):
        hdus[hdu].data = pick(hdus[hdu].data)

    return apply


def some(value, share=10):
    """Every tenth value replaced."""

    def change(values):
        values[::share] = value
        return values

    return change


def swapped_edges(values):
    values[0, 3], values[0, 4] = values[0, 4], values[0, 3]
    return values


def gap(values):
    values[0, 5] *= 1.01
    return values


def as_text(c):
    return fits.Column(c.name, "8A", array=np.full(len(c.array), "1.0"))


def twice(hdu):
    """Every row of a table repeated."""

    def apply(hdus):
        for c in list(hdus[hdu].columns):
            array = np.concatenate([c.array, c.array])
            columns.append(fits.Column(c.name, c.format, unit=c.unit, array=array))
        header = hdus[hdu].header
        hdus[hdus.index_of(hdu)] = table = fits.BinTableHDU.from_columns(columns, name=hdu)
        table.header.extend(header, unique=True)

    columns = []
    return apply


def transposed(c):
    return fits.Column(c.name, c.format, dim="(7,72)", unit=c.unit, array=np.swapaxes(c.array, -1, -2).copy())


DAY = 86400
BAD = [
    ("no EVENTS", without("EVENTS"), "there is no HDU 'EVENTS'"),
    ("no AEFF", without("AEFF"), "there is no HDU 'AEFF'"),
    ("no GTI", without("GTI"), "there is no HDU 'GTI'"),
    ("no ENERGY", replaced("EVENTS", "ENERGY", None), "HDU 'EVENTS': the column 'ENERGY' is missing"),
    ("no RA", replaced("EVENTS", "RA", None), "the column 'RA' is missing"),
    ("no EVENT_ID", replaced("EVENTS", "EVENT_ID", None), "the column 'EVENT_ID' is missing"),
    ("no MATRIX", replaced("EDISP", "MATRIX", None), "HDU 'EDISP': the column 'MATRIX' is missing"),
    ("no STOP", replaced("GTI", "STOP", None), "HDU 'GTI': the column 'STOP' is missing"),
    ("no THETA_HI", replaced("AEFF", "THETA_HI", None), "the column 'THETA_HI' is missing"),
    ("ENERGY text", replaced("EVENTS", "ENERGY", as_text), "'ENERGY' must hold numbers, but its format is '8A'"),
    ("TIME text", replaced("EVENTS", "TIME", as_text), "'TIME' must hold numbers, but its format is '8A'"),
    ("RA_PNT missing", key("EVENTS", "RA_PNT", None), "the keyword RA_PNT is missing"),
    ("DEC_PNT missing", key("EVENTS", "DEC_PNT", None), "the keyword DEC_PNT is missing"),
    ("DEADC missing", key("EVENTS", "DEADC", None), "the keyword DEADC is missing"),
    ("MJDREFI missing", key("EVENTS", "MJDREFI", None), "HDU 'EVENTS': the keyword MJDREFI is missing"),
    ("GTI MJDREFI missing", key("GTI", "MJDREFI", None), "HDU 'GTI': the keyword MJDREFI is missing"),
    ("TSTOP missing", key("EVENTS", "TSTOP", None), "the keyword TSTOP is missing"),
    ("RA_PNT text", key("EVENTS", "RA_PNT", "83.63"), "the keyword RA_PNT must be a number, found '83.63'"),
    ("RA_PNT elsewhere", key("EVENTS", "RA_PNT", 85.0), "deg from the pointing in the index"),
    ("OBS_MODE drift", key("EVENTS", "OBS_MODE", "DRIFT"), "OBS_MODE is 'DRIFT', which does not keep one direction"),
    ("RA_PNT range", key("EVENTS", "RA_PNT", 400.0), "RA_PNT must lie between 0 and 360 deg, found 400"),
    ("DEC_PNT range", key("EVENTS", "DEC_PNT", 95.0), "DEC_PNT must lie between -90 and 90 deg, found 95"),
    ("DEADC zero", key("EVENTS", "DEADC", 0.0), "DEADC must lie in (0, 1], found 0"),
    ("DEADC negative", key("EVENTS", "DEADC", -0.5), "DEADC must lie in (0, 1], found -0.5"),
    ("DEADC above one", key("EVENTS", "DEADC", 1.5), "DEADC must lie in (0, 1], found 1.5"),
    ("OBS_ID other", key("EVENTS", "OBS_ID", 7), "OBS_ID is 7, but the index says 1001"),
    ("TIMESYS unknown", key("EVENTS", "TIMESYS", "MARS"), "TIMESYS 'mars' is no time scale"),
    ("TIMEUNIT days", key("EVENTS", "TIMEUNIT", "d"), "TIMEUNIT must be 's', found 'd'"),
    ("MJDREF of EVENTS", key("EVENTS", "MJDREFI", 51911), "the time reference (MJD 51910.000000, tt) is not that of"),
    ("MJDREF zero", both(key("EVENTS", "MJDREFI", 0), key("GTI", "MJDREFI", 0)), "would start at MJD 8411.8"),
    ("HDUCLAS1", key("EVENTS", "HDUCLAS1", "GTI"), "HDUCLAS1 is 'GTI', not 'EVENTS'"),
    ("HDUCLAS2", key("AEFF", "HDUCLAS2", "EDISP"), "HDUCLAS2 is 'EDISP', not 'EFF_AREA'"),
    ("HDUCLAS4", key("PSF", "HDUCLAS4", "PSF_TABLE"), "HDUCLAS4 is 'PSF_TABLE', but the index says HDU_CLASS 'psf_3gauss'"),
    ("ENERGY unknown unit", unit("EVENTS", "ENERGY", "foo"), "'ENERGY' has the unknown unit 'foo'"),
    ("ENERGY metre", unit("EVENTS", "ENERGY", "m"), "'ENERGY' has the unit 'm': expected one such as 'TeV'"),
    ("ENERGY GeV for TeV", unit("EVENTS", "ENERGY", "GeV"), "correct the unit of ENERGY"),
    ("RA no unit", unit("EVENTS", "RA", None), "'RA' has the unit '': expected one such as 'deg'"),
    ("ENERGY NaN", column("EVENTS", "ENERGY", some(np.nan)), "'ENERGY' must be finite and above 0 (TeV)"),
    ("ENERGY Inf", column("EVENTS", "ENERGY", some(np.inf)), "'ENERGY' must be finite and above 0 (TeV)"),
    ("ENERGY negative", column("EVENTS", "ENERGY", some(-1.0)), "first -1 in row 1"),
    ("ENERGY zero", column("EVENTS", "ENERGY", some(0.0)), "first 0 in row 1"),
    ("RA NaN", column("EVENTS", "RA", some(np.nan, 1)), "'RA' must be between 0 and 360 (deg)"),
    ("RA 999", column("EVENTS", "RA", some(999.0)), "first 999 in row 1"),
    ("DEC 95", column("EVENTS", "DEC", some(95.0)), "'DEC' must be between -90 and 90 (deg)"),
    ("TIME NaN", column("EVENTS", "TIME", some(np.nan)), "'TIME' must be finite (s)"),
    ("events twice", twice("EVENTS"), "repeat an EVENT_ID and its TIME"),
    ("little endian", column("EVENTS", "ENERGY", lambda v: v.byteswap()), "HDU 'EVENTS'"),
    ("outside GTI", column("EVENTS", "TIME", lambda v: v + DAY), "lies in a good time interval"),
    ("GTI empty", rows("GTI", lambda data: data[:0]), "the good time intervals sum to 0 s"),
    ("GTI zero", column("GTI", "STOP", lambda v: v - 1680), "the good time intervals sum to 0 s"),
    ("GTI far beyond", column("GTI", "STOP", lambda v: v + 10 * 1680), "far beyond TSTART"),
    ("GTI minutes", unit("GTI", "STOP", "min"), "far beyond TSTART"),
    ("GTI NaN", column("GTI", "STOP", lambda v: v * np.nan), "sum to 0 s"),
    ("AEFF NaN", column("AEFF", "EFFAREA", lambda v: v * np.nan), "504 of 504 values of the column 'EFFAREA' are not finite"),
    ("AEFF zero", column("AEFF", "EFFAREA", lambda v: 0 * v), "'EFFAREA' is 0 everywhere"),
    ("AEFF negative", column("AEFF", "EFFAREA", lambda v: -v), "'EFFAREA' has negative values"),
    ("AEFF unit missing", unit("AEFF", "EFFAREA", None), "'EFFAREA' has the unit '': expected one such as 'm2'"),
    ("AEFF unit wrong", unit("AEFF", "EFFAREA", "m"), "'EFFAREA' has the unit 'm'"),
    ("AEFF unit unknown", unit("AEFF", "EFFAREA", "sqm"), "'EFFAREA' has the unknown unit 'sqm'"),
    ("edges not monotonic", column("AEFF", "ENERG_LO", swapped_edges), "ENERG_LO, ENERG_HI does not increase"),
    ("edges descend", both(column("AEFF", "ENERG_LO", lambda v: v[:, ::-1]), column("AEFF", "ENERG_HI", lambda v: v[:, ::-1])), "does not increase"),
    ("edges gap", column("AEFF", "ENERG_LO", gap), "has a gap or overlap between"),
    ("edges zero", column("AEFF", "ENERG_LO", lambda v: 0 * v), "must be above 0, found 0"),
    ("edges NaN", column("PSF", "THETA_LO", lambda v: v * np.nan), "has an edge that is not finite"),
    ("axes swapped", replaced("AEFF", "EFFAREA", transposed), "'EFFAREA' has the shape (7, 72), but its axes have (72, 7)"),
    ("EDISP twice", column("EDISP", "MATRIX", lambda v: 2 * v), "'MATRIX' integrates over migra to 2 (median), not 1"),
    ("EDISP NaN", column("EDISP", "MATRIX", some(np.nan, 1)), "'MATRIX' are not finite"),
    ("PSF NaN", column("PSF", "SIGMA_1", some(np.nan, 1)), "'SIGMA_1' are not finite"),
    ("PSF zero", column("PSF", "SCALE", lambda v: 0 * v), "'SCALE' is 0 everywhere"),
    ("BKG NaN", column("BKG", "BKG", some(np.nan, 1)), "'BKG' are not finite"),
    ("BKG negative", column("BKG", "BKG", lambda v: -v), "'BKG' has negative values"),
    ("BKG unit", unit("BKG", "BKG", "m"), "'BKG' has the unit 'm'"),
    ("BKG per TeV labelled per MeV", column("BKG", "BKG", lambda v: 1e6 * v), "correct the unit of the column 'BKG'"),
    ("BKG per MeV labelled per TeV", column("BKG", "BKG", lambda v: 1e-6 * v), "correct the unit of the column 'BKG'"),
    ("FOVALIGN", key("BKG", "FOVALIGN", "SOUTH"), "FOVALIGN 'SOUTH' is unknown"),
]  # fmt: skip


@pytest.fixture(scope="module")
def plain_run(demo_run, tmp_path_factory):
    """The first simulated run, uncompressed and without check sums, so that a test can change it."""
    path = tmp_path_factory.mktemp("plain") / "run.fits"
    write_observation(path, demo_run)
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            hdu.header.remove("CHECKSUM"), hdu.header.remove("DATASUM")
        hdus.writeto(path, overwrite=True)
    return path


@pytest.fixture
def entry(demo):
    first = observation_entries(demo)[0]
    return replace(first, hdus={k: replace(v, path="run.fits") for k, v in first.hdus.items()})


def changed(source: Path, folder: Path, change) -> Path:
    with fits.open(source, memmap=False) as hdus:
        hdus = fits.HDUList([hdu.copy() for hdu in hdus])
        change(hdus)
        hdus.writeto(folder / "run.fits", overwrite=True, output_verify="ignore")
    return folder


def assert_one_sentence(message: str) -> None:
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize(("change", "expected"), [pytest.param(c, e, id=n) for n, c, e in BAD])
def test_bad_content_is_refused(plain_run, entry, tmp_path, change, expected):
    changed(plain_run, tmp_path, change)
    with pytest.raises(InputError) as error:
        read_observation(entry, tmp_path)
    assert expected in str(error.value)
    assert "run.fits" in str(error.value)
    assert_one_sentence(str(error.value))


HESS_BAD = [
    ("PSF twice", column("PSF", "RPSF", lambda v: 2 * v), "'RPSF' integrates over the angle to 2 (median), not 1"),
    ("PSF zero", column("PSF", "RPSF", lambda v: 0 * v), "'RPSF' is 0 everywhere"),
    ("PSF NaN", column("PSF", "RPSF", some(np.nan, 1)), "'RPSF' are not finite"),
    ("AEFF negative", column("AEFF", "EFFAREA", lambda v: -v), "'EFFAREA' has negative values"),
    ("EDISP scrambled", column("EDISP", "MATRIX", lambda v: v.reshape(1, 160, 6, 96).swapaxes(1, 2).reshape(v.shape)), "'MATRIX' has the mean migra 2.3"),
    ("events twice", twice("EVENTS"), "7334 of 14668 events repeat an EVENT_ID and its TIME"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [pytest.param(c, e, id=n) for n, c, e in HESS_BAD])
def test_bad_hess_run_is_refused(hess_dl3, tmp_path, change, expected):
    entry = next(e for e in read_index(hess_dl3) if e.obs_id == 23592)
    changed(hess_dl3 / entry.paths[0], tmp_path, change)
    hdus = {k: replace(v, path="run.fits") for k, v in entry.hdus.items()}
    with pytest.raises(InputError) as error:
        read_observation(replace(entry, hdus=hdus), tmp_path)
    assert expected in str(error.value)


def test_kind_that_cannot_be_used(plain_run, entry):
    hdus = {**entry.hdus, "psf": replace(entry.hdus["psf"], kind="pointing")}
    with pytest.raises(InputError, match=r"the HDU_CLASS 'pointing' cannot be used .*choices: aeff_2d"):
        read_observation(replace(entry, hdus=hdus), plain_run.parent)


def test_cta_responses(public_data):
    """CTA prod5: dispersion per bin, background as [lat, lon, energy], no thresholds, HDUCLAS2 'PSF'."""
    files = sorted((public_data / "cta-caldb").glob("Prod5-South*.fits.gz"))
    if not files:
        pytest.skip("cta-caldb is absent")
    warnings = []
    with open_fits(files[0]) as hdus:
        aeff = read_irf(hdus["EFFECTIVE AREA"], "x", "aeff_2d", warnings)
        psf = read_irf(hdus["POINT SPREAD FUNCTION"], "x", "psf_3gauss", warnings)
        bkg = read_irf(hdus["BACKGROUND"], "x", "bkg_3d", warnings)
        edisp = read_irf(hdus["ENERGY DISPERSION"], "x", "edisp_2d", warnings)
        assert bkg.data["BKG"][3, 10, 50] == hdus["BACKGROUND"].data["BKG"][0][50, 10, 3]
    assert aeff.data["EFFAREA"].max() == pytest.approx(3784889.2)
    assert aeff.meta == {"is_pointlike": False, "lo_thres": None, "hi_thres": None}
    assert psf.units["SCALE"] == u.Unit("sr-1")
    assert edisp.data["MATRIX"].shape == (300, 300, 6)
    assert warnings == []


WARNED = [
    ("no events", rows("EVENTS", lambda data: data[:0]), "the event list is empty"),
    ("LIVETIME", key("EVENTS", "LIVETIME", 100.0), "LIVETIME is 100 s, but ONTIME x DEADC is 1579.2 s"),
    ("ONTIME", key("EVENTS", "ONTIME", 100.0), "ONTIME is 100 s, but the good time intervals sum to 1680 s"),
    ("GTI twice", twice("GTI"), "good time intervals overlap and were merged"),
    ("BKG zero", column("BKG", "BKG", lambda v: 0 * v), "the background rate is 0 everywhere"),
    ("BKG unit text", unit("BKG", "BKG", "per s MeV sr"), "s-1 MeV-1 sr-1 is assumed"),
    (
        "EVENT_ID restarts",
        column("EVENTS", "EVENT_ID", lambda v: v % 500),
        "repeat an EVENT_ID, at another TIME",
    ),
]


@pytest.mark.parametrize(("change", "expected"), [pytest.param(c, e, id=n) for n, c, e in WARNED])
def test_suspicious_content_is_reported(plain_run, entry, tmp_path, change, expected):
    changed(plain_run, tmp_path, change)
    run = read_observation(entry, tmp_path)
    assert expected in " | ".join(run.meta["warnings"])
    # 1680 s x 0.94: no double counting by repeated intervals, no belief in a wrong LIVETIME
    assert run.livetime.to_value("s") == pytest.approx(1579.2)


def test_gti_without_unit_is_in_seconds(plain_run, entry, tmp_path):
    changed(plain_run, tmp_path, both(unit("GTI", "START", None), unit("GTI", "STOP", None)))
    assert read_observation(entry, tmp_path).ontime.to_value("s") == pytest.approx(1680)


def test_dispersion_in_probability_per_bin_is_accepted(plain_run, entry, tmp_path):
    """CTA prod5 stores the content of each migra bin (here 0.02 wide) instead of the density."""
    changed(plain_run, tmp_path, column("EDISP", "MATRIX", lambda v: 0.02 * v))
    assert read_observation(entry, tmp_path).edisp.data["MATRIX"][30, :, 0].sum() == pytest.approx(
        1, abs=1e-6
    )


def test_background_in_reversed_order_is_read_the_same(plain_run, entry, demo_run, tmp_path):
    """The cube stored as [energy, lon, lat], as H.E.S.S. does, and as GADF has it, [lat, lon, energy]."""

    def reorder(hdus):
        c = hdus["BKG"].columns["BKG"]
        array = np.ascontiguousarray(c.array.transpose(0, 3, 2, 1))
        new = fits.Column("BKG", c.format, unit=c.unit, dim="(25,25,22)", array=array)
        replaced("BKG", "BKG", lambda _: new)(hdus)

    changed(plain_run, tmp_path, reorder)
    assert np.array_equal(read_observation(entry, tmp_path).bkg.data["BKG"], demo_run.bkg.data["BKG"])


def test_missing_event_hdu_in_index(entry, demo_dl3):
    hdus = {k: v for k, v in entry.hdus.items() if k != "events"}
    with pytest.raises(InputError, match="OBS_ID 1001: the HDU index lists no 'events' HDU"):
        read_observation(replace(entry, hdus=hdus), demo_dl3)


def test_index_that_names_another_response(plain_run, entry):
    hdus = {**entry.hdus, "aeff": replace(entry.hdus["aeff"], hdu="EDISP")}
    with pytest.raises(InputError, match="HDUCLAS2 is 'EDISP', not 'EFF_AREA'"):
        read_observation(replace(entry, hdus=hdus), plain_run.parent)


# --- bad files ---


def truncated(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def bomb(path):
    """2 GiB of zeros in 2 MiB."""
    head = fits.PrimaryHDU().header.tostring().encode()
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(2048):
            file.write(bytes(2**20))


def declare_more(path):
    content = path.read_bytes()
    at = content.index(b"NAXIS2  =", content.index(b"EVENTS") - 1000)
    path.write_bytes(content[: at + 10] + b"%20d" % 10**12 + content[at + 30 :])


def flip(path):
    content = bytearray(path.read_bytes())
    at = content.index(b"TTYPE5") // 2880 * 2880 + 2880 * 3
    content[at] ^= 0x10
    path.write_bytes(bytes(content))


def no_end(path):
    content = path.read_bytes()
    at = content.index(b"END" + b" " * 77, 2880)
    path.write_bytes(content[:at] + b"ENX" + content[at + 3 :])


def endless_axes(path):
    content = path.read_bytes()
    at = content.index(b"NAXIS   =", content.index(b"XTENSION"))
    path.write_bytes(content[: at + 10] + b"%20d" % 10**12 + content[at + 30 :])


FILES = [
    ("a trillion axes", lambda p: (p.write_bytes(gzip.decompress(p.read_bytes())), endless_axes(p)), "a FITS header has NAXIS = 1000000000000"),
    ("absent", lambda p: p.unlink(), "there is no such file"),
    ("empty", lambda p: p.write_bytes(b""), "the file is empty"),
    ("half of gzip", lambda p: truncated(p, 0.5), "the gzip file is cut short"),
    ("gzip without trailer", lambda p: p.write_bytes(p.read_bytes()[:-8]), "the gzip file is cut short"),
    ("gzip damaged", lambda p: p.write_bytes(p.read_bytes()[:5000] + b"xxxx" + p.read_bytes()[5004:]), "the gzip data are damaged"),
    ("gzip bomb", bomb, "expands to more than"),
    ("HTML", lambda p: p.write_text("<!DOCTYPE html><html><body>404</body></html>"), "it is an HTML page"),
    ("Git LFS", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "run `git lfs pull`"),
    ("text", lambda p: p.write_text("nothing"), "not a FITS file: it begins with"),
    ("folder", lambda p: (p.unlink(), p.mkdir()), "is not a regular file but a folder"),
    ("FIFO", lambda p: (p.unlink(), os.mkfifo(p)), "is not a regular file but a named pipe"),
    ("half of FITS", lambda p: (p.write_bytes(gzip.decompress(p.read_bytes())), truncated(p, 0.5)), "it is cut short"),
    ("FITS short in the last HDU", lambda p: (p.write_bytes(gzip.decompress(p.read_bytes())), truncated(p, 0.97)), "it is cut short"),
    ("a trillion rows", lambda p: (p.write_bytes(gzip.decompress(p.read_bytes())), declare_more(p)), "it is cut short"),
    ("header without END", lambda p: (p.write_bytes(gzip.decompress(p.read_bytes())), no_end(p)), "again"),
    ("bit flipped", lambda p: (p.write_bytes(gzip.decompress(p.read_bytes())), flip(p)), "HDU 'EVENTS': its DATASUM does not match"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), [pytest.param(d, e, id=n) for n, d, e in FILES])
def test_bad_file_is_refused(demo_dl3, tmp_path, damage, expected):
    entry = read_index(demo_dl3)[0]
    path = tmp_path / entry.paths[0]
    path.parent.mkdir()
    shutil.copy(demo_dl3 / entry.paths[0], path)
    damage(path)
    with pytest.raises(InputError) as error:
        read_observation(entry, tmp_path)
    assert expected in str(error.value)
    assert "data/1001.fits.gz" in str(error.value)
    assert_one_sentence(str(error.value))


# --- bad indexes ---


@pytest.fixture
def entries(demo):
    return observation_entries(demo)[:2]


def write_both(root, observations, hdus=None):
    write_observation_index(root / "obs-index.fits", observations)
    write_hdu_index(root / "hdu-index.fits", observations if hdus is None else hdus)


def relocated(entry, path):
    return replace(entry, hdus={k: replace(v, path=path) for k, v in entry.hdus.items()})


def rekinded(entry, kind):
    return replace(entry, hdus={**entry.hdus, "psf": replace(entry.hdus["psf"], kind=kind)})


INDEXES = [
    ("duplicate OBS_ID", lambda e: ([e[0], e[0]], [e[0]]), "OBS_ID 1001: is listed twice"),
    ("duplicate HDU", lambda e: (e, [e[0], e[0]]), "OBS_ID 1001: the HDU_TYPE 'events' is listed twice"),
    ("unknown class", lambda e: (e, [rekinded(e[0], "psf_blob")]), "the HDU_CLASS 'psf_blob' is unknown"),
    (
        "no direction",
        lambda e: ([replace(e[0], dec=95.0)], []),
        "is no direction: correct RA_PNT and DEC_PNT",
    ),
    ("parent folder", lambda e: (e, [relocated(e[0], "../../etc/passwd")]), "lies outside the data folder"),
    ("absolute path", lambda e: (e, [relocated(e[0], "/etc/passwd")]), "lies outside the data folder"),
]


@pytest.mark.parametrize(("make", "expected"), [pytest.param(m, e, id=n) for n, m, e in INDEXES])
def test_bad_index_is_refused(entries, tmp_path, make, expected):
    write_both(tmp_path, *make(entries))
    with pytest.raises(InputError) as error:
        read_index(tmp_path)
    assert expected in str(error.value)
    assert "index.fits" in str(error.value)
    assert_one_sentence(str(error.value))


def test_link_out_of_the_folder_is_refused(entries, tmp_path):
    (tmp_path / "outside.fits").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.fits").symlink_to(tmp_path / "outside.fits")
    write_both(root, entries, [relocated(entries[0], "link.fits")])
    with pytest.raises(InputError, match="the file 'link.fits' lies outside the data folder"):
        read_index(root)


def test_environment_is_not_expanded(entries, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    write_both(tmp_path, entries, [relocated(entries[0], "$SECRET/run.fits")])
    assert read_index(tmp_path)[0].paths == ["$SECRET/run.fits"]


def test_observation_without_hdus_is_an_entry_without_files(entries, tmp_path):
    """One run that the HDU index lacks must not stop the others; reading it names what is missing."""
    write_both(tmp_path, entries, entries[:1])
    found = read_index(tmp_path)
    assert found[0] == entries[0]
    assert found[1].paths == []
    with pytest.raises(InputError, match="OBS_ID 1002: the HDU index lists no 'events' HDU"):
        read_observation(found[1], tmp_path)


def test_text_in_obs_id_is_refused(entries, tmp_path):
    write_both(tmp_path, entries)
    with fits.open(tmp_path / "obs-index.fits", memmap=False) as hdus:
        columns = [fits.Column("OBS_ID", "4A", array=["1001", "1002"]), *list(hdus[1].columns)[1:]]
        fits.BinTableHDU.from_columns(columns, name="OBS_INDEX").writeto(tmp_path / "new.fits")
    (tmp_path / "new.fits").replace(tmp_path / "obs-index.fits")
    with pytest.raises(InputError, match="'OBS_ID' must hold numbers, but its format is '4A'"):
        read_index(tmp_path)


def test_masked_folder_and_names_in_any_case(entries, tmp_path):
    """FILE_DIR blank is the index's own folder; HDU_TYPE, HDU_CLASS and HDU names are compared without case."""
    write_both(tmp_path, entries, [relocated(entries[0], "run.fits")])
    with fits.open(tmp_path / "hdu-index.fits", mode="update") as hdus:
        hdus[1].data["HDU_TYPE"] = np.char.upper(hdus[1].data["HDU_TYPE"])
        hdus[1].data["HDU_CLASS"] = np.char.upper(hdus[1].data["HDU_CLASS"])
        del hdus[1].header["CHECKSUM"], hdus[1].header["DATASUM"]
    hdus = read_index(tmp_path)[0].hdus
    assert hdus["bkg"] == HduEntry("run.fits", "BKG", "bkg_3d")


def test_missing_folder_and_index(tmp_path):
    with pytest.raises(InputError, match="there is no such data folder"):
        read_index(tmp_path / "none")
    with pytest.raises(InputError, match=r"there is no hdu-index\.fits or hdu-index\.fits\.gz"):
        read_index(tmp_path)


def test_index_needs_one_time_reference(entries, tmp_path):
    other = replace(entries[1], reference=52000.0)
    with pytest.raises(InputError, match="needs one time reference"):
        write_observation_index(tmp_path / "obs-index.fits", [entries[0], other])
