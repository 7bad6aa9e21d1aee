"""Sky maps as FITS: round trips, tables of bands, and forms that are refused."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.io.skymaps import read_mask, read_sky_map, write_sky_map


@pytest.fixture
def sky_map(make_dataset):
    dataset = make_dataset()
    one = Axis("energy", [1, 10] * u.TeV, "log")
    image = Map(dataset.geom, (), dataset.counts.data.sum(axis=0) - 3)
    flux = Map(dataset.geom, (one,), dataset.exposure.data[:1], u.Unit("cm-2 s-1"))
    meta = {
        "estimator": "excess_map",
        "source positions": {"crab": [83.63, 22.01]},
        "correlation_radius": 0.1,
    }
    return SkyMap({"excess": image, "sqrt_ts": dataset.counts, "flux": flux}, meta)


def test_sky_map_round_trip(tmp_path, sky_map, provenance):
    write_sky_map(tmp_path / "excess.fits", sky_map, provenance)
    found = read_sky_map(tmp_path / "excess.fits")
    assert list(found.maps) == ["excess", "sqrt_ts", "flux"]
    assert found.meta == sky_map.meta
    for name, expected in sky_map.maps.items():
        np.testing.assert_array_equal(found.maps[name].data, expected.data)
        assert found.maps[name].geom == expected.geom
        assert found.maps[name].unit == expected.unit
        assert [a.name for a in found.maps[name].axes] == [a.name for a in expected.axes]


def test_maps_on_the_same_axes_share_one_table_of_bands(tmp_path, sky_map, provenance):
    flux = sky_map.maps["flux"]
    write_sky_map(tmp_path / "a.fits", SkyMap({"flux": flux, "flux_err": flux}), provenance)
    with fits.open(tmp_path / "a.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "FLUX", "FLUX_ERR", "BANDS", "PROVENANCE"]
    np.testing.assert_array_equal(
        read_sky_map(tmp_path / "a.fits").maps["flux_err"].axes[0].edges, [1, 10] * u.TeV
    )


def test_sky_map_without_image(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "a.fits")
    with pytest.raises(InputError, match="holds no image"):
        read_sky_map(tmp_path / "a.fits")


def test_not_a_number_survives(tmp_path, sky_map, provenance):
    image = sky_map.maps["excess"]
    data = np.where(np.arange(image.data.size).reshape(image.data.shape) == 7, np.nan, image.data)
    write_sky_map(tmp_path / "a.fits", SkyMap({"excess": image.with_data(data)}), provenance)
    assert np.flatnonzero(np.isnan(read_sky_map(tmp_path / "a.fits").maps["excess"].data)).tolist() == [7]


def _table(name, **columns):
    return fits.BinTableHDU.from_columns(
        [fits.Column(key, "D", array=values) for key, values in columns.items()], name=name
    )


def test_maps_in_other_forms_are_named(tmp_path):
    sparse = _table("COUNTS", PIX=[1, 2], CHANNEL=[0, 0], VALUE=[3.0, 4.0])
    fits.HDUList([fits.PrimaryHDU(), sparse]).writeto(tmp_path / "sparse.fits")
    with pytest.raises(
        InputError, match="HDU COUNTS is one in SPARSE form, which is not read; write it in full"
    ):
        read_sky_map(tmp_path / "sparse.fits")
    sphere = _table("SKYMAP", CHANNEL1=np.ones(12))
    sphere.header["PIXTYPE"] = "HEALPIX"
    fits.HDUList([fits.PrimaryHDU(), sphere]).writeto(tmp_path / "sphere.fits")
    with pytest.raises(InputError, match="HDU SKYMAP has HEALPix pixels, which are not read; project it"):
        read_sky_map(tmp_path / "sphere.fits")


def test_longitude_that_grows_to_the_right(tmp_path, sky_map, provenance):
    image = sky_map.maps["excess"]
    write_sky_map(tmp_path / "a.fits", SkyMap({"excess": image}), provenance)
    with fits.open(tmp_path / "a.fits") as hdus:
        hdu = fits.ImageHDU(hdus["EXCESS"].data[:, ::-1], hdus["EXCESS"].header, name="EXCESS")
        hdu.header["CDELT1"] *= -1
        hdu.header["CRPIX1"] = 9 - hdu.header["CRPIX1"]
        for key in ("CHECKSUM", "DATASUM"):
            del hdu.header[key]
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "b.fits")
    found = read_sky_map(tmp_path / "b.fits").maps["excess"]
    np.testing.assert_array_equal(found.data, image.data)
    assert found.geom == image.geom


def test_public_diffuse_model(public_data):
    path = public_data / "fermi-3fhl-crab" / "Fermi-LAT-3FHL_iem.fits"
    found = read_sky_map(path).maps["primary"]
    (axis,) = found.axes
    assert axis.nodes[0].to_value(u.MeV) == pytest.approx(58.473133, rel=1e-6)
    # its first column is at longitude (1 - 1424.5) / 8 + 360 = 182.0625 deg, here it is the last
    lon, lat = np.degrees(found.geom.lonlat)
    assert lon[0, -1] % 360 == pytest.approx(182.0625)
    assert lat[0, 0] == pytest.approx((1 - 63) / 8)
    with fits.open(path) as hdus:
        assert found.data[3, 5, -1] == hdus[0].data[3, 5, 0]


def test_mask_is_the_first_map(tmp_path, sky_map, provenance):
    write_sky_map(tmp_path / "mask.fits", sky_map, provenance)
    np.testing.assert_array_equal(read_mask([tmp_path / "mask.fits"]).data, sky_map.maps["excess"].data)
    assert read_mask([]) is None
