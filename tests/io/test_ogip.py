"""OGIP spectra: numbers by hand, round trips, the files of others, and one sentence for each damage."""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.io.datasets import input_files
from dl3flow.io.fits_products import read_provenance
from dl3flow.io.ogip import named_files, read_ogip, write_ogip

REGION = "icrs;circle(83.63, 22.01, 0.11)"
# rows are true energies; the second is empty, the fourth has a gap
MATRIX = np.array([[0.5, 0.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.75, 0.125], [0.25, 0.0, 0.5]])


def spectrum(**changes):
    geom = RegionGeometry(REGION)
    energy = Axis("energy", [1, 2, 5, 10] * u.TeV, "log")
    true = Axis("energy_true", [0.5, 1, 2, 5, 20] * u.TeV, "log")

    def on(axis, values, unit=u.one):
        return Map(geom, (axis,), np.reshape(np.array(values, dtype=float), (-1, 1, 1)), unit)

    exposure = on(true, [1e8, 2e8, 3e8, 0], u.Unit("m2 s"))
    dataset = Dataset(
        name="crab",
        counts=on(energy, [7, 3, 0]),
        background=OffCounts(on(energy, [5, 2, 1]), on(energy, [1, 1, 0.5]), on(energy, [12, 11, 12])),
        exposure=exposure,
        psf=None,
        edisp=EdispMap(Map(geom, (true, energy), MATRIX[..., None, None]), exposure),
        mask_safe=np.array([False, True, True]).reshape(3, 1, 1),
        mask_fit=None,
        gti=Gti([0.5] * u.s, [2000] * u.s, Time(51910, 0.0007428703684, format="mjd", scale="tt")),
        meta={"obs_ids": [23523], "livetime": 1600.0, "ontime": 1999.5, "telescope": "HESS"},
    )
    return replace(dataset, **changes)


@pytest.fixture
def pha(tmp_path, provenance):
    return write_ogip(tmp_path, spectrum(), provenance)


def test_numbers_in_the_units_of_the_standard(pha):
    assert pha.name == "pha_obs23523.fits"
    with fits.open(pha) as hdus:
        table, header = hdus["SPECTRUM"].data, hdus["SPECTRUM"].header
        assert table["CHANNEL"].tolist() == [0, 1, 2]
        assert table["COUNTS"].tolist() == [7, 3, 0]
        assert table["QUALITY"].tolist() == [5, 0, 0]
        assert table["BACKSCAL"].tolist() == [1, 1, 0.5]
        assert (header["EXPOSURE"], header["OBS_ID"], header["AREASCAL"]) == (1600.0, 23523, 1.0)
        assert [header[key] for key in ("BACKFILE", "ANCRFILE", "RESPFILE")] == [
            f"{kind}_obs23523.fits" for kind in ("bkg", "arf", "rmf")
        ]
        assert hdus["EBOUNDS"].data["E_MIN"].tolist() == [1e9, 2e9, 5e9]
        assert hdus["EBOUNDS"].columns["E_MIN"].unit == "keV"
    with fits.open(pha.with_name("bkg_obs23523.fits")) as hdus:
        assert hdus["SPECTRUM"].data["COUNTS"].tolist() == [5, 2, 1]
        assert hdus["SPECTRUM"].data["BACKSCAL"].tolist() == [12, 11, 12]
    with fits.open(pha.with_name("arf_obs23523.fits")) as hdus:
        # 1e8 m2 s in 1600 s are 62500 m2, 6.25e8 cm2
        assert hdus["SPECRESP"].data["SPECRESP"].tolist() == [6.25e8, 12.5e8, 18.75e8, 0]
        assert hdus["SPECRESP"].columns["SPECRESP"].unit == "cm2"
    with fits.open(pha.with_name("rmf_obs23523.fits")) as hdus:
        table, header = hdus["MATRIX"].data, hdus["MATRIX"].header
        assert table["F_CHAN"][:, 0].tolist() == [0, 0, 1, 0]
        assert table["N_CHAN"][:, 0].tolist() == [2, 1, 2, 3]
        assert table["MATRIX"][2].tolist() == [0.75, 0.125, 0]
        assert (header["TLMIN4"], header["NUMELT"], header["DETCHANS"]) == (0, 8, 3)


def test_round_trip(pha, provenance, assert_equal):
    found = read_ogip(pha)
    assert_equal(found, spectrum())
    assert read_provenance(pha) == provenance.to_mapping()


