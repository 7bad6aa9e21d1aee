"""What `products.py` measures: the cases, and the files that both sides read."""

import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DL3FLOW_DATA", ROOT.parent / "shared" / "data"))
CRAB = (23523, 23526, 23559, 23592)
CENTER = {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"}
CUBE: dict[str, Any] = {
    "recipe": {
        "name": "cube",
        "center": CENTER,
        "width": "5 deg",
        "binsz": "0.02 deg",
        "proj": "TAN",
        "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 24},
        "energy_true": {"min": "0.3 TeV", "max": "80 TeV", "nbin": 40},
        "binsz_irf": "0.2 deg",
    },
    "safe_mask": [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": "2.5 deg"}],
    "background": {"name": "fov", "method": "scale", "exclusion": "icrs;circle(83.63, 22.01, 0.3)"},
}
SPECTRUM: dict[str, Any] = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.11)",
        "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 24},
        "energy_true": {"min": "0.1 TeV", "max": "100 TeV", "nbin": 60},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {"name": "reflected"},
}
FLARE_RUNS = tuple(range(33787, 33802))
FLARE: dict[str, Any] = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(329.71693826, -30.2255890, 0.11)",
        "energy": {"min": "0.4 TeV", "max": "20 TeV", "nbin": 10},
        "energy_true": {"min": "0.1 TeV", "max": "40 TeV", "nbin": 20},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {"name": "reflected"},
}
FLARE_START, FLARE_MINUTES, FLARE_BINS = "2006-07-29 20:30", 10, 44
FLARE_ENERGY = (0.7, 20.0)
FLARE_INDEX, FLARE_AMPLITUDE = 3.4, 2e-11
IRFS = DATA / "cta-caldb/Prod5-South-20deg-AverageAz-14MSTs37SSTs.180000s-v0.1.fits.gz"
# a source of 1e-10 cm-2 s-1 TeV-1 at 1 TeV half a degree off the pointing; energies in TeV
EVENTS = {
    "index": 2.3,
    "amplitude": 1e-10,
    "lon": 83.63,
    "lat": 22.51,
    "sigma": 0.1,
    "true": (0.05, 150.0),
    "energy": (0.1, 100.0),
}
POINTING = (83.63, 22.01)
# which files a case reads; the others need none
KINDS = {
    "points-3d": "stack",
    "ts-map": "stack",
    "ts-map-compiled": "stack",
    "excess-map": "stack",
    "points-joint": "runs",
    "points-1d": "spectra",
}
POINT_EDGES = np.geomspace(0.5, 50, 13)
RADIUS = 0.1
TS_INDEX, TS_WIDTH = 2.5, 1.0
COLUMNS = ("norm", "norm_err", "norm_errn", "norm_errp", "norm_ul", "ts")


# A side of a case: a function of what was prepared, that sets up untimed and returns the timed call, and one that takes
# arrays by name from what the call returned.
Arrays = dict[str, np.ndarray]
Side = Callable[[Mapping[str, Any]], tuple[Callable[[], Any], Callable[[Any], Arrays]]]


def crab_models(names: list[str], *, is_map: bool) -> dict[str, Any]:
    """Model file of a point source of fixed place, and a norm for the background of every map."""
    fixed = {"frozen": True}
    source: dict[str, Any] = {
        "name": "crab",
        "type": "SkyModel",
        "spectral": {
            "type": "PowerLawSpectralModel",
            "parameters": [
                {"name": "index", "value": 2.5},
                {"name": "amplitude", "value": 4e-11, "unit": "cm-2 s-1 TeV-1"},
                {"name": "reference", "value": 1.0, "unit": "TeV", **fixed},
            ],
        },
    }
    if not is_map:
        return {"components": [source]}
    source["spatial"] = {
        "type": "PointSpatialModel",
        "frame": "icrs",
        "parameters": [
            {"name": "lon_0", "value": 83.633, "unit": "deg", **fixed},
            {"name": "lat_0", "value": 22.0145, "unit": "deg", **fixed},
        ],
    }
    norm = [
        {"name": "norm", "value": 1.0},
        {"name": "tilt", "value": 0.0, **fixed},
        {"name": "reference", "value": 1.0, "unit": "TeV", **fixed},
    ]
    backgrounds = [
        {
            "name": f"{name}-bkg",
            "type": "FoVBackgroundModel",
            "datasets_names": [name],
            "spectral": {"type": "PowerLawNormSpectralModel", "parameters": norm},
        }
        for name in names
    ]
    return {"components": [source, *backgrounds]}


def flare_times() -> list[tuple[str, str]]:
    """Ends of the ten-minute bins, UTC."""
    start, width = datetime.fromisoformat(FLARE_START), timedelta(minutes=FLARE_MINUTES)
    ends = [str(start + k * width) for k in range(FLARE_BINS + 1)]
    return list(zip(ends[:-1], ends[1:], strict=True))


def prepare(case: str, folder: Path) -> dict[str, Any]:
    """Write the datasets, their fit and its models; names, files and kind."""
    kind = KINDS.get(case)
    place = folder / (kind or case)
    made = {"case": case, "folder": str(place), "is_map": kind != "spectra"}
    if kind is None or place.is_dir():
        place.mkdir(exist_ok=True)
        return {**made, "names": sorted(path.stem for path in place.glob("*.fits"))}
    from dl3flow.chain import parse_chain, reduce_observation
    from dl3flow.fit.minimise import fit
    from dl3flow.io.fits_datasets import write_fits_dataset
    from dl3flow.io.gadf import read_observation
    from dl3flow.io.gadf_index import read_index
    from dl3flow.io.models_yaml import parse_models, write_models
    from dl3flow.io.products import write_fit
    from dl3flow.io.provenance import Provenance
    from dl3flow.reduce.stack import stack

    root = DATA / "hess-dl3-dr1"
    chain = parse_chain(SPECTRUM if kind == "spectra" else CUBE, "benchmark")
    entries = [e for e in read_index(root) if e.obs_id in CRAB]
    datasets = [reduce_observation(read_observation(e, root), f"run-{e.obs_id}", chain) for e in entries]
    if kind == "stack":
        assert chain.geometries is not None
        datasets = [stack(datasets, "stacked", *chain.geometries)]
    names, provenance = [d.name for d in datasets], Provenance("benchmark", "", "{}", {}, {})
    place.mkdir()
    result = fit(datasets, parse_models(crab_models(names, is_map=kind != "spectra"), "benchmark"))
    for dataset in datasets:
        write_fits_dataset(place / f"{dataset.name}.fits", dataset, provenance)
    write_fit(place / "fit.json", result, provenance)
    write_models(place / "models.yaml", result.models, result.free, result.covariance, provenance)
    return {**made, "names": sorted(names)}
