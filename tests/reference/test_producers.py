"""DL3 of every public producer: number of runs, times, pointings and radii against the reference cases and the headers."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from dl3flow.geometry.axis import Axis
from dl3flow.io.fermi import read_fermi_events, read_fermi_exposure, read_fermi_psf
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.gadf_irf import read_irfs
from dl3flow.irf.psf import point_spread

# folder, runs, and the header radius of the cuts, deg
SETS = {
    "magic": ("joint-crab/dl3/magic", 2, 0.1414213),
    "veritas": ("joint-crab/dl3/veritas", 2, 0.1),
    "fact": ("joint-crab/dl3/fact", 125, 0.1732050807568877),
}


@pytest.fixture(scope="module")
def observations(public_data):
    """Every run of a set, read once."""
    read = {}

    def of(folder):
        root = public_data / folder
        if not root.is_dir():
            pytest.skip(f"{folder} is absent")
        if folder not in read:
            read[folder] = [read_observation(entry, root) for entry in read_index(root)]
        return read[folder]

    return of


def folder_of(public_data: Path, name: str) -> Path:
    path = public_data / name
    if not path.exists():
        pytest.skip(f"{name} is absent")
    return path


@pytest.mark.parametrize("producer", SETS)
def test_joint_crab_runs(reference, observations, producer):
    """Livetimes and offsets as case G quotes them, to its last digit."""
    folder, n_runs, radius = SETS[producer]
    runs = observations(folder)
    case = reference("G_joint_crab_paper")[0]["dl3"]
    assert len(runs) == n_runs == case[producer]["n_obs"]
    source = SkyCoord(*case["inputs"]["source"], unit="deg")
    by_id = {run.obs_id: run for run in runs}
    for expected in case[producer]["runs_first_4"]:
        run = by_id[expected["obs_id"]]
        assert run.livetime.to_value("s") == pytest.approx(expected["livetime_s"], rel=1e-8)
        assert run.pointing.separation(source).deg == pytest.approx(expected["offset_deg"], abs=1e-7)
    for run in runs:
        assert run.aeff.meta["is_pointlike"]
        assert run.edisp.kind == "edisp_2d"
        assert (run.psf, run.bkg) == (None, None)
        assert run.rad_max.quantity.to_value("deg").ravel().tolist() == [radius]
        assert run.rad_max.axis("energy").n_bins == 1


def test_hess_runs_of_the_joint_crab_case(reference, hess_dl3):
    entries = {entry.obs_id: entry for entry in read_index(hess_dl3)}
    source = SkyCoord(83.633083, 22.0145, unit="deg")
    for expected in reference("G_joint_crab_paper")[0]["dl3"]["hess"]["runs_first_4"]:
        run = read_observation(entries[expected["obs_id"]], hess_dl3)
        assert run.livetime.to_value("s") == pytest.approx(expected["livetime_s"], rel=1e-8)
        assert run.pointing.separation(source).deg == pytest.approx(expected["offset_deg"], abs=1e-7)
        assert run.rad_max is None


def test_magic_radii(reference, observations):
    """Case L: radius between the centres of RAD_MAX_2D, whose one offset bin is stored as a number."""
    case = reference("L_magic_rad_max")[0]["magic"]
    energy = Axis("energy", case["inputs"]["energy"]["edges"] * u.GeV, "log")
    source = SkyCoord(83.63, 22.01, unit="deg")
    runs = {run.obs_id: run for run in observations("magic/rad_max/data")}
    assert list(runs) == [5029748, 5029747]
    for expected in case["runs"]:
        run = runs[expected["obs_id"]]
        assert run.livetime.to_value("s") == pytest.approx(expected["livetime_s"], rel=1e-8)
        assert run.pointing.separation(source).deg == pytest.approx(expected["offset_deg"], abs=1e-7)
        assert run.rad_max.data["RAD_MAX"].shape == (20, 1)
        assert run.rad_max.axis("offset").edges.to_value("deg") == pytest.approx([0.39, 0.41])
        found = run.rad_max.hat("energy", energy.centers) @ run.rad_max.quantity.to_value("deg")[:, 0]
        assert found == pytest.approx(expected["rad_max_deg_at_reco_centers"], rel=1e-6)
        # the keyword LO_THRES of each file; there is no HI_THRES
        threshold = {5029747: 0.08576008, 5029748: 0.0807246}[run.obs_id]
        assert run.aeff.meta["lo_thres"].to_value("TeV") == pytest.approx(threshold, rel=1e-7)
        assert run.aeff.meta["hi_thres"] is None
        assert run.events.reference.scale == "utc"


@pytest.mark.parametrize("folder", [*(folder for folder, *_ in SETS.values()), "magic/rad_max/data"])
def test_times_are_those_of_the_headers(public_data, observations, folder):
    """Ontime is the sum of the intervals, livetime that times DEADC; FACT's 125 runs share one file of responses."""
    root = folder_of(public_data, folder)
    for run in observations(folder):
        (events,) = (name for name in run.meta["files"] if name != "fact_irf.fits")
        with fits.open(root / events) as hdus:
            header, gti = hdus["EVENTS"].header, hdus["GTI"].data
            ontime = float((gti["STOP"] - gti["START"]).sum())
            assert run.ontime.to_value("s") == pytest.approx(ontime, rel=1e-12)
            assert run.livetime.to_value("s") == pytest.approx(ontime * header["DEADC"], rel=1e-12)
            # MAGIC rounds its intervals to seconds
            assert run.livetime.to_value("s") == pytest.approx(header["LIVETIME"], rel=2e-4)
            assert len(run.events) == header["NAXIS2"]
            assert run.meta["location"]["geolat"] == header["GEOLAT"]


