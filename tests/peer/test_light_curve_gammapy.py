"""The light curve of case K as gammapy makes it from DL3 here: the numbers that are kept are those."""

import json
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from regions import CircleSkyRegion

pytestmark = pytest.mark.peer
gammapy = pytest.importorskip("gammapy", reason="gammapy is not installed: make peer")

KEPT = Path(__file__).parents[1] / "reference" / "K_light_curve_crab4.json"


def _light_curve(folder: Path, inputs: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The reference implementation's model, fit and light curve, from DL3."""
    from gammapy.data import DataStore
    from gammapy.datasets import Datasets, SpectrumDataset
    from gammapy.estimators import LightCurveEstimator
    from gammapy.makers import ReflectedRegionsBackgroundMaker, SafeMaskMaker, SpectrumDatasetMaker
    from gammapy.maps import MapAxis, RegionGeom, WcsGeom
    from gammapy.modeling import Fit
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel

    crab = SkyCoord(83.63, 22.01, unit="deg")
    energy = MapAxis.from_energy_bounds("0.1 TeV", "40 TeV", nbin=27)
    true = MapAxis.from_energy_bounds("0.05 TeV", "100 TeV", nbin=67, name="energy_true")
    geom = RegionGeom.create(CircleSkyRegion(crab, 0.11 * u.deg), axes=[energy])
    empty = SpectrumDataset.create(geom=geom, energy_axis_true=true)
    excluded = CircleSkyRegion(SkyCoord(183.604, -8.708, unit="deg", frame="galactic"), 0.5 * u.deg)
    sky = WcsGeom.create(npix=(150, 150), binsz=0.05, skydir=crab, proj="TAN", frame="icrs")
    makers = (
        ReflectedRegionsBackgroundMaker(exclusion_mask=~sky.region_mask([excluded])),
        SafeMaskMaker(methods=["aeff-max"], aeff_percent=10),
    )
    reduce = SpectrumDatasetMaker(containment_correction=True, selection=["counts", "exposure", "edisp"])
    datasets = Datasets()
    for run in DataStore.from_dir(folder).get_observations(inputs["obs_ids"]):
        dataset = reduce.run(empty.copy(name=str(run.obs_id)), run)
        for maker in makers:
            dataset = maker.run(dataset, run)
        datasets.append(dataset)
    spectrum = PowerLawSpectralModel(index=2.5, amplitude="3e-11 cm-2 s-1 TeV-1", reference="1 TeV")
    datasets.models = [SkyModel(spectrum, name="crab")]
    result = Fit().run(datasets)
    estimator = LightCurveEstimator(
        energy_edges=inputs["energy_edges_TeV"] * u.TeV,
        source="crab",
        selection_optional=["errn-errp", "ul"],
    )
    return spectrum, result, estimator.run(datasets)


def test_kept_numbers_are_gammapy_s(hess_dl3: Path) -> None:
    kept = json.loads(KEPT.read_text())
    spectrum, result, curve = _light_curve(hess_dl3, kept["inputs"])
    assert result.total_stat == pytest.approx(kept["fit"]["total_stat"], rel=1e-6)
    for name, value in kept["fit"]["parameters"].items():
        assert spectrum.parameters[name].value == pytest.approx(value, rel=1e-6), name
    likelihood = curve.to_table(format="lightcurve", sed_type="likelihood")
    flux = curve.to_table(format="lightcurve", sed_type="flux")
    checked = 0
    for name, column in kept["curve"].items():
        table = flux if name.startswith("flux") else likelihood
        found = np.asarray(table[name])
        if name == "counts":
            found = np.nansum(found, axis=-1)
        assert found == pytest.approx(np.array(column), rel=1e-4), name
        checked += 1
    assert checked == 15
