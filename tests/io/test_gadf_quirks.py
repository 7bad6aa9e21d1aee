"""What real data sets do beside the format: each is read, and what was assumed is a sentence."""

from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from dl3flow.data.observation import HduEntry
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index, write_hdu_index, write_observation_index
from dl3flow.io.gadf_irf import read_irfs
from dl3flow.io.gadf_write import write_observation
from dl3flow.irf.table import IrfTable
from dl3flow.simulate.plan import observation_entries


@pytest.fixture(scope="module")
def plain(demo_run, tmp_path_factory) -> Path:
    """The first simulated run in a file without check sums."""
    return write_plain(tmp_path_factory.mktemp("quirks") / "run.fits", demo_run)


def write_plain(path, run) -> Path:
    write_observation(path, run)
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            del hdu.header["CHECKSUM"], hdu.header["DATASUM"]
        hdus.writeto(path, overwrite=True)
    return path


@pytest.fixture
def entry(demo):
    first = observation_entries(demo)[0]
    return replace(first, hdus={k: replace(v, path="run.fits") for k, v in first.hdus.items()})


@pytest.fixture
def read(plain, entry, tmp_path):
    """Read the run after a change of its file."""

    def apply(change, source=plain, entry=entry):
        with fits.open(source, memmap=False) as hdus:
            hdus = fits.HDUList([hdu.copy() for hdu in hdus])
            change(hdus)
            hdus.writeto(tmp_path / "run.fits", overwrite=True, output_verify="ignore")
        return read_observation(entry, tmp_path)

    return apply


def recolumned(hdus, hdu, names=(), new=lambda c: {}):
    """Rebuild a table with changed keywords (name, unit, format, dim, array) of the columns in ``names``."""
    at = hdus.index_of(hdu)
    old = hdus[at]
    columns = []
    for c in old.columns:
        given = {"name": c.name, "format": c.format, "unit": c.unit, "dim": c.dim, "array": c.array}
        columns.append(fits.Column(**(given | (new(c) if c.name in names else {}))))
    table = fits.BinTableHDU.from_columns(columns, name=hdu)
    table.header.extend(old.header, unique=True, strip=True)
    hdus[at] = table


def unitless(hdu, *names):
    return lambda hdus: recolumned(hdus, hdu, names, lambda c: {"unit": None})


# --- events and intervals ---


def test_times_without_units_are_in_seconds(read, demo_run):
    def change(hdus):
        unitless("GTI", "START", "STOP")(hdus)
        unitless("EVENTS", "TIME")(hdus)

    run = read(change)
    assert run.ontime == demo_run.ontime
    assert run.meta["warnings"] == [
        "run.fits: HDU 'EVENTS': no unit is given for TIME; seconds are assumed",
        "run.fits: HDU 'GTI': no unit is given for START, STOP; seconds are assumed",
    ]


def test_missing_classes_and_mode_are_no_matter(read, demo_run):
    """Events of CTA's first data challenge have no HDUCLASS; older files have no OBS_MODE."""

    def change(hdus):
        for key in ("HDUCLASS", "HDUCLAS1", "OBS_MODE"):
            del hdus["EVENTS"].header[key]

    run = read(change)
    assert len(run.events) == len(demo_run.events)
    assert run.meta["obs_mode"] == ""
    assert run.meta["warnings"] == []


def test_blank_and_repeated_keywords(read, demo_run):
    def change(hdus):
        header = hdus["EVENTS"].header
        header["EQUINOX"] = ""
        header.append(("TELLIST", "T1,T2"))
        header.append(("TELLIST", "2"))
        header["MJDREFI"] = float(header["MJDREFI"])

    assert read(change).pointing.ra.deg == demo_run.pointing.ra.deg


