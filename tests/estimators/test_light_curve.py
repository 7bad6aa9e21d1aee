"""Light curves: bins of several datasets, energy bands, variability and Bayesian blocks of synthetic data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import LightCurve
from dl3flow.data.slices import Band, Slice, failed_slice
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.estimators.light_curve import join_light_curve
from dl3flow.estimators.variability import _with_error
from dl3flow.geometry.axis import Axis
from dl3flow.io.products import read_light_curve, write_table
from dl3flow.io.provenance import collect_provenance
from dl3flow.kernels.norm import ExpectedBins, MeasuredBins
from dl3flow.models.source import Component, Models, Parameter

PROVENANCE = collect_provenance("test", "0", {}, {})


@pytest.fixture(scope="module")
def datasets(small_dataset: Callable[..., Dataset]) -> list[Dataset]:
    """Four runs on the days 60070, 60071, 60071 + 1 h and 60073."""
    runs = [small_dataset(f"d{k}", seed=70 + k) for k in range(4)]
    later = replace(runs[2].gti, reference=runs[1].gti.reference + 1 * u.h)
    return [runs[0], runs[1], replace(runs[2], gti=later), runs[3]]


@pytest.fixture(scope="module")
def models(point_models: Callable[..., Models]) -> Models:
    return point_models()


def make(datasets: list[Dataset], models: Models, **options: Any) -> LightCurve:
    plugin, bound = TABLES.bind({"name": "light_curve", "source": "s", **options}, "curve")
    return plugin(datasets, SimpleNamespace(models=models), **bound)


def poisson_slices(counts: list[int], expected: float = 1.0, off: int | None = None) -> list[Slice]:
    """One bin of time a day, with so many counts where ``expected`` are of strength one."""
    found = []
    for k, n in enumerate(counts):
        n_, s = np.array([float(n)]), np.array([expected])
        bins = (
            ExpectedBins(n_, s, np.array([1e-9]))
            if off is None
            else MeasuredBins(n_, s, np.zeros(1), np.array([float(off)]), np.array([0.1]))
        )
        band = Band([1, 10] * u.TeV, (bins,), 2.0, 2.0, 0.5)
        found.append(Slice(f"b{k}", 60000.0 + k, 60000.5 + k, (band,), (f"d{k}",), 100 * u.s))
    return found


def test_runs_of_a_night_are_fitted_jointly(datasets: list[Dataset], models: Models) -> None:
    runs, nights = make(datasets, models), make(datasets, models, time="night")
    assert len(runs.table) == 4
    assert list(nights.table["dataset"]) == ["d0", "d1, d2", "d3"]
    assert nights.table["counts"][1] == runs.table["counts"][1] + runs.table["counts"][2]
    assert nights.table["time_min"][1] == runs.table["time_min"][1]
    assert nights.table["time_max"][1] == runs.table["time_max"][2]
    # of two measurements of one strength
    expected = (runs.table["norm_err"][1] ** -2 + runs.table["norm_err"][2] ** -2) ** -0.5
    assert nights.table["norm_err"][1] == pytest.approx(expected, rel=0.02)


def part(dataset: Dataset, energy: slice) -> Dataset:
    """Some energy bins of a dataset."""
    axis = dataset.energy.part(energy.start, energy.stop)
    assert isinstance(dataset.background, ExpectedCounts)
    assert dataset.edisp is not None
    known, edisp = dataset.background.counts, dataset.edisp.edisp
    return replace(
        dataset,
        counts=Map(known.geom, (axis,), dataset.counts.data[energy]),
        background=ExpectedCounts(Map(known.geom, (axis,), known.data[energy])),
        edisp=replace(dataset.edisp, edisp=Map(edisp.geom, (edisp.axes[0], axis), edisp.data[:, energy])),
        mask_safe=dataset.mask_safe[energy],
    )


def test_energies_of_all_datasets_of_a_bin_count(datasets: list[Dataset], models: Models) -> None:
    both = [part(datasets[1], slice(1, 3)), datasets[2]]
    for order in (both, both[::-1]):
        curve = make(order, models, time="night")
        assert curve.table["counts"].tolist() == [sum(d.counts.data.sum() for d in both)]
        assert curve.table["e_min"].to_value("TeV") == pytest.approx([1.0])
        assert curve.table["e_max"].to_value("TeV") == pytest.approx([10.0])
    coarse = part(datasets[2], slice(0, 3))
    axis = Axis("energy", coarse.energy.edges[[0, 1, 3]], "log")
    assert isinstance(coarse.background, ExpectedCounts)
    assert coarse.edisp is not None
    known, edisp = coarse.background.counts, coarse.edisp.edisp
    coarse = replace(
        coarse,
        counts=Map(known.geom, (axis,), np.add.reduceat(coarse.counts.data, [0, 1])),
        background=ExpectedCounts(Map(known.geom, (axis,), np.add.reduceat(known.data, [0, 1]))),
        edisp=replace(
            coarse.edisp,
            edisp=Map(edisp.geom, (edisp.axes[0], axis), np.add.reduceat(edisp.data, [0, 1], axis=1)),
        ),
        mask_safe=coarse.mask_safe[:2],
    )
    bands = make(
        [datasets[1], coarse], models, time="night", energy={"min": "1 TeV", "max": "10 TeV", "nbin": 3}
    )
    assert bands.table["counts"].tolist() == [
        datasets[1].counts.data[0].sum() + coarse.counts.data[0].sum(),
        *datasets[1].counts.data[1:].sum(axis=(1, 2)),
    ]
    assert any("across an edge are in no band, of d2 (1)" in told for told in bands.meta["warnings"])


def test_a_temporal_model_does_not_change_the_fluxes(datasets: list[Dataset], models: Models) -> None:
    decay = (Parameter("t0", 0.5, u.d), Parameter("t_ref", 60071.0, u.d, frozen=True))
    changing = Models((replace(models.sources[0], temporal=Component("exp_decay", decay)),))
    steady = make(datasets, models).table
    found = make(datasets, changing).table
    assert found["norm"].tolist() == steady["norm"].tolist()
    assert (found["ref_flux"] == steady["ref_flux"]).all()


def test_bins_that_do_not_see_the_source_say_so(datasets: list[Dataset], models: Models) -> None:
    mask = np.zeros_like(datasets[1].mask_safe)
    dark = [replace(datasets[1], mask_safe=mask), datasets[3]]
    curve = make(dark, models)
    assert curve.table["success"].tolist() == [False, True]
    assert "bin d1: no data see the source, so there is no flux" in curve.meta["warnings"]
    unseen = make(dark[:1], models, blocks=0.05, rows="blocks")
    assert unseen.table["success"].tolist() == [False]
    assert unseen.meta["blocks"] == []
    assert any("so there are no Bayesian blocks" in told for told in unseen.meta["warnings"])
    mask = datasets[1].mask_safe.copy()
    mask[0] = False
    dim = make(
        [replace(datasets[1], mask_safe=mask), datasets[3]],
        models,
        energy={"min": "1 TeV", "max": "10 TeV", "nbin": 3},
    )
    told = "bin d1: no data see the source in some energy bands, so there is no flux"
    assert told in dim.meta["warnings"]
    assert dim.table["success"].tolist() == [False, *[True] * 5]


def test_bins_of_a_width_hold_what_lies_whole_within(datasets: list[Dataset], models: Models) -> None:
    curve = make(datasets, models, time={"width": "1 d", "start": "MJD 59999.999"})
    assert list(curve.table["dataset"]) == ["d0", "d1, d2", "d3"]
    assert (curve.table["time_max"] - curve.table["time_min"]).to_value("d") == pytest.approx([1, 1, 1])
    days = [Time(day, format="mjd", scale="tt").utc.isot for day in (60069.9, 60070.9, 60071.005, 60072.5)]
    part = make(datasets, models, time={"intervals": [days[:2], days[1:3], days[2:]]})
    # the second run reaches beyond the second interval, the third lies in the third, the last in none
    assert list(part.table["dataset"]) == ["d0", "d2"]
    assert "no bin holds the times of d1, d3" in part.meta["warnings"][0]


def test_bins_that_no_dataset_fits_into_are_an_error(datasets: list[Dataset], models: Models) -> None:
    with pytest.raises(InputError, match="no bin of `time` holds the good times of a dataset"):
        make(datasets, models, time={"width": "10 min"})


def test_bands_of_energy_are_rows_and_the_file_has_the_field_s_axes(
    datasets: list[Dataset], models: Models, tmp_path: Path
) -> None:
    edges = {"min": "1 TeV", "max": "10 TeV", "nbin": 3}
    curve = make(datasets[:2], models, energy=edges, blocks=0.05)
    table = curve.table
    assert len(table) == 6
    assert table["e_min"].to_value("TeV")[:3] == pytest.approx(10 ** (np.arange(3) / 3))
    for k in range(3):
        one = make(datasets[:2], models, energy={"edges": [f"{10 ** (n / 3)} TeV" for n in (k, k + 1)]}).table
        assert table["norm"][k::3] == pytest.approx(one["norm"])
        assert table["counts"][k::3].tolist() == one["counts"].tolist()
    for suffix in ("ecsv", "fits"):
        path = tmp_path / f"lc.{suffix}"
        write_table(path, curve, PROVENANCE)
        back = read_light_curve(path)
        assert back.meta["n_bands"] == 3
        for name in table.colnames:
            assert np.array_equal(np.asarray(back.table[name]), np.asarray(table[name])), name


def test_a_constant_source_is_one_block_and_does_not_vary(datasets: list[Dataset], models: Models) -> None:
    curve = make(datasets, models, blocks=0.05)
    (measure,) = curve.meta["variability"]
    assert measure["n_bins"] == 4
    assert measure["p_constant"] > 0.01
    assert measure["ts_constant"] == pytest.approx(measure["chi2"], rel=0.1)
    (block,) = curve.meta["blocks"]
    assert block["flux"] == pytest.approx(measure["mean_flux"], rel=0.02)
    assert curve.table["block"].tolist() == [0, 0, 0, 0]
    assert dict(curve.meta["summary"])["Bayesian blocks"] == "1 (p0 0.05)"


def test_a_flare_of_few_counts_is_a_block(models: Models) -> None:
    counts = [1, 0, 2, 0, 1, 9, 12, 8, 0, 1]
    slices = poisson_slices(counts)
    curve = join_light_curve(slices, models, source="s", blocks=0.05)
    assert curve.table["block"].tolist() == [0] * 5 + [1] * 3 + [2] * 2
    # the strength of a block is the mean of its counts
    reference = curve.table["ref_flux"][0].to_value("cm-2 s-1")
    assert [b["flux"] / reference for b in curve.meta["blocks"]] == pytest.approx(
        [0.8, 29 / 3, 0.5], rel=1e-6
    )
    rows = join_light_curve(slices, models, source="s", blocks=0.05, rows="blocks")
    assert rows.table["norm"] == pytest.approx([0.8, 29 / 3, 0.5], rel=1e-6)
    assert rows.table["time_max"].to_value("d").tolist() == [60004.5, 60007.5, 60009.5]
    # counts, and those of bins without signal
    assert rows.table["counts"].tolist() == [4 + 10, 29 + 6, 1 + 4]
    with pytest.raises(InputError, match="rows of blocks need `blocks`"):
        join_light_curve(slices, models, source="s", rows="blocks")


def test_the_likelihood_of_a_constant_by_hand(models: Models) -> None:
    (measure,) = join_light_curve(poisson_slices([4, 10]), models, source="s").meta["variability"]
    # 2 (sum n ln n - N ln (N / 2)) with the background left out
    expected = 2 * (4 * np.log(4) + 10 * np.log(10) - 14 * np.log(7))
    assert measure["ts_constant"] == pytest.approx(expected, rel=1e-6)
    assert measure["halving_time"] is not None
    assert measure["doubling_time"] == pytest.approx(np.log(2) / np.log(2.5), rel=1e-6)


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [(325.4, 196.2, "330 ± 200"), (0.3216, 0.291, "0.32 ± 0.29"), (1.7, 0.0, "1.7 ± 0")],
)
def test_a_value_has_no_more_digits_than_its_error(value: float, error: float, told: str) -> None:
    assert _with_error(value, error) == told


def test_no_counts_at_all_are_limits(models: Models) -> None:
    for off in (None, 0):
        curve = join_light_curve(poisson_slices([0, 0, 0], 2.0, off), models, source="s", blocks=0.05)
        assert curve.table["is_ul"].all()
        # 2 c s = 4
        assert curve.table["norm_ul"] == pytest.approx([1.0] * 3, rel=1e-6)
        assert len(curve.meta["blocks"]) == 1


def test_failed_bins_are_rows_that_say_why(models: Models) -> None:
    slices = [
        *poisson_slices([5, 6]),
        failed_slice("bad", 59990.0, 59991.0, "no good time"),
        failed_slice("timeless", None, None, "nothing was read"),
    ]
    curve = join_light_curve(slices, models, source="s", blocks=0.05)
    assert curve.table["success"].tolist() == [False, True, True]
    assert curve.table["block"].tolist() == [-1, 0, 0]
    assert "the bin bad has no result: no good time" in curve.meta["warnings"]
    # without times it is named, and has no row
    assert "the bin timeless has no result: nothing was read" in curve.meta["warnings"]
    assert curve.meta["variability"][0]["n_bins"] == 2
    with pytest.raises(InputError, match=r"none of the 2 bins has a result, such as bad: no good time"):
        join_light_curve(slices[2:], models, source="s")
