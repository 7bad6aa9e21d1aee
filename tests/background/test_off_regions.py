"""Backgrounds from off regions and off phases: placed events counted by hand, and what every method must hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from regions import Regions

from dl3flow.background import BACKGROUNDS
from dl3flow.background.off_regions import Turntable
from dl3flow.background.registry import BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.events import EventList
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.table import IrfTable
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.safe_mask import apply_safe_masks

CRAB = SkyCoord(83.63, 22.01, unit="deg")
CIRCLE = "icrs;circle(83.63, 22.01, 0.1)"
POINT = "icrs;point(83.63, 22.01)"
# two bins: 1 to 3 and 3 to 9 TeV
ENERGY = {"min": "1 TeV", "max": "9 TeV", "nbin": 2}
EVERYWHERE = BackgroundInputs(lambda geom: np.ones(geom.shape, dtype=bool))


def excluding(lon: float, lat: float, radius: float) -> BackgroundInputs:
    """Inputs that exclude a circle, in degrees."""

    def usable(geom: SkyGeometry) -> np.ndarray:
        return np.degrees(geom.separation(SkyCoord(lon, lat, unit="deg"))) > radius

    return BackgroundInputs(usable)


def spectrum(observation: Observation, region: str = CIRCLE) -> Dataset:
    entry = {"name": "spectrum", "region": region, "energy": ENERGY}
    recipe, options = RECIPES.bind(entry, "recipe")
    return recipe(observation, "run", **options)


def cube(observation: Observation) -> Dataset:
    entry = {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "1 deg",
        "binsz": "0.1 deg",
        "energy": ENERGY,
    }
    recipe, options = RECIPES.bind(entry, "recipe")
    return recipe(observation, "run", **options)


def placed(
    observation: Observation, where: SkyCoord, energy: Any, phase: np.ndarray | None = None
) -> Observation:
    """The observation with other events, in the middle of its time."""
    n = len(where)
    gti = observation.gti
    time = np.full(n, 0.5 * (gti.start[0] + gti.stop[0]).to_value("s")) * u.s
    energies = np.broadcast_to(energy, n) * u.TeV
    return replace(
        observation, events=EventList(np.arange(n), time, gti.reference, where, energies, phase=phase)
    )


def around(observation: Observation, angles: Any, distance: float = 0.5) -> SkyCoord:
    """Directions at position angles (deg) from the source's as seen from the pointing."""
    start = observation.pointing.position_angle(CRAB)
    return observation.pointing.directional_offset_by(start + np.atleast_1d(angles) * u.deg, distance * u.deg)


def with_cuts(observation: Observation, low: float, high: float) -> Observation:
    """The observation with a RAD_MAX of its own below and above 3 TeV."""
    axes = (Axis("energy", [1, 3, 9] * u.TeV, "log"), Axis("offset", [0, 5] * u.deg))
    table = IrfTable("rad_max_2d", axes, {"RAD_MAX": np.array([[low], [high]])}, {"RAD_MAX": u.deg})
    return replace(observation, rad_max=table)


def measure(observation: Observation, dataset: Dataset, name: str, inputs: Any, **options: Any) -> Dataset:
    method, bound = BACKGROUNDS.bind({"name": name, **options}, "background")
    return method(observation, dataset, inputs, **bound)


def off_of(dataset: Dataset) -> OffCounts:
    assert isinstance(dataset.background, OffCounts)
    return dataset.background


def off_regions(dataset: Dataset) -> Regions:
    return Regions.parse(dataset.meta["background"]["regions"], format="ds9")


