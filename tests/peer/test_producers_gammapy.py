"""gammapy and we read the same from one run of every public producer: times, events and each response."""

import logging
import warnings
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.observation import HduEntry, ObservationEntry
from dl3flow.geometry.axis import Axis
from dl3flow.io.fermi import read_fermi_psf
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index, write_hdu_index, write_observation_index
from dl3flow.io.gadf_irf import read_irfs
from dl3flow.io.gadf_write import write_observation
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.psf import point_spread, psf_king, psf_table
from dl3flow.irf.table import IrfTable

pytest.importorskip("gammapy")
pytestmark = pytest.mark.peer

# folder, OBS_ID, responses, and offsets inside the tables (gammapy takes only one of them where the table has one)
RUNS = {
    "hess": ("hess-dl3-dr1", 23523, "full-enclosure", [0.1, 0.5, 1.7]),
    "magic": ("joint-crab/dl3/magic", 5029747, "point-like", [0.0, 0.4]),
    "magic-rad-max": ("magic/rad_max/data", 5029748, "point-like", [0.4]),
    "veritas": ("joint-crab/dl3/veritas", 57993, "point-like", [0.0, 0.5, 2.0]),
    "fact": ("joint-crab/dl3/fact", 20131103103, "point-like", [0.3, 0.6, 1.2]),
}
ENERGY = [0.35, 1.0, 3.3, 12.0] * u.TeV


@pytest.fixture(scope="module", params=list(RUNS))
def pair(request, public_data):
    """One run as gammapy and as we read it, and offsets to compare at."""
    from gammapy.data import DataStore

    folder, obs_id, required, offset = RUNS[request.param]
    root = public_data / folder
    if not root.is_dir():
        pytest.skip(f"{folder} is absent")
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DataStore.from_dir(root).get_observations([obs_id], required_irf=required)[0]
        # gammapy reads when asked: ask while its warnings on the files are off
        for name in ("events", "gti", "aeff", "edisp", "psf", "bkg", "rad_max"):
            if name in ("events", "gti") or name in theirs.available_irfs or name == "rad_max":
                getattr(theirs, name)
    logging.disable(logging.NOTSET)
    entry = next(entry for entry in read_index(root) if entry.obs_id == obs_id)
    return theirs, read_observation(entry, root), offset * u.deg


def test_times_and_events(pair):
    theirs, ours, _ = pair
    assert theirs.observation_live_time_duration.to_value("s") == pytest.approx(
        ours.livetime.to_value("s"), rel=1e-9
    )
    assert theirs.gti.time_sum.to_value("s") == pytest.approx(ours.ontime.to_value("s"), rel=1e-9)
    start = ours.gti.reference + ours.gti.start[0]
    assert abs((theirs.gti.time_start[0] - start).to_value("us")) < 10
    assert np.array_equal(theirs.events.energy.to_value("TeV"), ours.events.energy.to_value("TeV"))
    # gammapy keeps FK5, which is 0.02 arcsec from ICRS
    assert theirs.events.radec.separation(ours.events.radec).arcsec.max() < 0.03
    assert theirs.get_pointing_icrs(theirs.tmid).separation(ours.pointing).arcsec < 0.03


def test_area(pair):
    theirs, ours, offset = pair
    expected = theirs.aeff.evaluate(energy_true=ENERGY[:, None], offset=offset).to_value("m2")
    assert expected.min() > 0
    assert np.allclose(effective_area(ours.aeff, ENERGY, offset).to_value("m2"), expected, rtol=1e-6)
    for key in ("lo_thres", "hi_thres"):
        stated = theirs.aeff.meta.get(key.upper())
        found = ours.aeff.meta[key]
        assert (None if found is None else found.to_value("TeV")) == stated
    assert theirs.aeff.is_pointlike == ours.aeff.meta["is_pointlike"]


def evaluated(edisp, migra, offset):
    hats = [edisp.hat("energy_true", ENERGY), edisp.hat("migra", migra), edisp.hat("offset", offset)]
    return np.einsum("xe,ym,zo,emo->xyz", *hats, edisp.quantity.to_value(""))


def test_dispersion(pair):
    theirs, ours, offset = pair
    migra = [0.7, 0.95, 1.0, 1.3] * u.one
    expected = theirs.edisp.evaluate(energy_true=ENERGY[:, None, None], migra=migra[:, None], offset=offset)
    assert expected.max() > 0.1
    assert np.allclose(evaluated(ours.edisp, migra, offset), expected.to_value(""), rtol=1e-6, atol=1e-9)


