"""The cube recipe on a simulated run."""

from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.bkg import background_rate
from dl3flow.reduce import RECIPES

ENTRY = {
    "name": "cube",
    "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
    "width": "3 deg",
    "binsz": "0.1 deg",
    "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 6},
    "energy_true": {"min": "0.3 TeV", "max": "80 TeV", "nbin": 12},
}


def reduce(observation: Observation, **changes: Any) -> Any:
    recipe, options = RECIPES.bind({**ENTRY, **changes}, "recipe")
    return recipe(observation, "run", **options)


def test_counts_are_the_events_inside(demo_run: Observation) -> None:
    dataset = reduce(demo_run)
    energy = demo_run.events.energy.to_value("TeV")
    _, _, inside = dataset.geom.index(demo_run.events.radec)
    assert dataset.counts.data.sum() == np.count_nonzero(inside & (energy >= 0.5) & (energy <= 50))
    assert dataset.counts.data.sum(axis=(1, 2))[0] == np.count_nonzero(
        inside & (energy >= 0.5) & (energy < dataset.energy.edges[1].value)
    )


def test_exposure_is_area_times_livetime_and_background_rate_times_ontime(demo_run: Observation) -> None:
    dataset = reduce(demo_run)
    assert demo_run.bkg is not None
    pixel = dataset.geom.nearest(SkyCoord(83.2, 22.3, unit="deg"))
    offset = dataset.geom.separation(demo_run.pointing)[pixel] * u.rad
    area = effective_area(demo_run.aeff, dataset.energy_true.centers, offset)
    expected = (area * demo_run.livetime).to_value("m2 s")
    assert dataset.exposure.data[(slice(None), *pixel)] == pytest.approx(expected, rel=1e-12)
    assert demo_run.livetime < demo_run.ontime
    lon, lat = (v[pixel] for v in dataset.geom.fov_lonlat(demo_run.pointing))
    rate = background_rate(demo_run.bkg, dataset.energy, np.array([lon]), np.array([lat]))[:, 0]
    counts = (rate * dataset.geom.solid_angle[pixel] * demo_run.ontime).to_value("")
    assert dataset.background.counts.data[(slice(None), *pixel)] == pytest.approx(counts, rel=1e-12)


def test_background_agrees_with_the_simulated_events(demo_run: Observation) -> None:
    dataset = reduce(demo_run)
    off = dataset.geom.separation(SkyCoord(83.63, 22.01, unit="deg")) > np.radians(0.5)
    counts, expected = (v[:, off].sum() for v in (dataset.counts.data, dataset.background.counts.data))
    assert counts == pytest.approx(expected, abs=4 * np.sqrt(expected))
    # east-west asymmetry of the simulated background, with its sign
    east = np.degrees(dataset.geom.lonlat[0]) > 83.63
    difference = [
        v[:, off & east].sum() - v[:, off & ~east].sum()
        for v in (dataset.counts.data, dataset.background.counts.data)
    ]
    # the wrong sign would be more than five standard deviations off
    assert abs(difference[1]) > 2.5 * np.sqrt(expected)
    assert difference[0] == pytest.approx(difference[1], abs=4 * np.sqrt(expected))


def test_responses_are_normalised(demo_run: Observation) -> None:
    dataset = reduce(demo_run)
    rad = dataset.psf.psf.axis("rad")
    ring = 2 * np.pi * rad.centers.to_value("rad") * rad.widths.to_value("rad")
    held = np.einsum("trji,r->tji", dataset.psf.psf.data, ring)
    assert held[held > 0] == pytest.approx(1, abs=1e-12)
    rows = dataset.edisp.edisp.data.sum(axis=1)
    assert rows.max() <= 1 + 1e-12
    migra = reduce(demo_run, edisp="migra").edisp.edisp
    total = np.einsum("tmji,m->tji", migra.data, migra.axes[1].widths.value)
    assert total[total > 0] == pytest.approx(1, abs=1e-12)


def test_a_cutout_is_a_part_of_the_whole(demo_run: Observation) -> None:
    whole, part = reduce(demo_run), reduce(demo_run, cutout="2 deg")
    here, _ = whole.geom.overlap(part.geom)
    assert part.geom.shape[0] < whole.geom.shape[0]
    for name in ("counts", "exposure"):
        assert np.array_equal(getattr(whole, name).data[:, *here], getattr(part, name).data)
    assert part.background.counts.data == pytest.approx(whole.background.counts.data[:, *here], rel=1e-9)


def test_true_energies_default_to_the_reconstructed(demo_run: Observation) -> None:
    entry = {k: v for k, v in ENTRY.items() if k != "energy_true"}
    recipe, options = RECIPES.bind(entry, "recipe")
    dataset = recipe(demo_run, "run", **options)
    assert np.array_equal(dataset.energy_true.edges, dataset.energy.edges)
    assert dataset.energy_true.name == "energy_true"


def test_no_overlap_and_missing_responses_are_told(demo_run: Observation) -> None:
    far = {"center": {"frame": "icrs", "lon": "200 deg", "lat": "-60 deg"}}
    with pytest.raises(
        InputError, match=r"observation 1001: pointed at .* it has no exposure on the map .* no overlap"
    ):
        reduce(demo_run, **far)
    with pytest.raises(InputError, match="observation 1001: .* no overlap"):
        reduce(demo_run, cutout="2 deg", **far)
    with pytest.raises(InputError, match="needs the response edisp, psf|needs the response psf, edisp"):
        reduce(replace(demo_run, psf=None, edisp=None, bkg=None))


