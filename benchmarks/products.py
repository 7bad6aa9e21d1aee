"""Time the products of a fit against gammapy on the same files, and check that both made the same.

Both sides read the files that were written once, and make the product with one thread, alternating, each in a process of its
own. CPU time is that of the library calls that make the product, set-up included; reading is not, but for the light curve, nor are imports:
a first call of ours is not counted, nor is one of the peer where it takes less than seconds.

| case | what |
|---|---|
| points-3d | flux points of the four H.E.S.S. Crab runs stacked: 5 x 5 deg, 0.02 deg, 24 energies in 12 points, errors, limits |
| points-joint | the same jointly of the four runs |
| points-1d | flux points of their four spectra with off counts, jointly: 12 points, errors, limits |
| light-curve | from DL3 to the table: the night of the flare of PKS 2155-304, 15 runs cut into 44 bins of ten minutes |
| ts-map | test statistic and flux of a point on each of the 250 x 250 pixels of the stack, energies summed; numpy |
| ts-map-compiled | the same with `engine: numba`, where numba is installed (extra `fast`); compiled before |
| events | an hour of CTAO South (prod5) on a Gaussian source: about 25,000 gamma rays and all background events |
| excess-map | excess and significance within 0.1 deg of each of the 250 x 250 pixels of the stack |

The peer's time for events is that of the sampler alone, without the maps that it needs to be made before.

Targets (the peer's time over ours): 100 for flux points, 20 for the light curve, 7 and 25 for test statistics, 3 for events, 2 for
the excess map. The same results: positive norms within 0.02 of an error,
errors and limits within 1 %, test statistics within 1 % or 0.1; counts exactly, sum and peak of the excess and significances
within 1e-3; the test statistic of each pixel within 1 % or 0.1; events in numbers within five standard deviations, in energy, distance
and time with a KS probability above 1e-4. The peer divides pixels of its point-spread kernels by 1 to 4, which is not converged: maps
of the test statistic and points of the stack are compared with those that it makes, untimed, dividing by 20.

    python benchmarks/products.py [--quick] [--cases NAME ...]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from product_cases import DATA, EVENTS, FLARE_BINS, ROOT, Arrays, prepare
from product_ours import OURS
from product_peer import PEER

TARGETS = {
    "points-3d": 100,
    "points-joint": 100,
    "points-1d": 100,
    "light-curve": 20,
    "ts-map": 7,
    "ts-map-compiled": 25,
    "events": 3,
    "excess-map": 2,
}
QUICK = ("points-1d", "events", "excess-map")
# compared with kernels of the peer that are divided by 20
FINE = ("points-3d", "ts-map", "ts-map-compiled")
# cases in which imports are no small part of the peer's first call either
WARMED = ("events", "excess-map")
REPEATS = {"excess-map": 5, "points-1d": 3, "light-curve": 2}
# of an error, of the value, of the test statistic or absolute
NORM, ERROR, TS, TS_ABSOLUTE, MAP = 0.02, 0.01, 0.01, 0.1, 1e-3
BARELY = 1e-6


SIDES = {"ours": OURS, "peer": PEER}

# ---- the same results


def worst(differences: np.ndarray) -> float:
    """Largest, and infinite where a number is missing on one side only."""
    return float(np.max(np.where(np.isnan(differences), np.inf, np.abs(differences)), initial=0.0))


def compare_points(ours: Arrays, peer: Arrays) -> dict[str, tuple[float, float]]:
    """Differences of flux points, each with its target.

    Compared are points with a positive norm. Below, the peer goes on to strengths that predict negative counts, and
    measures its limit from there; ours stops where the first prediction vanishes, and measures from zero.
    """
    is_positive = (ours["norm"] > BARELY) & (peer["norm"] > BARELY)
    one_sided = (ours["norm"] > BARELY) != (peer["norm"] > BARELY)
    ours, peer = ({name: values[is_positive] for name, values in side.items()} for side in (ours, peer))
    found = {
        "points of one side": (float(one_sided.sum()), 0.0),
        "counts": (worst(ours["counts"] - peer["counts"]), 0.0),
        "norm": (worst((ours["norm"] - peer["norm"]) / ours["norm_err"]), NORM),
    }
    for name in ("norm_err", "norm_errn", "norm_errp", "norm_ul"):
        found[name] = (worst(ours[name] / peer[name] - 1), ERROR)
    apart = np.abs(ours["ts"] - peer["ts"]) / np.maximum(TS * np.abs(peer["ts"]), TS_ABSOLUTE)
    found["ts (of 1 % or 0.1)"] = (worst(apart), 1.0)
    return found


def compare_curve(ours: Arrays, peer: Arrays) -> dict[str, tuple[float, float]]:
    """Differences of light curves: also where the bins begin, in seconds, and the flux that norms refer to."""
    return {
        "bins": (float(abs(len(ours["norm"]) - FLARE_BINS) + abs(len(peer["norm"]) - FLARE_BINS)), 0.0),
        "time_min": (worst((ours["time_min"] - peer["time_min"]) * 86400), 1e-3),
        "ref_flux": (worst(ours["ref_flux"] / peer["ref_flux"] - 1), 1e-6),
        **compare_points(ours, peer),
    }


def compare_excess(ours: Arrays, peer: Arrays) -> dict[str, tuple[float, float]]:
    """Differences of excess maps."""
    both = np.isfinite(ours["sqrt_ts"]) & np.isfinite(peer["sqrt_ts"])
    peak = np.unravel_index(np.nanargmax(peer["sqrt_ts"]), both.shape)
    one_sided = np.isfinite(ours["sqrt_ts"]) != np.isfinite(peer["sqrt_ts"])
    return {
        "pixels of one side": (float(one_sided.sum()), 0.0),
        "counts": (worst((ours["counts"] - peer["counts"])[both]), 0.0),
        "sum of excess": (abs(ours["excess"][both].sum() / peer["excess"][both].sum() - 1), MAP),
        "excess at peak": (abs(float(ours["excess"][peak] / peer["excess"][peak]) - 1), MAP),
        "sqrt_ts at peak": (abs(float(ours["sqrt_ts"][peak] / peer["sqrt_ts"][peak]) - 1), MAP),
        "sqrt_ts": (worst((ours["sqrt_ts"] - peer["sqrt_ts"])[both]), 1e-2),
    }


def compare_ts(ours: Arrays, peer: Arrays) -> dict[str, tuple[float, float]]:
    """Differences of maps of the test statistic."""
    both = np.isfinite(ours["ts"]) & np.isfinite(peer["ts"])
    one_sided = np.isfinite(ours["ts"]) != np.isfinite(peer["ts"])
    peak = np.unravel_index(np.nanargmax(peer["ts"]), both.shape)
    apart = np.abs(ours["ts"] - peer["ts"]) / np.maximum(TS * np.abs(peer["ts"]), TS_ABSOLUTE)
    # the peer tries pixels at the edge that no count and no expectation belongs to
    return {
        "share of pixels of one side": (float(one_sided.sum() / both.sum()), 1e-3),
        "ts (of 1 % or 0.1)": (worst(apart[both]), 1.0),
        "ts at peak": (abs(float(ours["ts"][peak] / peer["ts"][peak]) - 1), MAP),
        "norm": (worst(((ours["norm"] - peer["norm"]) / peer["norm_err"])[both]), 0.1),
        # at the lowest strength, where the likelihood has no minimum, only the peer gives a width
        "norm_err": (
            worst((ours["norm_err"] / peer["norm_err"] - 1)[np.isfinite(ours["norm_err"]) & both]),
            0.05,
        ),
    }


def same_histograms(one: np.ndarray, other: np.ndarray) -> float:
    """Probability of a larger chi2 between the numbers of two samples in the energy bins of the peer."""
    from scipy.special import chdtrc

    edges = np.geomspace(*EVENTS["energy"], 31)
    n, m = (np.histogram(values, edges)[0] for values in (one, other))
    n, m = n[n + m >= 20], m[n + m >= 20]
    return float(chdtrc(len(n), np.sum((n - m) ** 2 / (n + m))))


def compare_events(ours: Arrays, peer: Arrays) -> dict[str, tuple[float, float]]:
    """Numbers of events, in standard deviations, and how improbable it is that both are drawn from the same: -log10 p."""
    from scipy.stats import ks_2samp

    low, high = EVENTS["energy"]
    # the peer's maps end at their energies and edges
    kept = [
        {
            name: values[(side["energy"] > low) & (side["energy"] < high) & (side["distance"] < 2)]
            for name, values in side.items()
        }
        for side in (ours, peer)
    ]
    found = {}
    for what, is_source in (("source", True), ("background", False)):
        own = [{k: v[side["is_source"] == is_source] for k, v in side.items()} for side in kept]
        n, m = (len(side["energy"]) for side in own)
        found[f"{what} events (sigma)"] = (abs(n - m) / float(np.sqrt(n + m)), 5.0)
        for name in ("energy", "distance", "time"):
            if name == "energy" and not is_source:
                # within its bins the peer draws background energies flat in their logarithm
                p = same_histograms(*(side["energy"] for side in own))
            else:
                p = float(ks_2samp(own[0][name], own[1][name]).pvalue)
            found[f"{what} {name} (-log10 p)"] = (float(-np.log10(max(p, 1e-99))), 4.0)
    return found


COMPARE: dict[str, Callable[[Arrays, Arrays], dict[str, tuple[float, float]]]] = {
    "points-3d": compare_points,
    "points-joint": compare_points,
    "points-1d": compare_points,
    "light-curve": compare_curve,
    "ts-map": compare_ts,
    "ts-map-compiled": compare_ts,
    "events": compare_events,
    "excess-map": compare_excess,
}


# ---- the processes


def work(side: str) -> None:
    """Make the products asked for on standard input, one JSON value per line; arrays go into files."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    for line in sys.stdin:
        made = json.loads(line)
        call, arrays = SIDES[side][made["case"]](made)
        cpu, wall = time.process_time(), time.perf_counter()
        product = call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        path = Path(made["folder"]) / f"{side}.npz"
        np.savez(path, **arrays(product))  # type: ignore[arg-type]
        print(json.dumps({"cpu": cpu, "wall": wall, "arrays": str(path)}), file=answers, flush=True)


