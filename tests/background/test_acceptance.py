"""Background rates built from runs whose rate is known, and used for another."""

from collections.abc import Iterator
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord

from dl3flow.background.acceptance import acceptance
from dl3flow.background.build_acceptance import build_acceptance
from dl3flow.background.camera import zenith_angle
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.dataset import ExpectedCounts, MaskReasons
from dl3flow.data.observation import Observation
from dl3flow.data.phase import Ephemeris, PhaseIntervals
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.table import IrfTable
from dl3flow.reduce.filter import filter_observation
from dl3flow.registry import Plugin

from .camera_runs import ENERGY, INDEX, LOCATION, REFERENCE, draw_run, make_dataset, make_run

RATE = 4000.0  # events per s and sr above 0.5 TeV
TABLE = Axis.from_bounds("energy", 0.5 * u.TeV, 50 * u.TeV, 10)
ON = (83.63, 22.01)
GEOM = SkyGeometry.create(SkyCoord(*ON, unit="deg"), 4 * u.deg, 0.1 * u.deg)


def true_rate(low: float, high: float, rate: float = RATE) -> float:
    """Events per s and sr between two energies (TeV)."""
    part = [value ** (1 - INDEX) for value in (low, high, 0.5, 50.0)]
    return rate * (part[0] - part[1]) / (part[2] - part[3])


def rate_at(
    table: IrfTable, x: np.ndarray, y: np.ndarray, low: float = 1.0, high: float = 10.0
) -> np.ndarray:
    energy = Axis.from_bounds("energy", low * u.TeV, high * u.TeV, 8)
    return background_rate(table, energy, np.radians(x), np.radians(y)).to_value("s-1 sr-1").sum(axis=0)


def everywhere(geom: SkyGeometry) -> np.ndarray:
    return np.ones(geom.shape, dtype=bool)


def outside(text: str):
    regions = parse_regions(text, "here")
    return lambda geom: ~region_mask(geom, regions)


@pytest.mark.parametrize("kind", ["bkg_2d", "bkg_3d"])
def test_a_flat_camera_gives_back_its_rate(kind: str) -> None:
    runs = (draw_run(n, 40.0 * n, 10.0 * n, seed=n, rate=RATE) for n in (1, 2, 3))
    (table,) = build_acceptance(runs, kind=kind, energy=TABLE)
    assert table.kind == kind
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-1.5, 1.5, 7), np.linspace(-1.5, 1.5, 7)))
    found = rate_at(table, x, y)
    expected = true_rate(1, 10)
    # 20000 counts between 1 and 10 TeV in all; a ring or smoothed square has a tenth of them
    assert found.mean() == pytest.approx(expected, rel=0.02)
    assert np.std(found / expected) < 0.05
    # the spectrum, and where hardly an event is
    for low, high, tolerance in ((0.5, 0.8, 0.03), (2, 4, 0.04), (20, 50, 0.25)):
        assert rate_at(table, x, y, low, high).mean() == pytest.approx(true_rate(low, high), rel=tolerance)
    assert table.meta["fov_alignment"] == "RADEC"
    assert table.meta["ontime"] == 3000
    assert table.meta["obs_ids"] == [1, 2, 3]


def fall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (x**2 + y**2) / 1.2**2) * (1 + 0.25 * x / 2.5)


def test_a_gradient_needs_three_dimensions_and_keeps_its_sign() -> None:
    runs = [draw_run(n, 40.0 * n, 10.0 * n, seed=n, rate=2 * RATE, keep=fall) for n in (1, 2, 3)]
    x = np.array([-1.2, 0.0, 1.2, 0.0, 0.0])
    y = np.array([0.0, 0.0, 0.0, -1.2, 1.2])
    expected = true_rate(1, 10, 2 * RATE) * fall(x, y)
    (three,) = build_acceptance(runs, kind="bkg_3d", energy=TABLE)
    assert rate_at(three, x, y) == pytest.approx(expected, rel=0.07)
    (two,) = build_acceptance(runs, kind="bkg_2d", energy=TABLE)
    radial = true_rate(1, 10, 2 * RATE) * np.exp(-0.5 * (x**2 + y**2) / 1.2**2)
    assert rate_at(two, x, y) == pytest.approx(radial, rel=0.05)


