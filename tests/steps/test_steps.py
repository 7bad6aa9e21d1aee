"""Steps of the workflow called as functions: what they hand from files to the library and back."""

import json
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import yaml
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError
from dl3flow.fit.limits import limit_energies, limit_sky
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.io.datasets import read_fit_datasets
from dl3flow.io.gadf_index import read_index
from dl3flow.io.hdf5 import read_dataset, read_failure
from dl3flow.io.models_yaml import parse_models
from dl3flow.io.products import read_observation_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.skymaps import write_sky_map
from dl3flow.reduce.outcome import COLUMNS, outcome
from dl3flow.steps import reduce_observation, select_observations

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {
    "name": "cube",
    "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
    "width": "2 deg",
    "binsz": "0.1 deg",
    "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4},
    "binsz_irf": "0.5 deg",
}
REGION = "icrs;circle(83.63, 22.01, 0.3)"


@pytest.fixture(scope="module")
def reduce(demo_dl3: Path, tmp_path_factory: pytest.TempPathFactory):
    """Reduce the first simulated run with a background entry; gives the file."""
    entry = read_index(demo_dl3)[0]

    def call(background: dict | None, mask: list[Path] = [], recipe: dict = RECIPE) -> Path:  # noqa: B006
        options = {
            "name": "cube-1001",
            "run": {"entry": json.loads(json.dumps(entry.to_json())), "events": {}},
            "off": [],
            "recipe": recipe,
            "safe_mask": [{"name": "offset_max", "offset_max": "1.2 deg"}],
            "background": background,
        }
        inputs = {
            "events": [demo_dl3 / entry.paths[0]],
            "responses": [],
            "mask": mask,
            "off": [],
            "models": [],
        }
        path = tmp_path_factory.mktemp("dl4") / "cube/1001.h5"
        provenance = collect_provenance("reduce_observation", "0", options, inputs)
        reduce_observation.run(inputs, {"dataset": path}, options, provenance)
        return path

    return call


@pytest.fixture(scope="module")
def plain(reduce) -> Dataset:
    """The run without a background method."""
    return read_dataset(reduce(None))


def outside(dataset: Dataset) -> np.ndarray:
    """Safe bins outside the exclusion region."""
    return dataset.mask_safe & ~region_mask(dataset.geom, parse_regions(REGION, "region"))


def norm(path: Path) -> float:
    """Background norm of a reduced observation."""
    return float(read_dataset(path).meta["background"]["norm"])


def test_the_background_is_scaled_outside_the_exclusion(reduce, plain: Dataset) -> None:
    use = outside(plain)
    expected = plain.counts.data[use].sum() / plain.background.counts.data[use].sum()
    path = reduce({"name": "fov", "exclusion": REGION})
    assert norm(path) == pytest.approx(expected, rel=1e-6)
    scaled = read_dataset(path).background.counts.data
    np.testing.assert_allclose(scaled, expected * plain.background.counts.data, rtol=1e-6)


def test_a_mask_file_excludes_as_the_region_that_it_was_drawn_from(
    reduce, plain: Dataset, tmp_path: Path
) -> None:
    usable = ~region_mask(plain.geom, parse_regions(REGION, "region"))
    mask = SkyMap({"mask": Map(plain.geom, (), usable.astype(float))})
    write_sky_map(tmp_path / "mask.fits", mask, collect_provenance("test", "0", {}, {}))
    with_file = norm(reduce({"name": "fov"}, [tmp_path / "mask.fits"]))
    assert with_file == norm(reduce({"name": "fov", "exclusion": REGION}))
    assert with_file != norm(reduce({"name": "fov"}))


def test_known_sources_are_subtracted_before_scaling(reduce, plain: Dataset) -> None:
    entry = yaml.safe_load((ROOT / "config/models/crab.yaml").read_text())
    signal, _ = predict_counts(plain, parse_models(entry, "crab"))
    use = plain.mask_safe
    expected = (plain.counts.data[use].sum() - signal[use].sum()) / plain.background.counts.data[use].sum()
    assert signal[use].sum() > 50
    assert norm(reduce({"name": "fov", "subtract": entry})) == pytest.approx(expected, rel=1e-5)


def test_an_observation_that_sees_nothing_of_the_map_is_recorded(reduce) -> None:
    elsewhere = {**RECIPE, "center": {"frame": "icrs", "lon": "200 deg", "lat": "22 deg"}}
    reason = read_failure(reduce(None, recipe=elsewhere))
    assert reason is not None
    assert "1001" in reason
    assert "no overlap" in reason


