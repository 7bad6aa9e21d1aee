"""Pulls of flux points and light curves, and coverage of their upper limits, from simulated DL3 through the whole chain.

The demo's four runs are simulated with many seeds, written as DL3 and read (those of 1.), reduced to cubes with a field-of-view background
and to spectra with reflected regions, fitted jointly, and made into flux points and a light curve:

1. with the demo's source, whose spectrum is fitted (`truth_pulls.py` is about its position): the pull of each point is its distance from
   the true flux in the error on that side;
2. with 5 % of its flux, its spectrum taken as known: how often the truth lies below the upper limit (two sigma).

At finite counts pulls are not quite of mean 0 and width 1, nor limits of 97.7 %: the expectation of each is that of 4000
draws of the counts that the truth predicts (in bins of like signal over background, which loses nothing), whose
likelihood is scanned on a grid.

Targets: mean and width of the pulls of each point, and coverage of each limit, within three standard deviations of their
expectation, of 500 seeds, the mean flux of all runs within three of the truth; every fit a success. ``--quick`` does 12 and widens the ranges by the same rule.

    python benchmarks/product_pulls.py [--quick] [--seeds N] [--jobs N]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.chain import Chain, parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.estimators import TABLES
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.npred import predict_counts
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_write import write_observation
from dl3flow.io.models_yaml import read_models
from dl3flow.io.yaml import read_yaml
from dl3flow.kernels.statistics import wstat
from dl3flow.models.source import Models
from dl3flow.simulate.events import simulate_observation
from dl3flow.simulate.plan import observation_entries, parse_simulation

ROOT = Path(__file__).resolve().parents[1]
FAINT = 0.05
N_DRAWS, N_GRID, N_RATIOS = 4000, 400, 40
N_SIGMA_UL = 2.0
WIDE = 3  # standard deviations
# the demo's energy bins, the last three as one point
EDGES = 0.5 * 10 ** (np.array([0, 1, 2, 3, 4, 5, 8]) / 4)
SPECTRUM: dict[str, Any] = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.12)",
        "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 8},
        "energy_true": {"min": "0.2 TeV", "max": "100 TeV", "nbin": 27},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_default"}],
    "background": {"name": "reflected", "exclusion": "icrs;circle(83.63, 22.01, 0.3)"},
}
POINTS = {
    "name": "flux_points",
    "source": "crab",
    "energy": {"edges": [f"{edge!r} TeV" for edge in EDGES.tolist()]},
}
CURVE = {"name": "light_curve", "source": "crab"}


@lru_cache(maxsize=1)
def chains() -> dict[str, Chain]:
    """Both reductions."""
    cube = read_yaml(ROOT / "config/analyses/demo.yaml")["reductions"]["cube"]
    return {"cube": parse_chain(cube, ""), "spectrum": parse_chain(SPECTRUM, "")}


def described(seed: int, flux: float) -> Any:
    """The demo's simulation with another seed and share of its flux."""
    found = read_yaml(ROOT / "config/simulations/demo.yaml")
    spectrum = found["sources"][0]["spectral"]
    spectrum["amplitude"] = str(flux * u.Quantity(spectrum["amplitude"]))
    return parse_simulation({**found, "seed": seed}, "demo")


def true_models(kind: str, flux: float, *, is_known: bool) -> Models:
    """The truth, its spectrum free or not; spectra have no position."""
    models = read_models(ROOT / read_yaml(ROOT / "config/analyses/demo.yaml")["models"])
    amplitude = models.parameters()["crab.amplitude"]
    models = models.with_parameters({"crab.amplitude": replace(amplitude, value=flux * amplitude.value)})
    kept = {n: p for n, p in models.parameters().items() if is_known or n in ("crab.lon_0", "crab.lat_0")}
    models = models.with_parameters({n: replace(p, frozen=True) for n, p in kept.items()})
    if kind == "spectrum":
        models = replace(models, sources=tuple(replace(s, spatial=None) for s in models.sources))
    return models


