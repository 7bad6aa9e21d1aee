"""Tables of counts: by dataset, by energy, cumulative, in a circle of a map, with and without a fit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators import TABLES
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import region_mask
from dl3flow.kernels.statistics import cash_ts, wstat_ts
from dl3flow.models.source import Models

from .test_sensitivity import CIRCLE, spectrum


def table_of(datasets: list[Any], result: Any = None, **more: Any) -> ProductTable:
    estimate, options = TABLES.bind({"name": "counts_table", **more}, "t")
    return estimate(datasets, result, **options)


@pytest.fixture(scope="module")
def runs() -> list[Dataset]:
    """Two spectra, the later one first: 3 bins each with on and off counts, alpha 1/5 and 1/10."""
    first, second = spectrum([50, 10, 5], name="first"), spectrum([20, 10, 0], 10.0, name="second")
    first = replace(first, counts=first.counts.with_data(np.array([30, 8, 1.0])[:, None, None]))
    second = replace(second, counts=second.counts.with_data(np.array([12, 1, 0.0])[:, None, None]))
    gti = second.gti
    later = replace(second, gti=replace(gti, reference=gti.reference + 1 * u.d))
    return [later, first]


def _root(n: float, off: float, alpha: float) -> float:
    ts = wstat_ts(np.array(n), np.array(off), np.array(alpha))
    return float(np.sign(n - alpha * off) * np.sqrt(ts))


def test_rows_of_datasets_in_order_of_time(runs: list[Dataset]) -> None:
    product = table_of(runs)
    table = product.table
    assert list(table["name"]) == ["first", "second"]
    assert table["counts"].tolist() == [39, 13]
    assert table["counts_off"].tolist() == [65, 30]
    assert table["background"].tolist() == [13, 3]
    assert table["excess"].tolist() == [26, 10]
    assert table["alpha"] == pytest.approx([0.2, 0.1])
    assert table["sqrt_ts"] == pytest.approx([_root(39, 65, 0.2), _root(13, 30, 0.1)])
    assert table["livetime"].to_value("s").tolist() == [3600, 3600]
    assert table["excess_rate"].to_value("1/h") == pytest.approx([26, 10])
    assert "npred" not in table.colnames
    facts = dict(product.meta["summary"])
    assert facts["excess"] == 36
    # 16 background counts of 95 off counts
    assert facts["significance (sigma)"] == pytest.approx(_root(52, 95, 16 / 95))


def test_rows_add_up(runs: list[Dataset]) -> None:
    table = table_of(runs, cumulative=True).table
    assert table["counts"].tolist() == [39, 52]
    assert table["background"] == pytest.approx([13, 16])
    assert table["livetime"].to_value("h") == pytest.approx([1, 2])
    assert table["sqrt_ts"][1] == pytest.approx(_root(52, 95, 16 / 95))
    assert table["counts_rate"].to_value("1/h") == pytest.approx([39, 26])


def test_rows_of_energies(runs: list[Dataset]) -> None:
    table = table_of(runs, by="energy").table
    assert table["counts"].tolist() == [42, 9, 1]
    assert table["background"] == pytest.approx([12, 3, 1])
    assert table["e_max"].to_value("TeV") == pytest.approx([10, 100, 1000])
    above = table_of(runs, by="energy", cumulative=True).table
    assert above["counts"].tolist() == [52, 10, 1]
    assert above["e_min"].to_value("TeV") == pytest.approx([1, 10, 100])
    assert above["e_max"].to_value("TeV") == pytest.approx([1000] * 3)
    assert above["sqrt_ts"][1] == pytest.approx(_root(10, 25, 4 / 25))
    some = table_of(runs, by="energy", energy={"min": "10 TeV", "max": "1000 TeV", "nbin": 1})
    assert some.table["counts"].tolist() == [10]
    assert dict(some.meta["summary"])["counts"] == 10


def test_without_off_counts_there_is_no_significance(runs: list[Dataset]) -> None:
    none = runs[1].background
    unmeasured = replace(
        runs[1],
        background=OffCounts(
            none.counts, none.acceptance, none.acceptance_off.with_data(np.zeros((3, 1, 1)))
        ),
    )
    product = table_of([unmeasured])
    assert np.isnan(product.table["sqrt_ts"][0])
    assert np.isnan(product.table["excess"][0])
    assert product.table["counts"][0] == 39
    assert (
        "1 of 1 rows have no background to compare with: they have no significance"
        in product.meta["warnings"]
    )


def test_a_circle_of_a_map_and_its_fit(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    datasets = [small_dataset(f"d{k}", seed=20 + k) for k in range(2)]
    result = fit(datasets, add_backgrounds(datasets, point_models(), ["norm"]))
    inside = region_mask(datasets[0].geom, RegionGeometry(CIRCLE).regions)
    table = table_of(datasets, result, region=CIRCLE).table
    for row, d in zip(table, datasets, strict=True):
        signal, background = predict_counts(d, result.models)
        n, b, s = (v[:, inside].sum() for v in (d.counts.data, background, signal))
        assert row["counts"] == n
        assert row["background"] == pytest.approx(b)
        assert row["npred_signal"] == pytest.approx(s)
        assert row["npred"] == pytest.approx(s + b)
        assert row["sqrt_ts"] == pytest.approx(np.sqrt(cash_ts(n, b)))
        assert "alpha" not in table.colnames
    whole = table_of(datasets).table
    assert whole["counts"].tolist() == [d.counts.data.sum() for d in datasets]
    assert whole["background"] == pytest.approx([d.mu_bkg.sum() for d in datasets])


def test_rings_of_a_circle_share_their_events(small_dataset: Callable[..., Dataset]) -> None:
    """20 off counts around each pixel at alpha 1/10 are 20 for all pixels together, not 20 times their number."""
    data = small_dataset()
    ones = data.counts.with_data(np.ones(data.counts.data.shape))
    off = OffCounts(ones.with_data(20 * ones.data), ones, ones.with_data(10 * ones.data))
    ringed = replace(data, background=off)
    inside = region_mask(data.geom, RegionGeometry(CIRCLE).regions)
    n, n_pixels = data.counts.data[:, inside].sum(axis=1), int(inside.sum())
    bands = {"by": "energy", "region": CIRCLE}
    table = table_of([ringed], **bands).table
    assert table["counts_off"] == pytest.approx([20] * 3)
    assert table["alpha"] == pytest.approx([n_pixels / 10] * 3)
    assert table["sqrt_ts"] == pytest.approx([_root(k, 20, n_pixels / 10) for k in n])
    summed = table_of([ringed], **bands, correlate_off=True).table
    assert summed["counts_off"].tolist() == [20 * n_pixels] * 3
    assert summed["alpha"] == pytest.approx([0.1] * 3)
    assert summed["background"].tolist() == pytest.approx(table["background"].tolist())


def test_energies_in_no_row_are_told(runs: list[Dataset]) -> None:
    known = spectrum([50, 10, 5], name="wide")
    axis = Axis("energy", known.energy.edges[:3], "log")

    def cut(of: Map) -> Map:
        return Map(of.geom, (axis,), of.data[:2], of.unit)

    off = known.background
    assert isinstance(off, OffCounts)
    narrow = replace(
        known,
        name="narrow",
        counts=cut(known.counts),
        background=OffCounts(cut(off.counts), cut(off.acceptance), cut(off.acceptance_off)),
        edisp=None,
        mask_safe=known.mask_safe[:2],
    )
    product = table_of([narrow, replace(known, gti=runs[0].gti)], by="energy")
    assert len(product.table) == 2
    assert "beyond all are in no band, of wide (1)" in product.meta["warnings"][0]


def test_what_cannot_be_is_told(runs: list[Dataset], small_dataset: Callable[..., Dataset]) -> None:
    with pytest.raises(InputError, match="some datasets have a known background and some a measured one"):
        table_of([runs[0], small_dataset("d")])
    with pytest.raises(InputError, match="is a point, which holds no pixel"):
        table_of([small_dataset("d")], region="icrs;point(83.63, 22.01)")
    with pytest.raises(InputError, match="there are no counts"):
        table_of([])
