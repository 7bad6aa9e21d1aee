"""What a file holds, told in a table: each kind, with numbers that can be checked by hand."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from dl3flow.cli import main
from dl3flow.data.maps import Map
from dl3flow.data.products import Contour, DatasetStat, FitResult, FluxPoints, Profile, SkyMap
from dl3flow.errors import InputError
from dl3flow.io.datasets_yaml import write_datasets
from dl3flow.io.fits_datasets import write_fits_dataset
from dl3flow.io.hdf5 import write_dataset, write_failure
from dl3flow.io.inspection import inspect_file
from dl3flow.io.models_yaml import parse_models
from dl3flow.io.ogip import write_ogip
from dl3flow.io.products import write_fit, write_observation_table, write_table
from dl3flow.io.region_files import write_region_file
from dl3flow.io.skymaps import write_sky_map

CIRCLE = "icrs;circle(83.63, 22.01, 0.11)"
NEEDED = {
    "e_ref": u.TeV,
    "e_min": u.TeV,
    "e_max": u.TeV,
    "ref_dnde": u.Unit("cm-2 s-1 TeV-1"),
    "ref_flux": u.Unit("cm-2 s-1"),
    "ref_eflux": u.Unit("TeV cm-2 s-1"),
    "norm": u.one,
}
SPECTRUM = {"region": CIRCLE, "with_psf": False, "background": "off", "mask_fit": False}


def test_reduced_map(tmp_path, make_dataset, provenance):
    dataset = make_dataset(reasons=True, mask_fit=False)
    write_dataset(tmp_path / "a.h5", dataset, provenance)
    rows = dict(inspect_file(tmp_path / "a.h5"))
    assert rows["kind"] == "map (MapDataset)"
    assert rows["pixels"] == "8 x 6 of 0.1 deg around (83.63, 22.01) deg icrs, CAR"
    assert rows["energy"] == "3 bins, 1 to 10 TeV (log)"
    inside = dataset.counts.data[dataset.mask_safe].sum()
    assert rows["counts"] == f"{dataset.counts.data.sum():g}, {inside:g} in fit bins"
    assert rows["safe bins"] == f"{dataset.mask_safe.sum()} of 144"
    assert rows["dropped by offset_max"] == str(np.count_nonzero(dataset.reasons.bits & 2))
    assert rows["good time"] == "2 intervals, 499.875 s"
    assert rows["background.norm"] == "1.02"
    assert rows["made by"] == "reduce_observation with dl3flow 0.1"
    assert rows["made from"] == "a.fits (observation)"


def test_spectrum_in_three_formats(tmp_path, make_dataset, provenance):
    dataset = make_dataset(**SPECTRUM)
    write_dataset(tmp_path / "a.h5", dataset, provenance)
    write_fits_dataset(tmp_path / "b.fits", dataset, provenance)
    write_ogip(tmp_path / "pha_c.fits", dataset, provenance)
    for name in ("a.h5", "b.fits", "pha_c.fits"):
        rows = dict(inspect_file(tmp_path / name))
        assert rows["kind"] == "spectrum (SpectrumDatasetOnOff)"
        assert rows["region"] == CIRCLE
        assert rows["off counts"].startswith(f"{dataset.background.counts.data.sum():g}, ")
        alpha = dataset.background.alpha[dataset.mask_safe]
        assert rows["alpha"] == f"{alpha.min():.5g} to {alpha.max():.5g}"
    rows = dict(inspect_file(tmp_path / "bkg_c.fits"))
    assert rows["kind"] == "FITS file"
    assert rows["SPECTRUM"].startswith("table of 3 rows (SPECTRUM, BKG, COUNT, TYPE:I)")


def test_no_background_and_warnings(tmp_path, make_dataset, provenance):
    dataset = replace(make_dataset(background=None), meta={"warnings": ["first", "second"]})
    write_dataset(tmp_path / "a.h5", dataset, provenance)
    rows = inspect_file(tmp_path / "a.h5")
    assert ("background", "none") in rows
    assert [text for name, text in rows if name == "warning"] == ["first", "second"]


def test_failure(tmp_path, provenance):
    write_failure(tmp_path / "a.h5", "run-1", 7, "HDU EVENTS is missing", provenance)
    rows = dict(inspect_file(tmp_path / "a.h5"))
    assert rows["reason"] == "HDU EVENTS is missing"


def test_sky_maps(tmp_path, make_dataset, provenance):
    geom = make_dataset().geom
    image = Map(geom, (), np.full(geom.shape, 2.5), u.Unit("cm-2 s-1"))
    write_sky_map(tmp_path / "a.fits", SkyMap({"flux": image}, {"estimator": "excess_map"}), provenance)
    rows = dict(inspect_file(tmp_path / "a.fits"))
    assert rows["kind"] == "sky maps"
    assert rows["flux"].startswith("2.5 to 2.5 1 / (s cm2); 8 x 6 of 0.1 deg")
    assert rows["estimator"] == "excess_map"


def test_lists_tables_and_regions(tmp_path, make_dataset, provenance):
    datasets = [make_dataset(), make_dataset(name="b", **SPECTRUM)]
    write_datasets(tmp_path / "a.yaml", datasets, provenance)
    counts = [dataset.counts.data.sum() for dataset in datasets]
    assert inspect_file(tmp_path / "a.yaml") == [
        ("run-1", f"MapDataset, {counts[0]:g} counts"),
        ("b", f"SpectrumDatasetOnOff, {counts[1]:g} counts"),
    ]
    write_observation_table(tmp_path / "a.ecsv", [{"obs_id": 1, "reason": ""}], provenance)
    assert inspect_file(tmp_path / "a.ecsv") == [("kind", "table, 1 rows"), ("columns", "obs_id, reason")]
    for name in ("a.reg", "region.fits"):
        write_region_file(tmp_path / name, CIRCLE, provenance)
        assert inspect_file(tmp_path / name)[0] == ("kind", "regions")


def test_events_of_a_telescope(demo_dl3):
    path = next(iter(sorted((demo_dl3 / "data").glob("*.fits*"))))
    rows = dict(inspect_file(path))
    with fits.open(path) as hdus:
        n_events = len(hdus["EVENTS"].data)
    assert rows["EVENTS"].startswith(f"table of {n_events} rows (EVENTS")


def test_command(tmp_path, make_dataset, provenance, capsys):
    write_dataset(tmp_path / "a.h5", make_dataset(), provenance)
    assert main(["inspect", str(tmp_path / "a.h5")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=1) == ["kind", "map (MapDataset)"]
    assert main(["inspect", str(tmp_path / "b.h5")]) == 1
    assert capsys.readouterr().err == (
        f"dl3flow: {tmp_path / 'b.h5'}: no such file: check the path, or run the step that makes it\n"
    )


def test_unknown_kinds_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"the ending '\.png' is of no kind that is known \(\.ecsv, \.fits"):
        inspect_file(tmp_path / "a.png")
    (tmp_path / "a.ecsv").write_text("a,b\n")
    with pytest.raises(InputError, match="is not an ECSV table"):
        inspect_file(tmp_path / "a.ecsv")


def test_fit_in_a_table(tmp_path, provenance):
    spectral = {"type": "pl", "parameters": [{"name": "index", "value": 2.5, "error": 0.125}]}
    models = parse_models({"components": [{"name": "crab", "spectral": spectral}]}, "x")
    numbers = np.array([10.0, 3, 1])
    edges = np.geomspace(1, 10, 4) * u.TeV
    dataset = DatasetStat("run-1", -27.5, 100, edges, numbers, numbers, numbers)
    line, warned = np.array([2.4, 2.5, 2.6]), {"warnings": ["crab.index ends at a limit"]}
    further = {
        "minos": {"crab.index": (0.12, 0.13)},
        "profiles": {"crab.index": Profile("crab.index", line, line)},
        "contours": (Contour(("crab.index", "crab.amplitude"), 2, line, line),),
    }
    result = FitResult(
        True, "converged", -27.5, models, ("crab.index",), np.eye(1), (dataset,), warned, **further
    )
    write_fit(tmp_path / "fit.json", result, provenance)
    rows = dict(inspect_file(tmp_path / "fit.json"))
    assert rows["success"] == "True (converged)"
    assert rows["stat"] == "-27.500000 in 100 bins, 1 free parameters"
    assert rows["crab.index"] == "2.5 +- 0.125"
    assert rows["crab.reference"].endswith("frozen TeV")
    assert rows["crab.index, MINOS"] == "- 0.12 + 0.13"
    assert rows["profile of crab.index"] == "3 values"
    assert rows["contour of crab.index and crab.amplitude"] == "2 sigma, 3 points"
    assert rows["warning"] == "crab.index ends at a limit"
    assert rows["dataset run-1"] == "stat -27.5, 14 counts in 100 bins"


def test_models_in_a_table(tmp_path):
    (tmp_path / "models.yaml").write_text(
        "components:\n- name: crab\n  spectral: {type: pl, parameters: [{name: index, value: 2.5, error: 0.125}]}\n"
    )
    rows = dict(inspect_file(tmp_path / "models.yaml"))
    assert rows["kind"] == "models, 1 components"
    assert rows["crab.index"] == "2.5 +- 0.125"


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
def test_flux_points_in_a_table(tmp_path, provenance, suffix):
    table = QTable({name: [1.0, 2.0] * unit for name, unit in NEEDED.items()})
    write_table(tmp_path / f"sed.{suffix}", FluxPoints(table, {"source": "crab"}), provenance)
    rows = dict(inspect_file(tmp_path / f"sed.{suffix}"))
    assert rows["kind"] == "flux points, 2 rows"
    assert rows["e_ref"] == "[1.0, 2.0] TeV"
    assert rows["source"] == "crab"
