"""Safe masks by arithmetic, on a simulated run and on responses made for the purpose."""

from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.maps import EdispMap, Map
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.safe_mask import Kept, apply_safe_masks, bias_threshold, energy_reaching

CENTER = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}
AXES = {
    "energy": {"min": "0.1 TeV", "max": "100 TeV", "nbin": 12},
    "energy_true": {"min": "0.05 TeV", "max": "200 TeV", "nbin": 36},
}
CUBE = {"name": "cube", "center": CENTER, "width": "3 deg", "binsz": "0.1 deg", **AXES}
SPECTRUM = {"name": "spectrum", "region": "icrs;circle(83.63, 22.01, 0.2)", **AXES}


def reduce(observation: Observation, entry: dict[str, Any]) -> Dataset:
    recipe, options = RECIPES.bind(entry, "recipe")
    return recipe(observation, "run", **options)


@pytest.fixture(scope="module", params=[CUBE, SPECTRUM], ids=["cube", "spectrum"])
def dataset(request: pytest.FixtureRequest, demo_run: Observation) -> Dataset:
    found = reduce(demo_run, request.param)
    assert found.edisp is not None
    for values in (found.mask_safe, found.exposure.data, found.edisp.edisp.data, found.mu_bkg):
        values.setflags(write=False)
    return found


def mask(observation: Observation, dataset: Dataset, name: str, **options: Any) -> Kept:
    plugin, bound = SAFE_MASKS.bind({"name": name, **options}, "safe_mask")
    return plugin(observation, dataset, **bound)


def lowest(dataset: Dataset, kept: Kept) -> float:
    """Lower edge (TeV) of the first energy bin kept; nan for none."""
    whole = np.broadcast_to(kept.bins, dataset.mask_safe.shape).any(axis=(1, 2))
    return float(dataset.energy.edges[:-1][whole][0].to_value("TeV")) if whole.any() else np.nan


def edge_above(dataset: Dataset, energy: float) -> float:
    edges = dataset.energy.edges.to_value("TeV")
    return float(edges[edges >= energy * (1 - 1e-6)][0])


def test_offsets_and_header_limits(demo_run: Observation, dataset: Dataset) -> None:
    keep = np.broadcast_to(
        mask(demo_run, dataset, "offset_max", offset_max="1 deg").bins, dataset.mask_safe.shape
    )
    assert np.array_equal(keep[0], dataset.geom.separation(demo_run.pointing) < np.radians(1))
    assert np.array_equal(keep[0], keep[-1])
    limits = {**demo_run.aeff.meta, "lo_thres": 1.0 * u.TeV, "hi_thres": 20 * u.TeV}
    run = replace(demo_run, aeff=replace(demo_run.aeff, meta=limits))
    edges = dataset.energy.edges.to_value("TeV")
    inside = (edges[:-1] >= 1.0 - 1e-6) & (edges[1:] <= 20 + 1e-6)
    by_header = mask(run, dataset, "aeff_default")
    assert by_header.bins[:, 0, 0].tolist() == inside.tolist()
    assert by_header.warnings == ()


@pytest.mark.parametrize("value", [None, 0 * u.TeV])
@pytest.mark.parametrize(
    ("absent", "said"), [("lo_thres", "no LO_THRES, so that no lower"), ("hi_thres", "no HI_THRES")]
)
def test_a_limit_that_the_header_lacks_is_told(
    absent: str, said: str, value: u.Quantity | None, demo_run: Observation, dataset: Dataset
) -> None:
    run = replace(demo_run, aeff=replace(demo_run.aeff, meta={**demo_run.aeff.meta, absent: value}))
    plugin, options = SAFE_MASKS.bind({"name": "aeff_default"}, "safe_mask")
    masked = apply_safe_masks(run, dataset, [(plugin, options)])
    assert [text for text in masked.meta["warnings"] if said in text]
    assert not [text for text in dataset.meta["warnings"] if said in text]
    assert masked.mask_safe.any()


