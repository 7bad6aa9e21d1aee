"""Off counts of further runs: places, times, thresholds and norms by arithmetic."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord

from dl3flow.background.camera import moved_run, passage
from dl3flow.background.off_runs import off_runs
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.dataset import MaskReasons, OffCounts
from dl3flow.data.observation import Observation
from dl3flow.data.phase import Ephemeris, PhaseIntervals
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.table import IrfTable
from dl3flow.reduce import RECIPES
from dl3flow.reduce.filter import filter_observation
from dl3flow.simulate.events import simulate_observation
from dl3flow.simulate.plan import parse_simulation

from .camera_runs import ENERGY, LOCATION, draw_run, make_dataset, make_run

ON = (83.63, 22.01)
GEOM = SkyGeometry.create(SkyCoord(*ON, unit="deg"), 4 * u.deg, 0.1 * u.deg)
REGION = RegionGeometry("icrs;circle(83.63, 22.51, 0.2)")
FAR = RegionGeometry("icrs;circle(83.63, 23.01, 0.2)")


def everywhere(geom: SkyGeometry) -> np.ndarray:
    return np.ones(geom.shape, dtype=bool)


def outside(text: str):
    regions = parse_regions(text, "here")
    return lambda geom: ~region_mask(geom, regions)


def given(*off, usable=everywhere, signal=None) -> BackgroundInputs:
    return BackgroundInputs(usable, signal, off=off)


def off_of(dataset) -> OffCounts:
    assert isinstance(dataset.background, OffCounts)
    return dataset.background


def test_an_event_keeps_its_place_in_the_camera() -> None:
    # 0.5 deg above and 1 deg right of each pointing; right is against right ascension
    on = make_run(1, *ON, [1.0], [0.5], [2.0])
    far = make_run(2, 250.0, -70.0, [1.0], [0.5], [2.0])
    dataset = make_dataset(on, GEOM)
    assert dataset.counts.data.sum() == 1
    found = off_of(off_runs(on, dataset, given(far)))
    assert np.array_equal(found.counts.data, dataset.counts.data)
    k, j, i = np.argwhere(found.counts.data)[0]
    lon, lat = np.degrees([values[j, i] for values in GEOM.lonlat])
    assert lat == pytest.approx(22.5, abs=0.06)
    assert (83.63 - lon) * np.cos(np.radians(lat)) == pytest.approx(1.0, abs=0.06)
    assert ENERGY.edges[k] <= 2 * u.TeV < ENERGY.edges[k + 1]


def test_acceptance_off_is_the_sum_of_the_ontimes() -> None:
    on = make_run(1, *ON, [0], [0], [2.0], ontime=1000)
    off = [
        make_run(n, 50.0 * n, -40.0, [0] * n, [0] * n, [2.0] * n, ontime=t) for n, t in ((2, 1500), (3, 500))
    ]
    result = off_runs(on, make_dataset(on, GEOM), given(*off))
    found = off_of(result)
    assert found.counts.data.sum() == 5
    assert np.all(found.acceptance.data == 1)
    assert found.acceptance_off.data == pytest.approx(2.0)
    assert result.mu_bkg.sum() == pytest.approx(2.5)
    facts = result.meta["background"]
    assert (facts["method"], facts["off_obs_ids"], facts["norm"]) == ("off_runs", [2, 3], 1.0)
    assert result.meta["warnings"] == ["before"]


def test_events_out_of_good_time_do_not_count() -> None:
    on = make_run(1, *ON)
    off = make_run(2, 10, 0, [0, 0, 0], [0, 0, 0], [2.0, 2.0, 2.0])
    late = replace(off, events=replace(off.events, time=[0.0, 500.0, 1500.0] * u.s))
    assert off_of(off_runs(on, make_dataset(on, GEOM), given(late))).counts.data.sum() == 2


def test_each_run_serves_the_energies_between_its_own_thresholds() -> None:
    # edges 1, 1.78, 3.16, 5.62, 10 TeV
    energies = [1.2, 2.0, 4.0, 8.0]
    on = make_run(1, *ON)
    low = make_run(2, 10, 0, [0] * 4, [0] * 4, energies, lo_thres=1.0)
    high = make_run(3, 20, 0, [0] * 4, [0] * 4, energies, lo_thres=1.5, hi_thres=6.0, ontime=3000)
    result = off_runs(on, make_dataset(on, GEOM), given(low, high))
    found = off_of(result)
    assert found.counts.data.sum(axis=(1, 2)).tolist() == [1, 2, 2, 1]
    assert found.acceptance_off.data[:, 0, 0].tolist() == pytest.approx([1, 4, 4, 1])
    assert result.mask_safe.all()
    assert "off runs are left out" in result.meta["warnings"][1]
    assert "3 (2)" in result.meta["warnings"][1]
    alone = off_runs(on, make_dataset(on, GEOM), given(high))
    assert alone.mask_safe[:, 0, 0].tolist() == [False, True, True, False]
    assert off_of(alone).alpha[:, 0, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 0])


def test_kept_phases_count_like_ontime() -> None:
    on = make_run(1, *ON, [0] * 4, [0] * 4, [2.0] * 4)
    off = make_run(2, 100.0, -40.0, [0] * 4, [0] * 4, [2.0] * 4)
    # a turn per run, begun 100 s before it: the first and the last of the events lie at the phase 0.1
    turn = Ephemeris(53300.0 - 100 / 86400, 1 / 1000)
    phases = {"phase": PhaseIntervals(((0.0, 0.25),)), "ephemeris": turn}
    lit = filter_observation(on, **phases)
    found = off_runs(lit, make_dataset(lit, GEOM), given(off))
    assert found.mu_bkg.sum() == pytest.approx(4 / 4)
    dark = filter_observation(off, **phases)
    assert len(dark.events) == 2
    found = off_runs(on, make_dataset(on, GEOM), given(dark))
    assert found.mu_bkg.sum() == pytest.approx(2 * 4)


def test_an_off_run_serves_only_what_its_events_were_not_cut_of() -> None:
    on = make_run(1, *ON, [0], [0], [2.0])
    off = make_run(2, 100.0, -40.0, [0, 0, 1.5], [0, 0, 0], [2.0, 9.0, 2.0])
    cut = filter_observation(off, offset=1 * u.deg, energy=Axis("energy", u.Quantity([1, 5], u.TeV), "log"))
    assert len(cut.events) == 1
    result = off_runs(on, make_dataset(on, GEOM), given(cut))
    served = off_of(result).acceptance_off.data > 0
    near = GEOM.separation(on.pointing) < np.radians(1 - 0.05 * np.sqrt(2))
    # of the bins from 1 to 10 TeV the last two reach beyond 5 TeV
    assert np.array_equal(served, np.array([1, 1, 0, 0], bool)[:, None, None] & near)
    assert not (result.mask_safe & ~served).any()
    region = off_of(off_runs(on, make_dataset(on, FAR), given(cut)))
    # a circle across the limit: what is left of it, and no count where nothing was counted
    assert 0.3 < region.acceptance_off.data[0, 0, 0] < 0.6
    assert region.acceptance_off.data[3, 0, 0] == 0


def test_known_sources_of_an_off_field_are_no_background() -> None:
    # the source lies 1 deg north of the off pointing; its events, and the place in the camera, are left out of that run
    on = make_run(1, *ON)
    off = make_run(2, 10, 0, [0, 0], [1.0, -1.0], [2.0, 2.0])
    other = make_run(3, 90, 0, [0], [1.0], [2.0])
    text = "icrs;circle(10, 1, 0.3)\nicrs;ellipse(190, 1, 0.3, 0.2, 10)"
    found = off_of(
        off_runs(on, make_dataset(on, GEOM), given(off, other), off_exclusion=parse_regions(text, "here"))
    )
    assert found.counts.data.sum() == 2
    hidden = region_mask(GEOM, parse_regions("icrs;circle(83.63, 23.01, 0.3)", "here"))
    assert found.acceptance_off.data[0, hidden] == pytest.approx(1.0)
    clear = ~region_mask(GEOM, parse_regions("icrs;circle(83.63, 23.01, 0.4)", "here"))
    assert found.acceptance_off.data[0, clear] == pytest.approx(2.0)
    # ten pixels per degree: an area of pi 0.09 square degrees
    assert np.count_nonzero(found.acceptance_off.data[0] == 1.0) == pytest.approx(28.3, abs=4)


def test_a_region_takes_the_same_region_of_the_camera() -> None:
    on = make_run(1, *ON)
    off = make_run(2, 10, -60, [0.0, 0.1, 0.0], [0.4, 0.6, 0.75], [2.0, 2.0, 2.0], ontime=2000)
    result = off_runs(on, make_dataset(on, REGION), given(off))
    assert off_of(result).counts.data.sum() == 2
    assert result.mu_bkg.sum() == pytest.approx(1.0)
    # half of the circle is taken away, and with it half of the exposure and the event in it
    half = parse_regions("icrs;box(10, -59.25, 4, 0.5, 0)", "here")
    part = off_of(off_runs(on, make_dataset(on, REGION), given(off), off_exclusion=half))
    assert part.counts.data.sum() == 1
    assert part.acceptance_off.data[0, 0, 0] == pytest.approx(1.0, rel=0.02)


def rad_max(radius: tuple[float, float]) -> IrfTable:
    energy = Axis("energy", [1.0, 3.0, 10.0] * u.TeV, "log")
    offset = Axis.from_bounds("offset", 0 * u.deg, 3 * u.deg, 1, "lin")
    return IrfTable(
        "rad_max_2d", (energy, offset), {"RAD_MAX": np.array(radius)[:, None]}, {"RAD_MAX": u.deg}, {}
    )


def test_a_point_takes_the_events_within_its_cut() -> None:
    on = make_run(1, *ON, rad_max=rad_max((0.2, 0.1)))
    point = RegionGeometry("icrs;point(83.63, 22.51)")
    # 0.15 deg from the point: inside the cut of low energies only
    off = make_run(2, 10, 0, [0.0, 0.0, 0.0], [0.65, 0.65, 0.55], [2.0, 8.0, 8.0])
    dataset = make_dataset(on, REGION)
    dataset = replace(
        dataset, counts=replace(dataset.counts, geom=point), exposure=replace(dataset.exposure, geom=point)
    )
    found = off_of(off_runs(on, dataset, given(off)))
    assert found.counts.data.ravel().tolist() == [0, 1, 0, 1]
    assert found.acceptance_off.data.ravel() == pytest.approx(1.0)
    # a source 0.15 deg from the point's place covers a part of the wide cut and hardly any of the narrow one
    known = parse_regions("icrs;circle(10, 0.65, 0.06)", "here")
    part = off_of(off_runs(on, dataset, given(off), off_exclusion=known))
    assert part.counts.data.ravel().tolist() == [0, 0, 0, 1]
    assert part.acceptance_off.data.ravel()[0] == pytest.approx(1 - 0.06**2 / 0.2**2, abs=0.02)
    assert part.acceptance_off.data.ravel()[3] > 0.98
    with pytest.raises(InputError, match="RAD_MAX, and the observation has none"):
        off_runs(replace(on, rad_max=None), dataset, given(off))


def test_counts_give_the_norm_outside_exclusion() -> None:
    # outside the exclusion 8 on and 4 off events in twice the time: alpha 1/2 times a norm of 4
    x = np.linspace(-1.5, 1.5, 8)
    on = make_run(1, *ON, [*x, *[0.0] * 50], [*[-1.0] * 8, *[0.0] * 50], [2.0] * 58)
    off = make_run(2, 10, 0, x[:4], [-1.0] * 4, [2.0] * 4, ontime=2000)
    usable = outside("icrs;circle(83.63, 22.01, 0.3)")
    result = off_runs(on, make_dataset(on, GEOM), given(off, usable=usable), norm="counts")
    assert result.meta["background"]["norm"] == pytest.approx(4.0)
    assert result.meta["background"]["norm_err"] == pytest.approx(4 * np.sqrt(1 / 8 + 1 / 4))
    assert off_of(result).acceptance_off.data == pytest.approx(0.5)
    assert result.mu_bkg.sum() == pytest.approx(8.0)
    # two of the on counts are of a known source
    signal = np.zeros(result.counts.data.shape)
    signal[1, 5, 5] = 2.0
    less = off_runs(on, make_dataset(on, GEOM), given(off, usable=usable, signal=signal), norm="counts")
    assert less.meta["background"]["norm"] == pytest.approx(3.0)


def test_norms_by_groups_of_energies() -> None:
    # 6, 2 and 4 on counts against 3, 1 and 4 off in the three lower bins: groups of two or more are 6/3 and (2+4)/(1+4)
    def events(numbers: tuple[int, ...]):
        energies = np.repeat([1.2, 2.0, 4.0, 8.0][: len(numbers)], numbers)
        return np.linspace(-1, 1, len(energies)), np.full(len(energies), 0.5), energies

    on, off = make_run(1, *ON, *events((6, 2, 4))), make_run(2, 10, 0, *events((3, 1, 4)))
    result = off_runs(
        on, make_dataset(on, GEOM), given(off), norm="counts", norm_by="energy", norm_min_counts=2
    )
    assert result.meta["background"]["norms"] == pytest.approx([2.0, 1.2, 1.2, 1.2])
    whole = off_runs(
        on, make_dataset(on, GEOM), given(off), norm="counts", norm_by="energy", norm_min_counts=1000
    )
    assert whole.meta["background"]["norms"] == pytest.approx([1.5] * 4)


def test_the_norm_of_a_spectrum_is_that_of_its_field_without_target() -> None:
    # the on run has 10 events in the region and 6 in the field, the off run 3 in the field and 1 in the region
    field = np.linspace(-1.2, 1.2, 6)
    on = make_run(1, *ON, [*[0.0] * 10, *field], [*[0.5] * 10, *[-0.8] * 6], [2.0] * 16)
    off = make_run(2, 10, 0, [*field[:3], 0.0], [-0.8] * 3 + [0.5], [2.0] * 4)
    result = off_runs(on, make_dataset(on, REGION), given(off), norm="counts")
    assert result.meta["background"]["norm"] == pytest.approx(2.0)
    assert result.mu_bkg.sum() == pytest.approx(2.0)


def test_the_target_of_a_directional_cut_is_no_field() -> None:
    field = np.linspace(-1.2, 1.2, 6)
    cut = Axis("energy", u.Quantity([1, 10], u.TeV), "log"), Axis("offset", u.Quantity([0, 3], u.deg), "lin")
    rad_max = IrfTable("rad_max_2d", cut, {"RAD_MAX": np.full((1, 1), 0.2)}, {"RAD_MAX": u.deg}, {})
    source = [*[0.0] * 10, *field], [*[0.5] * 10, *[-0.8] * 6], [2.0] * 16
    on = make_run(1, *ON, *source, rad_max=rad_max)
    off = make_run(2, 10, 0, [*field[:3], 0.0], [-0.8] * 3 + [0.5], [2.0] * 4)
    dataset = make_dataset(on, REGION)
    point = RegionGeometry("icrs;point(83.63, 22.51)")
    there = {name: replace(getattr(dataset, name), geom=point) for name in ("counts", "exposure")}
    result = off_runs(on, replace(dataset, **there), given(off), norm="counts")
    assert result.meta["background"]["norm"] == pytest.approx(2.0)


def test_sources_of_the_field_of_a_spectrum_are_not_subtracted() -> None:
    on, off = make_run(1, *ON, [1.0], [0.5], [2.0]), make_run(2, 5, 5, [1.0], [0.5], [2.0])
    with pytest.raises(
        InputError, match="normalised in the field around it, where `subtract` predicts nothing"
    ):
        off_runs(on, make_dataset(on, REGION), given(off, signal=np.zeros((4, 1, 1))), norm="counts")


def test_the_reason_of_lost_bins_is_kept() -> None:
    on, off = make_run(1, *ON), make_run(2, 10, 0, lo_thres=2.0)
    dataset = make_dataset(on, GEOM)
    dataset = replace(
        dataset, reasons=MaskReasons(("no response",), np.zeros(dataset.counts.data.shape, dtype=np.uint8))
    )
    result = off_runs(on, dataset, given(off))
    assert result.reasons is not None
    assert result.reasons.names == ("no response", "no off run")
    assert np.array_equal(result.reasons.dropped("no off run"), ~result.mask_safe)
    assert result.mask_safe[:, 0, 0].tolist() == [False, False, True, True]


def test_an_empty_sky_has_no_excess() -> None:
    on = draw_run(1, *ON, seed=1, rate=500)
    off = [draw_run(n, 30.0 * n, -50.0, seed=n, rate=500, ontime=1500) for n in (2, 3, 4)]
    for norm in ("ontime", "counts"):
        result = off_runs(on, make_dataset(on, GEOM), given(*off), norm=norm)
        found = off_of(result)
        n_on, n_off = result.counts.data.sum(), found.counts.data.sum()
        assert n_on > 500
        assert found.acceptance_off.data[0, 0, 0] == pytest.approx(4.5, rel=0.2)
        error = np.sqrt(n_on + n_off / 4.5**2)
        assert abs(n_on - result.mu_bkg.sum()) < 3 * error
        assert np.all(found.alpha[result.mask_safe] > 0)


@pytest.mark.parametrize(
    ("off", "options", "signal", "message"),
    [
        ((), {}, None, "is given no off run"),
        ((make_run(1, 5, 5),), {}, None, "is given the observation itself as off run"),
        ((make_run(2, 5, 5, telescope="X"),), {}, None, r"off run 2 of another instrument \(X I, not T I\)"),
        ((make_run(2, 5, 5, lo_thres=20.0),), {}, None, "none of the 1 off runs serves a safe bin"),
        ((make_run(2, 5, 5),), {"norm": "counts"}, None, "finds 1 counts of the run and 0 of the off runs"),
        ((make_run(2, 5, 5),), {}, np.zeros((4, 40, 40)), "cannot `subtract` sources"),
    ],
)
def test_wrong_input_is_a_sentence(off, options, signal, message: str) -> None:
    on = make_run(1, *ON, [0], [0], [2.0])
    with pytest.raises(InputError, match=message):
        off_runs(on, make_dataset(on, GEOM), given(*off, signal=signal), **options)


def test_the_registry_says_that_it_needs_runs_and_binds_its_options() -> None:
    plugin = BACKGROUNDS.find("off_runs", "here")
    assert plugin.companions == {"off": True}
    bound = plugin.bind({"norm": "counts", "off_exclusion": "icrs;circle(10, 1, 0.3)"}, "here")
    assert bound["norm"] == "counts"
    assert len(bound["off_exclusion"]) == 1
    with pytest.raises(InputError, match="cannot read the DS9 region text|no region in"):
        plugin.bind({"off_exclusion": "circle of light"}, "here")


def test_runs_without_events_give_no_background_and_no_error() -> None:
    on, off = make_run(1, *ON), make_run(2, 10, 0)
    known = parse_regions("icrs;circle(10, 1, 0.3)", "here")
    for geom in (GEOM, REGION):
        result = off_runs(on, make_dataset(on, geom), given(off), off_exclusion=known)
        assert result.mu_bkg.sum() == 0
        assert np.all(off_of(result).alpha[result.mask_safe] > 0)


@pytest.fixture(scope="module")
def empty_fields(demo_config: dict) -> tuple[Observation, ...]:
    """Four runs of the demo's instrument on empty fields at other declinations."""
    runs = [
        {
            "obs_id": n,
            "target": "off",
            "pointing": {"lon": f"{30 * n} deg", "lat": f"{-20 * n} deg"},
            "start": "2024-01-14 20:00:00",
            "duration": "56 min",
        }
        for n in (1, 2, 3, 4)
    ]
    simulation = parse_simulation({**demo_config, "sources": [], "observations": runs}, "off")
    return tuple(simulate_observation(simulation, n) for n in (1, 2, 3, 4))