@pytest.mark.parametrize("kind", ["bkg_2d", "bkg_3d"])
def test_an_excluded_source_does_not_bias(kind: str) -> None:
    # as many gamma rays as background, at one place of the sky, seen 0.7 deg off axis on four sides
    runs = []
    for n, (dx, dy) in enumerate(((0.7, 0), (-0.7, 0), (0, 0.7), (0, -0.7)), 1):
        run = draw_run(n, ON[0] - dx / np.cos(np.radians(ON[1])), ON[1] - dy, seed=n, rate=RATE)
        rng = np.random.default_rng(100 + n)
        extra = 3000
        source = make_run(n, 0, 0, [0] * extra, [0] * extra, 2.0 * np.ones(extra), ontime=1000).events
        at = SkyCoord(
            (ON[0] + rng.normal(0, 0.05, extra)) * u.deg, (ON[1] + rng.normal(0, 0.05, extra)) * u.deg
        )
        events = replace(
            run.events,
            event_id=np.arange(len(run.events) + extra),
            time=np.concatenate([run.events.time, source.time]),
            radec=SkyCoord(
                np.concatenate([run.events.radec.ra, at.ra]), np.concatenate([run.events.radec.dec, at.dec])
            ),
            energy=np.concatenate([run.events.energy, source.energy]),
        )
        runs.append(replace(run, events=events))
    x, y = np.array([0.0, 0.7, -0.7, 0.0, 0.0, 1.3]), np.array([0.0, 0.0, 0.0, 0.7, -0.7, 1.3])
    usable = outside("icrs;circle(83.63, 22.01, 0.3)")
    (masked,) = build_acceptance(runs, usable, kind=kind, energy=TABLE)
    assert rate_at(masked, x, y) == pytest.approx(np.full(6, true_rate(1, 10)), rel=0.1)
    assert rate_at(masked, x, y).mean() == pytest.approx(true_rate(1, 10), rel=0.03)
    (biased,) = build_acceptance(runs, kind=kind, energy=TABLE)
    assert rate_at(biased, x[1:5], y[1:5]).mean() > 1.25 * true_rate(1, 10)


def test_a_run_of_higher_rate_does_not_print_its_exclusion_on_the_shape() -> None:
    # the first run, of three times the rate, lacks its northern half
    bright = draw_run(1, *ON, seed=1, rate=3 * RATE)
    faint = draw_run(2, 200.0, -20.0, seed=2, rate=RATE)
    usable = outside("icrs;box(83.63, 23.51, 8, 3, 0)")
    (table,) = build_acceptance([bright, faint], usable, kind="bkg_3d", energy=TABLE)
    assert table.meta["norms"] == pytest.approx([1.5, 0.5], rel=0.03)
    north, south = (
        rate_at(table, np.zeros(3), np.array(y)).mean() for y in ([0.7, 1.1, 1.5], [-0.7, -1.1, -1.5])
    )
    assert north / south == pytest.approx(1.0, abs=0.07)
    assert south == pytest.approx(2 * true_rate(1, 10), rel=0.05)


def test_energies_below_a_threshold_count_for_nothing() -> None:
    # the second run records nothing below its threshold of 2 TeV, as a run at a large zenith distance
    first = draw_run(1, *ON, seed=1, rate=RATE)
    second = draw_run(2, *ON, seed=2, rate=RATE, lo_thres=2.0)
    high = second.events.energy > 1.9 * u.TeV
    second = replace(second, events=second.events.select(high))
    zero = np.zeros(1)
    (table,) = build_acceptance([first, second], energy=TABLE)
    for low, width in ((0.8, 1.2), (3, 5)):
        assert rate_at(table, zero + 0.5, zero, low, width) == pytest.approx(true_rate(low, width), rel=0.12)
    assert table.meta["norms"] == pytest.approx([1, 1], abs=0.05)
    (all_energies,) = build_acceptance([first, second], energy=TABLE, below_threshold=True)
    assert rate_at(all_energies, zero + 0.5, zero, 0.8, 1.2)[0] < 0.85 * true_rate(0.8, 1.2)


