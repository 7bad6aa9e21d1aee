"""The steps of estimators of maps: from a stack's file to a product that is read again, with and without a fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import ProductTable
from dl3flow.fit.minimise import fit
from dl3flow.io.fits_datasets import write_fits_dataset
from dl3flow.io.inspection import inspect_file
from dl3flow.io.products import read_table, write_fit
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.skymaps import read_sky_map
from dl3flow.models.source import Models
from dl3flow.report.tables import in_words, product_table
from dl3flow.steps import estimate_map, estimate_table

PROVENANCE = collect_provenance("estimate", "0", {}, {})
CENTER = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}
BANDS = {"min": "1 TeV", "max": "10 TeV", "nbin": 3}
PROFILE = {"name": "flux_profile", "center": CENTER, "length": "3 deg", "n_bins": 5, "energy": BANDS}


@pytest.fixture(scope="module")
def files(
    small_dataset: Callable[..., Dataset],
    point_models: Callable[..., Models],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[Path]]:
    """A stack and a fit to it."""
    folder = tmp_path_factory.mktemp("products")
    dataset = small_dataset()
    write_fits_dataset(folder / "cube/stacked.fits", dataset, PROVENANCE)
    write_fit(folder / "fit.json", fit([dataset], point_models()), PROVENANCE)
    return {"datasets": [folder / "cube/stacked.fits"], "fit": [folder / "fit.json"]}


def run(
    step: Any, files: dict[str, list[Path]], entry: dict[str, Any], output: str, path: Path, *, has_fit: bool
) -> None:
    inputs = {
        **files,
        "fit": files["fit"] if has_fit else [],
        "external": [],
        "plugins": [],
        "model_files": [],
    }
    options = {"estimator": entry, "energy": {}, "region": {}, "inputs": {}, "groups": {}}
    step.run(inputs, {output: path}, options, PROVENANCE)


@pytest.mark.parametrize("has_fit", [False, True])
@pytest.mark.parametrize("name", ["excess_map", "combined_significance"])
def test_maps(name: str, has_fit: bool, files: dict[str, list[Path]], tmp_path: Path) -> None:
    entry = {"name": name, "correlation_radius": "0.15 deg", "energy": BANDS}
    entry |= {"limits": True} if name == "excess_map" else {}
    entry |= {"subtract": ["s"]} if has_fit else {}
    path = tmp_path / "sky.fits"
    run(estimate_map, files, entry, "map", path, has_fit=has_fit)
    sky = read_sky_map(path)
    # the source is subtracted, or not
    assert (sky.maps["sqrt_ts"].data.max() > 15) is not has_fit
    assert sky.meta["subtracted"] == (["s"] if has_fit else [])
    if name == "excess_map":
        assert sky.maps["band_flux_ul"].data.shape == (3, 40, 40)
        assert sky.maps["band_flux_ul"].axis("energy").n_bins == 3
        assert sky.maps["flux"].unit == "cm-2 s-1"
        assert set(sky.meta["significance"]["fit"]) >= {"mean", "mean_err", "width", "width_err"}
    assert inspect_file(path)


@pytest.mark.parametrize(
    ("entry", "has_fit", "n_rows"),
    [
        (PROFILE, False, 15),
        ({**PROFILE, "subtract": ["s"]}, True, 15),
        ({"name": "find_sources", "correlation_radius": "0.15 deg"}, False, 1),
        ({"name": "find_sources", "correlation_radius": "0.15 deg"}, True, 0),
        ({"name": "extension", "source": "s", "n_points": 3}, True, 3),
    ],
)
def test_tables(
    entry: dict[str, Any], has_fit: bool, n_rows: int, files: dict[str, list[Path]], tmp_path: Path
) -> None:
    path = tmp_path / "table.ecsv"
    run(estimate_table, files, entry, "table", path, has_fit=has_fit)
    product = read_table(path)
    assert isinstance(product, ProductTable)
    assert product.kind == entry["name"]
    assert len(product.table) == n_rows
    assert all(isinstance(sentence, str) for sentence in product.meta["warnings"])
    # told in the report, whatever is not a number
    shown = product_table("name", product)
    assert len(shown.rows) == n_rows
    for label, value in product.meta["summary"]:
        assert label in in_words(product)
        assert value is None or isinstance(value, str) or np.isfinite(value)
    assert inspect_file(path)
