"""Files that we and gammapy write, opened by the other: the same maps, models, spectra and statistics."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

pytest.importorskip("gammapy", reason="gammapy is not installed (make peer)")

from gammapy.data import DataStore
from gammapy.datasets import MapDataset
from gammapy.estimators import FluxPoints, FluxPointsEstimator, LightCurveEstimator
from gammapy.makers import MapDatasetMaker, SafeMaskMaker
from gammapy.maps import Map, MapAxis, Maps, WcsGeom
from gammapy.modeling.models import (
    ExpCutoffPowerLawSpectralModel,
    FoVBackgroundModel,
    GaussianSpatialModel,
    LogParabolaSpectralModel,
    Models,
    PointSpatialModel,
    PowerLawNormSpectralModel,
    PowerLawSpectralModel,
    SkyModel,
)

from dl3flow.data.products import SkyMap
from dl3flow.geometry.axis import Axis
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.hdf5 import read_dataset, write_dataset
from dl3flow.io.models_yaml import read_covariance, read_models, write_models
from dl3flow.io.products import read_flux_points, read_light_curve, write_table
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_sky_map, write_sky_map

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
PROVENANCE = Provenance("step", "c0de", "{}", {}, {})
CRAB = {"lon_0": "83.63 deg", "lat_0": "22.01 deg", "frame": "icrs"}
OBS_IDS = (23523, 23526)


def crab_model() -> SkyModel:
    spectrum = PowerLawSpectralModel(index=2.6, amplitude="4e-11 cm-2 s-1 TeV-1")
    return SkyModel(spectrum, PointSpatialModel(**CRAB), name="crab")


@pytest.fixture(scope="module", params=["kernel", "migra"])
def theirs(request, hess_dl3, tmp_path_factory) -> Path:
    """A stack of two runs as gammapy writes it, with either form of the energy dispersion."""
    store = DataStore.from_dir(hess_dl3)
    energy = MapAxis.from_energy_bounds("1 TeV", "10 TeV", 4)
    true = MapAxis.from_energy_bounds("0.3 TeV", "30 TeV", 8, name="energy_true")
    center = SkyCoord(83.63, 22.01, unit="deg")
    geom = WcsGeom.create(skydir=center, binsz=0.1, width=(3, 2.4), axes=[energy], frame="icrs", proj="CAR")
    migra = {"migra_axis": MapAxis.from_bounds(0.2, 5, 24, name="migra", node_type="edges")}
    options = {"energy_axis_true": true, "binsz_irf": 0.5, **(migra if request.param == "migra" else {})}
    stack = MapDataset.create(geom, name="stacked", **options)
    for obs_id in OBS_IDS:
        observation = store.obs(obs_id)
        dataset = MapDatasetMaker().run(MapDataset.create(geom, name=str(obs_id), **options), observation)
        stack.stack(SafeMaskMaker(methods=["offset-max"], offset_max="1.5 deg").run(dataset, observation))
    stack.mask_fit = stack.counts.geom.energy_mask(1.5 * u.TeV, None)
    path = tmp_path_factory.mktemp(request.param) / "theirs.fits"
    stack.write(path)
    return path


def assert_same_maps(one, other):
    assert one.unit == other.unit
    assert one.geom == other.geom
    for a, b in zip(one.geom.axes, other.geom.axes, strict=True):
        assert (a.name, a.interp, a.node_type, a.unit) == (b.name, b.interp, b.node_type, b.unit)
        np.testing.assert_allclose(
            a.edges.value, b.edges.value, rtol=1e-12, atol=1e-7 if a.name == "rad" else 0
        )
    np.testing.assert_allclose(one.data, other.data, rtol=1e-7)


def assert_same_datasets(one, other):
    for name in ("counts", "exposure", "background", "mask_safe"):
        assert_same_maps(getattr(one, name), getattr(other, name))
    assert_same_maps(one.psf.psf_map, other.psf.psf_map)
    assert_same_maps(one.psf.exposure_map, other.psf.exposure_map)
    assert_same_maps(one.edisp.edisp_map, other.edisp.edisp_map)
    assert_same_maps(one.edisp.exposure_map, other.edisp.exposure_map)
    assert type(one.edisp) is type(other.edisp)
    for dataset in (one, other):
        dataset.models = [crab_model()]
    assert other.stat_sum() == pytest.approx(one.stat_sum(), rel=1e-6)
    # gammapy convolves in single precision: its noise goes with the brightest pixel
    predicted = one.npred().data
    np.testing.assert_allclose(other.npred().data, predicted, atol=1e-6 * predicted.max())


def test_map_dataset_through_our_reader_and_writer(theirs, tmp_path):
    write_fits_dataset(tmp_path / "ours.fits", read_fits_dataset(theirs), PROVENANCE)
    one, other = MapDataset.read(theirs), MapDataset.read(tmp_path / "ours.fits")
    assert_same_datasets(one, other)
    np.testing.assert_array_equal(one.mask_fit.data, other.mask_fit.data)
    assert other.name == "stacked"
    assert np.ravel(other.meta_table["OBS_ID"]).tolist() == list(OBS_IDS)
    assert abs((one.gti.time_start - other.gti.time_start).to_value(u.s)).max() < 1e-6
    assert other.gti.time_sum.to_value(u.s) == pytest.approx(one.gti.time_sum.to_value(u.s))


def test_our_reading_of_their_maps(theirs):
    one, dataset = MapDataset.read(theirs), read_fits_dataset(theirs)
    np.testing.assert_array_equal(dataset.counts.data, one.counts.data)
    np.testing.assert_array_equal(dataset.mask_safe, one.mask_safe.data)
    assert dataset.edisp.edisp.data.shape == one.edisp.edisp_map.data.shape
    assert dataset.meta["obs_ids"] == list(OBS_IDS)
    assert dataset.meta["livetime"] == pytest.approx(one.exposure.meta["livetime"].to_value(u.s))
    lon, lat = dataset.geom.lonlat
    sky = one.counts.geom.to_image().get_coord()
    np.testing.assert_allclose(np.degrees(lon), sky.lon.to_value(u.deg), atol=1e-9)
    np.testing.assert_allclose(np.degrees(lat), sky.lat.to_value(u.deg), atol=1e-9)
    solid_angle = one.counts.geom.to_image().solid_angle().to_value(u.sr)
    np.testing.assert_allclose(dataset.geom.solid_angle.value, solid_angle, rtol=1e-6)


def test_hdf5_loses_nothing_on_the_way(theirs, tmp_path):
    write_dataset(tmp_path / "a.h5", read_fits_dataset(theirs), PROVENANCE)
    write_fits_dataset(tmp_path / "ours.fits", read_dataset(tmp_path / "a.h5"), PROVENANCE)
    assert_same_datasets(MapDataset.read(theirs), MapDataset.read(tmp_path / "ours.fits"))


def test_fermi_dataset(public_data, tmp_path):
    path = public_data / "fermi-3fhl-crab" / "Fermi-LAT-3FHL_data_Fermi-LAT.fits"
    write_fits_dataset(tmp_path / "ours.fits", read_fits_dataset(path), PROVENANCE)
    # Radii and energies of its point spread are nodes, in rad and GeV.
    assert_same_datasets(MapDataset.read(path), MapDataset.read(tmp_path / "ours.fits"))


@pytest.fixture
def excess(theirs):
    counts = read_fits_dataset(theirs).counts
    one = Axis("energy", u.Quantity([counts.axes[0].edges[0], counts.axes[0].edges[-1]]), "log")
    return type(counts)(counts.geom, (one,), counts.data.sum(axis=0, keepdims=True) - 0.25)


def test_sky_maps(excess, tmp_path):
    image = type(excess)(excess.geom, (), excess.data[0])
    write_sky_map(tmp_path / "a.fits", SkyMap({"excess": excess, "image": image}), PROVENANCE)
    write_sky_map(tmp_path / "b.fits", SkyMap({"excess": excess, "sqrt_ts": excess}), PROVENANCE)
    for path in ("a.fits", "b.fits"):
        found = Map.read(tmp_path / path, hdu="EXCESS")
        np.testing.assert_array_equal(found.data, excess.data)
        np.testing.assert_allclose(found.geom.axes["energy"].edges.to_value(u.TeV), [1, 10], rtol=1e-12)
    np.testing.assert_array_equal(Map.read(tmp_path / "a.fits", hdu="IMAGE").data, excess.data[0])
    assert set(Maps.read(tmp_path / "b.fits")) == {"excess", "sqrt_ts"}
    Maps.read(tmp_path / "b.fits").write(tmp_path / "c.fits")
    np.testing.assert_array_equal(read_sky_map(tmp_path / "c.fits").maps["sqrt_ts"].data, excess.data)


@pytest.fixture(scope="module")
def their_models(tmp_path_factory):
    gauss = GaussianSpatialModel(
        lon_0="184.6 deg", lat_0="-5.8 deg", sigma="0.2 deg", e=0.5, phi="30 deg", frame="galactic"
    )
    models = Models(
        [
            crab_model(),
            SkyModel(LogParabolaSpectralModel(), gauss, name="nebula", datasets_names=["run"]),
            SkyModel(
                ExpCutoffPowerLawSpectralModel(lambda_="0.1 TeV-1"), PointSpatialModel(**CRAB), name="pulsar"
            ),
            FoVBackgroundModel(dataset_name="run"),
            FoVBackgroundModel(
                dataset_name="other", spectral_model=PowerLawNormSpectralModel(tilt=0.1, norm=1.2)
            ),
        ]
    )
    models["crab"].spectral_model.index.min = 1
    models["crab"].spectral_model.index.max = 5
    models["pulsar"].spectral_model.index = models["crab"].spectral_model.index
    rng = np.random.default_rng(1)
    free = [not p.frozen for p in models.parameters]
    scale = np.array([abs(p.value) or 1 for p in models.parameters]) * 0.01 * free
    roots = rng.normal(size=(len(scale), 3 * len(scale))) / np.sqrt(3 * len(scale))
    models.covariance = roots @ roots.T * np.outer(scale, scale)
    path = tmp_path_factory.mktemp("models") / "theirs.yaml"
    models.write(path)
    return path


def test_models_through_our_reader_and_writer(their_models, tmp_path):
    names, covariance = read_covariance(their_models)
    models = read_models(their_models)
    write_models(tmp_path / "ours.yaml", models, names, covariance, PROVENANCE)
    one, other = Models.read(their_models), Models.read(tmp_path / "ours.yaml")
    assert other.names == one.names
    for a, b in zip(one.parameters, other.parameters, strict=True):
        assert (a.name, a.value, a.unit, a.frozen) == (b.name, b.value, b.unit, b.frozen)
        np.testing.assert_array_equal([a.min, a.max], [b.min, b.max])
        assert b.error == pytest.approx(a.error, rel=1e-12)
    np.testing.assert_allclose(other.covariance.data, one.covariance.data, rtol=1e-12)
    assert other["pulsar"].spectral_model.index is other["crab"].spectral_model.index
    energy = np.geomspace(0.1, 100, 9) * u.TeV
    for name in ("crab", "nebula", "pulsar"):
        a, b = (
            one[name].spectral_model.evaluate_error(energy),
            other[name].spectral_model.evaluate_error(energy),
        )
        np.testing.assert_allclose(b.value, a.value, rtol=1e-12)
    sky = SkyCoord([83.6, 83.9], [22.0, 22.1], unit="deg", frame="icrs")
    np.testing.assert_array_equal(
        other["nebula"].spatial_model.evaluate_geom(Map.create(skydir=sky[0], width=1).geom).value,
        one["nebula"].spatial_model.evaluate_geom(Map.create(skydir=sky[0], width=1).geom).value,
    )
    assert other["other-bkg"].spectral_model.norm.value == 1.2
    assert other["nebula"].datasets_names == ["run"]


def test_our_reading_of_their_models(their_models):
    names, covariance = read_covariance(their_models)
    models = read_models(their_models)
    theirs = Models.read(their_models)
    assert "pulsar.index" not in names  # linked to the Crab's
    assert models.parameters()["pulsar.index"].link
    for name, variance in zip(names, np.diag(covariance), strict=True):
        model, _, parameter = name.rpartition(".")
        assert models.parameters()[name].error == pytest.approx(np.sqrt(variance), rel=1e-9)
        assert models.parameters()[name].error == pytest.approx(
            theirs[model].parameters[parameter].error, rel=1e-9
        )


@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_flux_points_and_light_curve(theirs, tmp_path, suffix):
    dataset = MapDataset.read(theirs)
    dataset.models = [crab_model()]
    options = {"source": "crab", "selection_optional": ["errn-errp", "ul"]}
    points = FluxPointsEstimator(energy_edges=[1, 3.1622776601683795, 10] * u.TeV, **options).run([dataset])
    curve = LightCurveEstimator(energy_edges=[1, 10] * u.TeV, **options).run([dataset])
    points.write(tmp_path / f"points.{suffix}", sed_type="likelihood")
    curve.write(tmp_path / f"curve.{suffix}", sed_type="likelihood", format="lightcurve")

    ours = read_flux_points(tmp_path / f"points.{suffix}")
    np.testing.assert_allclose(ours.dnde().to_value(points.dnde.unit), points.dnde.data.ravel(), rtol=1e-12)
    write_table(tmp_path / f"ours.{suffix}", ours, PROVENANCE)
    found = FluxPoints.read(tmp_path / f"ours.{suffix}")
    for name in (
        "dnde",
        "dnde_err",
        "dnde_errn",
        "dnde_errp",
        "dnde_ul",
        "e2dnde",
        "npred",
        "npred_excess",
        "ts",
        "is_ul",
    ):
        np.testing.assert_allclose(getattr(found, name).data, getattr(points, name).data, rtol=1e-12)
        assert getattr(found, name).unit == getattr(points, name).unit

    ours = read_light_curve(tmp_path / f"curve.{suffix}")
    ours.table["dataset"] = ["run"]  # a column that gammapy does not know
    write_table(tmp_path / f"ours-curve.{suffix}", ours, PROVENANCE)
    found = FluxPoints.read(tmp_path / f"ours-curve.{suffix}", format="lightcurve")
    # what gammapy reads has no reference spectrum but the numbers of the file, so compare with its reading of its own
    curve = FluxPoints.read(tmp_path / f"curve.{suffix}", format="lightcurve")
    np.testing.assert_allclose(found.flux.data, curve.flux.data, rtol=1e-12)
    ends = [c.geom.axes["time"] for c in (found, curve)]
    np.testing.assert_allclose(ends[0].time_min.tt.mjd, ends[1].time_min.tt.mjd, atol=1e-10)
    np.testing.assert_allclose(ends[0].time_max.tt.mjd, ends[1].time_max.tt.mjd, atol=1e-10)
