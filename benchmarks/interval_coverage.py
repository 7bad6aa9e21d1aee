"""Count how often intervals hold the truth, and how often nothing looks like a source.

Toys of two H.E.S.S. runs of MSH 15-52 (2 x 2 deg, 0.02 deg, 6 energies of 12 true ones) are drawn from a source and the
background that the responses predict, and fitted with the norm of each background free.

1. A power law times a symmetric Gaussian, five parameters free. Counted is how often the truth lies within 1 and within
   1.96 errors (Hesse), how often within the MINOS errors, and how often within the profile likelihood's intervals of
   68 % and 95 %: where the statistic at the truth, all else at its best, is at most 1 or 3.84 above the minimum.
2. A point of fixed place and index in toys without source and with 100 times the exposure, amplitude at least zero. Its test
   statistic follows half a chi2 of one degree of freedom and half a zero (Chernoff 1954): zero in half of the toys, above
   2.71 in 5 %, 5.41 in 1 %.
3. The same with the runs' own exposure, where few background counts lie under the point's high energies: its score (the
   statistic's slope at no source) is skew, and the fit must say zero as often as draws of the score alone are negative.

Targets: every share within three binomial errors of what it should be, and every fit a success; of 1000 toys of each
kind. ``--quick`` draws 40 and widens the ranges by the same rule. With ``--keep`` every toy is a line of JSON in a file as
soon as it is done: a run that was stopped goes on from there, and with ``--toys 0`` what the file holds is counted.

    python benchmarks/interval_coverage.py [--quick] [--toys N] [--jobs N] [--keep FILE]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
import json
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.fit.confidence import minos, profile
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.fit.npred import predict_counts
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.models_yaml import parse_models
from dl3flow.models.source import Models
from dl3flow.simulate.fake import fake

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DL3FLOW_DATA", ROOT.parent / "shared" / "data")) / "hess-dl3-dr1"
RUNS = (20136, 20282)
RISES, WIDTH_95 = {"68": 1.0, "95": 3.8415}, 1.96
SHARES = {"68": float(scipy.special.erf(1 / np.sqrt(2))), "95": 0.95}
NULL = {"zero": 0.5, "above 2.71": 0.05, "above 5.41": 0.01}
# times the exposure, where the score of a source is all but Gaussian (skewness 0.08); and draws of a score that is not
DEEP, N_SCORES = 100.0, 4000
WIDE = 3  # binomial errors
# of a test statistic that is zero but for the minimiser's tolerance
ZERO = 1e-3
SECTIONS = {
    "recipe": {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "228.53 deg", "lat": "-59.16 deg"},
        "width": "2 deg",
        "binsz": "0.02 deg",
        "proj": "TAN",
        "energy": {"min": "0.6 TeV", "max": "12 TeV", "nbin": 6},
        "energy_true": {"min": "0.4 TeV", "max": "25 TeV", "nbin": 12},
        "binsz_irf": "0.4 deg",
    },
    "safe_mask": [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": "2 deg"}],
    "background": None,
}
SOURCE = {
    "name": "s",
    "type": "SkyModel",
    "spectral": {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "index", "value": 2.3},
            {"name": "amplitude", "value": 2.5e-11, "unit": "cm-2 s-1 TeV-1"},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
        ],
    },
    "spatial": {
        "type": "GaussianSpatialModel",
        "frame": "icrs",
        "parameters": [
            {"name": "lon_0", "value": 228.537, "unit": "deg"},
            {"name": "lat_0", "value": -59.166, "unit": "deg"},
            {"name": "sigma", "value": 0.1, "unit": "deg"},
            {"name": "e", "value": 0.0, "frozen": True},
            {"name": "phi", "value": 0.0, "unit": "deg", "frozen": True},
        ],
    },
}
NOTHING = {
    "name": "s",
    "type": "SkyModel",
    "spectral": {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "index", "value": 2.3, "frozen": True},
            {"name": "amplitude", "value": 1e-13, "unit": "cm-2 s-1 TeV-1", "min": 0.0},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
        ],
    },
    "spatial": {
        "type": "PointSpatialModel",
        "frame": "icrs",
        "parameters": [
            {"name": "lon_0", "value": 228.537, "unit": "deg", "frozen": True},
            {"name": "lat_0", "value": -59.166, "unit": "deg", "frozen": True},
        ],
    },
}


@lru_cache(maxsize=2)
def runs(times: float = 1.0) -> tuple[Dataset, ...]:
    """The two runs, reduced once a process, with their exposure and background multiplied."""
    if times != 1:
        return tuple(
            replace(
                run,
                exposure=run.exposure.with_data(times * run.exposure.data),
                background=ExpectedCounts(run.counts.with_data(times * run.mu_bkg)),
            )
            for run in runs()
        )
    chain = parse_chain(SECTIONS, "benchmark")
    entries = {e.obs_id: e for e in read_index(DATA)}
    return tuple(reduce_observation(read_observation(entries[r], DATA), f"run-{r}", chain) for r in RUNS)


def models_of(source: dict[str, Any]) -> Models:
    models = parse_models({"components": [source]}, "benchmark")
    return add_backgrounds(runs(), models, ["norm"])


def drawn(seed: int, models: Models | None, times: float = 1.0) -> list[Dataset]:
    """The runs with counts drawn from the models, or from the background alone."""
    toys = []
    for k, run in enumerate(runs(times)):
        signal = np.zeros(run.counts.data.shape)
        if models is not None:
            signal = np.maximum(predict_counts(run, models)[0], 0.0)
        toy = fake(run, signal, 2 * seed + k)
        toys.append(replace(toy, background=run.background))
    return toys


def cover(seed: int) -> dict[str, Any]:
    """Which intervals of one toy hold the truth."""
    warnings.simplefilter("ignore")
    models = models_of(SOURCE)
    truth = {n: p.value for n, p in models.parameters().items() if not p.frozen and n.startswith("s.")}
    toys = drawn(seed, models)
    result = fit(toys, models)
    intervals = minos(toys, result, tuple(truth))
    held: dict[str, dict[str, bool]] = {}
    for name, value in truth.items():
        p = result.parameter(name)
        rise = float(profile(toys, result, name, np.array([value])).stat[0])
        minus, plus = intervals[name]
        # an interval without an end has all values on that side
        is_held = not (value < p.value - minus or value > p.value + plus)
        rows = {
            "hesse 68": abs(p.value - value) <= p.error,
            "minos 68": is_held,
            "profile 68": rise <= RISES["68"],
            "hesse 95": abs(p.value - value) <= WIDTH_95 * p.error,
            "profile 95": rise <= RISES["95"],
        }
        for kind, is_inside in rows.items():
            held.setdefault(kind, {})[name] = bool(is_inside)
    return {"success": result.success, "message": result.message, "held": held}


def nothing(seed: int, times: float = 1.0) -> dict[str, Any]:
    """Test statistic of a source that is not there."""
    warnings.simplefilter("ignore")
    toys = drawn(seed, None, times)
    models = models_of(NOTHING)
    result = fit(toys, models)
    without = fit(toys, replace(models, sources=()))
    return {"success": result.success, "message": result.message, "ts": without.stat - result.stat}


def deep(seed: int) -> dict[str, Any]:
    """As `nothing`, with many counts."""
    return nothing(seed, DEEP)


def negative_scores() -> float:
    """Share of draws without source in which the statistic falls from no source to a negative one.

    With each background's norm at its best, N / sum b, the score is sum n s / (norm b) - sum s.
    """
    random, score = np.random.default_rng(1), np.zeros(N_SCORES)
    models = models_of(NOTHING)
    for run in runs():
        signal, background = (part[run.mask] for part in predict_counts(run, models))
        for k in range(N_SCORES):
            counts = random.poisson(background)
            norm, hit = counts.sum() / background.sum(), counts > 0
            score[k] += (counts[hit] * signal[hit] / (norm * background[hit])).sum() - signal.sum()
    return float(np.mean(score <= 0))


KINDS = {"cover": cover, "deep": deep, "nothing": nothing}
# where the seeds of a kind begin
FIRST = {"cover": 0, "deep": 2 * 10**6, "nothing": 10**6}


def toy(job: tuple[str, int]) -> dict[str, Any]:
    """One toy of one kind, with its seed."""
    kind, seed = job
    return {"kind": kind, "seed": seed, **KINDS[kind](seed)}


def collect(n: int, jobs: int, keep: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Toys of each kind: those that were kept, and what is missing of the first ``n``, all kinds in turn."""
    lines = keep.read_text().splitlines() if keep is not None and keep.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    done = {(r["kind"], r["seed"]) for r in rows}
    wanted = [(kind, first + k) for k in range(n) for kind, first in FIRST.items()]
    wanted = [job for job in wanted if job not in done]
    with contextlib.ExitStack() as stack:
        file = None if keep is None else stack.enter_context(keep.open("a"))
        pool = stack.enter_context(ProcessPoolExecutor(jobs)) if jobs > 1 else None
        for found in map(toy, wanted) if pool is None else pool.map(toy, wanted, chunksize=5):
            rows.append(found)
            if file is not None:
                file.write(json.dumps(found) + "\n")
                file.flush()
    return {kind: [r for r in rows if r["kind"] == kind] for kind in KINDS}


