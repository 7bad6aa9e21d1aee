"""Sensitivity: each of the three criteria by hand, on spectra and in a circle of a map."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.events import Gti
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

CIRCLE = "icrs;circle(83.63, 22.01, 0.2)"
EXPOSURE = 1e13


def estimate(datasets: list[Any], result: Any = None, **more: Any) -> ProductTable:
    found, options = TABLES.bind({"name": "sensitivity", **more}, "s")
    return found(datasets, result, **options)


def spectrum(n_off: list[float], acceptance_off: float = 5.0, name: str = "s") -> Dataset:
    """One on-off spectrum from 1 to 1000 TeV in one bin per decade, exposure 1e13 cm2 s, energies measured exactly."""
    geom = RegionGeometry(CIRCLE)
    energy = Axis.from_bounds("energy", 1 * u.TeV, 1000 * u.TeV, 3)

    def row(values: Any) -> Map:
        return Map(
            geom, (energy,), np.broadcast_to(np.reshape(np.asarray(values, float), (-1, 1, 1)), (3, 1, 1))
        )

    true = energy.renamed("energy_true")
    exposure = Map(geom, (true,), np.full((3, 1, 1), EXPOSURE / 1e4), u.Unit("m2 s"))
    return Dataset(
        name=name,
        counts=row(0.0),
        background=OffCounts(row(n_off), row(1.0), row(acceptance_off)),
        exposure=exposure,
        psf=None,
        edisp=None,
        mask_safe=np.ones((3, 1, 1), dtype=bool),
        mask_fit=None,
        gti=Gti([0.0] * u.s, [3600.0] * u.s, Time(60000, format="mjd", scale="tt")),
        meta={"obs_ids": [1], "livetime": 3600.0, "ontime": 3600.0},
    )


def test_which_criterion_decides() -> None:
    """5000 off counts: 5 % of 1000; 50: 5 sigma; none: 10 photons."""
    product = estimate([spectrum([5000 * 5, 250, 0])], bkg_syst=0.2)
    table = product.table
    assert list(table["criterion"]) == ["bkg", "significance", "gamma"]
    assert table["background"].tolist() == [5000, 50, 0]
    assert table["excess"][0] == pytest.approx(0.2 * 5000)
    excess = float(table["excess"][1])
    ts = wstat_ts(np.array(50 + excess), np.array(250.0), np.array(0.2))
    assert np.sqrt(ts) == pytest.approx(5)
    assert table["excess"][2] == 10
    assert dict(product.meta["summary"])["livetime (h)"] == 1
    # power law of index 2, 1e-12 at 1 TeV: flux 1e-12 (1/E1 - 1/E2), e2dnde 1e-12 TeV cm-2 s-1
    flux = 1e-12 * np.array([0.9, 0.09, 0.009])
    assert table["npred"] == pytest.approx(flux * EXPOSURE)
    assert table["flux"].to_value("cm-2 s-1") == pytest.approx(table["excess"] / EXPOSURE)
    e2dnde = 1e-12 * table["excess"] / (flux * EXPOSURE)
    assert table["e2dnde"].to_value("TeV cm-2 s-1") == pytest.approx(np.asarray(e2dnde))
    assert table["e_ref"].to_value("TeV") == pytest.approx([10**0.5, 10**1.5, 10**2.5])
    assert table["dnde"].to_value("cm-2 s-1 TeV-1") == pytest.approx(
        np.asarray(e2dnde) / table["e_ref"].value ** 2
    )


def test_datasets_add_up_and_bands_are_merged() -> None:
    """Two of 100 off counts in one band at alpha 0.2 are one of 200; a steeper spectrum needs more energy flux there."""
    two = estimate(
        [spectrum([50, 50, 0], name=n) for n in "ab"], energy={"min": "1 TeV", "max": "1000 TeV", "nbin": 1}
    )
    assert len(two.table) == 1
    assert two.table["background"][0] == pytest.approx(40)
    ts = wstat_ts(np.array(40 + float(two.table["excess"][0])), np.array(200.0), np.array(0.2))
    assert np.sqrt(ts) == pytest.approx(5)
    assert two.table["npred"][0] == pytest.approx(2 * EXPOSURE * 1e-12 * 0.999)


def test_no_background_measured_is_no_data() -> None:
    one = spectrum([100, 100, 100])
    off = replace(
        one.background,
        acceptance_off=one.background.acceptance_off.with_data(np.array([5, 0, 5.0])[:, None, None]),
    )
    mask = np.array([True, True, False])[:, None, None]
    product = estimate([replace(one, background=off, mask_fit=mask)])
    assert list(product.table["criterion"]) == ["significance", "no data", "no data"]
    assert np.isnan(product.table["e2dnde"][1:].value).all()
    assert product.meta["warnings"] == [
        "2 of 3 energy bands have no data, or a background that was not measured"
    ]


def test_a_circle_of_a_map(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    """Known background in the circle, signal of a point in its middle through the point spread; a fit gives both."""
    dataset = small_dataset("d", seed=1)
    circle = RegionGeometry(CIRCLE)
    inside = region_mask(dataset.geom, circle.regions)
    background = dataset.mu_bkg[:, inside].sum(axis=1)
    table = estimate([dataset], region=CIRCLE, gamma_min=0, bkg_syst=0).table
    assert np.asarray(table["background"]) == pytest.approx(background)
    assert np.sqrt(cash_ts(background + table["excess"], background)) == pytest.approx([5, 5, 5])
    signal = predict_counts(dataset, point_models(1e-12, 2.0))[0][:, inside].sum(axis=1)
    assert np.asarray(table["npred"]) == pytest.approx(signal)
    assert set(table["criterion"]) == {"significance"}
    result = fit([dataset], add_backgrounds([dataset], point_models(), ["norm"]))
    fitted = estimate([dataset], result, region=CIRCLE, spectrum="s").table
    norm = result.parameter("d-bkg.norm").value
    assert np.asarray(fitted["background"]) == pytest.approx(norm * background)
    amplitude = result.parameter("s.amplitude").value
    expected = amplitude * fitted["e_ref"].value ** -result.parameter("s.index").value
    assert fitted["dnde"].value * fitted["npred"] / fitted["excess"] == pytest.approx(expected)


def test_what_cannot_be_is_told(small_dataset: Callable[..., Dataset]) -> None:
    with pytest.raises(InputError, match="'d' is a map: give `region`"):
        estimate([small_dataset("d")])
    with pytest.raises(InputError, match="holds no pixel of dataset 'd'"):
        estimate([small_dataset("d")], region="icrs;circle(10, 10, 0.1)")
    with pytest.raises(InputError, match="the spectrum of 'crab' is known from a fit only"):
        estimate([spectrum([1, 1, 1])], spectrum="crab")
    known = replace(spectrum([1, 1, 1], name="k"), background=ExpectedCounts(spectrum([1, 1, 1]).counts))
    with pytest.raises(InputError, match="some datasets have a known background and some a measured one"):
        estimate([known, spectrum([1, 1, 1])])
    with pytest.raises(InputError, match="gamma_min: expected a number from 0 on, found -1"):
        TABLES.bind({"name": "sensitivity", "gamma_min": -1}, "s")