@pytest.mark.parametrize("options", [{}, {"n_energy": 7, "n_true": 20}])
def test_round_trip_of_any_numbers(tmp_path, make_dataset, provenance, options):
    dataset = make_dataset(region=REGION, with_psf=False, background="off", mask_fit=False, **options)
    found = read_ogip(write_ogip(tmp_path / "run.fits", dataset, provenance))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "run.fits",
        "run_arf.fits",
        "run_bkg.fits",
        "run_rmf.fits",
    ]
    np.testing.assert_array_equal(found.counts.data, dataset.counts.data)
    np.testing.assert_array_equal(found.background.counts.data, dataset.background.counts.data)
    np.testing.assert_array_equal(found.background.alpha, dataset.background.alpha)
    np.testing.assert_array_equal(found.edisp.edisp.data, dataset.edisp.edisp.data)
    np.testing.assert_array_equal(found.mask_safe, dataset.mask_safe)
    np.testing.assert_allclose(found.exposure.data, dataset.exposure.data, rtol=4e-16)
    for axis, other in ((found.energy, dataset.energy), (found.energy_true, dataset.energy_true)):
        np.testing.assert_allclose(axis.edges.value, other.edges.value, rtol=4e-16)
    assert found.meta == dataset.meta
    assert found.name == "run-1"
    assert found.geom == dataset.geom


def test_migra_becomes_a_matrix(tmp_path, provenance):
    # two bins of migra, 0.5 to 1 with probability 0.4 and 1 to 2 with 0.6, at true energies of 1 TeV
    geom = RegionGeometry(REGION)
    true = Axis("energy_true", [0.5, 2] * u.TeV, "log")
    migra = Axis("migra", [0.5, 1, 2] * u.one)
    exposure = Map(geom, (true,), np.full((1, 1, 1), 1e8), u.Unit("m2 s"))
    density = Map(geom, (true, migra), np.array([0.8, 0.6]).reshape(1, 2, 1, 1))
    dataset = spectrum(exposure=exposure, edisp=EdispMap(density, exposure))
    found = read_ogip(write_ogip(tmp_path, dataset, provenance))
    # 1 to 2 TeV holds the upper bin of migra; nothing lies above
    np.testing.assert_allclose(found.edisp.edisp.data[0, :, 0, 0], [0.6, 0, 0], atol=1e-15)


def test_files_of_a_folder(pha, provenance):
    # a second set under gammapy's names, and a spectrum without a background
    write_ogip(pha.parent / "other.fits", spectrum(background=None), provenance)
    for kind in ("", "_arf", "_rmf"):
        (pha.parent / f"other{kind}.fits").rename(pha.parent / f"pha_other{kind}.fits")
    _edit(
        pha.parent / "pha_other.fits",
        lambda hdus: hdus["SPECTRUM"].header.update(
            RESPFILE="pha_other_rmf.fits", ANCRFILE="pha_other_arf.fits"
        ),
    )
    main, named = input_files("ogip", pha.parent)
    assert [path.name for path in main] == ["pha_obs23523.fits", "pha_other.fits"]
    assert sorted(path.name for path in named) == [
        "arf_obs23523.fits",
        "bkg_obs23523.fits",
        "pha_other_arf.fits",
        "pha_other_rmf.fits",
        "rmf_obs23523.fits",
    ]
    assert set(named_files(pha)) == {pha.with_name(f"{kind}_obs23523.fits") for kind in ("arf", "bkg", "rmf")}


def test_same_bytes_and_right_check_sums(pha, tmp_path, provenance):
    again = write_ogip(tmp_path / "again", spectrum(), provenance)
    for kind in ("pha", "bkg", "arf", "rmf"):
        name = f"{kind}_obs23523.fits"
        assert (again.parent / name).read_bytes() == (pha.parent / name).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with fits.open(pha.parent / name, checksum=True) as hdus:
                assert all("CHECKSUM" in hdu.header for hdu in hdus)
                assert all(hdu.data is not None for hdu in hdus[1:])


def test_name_of_a_stack(tmp_path, provenance):
    dataset = spectrum(meta={**spectrum().meta, "obs_ids": [1, 2]})
    path = write_ogip(tmp_path, dataset, provenance)
    assert path.name == "pha_crab.fits"
    assert read_ogip(path).meta["obs_ids"] == [1, 2]
    assert read_ogip(path, "other").name == "other"


def test_counts_that_are_no_whole_numbers(tmp_path, provenance):
    counts = spectrum().counts
    dataset = spectrum(counts=counts.with_data(counts.data + 0.5))
    assert read_ogip(write_ogip(tmp_path, dataset, provenance)).counts.data[:, 0, 0].tolist() == [
        7.5,
        3.5,
        0.5,
    ]


