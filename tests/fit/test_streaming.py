"""A fit over data that do not fit in memory: read one at a time, compact forms on a disk, the same bits."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.lazy import LazyDatasets
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.settings import FitSettings
from dl3flow.io.term_store import open_store
from dl3flow.models.source import Models

MakeDataset = Callable[..., Dataset]
MakeModels = Callable[..., Models]


@pytest.fixture
def datasets(small_dataset: MakeDataset) -> list[Dataset]:
    return [small_dataset(f"d{k}", seed=k, part="half" if k == 1 else "whole") for k in range(3)]


def test_streamed_and_threaded_fits_have_the_same_bits(
    datasets: list[Dataset], point_models: MakeModels, tmp_path: Path
) -> None:
    models = add_backgrounds(datasets, point_models(), ["norm", "tilt"])
    plain = fit(datasets, models)
    assert plain.success, plain.message
    read: Counter[int] = Counter()

    def reader(k: int) -> Callable[[], Dataset]:
        def one() -> Dataset:
            read[k] += 1
            return datasets[k]

        return one

    lazy = LazyDatasets([reader(k) for k in range(3)])
    with open_store(tmp_path) as store:
        streamed = fit(lazy, models, FitSettings(store=store))
    threaded = fit(datasets, models, FitSettings(n_threads=3))
    for other in (streamed, threaded):
        assert other.stat == plain.stat
        assert np.array_equal(other.covariance, plain.covariance)
        assert [p.value for p in other.models.parameters().values()] == [
            p.value for p in plain.models.parameters().values()
        ]
        assert [d.stat for d in other.datasets] == [d.stat for d in plain.datasets]
    # the outline, the search for the position, the terms of two or three rounds, the summary; not once per evaluation
    assert max(read.values()) <= 8 < plain.minimiser["n_evaluations"] * 2
    assert not list(tmp_path.iterdir())


def test_single_precision_moves_nothing_that_counts(
    datasets: list[Dataset], point_models: MakeModels
) -> None:
    models = add_backgrounds(datasets, point_models(), ["norm", "tilt"])
    double, single = (fit(datasets, models, FitSettings(precision=p)) for p in ("float64", "float32"))
    assert single.success, single.message
    for name in double.free:
        one, other = double.parameter(name), single.parameter(name)
        assert other.value == pytest.approx(one.value, abs=1e-3 * one.error)
        assert other.error == pytest.approx(one.error, rel=1e-3)
