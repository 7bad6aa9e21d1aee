"""FITS datasets of four kinds: exact round trips, equal bytes, files of others, and one sentence for each damage."""

import json
import time
import warnings
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from dl3flow.data.events import Gti
from dl3flow.errors import InputError
from dl3flow.geometry.region import RegionGeometry
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.fits_products import read_provenance

CIRCLE = "icrs;circle(83.63, 22.01, 0.11)"


@pytest.fixture
def path(tmp_path, make_dataset, provenance):
    path = tmp_path / "stacked.fits"
    write_fits_dataset(path, make_dataset(), provenance)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edisp": "migra"},
        {"frame": "galactic"},
        {"with_psf": False, "mask_fit": False},
        {"n_energy": 1},
        {"background": "off"},
        {"background": "off", "frame": "galactic", "mask_fit": False},
        {"region": CIRCLE, "with_psf": False},
        {"region": CIRCLE, "with_psf": False, "background": "off", "edisp": "migra"},
        {"region": CIRCLE, "background": "off", "n_energy": 1},
        {"region": "icrs;point(83.63, 22.01)", "with_psf": False, "background": "off", "mask_fit": False},
        {"region": "icrs;circle(83.63, 22.01, 0.1)\ncircle(84, 22, 0.1)", "with_psf": False},
        {"region": "galactic;ellipse(184.5, -5.8, 0.2, 0.1, 30)", "with_psf": False},
    ],
)
def test_round_trip_is_exact(tmp_path, make_dataset, provenance, assert_equal, options):
    dataset = make_dataset(**options)
    write_fits_dataset(tmp_path / "a.fits", dataset, provenance)
    assert_equal(read_fits_dataset(tmp_path / "a.fits"), dataset)
    assert read_provenance(tmp_path / "a.fits") == provenance.to_mapping()


def test_layout(path):
    with fits.open(path) as hdus:
        names = [hdu.name for hdu in hdus]
        maps = [
            "COUNTS",
            "EXPOSURE",
            "BACKGROUND",
            "EDISP",
            "EDISP_EXPOSURE",
            "PSF",
            "PSF_EXPOSURE",
            "MASK_SAFE",
            "MASK_FIT",
        ]
        assert names == [
            "PRIMARY",
            *(x for m in maps for x in (m, f"{m}_BANDS")),
            "GTI",
            "META_TABLE",
            "PROVENANCE",
        ]
        assert hdus["COUNTS"].data.dtype == ">f4"
        assert hdus["MASK_SAFE"].data.dtype == np.uint8
        assert hdus["PSF_EXPOSURE"].shape == (5, 1, 2, 3)
        assert hdus["PSF"].header["AXCOLS1"] == "RAD_MIN,RAD_MAX"
        assert hdus["PSF"].header["AXCOLS2"] == "ENERGY_TRUE_MIN,ENERGY_TRUE_MAX"
        bands = hdus["PSF_BANDS"].data
        # Seven radii of 0.6/7 deg, the radius varying fastest: the eighth row begins the second energy.
        assert bands["RAD_MIN"][7] == 0
        assert bands["ENERGY_TRUE_MIN"][7] == pytest.approx(0.3 * 100 ** (1 / 5))
        assert hdus["GTI"].header["MJDREFI"] == 51910
        assert hdus["GTI"].header["MJDREFF"] == pytest.approx(0.000742870368412695, abs=1e-16)
        assert not [k for hdu in hdus for k in hdu.header if k.startswith("DATE") or k == "CREATED"]


def test_layout_of_a_measured_background(tmp_path, make_dataset, provenance):
    write_fits_dataset(tmp_path / "a.fits", make_dataset(background="off"), provenance)
    with fits.open(tmp_path / "a.fits") as hdus:
        names = [hdu.name for hdu in hdus]
        assert "BACKGROUND" not in names
        assert names[5:11] == [
            x for m in ("COUNTS_OFF", "ACCEPTANCE", "ACCEPTANCE_OFF") for x in (m, f"{m}_BANDS")
        ]