def test_cut_events_leave_the_rate_as_it_is() -> None:
    # cut to a quarter of all phases, half of a ring and 1 to 20 TeV, a run still has the rate that it was drawn with
    phases = {"phase": PhaseIntervals(((0.0, 0.25),)), "ephemeris": Ephemeris(53300.0, 0.1)}
    energies = Axis("energy", u.Quantity([1, 20], u.TeV), "log")
    runs = [draw_run(n, ON[0], 20.0 * n, seed=n, rate=RATE) for n in (1, 2, 3)]
    cut = [filter_observation(run, offset=1.3 * u.deg, energy=energies, **phases) for run in runs]
    (table,) = build_acceptance(cut, energy=TABLE)
    x = np.linspace(0, 1.3, 14)
    assert rate_at(table, x, 0 * x, 1.5, 10.0) == pytest.approx(true_rate(1.5, 10), rel=0.15)
    assert table.meta["ontime"] == pytest.approx(750)
    # and expects a quarter of the counts of such a run
    (on,) = cut[:1]
    dataset = make_dataset(on, GEOM)
    part, whole = (
        acceptance(run, dataset, BackgroundInputs(everywhere, models=(table,)), normalise=False)
        for run in (on, runs[0])
    )
    assert part.mu_bkg.sum() == pytest.approx(whole.mu_bkg.sum() / 4)


def test_the_first_energy_above_all_thresholds_is_right_and_the_ones_below_are_not_safe() -> None:
    # bins of the table have edges at 0.5, 0.79, 1.26, 1.99, 3.15 TeV
    runs = [draw_run(n, 30.0 * n, 0.0, seed=n, rate=2 * RATE, lo_thres=1.25) for n in (1, 2)]
    runs = [replace(run, events=run.events.select(run.events.energy > 1.2 * u.TeV)) for run in runs]
    (table,) = build_acceptance(runs, energy=TABLE)
    low = TABLE.edges[2].to_value("TeV")
    assert table.meta["lo_thres"].to_value("TeV") == low
    assert table.meta["hi_thres"] == 50 * u.TeV
    here = np.array([0.5, 1.0, 1.5]), np.zeros(3)
    assert rate_at(table, *here, low, 1.6).mean() == pytest.approx(true_rate(low, 1.6, 2 * RATE), rel=0.05)
    assert rate_at(table, *here, 0.5, 0.6).max() < 1e-6
    on = make_run(9, *ON)
    energy = Axis("energy", [1.0, low, 4.0, 10.0] * u.TeV, "log")
    result = acceptance(on, make_dataset(on, GEOM, energy), given(table), normalise=False)
    assert result.mask_safe[:, 20, 20].tolist() == [False, True, True]


def at_zenith(obs_id: int, zenith: float, **more) -> Observation:
    """An observation that culminates at a zenith distance: its pointing lies on the meridian in the middle of the run."""
    run = draw_run(obs_id, 0.0, LOCATION["geolat"] + zenith, seed=obs_id, **more)
    middle = REFERENCE + 500 * u.s
    ra = middle.sidereal_time("mean", longitude=LOCATION["geolon"] * u.deg).deg
    moved = draw_run(obs_id, ra, LOCATION["geolat"] + zenith, seed=obs_id, **more)
    assert len(moved.events) == len(run.events)
    return moved


@pytest.fixture(scope="module")
def steps() -> list[Observation]:
    """Two runs near 15 deg, one near 40 deg of half the rate, and one near 65 deg."""
    return [
        at_zenith(1, 10, rate=RATE),
        at_zenith(2, 20, rate=RATE),
        at_zenith(3, 40, rate=RATE / 2),
        at_zenith(4, 65, rate=RATE / 8),
    ]


EDGES = [0 * u.deg, 30 * u.deg, 50 * u.deg]