def test_the_energy_range_keeps_whole_bins(demo_run: Observation, dataset: Dataset) -> None:
    edges = dataset.energy.edges.to_value("TeV")
    both = mask(demo_run, dataset, "energy_range", min="0.5 TeV", max="30 TeV").bins[:, 0, 0]
    assert both.tolist() == ((edges[:-1] >= 0.5) & (edges[1:] <= 30)).tolist()
    assert (
        mask(demo_run, dataset, "energy_range", max="30 TeV").bins[:, 0, 0].tolist()
        == (edges[1:] <= 30).tolist()
    )
    assert np.all(mask(demo_run, dataset, "energy_range").bins)
    with pytest.raises(InputError, match=r"`min` \(3.0 TeV\) must be below `max` \(1.0 TeV\)"):
        mask(demo_run, dataset, "energy_range", min="3 TeV", max="1 TeV")


def test_energy_of_a_level_is_log_log_between_centres() -> None:
    axis = Axis("energy_true", np.array([0.1, 1, 10, 100, 1000]) * u.TeV, "log")
    values = np.array([1.0, 100.0, 10_000.0, 20_000.0])
    found = energy_reaching(axis, values, 1000.0)
    assert found is not None
    # half-way in the logarithms between the centres of the second and third bin
    assert found.to_value("TeV") == pytest.approx(np.sqrt(np.sqrt(1 * 10) * np.sqrt(10 * 100)))
    assert energy_reaching(axis, values, 0.5) is None
    from_zero = energy_reaching(axis, np.array([0.0, 0, 10_000, 20_000]), 1000.0)
    assert from_zero is not None
    assert from_zero.to_value("TeV") == pytest.approx(np.sqrt(10 * 100))


def test_effective_area_of_a_percentage(demo_run: Observation, dataset: Dataset) -> None:
    # the area of a dataset whose exposure is energy^2 up to 10 TeV and constant above reaches 25 % at 5 TeV
    energy = dataset.energy_true.centers.to_value("TeV")
    bent = np.minimum(energy, 10) ** 2
    whole = np.broadcast_to(bent[:, None, None], dataset.exposure.data.shape)
    changed = replace(dataset, exposure=dataset.exposure.with_data(whole))
    assert lowest(changed, mask(demo_run, changed, "aeff_max", percent=25.0)) == edge_above(dataset, 5.0)
    assert lowest(changed, mask(demo_run, changed, "aeff_max", percent=1.0)) == edge_above(dataset, 1.0)
    flat = replace(dataset, exposure=dataset.exposure.with_data(np.ones_like(whole)))
    assert np.all(mask(demo_run, flat, "aeff_max").bins)
    nothing = mask(
        demo_run, replace(dataset, exposure=dataset.exposure.with_data(np.zeros_like(whole))), "aeff_max"
    )
    assert not nothing.bins.any()
    assert nothing.warnings == ("the exposure is zero at all energies: no bin is kept",)


def test_effective_area_of_the_response_itself(demo_run: Observation, dataset: Dataset) -> None:
    axis = demo_run.aeff.axis("energy_true")
    (name,) = demo_run.aeff.data
    # grows with the energy squared up to 10 TeV, and falls with the offset to nothing at 3 deg for low energies
    offset = demo_run.aeff.axis("offset").centers.to_value("deg")
    rise = np.minimum(axis.centers.to_value("TeV"), 10)[:, None] ** (2 + np.maximum(offset, 0))
    run = replace(demo_run, aeff=replace(demo_run.aeff, data={name: rise}, units={name: u.m**2}))
    options: dict[str, Any] = {"percent": 25.0, "irfs": "DL3"}
    step = axis.edges[1] / axis.edges[0]
    for extra, index in (({}, 2.0), ({"fixed_offset": "1 deg"}, 3.0), ({"position": CENTER}, 2.5)):
        expected = 10 * 0.25 ** (1 / index)
        found = lowest(dataset, mask(run, dataset, "aeff_max", **options, **extra))
        # edges of the response's own axis: the first above the energy, and interpolation between its nodes
        assert edge_above(dataset, expected / step) <= found <= edge_above(dataset, expected * step)


def kernel_of(energy_true: Axis, energy: Axis, bias: np.ndarray) -> np.ndarray:
    """Kernels that put all of each true energy into one pair of bins, with that mean."""
    kernel = np.zeros((energy_true.n_bins, energy.n_bins))
    centers = energy.centers.to_value("TeV")
    for n, mean in enumerate(energy_true.centers.to_value("TeV") * (1 + bias)):
        k = int(np.clip(np.searchsorted(centers, mean) - 1, 0, len(centers) - 2))
        part = (mean - centers[k]) / (centers[k + 1] - centers[k])
        kernel[n, k], kernel[n, k + 1] = 1 - part, part
    return kernel