def row(title: str, found: float, expected: float, n: float) -> bool:
    """Print one share, and say whether it is within three binomial errors."""
    error = np.sqrt(expected * (1 - expected) / n)
    is_met = bool(abs(found - expected) <= WIDE * error)
    print(
        f"{title:32s} {found:7.3f} {expected:7.3f} ± {error:.3f}{'' if is_met else '   NOT MET'}", flush=True
    )
    return is_met


def main() -> int:
    """Draw, fit, print the tables, the figures as JSON, and whether the targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="40 toys")
    parser.add_argument("--toys", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--keep", type=Path, help="file of JSON lines, one per toy, that is gone on from")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(
            f"{DATA}: the H.E.S.S. data release is absent: name its parent in DL3FLOW_DATA", file=sys.stderr
        )
        return 1
    n = 40 if arguments.quick else arguments.toys
    toys = collect(n, arguments.jobs, arguments.keep)
    if not all(toys.values()):
        print("there is no toy of one kind: ask for some by --toys", file=sys.stderr)
        return 1
    covered, empty, few = toys["cover"], toys["deep"], toys["nothing"]
    failed = [toy for rows in toys.values() for toy in rows if not toy["success"]]
    good = not failed
    figures: dict[str, Any] = {
        "toys": {kind: len(rows) for kind, rows in toys.items()},
        "failed": len(failed),
        "coverage": {},
    }
    print(f"{figures['toys']} toys, {len(failed)} fits without success")
    for toy in failed:
        print(f"{toy['kind']} {toy['seed']}: {toy['message']}")
    print(f"{'share of toys':32s}   found  wanted")
    for kind in covered[0]["held"]:
        for name in covered[0]["held"][kind]:
            share = float(np.mean([f["held"][kind][name] for f in covered]))
            figures["coverage"].setdefault(name, {})[kind] = share
            good &= row(f"{name} in {kind} %", share, SHARES[kind.split()[1]], len(covered))
    ts = np.array([f["ts"] for f in empty])
    shares = {
        "zero": float(np.mean(np.abs(ts) <= ZERO)),
        "above 2.71": float(np.mean(ts > scipy.stats.chi2.isf(0.1, 1))),
        "above 5.41": float(np.mean(ts > scipy.stats.chi2.isf(0.02, 1))),
    }
    for key, share in shares.items():
        good &= row(f"TS of nothing {key}", share, NULL[key], len(empty))
    zero, expected = float(np.mean([abs(f["ts"]) <= ZERO for f in few])), negative_scores()
    # the expectation is drawn too
    n_both = 1 / (1 / len(few) + 1 / N_SCORES)
    good &= row("TS of nothing zero, few counts", zero, expected, n_both)
    positive = ts[ts > ZERO]
    lowest = min(f["ts"] for f in [*empty, *few])
    p_value = float(scipy.stats.kstest(positive, scipy.stats.chi2(1).cdf).pvalue) if len(positive) else 0.0
    print(f"{'TS above zero as chi2, p':32s} {p_value:7.3f}; lowest TS {lowest:.1e}")
    good &= p_value > 1e-3 and lowest > -ZERO
    figures["null"] = {**shares, "p_value": p_value, "lowest": lowest}
    figures["few counts"] = {"zero": zero, "expected": expected}
    figures["targets_met"] = bool(good)
    print(json.dumps(figures))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