@pytest.mark.parametrize("text", ["utc", "UTC", " Utc"])
def test_time_scale_in_any_case(read, text, demo_run):
    def change(hdus):
        for hdu in ("EVENTS", "GTI"):
            hdus[hdu].header["TIMESYS"] = text

    run = read(change)
    assert run.events.reference.scale == "utc"
    # UTC and TT of the reference, 2001-01-01, are 64.184 s apart
    assert (run.gti.reference - demo_run.gti.reference).to_value("s") == pytest.approx(64.184, abs=1e-6)


def test_missing_time_scale_is_said(read):
    def change(hdus):
        for hdu in ("EVENTS", "GTI"):
            del hdus[hdu].header["TIMESYS"]

    run = read(change)
    assert run.events.reference.scale == "tt"
    assert run.meta["warnings"] == ["run.fits: HDU 'EVENTS': TIMESYS is missing; TT is assumed"]


def test_altitude_in_km_and_place_as_text(read):
    def change(hdus):
        header = hdus["EVENTS"].header
        header["ALTITUDE"], header["GEOLON"] = 2.15, "-70.3"

    run = read(change)
    assert run.meta["location"] == {"geolon": -70.3, "geolat": -23.27, "altitude": 2150.0}
    assert run.meta["warnings"] == ["run.fits: HDU 'EVENTS': ALTITUDE is 2.15, which was taken as km"]


def test_empty_intervals_are_one_sentence(read):
    def change(hdus):
        hdus["GTI"].data = hdus["GTI"].data[:0]

    with pytest.raises(InputError, match=r"^run\.fits: HDU 'GTI': the good time intervals sum to 0 s: leave"):
        read(change)


def test_types_and_phases_survive(demo_run, entry, tmp_path):
    """Bits as FITS has them, most significant first, and phases."""
    n = len(demo_run.events)
    bits = np.zeros((n, 32), dtype=bool)
    bits[:, 0], bits[::2, 5] = True, True
    phase = np.linspace(0, 1, n, endpoint=False)
    events = replace(demo_run.events, event_type=bits, phase=phase)
    write_observation(tmp_path / "run.fits", replace(demo_run, events=events))
    found = read_observation(entry, tmp_path).events
    assert np.array_equal(found.event_type, bits)
    assert np.array_equal(found.phase, phase)
    with fits.open(tmp_path / "run.fits") as hdus:
        assert hdus["EVENTS"].columns["EVENT_TYPE"].format == "32X"
        assert np.nonzero(hdus["EVENTS"].data["EVENT_TYPE"][0])[0].tolist() == [26, 31]


def test_types_as_numbers_survive(demo_run, entry, tmp_path):
    types = np.arange(len(demo_run.events)) % 3
    write_observation(
        tmp_path / "run.fits", replace(demo_run, events=replace(demo_run.events, event_type=types))
    )
    assert np.array_equal(read_observation(entry, tmp_path).events.event_type, types)


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("PHASE", lambda n: np.linspace(1, 2, n, endpoint=False), "whose whole turns were left out"),
        ("PHASE", lambda n: np.full(n, np.nan), "has values that are no numbers and is not used"),
        ("EVENT_TYPE", lambda n: np.full(n, 0.5), "holds neither bits nor whole numbers and is not used"),
    ],
)
def test_odd_optional_columns(read, demo_run, column, values, sentence):
    def change(hdus):
        old = hdus["EVENTS"]
        extra = fits.Column(column, "D", array=values(len(old.data)))
        table = fits.BinTableHDU.from_columns([*old.columns, extra], name="EVENTS")
        table.header.extend(old.header, unique=True, strip=True)
        hdus[hdus.index_of("EVENTS")] = table

    run = read(change)
    assert len(run.meta["warnings"]) == 1
    assert sentence in run.meta["warnings"][0]
    found = run.events.phase if column == "PHASE" else run.events.event_type
    if "turns" in sentence:
        assert found == pytest.approx(np.linspace(0, 1, len(found), endpoint=False), abs=1e-12)
    else:
        assert found is None