def test_bias_is_followed_upward_from_its_maximum() -> None:
    true = Axis.from_bounds("energy_true", 0.1 * u.TeV, 100 * u.TeV, 6)
    energy = Axis.from_bounds("energy", 0.01 * u.TeV, 1000 * u.TeV, 200)
    bias = np.array([0.05, 0.8, 0.4, 0.1, 0.025, -0.1])
    kernel = kernel_of(true, energy, bias)
    found = bias_threshold(kernel, true, energy, 0.2)
    assert found is not None
    centers = true.centers.to_value("TeV")
    # 0.2 is half-way in the logarithm between 0.4 and 0.1
    assert found.to_value("TeV") == pytest.approx(np.sqrt(centers[2] * centers[3]) * 1.2, rel=1e-9)
    assert bias_threshold(kernel, true, energy, 0.9) is None
    high = bias_threshold(kernel_of(true, energy, np.full(6, 0.5)), true, energy, 0.2)
    assert high is not None
    assert np.isinf(high)


def test_bias_of_a_dataset_and_of_the_response(demo_run: Observation, dataset: Dataset) -> None:
    assert dataset.edisp is not None
    true = dataset.energy_true
    bias = np.where(true.centers < 1 * u.TeV, 0.5, 0.01)
    fine = dataset.energy
    kernel = kernel_of(true, fine, bias)
    edisp = dataset.edisp.edisp
    data = np.broadcast_to(kernel[:, :, None, None], edisp.data.shape)
    changed = replace(dataset, edisp=EdispMap(edisp.with_data(data), dataset.edisp.exposure))
    threshold = bias_threshold(kernel, true, fine, 0.1)
    assert threshold is not None
    found = lowest(changed, mask(demo_run, changed, "edisp_bias"))
    assert found == edge_above(dataset, threshold.to_value("TeV"))
    own = lowest(dataset, mask(demo_run, dataset, "edisp_bias", irfs="DL3"))
    assert 0.1 <= own < 2
    # a constant shift of the response by half falls below a tenth only where its own axis ends
    assert demo_run.edisp is not None
    migra = demo_run.edisp.axis("migra").centers.value
    (name,) = demo_run.edisp.data
    order = [axis.name for axis in demo_run.edisp.axes]
    shape = [1, 1, 1]
    shape[order.index("migra")] = -1
    shifted = np.broadcast_to(
        np.exp(-0.5 * ((migra - 1.5) / 0.02) ** 2).reshape(shape), demo_run.edisp.data[name].shape
    )
    run = replace(demo_run, edisp=replace(demo_run.edisp, data={name: shifted}))
    assert not mask(run, dataset, "edisp_bias", irfs="DL3").bins[:-1].any()
    with pytest.raises(InputError, match="the safe mask `edisp_bias` needs the energy dispersion"):
        mask(replace(demo_run, edisp=None), dataset, "edisp_bias", irfs="DL3")


def test_background_peak_with_either_edge(demo_run: Observation, dataset: Dataset) -> None:
    assert isinstance(dataset.background, ExpectedCounts)
    peaked = np.exp(-0.5 * (np.arange(12) - 4.0) ** 2)[:, None, None]
    data = np.broadcast_to(peaked, dataset.counts.data.shape)
    changed = replace(dataset, background=ExpectedCounts(dataset.counts.with_data(data)))
    edges = dataset.energy.edges.to_value("TeV")
    assert lowest(changed, mask(demo_run, changed, "bkg_peak")) == edges[4]
    assert lowest(changed, mask(demo_run, changed, "bkg_peak", edge="upper")) == edges[5]
    with pytest.raises(InputError, match="`bkg_peak` needs the expected background, and there is none"):
        mask(demo_run, replace(dataset, background=None), "bkg_peak")