def test_what_is_not_kept_is_said(tmp_path, provenance):
    with pytest.warns(UserWarning, match="do not keep the fit mask of dataset 'crab'"):
        path = write_ogip(tmp_path, spectrum(mask_fit=spectrum().mask_safe), provenance)
    assert read_ogip(path).mask_fit is None
    meta = {**spectrum().meta, "livetime": None}
    with pytest.warns(UserWarning, match="livetime of dataset 'crab' is not known: EXPOSURE is 1 s"):
        path = write_ogip(tmp_path, spectrum(meta=meta), provenance)
    # as in the public Fermi-LAT spectrum, the area then holds the exposure
    np.testing.assert_array_equal(read_ogip(path).exposure.data, spectrum().exposure.data)


def test_no_background(tmp_path, provenance):
    found = read_ogip(write_ogip(tmp_path, spectrum(background=None), provenance))
    assert found.background is None
    assert found.meta["warnings"] == [
        "pha_obs23523.fits names no background file: the spectrum has no background"
    ]


def test_lost_background_is_said(pha):
    pha.with_name("bkg_obs23523.fits").unlink()
    found = read_ogip(pha)
    assert found.background is None
    assert found.meta["warnings"] == [
        "the background file bkg_obs23523.fits of pha_obs23523.fits is missing: the spectrum has no background"
    ]


def test_models_and_maps_have_no_form(tmp_path, make_dataset, provenance):
    model = ExpectedCounts(spectrum().counts)
    with pytest.raises(InputError, match=r"is a model, and a BKG file must hold counts: take a method such"):
        write_ogip(tmp_path, spectrum(background=model), provenance)
    with pytest.raises(InputError, match="is a map, which OGIP has no form for"):
        write_ogip(tmp_path, make_dataset(background="off"), provenance)
    assert list(tmp_path.iterdir()) == []


def _edit(path, change):
    """Change HDUs of a file, and drop its check sums."""
    with fits.open(path) as hdus:
        for hdu in hdus:
            _ = hdu.data
        change(hdus)
        for hdu in hdus:
            hdu.header.remove("CHECKSUM", ignore_missing=True)
            hdu.header.remove("DATASUM", ignore_missing=True)
        hdus.writeto(path, overwrite=True)


def _as_of_others(hdus):
    del hdus[0].header["LASTHDU"]
    hdus.pop("PROVENANCE")


def test_facts_of_files_made_elsewhere(pha):
    _edit(pha, _as_of_others)
    found = read_ogip(pha)
    assert found.name == "obs23523"
    assert found.meta == {"obs_ids": [23523], "livetime": 1600.0, "ontime": 1999.5, "telescope": "HESS"}
    assert found.geom == RegionGeometry("icrs;circle(83.63,22.01,0.11)")


def test_region_not_known(pha):
    def change(hdus):
        _as_of_others(hdus)
        hdus.pop("REGION")
        hdus.pop("GTI")

    _edit(pha, change)
    found = read_ogip(pha)
    assert found.geom.is_point
    assert found.meta["warnings"] == [
        "pha_obs23523.fits does not say where on the sky its spectrum was taken"
    ]
    assert found.meta["ontime"] is None


def test_channels_from_one(pha):
    for kind in ("pha", "bkg", "rmf"):
        path = pha.with_name(f"{kind}_obs23523.fits")

        def change(hdus):
            for name in ("SPECTRUM", "EBOUNDS"):
                if name in hdus:
                    hdus[name].data["CHANNEL"] += 1
            if "MATRIX" in hdus:
                hdus["MATRIX"].data["F_CHAN"] += 1
                hdus["MATRIX"].header["TLMIN4"] = 1

        _edit(path, change)
    np.testing.assert_array_equal(read_ogip(pha).edisp.edisp.data[:, :, 0, 0], MATRIX)
    # without TLMIN, channels count as EBOUNDS does
    _edit(pha.with_name("rmf_obs23523.fits"), lambda hdus: hdus["MATRIX"].header.remove("TLMIN4"))
    np.testing.assert_array_equal(read_ogip(pha).edisp.edisp.data[:, :, 0, 0], MATRIX)