def test_part_of_the_phases_is_not_written(demo_run, tmp_path):
    run = replace(demo_run, meta={**demo_run.meta, "phase_fraction": 0.3})
    with pytest.raises(InputError, match="OBS_ID 1001 holds 30 % of the phases, which GADF cannot tell"):
        write_observation(tmp_path / "run.fits", run)


# --- responses ---


def test_names_of_older_files(read, demo_run):
    """As CTA's first data challenge: short classes, ETRUE, BGD, a unit that is none, HDU names in lower case."""

    def change(hdus):
        for hdu, short in (("AEFF", "2D"), ("EDISP", "2D"), ("PSF", "3GAUSS"), ("BKG", "3D")):
            hdus[hdu].header["HDUCLAS4"] = short
        recolumned(
            hdus, "EDISP", ("ENERG_LO", "ENERG_HI"), lambda c: {"name": c.name.replace("ENERG", "ETRUE")}
        )
        recolumned(hdus, "BKG", ("BKG",), lambda c: {"name": "BGD", "unit": "1/s/MeV/sr/thing"})
        for hdu in ("AEFF", "EDISP", "PSF", "BKG"):
            hdus[hdu].name = hdu.lower()

    run = read(change)
    for kind in ("aeff", "edisp", "psf", "bkg"):
        one, two = getattr(demo_run, kind), getattr(run, kind)
        assert one.kind == two.kind
        for column, values in one.data.items():
            assert np.array_equal(two.data[column], values)
        assert np.array_equal(two.axes[0].edges, one.axes[0].edges)
    assert run.meta["warnings"] == [
        "run.fits: HDU 'BKG': the column 'BGD' has no valid unit ('1/s/MeV/sr/thing'); s-1 MeV-1 sr-1 is assumed"
    ]


def test_one_offset_as_a_number(demo_run, entry, tmp_path):
    """MAGIC stores the only offset bin without an array dimension."""
    path = write_plain(tmp_path / "run.fits", replace(demo_run, aeff=narrowed(demo_run.aeff)))
    with fits.open(path, memmap=False) as hdus:
        assert hdus["AEFF"].data["THETA_LO"].shape == (1,)
        recolumned(hdus, "AEFF", ("EFFAREA",), lambda c: {"dim": None, "array": c.array[:, 0]})
        assert hdus["AEFF"].data["EFFAREA"].shape == (1, 72)
        hdus.writeto(path, overwrite=True)
    aeff = read_observation(entry, tmp_path).aeff
    assert aeff.axis("offset").edges.to_value("deg") == pytest.approx([0.39, 0.41])
    assert np.array_equal(aeff.data["EFFAREA"], demo_run.aeff.data["EFFAREA"][:, :1])


def narrowed(aeff):
    axes = (aeff.axes[0], Axis("offset", [0.39, 0.41] * u.deg))
    return replace(aeff, axes=axes, data={"EFFAREA": aeff.data["EFFAREA"][:, :1]})


def test_horizon_alignment_is_kept_with_what_it_needs(read):
    def change(hdus):
        hdus["BKG"].header["FOVALIGN"] = "ALTAZ"

    run = read(change)
    assert run.bkg.meta["fov_alignment"] == "ALTAZ"
    assert run.meta["location"] == {"geolon": 16.5, "geolat": -23.27, "altitude": 1835.0}
    assert run.meta["tstart"] < run.gti.start[0].to_value("s") + 1e-6


def test_missing_alignment_is_said(read):
    def change(hdus):
        del hdus["BKG"].header["FOVALIGN"]

    run = read(change)
    assert run.bkg.meta["fov_alignment"] == "RADEC"
    assert run.meta["warnings"] == ["run.fits: HDU 'BKG': FOVALIGN is missing; RADEC is assumed"]