ENERGIES = {"min": "1 TeV", "max": "20 TeV", "nbin": 3}


def test_off_runs_predict_the_background_that_was_simulated(demo_run, empty_fields) -> None:
    entry = {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "3 deg",
        "binsz": "0.1 deg",
        "energy": ENERGIES,
    }
    recipe, options = RECIPES.bind(entry, "recipe")
    dataset = recipe(demo_run, "run", **options)
    truth = dataset.mu_bkg
    found = off_runs(demo_run, dataset, given(*empty_fields)).mu_bkg
    # eight times the run's ontime; the rate falls by a fifth from one side to the other, against the other field's sky
    for part in (np.s_[:, :, :15], np.s_[:, :, 15:], np.s_[:, :15], np.s_[:, 15:], np.s_[0], np.s_[2]):
        assert truth[part].sum() > 15
        assert found[part].sum() == pytest.approx(truth[part].sum(), abs=4 * np.sqrt(truth[part].sum() / 8))
    west, east = truth[:, :, 15:].sum(), truth[:, :, :15].sum()
    # a mirrored camera would be out of these limits
    assert abs(west - east) > 4 * np.sqrt(max(west, east) / 8)


def test_off_runs_measure_the_excess_of_a_spectrum(demo_run, empty_fields) -> None:
    recipe, options = RECIPES.bind(
        {"name": "spectrum", "region": "icrs;circle(83.63, 22.01, 0.2)", "energy": ENERGIES}, "recipe"
    )
    dataset = recipe(demo_run, "run", **options)
    for norm in ("ontime", "counts"):
        usable = outside("icrs;circle(83.63, 22.01, 0.4)")
        result = off_runs(demo_run, dataset, given(*empty_fields, usable=usable), norm=norm)
        assert result.meta["background"]["norm"] == pytest.approx(1.0, abs=0.1)
        assert dataset.mu_bkg.sum() > 5
        assert result.mu_bkg.sum() == pytest.approx(
            dataset.mu_bkg.sum(), abs=4 * np.sqrt(dataset.mu_bkg.sum() / 8)
        )


