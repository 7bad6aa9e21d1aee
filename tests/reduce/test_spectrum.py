"""The spectrum recipe on simulated and on placed events, by arithmetic."""

from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.events import EventList
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.containment import containment
from dl3flow.irf.edisp import dispersion_kernels
from dl3flow.irf.table import IrfTable
from dl3flow.reduce import RECIPES

CRAB = SkyCoord(83.63, 22.01, unit="deg")
ENTRY = {
    "name": "spectrum",
    "region": "icrs;circle(83.63, 22.01, 0.2)",
    "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 6},
    "energy_true": {"min": "0.3 TeV", "max": "80 TeV", "nbin": 12},
}


def spectrum(observation: Observation, **changes: Any) -> Dataset:
    recipe, options = RECIPES.bind({**ENTRY, **changes}, "recipe")
    return recipe(observation, "run", **options)


def placed(observation: Observation, distances: list[float], energies: list[float]) -> Observation:
    """The observation with other events: at distances (deg) east of the source, in the middle of its time."""
    n = len(distances)
    gti = observation.gti
    time = np.full(n, 0.5 * (gti.start[0] + gti.stop[0]).to_value("s")) * u.s
    radec = CRAB.directional_offset_by(90 * u.deg, distances * u.deg)
    return replace(observation, events=EventList(np.arange(n), time, gti.reference, radec, energies * u.TeV))


def with_cuts(observation: Observation, radii: list[float], *, is_pointlike: bool = True) -> Observation:
    """The observation with RAD_MAX in bins 0.1 to 1, 1 to 10 and 10 to 100 TeV, or one value for all."""
    edges = [0.1, 1, 10, 100] if len(radii) > 1 else [0.1, 100]
    axes = (Axis("energy", edges * u.TeV, "log"), Axis("offset", [0, 5] * u.deg))
    table = IrfTable("rad_max_2d", axes, {"RAD_MAX": np.array(radii)[:, None]}, {"RAD_MAX": u.deg})
    meta = {**observation.aeff.meta, "is_pointlike": is_pointlike}
    return replace(observation, rad_max=table, aeff=replace(observation.aeff, meta=meta))


def test_counts_are_the_events_in_the_region_and_good_times(demo_run: Observation) -> None:
    dataset = spectrum(demo_run)
    events = demo_run.events
    inside = events.radec.separation(CRAB) < 0.2 * u.deg
    expected, _ = np.histogram(events.energy[inside].to_value("TeV"), dataset.energy.edges.to_value("TeV"))
    assert expected.sum() > 100
    assert dataset.counts.data[:, 0, 0].tolist() == expected.tolist()
    gti = demo_run.gti
    half = replace(demo_run, gti=replace(gti, stop=0.5 * (gti.start + gti.stop)))
    early = events.time + (events.reference - gti.reference) <= half.gti.stop[0] + 1 * u.s
    part = spectrum(half)
    assert part.counts.data.sum() == np.count_nonzero(
        inside & early & (events.energy >= 0.5 * u.TeV) & (events.energy <= 50 * u.TeV)
    )
    assert part.exposure.data == pytest.approx(0.5 * dataset.exposure.data)


def test_responses_are_those_at_the_centre(demo_run: Observation) -> None:
    dataset = spectrum(demo_run)
    offset = CRAB.separation(demo_run.pointing).to(u.deg)
    assert offset.value == pytest.approx(0.5, abs=1e-6)
    area = effective_area(demo_run.aeff, dataset.energy_true.centers, offset.reshape(1))[:, 0]
    assert dataset.exposure.quantity[:, 0, 0].to_value("m2 s") == pytest.approx(
        (area * demo_run.livetime).to_value("m2 s"), rel=1e-12
    )
    assert demo_run.edisp is not None
    kernel = dispersion_kernels(demo_run.edisp, dataset.energy_true, dataset.energy, offset.reshape(1))
    assert dataset.edisp is not None
    assert dataset.edisp.edisp.data[:, :, 0, 0] == pytest.approx(kernel[:, :, 0], abs=1e-12)
    assert dataset.psf is None
    assert dataset.geom == dataset.edisp.edisp.geom == RegionGeometry(ENTRY["region"])
    assert dataset.meta["obs_ids"] == [1001]
    assert dataset.meta["livetime"] == pytest.approx(demo_run.livetime.value)
    assert dataset.meta["warnings"] == []