def test_matrix_of_variable_rows_in_groups(pha):
    # the fourth row in two groups, without the zero between them
    groups = [
        ([0], [2], [0.5, 0.25]),
        ([0], [0], []),
        ([1], [2], [0.75, 0.125]),
        ([0, 2], [1, 1], [0.25, 0.5]),
    ]

    def change(hdus):
        old = hdus["MATRIX"]
        cells = [np.empty(4, dtype=object) for _ in range(3)]
        for i, parts in enumerate(groups):
            for cell, part, kind in zip(cells, parts, ("i2", "i2", "f4"), strict=True):
                cell[i] = np.array(part, dtype=kind)
        columns = [
            fits.Column("ENERG_LO", "E", "keV", array=old.data["ENERG_LO"]),
            fits.Column("ENERG_HI", "E", "keV", array=old.data["ENERG_HI"]),
            fits.Column("N_GRP", "I", array=[1, 1, 1, 2]),
            fits.Column("F_CHAN", "PI(2)", array=cells[0]),
            fits.Column("N_CHAN", "PI(2)", array=cells[1]),
            fits.Column("MATRIX", "PE(3)", array=cells[2]),
        ]
        hdus["MATRIX"] = fits.BinTableHDU.from_columns(columns, name="MATRIX")

    _edit(pha.with_name("rmf_obs23523.fits"), change)
    np.testing.assert_array_equal(read_ogip(pha).edisp.edisp.data[:, :, 0, 0], MATRIX)


def test_scales_as_keywords(pha):
    def change(hdus):
        table = hdus["SPECTRUM"]
        columns = [c for c in table.columns if c.name not in ("BACKSCAL", "QUALITY")]
        header = table.header
        hdus["SPECTRUM"] = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
        hdus["SPECTRUM"].header.update(
            {key: header[key] for key in ("EXPOSURE", "BACKFILE", "ANCRFILE", "RESPFILE") if key in header}
        )
        hdus["SPECTRUM"].header.update({"BACKSCAL": 2.0, "AREASCAL": 0.5, "QUALITY": 0})

    _edit(pha, change)
    _edit(
        pha.with_name("bkg_obs23523.fits"),
        lambda hdus: hdus["SPECTRUM"].header.update(EXPOSURE=3200.0, AREASCAL=0.25),
    )
    found = read_ogip(pha)
    # on 2 x 0.5; off 12 x 0.25 x 3200 / 1600: alpha = 1 / 6, and the area counts half
    assert found.background.alpha[0, 0, 0] == pytest.approx(1 / 6, rel=1e-15)
    assert found.exposure.data[:, 0, 0].tolist() == [0.5e8, 1e8, 1.5e8, 0]
    assert found.mask_safe.all()


def test_groups_are_not_applied(pha):
    def change(hdus):
        columns = [*hdus["SPECTRUM"].columns, fits.Column("GROUPING", "I", array=[1, -1, 1])]
        header = hdus["SPECTRUM"].header
        hdus["SPECTRUM"] = fits.BinTableHDU.from_columns(columns, header=header, name="SPECTRUM")

    _edit(pha, change)
    assert read_ogip(pha).meta["warnings"] == [
        "pha_obs23523.fits groups its channels (GROUPING), which is not applied"
    ]


def _key(kind, name, key, value):
    return kind, lambda hdus: hdus[name].header.__setitem__(key, value)


def _cells(kind, name, column, change):
    def spoil(hdus):
        hdus[name].data[column] = change(hdus[name].data[column])

    return kind, spoil


