"""Groups by index: each way by numbers that can be checked by hand, and no observation is dropped without a word."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.data.index import ObservationEntry
from dl3flow.errors import InputError
from dl3flow.io.gadf_index import read_index
from dl3flow.reduce.groupings import GROUPINGS, dataset_features, group_datasets, group_entries

# MJD 60000 is 2023-02-25; a run of half an hour that begins there
RUN = ObservationEntry(
    1,
    "Crab",
    83.63,
    22.01,
    0.0,
    1800.0,
    60000.0,
    "tt",
    1700.0,
    0,
    "T-1",
    {},
    None,
    20.0,
    0.0,
    {"EFF": 0.5, "SITE": "a b"},
)


def runs(**changes: list) -> list[ObservationEntry]:
    """Runs numbered from 1, with one value of each attribute each."""
    n = len(next(iter(changes.values())))
    return [
        replace(RUN, obs_id=k + 1, **{key: values[k] for key, values in changes.items()}) for k in range(n)
    ]


@pytest.mark.parametrize(
    ("grouping", "entries", "expected"),
    [
        (
            {"name": "zenith", "edges": ["0 deg", "30 deg", "60 deg"]},
            runs(zenith=[45.0, 0.0, 29.9, 30.0, 60.0]),
            {"zenith-30-60": [1, 4, 5], "zenith-0-30": [2, 3]},
        ),
        (
            {"name": "epoch", "edges": ["MJD 59999", "2023-02-26", "MJD 60010"]},
            runs(reference=[60000.0, 60005.0]),
            # 37 leap seconds and 32.184 s lie between UTC and TT
            {"epoch-59999.001-60001.001": [1], "epoch-60001.001-60010.001": [2]},
        ),
        (
            {"name": "night"},
            # the last two lie 8 h east, where noon comes a third of a day earlier
            runs(
                reference=[60000.45, 60000.55, 60001.45, 60000.1, 60000.2],
                location=[None, None, (0.0, 0.0, 0.0), (120.0, 0.0, 0.0), (120.0, 0.0, 0.0)],
            ),
            {"night-2023-02-24": [1, 4], "night-2023-02-25": [2, 3, 5]},
        ),
        (
            {"name": "instrument"},
            runs(telescope=["H.E.S.S.", "FACT", "FACT"]),
            {"H_E_S_S_": [1], "FACT": [2, 3]},
        ),
        (
            {"name": "column", "column": "EFF", "edges": [0, 0.5, 1]},
            runs(columns=[{"EFF": 0.5}, {"EFF": 0.25}]),
            {"EFF-0.5-1": [1], "EFF-0-0.5": [2]},
        ),
        ({"name": "column", "column": "SITE"}, runs(columns=[{"SITE": "a b"}] * 2), {"SITE-a_b": [1, 2]}),
    ],
)
def test_groups(grouping: dict, entries: list, expected: dict) -> None:
    assert group_entries(grouping, entries, "mode") == expected


@pytest.mark.parametrize(
    ("grouping", "entries", "told"),
    [
        (
            {"name": "zenith", "edges": ["0 deg", "30 deg"]},
            runs(zenith=[None, 10.0, 40.0]),
            r"\(1: the index states no zenith distance; 3: the zenith distance 40 lies outside the edges, which run from 0 to 30\)",
        ),
        (
            {"name": "epoch", "edges": ["MJD 50000", "MJD 51000"]},
            runs(reference=[None]),
            "1: the index states no reference time",
        ),
        (
            {"name": "epoch", "edges": ["MJD 50000", "MJD 51000"]},
            runs(reference=[60000.0]),
            "MJD 60000 lies outside",
        ),
        ({"name": "instrument"}, runs(telescope=["", "T"]), r"\(1: the index names no telescope\)"),
        (
            {"name": "column", "column": "EF"},
            runs(zenith=[1.0]),
            "the index has no column 'EF': did you mean 'EFF'",
        ),
        (
            {"name": "column", "column": "SITE", "edges": [0, 1]},
            runs(zenith=[1.0]),
            "its SITE is 'a b', no number",
        ),
        (
            {"name": "column", "column": "EFF", "edges": [0, 1]},
            runs(columns=[{"EFF": np.nan}]),
            "its EFF is nan, no number",
        ),
    ],
)
def test_an_observation_of_no_group_is_named_with_the_reason(
    grouping: dict, entries: list, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        group_entries(grouping, entries, "mode")


def test_public_runs_are_grouped_by_any_column_of_their_index(hess_dl3: Path) -> None:
    entries = [e for e in read_index(hess_dl3) if e.obs_id in (23523, 23526, 23559, 23592)]
    groups = group_entries({"name": "column", "column": "N_TELS"}, entries, "mode")
    assert groups == {"N_TELS-4": [23523, 23526, 23559, 23592]}
    by_zenith = group_entries({"name": "zenith", "edges": ["45 deg", "47 deg", "60 deg"]}, entries, "mode")
    assert by_zenith is not None
    zenith = {e.obs_id: e.zenith for e in entries}
    for label, ids in by_zenith.items():
        low, high = (float(v) for v in label.split("-")[1:])
        assert all(low <= zenith[k] < high for k in ids)
    assert sum(map(len, by_zenith.values())) == 4


def test_groups_of_datasets_by_their_responses(small_dataset: Callable[..., Dataset]) -> None:
    def with_area(obs_id: int, factor: float) -> Dataset:
        one = small_dataset(seed=obs_id)
        return replace(one, exposure=one.exposure.with_data(one.exposure.data * factor))

    datasets = [with_area(n, factor) for n, factor in enumerate([1.0, 3.0, 1.01, 2.98])]
    grouping = {"name": "responses", "n_groups": 2, "energy_true": "2 TeV"}
    assert group_entries(grouping, [], "mode") is None
    assert group_datasets(grouping, iter(datasets)) == {"responses-0": [0, 2], "responses-1": [1, 3]}
    assert group_datasets({"name": "responses", "n_groups": 1}, datasets) == {"responses-0": [0, 1, 2, 3]}


def test_features_of_a_dataset(small_dataset: Callable[..., Dataset]) -> None:
    dataset = small_dataset()
    found = dataset_features(dataset, 2 * dataset.energy_true.unit)
    n = 2  # of the bins 0.5, 1.05, 2.19 ... the one that holds 2 TeV is the second
    n = int(dataset.energy_true.index(np.array([2.0]) * dataset.energy_true.unit)[0])
    area = dataset.exposure.data[n].max() / 950.0
    assert found["log_area"] == pytest.approx(np.log10(area))
    kernel = dataset.edisp.edisp.data[n, :, 0, 0]
    ratio = dataset.energy.centers.value / dataset.energy_true.centers.value[n]
    assert found["bias"] == pytest.approx(kernel @ ratio / kernel.sum() - 1)
    # a Gaussian of 0.08 deg holds 68 % within 1.5096 sigma
    assert found["psf_radius"] == pytest.approx(0.12077, rel=1e-2)
    with pytest.raises(InputError, match="50 TeV is no true energy"):
        dataset_features(dataset, 50 * dataset.energy_true.unit)


def test_every_grouping_says_what_it_is() -> None:
    assert GROUPINGS.names() == ["column", "epoch", "instrument", "night", "responses", "zenith"]