def test_containment_corrects_the_exposure(demo_run: Observation) -> None:
    plain, corrected = spectrum(demo_run), spectrum(demo_run, containment_correction=True)
    assert demo_run.psf is not None
    fraction = containment(demo_run.psf, plain.energy_true.centers, 0.2 * u.deg, [0.5] * u.deg)
    ratio = corrected.exposure.data[:, 0, 0] / plain.exposure.data[:, 0, 0]
    assert ratio == pytest.approx(fraction[:, 0], rel=1e-4)
    assert 0.5 < ratio.min() < ratio.max() < 1


def test_the_exposure_can_be_averaged_over_the_region(demo_run: Observation) -> None:
    # an area that is linear in the offset is at the centre what it is on average over a region far from the pointing
    offset = demo_run.aeff.axis("offset").centers.to_value("deg")
    (name,) = demo_run.aeff.data
    slope = np.broadcast_to(100 + offset, demo_run.aeff.data[name].shape)
    linear = replace(demo_run, aeff=replace(demo_run.aeff, data={name: slope}, units={name: u.m**2}))
    centre, mean = spectrum(linear), spectrum(linear, use_region_center=False)
    # the mean distance from the pointing grows by r^2 / (8 d): 0.01 deg of 100.5
    expected = 1 + 0.2**2 / (8 * 0.5) / 100.5
    assert mean.exposure.data == pytest.approx(expected * centre.exposure.data, rel=2e-6)
    bent = replace(demo_run, aeff=replace(demo_run.aeff, data={name: slope**2}, units={name: u.m**2}))
    assert np.all(spectrum(bent, use_region_center=False).exposure.data > spectrum(bent).exposure.data)


def test_background_is_the_rate_summed_over_the_region(demo_run: Observation) -> None:
    assert demo_run.bkg is not None
    (name,) = demo_run.bkg.data
    rate = np.ones_like(demo_run.bkg.data[name])
    flat = replace(
        demo_run, bkg=replace(demo_run.bkg, data={name: rate}, units={name: u.Unit("s-1 TeV-1 sr-1")})
    )
    dataset = spectrum(flat)
    assert isinstance(dataset.background, ExpectedCounts)
    # 2 pi (1 - cos r) of sky
    area = 2 * np.pi * (1 - np.cos(np.radians(0.2)))
    expected = area * demo_run.ontime.value * dataset.energy.widths.to_value("TeV")
    assert dataset.background.counts.data[:, 0, 0] == pytest.approx(expected, rel=1e-3)
    assert np.all(dataset.mask_safe)
    none = spectrum(replace(demo_run, bkg=None))
    assert none.background is None
    assert np.all(none.mask_safe)


def test_events_of_a_kept_phase_have_their_share_of_the_time(demo_run: Observation) -> None:
    part = spectrum(replace(demo_run, meta={**demo_run.meta, "phase_fraction": 0.25}))
    whole = spectrum(demo_run)
    assert part.exposure.data == pytest.approx(0.25 * whole.exposure.data, rel=1e-12)
    assert part.mu_bkg == pytest.approx(0.25 * whole.mu_bkg, rel=1e-12)
    assert part.meta["livetime"] == pytest.approx(0.25 * whole.meta["livetime"])


def test_a_point_takes_the_events_within_the_cut_of_their_energy(demo_run: Observation) -> None:
    run = with_cuts(demo_run, [0.3, 0.2, 0.1])
    # inside and outside the cut of each of its three bins, at the rim, and beyond the table's energies
    run = placed(
        run,
        [0.29, 0.31, 0.19, 0.21, 0.09, 0.11, 0.1 - 1e-9],
        [0.9, 0.9, 2.0, 2.0, 20.0, 20.0, 20.0],
    )
    energy = {"edges": ["0.5 TeV", "1 TeV", "10 TeV", "100 TeV"]}
    dataset = spectrum(run, region="icrs;point(83.63, 22.01)", energy=energy, energy_true=energy)
    assert dataset.counts.data[:, 0, 0].tolist() == [1, 1, 2]
    assert dataset.background is None
    assert dataset.exposure.data.max() > 0
    # the second bin of three edges is 0.3: bins are taken as they are, not interpolated
    steep = placed(run, [0.29], [0.999])
    found = spectrum(steep, region="icrs;point(83.63, 22.01)", energy=energy, energy_true=energy)
    assert found.counts.data.sum() == 1


