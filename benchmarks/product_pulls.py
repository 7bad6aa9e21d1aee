"""Pulls of flux points and light curves, and coverage of their upper limits, from simulated DL3 through the whole chain.

The demo's four runs are simulated with many seeds, written as DL3 and read (those of 1.), reduced to cubes with a field-of-view background
and to spectra with reflected regions, fitted jointly, and made into flux points and a light curve:

1. with the demo's source, whose spectrum is fitted (`truth_pulls.py` is about its position): the pull of each point is its distance from
   the true flux in the error on that side;
2. with 5 % of its flux, its spectrum taken as known: how often the truth lies below the upper limit (two sigma).

At finite counts pulls are not quite of mean 0 and width 1, nor limits of 97.7 %: the expectation of each is that of 4000
draws of the counts that the truth predicts (in bins of like signal over background, which loses nothing), whose
likelihood is scanned on a grid.

Predicted counts follow the field's conventions, each good to a per cent, which the mean flux of 500 seeds resolves. Measured
on the bins and pixels of `config/analyses/demo.yaml` with 1000 times the photons, and what is done about it here:

- area, dispersion and containment are those at the centre of a bin of true energy. Ten bins per decade predict 0.5 % too many
  counts of this source, whose photons are fewest where half of them pass the lowest energy, and its flux comes out as much too
  low: 40 are taken, which leave less than 0.1 %;
- a point between pixels is shared among the nearest four, which widens it by half a pixel in each direction, and the flux comes
  out high, the more the less it stands out of the background: by 0.7 % on the corner of four pixels of 0.04 deg, by 2.6 % with
  5 % of its flux. Here the source lies on the centre of a pixel;
- the exposure is that where photons are seen, not where they come from. The simulated area is linear between offsets of 0, 0.5
  and 1 deg, with a kink at the 0.5 deg of the source, whose exposure is 0.5 % more than the mean over its point spread: cubes
  find as much more flux. The expectation knows: its draws are predicted with the source's own exposure;
- the background has a gradient: that of the region is 3 to 6 % more or less than its reflected regions say, by turns. The
  expectation draws the counts in the region from the response.

Targets: mean and width of the pulls of each point, and coverage of each limit, within three standard deviations of their
expectation, of 500 seeds, the mean flux of all runs within three of its expectation; every fit a success. ``--quick`` does 12
and widens the ranges by the same rule.

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
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.chain import Chain, parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
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
# 40 per decade: ten would bias predicted counts by half a per cent
ENERGY_TRUE = {"min": "0.2 TeV", "max": "100 TeV", "nbin": 108}
# an odd number of pixels: the source is on the centre of one
WIDTH = "4.04 deg"
SPECTRUM: dict[str, Any] = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.12)",
        "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 8},
        "energy_true": ENERGY_TRUE,
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
    cube = {**cube, "recipe": {**cube["recipe"], "width": WIDTH, "energy_true": ENERGY_TRUE}}
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


def region_backgrounds(seed: int) -> list[np.ndarray]:
    """Background counts in the region by the response of each run; the reflected regions are elsewhere on the gradient."""
    simulation = described(seed, 1.0)
    chain = parse_chain({k: v for k, v in SPECTRUM.items() if k != "background"}, "")
    found = []
    for entry in observation_entries(simulation):
        background = reduce_observation(
            simulate_observation(simulation, entry.obs_id), str(entry.obs_id), chain
        ).background
        assert isinstance(background, ExpectedCounts)
        found.append(background.counts.data)
    return found


def with_own_exposure(dataset: Dataset) -> Dataset:
    """A dataset whose exposure is that of the source everywhere, as photons have it wherever they are seen."""
    j, i = dataset.exposure.geom.nearest(dataset.geom.center)
    own = dataset.exposure.data[:, j, i][:, None, None]
    return replace(
        dataset, exposure=dataset.exposure.with_data(np.broadcast_to(own, dataset.exposure.data.shape).copy())
    )


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
    datasets: list[Dataset],
    keeps: list[np.ndarray],
    models: Models,
    region: tuple[np.ndarray, list[np.ndarray]] | None,
    seed: int,
) -> dict[str, np.ndarray]:
    """Draws of the counts that the truth predicts in the chosen bins, and what their likelihoods say.

    ``region`` are the off counts of each dataset, the mean of all seeds, and the background in the region; None where the
    background is known.
    """
    rng = np.random.default_rng(seed)
    keeps = [keep & d.mask for d, keep in zip(datasets, keeps, strict=True)]

    def joined(values: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([v.reshape(keep.shape)[keep] for v, keep in zip(values, keeps, strict=True)])

    predicted = [predict_counts(d, models) for d in datasets]
    signal = joined(mu for mu, _ in predicted)
    if region is not None:
        alpha = joined(d.background.alpha for d in datasets)  # type: ignore[union-attr]
        off, on = (joined(np.asarray(v) for v in values) for values in region)
        return drawn_measured(signal, on, alpha, off, rng)
    background = joined(mu for _, mu in predicted)
    truth = joined(predict_counts(with_own_exposure(d), models)[0] for d in datasets)
    some = background > 0
    return drawn_known(signal[some], truth[some], background[some], rng)


def grid_around(error: float, lowest: float) -> np.ndarray:
    """Strengths about 1 to nine errors, from the lowest possible one on."""
    return np.linspace(max(1 - 9 * error, lowest), 1 + 12 * error, N_GRID)


def drawn_known(
    signal: np.ndarray, truth: np.ndarray, background: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draws of the truth with known backgrounds, scanned with the signal; bins of like signal over background are summed."""
    lowest = -float(np.min(background / np.maximum(signal, 1e-300)))
    ratio = np.log(np.maximum(signal / background, 1e-6))
    group = ((ratio - ratio.min()) / (np.ptp(ratio) + 1e-9) * N_RATIOS).astype(int)
    s, t, b = (np.bincount(group, values, N_RATIOS) for values in (signal, truth, background))
    s, t, b = (values[s > 0] for values in (s, t, b))
    grid = grid_around(float(1 / np.sqrt(np.sum(s**2 / (s + b)))), lowest)
    n = rng.poisson(t + b, (N_DRAWS, len(s)))
    mu = np.maximum(grid[:, None] * s + b, 1e-25)
    return scanned(2 * (mu.sum(axis=1)[None] - n @ np.log(mu).T), grid)