@contextlib.contextmanager
def worker(side: str) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """Process of one side; the function it yields takes what was prepared, and gives times and file."""
    found = {**os.environ, "PYTHONWARNINGS": "ignore"}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, __file__, "--worker", side]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=found
        )
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin, process.stdout

        def ask(made: Mapping[str, Any]) -> dict[str, Any]:
            to.write(json.dumps(made) + "\n")
            to.flush()
            answer = back.readline()
            if not answer:
                said.seek(0)
                raise RuntimeError(f"the process of {side} ended:\n{said.read()[-3000:]}")
            return dict(json.loads(answer))

        with process:
            yield ask
            to.close()


def measure(
    made: Mapping[str, Any], ask: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]], repeats: int
) -> dict[str, Any]:
    """Times of one case, and how far apart the products are."""
    times: dict[str, dict[str, list[float]]] = {side: {"cpu": [], "wall": []} for side in ask}
    arrays: dict[str, Arrays] = {}
    # what is imported or compiled at the first call
    for side in ask if made["case"] in WARMED else ("ours",):
        ask[side](made)
    for _ in range(repeats):
        for side in ("ours", "peer", "ours"):
            answer = ask[side](made)
            for clock in ("cpu", "wall"):
                times[side][clock].append(answer[clock])
            with np.load(answer["arrays"]) as file:
                arrays[side] = dict(file)
    if made["case"] in FINE:
        with np.load(ask["peer"]({**made, "is_fine": True})["arrays"]) as file:
            arrays["peer"] = dict(file)
    median = {c: {s: statistics.median(times[s][c]) for s in times} for c in ("cpu", "wall")}
    same = COMPARE[made["case"]](arrays["ours"], arrays["peer"])
    ratio = median["cpu"]["peer"] / median["cpu"]["ours"]
    return {
        **median["cpu"],
        "ratio": ratio,
        "wall_ratio": median["wall"]["peer"] / median["wall"]["ours"],
        "times": times,
        "same": {name: difference for name, (difference, _) in same.items()},
        "met": {
            "ratio": ratio >= TARGETS[made["case"]],
            **{name: bool(difference <= target) for name, (difference, target) in same.items()},
        },
    }