def test_only_an_area_is_required(plain, entry):
    hdus = {kind: entry.hdus[kind] for kind in ("events", "gti", "aeff")}
    run = read_observation(replace(entry, hdus=hdus), plain.parent)
    assert (run.edisp, run.psf, run.bkg, run.rad_max) == (None, None, None, None)
    assert run.meta["warnings"] == []


def pointlike(run):
    return replace(
        run, aeff=replace(run.aeff, meta={**run.aeff.meta, "is_pointlike": True}), psf=None, bkg=None
    )


def test_radius_in_the_header(demo_run, entry, tmp_path):
    write_plain(tmp_path / "run.fits", pointlike(demo_run))
    bare = replace(entry, hdus={k: v for k, v in entry.hdus.items() if k not in ("psf", "bkg")})
    without = read_observation(bare, tmp_path)
    assert without.rad_max is None
    assert "POINT-LIKE, but neither RAD_MAX nor a RAD_MAX_2D table" in without.meta["warnings"][0]
    with fits.open(tmp_path / "run.fits", mode="update") as hdus:
        hdus["AEFF"].header["RAD_MAX"] = 0.1414213
    found = read_observation(bare, tmp_path)
    assert found.meta["warnings"] == []
    assert found.rad_max.kind == "rad_max_2d"
    assert found.rad_max.quantity.to_value("deg").tolist() == [[0.1414213]]
    assert found.rad_max.axis("energy").edges.to_value("TeV") == pytest.approx(
        demo_run.aeff.axis("energy_true").edges.to_value("TeV")[[0, -1]]
    )
    with fits.open(tmp_path / "run.fits", mode="update") as hdus:
        hdus["AEFF"].header["RAD_MAX"] = -1.0
    with pytest.raises(InputError, match="RAD_MAX must lie between 0 and 180 deg, found -1"):
        read_observation(bare, tmp_path)


def test_radius_of_a_full_response_is_not_a_cut(read):
    def change(hdus):
        hdus["AEFF"].header["RAD_MAX"] = 0.1

    assert read(change).rad_max is None


@pytest.mark.parametrize("n_energy", [1, 5])
def test_radii_and_king_survive(demo_run, entry, tmp_path, n_energy):
    """RAD_MAX_2D and PSF_KING, written and read bit for bit; one radius is a keyword too, as others expect."""
    rng = np.random.default_rng(0)
    energy = Axis.from_bounds("energy", 0.1 * u.TeV, 10 * u.TeV, n_energy)
    offset = Axis.from_nodes("offset", [0.0, 0.5, 2.0] * u.deg)
    single = Axis("offset", [0.39, 0.41] * u.deg)
    true = Axis.from_bounds("energy_true", 0.1 * u.TeV, 10 * u.TeV, 7)
    king = {"GAMMA": rng.uniform(1.5, 3, (7, 3)), "SIGMA": rng.uniform(0.02, 0.1, (7, 3))}
    units = {"GAMMA": u.dimensionless_unscaled, "SIGMA": u.deg}
    radii = {"RAD_MAX": rng.uniform(0.1, 0.3, (n_energy, 1))}
    run = replace(
        pointlike(demo_run),
        psf=IrfTable("psf_king", (true, offset), king, units, {"is_pointlike": False}),
        rad_max=IrfTable("rad_max_2d", (energy, single), radii, {"RAD_MAX": u.deg}, {"is_pointlike": True}),
    )
    write_observation(tmp_path / "run.fits", run)
    more = {
        "psf": HduEntry("run.fits", "PSF", "psf_king"),
        "rad_max": HduEntry("run.fits", "RAD_MAX", "rad_max_2d"),
    }
    hdus = {k: v for k, v in entry.hdus.items() if k != "bkg"} | more
    found = read_observation(replace(entry, hdus=hdus), tmp_path)
    for kind in ("psf", "rad_max"):
        one, two = getattr(run, kind), getattr(found, kind)
        assert one.kind == two.kind
        assert one.meta == two.meta
        assert dict(one.units) == dict(two.units)
        for x, y in zip(one.axes, two.axes, strict=True):
            assert (x.name, x.scale) == (y.name, y.scale)
            assert np.array_equal(x.edges, y.edges)
            assert (x.nodes is None) == (y.nodes is None)
        for column, values in one.data.items():
            assert np.array_equal(values, two.data[column])
    with fits.open(tmp_path / "run.fits") as hdus:
        assert ("RAD_MAX" in hdus["AEFF"].header) == (n_energy == 1)
        assert hdus["RAD_MAX"].header["HDUCLAS2"] == "RAD_MAX"
        assert hdus["RAD_MAX"].header["HDUCLAS3"] == "POINT-LIKE"
    found = read_irfs(tmp_path / "run.fits")
    assert {name: irf.kind for name, irf in found.items()} == {
        "aeff": "aeff_2d", "edisp": "edisp_2d", "psf": "psf_king", "rad_max": "rad_max_2d",
    }  # fmt: skip
    assert found["rad_max"].data["RAD_MAX"].shape == (n_energy, 1)