@pytest.mark.parametrize(
    ("radii", "region", "said"),
    [
        ([0.2], "icrs;circle(83.63, 22.01, 0.2)", None),
        ([0.2], "icrs;circle(83.63, 22.01, 0.11)", "RAD_MAX = 0.2 deg of the source, and the region is"),
        ([0.2], "icrs;box(83.63, 22.01, 0.2, 0.2, 0)", "RAD_MAX = 0.2 deg"),
        ([0.3, 0.2, 0.1], "icrs;circle(83.63, 22.01, 0.2)", "0.1 to 0.3 deg with the energy"),
        ([0.3, 0.2, 0.1], "icrs;point(83.63, 22.01)", None),
    ],
)
def test_cuts_that_the_area_was_not_made_for_are_told(
    radii: list[float], region: str, said: str | None, demo_run: Observation
) -> None:
    warnings = spectrum(with_cuts(demo_run, radii), region=region).meta["warnings"]
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_an_area_without_a_radius_or_for_the_other_kind_is_told(demo_run: Observation) -> None:
    bare = replace(with_cuts(demo_run, [0.2]), rad_max=None)
    assert "names no RAD_MAX" in spectrum(bare).meta["warnings"][0]
    full = with_cuts(demo_run, [0.2], is_pointlike=False)
    assert "FULL-ENCLOSURE" in spectrum(full, region="icrs;point(83.63, 22.01)").meta["warnings"][0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"region": "icrs;point(83.63, 22.01)"}, "takes events within RAD_MAX, and the observation has none"),
        (
            {"region": "icrs;box(83.63, 22.01, 0.2, 0.2, 0)", "containment_correction": True},
            "is for one circle, and the region is 'icrs;box",
        ),
        (
            {"region": "icrs;circle(200, -60, 0.2)"},
            r"observation 1001: pointed at .* it has no exposure on the region",
        ),
    ],
)
def test_what_cannot_be_done_is_a_sentence(changes: dict[str, Any], said: str, demo_run: Observation) -> None:
    with pytest.raises(InputError, match=said):
        spectrum(demo_run, **changes)


def test_corrections_of_point_like_areas_and_averages_over_points_are_refused(demo_run: Observation) -> None:
    run = with_cuts(demo_run, [0.2])
    with pytest.raises(InputError, match="POINT-LIKE .* leave `containment_correction` out"):
        spectrum(run, containment_correction=True)
    with pytest.raises(InputError, match="over which no exposure can be averaged"):
        spectrum(run, region="icrs;point(83.63, 22.01)", use_region_center=False)
    with pytest.raises(InputError, match="needs a point spread function"):
        spectrum(replace(demo_run, psf=None), containment_correction=True)
    with pytest.raises(InputError, match="names no energy dispersion: leave `energy_true` out"):
        spectrum(replace(demo_run, edisp=None))
    same = {"energy": ENTRY["energy"], "energy_true": ENTRY["energy"]}
    assert spectrum(replace(demo_run, edisp=None), **same).edisp is None


def test_no_events_are_no_counts(demo_run: Observation) -> None:
    assert spectrum(placed(demo_run, [], [])).counts.data.tolist() == np.zeros((6, 1, 1)).tolist()
    run = with_cuts(placed(demo_run, [], []), [0.2])
    assert spectrum(run, region="icrs;point(83.63, 22.01)").counts.data.sum() == 0


def test_inputs_are_left_alone(demo_run: Observation) -> None:
    for table in (demo_run.aeff, demo_run.edisp, demo_run.bkg):
        assert table is not None
        for values in table.data.values():
            values.setflags(write=False)
    demo_run.events.energy.setflags(write=False)
    assert spectrum(demo_run, containment_correction=True, use_region_center=False).counts.data.sum() > 0


@pytest.mark.parametrize(("offset", "is_told"), [(0.5, False), (0.57, False), (0.7, True), (0.3, True)])
def test_an_area_of_one_offset_is_told_of_elsewhere(
    demo_run: Observation, offset: float, is_told: bool
) -> None:
    axis = Axis("offset", u.Quantity([0.49, 0.51], u.deg), "lin")
    area = demo_run.aeff.quantity[:, :1]
    aeff = replace(
        demo_run.aeff,
        axes=(demo_run.aeff.axes[0], axis),
        data={"EFFAREA": area.value},
        units={"EFFAREA": area.unit},
    )
    at = demo_run.pointing.directional_offset_by(0 * u.deg, offset * u.deg)
    dataset = spectrum(replace(demo_run, aeff=aeff), region=f"icrs;circle({at.ra.deg}, {at.dec.deg}, 0.1)")
    told = [
        w
        for w in dataset.meta["warnings"]
        if w.startswith("the effective area was made for offsets of 0.49 to 0.51")
    ]
    assert bool(told) == is_told