def test_layout_of_a_spectrum(tmp_path, make_dataset, provenance):
    off = {"background": {"regions": "icrs;circle(84, 22, 0.11)\ncircle(83, 22, 0.11)"}}
    dataset = make_dataset(region=CIRCLE, with_psf=False, background="off", mask_fit=False)
    dataset = replace(dataset, meta={**dataset.meta, **off})
    write_fits_dataset(tmp_path / "a.fits", dataset, provenance)
    with fits.open(tmp_path / "a.fits") as hdus:
        parts = ["COUNTS", "EXPOSURE", "COUNTS_OFF", "ACCEPTANCE", "ACCEPTANCE_OFF"]
        parts += ["EDISP", "EDISP_EXPOSURE", "MASK_SAFE"]
        assert [hdu.name for hdu in hdus] == [
            "PRIMARY",
            *(f"{part}{end}" for part in parts for end in ("", "_BANDS", "_REGION")),
            "GTI",
            "META_TABLE",
            "PROVENANCE",
        ]
        assert hdus["COUNTS"].columns.names == ["CHANNEL", "DATA"]
        assert hdus["COUNTS"].data["DATA"].shape == (3, 1, 1)
        assert hdus["COUNTS"].header["AXCOLS1"] == "E_MIN,E_MAX"
        assert hdus["EDISP"].data["DATA"].shape == (5, 3, 1, 1)
        assert hdus["EDISP_EXPOSURE"].data["DATA"].shape == (5, 1, 1, 1)
        assert hdus["MASK_SAFE"].data["DATA"].dtype == bool
        shape = hdus["COUNTS_REGION"].data[0]
        header = hdus["COUNTS_REGION"].header
        # the first pixel is 0 in the table and 1 in the WCS; the pixels are 0.01 deg wide
        assert shape["SHAPE"] == "circle"
        assert shape["X"] == pytest.approx(header["CRPIX1"] - 1, abs=1e-9)
        assert shape["R"] == pytest.approx(11, rel=1e-6)
        assert (header["CRVAL1"], header["CRVAL2"]) == pytest.approx((83.63, 22.01))
        assert len(hdus["COUNTS_OFF_REGION"].data) == 2


def test_regions_come_back_from_their_shapes(tmp_path, make_dataset, provenance):
    texts = (
        CIRCLE,
        "icrs;point(83.63,22.01)",
        "galactic;box(184.5,-5.8,0.2,0.1,30.0)",
        "icrs;annulus(83.63,22.01,0.1,0.2)",
        "icrs;polygon(83.5,22.0,83.8,22.0,83.8,22.3)\npolygon(83.0,22.0,83.3,22.0,83.3,22.3,83.0,22.3)",
    )
    for text in texts:
        dataset = make_dataset(region=text, with_psf=False)
        write_fits_dataset(tmp_path / "a.fits", dataset, provenance)
        _edit(_as_of_others)(tmp_path / "a.fits")
        found = read_fits_dataset(tmp_path / "a.fits").geom
        assert isinstance(found, RegionGeometry)
        ours, theirs = dataset.geom.regions, found.regions
        assert len(ours) <= len(theirs)
        for one, two in zip(ours, theirs, strict=True):
            assert type(one) is type(two)
            if hasattr(one, "vertices"):
                corners = two.vertices[: len(one.vertices)]
                assert corners.separation(one.vertices).max() < 1e-9 * u.deg
                # a polygon of fewer corners than another repeats its last one
                assert two.vertices[len(one.vertices) - 1 :].separation(one.vertices[-1]).max() < 1e-9 * u.deg
            else:
                assert one.center.separation(two.center) < 1e-9 * u.deg
            for name in ("radius", "inner_radius", "width", "angle"):
                if hasattr(one, name):
                    assert getattr(two, name).to_value("deg") == pytest.approx(
                        getattr(one, name).to_value("deg"), rel=1e-9
                    )


def test_off_regions_of_others_are_kept(tmp_path, make_dataset, provenance):
    dataset = make_dataset(region=CIRCLE, with_psf=False, background="off")
    meta = {**dataset.meta, "background": {"regions": "icrs;circle(84.0,22.0,0.11)\ncircle(83.0,22.0,0.11)"}}
    write_fits_dataset(tmp_path / "a.fits", replace(dataset, meta=meta), provenance)
    _edit(_as_of_others)(tmp_path / "a.fits")
    assert read_fits_dataset(tmp_path / "a.fits").meta["background"] == meta["background"]