def test_point_spread(pair):
    theirs, ours, offset = pair
    if "psf" not in theirs.available_irfs:
        assert ours.psf is None
        return
    rad = np.linspace(0.02, 0.4, 20) * u.deg
    expected = theirs.psf.evaluate(energy_true=ENERGY[:, None, None], rad=rad[:, None], offset=offset)
    found = psf_table(ours.psf, ENERGY, rad, offset)
    assert np.allclose(found, np.maximum(expected.to_value("sr-1"), 0), rtol=1e-6, atol=1e-6 * found.max())


def test_background(pair):
    theirs, ours, _ = pair
    if "bkg" not in theirs.available_irfs:
        assert ours.bkg is None
        return
    assert np.array_equal(
        theirs.bkg.quantity.to_value("s-1 MeV-1 sr-1"), ours.bkg.quantity.to_value("s-1 MeV-1 sr-1")
    )
    assert ours.bkg.meta["fov_alignment"] == theirs.bkg.fov_alignment.value
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 4)
    lon, lat = [0.4, -1.1, 0.03] * u.deg, [0.2, 0.7, -1.6] * u.deg
    # its maker hands the table the mirrored longitude
    expected = theirs.bkg.integrate_log_log(
        energy=energy.edges[:, None], fov_lon=-lon, fov_lat=lat, axis_name="energy"
    ).to_value("s-1 sr-1")
    found = background_rate(ours.bkg, energy, lon.to_value("rad"), lat.to_value("rad")).to_value("s-1 sr-1")
    assert found == pytest.approx(expected, rel=1e-3)


