"""Excess, significance, fluxes, profiles and peaks against gammapy, from files of ours that it opens."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.data.products import ProductTable, SkyMap
from dl3flow.estimators import MAPS, TABLES
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.provenance import collect_provenance
from dl3flow.kernels.peaks import find_peaks

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
theirs = pytest.importorskip("gammapy.datasets", reason="gammapy is not installed: make peer")

RUNS = (23523, 23592)
CENTER = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}
CRAB = SkyCoord(83.63, 22.01, unit="deg")
RADIUS = {"correlation_radius": "0.1 deg"}
CUBE = {
    "name": "cube",
    "center": CENTER,
    "width": "3 deg",
    # an odd number of pixels: on an even one the middle of the map, where both take the dispersion, is a corner
    "binsz": "0.04 deg",
    "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4},
    "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 10},
}
RING = {"name": "ring", "r_in": "0.4 deg", "width": "0.3 deg", "exclusion": "icrs;circle(83.63, 22.01, 0.3)"}
MASK = [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": "2 deg"}]


@pytest.fixture(scope="module")
def observations(hess_dl3: Path) -> list[Any]:
    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    return [read_observation(entries[obs_id], hess_dl3) for obs_id in RUNS]


def _pairs(
    observations: list[Any], folder: Path, background: dict[str, Any] | None
) -> list[tuple[Dataset, Any]]:
    """Each run as we and as gammapy read it from one file."""
    entry = {"recipe": CUBE, "safe_mask": MASK, **({} if background is None else {"background": background})}
    kind = theirs.MapDataset if background is None else theirs.MapDatasetOnOff
    pairs = []
    for observation, obs_id in zip(observations, RUNS, strict=True):
        path = folder / f"run-{obs_id}.fits"
        dataset = reduce_observation(observation, f"run-{obs_id}", parse_chain(entry, ""))
        write_fits_dataset(path, dataset, collect_provenance("test", "", {}, {}))
        pairs.append((read_fits_dataset(path), kind.read(path, name=f"run-{obs_id}")))
    return pairs


@pytest.fixture(scope="module")
def known(observations: list[Any], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Dataset, Any]]:
    return _pairs(observations, tmp_path_factory.mktemp("known"), None)


@pytest.fixture(scope="module")
def measured(observations: list[Any], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Dataset, Any]]:
    return _pairs(observations, tmp_path_factory.mktemp("measured"), RING)


def ours_of(datasets: list[Dataset], name: str = "excess_map", **options: Any) -> SkyMap:
    estimate, bound = MAPS.bind({"name": name, **RADIUS, **options}, "map")
    return estimate(datasets, None, **bound)


def _same(ours: np.ndarray, their: np.ndarray, scale: np.ndarray, tolerance: float) -> None:
    """Equal where both have a number, in units of ``scale``, and numbers in the same pixels but for a few."""
    both = np.isfinite(ours) & np.isfinite(their)
    assert both.sum() > 0.98 * np.isfinite(their).sum()
    # no counts have no error: differences there are in units of a small one
    least = 0.1 * float(np.median(scale[both]))
    assert (np.abs(ours - their)[both] / np.maximum(scale[both], least)).max() < tolerance


NAMES = {
    "counts": "counts",
    "excess": "npred_excess",
    "sqrt_ts": "sqrt_ts",
    "flux": "flux",
    "flux_err": "flux_err",
}


@pytest.mark.parametrize("is_measured", [False, True])
def test_excess_map(is_measured: bool, known: Any, measured: Any) -> None:
    from gammapy.estimators import ExcessMapEstimator

    dataset, other = (measured if is_measured else known)[0]
    their = ExcessMapEstimator(0.1 * u.deg, sum_over_energy_groups=True, correlate_off=False).run(other)
    ours = ours_of([dataset]).maps
    error = ours["excess_err"].data, ours["flux_err"].data
    for name, their_name in NAMES.items():
        unit = "cm-2 s-1" if name.startswith("flux") else ""
        scale = error[1] if unit else 1.0 if name == "sqrt_ts" else error[0]
        values = getattr(their, their_name).quantity.to_value(unit)[0]
        _same(ours[name].data, values, np.broadcast_to(scale, values.shape), 1e-3)


def test_excess_map_in_bands(known: Any) -> None:
    from gammapy.estimators import ExcessMapEstimator

    dataset, other = known[0]
    edges = dataset.energy.edges[[0, 2, 4]]
    their = ExcessMapEstimator(0.1 * u.deg, energy_edges=edges).run(other)
    ours = ours_of([dataset], energy={"min": "1 TeV", "max": "10 TeV", "nbin": 2}).maps
    for name, their_name in NAMES.items():
        unit = "cm-2 s-1" if name.startswith("flux") else ""
        values = getattr(their, their_name).quantity.to_value(unit)
        found = ours[f"band_{name}"].data
        both = np.isfinite(found) & np.isfinite(values)
        assert both.sum() > 0.98 * np.isfinite(values).sum()
        assert found[both] == pytest.approx(
            values[both], rel=1e-4, abs=1e-4 * float(np.abs(values[both]).max())
        )


@pytest.mark.parametrize("is_measured", [False, True])
def test_errors_and_limits(is_measured: bool, known: Any, measured: Any) -> None:
    """In the middle of the map: gammapy takes a while for each pixel."""
    from gammapy.estimators import ExcessMapEstimator

    dataset, other = (measured if is_measured else known)[0]
    part = other.cutout(CRAB, 0.76 * u.deg)
    estimator = ExcessMapEstimator(
        0.1 * u.deg, sum_over_energy_groups=True, correlate_off=False, selection_optional=["errn-errp", "ul"]
    )
    their = estimator.run(part)
    ours = ours_of([dataset], errors=True, limits=True).maps
    middle, wide = 37, 5
    cut = slice(middle - wide, middle + wide + 1)
    inner = slice(9 - wide, 9 + wide + 1)
    for name in ("flux", "flux_errn", "flux_errp", "flux_ul"):
        values = getattr(their, name).quantity.to_value("cm-2 s-1")[0]
        assert values.shape == (19, 19)
        found = ours[name].data[cut, cut]
        # it finds the ends to a thousandth of a count, and counts limits of a deficit from where the excess is zero as we do
        assert found == pytest.approx(values[inner, inner], rel=5e-3), name


def test_combined_significance(known: Any) -> None:
    from gammapy.datasets import Datasets
    from gammapy.estimators import ExcessMapEstimator
    from gammapy.estimators.utils import get_combined_significance_maps

    estimator = ExcessMapEstimator(0.1 * u.deg, correlate_off=False, energy_edges=known[0][0].energy.edges)
    their = get_combined_significance_maps(estimator, Datasets([other for _, other in known]))
    ours = ours_of(
        [dataset for dataset, _ in known],
        "combined_significance",
        energy={"min": "1 TeV", "max": "10 TeV", "nbin": 4},
    ).maps
    covered = np.isfinite(ours["sqrt_ts"].data)
    # its sums of maps are NaN where one of them is
    both = covered & np.isfinite(their["significance"].data)
    assert both.sum() > 2000
    assert ours["n_dof"].data[both] == pytest.approx(their["df"].data[both])
    assert ours["ts"].data[both] == pytest.approx(their["ts"].data[both], rel=1e-4, abs=1e-3)
    assert ours["sqrt_ts"].data[both] == pytest.approx(their["significance"].data[both], rel=1e-3, abs=2e-3)


def profile_of(datasets: list[Dataset], **options: Any) -> ProductTable:
    entry = {"name": "flux_profile", "center": CENTER, **options}
    estimate, bound = TABLES.bind(entry, "profile")
    return estimate(datasets, None, **bound)


def _their_profile(known: Any, regions: list[Any]) -> Any:
    from gammapy.datasets import Datasets
    from gammapy.estimators import FluxProfileEstimator

    estimator = FluxProfileEstimator(regions=regions, energy_edges=[1, 10] * u.TeV, selection_optional=["ul"])
    return estimator.run(Datasets([other for _, other in known]))


def _compare(table: Any, profile: Any) -> None:
    def values(name: str) -> np.ndarray:
        return getattr(profile, name).quantity.to_value("cm-2 s-1").ravel()

    error = values("flux_err")
    for name in ("flux", "flux_err", "flux_ul"):
        assert np.abs(table[name].to_value("cm-2 s-1") - values(name)).max() < 0.02 * error.max(), name
    sqrt_ts = profile.sqrt_ts.quantity.value.ravel()
    assert np.asarray(table["sqrt_ts"]) == pytest.approx(sqrt_ts, abs=0.02)
    # the further axis is the dataset
    counts = profile.counts.quantity.value.reshape(len(table), -1).sum(axis=1)
    assert np.asarray(table["counts"]).tolist() == counts.tolist()


def test_profile_of_boxes(known: Any) -> None:
    from regions import RectangleSkyRegion

    # edges between pixels: three rows of five pixels to a box
    table = profile_of([dataset for dataset, _ in known], length="0.84 deg", n_bins=7, width="0.2 deg").table
    regions = [
        RectangleSkyRegion(SkyCoord(CRAB.ra, CRAB.dec + d), 0.2 * u.deg, 0.12 * u.deg)
        for d in (np.arange(7) - 3) * 0.12 * u.deg
    ]
    assert table["n_pixels"].tolist() == [15] * 7
    _compare(table, _their_profile(known, regions))


def test_profile_of_rings(known: Any) -> None:
    from regions import CircleAnnulusSkyRegion

    # inside the masks of both runs, which it asks for
    edges = np.linspace(0.0, 0.42, 4) * u.deg
    table = profile_of([dataset for dataset, _ in known], length="0.42 deg", n_bins=3, shape="annuli").table
    regions = [
        CircleAnnulusSkyRegion(CRAB, max(low, 1e-6 * u.deg), high)
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    profile = _their_profile(known, regions)
    # the smallest hole takes the pixel in the middle away
    counts = profile.counts.quantity.value.reshape(3, -1).sum(axis=1)
    assert np.asarray(table["counts"])[1:].tolist() == counts[1:].tolist()
    flux, error = (
        getattr(profile, key).quantity.to_value("cm-2 s-1").ravel() for key in ("flux", "flux_err")
    )
    assert np.abs(table["flux"].to_value("cm-2 s-1")[1:] - flux[1:]).max() < 0.02 * error.max()


def test_peaks(known: Any) -> None:
    from gammapy.estimators import ExcessMapEstimator
    from gammapy.estimators.utils import find_peaks as find_their_peaks

    dataset, other = known[0]
    their = ExcessMapEstimator(0.1 * u.deg, sum_over_energy_groups=True).run(other)
    table = find_their_peaks(their["sqrt_ts"], threshold=2.5, min_distance=10)
    ours = find_peaks(ours_of([dataset]).maps["sqrt_ts"].data, 2.5, 10.0)
    # it looks in squares, we in circles: what it finds, we find
    assert set(zip(table["y"].tolist(), table["x"].tolist(), strict=True)) <= set(ours)
    assert ours[0] == (table["y"][0], table["x"][0])