def test_zenith_distance_is_that_of_astropy(steps: list[Observation]) -> None:
    place = EarthLocation(LOCATION["geolon"] * u.deg, LOCATION["geolat"] * u.deg, LOCATION["altitude"] * u.m)
    for run in (*steps, make_run(9, 150.0, -60.0)):
        there = run.pointing.transform_to(AltAz(obstime=REFERENCE + 500 * u.s, location=place))
        assert zenith_angle(run).to_value("deg") == pytest.approx(90 - there.alt.deg, abs=1e-4)
    assert zenith_angle(steps[0]).to_value("deg") == pytest.approx(10, abs=0.2)
    assert zenith_angle(make_run(1, 0, 0, location=None)) is None


def test_zenith_bins_each_have_their_runs(steps: list[Observation]) -> None:
    low, high = build_acceptance(steps, energy=TABLE, zenith_bins=EDGES)
    assert (low.meta["obs_ids"], high.meta["obs_ids"]) == ([1, 2], [3])
    assert low.meta["zenith"] == pytest.approx(
        np.degrees(np.arccos(np.cos(np.radians([10, 20])).mean())), abs=0.2
    )
    assert (high.meta["zenith_min"], high.meta["zenith_max"]) == (30, 50)
    here = np.array([0.5]), np.array([0.0])
    assert rate_at(low, *here) / rate_at(high, *here) == pytest.approx(2, rel=0.1)
    assert len(low.meta["warnings"]) == 1
    assert low.meta["warnings"][0].startswith("observation 4 at zenith 65.")