def test_radius(pair):
    theirs, ours, offset = pair
    if theirs.rad_max is None:
        assert ours.rad_max is None
        return
    axis = ours.rad_max.axis("energy")
    expected = theirs.rad_max.evaluate(energy=axis.centers, offset=offset[0]).to_value("deg").ravel()
    assert ours.rad_max.quantity.to_value("deg")[:, 0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("site", ["North", "South"])
def test_cta(public_data: Path, site):
    """Responses of one file; the point spread is a normalised mixture in both."""
    from gammapy.irf import load_irf_dict_from_file

    files = sorted((public_data / "cta-caldb").glob(f"Prod5-{site}*.fits.gz"))
    if not files:
        pytest.skip("cta-caldb is absent")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = load_irf_dict_from_file(files[0])
    ours = read_irfs(files[0])
    energy, offset = [0.1, 1.0, 20.0] * u.TeV, [0.5, 1.2, 3.4] * u.deg
    area = theirs["aeff"].evaluate(energy_true=energy[:, None], offset=offset).to_value("m2")
    assert np.allclose(effective_area(ours["aeff"], energy, offset).to_value("m2"), area, rtol=1e-6)
    migra = [0.7, 0.95, 1.0, 1.3] * u.one
    expected = theirs["edisp"].evaluate(
        energy_true=ENERGY[:, None, None], migra=migra[:, None], offset=offset
    )
    assert np.allclose(evaluated(ours["edisp"], migra, offset), expected.to_value(""), rtol=1e-6, atol=1e-9)
    rad = Axis.from_bounds("rad", 0 * u.deg, 1.5 * u.deg, 3000, "lin")
    found = point_spread(ours["psf"], energy, rad, offset).to_value("sr-1")
    expected = (
        theirs["psf"]
        .evaluate(energy_true=energy[:, None, None], rad=rad.centers[:, None], offset=offset)
        .to_value("sr-1")
    )
    assert np.allclose(found[:, :400], expected[:, :400], rtol=3e-3, atol=1e-3 * expected.max())
    one, two = (x.to_value("s-1 MeV-1 sr-1") for x in (theirs["bkg"].quantity, ours["bkg"].quantity))
    assert np.array_equal(one, two)


def test_fermi_psf(public_data):
    """The same nodes and values; gammapy evaluates between them as we do."""
    from gammapy.irf import PSFMap

    path = public_data / "joint-crab" / "dl3" / "fermi" / "psf.fits.gz"
    if not path.exists():
        pytest.skip("the Fermi-LAT files are absent")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PSFMap.read(path, format="gtpsf")
    ours = read_fermi_psf(path)
    data = theirs.psf_map.data[:, :, 0, 0]
    assert np.array_equal(ours.data["RPSF"][:, 0], data)
    axes = theirs.psf_map.geom.axes
    assert ours.axis("energy_true").centers.to_value("MeV") == pytest.approx(
        axes["energy_true"].center.to_value("MeV")
    )
    assert ours.axis("rad").centers.to_value("deg") == pytest.approx(axes["rad"].center.to_value("deg"))


def test_flare_in_ten_minutes(hess_dl3):
    """Splitting runs into intervals keeps the good time and the events that gammapy keeps."""
    from astropy.time import Time
    from gammapy.data import DataStore

    from dl3flow.reduce.filter import TimeIntervals, split_observation

    edges = Time("2006-07-29T20:30", scale="utc") + np.arange(35) * 10 * u.min
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = DataStore.from_dir(hess_dl3).get_observations([33787, 33792, 33799])
        theirs = runs.select_time([Time([a, b]) for a, b in zip(edges[:-1], edges[1:], strict=True)])
        expected = [(run.gti.time_sum.to_value("s"), len(run.events.table)) for run in theirs]
    entries = {entry.obs_id: entry for entry in read_index(hess_dl3)}
    parts = [
        part
        for obs_id in (33787, 33792, 33799)
        for part in split_observation(
            read_observation(entries[obs_id], hess_dl3), TimeIntervals(edges[:-1], edges[1:])
        )
    ]
    found = sorted((part.ontime.to_value("s"), len(part.events)) for part in parts)
    assert len(found) > 5
    assert [n for _, n in found] == [n for _, n in sorted(expected)]
    assert [s for s, _ in found] == pytest.approx([s for s, _ in sorted(expected)], abs=1e-4)


@pytest.mark.parametrize("n_energy", [1, 5])
def test_what_we_write(demo_run, tmp_path, n_energy):
    """gammapy reads our King profile, directional cuts (one radius or several), event types and phases."""
    from gammapy.data import DataStore

    true = Axis.from_bounds("energy_true", 0.1 * u.TeV, 100 * u.TeV, 6)
    offset = Axis.from_nodes("offset", [0.0, 1.0, 3.0] * u.deg)
    king = {"GAMMA": np.full((6, 3), 2.0), "SIGMA": np.linspace(0.03, 0.09, 18).reshape(6, 3)}
    units = {"GAMMA": u.dimensionless_unscaled, "SIGMA": u.deg}
    energy = Axis.from_bounds("energy", 0.1 * u.TeV, 100 * u.TeV, n_energy)
    radii = {"RAD_MAX": np.linspace(0.1, 0.3, n_energy)[:, None]}
    single = Axis("offset", [0.0, 2.0] * u.deg)
    n = len(demo_run.events)
    bits = np.zeros((n, 32), dtype=bool)
    bits[::3, 4] = True
    run = replace(
        demo_run,
        events=replace(demo_run.events, event_type=bits, phase=np.linspace(0, 1, n, endpoint=False)),
        aeff=replace(demo_run.aeff, meta={**demo_run.aeff.meta, "is_pointlike": True}),
        psf=IrfTable("psf_king", (true, offset), king, units, {"is_pointlike": False}),
        rad_max=IrfTable("rad_max_2d", (energy, single), radii, {"RAD_MAX": u.deg}, {"is_pointlike": True}),
    )
    write_observation(tmp_path / "run.fits", run)
    kinds = {"events": "events", "gti": "gti", "aeff": "aeff_2d", "psf": "psf_king", "rad_max": "rad_max_2d"}
    hdus = {name: HduEntry("run.fits", name.upper(), kind) for name, kind in kinds.items()}
    entry = ObservationEntry(
        1001, "Crab", 83.63, 22.51, run.meta["tstart"], run.meta["tstop"], 51910.0, "tt", None, 0, "T", hdus
    )
    write_observation_index(tmp_path / "obs-index.fits.gz", [entry])
    write_hdu_index(tmp_path / "hdu-index.fits.gz", [entry])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = DataStore.from_dir(tmp_path).get_observations(
            [1001], required_irf=["aeff", "psf", "rad_max"]
        )[0]
        table = theirs.events.table
    assert np.array_equal(table["EVENT_TYPE"][:, 31 - 4], bits[:, 4])
    assert np.array_equal(table["PHASE"], run.events.phase)
    assert theirs.rad_max.quantity.to_value("deg") == pytest.approx(radii["RAD_MAX"])
    assert theirs.rad_max.is_fixed_rad_max == (n_energy == 1)
    assert theirs.aeff.is_pointlike
    rad = np.linspace(0.01, 0.3, 10) * u.deg
    at, away = [1.0, 20.0] * u.TeV, [0.0, 1.7] * u.deg
    expected = theirs.psf.evaluate(energy_true=at[:, None, None], rad=rad[:, None], offset=away).to_value(
        "sr-1"
    )
    found = psf_king(run.psf, at, rad, away) / (2 * np.pi) * (1 - 1 / 2.0)
    assert found == pytest.approx(expected, rel=1e-6)
