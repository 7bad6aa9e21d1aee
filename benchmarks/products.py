"""Time the products of a fit against gammapy on the same files, and check that both made the same.

Both sides read the files that were written once, and make the product with one thread, alternating, each in a process of its
own. CPU time is that of the library calls that make the product, set-up included: reading, and imports, are not.

| case | what |
|---|---|
| points-3d | flux points of the four H.E.S.S. Crab runs stacked: 5 x 5 deg, 0.02 deg, 24 energies in 12 points, errors, limits |
| points-joint | the same jointly of the four runs |
| points-1d | flux points of their four spectra with off counts, jointly: 12 points, errors, limits |
| excess-map | excess and significance within 0.1 deg of each of the 250 x 250 pixels of the stack |

Targets (the peer's time over ours): 100 for flux points, 2 for the excess map. The same results: positive norms within 0.02 of an error,
errors and limits within 1 %, test statistics within 1 % or 0.1; counts exactly, sum and peak of the excess and significances
within 1e-3.

    python benchmarks/products.py [--quick] [--cases NAME ...]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
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

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DL3FLOW_DATA", ROOT.parent / "shared" / "data"))
TARGETS = {"points-3d": 100, "points-joint": 100, "points-1d": 100, "excess-map": 2}
QUICK = ("points-1d", "excess-map")
REPEATS = {"excess-map": 5, "points-1d": 3}
# of an error, of the value, of the test statistic or absolute
NORM, ERROR, TS, TS_ABSOLUTE, MAP = 0.02, 0.01, 0.01, 0.1, 1e-3
BARELY = 1e-6
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
SECTIONS = {"points-3d": CUBE, "points-joint": CUBE, "points-1d": SPECTRUM, "excess-map": CUBE}
POINT_EDGES = np.geomspace(0.5, 50, 13)
RADIUS = 0.1
COLUMNS = ("norm", "norm_err", "norm_errn", "norm_errp", "norm_ul", "ts")


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


def prepare(case: str, folder: Path) -> dict[str, Any]:
    """Write the datasets, their fit and its models; names, files and kind."""
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
    chain = parse_chain(SECTIONS[case], "benchmark")
    entries = [e for e in read_index(root) if e.obs_id in CRAB]
    datasets = [reduce_observation(read_observation(e, root), f"run-{e.obs_id}", chain) for e in entries]
    if case in ("points-3d", "excess-map"):
        assert chain.geometries is not None
        datasets = [stack(datasets, "stacked", *chain.geometries)]
    is_map, names = case != "points-1d", [d.name for d in datasets]
    place, provenance = folder / case, Provenance("benchmark", "", "{}", {}, {})
    place.mkdir()
    result = fit(datasets, parse_models(crab_models(names, is_map=is_map), "benchmark"))
    for dataset in datasets:
        write_fits_dataset(place / f"{dataset.name}.fits", dataset, provenance)
    write_fit(place / "fit.json", result, provenance)
    write_models(place / "models.yaml", result.models, result.free, result.covariance, provenance)
    return {"case": case, "names": names, "folder": str(place), "is_map": is_map}


# A side of a case: a function of what was prepared, that sets up untimed and returns the timed call, and one that takes
# arrays by name from what the call returned.
Arrays = dict[str, np.ndarray]
Side = Callable[[Mapping[str, Any]], tuple[Callable[[], Any], Callable[[Any], Arrays]]]


# ---- ours


def read_ours(made: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """Datasets and fit."""
    from dl3flow.io.fits_datasets import read_fits_dataset
    from dl3flow.io.products import read_fit

    folder = Path(made["folder"])
    datasets = [read_fits_dataset(folder / f"{name}.fits", name) for name in made["names"]]
    return datasets, read_fit(folder / "fit.json")


def our_points(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Flux points."""
    from dl3flow.estimators import TABLES

    datasets, result = read_ours(made)
    energy = {"edges": [f"{edge!r} TeV" for edge in POINT_EDGES.tolist()]}
    entry = {"name": "flux_points", "source": "crab", "energy": energy}
    estimate, options = TABLES.bind(entry, "benchmark")

    def arrays(product: Any) -> Arrays:
        table = product.table
        assert np.allclose(np.asarray(table["e_min"]), POINT_EDGES[:-1])
        found = {name: np.asarray(table[name], dtype=float) for name in COLUMNS}
        return {**found, "counts": np.asarray(table["counts"])}

    return lambda: estimate(datasets, result, **options), arrays


def our_excess(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Excess map."""
    from dl3flow.estimators import MAPS

    datasets, _ = read_ours(made)
    entry = {"name": "excess_map", "correlation_radius": f"{RADIUS} deg"}
    estimate, options = MAPS.bind(entry, "benchmark")

    def arrays(product: Any) -> Arrays:
        return {name: product.maps[name].data for name in ("counts", "excess", "sqrt_ts")}

    return lambda: estimate(datasets, None, **options), arrays


# ---- the peer


def read_peer(made: Mapping[str, Any]) -> Any:
    """Datasets with their models."""
    from gammapy.datasets import Datasets, MapDataset, SpectrumDatasetOnOff
    from gammapy.modeling.models import Models

    folder = Path(made["folder"])
    reader = MapDataset if made["is_map"] else SpectrumDatasetOnOff
    datasets = Datasets([reader.read(folder / f"{name}.fits", name=name) for name in made["names"]])
    datasets.models = Models.read(folder / "models.yaml")
    return datasets


def peer_points(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Flux points."""
    import astropy.units as u
    from gammapy.estimators import FluxPointsEstimator

    datasets = read_peer(made)
    estimator = FluxPointsEstimator(
        source="crab", energy_edges=POINT_EDGES * u.TeV, selection_optional=["errn-errp", "ul"]
    )

    def arrays(product: Any) -> Arrays:
        table = product.to_table(sed_type="likelihood")
        found = {name: np.asarray(table[name], dtype=float) for name in COLUMNS}
        counts = np.asarray(table["counts"]).reshape(len(table), -1).sum(axis=1)
        return {**found, "counts": counts}

    return lambda: estimator.run(datasets), arrays


def peer_excess(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Excess map, of the background alone."""
    import astropy.units as u
    from gammapy.estimators import ExcessMapEstimator

    (dataset,) = read_peer(made)
    dataset.models = []
    estimator = ExcessMapEstimator(correlation_radius=RADIUS * u.deg)

    def arrays(product: Any) -> Arrays:
        maps = {"counts": product.counts, "excess": product.npred_excess, "sqrt_ts": product.sqrt_ts}
        return {name: found.data[0] for name, found in maps.items()}

    return lambda: estimator.run(dataset), arrays


SIDES: dict[str, dict[str, Side]] = {
    "ours": {
        "points-3d": our_points,
        "points-joint": our_points,
        "points-1d": our_points,
        "excess-map": our_excess,
    },
    "peer": {
        "points-3d": peer_points,
        "points-joint": peer_points,
        "points-1d": peer_points,
        "excess-map": peer_excess,
    },
}


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


COMPARE: dict[str, Callable[[Arrays, Arrays], dict[str, tuple[float, float]]]] = {
    "points-3d": compare_points,
    "points-joint": compare_points,
    "points-1d": compare_points,
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
    for _ in range(repeats):
        for side in ("ours", "peer", "ours"):
            answer = ask[side](made)
            for clock in ("cpu", "wall"):
                times[side][clock].append(answer[clock])
            with np.load(answer["arrays"]) as file:
                arrays[side] = dict(file)
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