def reduced(seed: int, flux: float, *, is_written: bool = False) -> dict[str, list[Dataset]]:
    """Simulate, write and read on request, reduce."""
    simulation = described(seed, flux)
    found: dict[str, list[Dataset]] = {kind: [] for kind in chains()}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for entry in observation_entries(simulation):
            path, observation = root / entry.paths[0], simulate_observation(simulation, entry.obs_id)
            if is_written:
                path.parent.mkdir(exist_ok=True)
                write_observation(path, observation)
                observation = read_observation(entry, root)
            for kind, chain in chains().items():
                found[kind].append(reduce_observation(observation, f"{kind}-{entry.obs_id}", chain))
    return found


def true_flux(flux: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Integral of the demo's power law, cm-2 s-1; energies in TeV."""
    values = {n: p.value for n, p in true_models("spectrum", flux, is_known=True).parameters().items()}
    index, reference = values["crab.index"], values["crab.reference"]
    norm = values["crab.amplitude"] * reference / (index - 1)
    return np.asarray(norm * ((low / reference) ** (1 - index) - (high / reference) ** (1 - index)))


def analyse(seed: int) -> dict[str, Any]:
    """Norms over the true ones, their errors and limits, for one seed: by brightness, reduction and product."""
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {"failed": 0}
    for tag, flux in (("bright", 1.0), ("faint", FAINT)):
        for kind, datasets in reduced(seed, flux, is_written=tag == "bright").items():
            models = true_models(kind, flux, is_known=tag == "faint")
            result = fit(datasets, add_backgrounds(datasets, models, ["norm"]))
            found["failed"] += not result.success
            found[f"{tag} {kind} off"] = [
                d.background.counts.data.ravel().tolist()
                for d in datasets
                if isinstance(d.background, OffCounts)
            ]
            for entry in (POINTS, CURVE):
                estimate, options = TABLES.bind(entry, "benchmark")
                table = estimate(datasets, result, **options).table
                low, high = (table[n].to_value(u.TeV) for n in ("e_min", "e_max"))
                truth = true_flux(flux, low, high) / table["ref_flux"].to_value("cm-2 s-1")
                found[f"{tag} {kind} {entry['name']}"] = {
                    name: (np.asarray(table[column], dtype=float) / truth).tolist()
                    for name, column in (
                        ("value", "norm"),
                        ("errn", "norm_errn"),
                        ("errp", "norm_errp"),
                        ("ul", "norm_ul"),
                    )
                }
    return found


# ---- what to expect


def pull(value: np.ndarray, errn: np.ndarray, errp: np.ndarray) -> np.ndarray:
    """Distance from the truth, 1, in the error on its side."""
    return np.asarray((value - 1) / np.where(value > 1, errn, errp))


def scanned(stat: np.ndarray, grid: np.ndarray) -> dict[str, np.ndarray]:
    """Best value, errors and limit of statistics on a grid; shape (n_draws, n_grid)."""
    rows = np.arange(len(stat))
    best = np.clip(np.argmin(stat, axis=1), 1, len(grid) - 2)
    left, here, right = (stat[rows, best + k] for k in (-1, 0, 1))
    step, bend = grid[1] - grid[0], left - 2 * here + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    shift = np.clip(shift, -1, 1)
    value, lowest = grid[best] + shift * step, here - 0.25 * (left - right) * shift

    def crossing(start: np.ndarray, level: np.ndarray, side: int) -> np.ndarray:
        """Where the statistic passes the level beyond ``start``, linear between points; NaN where it does not."""
        beyond = (grid[None] > start[:, None]) if side > 0 else (grid[None] < start[:, None])
        above = beyond & (stat >= level[:, None])
        order = above if side > 0 else above[:, ::-1]
        first = np.argmax(order, axis=1)
        at = first if side > 0 else len(grid) - 1 - first
        inner = np.clip(at - side, 0, len(grid) - 1)
        outside, inside = stat[rows, at], stat[rows, inner]
        share = (level - inside) / np.where(outside != inside, outside - inside, 1.0)
        return np.where(above.any(axis=1), grid[inner] + share * (grid[at] - grid[inner]), np.nan)

    at_zero = stat[:, np.argmin(np.abs(grid))]
    base, origin = np.where(value > 0, lowest, at_zero), np.maximum(value, 0.0)
    return {
        "value": value,
        "errn": value - crossing(value, lowest + 1, -1),
        "errp": crossing(value, lowest + 1, 1) - value,
        "ul": crossing(origin, base + N_SIGMA_UL**2, 1),
    }


def expected(
    datasets: list[Dataset], keeps: list[np.ndarray], models: Models, off: np.ndarray | None, seed: int
) -> dict[str, np.ndarray]:
    """Draws of the counts that the truth predicts in the chosen bins, and what their likelihoods say.

    ``off`` are the off counts of each dataset, the mean of all seeds; None where the background is known.
    """
    rng = np.random.default_rng(seed)
    keeps = [keep & d.mask for d, keep in zip(datasets, keeps, strict=True)]
    predicted = [predict_counts(d, models) for d in datasets]
    signal = np.concatenate([mu[keep] for (mu, _), keep in zip(predicted, keeps, strict=True)])
    if off is not None:
        flat = [keep.ravel() for keep in keeps]
        alpha = np.concatenate([d.background.alpha.ravel()[k] for d, k in zip(datasets, flat, strict=True)])  # type: ignore[union-attr]
        mu_off = np.concatenate([mu[k] for mu, k in zip(off, flat, strict=True)])
        return drawn_measured(signal, alpha, mu_off, rng)
    background = np.concatenate([mu[keep] for (_, mu), keep in zip(predicted, keeps, strict=True)])
    return drawn_known(signal[background > 0], background[background > 0], rng)


def grid_around(error: float, lowest: float) -> np.ndarray:
    """Strengths about 1 to nine errors, from the lowest possible one on."""
    return np.linspace(max(1 - 9 * error, lowest), 1 + 12 * error, N_GRID)


def drawn_known(
    signal: np.ndarray, background: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draws with known backgrounds; bins of like signal over background are summed."""
    lowest = -float(np.min(background / np.maximum(signal, 1e-300)))
    ratio = np.log(np.maximum(signal / background, 1e-6))
    group = ((ratio - ratio.min()) / (np.ptp(ratio) + 1e-9) * N_RATIOS).astype(int)
    s, b = (np.bincount(group, values, N_RATIOS) for values in (signal, background))
    s, b = s[s > 0], b[s > 0]
    grid = grid_around(float(1 / np.sqrt(np.sum(s**2 / (s + b)))), lowest)
    n = rng.poisson(s + b, (N_DRAWS, len(s)))
    mu = np.maximum(grid[:, None] * s + b, 1e-25)
    return scanned(2 * (mu.sum(axis=1)[None] - n @ np.log(mu).T), grid)


def drawn_measured(
    signal: np.ndarray, alpha: np.ndarray, mu_off: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draws with measured backgrounds."""
    grid = grid_around(
        float(1 / np.sqrt(np.sum(signal**2 / (signal + alpha * (1 + alpha) * mu_off)))), -np.inf
    )
    n = rng.poisson(signal + alpha * mu_off, (N_DRAWS, len(signal))).astype(float)
    n_off = rng.poisson(mu_off, n.shape).astype(float)
    stat = np.zeros((N_DRAWS, len(grid)))
    for k, s in enumerate(signal):
        stat += wstat(n[:, k, None], n_off[:, k, None], np.full((1, 1), alpha[k]), grid[None] * s)
    return scanned(stat, grid)


def chosen(datasets: list[Dataset], product: str) -> list[list[np.ndarray]]:
    """Bins of each dataset that make each point."""
    whole = [np.ones(d.counts.data.shape, dtype=bool) for d in datasets]
    if product == "light_curve":
        return [[ones & (k == n) for k, ones in enumerate(whole)] for n in range(len(datasets))]
    return [
        [
            ones & d.energy.contains_bin(low * u.TeV, high * u.TeV)[:, None, None]
            for d, ones in zip(datasets, whole, strict=True)
        ]
        for low, high in zip(EDGES[:-1], EDGES[1:], strict=True)
    ]


# ---- the judgement


def judged(name: str, sample: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean and width of the pulls and coverage of the limits of one point, with what they should be."""
    row: dict[str, Any] = {}
    if name.startswith("bright"):
        pulls, drawn = (pull(v["value"], v["errn"], v["errp"]) for v in (sample, wanted))
        row["missing"] = int(np.isnan(pulls).sum())
        pulls, drawn = pulls[np.isfinite(pulls)], drawn[np.isfinite(drawn)]
        spread, both = float(drawn.std()), 1 / len(pulls) + 1 / len(drawn)
        kurtosis = float(np.mean((drawn - drawn.mean()) ** 4) / spread**4)
        row["mean"] = (float(pulls.mean()), float(drawn.mean()), spread * np.sqrt(both))
        row["width"] = (float(pulls.std(ddof=1)), spread, spread * np.sqrt((kurtosis - 1) / 4 * both))
    else:
        row["missing"] = int(np.isnan(sample["ul"]).sum())
        held, share = float(np.mean(sample["ul"] >= 1)), float(np.mean(wanted["ul"] >= 1))
        # where all draws are covered, one of them might not have been
        variance = max(share * (1 - share), 1 / N_DRAWS)
        row["covered"] = (held, share, np.sqrt(variance * (1 / len(sample["ul"]) + 1 / N_DRAWS)))
    row["met"] = row["missing"] == 0 and all(
        abs(found - want) <= WIDE * error
        for found, want, error in (v for v in row.values() if isinstance(v, tuple))
    )
    return row


def judge(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Print a line per point; figures of all."""
    n = len(found)
    failed = sum(f["failed"] for f in found)
    figures: dict[str, Any] = {"seeds": n, "failed": failed, "rows": {}}
    print(f"{n} seeds, {failed} of {4 * n} fits without success; found, expected, standard deviation")
    good = failed == 0
    for tag, flux in (("bright", 1.0), ("faint", FAINT)):
        for kind, datasets in reduced(1, flux).items():
            models = add_backgrounds(datasets, true_models(kind, flux, is_known=True), ["norm"])
            off = np.mean([f[f"{tag} {kind} off"] for f in found], axis=0) if kind == "spectrum" else None
            for product in ("flux_points", "light_curve"):
                name = f"{tag} {kind} {product}"
                for k, keeps in enumerate(chosen(datasets, product)):
                    sample = {
                        column: np.array([f[name][column][k] for f in found]) for column in found[0][name]
                    }
                    row = judged(name, sample, expected(datasets, keeps, models, off, k))
                    figures["rows"][f"{name} {k}"] = row
                    good &= row["met"]
                    said = ", ".join(
                        f"{key} {v[0]:+.3f} ({v[1]:+.3f} ± {v[2]:.3f})"
                        for key, v in row.items()
                        if isinstance(v, tuple)
                    )
                    print(f"{name} {k}: {said}{'' if row['met'] else '   NOT MET'}", flush=True)
            # far more precise than each run: what all have in common shows here
            curves = np.array([np.mean(f[f"{tag} {kind} light_curve"]["value"]) for f in found])
            mean, error = float(curves.mean() - 1), float(curves.std(ddof=1) / np.sqrt(n))
            is_met = abs(mean) <= WIDE * error
            figures["rows"][f"{tag} {kind} all runs"] = {"flux": (mean, 0.0, error), "met": is_met}
            good &= is_met
            print(
                f"{tag} {kind} all runs: mean flux {mean:+.4f} ± {error:.4f} of the truth{'' if is_met else '   NOT MET'}",
                flush=True,
            )
    return {**figures, "targets_met": bool(good)}


def main() -> int:
    """Run all seeds, print the table, the figures as JSON, and whether the targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="12 seeds")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    n = 12 if arguments.quick else arguments.seeds
    with ProcessPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(analyse, range(1, n + 1), chunksize=2))
    figures = judge(found)
    print(json.dumps(figures))
    return 0 if figures["targets_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