def drawn_measured(
    signal: np.ndarray, mu_on: np.ndarray, alpha: np.ndarray, mu_off: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draws with backgrounds, ``mu_on`` in the region, that are measured in off regions."""
    grid = grid_around(
        float(1 / np.sqrt(np.sum(signal**2 / (signal + alpha * (1 + alpha) * mu_off)))), -np.inf
    )
    n = rng.poisson(signal + mu_on, (N_DRAWS, len(signal))).astype(float)
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
            region = None
            if kind == "spectrum":
                off = np.mean([f[f"{tag} {kind} off"] for f in found], axis=0)
                region = (off, region_backgrounds(1))
            curve = []
            for product in ("flux_points", "light_curve"):
                name = f"{tag} {kind} {product}"
                for k, keeps in enumerate(chosen(datasets, product)):
                    sample = {
                        column: np.array([f[name][column][k] for f in found]) for column in found[0][name]
                    }
                    wanted = expected(datasets, keeps, models, region, k)
                    if product == "light_curve":
                        curve.append(wanted["value"])
                    row = judged(name, sample, wanted)
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
            drawn = np.mean(curve, axis=0)
            mean, want = float(curves.mean() - 1), float(drawn.mean() - 1)
            error = float(np.hypot(curves.std(ddof=1) / np.sqrt(n), drawn.std() / np.sqrt(N_DRAWS)))
            is_met = abs(mean - want) <= WIDE * error
            figures["rows"][f"{tag} {kind} all runs"] = {"flux": (mean, want, error), "met": is_met}
            good &= is_met
            print(
                f"{tag} {kind} all runs: mean flux {mean:+.4f} ({want:+.4f} ± {error:.4f}) off the truth"
                f"{'' if is_met else '   NOT MET'}",
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
