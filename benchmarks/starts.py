"""Fit four Crab runs jointly from many random starts, and count which reach the same minimum.

The set-up of the joint reference fit: H.E.S.S. runs 23523, 23526, 23559 and 23592, 5 x 5 deg, 0.02 deg, 11 energies from 1
to 10 TeV of 40 true ones, a power law times a point, or times a symmetric Gaussian, and a background norm for every run.
Starts lie up to 0.5 deg away, with amplitude, extension and background norms up to a factor of 3 and the index up to
1 off.

Target: every start ends within 0.01 in the statistic of the lowest minimum found, or its fit says that it did not
converge; and at least 99 of 100 converge.

    python benchmarks/starts.py [--quick] [--starts N] [--jobs N]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.models_yaml import parse_models
from dl3flow.models.source import Models

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DL3FLOW_DATA", ROOT.parent / "shared" / "data")) / "hess-dl3-dr1"
RUNS = (23523, 23526, 23559, 23592)
SAME, CONVERGED = 0.01, 0.99
FAR, FACTOR, INDEX = 0.5, 3.0, 1.0
LON, LAT, AMPLITUDE, SLOPE, SIGMA = 83.63, 22.01, 4e-11, 2.5, 0.03
SECTIONS = {
    "recipe": {
        "name": "cube",
        "center": {"frame": "icrs", "lon": f"{LON} deg", "lat": f"{LAT} deg"},
        "width": "5 deg",
        "binsz": "0.02 deg",
        "cutout": "6 deg",
        "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 11},
        "energy_true": {"min": "0.3 TeV", "max": "30 TeV", "nbin": 40},
    },
    "safe_mask": [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": "3 deg"}],
    "background": None,
}


@lru_cache(maxsize=1)
def runs() -> tuple[Dataset, ...]:
    """The four runs, reduced once a process."""
    chain = parse_chain(SECTIONS, "benchmark")
    entries = {e.obs_id: e for e in read_index(DATA)}
    return tuple(reduce_observation(read_observation(entries[r], DATA), f"run-{r}", chain) for r in RUNS)


def started(shape: str, seed: int) -> Models:
    """Models at a random start."""
    random = np.random.default_rng([seed, shape == "gauss"])
    distance, angle = FAR * np.sqrt(random.uniform()), random.uniform(0, 2 * np.pi)
    lon = LON + distance * np.cos(angle) / np.cos(np.radians(LAT))
    lat = LAT + distance * np.sin(angle)

    def factor() -> float:
        return float(FACTOR ** random.uniform(-1, 1))

    spatial: list[dict[str, Any]] = [
        {"name": "lon_0", "value": float(lon), "unit": "deg"},
        {"name": "lat_0", "value": float(lat), "unit": "deg"},
    ]
    kind = "PointSpatialModel"
    if shape == "gauss":
        kind = "GaussianSpatialModel"
        spatial.append({"name": "sigma", "value": SIGMA * factor(), "unit": "deg"})
    source = {
        "name": "crab",
        "type": "SkyModel",
        "spectral": {
            "type": "PowerLawSpectralModel",
            "parameters": [
                {"name": "index", "value": SLOPE + random.uniform(-INDEX, INDEX)},
                {"name": "amplitude", "value": AMPLITUDE * factor(), "unit": "cm-2 s-1 TeV-1"},
                {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
            ],
        },
        "spatial": {"type": kind, "frame": "icrs", "parameters": spatial},
    }
    models = add_backgrounds(runs(), parse_models({"components": [source]}, "benchmark"), ["norm"])
    parameters = models.parameters()
    norms = {
        f"{b.name}.norm": replace(parameters[f"{b.name}.norm"], value=factor()) for b in models.backgrounds
    }
    return models.with_parameters(norms)


def run(task: tuple[str, int]) -> dict[str, Any]:
    """Fit from one start."""
    warnings.simplefilter("ignore")
    models = started(*task)
    cpu = time.process_time()
    result = fit(runs(), models)
    cpu = time.process_time() - cpu
    start = models.parameters()
    return {
        "shape": task[0],
        "seed": task[1],
        "success": result.success,
        "message": result.message,
        "stat": result.stat,
        "cpu": cpu,
        "iterations": result.minimiser.get("n_iterations"),
        "evaluations": result.minimiser["n_evaluations"],
        "start": {n: p.value for n, p in start.items() if not p.frozen and n.startswith("crab.")},
        "values": {n: result.parameter(n).value for n in result.free if n.startswith("crab.")},
    }


def main() -> int:
    """Fit, print the table, the figures as JSON, and whether the targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="4 starts of each shape")
    parser.add_argument("--starts", type=int, default=100, help="of each shape")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(
            f"{DATA}: the H.E.S.S. data release is absent: name its parent in DL3FLOW_DATA", file=sys.stderr
        )
        return 1
    n = 4 if arguments.quick else arguments.starts
    figures: dict[str, Any] = {"starts": n}
    good = True
    print(
        f"{'shape':6s} {'lowest stat':>13s} {'same':>5s} {'said so':>8s} {'lost':>5s} {'CPU s':>7s} {'most':>7s} {'evaluations':>12s}"
    )
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for shape in ("point", "gauss"):
            found = list(pool.map(run, [(shape, seed) for seed in range(n)]))
            lowest = min(f["stat"] for f in found)
            same = [f for f in found if f["success"] and f["stat"] <= lowest + SAME]
            told = [f for f in found if not f["success"]]
            lost = [f for f in found if f["success"] and f["stat"] > lowest + SAME]
            cpu = [f["cpu"] for f in found]
            evaluations = float(np.median([f["evaluations"] for f in found]))
            print(
                f"{shape:6s} {lowest:13.4f} {len(same):5d} {len(told):8d} {len(lost):5d} {np.median(cpu):7.2f} {max(cpu):7.2f} "
                f"{evaluations:12.0f}",
                flush=True,
            )
            for f in lost + told:
                print(
                    f"       start {f['seed']}: {f['stat'] - lowest:+.3f} ({f['message']}) {f['start']} -> {f['values']}"
                )
            figures[shape] = {
                "lowest": lowest,
                "same": len(same),
                "told": len(told),
                "lost": lost,
                "cpu": float(np.median(cpu)),
                "evaluations": evaluations,
            }
            good &= not lost and len(same) >= CONVERGED * n
    figures["targets_met"] = bool(good)
    print(json.dumps(figures))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