def test_responses_of_one_file(plain, demo_run):
    found = read_irfs(plain)
    assert list(found) == ["aeff", "edisp", "psf", "bkg"]
    for name, irf in found.items():
        assert irf.kind == getattr(demo_run, name).kind
        assert irf.meta == getattr(demo_run, name).meta


@pytest.mark.parametrize("header", [{}, {"HDUCLAS1": "RESPONSE", "HDUCLAS4": "2D"}])
def test_responses_known_by_their_columns(plain, tmp_path, demo_run, header):
    with fits.open(plain, memmap=False) as hdus:
        for hdu in hdus[1:]:
            for key in ("HDUCLAS1", "HDUCLAS2", "HDUCLAS3", "HDUCLAS4", "FOVALIGN"):
                hdu.header.remove(key, ignore_missing=True)
            hdu.name = f"x{hdu.name}"
        hdus["XAEFF"].header.update(header)
        recolumned(hdus, "XBKG", ("BKG",), lambda c: {"name": "BGD"})
        hdus.writeto(tmp_path / "irf.fits")
    found = read_irfs(tmp_path / "irf.fits")
    assert {name: irf.kind for name, irf in found.items()} == {
        "aeff": "aeff_2d", "edisp": "edisp_2d", "psf": "psf_3gauss", "bkg": "bkg_3d",
    }  # fmt: skip
    assert np.array_equal(found["bkg"].data["BKG"], demo_run.bkg.data["BKG"])
    assert "FOVALIGN is missing" in found["bkg"].meta["warnings"][0]


def test_file_without_or_with_twice_a_response(plain, tmp_path):
    with fits.open(plain, memmap=False) as hdus:
        fits.HDUList(hdus[:3]).writeto(tmp_path / "none.fits")
        fits.HDUList([*hdus, hdus["AEFF"].copy()]).writeto(tmp_path / "twice.fits")
    with pytest.raises(InputError, match=r"none\.fits: there is no instrument response"):
        read_irfs(tmp_path / "none.fits")
    with pytest.raises(InputError, match="two responses of the kind 'aeff'"):
        read_irfs(tmp_path / "twice.fits")


# --- indexes ---


def index_of(root, entry, **keys):
    """Index files in a folder, the HDU index with further keywords and, where given, another FILE_DIR."""
    root.mkdir(parents=True, exist_ok=True)
    folder = keys.pop("FILE_DIR", None)
    write_observation_index(root / "obs-index.fits.gz", [entry])
    write_hdu_index(root / "hdu-index.fits", [entry])
    with fits.open(root / "hdu-index.fits", memmap=False) as hdus:
        del hdus[1].header["CHECKSUM"], hdus[1].header["DATASUM"]
        if folder is not None:
            array = np.full(len(hdus[1].data), folder)
            recolumned(
                hdus,
                "HDU_INDEX",
                ("FILE_DIR",),
                lambda c: {"format": f"{max(1, len(folder))}A", "array": array},
            )
        hdus[1].header.update(keys)
        hdus.writeto(root / "hdu-index.fits", overwrite=True)
    return root