def horizon(run: Observation, part: float) -> AltAz:
    place = EarthLocation(LOCATION["geolon"] * u.deg, LOCATION["geolat"] * u.deg, LOCATION["altitude"] * u.m)
    return AltAz(obstime=run.gti.reference + run.gti.start[0] + part * run.ontime, location=place)


def above(run: Observation, part: float, distance: float) -> SkyCoord:
    """Direction that lies above the pointing at a part of the run."""
    frame = horizon(run, part)
    at = run.pointing.transform_to(frame)
    return SkyCoord(at.az, at.alt + distance * u.deg, frame=frame).icrs


@pytest.fixture(scope="module")
def east_and_west() -> tuple[Observation, Observation]:
    """An on run east of the meridian and an off run west of it, whose fields are turned against each other."""
    on = make_run(1, *ON, ontime=1600)
    meridian = (on.gti.reference + 800 * u.s).sidereal_time("mean", longitude=LOCATION["geolon"] * u.deg).deg
    on = make_run(1, meridian + 30, -40.0, ontime=1600)
    off = make_run(2, meridian - 30, -45.0, [0.0], [0.0], [2.0], ontime=1600)
    return on, off


@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_a_camera_with_the_zenith_up(east_and_west, part: float) -> None:
    on, off = east_and_west
    up, expected = above(off, part, 0.8), above(on, part, 0.8)
    events = replace(off.events, radec=up.reshape(1), time=off.gti.start[0] + part * off.ontime * np.ones(1))
    run = replace(off, events=events)
    moved = moved_run(run, on, passage(run, on, "ALTAZ"))
    assert moved.events.radec[0].separation(expected).deg < 0.01
    by_sky = moved_run(run, on, passage(run, on, "RADEC"))
    assert by_sky.events.radec[0].separation(expected).deg > 0.3
    geom = SkyGeometry.create(expected, 1 * u.deg, 0.1 * u.deg)
    dataset = make_dataset(on, geom)
    found = off_of(off_runs(on, dataset, given(run), alignment="ALTAZ"))
    j, i = geom.nearest(expected)
    assert found.counts.data[:, j - 1 : j + 2, i - 1 : i + 2].sum() == 1


def test_known_sources_turn_with_the_field(east_and_west) -> None:
    on, off = east_and_west
    at = above(off, 0.5, 0.8)
    known = parse_regions(f"icrs;circle({at.ra.deg}, {at.dec.deg}, 0.3)", "here")
    run = replace(off, events=replace(off.events, radec=at.reshape(1)))
    geom = SkyGeometry.create(on.pointing, 3 * u.deg, 0.1 * u.deg)
    found = off_of(off_runs(on, make_dataset(on, geom), given(run), alignment="ALTAZ", off_exclusion=known))
    assert found.counts.data.sum() == 0
    exposure = found.acceptance_off.data[0]
    assert exposure[geom.nearest(above(on, 0.5, 0.8))] == 0
    assert exposure[geom.nearest(above(on, 0.5, -0.8))] == 1
    # what is lost is the area of the circle
    assert (1 - exposure).sum() * 0.1**2 == pytest.approx(np.pi * 0.3**2, rel=0.05)
    blind = replace(run, meta={**run.meta, "location": None})
    with pytest.raises(InputError, match="observation 2: its horizon is unknown"):
        off_runs(on, make_dataset(on, geom), given(blind), alignment="ALTAZ")