BAD = {
    "no spectrum": (("pha", lambda h: h.pop("SPECTRUM")), "no HDU SPECTRUM"),
    "cut between two HDUs": (("pha", lambda h: h.pop("PROVENANCE")), "ends after HDU 'GTI'"),
    "no exposure": (("pha", lambda h: h["SPECTRUM"].header.remove("EXPOSURE")), "EXPOSURE is missing"),
    "exposure zero": (_key("pha", "SPECTRUM", "EXPOSURE", 0.0), "EXPOSURE is 0.0 s, which must be above 0"),
    "off exposure": (_key("bkg", "SPECTRUM", "EXPOSURE", -1.0), "EXPOSURE is -1.0 s"),
    "no matrix named": (_key("pha", "SPECTRUM", "RESPFILE", "none"), "RESPFILE names no file"),
    "matrix elsewhere": (_key("pha", "SPECTRUM", "RESPFILE", "../x.fits"), "lies outside the data folder"),
    "matrix lost": (_key("pha", "SPECTRUM", "RESPFILE", "x.fits"), r"x\.fits: there is no such file"),
    "negative counts": (_cells("pha", "SPECTRUM", "COUNTS", lambda c: c - 4), "negative or infinite counts"),
    "off channels": (_cells("bkg", "SPECTRUM", "CHANNEL", lambda c: c + 1), "channels are not those of"),
    "matrix channels": (_cells("rmf", "EBOUNDS", "CHANNEL", lambda c: c + 1), "not those of the spectrum"),
    "channel beyond": (
        _cells("rmf", "MATRIX", "F_CHAN", lambda c: c + 2),
        r"row 1 names channels 2 to 4 of 3",
    ),
    "negative groups": (_cells("rmf", "MATRIX", "N_CHAN", lambda c: -c), "row 1 names channels"),
    "matrix NaN": (_cells("rmf", "MATRIX", "MATRIX", lambda c: c * np.nan), "negative or not finite"),
    "other energies": (_cells("rmf", "MATRIX", "ENERG_LO", lambda e: e * 1.01), "not those of arf_obs23523"),
    "energies overlap": (_cells("rmf", "EBOUNDS", "E_MAX", lambda e: e * 1.1), "gaps or overlap"),
    "energies fall": (_cells("arf", "SPECRESP", "ENERG_HI", lambda e: e[::-1]), "an empty bin"),
    "area negative": (_cells("arf", "SPECRESP", "SPECRESP", lambda a: -a), "negative or infinite areas"),
    "area in keV": (
        ("arf", lambda h: setattr(h["SPECRESP"].columns["SPECRESP"], "unit", "keV")),
        "SPECRESP has the unit 'keV', expected one like 'cm2'",
    ),
    "unit unknown": (
        ("arf", lambda h: setattr(h["SPECRESP"].columns["SPECRESP"], "unit", "foo")),
        "the unit 'foo' of SPECRESP is not known",
    ),
    "rates": (
        ("pha", lambda h: h["SPECTRUM"].columns.change_name("COUNTS", "RATE")),
        "holds rates, whose statistic is not known",
    ),
    "scale NaN": (
        _cells("bkg", "SPECTRUM", "BACKSCAL", lambda b: b * np.nan),
        "BACKSCAL has values that are not",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_one_sentence(pha, case):
    (kind, change), words = BAD[case]
    _edit(pha.with_name(f"{kind}_obs23523.fits"), change)
    with pytest.raises(InputError, match=words) as caught:
        read_ogip(pha)
    assert str(caught.value).startswith(str(pha.parent))
    assert "\n" not in str(caught.value)


def test_flipped_bit_is_noticed_in_each_file(pha):
    for kind, name in (("pha", "SPECTRUM"), ("bkg", "SPECTRUM"), ("arf", "SPECRESP"), ("rmf", "MATRIX")):
        path = pha.with_name(f"{kind}_obs23523.fits")
        content = path.read_bytes()
        with fits.open(path) as hdus:
            at = hdus[name].fileinfo()["datLoc"]
        path.write_bytes(content[: at + 5] + bytes([content[at + 5] ^ 1]) + content[at + 6 :])
        with pytest.raises(InputError, match=f"{path.name}: HDU '{name}': its .*SUM does not match"):
            read_ogip(pha)
        path.write_bytes(content)
    read_ogip(pha)


@pytest.fixture
def joint_crab():
    root = Path(os.environ.get("DL3FLOW_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
    path = root / "G_joint_crab_paper.json"
    if not path.is_file():
        pytest.skip(f"reference numbers are absent: {path} (set DL3FLOW_REFERENCE)")
    return json.loads(path.read_text())


@pytest.mark.parametrize("instrument", ["fermi", "magic", "veritas", "fact", "hess"])
def test_public_spectra_of_five_instruments(public_data, joint_crab, instrument):
    files = sorted((public_data / "joint-crab" / "spectra" / instrument).glob("pha_*.fits"))
    expected = joint_crab["fits"][instrument]["datasets"]
    low, high = joint_crab["inputs"]["fit_ranges_TeV"][instrument]
    assert len(files) == len(expected)
    for path, numbers in zip(files, expected, strict=True):
        found = read_ogip(path)
        off = found.background
        used = found.mask_safe[:, 0, 0] & found.energy.contains_bin(low * u.TeV, high * u.TeV)
        assert (found.counts.data.sum(), off.counts.data.sum()) == (numbers["n_on_all"], numbers["n_off_all"])
        assert found.counts.data[used].sum() == numbers["n_on"]
        assert off.counts.data[used].sum() == numbers["n_off"]
        assert off.alpha[used] == pytest.approx(numbers["alpha"], rel=1e-8)
        assert found.meta["livetime"] == pytest.approx(numbers["livetime_s"], rel=1e-8)
        assert used.sum() == numbers["n_bins_fit"]
        edges = found.energy.edges.to_value(u.TeV)
        assert [edges[:-1][used][0], edges[1:][used][-1]] == pytest.approx(numbers["range_TeV"], rel=1e-8)


def test_public_stack_names_all_its_observations(public_data):
    found = read_ogip(public_data / "joint-crab" / "spectra" / "fact" / "pha_stacked.fits")
    assert len(found.meta["obs_ids"]) == 125
    assert found.meta["obs_ids"][0] == 20131103093
    assert found.name == "stacked"