def test_fact_adds_up(observations):
    runs = observations("joint-crab/dl3/fact")
    # 123 runs of 5 minutes, two shorter ones
    seconds = sorted(round(run.ontime.to_value("s")) for run in runs)
    assert seconds[:2] == [115, 162]
    assert set(seconds[2:]) == {299, 300}
    assert {tuple(run.meta["files"])[-1] for run in runs} == {"fact_irf.fits"}
    assert [run.obs_id for run in runs if run.meta["warnings"]] == []


def test_veritas_nodes(observations):
    """Offsets 0 and 10 deg are nodes: an area between them is interpolated, not looked up."""
    for run in observations("joint-crab/dl3/veritas"):
        assert run.aeff.axis("offset").nodes.to_value("deg").tolist() == [0, 10]
        assert run.aeff.hat("offset", [0.0, 2.5] * u.deg).tolist() == [[1, 0], [0.75, 0.25]]
        assert run.aeff.meta["lo_thres"].to_value("TeV") > 0.1


def test_magic_says_what_is_odd(observations):
    """Right ascensions a turn too large, and event numbers that restart."""
    for run in observations("joint-crab/dl3/magic"):
        assert ["wrapped" in w or "repeat an EVENT_ID" in w for w in run.meta["warnings"]] == [True, True]
        assert 80 < run.events.radec.ra.deg.min() < run.events.radec.ra.deg.max() < 87


@pytest.mark.parametrize("site", ["North", "South"])
def test_cta_responses(public_data, site):
    """One file has all four, with HDUCLAS2 'PSF', and a background whose axes need one transposition."""
    (path,) = sorted(folder_of(public_data, "cta-caldb").glob(f"Prod5-{site}*.fits.gz"))
    found = read_irfs(path)
    assert {name: irf.kind for name, irf in found.items()} == {
        "aeff": "aeff_2d", "edisp": "edisp_2d", "psf": "psf_3gauss", "bkg": "bkg_3d",
    }  # fmt: skip
    assert found["aeff"].data["EFFAREA"].shape == (42, 6)
    assert found["edisp"].data["MATRIX"].shape == (300, 300, 6)
    assert [axis.name for axis in found["bkg"].axes] == ["energy", "fov_lon", "fov_lat"]
    with fits.open(path) as hdus:
        raw = hdus["BACKGROUND"].data["BKG"][0]
        assert np.array_equal(found["bkg"].data["BKG"], raw.transpose(2, 1, 0))
        assert np.array_equal(found["aeff"].data["EFFAREA"], hdus["EFFECTIVE AREA"].data["EFFAREA"][0].T)
    assert not any("warnings" in irf.meta for irf in found.values())