def test_events_outside_the_good_time_intervals_are_not_counted(demo_run: Observation) -> None:
    gti = demo_run.gti
    middle = 0.5 * (gti.start + gti.stop)
    half = replace(demo_run, gti=replace(gti, stop=middle))
    whole, part = reduce(demo_run), reduce(half)
    assert part.counts.data.sum() == pytest.approx(
        0.5 * whole.counts.data.sum(), abs=4 * np.sqrt(whole.counts.data.sum())
    )
    assert part.exposure.data.max() == pytest.approx(0.5 * whole.exposure.data.max())
    assert part.background.counts.data.sum() == pytest.approx(0.5 * whole.background.counts.data.sum())


def test_a_narrow_true_energy_axis_and_point_like_responses_are_told(demo_run: Observation) -> None:
    assert reduce(demo_run).meta["warnings"] == []
    narrow = reduce(demo_run, energy_true={"min": "0.5 TeV", "max": "50 TeV", "nbin": 12})
    assert "energy_true (0.5 TeV to 50 TeV) does not reach beyond energy" in narrow.meta["warnings"][0]
    meta = {**demo_run.aeff.meta, "is_pointlike": True}
    with pytest.raises(InputError, match="the response aeff is POINT-LIKE"):
        reduce(replace(demo_run, aeff=replace(demo_run.aeff, meta=meta)))


def test_only_the_selected_maps_are_made(demo_run: Observation) -> None:
    whole = reduce(demo_run)
    entry = {k: v for k, v in ENTRY.items() if k != "energy_true"}
    recipe, options = RECIPES.bind({**entry, "selection": ["counts", "exposure"]}, "recipe")
    bare = replace(demo_run, edisp=None, psf=None, bkg=None)
    part = recipe(bare, "run", **options)
    assert np.array_equal(part.counts.data, whole.counts.data)
    assert (part.background, part.psf, part.edisp) == (None, None, None)
    assert part.exposure.data.max() > 0
    # without a background every pixel with exposure is safe
    assert np.array_equal(part.mask_safe[0], (part.exposure.data > 0).any(axis=0))
    background = reduce(demo_run, selection=["background", "edisp"])
    assert not background.counts.data.any()
    assert not background.exposure.data.any()
    assert np.array_equal(background.background.counts.data, whole.background.counts.data)
    assert np.array_equal(background.edisp.edisp.data, whole.edisp.edisp.data)
    with pytest.raises(InputError, match="true energies are taken as reconstructed: leave `energy_true` out"):
        reduce(demo_run, selection=["counts", "exposure"])
    with pytest.raises(InputError, match=r"selection\[0\]: 'count' is not possible"):
        reduce(demo_run, selection=["count"])


def test_a_missing_background_response_is_told_and_no_error(demo_run: Observation) -> None:
    dataset = reduce(replace(demo_run, bkg=None))
    assert dataset.background is None
    assert "names no background response" in dataset.meta["warnings"][-1]
    assert dataset.mask_safe.any()


def test_the_point_spread_reaches_as_far_as_asked(demo_run: Observation) -> None:
    whole, part = reduce(demo_run).psf.psf, reduce(demo_run, psf_rad_max="0.33 deg").psf.psf
    assert [psf.axis("rad").n_bins for psf in (whole, part)] == [66, 33]
    ring = 2 * np.pi * whole.axis("rad").centers.to_value("rad") * whole.axis("rad").widths.to_value("rad")
    held = np.einsum("trji,r->tji", whole.data[:, :33], ring[:33])
    # the same profile, normalised on the shorter axis
    assert part.data * held[:, None] == pytest.approx(whole.data[:, :33], rel=1e-9)


def test_runs_share_the_pixels_of_their_geometry(demo_run: Observation) -> None:
    assert reduce(demo_run).geom is reduce(demo_run).geom


def test_parts_of_the_background_and_its_gaps(demo_run: Observation) -> None:
    plain, parts = reduce(demo_run), reduce(demo_run, background_oversampling=5)
    # the simulated rate is a power law but for the first bin, which holds the threshold: parts change little
    assert parts.background.counts.data == pytest.approx(plain.background.counts.data, rel=0.02)
    for wrong in (0, 2.5, True):
        with pytest.raises(InputError, match="background_oversampling: expected a whole number from 1"):
            reduce(demo_run, background_oversampling=wrong)
    assert demo_run.bkg is not None
    column = demo_run.bkg.column
    holed = demo_run.bkg.data[column].copy()
    holed[len(holed) // 2] = 0
    holed.setflags(write=False)
    run = replace(demo_run, bkg=replace(demo_run.bkg, data={column: holed}))
    filled, empty = reduce(run), reduce(run, fill_gaps=False)
    assert filled.background.counts.data.sum() == pytest.approx(plain.background.counts.data.sum(), rel=0.02)
    assert empty.background.counts.data.sum() < 0.95 * plain.background.counts.data.sum()