def test_reflected_regions_are_counted(demo_run: Observation) -> None:
    # a circle of 0.1 deg at 0.5 deg is 2 asin(0.1 / 0.5) = 23.1 deg wide, less what its pixels of 0.01 deg leave out; the first
    # copy starts 0.1 rad further
    found = measure(demo_run, spectrum(demo_run), "reflected", EVERYWHERE)
    n = found.meta["background"]["n_regions"]
    angles = [
        (demo_run.pointing.position_angle(region.center) - demo_run.pointing.position_angle(CRAB))
        .wrap_at("360d")
        .deg
        for region in off_regions(found)
    ]
    size = float(np.mean(np.diff(angles)))
    assert 22 < size < 23.1
    assert np.diff(angles) == pytest.approx([size] * (n - 1), abs=0.01)
    first = size + np.degrees(0.1)
    assert angles[0] == pytest.approx(first, abs=0.01)
    # none ends nearer than 0.1 rad to the source again, but a next one would
    assert angles[-1] < 360 - first < angles[-1] + size
    assert [region.radius.to_value("deg") for region in off_regions(found)] == pytest.approx([0.1] * n)
    # one event in each copy, one between the source and the first copy, one at another distance, two low and three in the source
    where = SkyCoord(
        [
            *around(demo_run, angles),
            *around(demo_run, [first / 2]),
            *around(demo_run, [angles[0]], 0.65),
            *around(demo_run, [angles[1]] * 2),
            *around(demo_run, [0] * 3),
        ]
    )
    energy = np.array([2.0] * n + [2.0] + [2.0] + [0.5, 5.0] + [2.0] * 3)
    run = placed(demo_run, where, energy)
    counted = measure(run, spectrum(run), "reflected", EVERYWHERE)
    off = off_of(counted)
    assert off.counts.data[:, 0, 0].tolist() == [n, 1]
    assert counted.counts.data[:, 0, 0].tolist() == [3, 0]
    assert np.all(off.acceptance.data == 1)
    assert np.all(off.acceptance_off.data == n)
    assert off.alpha == pytest.approx(1 / n)


def test_reflected_regions_avoid_the_exclusion(demo_run: Observation) -> None:
    opposite = around(demo_run, [180])[0]
    inputs = excluding(float(opposite.ra.deg), float(opposite.dec.deg), 0.2)
    found = measure(demo_run, spectrum(demo_run), "reflected", inputs)
    gaps = [float(region.center.separation(opposite).deg) for region in off_regions(found)]
    assert min(gaps) > 0.3 - 0.015
    assert len(gaps) < 13


def test_options_of_reflected_regions(demo_run: Observation) -> None:
    dataset = spectrum(demo_run)
    assert (
        measure(demo_run, dataset, "reflected", EVERYWHERE, max_regions=3).meta["background"]["n_regions"]
        == 3
    )
    apart = measure(demo_run, dataset, "reflected", EVERYWHERE, min_distance="20 deg")
    angles = [demo_run.pointing.position_angle(region.center).deg for region in off_regions(apart)]
    assert np.diff(np.unwrap(angles, period=360)) == pytest.approx([43.1] * (len(angles) - 1), abs=1)
    late = measure(demo_run, dataset, "reflected", EVERYWHERE, min_distance_input="100 deg")
    first = off_regions(late)[0].center
    turned = (demo_run.pointing.position_angle(first) - demo_run.pointing.position_angle(CRAB)).wrap_at(
        "360d"
    )
    assert turned.deg == pytest.approx(123.1, abs=1)
    for option, value in (("max_regions", 0), ("min_distance", "-1 deg"), ("angle_increment", "1e-9 deg")):
        with pytest.raises(InputError, match=f"background.{option}"):
            BACKGROUNDS.bind({"name": "reflected", option: value}, "background")


@pytest.mark.parametrize(
    "region",
    [
        "icrs;ellipse(83.63, 22.01, 0.15, 0.05, 30)",
        "icrs;box(83.63, 22.01, 0.2, 0.1, 30)",
        "icrs;annulus(83.63, 22.01, 0.05, 0.1)",
        "icrs;polygon(83.5, 22.0, 83.7, 22.0, 83.6, 22.1)",
        "galactic;circle(184.5575, -5.7844, 0.1)",
        "icrs;circle(83.63, 22.01, 0.05);circle(83.73, 22.01, 0.05)",
    ],
)
def test_any_shape_is_turned(region: str, demo_run: Observation) -> None:
    found = measure(demo_run, spectrum(demo_run, region), "reflected", EVERYWHERE)
    n = found.meta["background"]["n_regions"]
    assert n >= 5
    geom = RegionGeometry(region)
    assert len(off_regions(found)) == n * len(geom.regions)
    # every copy covers the solid angle of the region: as many pixels, to the pixels at its rim
    table = Turntable.create(geom, demo_run.pointing, 0.01 * u.deg)
    copies = off_regions(found)
    per_copy = len(geom.regions)
    for k in range(n):
        parts = [copy.to_pixel(table.plane.wcs) for copy in copies[k * per_copy : (k + 1) * per_copy]]
        assert table.drawn(parts).sum() == pytest.approx(table.drawn(table.parts).sum(), rel=0.06)