# --- Fermi-LAT ---


@pytest.fixture(scope="module")
def fermi(public_data):
    return folder_of(public_data, "joint-crab/dl3/fermi")


def test_fermi_events(fermi):
    events, gti, warnings = read_fermi_events(fermi / "events.fits.gz")
    with fits.open(fermi / "events.fits.gz") as hdus:
        raw, header = hdus["EVENTS"].data, hdus["GTI"].header
        assert len(events) == 10441
        assert events.energy.to_value("MeV") == pytest.approx(raw["ENERGY"].astype(float), rel=1e-12)
        # bits 0 and 1 are front and back, which CONVERSION_TYPE gives too
        assert np.array_equal(events.event_type[:, 0], raw["CONVERSION_TYPE"] == 0)
        assert np.array_equal(events.event_type[:, 1], raw["CONVERSION_TYPE"] == 1)
        assert gti.ontime.to_value("s") == pytest.approx(header["ONTIME"], rel=1e-9)
    crab = SkyCoord(83.633083, 22.0145, unit="deg")
    assert gti.holds(events).all()
    assert events.radec.separation(crab).deg.max() < 10.01
    # case G: 578 photons on the source above 30 GeV, within 0.3 deg
    is_on = (events.radec.separation(crab).deg < 0.3) & (events.energy > 31.6227766 * u.GeV)
    assert (is_on & (events.energy < 1.99526231 * u.TeV)).sum() == 578
    assert len(warnings) == 1
    assert "6 of 10441 events repeat an EVENT_ID" in warnings[0]


def test_fermi_exposure_is_galactic(fermi):
    """The exposures that gtpsf wrote for the Galactic centre; in equatorial coordinates they would be 4 % larger."""
    cube = read_fermi_exposure(fermi / "exposure_cube.fits.gz")
    assert (cube.nside, cube.frame, cube.values.shape) == (32, "galactic", (18, 12288))
    assert any("COORDSYS is missing; galactic" in text for text in cube.meta["warnings"])
    with fits.open(fermi / "psf.fits.gz") as hdus:
        energy, exposure = (hdus["PSF"].data[name].astype(float) for name in ("Energy", "Exposure"))
    center = SkyCoord(0, 0, unit="deg", frame="galactic")
    assert cube.at(center, energy * u.MeV).to_value("cm2 s") == pytest.approx(exposure, rel=4e-3)


def test_fermi_response_is_that_of_the_paper(fermi, public_data):
    """Exposure at the Crab times the share of photons within 0.3 deg against the paper's ARF, below 300 GeV.

    Above, the stored curve is interpolated between few energies and jumps by several per cent.
    """
    arf = folder_of(public_data, "joint-crab/spectra/fermi/arf_obs0.fits")
    with fits.open(arf) as hdus:
        table = hdus["SPECRESP"].data
        energy = np.sqrt(table["ENERG_LO"].astype(float) * table["ENERG_HI"]) * u.keV
        expected = table["SPECRESP"].astype(float)
    crab = SkyCoord(83.633083, 22.0145, unit="deg")
    exposure = read_fermi_exposure(fermi / "exposure_cube.fits.gz").at(crab, energy).to_value("cm2 s")
    psf = read_fermi_psf(fermi / "psf.fits.gz")
    rad = Axis.from_bounds("rad", 0 * u.deg, 9.9 * u.deg, 9900, "lin")
    density = point_spread(psf, energy.to(u.TeV), rad, [0.0] * u.deg)[:, :, 0].to_value("sr-1")
    ring = 2 * np.pi * rad.centers.to_value("rad") * rad.widths.to_value("rad")
    within = (density * ring)[:, :300].sum(axis=1)
    low = energy < 300 * u.GeV
    assert (exposure * within)[low] == pytest.approx(expected[low], rel=1e-2)
    assert np.median(expected[low] / (exposure * within)[low]) == pytest.approx(1, abs=5e-3)
