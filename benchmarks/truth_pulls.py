"""Count how often the simulated truth lies inside the 68 % interval.

Simulates the demo's data set with many seeds, reduces and fits each as the demo does (joint fit), and counts, for every
fitted parameter of the source, how often the simulated value lies within one standard error. ``--flux 0.1`` does the
same with a tenth of the source's flux, where positions are uncertain by about a pixel.

Targets: between 58 % and 78 % of 200 seeds for every parameter (three binomial standard deviations about 68 %), and a
mean pull within three of its errors. ``--quick`` does 20 seeds and widens the range by the same rule.

    python benchmarks/truth_pulls.py [--quick] [--seeds N] [--jobs N]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.io.models_yaml import read_models
from dl3flow.io.yaml import read_yaml
from dl3flow.simulate.events import simulate_observation
from dl3flow.simulate.plan import parse_simulation

ROOT = Path(__file__).resolve().parents[1]
LEVEL = 0.6827


def analyse(seed: int, flux: float) -> dict[str, Any]:
    """Pull of every parameter of the source for one seed and share of the demo's flux."""
    analysis = read_yaml(ROOT / "config/analyses/demo.yaml")
    described = read_yaml(ROOT / "config/simulations/demo.yaml")
    spectrum = described["sources"][0]["spectral"]
    spectrum["amplitude"] = str(flux * u.Quantity(spectrum["amplitude"]))
    simulation = parse_simulation({**described, "seed": seed}, "demo")
    reduction = analysis["reductions"]["cube"]
    chain = parse_chain(reduction, "")
    datasets = [
        reduce_observation(simulate_observation(simulation, run["obs_id"]), f"cube-{run['obs_id']}", chain)
        for run in described["observations"]
    ]
    models = read_models(ROOT / analysis["models"])
    amplitude = models.parameters()["crab.amplitude"]
    models = models.with_parameters({"crab.amplitude": replace(amplitude, value=flux * amplitude.value)})
    # the start values of the shipped model are the truth of the shipped simulation
    truth = {name: p.value for name, p in models.parameters().items() if not p.frozen}
    result = fit(datasets, add_backgrounds(datasets, models, ["norm"]))
    pulls = {
        name: (result.parameter(name).value - t) / result.parameter(name).error for name, t in truth.items()
    }
    return {"seed": seed, "success": result.success, "pulls": pulls}


def main() -> int:
    """Run all seeds, print the table, the figures as JSON, and whether the targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20 seeds")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--flux", type=float, default=1.0, help="share of the demo's flux")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    n = 20 if arguments.quick else arguments.seeds
    with ProcessPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(analyse, range(1, n + 1), [arguments.flux] * n))
    width = 3 * np.sqrt(LEVEL * (1 - LEVEL) / n)
    figures: dict[str, Any] = {
        "seeds": n,
        "flux": arguments.flux,
        "failed": sum(not f["success"] for f in found),
        "parameters": {},
    }
    print(
        f"{n} seeds, {figures['failed']} fits without success; wanted inside: {LEVEL - width:.3f} to {LEVEL + width:.3f}"
    )
    print(f"{'parameter':20s} {'inside 68 %':>12s} {'mean pull':>16s} {'width':>7s}")
    good = figures["failed"] == 0
    for name in found[0]["pulls"]:
        pulls = np.array([f["pulls"][name] for f in found])
        inside, mean, spread = (
            float(np.mean(np.abs(pulls) <= 1)),
            float(pulls.mean()),
            float(pulls.std(ddof=1)),
        )
        figures["parameters"][name] = {"inside": inside, "mean": mean, "width": spread}
        print(f"{name:20s} {inside:12.3f} {mean:+8.3f} ± {spread / np.sqrt(n):.3f} {spread:7.3f}")
        good &= abs(inside - LEVEL) <= width and abs(mean) <= 3 * spread / np.sqrt(n)
    figures["targets_met"] = bool(good)
    print(json.dumps(figures))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