def test_runs_are_held_one_at_a_time_and_not_written_into() -> None:
    alive = 0

    def stream() -> Iterator[Observation]:
        nonlocal alive
        for n in (1, 2, 3):
            alive += 1
            yield draw_run(n, 40.0 * n, 0.0, seed=n, rate=RATE / 10)

    (table,) = build_acceptance(stream(), energy=TABLE, min_counts=100)
    assert alive == 3
    assert len(table.meta["obs_ids"]) == 3


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([], {}, "no run has an event"),
        ([make_run(1, 0, 0)], {}, "no run has an event"),
        (
            [make_run(1, 0, 0), make_run(2, 0, 0, telescope="X")],
            {},
            r"another instrument \(X I\) than those before \(T I\)",
        ),
        ([make_run(1, 0, 0, location=None)], {"zenith_bins": EDGES}, "observation 1: its zenith is unknown"),
        ([], {"zenith_bins": [30 * u.deg, 10 * u.deg]}, "two or more increasing edges"),
        ([], {"binsz": 0.0005 * u.deg, "kind": "bkg_3d"}, "is too large"),
    ],
)
def test_what_cannot_be_built_is_a_sentence(runs, options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_acceptance(runs, energy=TABLE, **options)


def test_the_configuration_binds_the_builders_options() -> None:
    plugin = BACKGROUNDS.find("acceptance", "here")
    assert plugin.companions == {"expected": True, "build": build_acceptance}
    entry = {
        "kind": "bkg_3d",
        "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 10},
        "zenith_bins": ["0 deg", "30 deg", "50 deg"],
    }
    bound = Plugin("model", build_acceptance).bind(entry, "model")
    assert bound["zenith_bins"] == EDGES
    assert bound["energy"].is_close(TABLE)
    with pytest.raises(InputError, match="option 'energy' of 'model' is missing"):
        Plugin("model", build_acceptance).bind({}, "model")


def constant(rate: float, zenith: float, **meta) -> IrfTable:
    """A rate per s, sr and TeV of ``rate`` times E^-INDEX within 2 deg."""
    energy = Axis.from_bounds("energy", 0.5 * u.TeV, 50 * u.TeV, 20)
    offset = Axis.from_bounds("offset", 0 * u.deg, 2 * u.deg, 4, "lin")
    values = rate * energy.centers.to_value("TeV")[:, None] ** -INDEX * np.ones(4)
    return IrfTable(
        "bkg_2d", (energy, offset), {"BKG": 1e-6 * values}, {"BKG": u.Unit("s-1 MeV-1 sr-1")},
        {"fov_alignment": "RADEC", "zenith": zenith, "zenith_min": zenith - 10, "zenith_max": zenith + 10, **meta},
    )  # fmt: skip


def integral(rate: float) -> np.ndarray:
    """Of ``constant`` over the energy bins, s-1 sr-1."""
    edges = ENERGY.edges.to_value("TeV")
    return -rate * np.diff(edges ** (1 - INDEX)) / (INDEX - 1)


def given(*models: IrfTable, usable=None, signal=None) -> BackgroundInputs:
    return BackgroundInputs(usable or (lambda geom: np.ones(geom.shape, dtype=bool)), signal, models=models)


def test_expected_counts_are_rate_times_solid_angle_times_ontime() -> None:
    on = make_run(1, *ON, ontime=1200)
    dataset = make_dataset(on, GEOM)
    result = acceptance(on, dataset, given(constant(5.0, 30)), normalise=False)
    assert isinstance(result.background, ExpectedCounts)
    j, i = GEOM.nearest(SkyCoord(84.5, 22.5, unit="deg"))
    expected = integral(5.0) * GEOM.solid_angle[j, i].to_value("sr") * 1200
    assert result.mu_bkg[:, j, i] == pytest.approx(expected, rel=1e-6)
    # nothing is known beyond the model's field (and, by the convention of evaluation, one ring more): those are not safe
    far = GEOM.separation(on.pointing) > np.radians(2.51)
    assert far.any()
    assert not result.mask_safe[:, far].any()
    assert result.mask_safe[:, GEOM.separation(on.pointing) < np.radians(1.99)].all()
    assert result.meta["background"]["norm"] == 1.0
    assert dataset.background is None


def test_the_rate_of_two_zeniths_is_geometric_in_the_cosine() -> None:
    on = at_zenith(1, 41.41, rate=1.0)  # cos = 0.75
    low, high = constant(8.0, 0.0), constant(2.0, 60.0)  # cos = 1 and 0.5
    geom = SkyGeometry.create(on.pointing, 1 * u.deg, 0.1 * u.deg)
    dataset = make_dataset(on, geom)
    one, both = (
        acceptance(on, dataset, given(*models), normalise=False).mu_bkg
        for models in ((constant(1.0, 0.0),), (high, low))
    )
    assert both == pytest.approx(4.0 * one, rel=2e-3)
    near = acceptance(on, dataset, given(low, high), normalise=False, interpolate=False)
    assert near.meta["background"]["weights"] == [1.0]
    assert near.meta["background"]["zeniths"][0] in (0.0, 60.0)


def test_beyond_all_zeniths_the_nearest_holds_and_a_sentence_says_so() -> None:
    on = at_zenith(1, 60, rate=1.0)
    dataset = make_dataset(on, SkyGeometry.create(on.pointing, 1 * u.deg, 0.1 * u.deg))
    result = acceptance(on, dataset, given(constant(8.0, 20.0), constant(2.0, 40.0)), normalise=False)
    assert result.meta["background"]["zeniths"] == [40.0]
    assert result.meta["warnings"][0] == "before"
    assert "lies outside the background models' 10 to 50 deg" in result.meta["warnings"][1]


def test_the_run_is_normalised_outside_the_exclusion() -> None:
    on = draw_run(1, *ON, seed=5, rate=100)
    usable = outside("icrs;circle(83.63, 22.51, 0.4)")
    dataset = make_dataset(on, GEOM)
    models = given(constant(5.0, 30), usable=usable)
    plain = acceptance(on, dataset, models, normalise=False)
    result = acceptance(on, dataset, models)
    mask = plain.mask_safe & usable(GEOM)
    counts, expected = plain.counts.data[mask].sum(), plain.mu_bkg[mask].sum()
    facts = result.meta["background"]
    assert facts["norm"] == pytest.approx(counts / expected)
    assert facts["norm_err"] == pytest.approx(np.sqrt(counts) / expected)
    assert result.mu_bkg[mask].sum() == pytest.approx(counts)
    signal = np.zeros(dataset.counts.data.shape)
    signal[0, 20, 20] = 10.0
    less = acceptance(on, dataset, replace(models, signal=signal))
    assert less.meta["background"]["norm"] == pytest.approx((counts - 10) / expected)


def test_a_region_holds_the_sum_of_its_pixels_and_the_norm_of_its_field() -> None:
    on = draw_run(1, *ON, seed=6, rate=400)
    region = RegionGeometry("icrs;circle(83.63, 22.51, 0.3)")
    dataset = make_dataset(on, region)
    rate = 5.0
    plain = acceptance(on, dataset, given(constant(rate, 30)), normalise=False)
    area = np.pi * np.radians(0.3) ** 2
    assert plain.mu_bkg.ravel() == pytest.approx(integral(rate) * area * 1000, rel=0.01)
    small = RegionGeometry("icrs;circle(83.63, 22.51, 0.03)")
    plain = acceptance(on, make_dataset(on, small), given(constant(rate, 30)), normalise=False)
    assert plain.mu_bkg.ravel() == pytest.approx(integral(rate) * area * 10, rel=0.015)
    result = acceptance(on, dataset, given(constant(rate, 30)))
    truth = true_rate(1, 10, 400) / integral(rate).sum()
    assert result.meta["background"]["norm"] == pytest.approx(truth, rel=0.1)
    # zero excess within its error on an empty sky
    n, mu = dataset.counts.data.sum(), result.mu_bkg.sum()
    assert abs(n - mu) < 3 * np.sqrt(mu)


def test_bins_without_a_response_of_their_own_are_judged_by_the_model() -> None:
    on = make_run(1, *ON)
    dataset = make_dataset(on, GEOM)
    nothing = dataset.counts.with_data(np.zeros(dataset.counts.data.shape))
    bits = np.ones(dataset.counts.data.shape, dtype=np.uint8)
    bits[0] |= 2
    lost = replace(
        dataset,
        background=ExpectedCounts(nothing),
        mask_safe=bits == 0,
        reasons=MaskReasons(("no response", "aeff_default"), bits),
    )
    result = acceptance(on, lost, given(constant(5.0, 30)), normalise=False)
    inner = GEOM.separation(on.pointing) < np.radians(1.9)
    assert result.mask_safe[1:, inner].all()
    assert not result.mask_safe[0].any()
    assert result.reasons is not None
    assert result.reasons.names == ("no response", "aeff_default", "no background model")
    assert not result.reasons.dropped("no response").any()
    assert not lost.mask_safe.any()


@pytest.mark.parametrize(
    ("models", "run", "message"),
    [
        ((), make_run(1, *ON), "is given no background model"),
        (
            (constant(1, 20), constant(1, 40)),
            make_run(1, *ON, location=None),
            "cannot choose among 2 zenith bins",
        ),
        ((constant(0.0, 20),), make_run(1, *ON), "has no rate in any safe bin"),
        ((constant(1.0, 20),), make_run(1, *ON), "finds 0 counts outside the exclusion"),
        ((constant(1.0, 20, fov_alignment="ALTAZ"),), make_run(1, *ON), "one of the horizon"),
    ],
)
def test_wrong_input_is_a_sentence(models, run, message: str) -> None:
    with pytest.raises(InputError, match=message):
        acceptance(run, make_dataset(run, GEOM), given(*models))


@pytest.mark.parametrize(
    ("geom", "normalise", "message"),
    [
        (GEOM, False, "set `normalise: true`, or leave `subtract` out"),
        (RegionGeometry("icrs;circle(83.63, 22.51, 0.3)"), True, "where `subtract` predicts nothing"),
    ],
)
def test_sources_that_nothing_would_be_taken_off_are_refused(geom, normalise: bool, message: str) -> None:
    on = make_run(1, *ON, [0.0], [0.0], [2.0])
    known = BackgroundInputs(everywhere, np.zeros((4, 1, 1)), models=(constant(5.0, 30),))
    with pytest.raises(InputError, match=message):
        acceptance(on, make_dataset(on, geom), known, normalise=normalise)