def test_spectrum_without_a_region(tmp_path, make_dataset, provenance):
    dataset = make_dataset(region=CIRCLE, with_psf=False)
    write_fits_dataset(tmp_path / "a.fits", dataset, provenance)
    _edit(lambda h: (_as_of_others(h), h.pop("COUNTS_REGION")))(tmp_path / "a.fits")
    found = read_fits_dataset(tmp_path / "a.fits")
    assert found.geom.is_point
    assert found.meta["warnings"] == ["a.fits does not say where on the sky its spectrum was taken"]


def test_no_background_is_refused(tmp_path, make_dataset, provenance):
    with pytest.raises(InputError, match="the dataset 'run-1' has no background"):
        write_fits_dataset(tmp_path / "a.fits", make_dataset(background=None), provenance)
    assert not (tmp_path / "a.fits").exists()


def test_equal_datasets_give_equal_bytes_and_right_checksums(path, make_dataset, provenance):
    time.sleep(1.1)
    again = path.with_name("again.fits")
    write_fits_dataset(again, make_dataset(), provenance)
    assert again.read_bytes() == path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(again, checksum=True) as hdus:
            assert [h.name for h in hdus if "CHECKSUM" not in h.header] == ["META_TABLE"]


def test_time_scale_and_stack_of_several_observations(tmp_path, make_dataset, provenance, assert_equal):
    dataset = make_dataset()
    gti = Gti(dataset.gti.start, dataset.gti.stop, Time(51544.0, format="mjd", scale="utc"))
    dataset = replace(dataset, gti=gti, meta={"obs_ids": [1, 2], "telescope": "HESS", "livetime": None})
    write_fits_dataset(tmp_path / "a.fits", dataset, provenance)
    assert_equal(read_fits_dataset(tmp_path / "a.fits"), dataset)
    with fits.open(tmp_path / "a.fits") as hdus:
        assert hdus["META_TABLE"].data["OBS_ID"].tolist() == [[1, 2]]
        assert hdus["GTI"].header["TIMESYS"] == "UTC"


def test_name_given_or_from_the_file(path):
    assert read_fits_dataset(path).name == "run-1"
    assert read_fits_dataset(path, name="fermi").name == "fermi"


def test_facts_of_a_file_made_elsewhere(path):
    _edit(_as_of_others)(path)
    found = read_fits_dataset(path)
    assert found.meta == {
        "obs_ids": [23523],
        "telescope": "HESS",
        "livetime": 1581.736764695497,
        "ontime": 499.875,
    }


def test_missing_masks_and_responses(path):
    _edit(lambda hdus: [hdus.pop(n) for n in ("MASK_SAFE", "MASK_FIT", "PSF", "EDISP", "GTI", "META_TABLE")])(
        path
    )
    found = read_fits_dataset(path)
    assert found.mask_safe.all()
    assert (found.mask_fit, found.psf, found.edisp) == (None, None, None)
    assert len(found.gti.start) == 0


def test_public_fermi_dataset(public_data):
    found = read_fits_dataset(public_data / "fermi-3fhl-crab" / "Fermi-LAT-3FHL_data_Fermi-LAT.fits", "fermi")
    assert found.counts.data.sum() == 3004
    assert found.geom.frame == "galactic"
    assert found.psf.psf.data.shape == (17, 300, 1, 2)
    energy, rad = found.psf.psf.axes
    # Nodes of 10 GeV to 2 TeV; the squared-spaced radii begin at zero, their first edge half a step below.
    assert energy.nodes[[0, -1]].to_value(u.TeV) == pytest.approx([0.01, 2], rel=1e-6)
    assert rad.nodes[0] == 0 * u.rad
    assert rad.edges[0].value == pytest.approx(-9.69627422e-07, rel=1e-6)
    assert found.exposure.unit == u.Unit("cm2 s")
    # Probability of the point spread integrates to one.
    ring = 2 * np.pi * np.sin(rad.nodes.value) * found.psf.psf.data[8, :, 0, 0]
    assert np.trapezoid(ring, rad.nodes.value) == pytest.approx(1, abs=0.01)


