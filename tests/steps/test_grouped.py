"""Groups of observations as the steps of a fit read them: stacked in a fixed order, limited, and told when they are empty."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.io.hdf5 import write_dataset, write_failure
from dl3flow.io.provenance import Provenance, collect_provenance
from dl3flow.steps.reading.datasets import read_datasets

RECIPE = {
    "name": "cube",
    "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
    "width": "2 deg",
    "binsz": "0.05 deg",
    "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 3},
    "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 5},
    "binsz_irf": "0.5 deg",
}


@pytest.fixture
def provenance() -> Provenance:
    return collect_provenance("reduce_observation", "0", {}, {})


@pytest.fixture
def files(tmp_path: Path, small_dataset: Callable[..., Dataset], provenance: Provenance) -> list[Path]:
    """Three reduced observations and one that failed, of the reduction ``cube``; one of another reduction."""
    paths = [tmp_path / "cube" / f"{n}.h5" for n in (1, 2, 3, 4)]
    for path in paths[:3]:
        write_dataset(path, small_dataset(f"cube-{path.stem}", seed=int(path.stem)), provenance)
    write_failure(paths[3], "cube-4", 4, "it rained", provenance)
    other = tmp_path / "other" / "1.h5"
    write_dataset(other, small_dataset("other-1", seed=1), provenance)
    return [*paths, other]


def options(runs: dict | None, **more: Any) -> dict[str, Any]:
    """Options of a step for one grouped reduction."""
    by = {"name": "responses", "n_groups": 1, "energy_true": "2 TeV"}
    return {"energy": {}, "groups": {"cube": {"by": by, "runs": runs, "recipe": RECIPE}}, **more}


@pytest.mark.filterwarnings("ignore:.*it rained")
def test_groups_are_stacked_and_the_rest_is_as_it_was(
    files: list[Path], small_dataset: Callable[..., Dataset]
) -> None:
    asked = options({"a": [1, 3], "b": [2]}, energy={"cube": ["2 TeV", "10 TeV"]})
    found = read_datasets({"datasets": files}, asked)
    assert [d.name for d in found] == ["cube-a", "cube-b", "other-1"]
    assert [d.meta["obs_ids"] for d in found] == [[1, 3], [2], [1]]
    one, three = (small_dataset(seed=n) for n in (1, 3))
    np.testing.assert_array_equal(found[0].counts.data, one.counts.data + three.counts.data)
    # the reduction's limits hold for its groups alone: the first of three bins ends at 2.15 TeV
    assert [d.mask.any(axis=(1, 2)).tolist() for d in found] == [[False, True, True]] * 2 + [[True] * 3]


@pytest.mark.filterwarnings("ignore:.*it rained")
def test_a_group_without_runs_is_told(files: list[Path]) -> None:
    with pytest.warns(UserWarning, match="the group cube-b is left out: none of its runs could be reduced"):
        found = read_datasets({"datasets": files}, options({"a": [1, 2, 3], "b": [4]}))
    assert [d.name for d in found] == ["cube-a", "other-1"]
    with pytest.raises(InputError, match="cube/4: it rained"):
        read_datasets({"datasets": files}, options({"a": [1, 2, 3], "b": [4]}, on_error="stop"))


def test_groups_by_response_are_found_from_the_files(files: list[Path]) -> None:
    found = read_datasets({"datasets": files[:3]}, options(None))
    assert [(d.name, d.meta["obs_ids"]) for d in found] == [("cube-responses-0", [1, 2, 3])]