def main() -> int:
    """Measure, print the table, the figures as JSON, and whether the targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)}, once each")
    parser.add_argument("--cases", nargs="+", choices=TARGETS, help="only these")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return 0
    cases = arguments.cases or (QUICK if arguments.quick else tuple(TARGETS))
    if importlib.util.find_spec("numba") is None and "ts-map-compiled" in cases:
        print(
            "ts-map-compiled is left out: numba is not installed (pip install dl3flow[fast])", file=sys.stderr
        )
        cases = tuple(case for case in cases if case != "ts-map-compiled")
    if not (DATA / "hess-dl3-dr1").is_dir():
        print(f"{DATA}: the public data are absent: name their folder in DL3FLOW_DATA", file=sys.stderr)
        return 1
    sys.path.insert(0, str(ROOT / "src"))
    figures: dict[str, Any] = {}
    print(
        f"CPU s of a product\n{'case':14s} {'ours':>9s} {'peer':>9s} {'ratio':>8s} {'wall':>8s} {'target':>6s}   largest differences",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name, worker("ours") as ours, worker("peer") as peer:
        for case in cases:
            row = measure(
                prepare(case, Path(name)),
                {"ours": ours, "peer": peer},
                1 if arguments.quick else REPEATS.get(case, 2),
            )
            figures[case] = row
            same = ", ".join(f"{key} {value:.1e}" for key, value in row["same"].items())
            print(
                f"{case:14s} {row['ours']:9.4f} {row['peer']:9.3f} {row['ratio']:8.1f} {row['wall_ratio']:8.1f} "
                f"{TARGETS[case]:6d}   {same}",
                flush=True,
            )
            missed = [key for key, is_met in row["met"].items() if not is_met]
            if missed:
                print(f"{case:14s} NOT MET: {', '.join(missed)}", flush=True)
    print(json.dumps(figures))
    return 0 if all(all(row["met"].values()) for row in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