def _edit(change):
    """Change HDUs of a file, and its check sums with them."""

    def spoil(path):
        with fits.open(path) as hdus:
            for hdu in hdus:
                _ = hdu.data
            change(hdus)
            for hdu in hdus:
                hdu.header.remove("CHECKSUM", ignore_missing=True)
                hdu.header.remove("DATASUM", ignore_missing=True)
            hdus.writeto(path, overwrite=True)

    return spoil


def _as_of_others(hdus):
    hdus[0].header["CREATOR"] = "Gammapy 2.1"
    del hdus[0].header["LASTHDU"]
    hdus.pop("PROVENANCE")


def _key(name, key, value):
    return _edit(lambda hdus: hdus[name].header.__setitem__(key, value))


def _values(name, column, change):
    def spoil(hdus):
        hdus[name].data[column] = change(hdus[name].data[column])

    return _edit(spoil)


def _image(name, change):
    def spoil(hdus):
        hdus[name].data = change(hdus[name].data)

    return _edit(spoil)


def _unit(low, high):
    def spoil(hdus):
        hdus["COUNTS_BANDS"].columns["E_MIN"].unit = low
        hdus["COUNTS_BANDS"].columns["E_MAX"].unit = high

    return _edit(spoil)


def _flip(path):
    with fits.open(path) as hdus:
        at = hdus["EXPOSURE"].fileinfo()["datLoc"]
    content = bytearray(path.read_bytes())
    content[at + 5] ^= 1
    path.write_bytes(content)