def test_background_peak_of_the_response(demo_run: Observation, dataset: Dataset) -> None:
    assert demo_run.bkg is not None
    (name,) = demo_run.bkg.data
    axis = demo_run.bkg.axis("energy")
    # a rate per TeV that peaks at a low energy, while that per bin peaks in the bin of 3 TeV
    log_e = np.log(axis.centers.to_value("TeV") / 3)
    rate = np.exp(-0.5 * (log_e / 0.5) ** 2) / axis.widths.to_value("TeV")
    whole = np.broadcast_to(rate[:, None, None], demo_run.bkg.data[name].shape)
    run = replace(demo_run, bkg=replace(demo_run.bkg, data={name: whole}))
    nearest = int(np.argmin(np.abs(log_e)))
    edge = float(axis.edges[nearest].to_value("TeV"))
    assert lowest(dataset, mask(run, dataset, "bkg_peak", irfs="DL3")) == edge_above(dataset, edge)
    with pytest.raises(InputError, match="needs the background response"):
        mask(replace(demo_run, bkg=None), dataset, "bkg_peak", irfs="DL3")


def test_places_of_a_mask(demo_run: Observation) -> None:
    cube, spectrum = reduce(demo_run, CUBE), reduce(demo_run, SPECTRUM)
    with pytest.raises(InputError, match="give `position` or `fixed_offset`, not both"):
        mask(demo_run, cube, "aeff_max", position=CENTER, fixed_offset="1 deg")
    with pytest.raises(InputError, match="a spectrum has the responses of its region only"):
        mask(demo_run, spectrum, "aeff_max", fixed_offset="1 deg")
    far = {**CENTER, "lat": "32 deg"}
    with pytest.raises(
        InputError, match=r"the place of a safe mask, \(83.6300, 32.0000\) deg, lies off the map"
    ):
        mask(demo_run, cube, "edisp_bias", position=far)
    # north of the pointing by half a degree is a pixel of its own
    north = SkyCoord(83.63, 22.51 + 0.5, unit="deg")
    j, i = cube.geom.nearest(north)
    energy = cube.energy_true.centers.to_value("TeV")
    data = np.ones_like(cube.exposure.data)
    data[:, j - 1 : j + 2, i - 1 : i + 2] = (np.minimum(energy, 10) ** 2)[:, None, None]
    steep = replace(cube, exposure=cube.exposure.with_data(data))
    found = lowest(steep, mask(demo_run, steep, "aeff_max", percent=25.0, fixed_offset="0.5 deg"))
    assert found == edge_above(steep, 5.0)
    assert np.all(mask(demo_run, steep, "aeff_max", percent=25.0).bins)


def test_masks_are_combined_and_every_reason_kept(demo_run: Observation) -> None:
    dataset = reduce(demo_run, CUBE)
    entries = [
        {"name": "energy_range", "min": "0.5 TeV"},
        {"name": "energy_range", "max": "20 TeV"},
        {"name": "offset_max", "offset_max": "1 deg"},
    ]
    bound = [SAFE_MASKS.bind(entry, "safe_mask") for entry in entries]
    masked = apply_safe_masks(demo_run, dataset, bound)
    whole = [np.broadcast_to(p(demo_run, dataset, **o).bins, dataset.mask_safe.shape) for p, o in bound]
    assert np.array_equal(masked.mask_safe, dataset.mask_safe & whole[0] & whole[1] & whole[2])
    assert masked.reasons is not None
    assert masked.reasons.names == ("no response", "energy_range", "energy_range (2)", "offset_max")
    for name, keep in zip(masked.reasons.names, [dataset.mask_safe, *whole], strict=True):
        assert np.array_equal(masked.reasons.dropped(name), ~keep)
    with pytest.raises(InputError, match="at most 7 safe masks can be combined, found 8"):
        apply_safe_masks(demo_run, dataset, bound[:1] * 8)


@pytest.mark.parametrize("percent", [0, 100, -3, "ten"])
def test_percentages(percent: Any) -> None:
    with pytest.raises(InputError, match="safe_mask.percent"):
        SAFE_MASKS.bind({"name": "aeff_max", "percent": percent}, "safe_mask")


def test_maps_keep_their_kind(demo_run: Observation, dataset: Dataset) -> None:
    masks = [
        SAFE_MASKS.bind({"name": name, **({"offset_max": "1 deg"} if name == "offset_max" else {})}, "")
        for name in SAFE_MASKS.names()
    ]
    masked = apply_safe_masks(demo_run, dataset, masks)
    assert masked.mask_safe.dtype == bool
    assert masked.mask_safe.shape == dataset.counts.data.shape
    assert isinstance(masked.counts, Map)
    assert masked.counts is dataset.counts