def test_limits_keep_whole_energy_bins(plain: Dataset) -> None:
    (limited,) = limit_energies([plain], {"cube": ["1.5 TeV", "6 TeV"]})  # edges 1, 1.78, 3.16, 5.62, 10
    assert limited.mask_fit is not None
    assert limited.mask_fit.any(axis=(1, 2)).tolist() == [False, True, True, False]
    assert limit_energies([plain], {"other": ["1.5 TeV", "6 TeV"]}) == [plain]


def test_limits_belong_to_the_reduction_of_a_dataset(reduce) -> None:
    path = reduce(None)
    limits = {"cube": ["1 TeV", "4 TeV"], "cube-1001": ["1 TeV", "2 TeV"]}
    (limited,) = limit_energies(read_fit_datasets([path]), limits)
    assert limited.mask_fit is not None
    assert limited.mask_fit.any(axis=(1, 2)).tolist() == [True, True, False, False]


def test_a_region_limits_the_sky_of_a_fit(reduce) -> None:
    (dataset,) = read_fit_datasets([reduce(None)])
    text = "icrs;circle(83.63, 22.01, 0.5)"
    (limited,) = limit_sky([dataset], {"cube": text})
    near = dataset.counts.sky.separation(SkyCoord(83.63 * u.deg, 22.01 * u.deg)) < np.radians(0.5)
    assert limited.mask_fit is not None
    assert np.array_equal(limited.mask_fit, np.broadcast_to(near, dataset.mask_safe.shape))
    (both,) = limit_energies([limited], {"cube": ["1 TeV", "4 TeV"]})
    assert both.mask.sum() == dataset.mask_safe[:2, near].sum()
    assert limit_sky([dataset], {})[0] is dataset


def test_the_list_tells_counts_and_reasons(reduce, plain: Dataset, tmp_path: Path) -> None:
    rows = [
        {
            "obs_id": n,
            "target": "Crab",
            "telescope": "DEMO",
            "ra": 83.0,
            "dec": 22.0,
            "tstart": 0.0,
            "tstop": 1.0,
        }
        | {"livetime": 1.0, "quality": 0}
        for n in (1001, 1002)
    ]
    group = {
        "data": "sim",
        "entries": rows,
        "failed": {},
        "left_out": {"1002": "not in obs_ids"},
        "reductions": ["cube"],
    }
    inputs = {"datasets": [reduce({"name": "fov", "exclusion": REGION})]}
    provenance = collect_provenance("select_observations", "0", {}, inputs)
    out = tmp_path / "observations.ecsv"
    select_observations.run(
        inputs, {"observations": out}, {"groups": {"runs": group}, "on_error": "stop"}, provenance
    )
    used, left_out = read_observation_table(out)
    assert (used["obs_id"], used["status"], used["reason"]) == (1001, "selected", "")
    assert used["counts"] == plain.counts.data[plain.mask_safe].sum()
    # the dataset's, which is that of the times that were used
    assert used["livetime"] == plain.meta["livetime"]
    assert used["events"] == plain.meta["n_events"] > used["binned"] == plain.counts.data.sum()
    assert used["norm"] == pytest.approx(norm(inputs["datasets"][0]))
    assert (left_out["obs_id"], left_out["status"], left_out["reason"]) == (
        1002,
        "left out",
        "not in obs_ids",
    )
    assert left_out["counts"] is None


def test_stop_lists_failures_and_skip_leaves_them_out(reduce) -> None:
    elsewhere = {**RECIPE, "center": {"frame": "icrs", "lon": "200 deg", "lat": "22 deg"}}
    good, bad = reduce(None), reduce(None, recipe=elsewhere)
    with pytest.raises(InputError, match=r"1 of 2 observations could not be reduced.*\n  cube/1001: "):
        read_fit_datasets([good, bad], "stop")
    with pytest.warns(UserWarning, match="1001 is left out: "):
        assert [dataset.name for dataset in read_fit_datasets([good, bad], "skip")] == ["cube-1001"]


def test_runs_that_give_a_background_are_not_left_out() -> None:
    entry = dict.fromkeys(COLUMNS) | {"obs_id": 7, "livetime": 1.0}
    group = {"data": "sim", "left_out": {}, "failed": {}, "reductions": [], "serves": ["built", "on-off"]}
    row = outcome("empty", group, entry, {}, lambda key: None)  # type: ignore[arg-type, return-value]
    assert (row["status"], row["reason"]) == ("background", "gives the background of built, on-off")
    row = outcome("empty", {**group, "serves": []}, entry, {}, lambda key: None)  # type: ignore[arg-type, return-value]
    assert (row["status"], row["reason"]) == ("left out", "in no reduction")
