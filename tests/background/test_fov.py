"""Background method ``fov``: norms by arithmetic on a simulated run."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.background import BACKGROUNDS
from dl3flow.background.fov import energy_groups
from dl3flow.background.registry import BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.reduce import RECIPES

FOV = BACKGROUNDS.find("fov", "")


def cube(observation: Observation) -> Dataset:
    entry = {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "3 deg",
        "binsz": "0.1 deg",
        "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 6},
        "energy_true": {"min": "0.3 TeV", "max": "80 TeV", "nbin": 12},
    }
    recipe, options = RECIPES.bind(entry, "recipe")
    return recipe(observation, "run", **options)


def inputs(usable: np.ndarray, signal: np.ndarray | None = None) -> BackgroundInputs:
    return BackgroundInputs(lambda geom: usable, signal)


@pytest.mark.parametrize("method", ["scale", "fit"])
def test_norm_by_arithmetic(method: str, demo_run: Observation) -> None:
    dataset = cube(demo_run)
    usable = dataset.geom.separation(SkyCoord(83.63, 22.01, unit="deg")) > np.radians(0.4)
    for values in (dataset.counts.data, dataset.background.counts.data, usable):
        values.setflags(write=False)
    scaled = FOV(demo_run, dataset, inputs(usable), method=method)
    mask = dataset.mask & usable
    n, b = dataset.counts.data[mask].sum(), dataset.background.counts.data[mask].sum()
    assert scaled.meta["background"]["norm"] == pytest.approx(n / b, rel=1e-9)
    assert scaled.meta["background"]["norm_err"] == pytest.approx(np.sqrt(n) / b, rel=1e-9)
    assert scaled.background.counts.data[mask].sum() == pytest.approx(n, rel=1e-9)


def test_subtracts_known_sources(demo_run: Observation) -> None:
    dataset = cube(demo_run)
    usable = np.ones(dataset.geom.shape, dtype=bool)
    signal = np.zeros_like(dataset.counts.data)
    signal[2, 15, 15] = 500
    plain = FOV(demo_run, dataset, inputs(usable), method="scale").meta["background"]["norm"]
    less = FOV(demo_run, dataset, inputs(usable, signal), method="scale").meta["background"]["norm"]
    assert (plain - less) * dataset.background.counts.data[dataset.mask].sum() == pytest.approx(500, rel=1e-9)


def test_tilt_is_recovered(demo_run: Observation) -> None:
    dataset = cube(demo_run)
    energy = dataset.energy.centers.to_value("TeV")[:, None, None]
    bent = dataset.background.counts.with_data(dataset.background.counts.data * energy**0.4 / 1.3)
    expected = dataset.counts.with_data(dataset.background.counts.data)
    bent_dataset = replace(dataset, counts=expected, background=ExpectedCounts(bent))
    usable = np.ones(dataset.geom.shape, dtype=bool)
    result = FOV(demo_run, bent_dataset, inputs(usable), method="fit", tilt=True)
    assert result.meta["background"]["tilt"] == pytest.approx(0.4, abs=1e-6)
    assert result.background.counts.data == pytest.approx(dataset.background.counts.data, rel=1e-6)


def test_without_a_usable_bin_is_told(demo_run: Observation) -> None:
    dataset = cube(demo_run)
    nowhere = np.zeros(dataset.geom.shape, dtype=bool)
    with pytest.raises(InputError, match="observation 1001: the background `fov` finds no safe bin"):
        FOV(demo_run, dataset, inputs(nowhere), method="scale")
    empty = replace(dataset, counts=dataset.counts.with_data(np.zeros_like(dataset.counts.data)))
    with pytest.raises(InputError, match="finds 0 counts outside the exclusion"):
        FOV(demo_run, empty, inputs(~nowhere), method="scale")


def test_counts_at_one_energy_leave_the_tilt_at_zero(demo_run: Observation) -> None:
    dataset = cube(demo_run)
    counts = np.zeros_like(dataset.counts.data)
    counts[1] = dataset.counts.data[1]
    alone = replace(dataset, counts=dataset.counts.with_data(counts))
    fitted = FOV(demo_run, alone, inputs(np.ones(dataset.geom.shape, dtype=bool)), method="fit", tilt=True)
    found = fitted.meta["background"]
    mask = dataset.mask
    assert found["norm"] == pytest.approx(
        counts[mask].sum() / dataset.background.counts.data[mask].sum(), rel=1e-9
    )
    assert (found["tilt"], found["tilt_err"]) == (0, 0)
    assert fitted.meta["warnings"][-1].endswith("its tilt was kept at 0")


def test_a_ratio_has_no_tilt(demo_run: Observation) -> None:
    dataset = cube(demo_run)
    usable = np.ones(dataset.geom.shape, dtype=bool)
    with pytest.raises(InputError, match="has no tilt: give `method: fit`"):
        FOV(demo_run, dataset, inputs(usable), method="scale", tilt=True)


def test_energies_are_grouped_until_they_have_enough_counts() -> None:
    counts = np.array([3, 4, 10, 0, 2, 1, 30, 2, 3], dtype=float)
    background, nothing = np.ones(9), np.zeros(9)
    assert energy_groups(counts, background, nothing, 10) == [(0, 3), (3, 9)]
    assert energy_groups(counts, background, nothing, 5) == [(0, 2), (2, 3), (3, 7), (7, 9)]
    # without enough counts anywhere there is one group
    assert energy_groups(counts, background, nothing, 1000) == [(0, 9)]
    # a group needs background, and more counts than the known sources
    assert energy_groups(counts, np.array([0, 0, 0, 0, 0, 0, 1, 1, 1.0]), nothing, 5) == [(0, 7), (7, 9)]
    assert energy_groups(counts, background, 2 * counts * (np.arange(9) < 3), 5) == [(0, 7), (7, 9)]
    # leftover bins whose sources outshine their counts take their group back into the one before
    assert energy_groups(np.array([9.0, 9, 0]), np.ones(3), np.array([0, 0, 20.0]), 5) == [(0, 3)]


@pytest.mark.parametrize("method", ["scale", "fit"])
def test_each_group_of_energies_gets_its_own_norm(method: str, demo_run: Observation) -> None:
    dataset = cube(demo_run)
    usable = dataset.geom.separation(SkyCoord(83.63, 22.01, unit="deg")) > np.radians(0.4)
    scaled = FOV(demo_run, dataset, inputs(usable), method=method, min_counts=300)
    mask = dataset.mask & usable
    n, b, new = (
        np.where(mask, v, 0).sum(axis=(1, 2))
        for v in (dataset.counts.data, dataset.background.counts.data, scaled.background.counts.data)
    )
    groups = scaled.meta["background"]["groups"]
    edges = dataset.energy.edges.to_value("TeV")
    assert 1 < len(groups) < 6
    assert groups[0]["energy_min"] == pytest.approx(0.5)
    assert groups[-1]["energy_max"] == pytest.approx(50)
    for group in groups:
        part = (edges[:-1] >= group["energy_min"] * 0.999) & (edges[1:] <= group["energy_max"] * 1.001)
        assert n[part].sum() >= 300
        assert group["norm"] == pytest.approx(n[part].sum() / b[part].sum(), rel=1e-9)
        assert group["norm_err"] == pytest.approx(np.sqrt(n[part].sum()) / b[part].sum(), rel=1e-9)
        assert new[part] == pytest.approx(group["norm"] * b[part], rel=1e-9)
    assert scaled.meta["background"]["norm"] == pytest.approx(n.sum() / b.sum(), rel=1e-9)


def test_a_tilt_and_groups_exclude_one_another(demo_run: Observation) -> None:
    with pytest.raises(InputError, match="leave `tilt` or `min_counts` out"):
        FOV(demo_run, cube(demo_run), inputs(np.ones((30, 30), bool)), method="fit", tilt=True, min_counts=9)


def test_spectra_are_refused(demo_run: Observation) -> None:
    recipe, options = RECIPES.bind(
        {
            "name": "spectrum",
            "region": "icrs;circle(83.63, 22.01, 0.2)",
            "energy": {"min": "1 TeV", "max": "9 TeV", "nbin": 2},
        },
        "",
    )
    with pytest.raises(InputError, match="is no map: take a reduction with the recipe `cube`"):
        FOV(demo_run, recipe(demo_run, "run", **options), inputs(np.ones((1, 1), bool)))
