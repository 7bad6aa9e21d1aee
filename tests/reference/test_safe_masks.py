"""Case A: every safe mask on one H.E.S.S. run, bin by bin, and the thresholds behind them."""

from typing import Any

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.irf.edisp import kernels_from_density
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.safe_mask import apply_safe_masks, bias_threshold, energy_reaching

from .conftest import CENTER

ENTRY = {
    "name": "cube",
    "center": CENTER,
    "width": "5 deg",
    "binsz": "0.05 deg",
    "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 11},
    "energy_true": {"min": "0.3 TeV", "max": "10 TeV", "nbin": 31},
}
WIDE = {
    **ENTRY,
    "binsz": "0.1 deg",
    "energy": {"min": "0.1 TeV", "max": "100 TeV", "nbin": 24},
    "energy_true": {"min": "0.05 TeV", "max": "120 TeV", "nbin": 48},
}
MASKS: dict[str, dict[str, Any]] = {
    "aeff_default": {},
    "aeff_max": {"percent": 10.0},
    "edisp_bias": {"percent": 10.0},
    "offset_max": {"offset_max": "2.5 deg"},
    "bkg_peak": {},
}


@pytest.fixture(scope="module")
def numbers(reference: Any) -> dict[str, Any]:
    return reference("A_reduce_23592")[0]["numbers"]


@pytest.fixture(scope="module")
def run(crab_observations: dict[int, Any]) -> Any:
    return crab_observations[23592]


def reduce(run: Any, entry: dict[str, Any], edisp: str = "kernel") -> Dataset:
    recipe, options = RECIPES.bind({**entry, "edisp": edisp}, "recipe")
    return recipe(run, "run", **options)


@pytest.fixture(scope="module")
def datasets(run: Any) -> dict[str, Dataset]:
    return {
        "kernelmap": reduce(run, ENTRY),
        "migra": reduce(run, ENTRY, "migra"),
        "wide": reduce(run, WIDE),
    }


def masked(run: Any, dataset: Dataset, name: str, **options: Any) -> Dataset:
    return apply_safe_masks(
        run, dataset, [SAFE_MASKS.bind({"name": name, **(options or MASKS[name])}, "safe_mask")]
    )


@pytest.mark.parametrize("form", ["kernelmap", "migra"])
@pytest.mark.parametrize("name", MASKS)
def test_every_mask_keeps_the_same_bins(
    name: str, form: str, run: Any, datasets: dict[str, Dataset], numbers: dict[str, Any]
) -> None:
    expected = numbers["safe_masks"][f"{name.replace('_', '-')}|{form}"]
    safe = masked(run, datasets[form], name)
    assert safe.mask_safe.sum(axis=(1, 2)).tolist() == expected["per_energy"]
    assert safe.mask_safe.sum() == expected["n_safe"]
    assert safe.counts.data[safe.mask_safe].sum() == expected["counts_safe"]
    assert safe.mu_bkg[safe.mask_safe].sum() == pytest.approx(expected["background_safe"], rel=1e-6)


@pytest.mark.parametrize("name", MASKS)
def test_every_mask_on_a_wide_energy_axis(
    name: str, run: Any, datasets: dict[str, Dataset], numbers: dict[str, Any]
) -> None:
    expected = numbers["wide_energy_axis"]["methods"][name.replace("_", "-")]
    dataset = datasets["wide"]
    safe = masked(run, dataset, name)
    # the case: leave out the bin that ends at HI_THRES to rounding, and bins with pixels of less background than 1e-6
    inside = 1750
    whole = (np.count_nonzero(dataset.mu_bkg > 1e-6, axis=(1, 2)) == inside) & (np.arange(24) < 23)
    assert whole.sum() >= 17
    found, wanted = safe.mask_safe.sum(axis=(1, 2)), np.array(expected["per_energy"])
    assert found[whole].tolist() == wanted[whole].tolist()
    assert np.all(found[:23] <= wanted[:23])


def test_thresholds(run: Any, datasets: dict[str, Dataset], numbers: dict[str, Any]) -> None:
    expected = numbers["thresholds_TeV"]
    dataset = datasets["kernelmap"]
    # the map's centre is the corner of four pixels: the case took this one
    area = dataset.exposure.data[:, 49, 49] / dataset.meta["livetime"]
    assert area.max() == pytest.approx(expected["aeff_max_m2"], rel=1e-6)
    threshold = energy_reaching(dataset.energy_true, area, 0.1 * area.max())
    assert threshold is not None
    assert threshold.to_value("TeV") == pytest.approx(expected["aeff-max 10% at map centre"][0], rel=1e-8)
    wide = numbers["wide_energy_axis"]["edisp_bias_energy_10pct_TeV"]
    for form, energy in (
        ("kernelmap", expected["edisp-bias 10% kernelmap"]),
        ("migra", expected["edisp-bias 10% migra"]),
        ("wide", wide),
    ):
        asked = datasets[form]
        assert asked.edisp is not None
        edisp = asked.edisp.edisp
        kernel = edisp.data[(slice(None), slice(None), *edisp.geom.nearest(asked.geom.center))]
        if form == "migra":
            kernel = kernels_from_density(kernel, edisp.axes[1], asked.energy_true, asked.energy)
        found = bias_threshold(kernel, asked.energy_true, asked.energy, 0.1)
        assert found is not None
        assert found.to_value("TeV") == pytest.approx(energy[0], rel=1e-8)