def assert_readable(root, n_events):
    (found,) = read_index(root)
    assert len(read_observation(found, root).events) == n_events


@pytest.mark.parametrize("folder", ["", "N/A", "./", "--"])
def test_masked_folder_is_that_of_the_index(plain, entry, tmp_path, demo_run, folder):
    index_of(tmp_path, entry, FILE_DIR=folder)
    (tmp_path / "run.fits").write_bytes(plain.read_bytes())
    assert_readable(tmp_path, len(demo_run.events))


def test_files_beside_the_index(plain, entry, tmp_path, demo_run):
    """``../../data/baseline/gps`` from ``index/gps``, as CTA's first data challenge; nothing above its folder."""
    root = index_of(tmp_path / "1dc" / "index" / "gps", entry, FILE_DIR="../../data/baseline/gps")
    data = tmp_path / "1dc" / "data" / "baseline" / "gps"
    data.mkdir(parents=True)
    (data / "run.fits").write_bytes(plain.read_bytes())
    assert_readable(root, len(demo_run.events))
    index_of(root, entry, FILE_DIR="../../../data/baseline/gps")
    with pytest.raises(InputError, match="lies outside the data folder"):
        read_index(root)


def test_base_folder(plain, entry, tmp_path, demo_run):
    """BASE_DIR relative to the index, absolute below it, and that of another machine beside a copy of the data."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "run.fits").write_bytes(plain.read_bytes())
    for base in ("deep", str(tmp_path / "deep")):
        index_of(tmp_path, entry, BASE_DIR=base)
        assert read_index(tmp_path)[0].paths == ["deep/run.fits"]
        assert_readable(tmp_path, len(demo_run.events))
    index_of(tmp_path, entry, BASE_DIR="/elsewhere/dl3")
    with pytest.raises(InputError, match="'/elsewhere/dl3/run.fits' lies outside the data folder"):
        read_index(tmp_path)
    (tmp_path / "run.fits").write_bytes(plain.read_bytes())
    assert read_index(tmp_path)[0].paths == ["run.fits"]


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", "-table-GP-Crab.fits.gz", "-table.fits"])
def test_names_of_the_index(entry, tmp_path, suffix):
    for stem, write in (("obs-index", write_observation_index), ("hdu-index", write_hdu_index)):
        write(tmp_path / f"{stem}{suffix}", [entry])
    assert [found.obs_id for found in read_index(tmp_path)] == [1001]


def test_several_indexes_are_a_question(entry, tmp_path):
    for name in ("GP", "NN"):
        write_hdu_index(tmp_path / f"hdu-index-table-{name}.fits", [entry])
    with pytest.raises(
        InputError, match=r"several indexes \(hdu-index-table-GP\.fits, hdu-index-table-NN\.fits\)"
    ):
        read_index(tmp_path)


def test_responses_in_a_common_file(plain, entry, tmp_path, demo_run):
    """FACT keeps the responses of all runs in one file."""
    with fits.open(plain, memmap=False) as hdus:
        fits.HDUList(hdus[:3]).writeto(tmp_path / "run.fits")
        fits.HDUList([hdus[0], *hdus[3:]]).writeto(tmp_path / "irf.fits")
    kinds = ("aeff", "edisp", "psf", "bkg")
    hdus = {k: replace(v, path="irf.fits") if k in kinds else v for k, v in entry.hdus.items()}
    index_of(tmp_path, replace(entry, hdus=hdus))
    (found,) = read_index(tmp_path)
    assert found.paths == ["irf.fits", "run.fits"]
    run = read_observation(found, tmp_path)
    assert np.array_equal(run.aeff.data["EFFAREA"], demo_run.aeff.data["EFFAREA"])