BAD = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("<html>"), "not a FITS file"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:20000]), "cut short"),
    "cut between two HDUs": (
        _edit(lambda h: h.pop("PROVENANCE")),
        "ends after HDU 'META_TABLE': it is cut short",
    ),
    "flipped bit": (_flip, "EXPOSURE.*SUM does not match"),
    "no counts": (_edit(lambda h: h.pop("COUNTS")), "no HDU COUNTS"),
    "no background": (_edit(lambda h: h.pop("BACKGROUND")), "no HDU BACKGROUND"),
    "no exposure": (_edit(lambda h: h.pop("EXPOSURE")), "no HDU EXPOSURE"),
    "no bands": (_edit(lambda h: h.pop("COUNTS_BANDS")), "no HDU COUNTS_BANDS"),
    "no psf weights": (_edit(lambda h: h.pop("PSF_EXPOSURE")), "no HDU PSF_EXPOSURE"),
    "other pixels": (_key("BACKGROUND", "CRVAL1", 80.0), "BACKGROUND is not on the pixels"),
    "mask elsewhere": (_key("MASK_SAFE", "CRVAL1", 80.0), "MASK_SAFE is not on the pixels"),
    "rotated": (_key("COUNTS", "PC1_2", 0.5), "rotated"),
    "pole": (_key("COUNTS", "LONPOLE", 30.0), "rotated or has a moved pole"),
    "no sky": (_edit(lambda h: [h["COUNTS"].header.remove(f"CTYPE{n}") for n in (1, 2)]), "no celestial WCS"),
    "frame": (
        _edit(lambda h: h["COUNTS"].header.update(CTYPE1="ELON-CAR", CTYPE2="ELAT-CAR")),
        "'ELON-CAR' is not supported",
    ),
    "oblong pixels": (_key("COUNTS", "CDELT1", -0.2), "square"),
    "unit": (_key("EXPOSURE", "BUNIT", "foo"), "BUNIT 'foo' is not a unit"),
    "axis order": (_edit(lambda h: h["PSF"].header.update(BANDSHDU="EDISP_BANDS")), "rows for"),
    "no columns": (_key("COUNTS_BANDS", "AXCOLS1", ""), "AXCOLS1"),
    "unknown column": (_key("COUNTS_BANDS", "AXCOLS1", "E_MIN,E_MEX"), "'E_MEX' is missing"),
    "energy in metres": (_unit("m", "m"), "has the unit 'm', not an energy"),
    "two units": (_unit("TeV", "GeV"), "different units"),
    "no unit of the field": (_unit("foo", "foo"), "unit of column E_MIN is not known"),
    "energies fall": (_values("COUNTS_BANDS", "E_MIN", lambda e: e[::-1]), "does not increase"),
    "gap": (_values("COUNTS_BANDS", "E_MAX", lambda e: e * 0.9), "gaps or overlap"),
    "NaN energy": (_values("COUNTS_BANDS", "E_MIN", lambda e: e * np.nan), "does not increase"),
    "log of zero": (
        _values("COUNTS_BANDS", "E_MIN", lambda e: e - e[0]),
        "begins at 0.0 on a logarithmic axis",
    ),
    "image of one more bin": (
        _image("COUNTS", lambda d: np.concatenate([d, d[:1]])),
        "has 3 rows for 4 bands",
    ),
    "image of one line": (_image("COUNTS", lambda d: d[0, 0]), "not an image"),
    "gti times": (_values("GTI", "STOP", lambda t: t - 1e6), "STOP before"),
    "gti scale": (_key("GTI", "TIMESYS", "MARS"), "TIMESYS 'mars'"),
    "gti reference": (_edit(lambda h: h["GTI"].header.remove("MJDREFI")), "MJDREFI is missing"),
    "edisp energies": (_values("EDISP_BANDS", "ENERGY_TRUE_MAX", lambda e: e * 1.01), "gaps"),
    "meta": (_values("PROVENANCE", "META", lambda t: "{"), "META is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_one_sentence(path, case):
    spoil, words = BAD[case]
    spoil(path)
    with pytest.raises(InputError, match=words) as caught:
        read_fits_dataset(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


BAD_SPECTRUM = {
    "ogip": (_edit(lambda h: setattr(h["COUNTS"], "name", "SPECTRUM")), "is an OGIP spectrum"),
    "no off counts": (_edit(lambda h: h.pop("COUNTS_OFF")), "no HDU BACKGROUND, nor COUNTS_OFF"),
    "no acceptance": (_edit(lambda h: h.pop("ACCEPTANCE")), "no HDU ACCEPTANCE"),
    "no bands": (_edit(lambda h: h.pop("COUNTS_BANDS")), "no HDU COUNTS_BANDS"),
    "no values": (
        _edit(lambda h: h["COUNTS"].columns.change_name("DATA", "VALUE")),
        "the column 'DATA' is missing",
    ),
    "unit": (
        _edit(lambda h: setattr(h["EXPOSURE"].columns["DATA"], "unit", "foo")),
        "the unit 'foo' of DATA is not known",
    ),
    "other energies": (_values("ACCEPTANCE_BANDS", "E_MIN", lambda e: e * 1.0001), "gaps"),
    "region in degrees": (
        _edit(lambda h: (_as_of_others(h), setattr(h["COUNTS_REGION"].columns["X"], "unit", "deg"))),
        "the column 'X' has the unit 'deg', expected pixels",
    ),
    "shape": (
        _edit(
            lambda h: (
                _as_of_others(h),
                h["COUNTS_REGION"].data["SHAPE"].__setitem__(0, "blob"),
            )
        ),
        "a shape of the region cannot be understood",
    ),
    "excluded shape": (
        _edit(
            lambda h: (
                _as_of_others(h),
                h["COUNTS_REGION"].data["SHAPE"].__setitem__(0, "!point"),
            )
        ),
        "an excluded shape",
    ),
}


@pytest.mark.parametrize("case", BAD_SPECTRUM)
def test_bad_spectrum_is_refused_in_one_sentence(tmp_path, make_dataset, provenance, case):
    path = tmp_path / "a.fits"
    write_fits_dataset(path, make_dataset(region=CIRCLE, with_psf=False, background="off"), provenance)
    spoil, words = BAD_SPECTRUM[case]
    spoil(path)
    with pytest.raises(InputError, match=words) as caught:
        read_fits_dataset(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_livetime_of_others_must_be_a_time(path):
    def spoil(hdus):
        _as_of_others(hdus)
        hdus["EXPOSURE"].header["META"] = json.dumps({"livetime": "3 deg"})

    _edit(spoil)(path)
    with pytest.raises(InputError, match="`livetime` such as"):
        read_fits_dataset(path)