def test_places_at_equal_angles(demo_run: Observation) -> None:
    found = measure(demo_run, spectrum(demo_run), "wobble", EVERYWHERE, n_off=3)
    expected = around(demo_run, [90, 180, 270])
    for region, where in zip(off_regions(found), expected, strict=True):
        assert region.center.separation(where).deg == pytest.approx(0, abs=1e-4)
    run = placed(demo_run, SkyCoord([*around(demo_run, [90, 180, 180, 270, 135]), CRAB]), 2.0)
    counted = measure(run, spectrum(run), "wobble", EVERYWHERE, n_off=3)
    assert off_of(counted).counts.data[:, 0, 0].tolist() == [4, 0]
    assert off_of(counted).alpha == pytest.approx(1 / 3)
    assert counted.counts.data[:, 0, 0].tolist() == [1, 0]
    opposite = around(demo_run, [180])[0]
    inputs = excluding(float(opposite.ra.deg), float(opposite.dec.deg), 0.05)
    fewer = measure(run, spectrum(run), "wobble", inputs, n_off=3)
    assert off_of(fewer).counts.data[:, 0, 0].tolist() == [2, 0]
    assert off_of(fewer).alpha == pytest.approx(1 / 2)


def test_places_with_directional_cuts(demo_run: Observation) -> None:
    run = with_cuts(demo_run, 0.2, 0.05)
    places = around(demo_run, [180])
    where = SkyCoord(
        [
            *places.directional_offset_by(0 * u.deg, 0.19 * u.deg),
            *places.directional_offset_by(0 * u.deg, 0.21 * u.deg),
            *places.directional_offset_by(0 * u.deg, 0.19 * u.deg),
            *places.directional_offset_by(0 * u.deg, 0.04 * u.deg),
            CRAB,
        ]
    )
    run = placed(run, where, np.array([2.0, 2.0, 5.0, 5.0, 5.0]))
    found = measure(run, spectrum(run, POINT), "wobble", EVERYWHERE, n_off=1)
    assert off_of(found).counts.data[:, 0, 0].tolist() == [1, 1]
    assert found.counts.data[:, 0, 0].tolist() == [0, 1]
    assert found.meta["background"]["n_regions"] == 1
    # at its centre alone the exclusion counts
    near = places.directional_offset_by(0 * u.deg, 0.1 * u.deg)[0]
    beside = excluding(float(near.ra.deg), float(near.dec.deg), 0.05)
    assert measure(run, spectrum(run, POINT), "wobble", beside, n_off=1).meta["background"]["n_regions"] == 1
    here = excluding(float(places[0].ra.deg), float(places[0].dec.deg), 0.05)
    with pytest.raises(InputError, match="finds all 1 places of 'icrs;point.* in the exclusion"):
        measure(run, spectrum(run, POINT), "wobble", here, n_off=1)


def test_places_that_overlap_are_told(demo_run: Observation) -> None:
    with pytest.raises(InputError, match="observation 1001: .* overlap one another or the region itself"):
        measure(demo_run, spectrum(demo_run), "wobble", EVERYWHERE, n_off=20)
    # four places on a circle of 0.5 deg are 0.707 deg apart
    run = with_cuts(demo_run, 0.36, 0.05)
    with pytest.raises(
        InputError, match=r"regions 0.707 deg apart, which overlap where RAD_MAX is 0.360 deg"
    ):
        measure(run, spectrum(run, POINT), "wobble", EVERYWHERE, n_off=3)
    assert measure(with_cuts(demo_run, 0.35, 0.05), spectrum(run, POINT), "wobble", EVERYWHERE, n_off=3)


