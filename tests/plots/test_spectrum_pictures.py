"""Facts about the picture of a spectrum dataset and about why bins are left out."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from matplotlib.patches import Circle

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.plots import style
from dl3flow.plots.spectrum import dropped_share

from .boxes import overlaps, text_outside
from .test_pictures import draw, labels

REGION = RegionGeometry("icrs;circle(83.63, 22.01, 0.1)")
OFF = "icrs;circle(84.17,22.51,0.1);circle(83.63,23.01,0.1);circle(83.09,22.51,0.1)"


def make_spectrum(n_energy: int = 5, *, off: bool = True) -> Dataset:
    """Falling counts on a background of a quarter, measured in three regions; the lowest bin is not safe."""
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, n_energy)
    true = Axis.from_bounds("energy_true", 0.3 * u.TeV, 30 * u.TeV, n_energy + 4)
    counts = np.round(200 * energy.centers.value**-1.5)[:, None, None]

    def on(values: np.ndarray) -> Map:
        return Map(REGION, (energy,), np.broadcast_to(values, counts.shape).astype(float))

    exposure = Map(REGION, (true,), 1e9 * np.ones((true.n_bins, 1, 1)), u.Unit("m2 s"))
    kernel = np.full((true.n_bins, n_energy, 1, 1), 1 / n_energy)
    safe = np.ones(counts.shape, dtype=bool)
    safe[0] = n_energy == 1
    background: ExpectedCounts | OffCounts = ExpectedCounts(on(counts / 4))
    meta = {"obs_ids": [1], "livetime": 1800.0, "ontime": 1900.0, "pointing": [83.63, 22.51]}
    if off:
        background = OffCounts(on(np.round(0.75 * counts)), on(np.ones(1)), on(np.full(1, 3.0)))
        meta["background"] = {"method": "reflected", "n_regions": 3, "regions": OFF}
    bits = np.where(safe, 0, 6).astype(np.uint8)
    bits[-1] |= 4
    return Dataset(
        "spectrum",
        on(counts),
        background,
        exposure,
        None,
        EdispMap(Map(REGION, (true, energy), kernel), exposure),
        safe,
        None,
        Gti([0] * u.s, [1900] * u.s, Time(53343.9, format="mjd", scale="tt")),
        meta,
        MaskReasons(("no response", "aeff_max", "edisp_bias"), bits),
    )


@pytest.mark.parametrize("n", [1, 5, 40])
@pytest.mark.parametrize("off", [True, False])
def test_no_text_covers_another_or_leaves_the_page(n, off):
    for product in (make_spectrum(n, off=off), replace(make_spectrum(n, off=off), reasons=None)):
        figure = draw("dataset", product)
        style.name_analysis(figure, "demo")
        assert overlaps(figure) == []
        assert text_outside(figure) == []


def test_numbers_are_of_the_safe_bins():
    product = make_spectrum()
    figure = draw("dataset", product)
    counts, off = product.counts.data[1:].sum(), product.background.counts.data[1:].sum()
    assert f"events: {counts:.0f}" in labels(figure)
    assert f"background: {off / 3:.1f} from {off:.0f} off" in labels(figure)
    axes = figure.axes[0]
    # the background's bars are alpha times the square root of the off counts
    bars = axes.containers[1].lines[2][1].get_segments()
    half = (bars[1][1][1] - bars[1][0][1]) / 2
    assert half == pytest.approx(np.sqrt(product.background.counts.data[1, 0, 0]) / 3)
    assert sum(patch.get_gid() == "not safe" for patch in axes.patches) == 1
    assert "livetime 0.5 h" in figure.get_suptitle()
    expected = draw("dataset", make_spectrum(off=False))
    assert f"background: {counts / 4:.1f}" in labels(expected)


def test_off_regions_are_drawn_on_the_sky():
    figure = draw("dataset", make_spectrum())
    sketch = next(a for a in figure.axes if hasattr(a, "coords"))
    circles = [patch for patch in sketch.patches if isinstance(patch, Circle)]
    assert len(circles) == 4
    assert {"on", "off (3)", "pointing"} <= set(labels(figure))
    (ra, dec), *_ = (sketch.wcs.all_pix2world([circle.center], 0)[0] for circle in circles)
    assert [ra, dec] == pytest.approx([83.63, 22.01], abs=1e-3)
    assert not [a for a in draw("dataset", make_spectrum(off=False)).axes if hasattr(a, "coords")]


def test_points_are_drawn_without_an_area():
    product = make_spectrum()
    points = OFF.replace("circle", "point").replace(",0.1)", ")")
    meta = {**product.meta, "background": {"method": "wobble", "regions": points}}
    figure = draw("dataset", replace(product, meta=meta))
    sketch = next(a for a in figure.axes if hasattr(a, "coords"))
    assert len(sketch.lines) == 3 + 1


def test_reasons_are_shares_of_the_bins():
    product = make_spectrum()
    shares = dropped_share(product)
    assert list(shares) == ["aeff_max", "edisp_bias"]
    assert shares["aeff_max"].tolist() == [1, 0, 0, 0, 0]
    assert shares["edisp_bias"].tolist() == [1, 0, 0, 0, 1]
    stacked = {"offset_max": [10, 5, 5, 5, 5], "aeff_max": [0] * 5, "all": [20, 20, 20, 20, 20]}
    meta = {**product.meta, "mask_reasons": stacked}
    shares = dropped_share(replace(product, reasons=None, meta=meta))
    assert {name: share.tolist() for name, share in shares.items()} == {
        "offset_max": [0.5, 0.25, 0.25, 0.25, 0.25]
    }
    assert dropped_share(replace(product, reasons=None)) == {}
    assert {"aeff_max", "edisp_bias"} <= set(labels(draw("dataset", product)))


def test_a_cube_shows_its_reasons_too(dataset):
    product = dataset(5)
    bits = np.where(product.mask_safe, 0, 1).astype(np.uint8)
    with_reasons = replace(product, reasons=MaskReasons(("offset_max",), bits))
    figure = draw("dataset", with_reasons)
    assert "offset_max" in labels(figure)
    drawn = figure.axes[-1].patches[0].get_data()
    assert drawn.values == pytest.approx(100 * (~product.mask_safe).mean(axis=(1, 2)))
    assert overlaps(figure) == []