def test_what_has_no_off_region_is_a_sentence(demo_run: Observation) -> None:
    nowhere = BackgroundInputs(lambda geom: np.zeros(geom.shape, dtype=bool))
    with pytest.raises(
        InputError, match="observation 1001: .* finds no place for a copy .* 0.50 deg from the pointing"
    ):
        measure(demo_run, spectrum(demo_run), "reflected", nowhere)
    with pytest.raises(InputError, match="finds all 3 places"):
        measure(demo_run, spectrum(demo_run), "wobble", nowhere, n_off=3)
    with pytest.raises(InputError, match="the pointing, which lies inside 'icrs;circle"):
        measure(demo_run, spectrum(demo_run, "icrs;circle(83.63, 22.01, 0.6)"), "reflected", EVERYWHERE)
    run = with_cuts(demo_run, 0.2, 0.05)
    with pytest.raises(
        InputError, match="is a point, whose size depends on the energy: use the background `wobble`"
    ):
        measure(run, spectrum(run, POINT), "reflected", EVERYWHERE)
    with pytest.raises(InputError, match="holds no pixel of 0.01 deg: make `binsz` smaller"):
        measure(demo_run, spectrum(demo_run, "icrs;circle(83.63, 22.01, 0.001)"), "reflected", EVERYWHERE)
    for name, options in (("reflected", {}), ("wobble", {"n_off": 3})):
        with pytest.raises(InputError, match="the dataset is a map: use the recipe `spectrum`"):
            measure(demo_run, cube(demo_run), name, EVERYWHERE, **options)


def phases(run: Observation) -> Observation:
    """Events at the source with phases 0.005, 0.015, ... 0.995."""
    return placed(run, SkyCoord([CRAB] * 100), 2.0, (np.arange(100) + 0.5) / 100)


@pytest.mark.parametrize("make", [spectrum, cube])
def test_phases_are_counted_by_hand(make: Callable[[Observation], Dataset], demo_run: Observation) -> None:
    run = phases(demo_run)
    dataset = make(run)
    options = {"on_phase": [[0.3, 0.5]], "off_phase": [[0.9, 1.3]]}
    with pytest.raises(InputError, match="background.off_phase|overlap"):
        measure(run, dataset, "phase", EVERYWHERE, on_phase=[0.2, 0.5], off_phase=[0.4, 0.6])
    found = measure(run, dataset, "phase", EVERYWHERE, **options)
    off = off_of(found)
    # [0.3, 0.5) holds 20 events, [0.9, 1) and [0, 0.3) hold 40
    assert found.counts.data.sum() == 20
    assert off.counts.data.sum() == 40
    assert np.unique(off.acceptance.data) == pytest.approx([0.2])
    assert np.unique(off.acceptance_off.data) == pytest.approx([0.4])
    assert (found.counts.data - off.alpha * off.counts.data).sum() == pytest.approx(0, abs=1e-12)
    assert found.exposure.data == pytest.approx(0.2 * dataset.exposure.data)
    assert found.edisp is not None
    assert dataset.edisp is not None
    assert found.edisp.exposure.data == pytest.approx(0.2 * dataset.edisp.exposure.data)
    assert found.meta["livetime"] == pytest.approx(0.2 * dataset.meta["livetime"])
    assert found.meta["background"]["method"] == "phase"


def test_phases_with_directional_cuts(demo_run: Observation) -> None:
    run = with_cuts(phases(demo_run), 0.2, 0.05)
    found = measure(run, spectrum(run, POINT), "phase", EVERYWHERE, on_phase=[0.3, 0.5], off_phase=[0.6, 0.9])
    assert [found.counts.data.sum(), off_of(found).counts.data.sum()] == [20, 30]


def test_events_without_a_phase_or_cut_by_it_are_told(demo_run: Observation) -> None:
    options = {"on_phase": [0.3, 0.5], "off_phase": [0.6, 0.9]}
    with pytest.raises(InputError, match="needs the phase of every event: add a column PHASE"):
        measure(demo_run, spectrum(demo_run), "phase", EVERYWHERE, **options)
    cut = replace(phases(demo_run), meta={**demo_run.meta, "phase_fraction": 0.5})
    with pytest.raises(InputError, match="needs the events of all phases"):
        measure(cut, spectrum(cut), "phase", EVERYWHERE, **options)


METHODS: dict[str, dict[str, Any]] = {
    "reflected": {},
    "wobble": {"n_off": 3},
    "phase": {"on_phase": [0.3, 0.5], "off_phase": [0.6, 0.9]},
}


@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str, demo_run: Observation) -> None:
    run = replace(
        demo_run,
        events=replace(demo_run.events, phase=np.linspace(0, 1, len(demo_run.events), endpoint=False)),
    )
    dataset = spectrum(run)
    assert isinstance(dataset.background, ExpectedCounts)
    for values in (
        dataset.counts.data,
        dataset.exposure.data,
        dataset.mask_safe,
        dataset.background.counts.data,
    ):
        values.setflags(write=False)
    before = dict(dataset.meta)
    found = measure(run, dataset, name, EVERYWHERE, **METHODS[name])
    off = off_of(found)
    assert np.all(off.alpha > 0)
    assert found.counts.data.shape == off.counts.data.shape == found.mask_safe.shape == (2, 1, 1)
    assert dict(dataset.meta) == before
    # without a source the off counts predict the on counts
    far = replace(run, events=run.events.select(run.events.radec.separation(CRAB) > 0.5 * u.deg))
    side = spectrum(far, "icrs;circle(83.1, 22.51, 0.2)")
    empty = measure(far, side, name, excluding(83.63, 22.01, 0.5), **METHODS[name])
    on, expected = empty.counts.data.sum(), empty.mu_bkg.sum()
    error = np.sqrt(on + np.sum(off_of(empty).alpha ** 2 * off_of(empty).counts.data))
    assert expected > 1
    assert abs(on - expected) < 4 * error
    nothing = placed(run, SkyCoord([], [], unit="deg"), 1.0, np.zeros(0))
    zero = measure(nothing, spectrum(nothing), name, EVERYWHERE, **METHODS[name])
    assert zero.counts.data.sum() == off_of(zero).counts.data.sum() == zero.mu_bkg.sum() == 0


@pytest.mark.parametrize("name", METHODS)
def test_off_counts_are_taken_as_they_are(name: str, demo_run: Observation) -> None:
    dataset = spectrum(demo_run)
    inputs = BackgroundInputs(EVERYWHERE.usable, signal=np.ones(dataset.counts.data.shape))
    with pytest.raises(
        InputError, match=f"the background `{name}` takes off counts as they are: leave `subtract` out"
    ):
        measure(demo_run, dataset, name, inputs, **METHODS[name])


def test_measured_bins_need_no_expected_background(demo_run: Observation) -> None:
    dataset = spectrum(demo_run)
    assert isinstance(dataset.background, ExpectedCounts)
    lost = dataset.background.counts.data * np.array([1.0, 0.0])[:, None, None]
    unsafe = replace(
        dataset,
        background=ExpectedCounts(dataset.counts.with_data(lost)),
        mask_safe=lost > 0,
    )
    assert unsafe.mask_safe[:, 0, 0].tolist() == [True, False]
    assert np.all(measure(demo_run, unsafe, "reflected", EVERYWHERE).mask_safe)
    # but what a safe mask drops stays out
    masks = [SAFE_MASKS.bind({"name": "energy_range", "min": "2 TeV"}, "safe_mask")]
    masked = apply_safe_masks(demo_run, unsafe, masks)
    found = measure(demo_run, masked, "reflected", EVERYWHERE)
    assert found.mask_safe[:, 0, 0].tolist() == [False, True]
    assert found.reasons is not None
    assert not found.reasons.dropped("no response").any()
    assert found.reasons.dropped("energy_range")[:, 0, 0].tolist() == [True, False]
