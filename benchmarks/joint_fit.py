"""Time joint fits against gammapy on the same files, and check that both found one minimum.

Our reduction writes H.E.S.S. and FACT runs in the field's format, once; both sides read those files and one model YAML,
and fit with one thread, alternating, each in a process of its own. Maps: 5 x 5 deg, 0.02 deg, TAN; a power law times a
symmetric Gaussian with index, amplitude, position and extension free, and norm and tilt of every background free.
Spectra: a log parabola on on and off counts.

| case | what |
|---|---|
| stacked-11, stacked-24 | four Crab runs stacked, 11 energies of 20 true ones, 24 of 40 |
| joint-4, joint-16 | runs of MSH 15-52 |
| spectra-4, spectra-125 | Crab runs of H.E.S.S., of FACT |

CPU time of ours is that of ``fit``: set-up, minimum, errors, test statistic. CPU time of the peer is that of ``Fit.run`` from
datasets that were just read: kernels, minimum, errors; with its defaults.

"One minimum" is judged on the peer's own likelihood, without what of the peer its default result depends on:

- its kernels are divided into 20 parts a pixel (by default they are not converged; their sums are taken by `peer_likelihood.fine_kernel`,
  which is checked against its own division on the spot); the statistic, not the minimum and the
  errors, is compared with our kernels in the peer, as 20 parts still move 2e-4 of a kernel's sum to other rings;
- its responses are pinned to our declared position (by default they depend on which positions were tried before);
- minimum and errors come from central differences of both likelihoods, the same on either side (MIGRAD stops up to 0.02
  errors away, and its HESSE sees the steps of a single-precision convolution);
- in the stacked cases, whose source is half a pixel wide, the peer takes our shares of pixels: its own are cut at a box of
  whole pixels, divided into points whose number jumps with the extension, and their centroid is up to 0.01 pixels, or 0.06
  errors, beside the position. In the joint cases it keeps its own.

Its curved spectra stay integrated with 4 to 5 nodes a bin. What its default fit says is printed beside.

Targets (the peer's time over ours): 50 for the stacked and four joint runs, 150 for 16, 100 for four spectra, 500 for 125;
statistic at our minimum within 1e-2, minimum within 0.01 of an error, errors within 1 %.

    python benchmarks/joint_fit.py [--quick] [--cases NAME ...]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peer_likelihood import fine_kernels, our_template, use_our_kernels

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DL3FLOW_DATA", ROOT.parent / "shared" / "data"))
TARGETS = {
    "stacked-11": 50,
    "stacked-24": 50,
    "joint-4": 50,
    "joint-16": 150,
    "spectra-4": 100,
    "spectra-125": 500,
}
QUICK = ("stacked-11", "spectra-4")
REPEATS = {"stacked-11": 3, "stacked-24": 2, "spectra-4": 3}
STAT, SHIFT, ERROR = 1e-2, 0.01, 0.01
# of the error that a parameter has with all others kept; the peer's maps are of single precision
STEPS = {True: 0.5, False: 0.1}

CRAB = (23523, 23526, 23559, 23592)
MSH = (
    *(20136, 20137, 20151, 20282, 20283, 20301, 20302, 20303),
    *(20322, 20323, 20324, 20325, 20343, 20344, 20345, 20346),
)
ENERGIES = {
    11: ({"min": "0.5 TeV", "max": "50 TeV", "nbin": 11}, {"min": "0.3 TeV", "max": "80 TeV", "nbin": 20}),
    24: ({"min": "0.5 TeV", "max": "50 TeV", "nbin": 24}, {"min": "0.3 TeV", "max": "80 TeV", "nbin": 40}),
}
CENTERS = {"crab": (83.63, 22.01), "msh": (228.53, -59.16)}
# position, index, amplitude, extension
STARTS = {"crab": (83.63, 22.01, 2.5, 4e-11, 0.05), "msh": (228.58, -59.17, 2.3, 6e-12, 0.1)}
FACT = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.633083, 22.0145, 0.1732050807568877)",
        "energy": {"min": "0.4 TeV", "max": "30 TeV", "nbin": 20},
        "energy_true": {"min": "0.1 TeV", "max": "60 TeV", "nbin": 40},
    },
    "safe_mask": [{"name": "aeff_default"}],
    "background": {"name": "reflected"},
}
HESS = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.11)",
        "energy": {"min": "0.1 TeV", "max": "40 TeV", "nbin": 27},
        "energy_true": {"min": "0.05 TeV", "max": "100 TeV", "nbin": 67},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {"name": "reflected"},
}


def cube(field: str, n_energy: int) -> dict[str, Any]:
    """Sections of a reduction to maps."""
    lon, lat = CENTERS[field]
    energy, energy_true = ENERGIES[n_energy]
    return {
        "recipe": {
            "name": "cube",
            # an odd number of response pixels: the source lies in the middle of one, and neither side has to choose
            "center": {"frame": "icrs", "lon": f"{lon} deg", "lat": f"{lat} deg"},
            "width": "5 deg",
            "binsz": "0.02 deg",
            "proj": "TAN",
            "energy": energy,
            "energy_true": energy_true,
            "binsz_irf": "0.2 deg",
        },
        "safe_mask": [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": "2.5 deg"}],
        "background": None,
    }


# ---- the data, made once


def parameter(name: str, value: float, unit: str = "", *, is_frozen: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "frozen": is_frozen}


def map_models(field: str, names: Sequence[str]) -> dict[str, Any]:
    """Model file of a field: the source, and a background for every dataset."""
    lon, lat, index, amplitude, sigma = STARTS[field]
    source = {
        "name": field,
        "type": "SkyModel",
        "spectral": {
            "type": "PowerLawSpectralModel",
            "parameters": [
                parameter("index", index),
                parameter("amplitude", amplitude, "cm-2 s-1 TeV-1"),
                parameter("reference", 1.0, "TeV", is_frozen=True),
            ],
        },
        "spatial": {
            "type": "GaussianSpatialModel",
            "frame": "icrs",
            "parameters": [
                parameter("lon_0", lon, "deg"),
                parameter("lat_0", lat, "deg"),
                parameter("sigma", sigma, "deg"),
                parameter("e", 0.0, is_frozen=True),
                parameter("phi", 0.0, "deg", is_frozen=True),
            ],
        },
    }
    backgrounds = [
        {
            "name": f"{name}-bkg",
            "type": "FoVBackgroundModel",
            "datasets_names": [name],
            "spectral": {
                "type": "PowerLawNormSpectralModel",
                "parameters": [
                    parameter("norm", 1.0),
                    parameter("tilt", 0.0),
                    parameter("reference", 1.0, "TeV", is_frozen=True),
                ],
            },
        }
        for name in names
    ]
    return {"components": [source, *backgrounds]}


def curve_models() -> dict[str, Any]:
    """Model file of the spectra."""
    spectral = {
        "type": "LogParabolaSpectralModel",
        "parameters": [
            parameter("amplitude", 3.8e-11, "cm-2 s-1 TeV-1"),
            parameter("reference", 1.0, "TeV", is_frozen=True),
            parameter("alpha", 2.47),
            parameter("beta", 0.1),
        ],
    }
    return {"components": [{"name": "crab", "type": "SkyModel", "spectral": spectral}]}


def prepare(case: str, folder: Path) -> dict[str, Any]:
    """Write the datasets and the models of a case; names, files and kind."""
    import yaml

    from dl3flow.chain import parse_chain, reduce_observation
    from dl3flow.io.fits_datasets import write_fits_dataset
    from dl3flow.io.gadf import read_observation
    from dl3flow.io.gadf_index import read_index
    from dl3flow.io.provenance import Provenance
    from dl3flow.reduce.stack import stack

    kind, number = case.split("-")
    field = "msh" if kind == "joint" else "crab"
    is_fact = case == "spectra-125"
    sections = (
        (FACT if is_fact else HESS)
        if kind == "spectra"
        else cube(field, 11 if kind == "joint" else int(number))
    )
    root = DATA / ("joint-crab/dl3/fact" if is_fact else "hess-dl3-dr1")
    runs = {"joint": MSH[: int(number)], "stacked": CRAB, "spectra": CRAB}[kind]
    entries = [e for e in read_index(root) if is_fact or e.obs_id in runs]
    chain = parse_chain(sections, "benchmark")
    made = (reduce_observation(read_observation(e, root), f"run-{e.obs_id}", chain) for e in entries)
    if kind == "stacked":
        assert chain.geometries is not None
        made = iter([stack(made, "stacked", *chain.geometries)])
    place = folder / case
    place.mkdir()
    provenance = Provenance("benchmark", "", "{}", {}, {})
    names = []
    for dataset in made:
        write_fits_dataset(place / f"{dataset.name}.fits", dataset, provenance)
        names.append(dataset.name)
    models = curve_models() if kind == "spectra" else map_models(field, names)
    (place / "models.yaml").write_text(yaml.safe_dump(models, sort_keys=False))
    return {"case": case, "names": names, "folder": str(place), "is_map": kind != "spectra"}


# ---- differences, the same on both sides


def differences(
    stat: Callable[[Mapping[str, float]], float],
    names: Sequence[str],
    at: Mapping[str, float],
    steps: Mapping[str, float],
) -> dict[str, Any]:
    """Statistic, gradient and Hessian by central differences over ``steps``."""

    def moved(**by: float) -> float:
        return stat({**at, **{name: at[name] + sign * steps[name] for name, sign in by.items()}})

    here = moved()
    sides = {name: (moved(**{name: -1.0}), moved(**{name: 1.0})) for name in names}
    gradient = [(up - down) / 2 for down, up in sides.values()]
    hessian = np.diag([up - 2 * here + down for down, up in sides.values()])
    for (i, one), (j, other) in itertools.combinations(enumerate(names), 2):
        corners = [s * t * moved(**{one: s, other: t}) for s in (-1.0, 1.0) for t in (-1.0, 1.0)]
        hessian[i, j] = hessian[j, i] = sum(corners) / 4
    return {"stat": here, "gradient": gradient, "hessian": hessian.tolist()}


def own_names(names: Sequence[str], dataset: str) -> list[str]:
    """Free parameters that a dataset depends on: those of the source and of its own background."""
    return [n for n in names if not n.rsplit(".", 1)[0].endswith("-bkg") or n.startswith(f"{dataset}-bkg.")]


# ---- ours


class Ours:
    """Answers of our side."""

    def fit(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Read and fit a case."""
        from dl3flow.fit.minimise import fit
        from dl3flow.io.fits_datasets import read_fits_dataset
        from dl3flow.io.models_yaml import read_models

        folder = Path(made["folder"])
        self.datasets = [read_fits_dataset(folder / f"{name}.fits", name) for name in made["names"]]
        models = read_models(folder / "models.yaml")
        cpu, wall = time.process_time(), time.perf_counter()
        self.result = fit(self.datasets, models)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        found = [self.result.parameter(name) for name in self.result.free]
        return {
            "cpu": cpu,
            "wall": wall,
            "stat": self.result.stat,
            "success": self.result.success,
            "message": self.result.message,
            "names": list(self.result.free),
            "values": [p.value for p in found],
            "errors": [p.error for p in found],
            "covariance": self.result.covariance.tolist(),
            "minimiser": {
                k: v for k, v in self.result.minimiser.items() if isinstance(v, int | float | str | list)
            },
        }

    def differences(
        self, made: Mapping[str, Any], at: Mapping[str, float], steps: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """Differences of the statistic of every dataset."""
        from dl3flow.fit.likelihood import build_likelihood

        found = []
        for dataset in self.datasets:
            likelihood = build_likelihood([dataset], self.result.models)

            def stat(values: Mapping[str, float], likelihood: Any = likelihood) -> float:
                return float(likelihood.stat(np.array([values[name] for name in likelihood.names])))

            found.append(differences(stat, own_names(list(at), dataset.name), at, steps))
        return found


# ---- the peer


class Peer:
    """Answers of the peer's side."""

    def _read(self, made: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from gammapy.datasets import Datasets, MapDataset, SpectrumDatasetOnOff
        from gammapy.modeling.models import Models

        folder = Path(made["folder"])
        reader = MapDataset if made["is_map"] else SpectrumDatasetOnOff
        datasets = Datasets([reader.read(folder / f"{name}.fits", name=name) for name in made["names"]])
        models = Models.read(folder / "models.yaml")
        datasets.models = models
        return datasets, {f"{m.name}.{p.name}": p for m in models for p in m.parameters if not p.frozen}

    def fit(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Read and fit a case."""
        from gammapy.modeling import Fit

        datasets, parameters = self._read(made)
        cpu, wall = time.process_time(), time.perf_counter()
        result = Fit().run(datasets)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {
            "cpu": cpu,
            "wall": wall,
            "stat": float(result.total_stat),
            "success": bool(result.success),
            "message": str(result.message),
            "names": list(parameters),
            "values": [float(p.value) for p in parameters.values()],
            "errors": [float(p.error) for p in parameters.values()],
            "minimiser": {"n_evaluations": int(result.nfev)},
        }

    def differences(
        self, made: Mapping[str, Any], at: Mapping[str, float], steps: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """Differences of the statistic of every dataset, with fine kernels and pinned responses."""
        # what is changed for this judgement must not stay for the next case's fit, which is timed
        with contextlib.ExitStack() as stack:
            if made["is_map"]:
                stack.enter_context(fine_kernels())
            if "stacked" in made["case"]:
                stack.enter_context(our_template(at["crab.sigma"]))
            return self._differences(made, at, steps)

    def _differences(
        self, made: Mapping[str, Any], at: Mapping[str, float], steps: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        datasets, parameters = self._read(made)
        found = []
        for name, value in at.items():
            parameters[name].value = value
        for dataset in datasets:
            dataset.stat_sum()
            for evaluator in dataset._evaluators.values() if made["is_map"] else ():
                # its responses stay those of this position
                evaluator._cached_position = evaluator.model.position_lonlat

            def stat(values: Mapping[str, float], dataset: Any = dataset) -> float:
                for name, value in values.items():
                    parameters[name].value = value
                return float(dataset.stat_sum())

            answer = differences(stat, own_names(list(at), dataset.name), at, steps)
            answer["stat_our_kernels"] = answer["stat"]
            if made["is_map"]:
                use_our_kernels(dataset, Path(made["folder"]) / f"{dataset.name}.fits")
                answer["stat_our_kernels"] = stat(at)
            found.append(answer)
        return found


SIDES: dict[str, Any] = {"ours": Ours, "peer": Peer}


# ---- the processes


def work(side: str) -> None:
    """Answer the questions on standard input, one JSON value per line."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    answer = SIDES[side]()
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(answer, what)(*arguments)), file=answers, flush=True)


@contextlib.contextmanager
def worker(side: str) -> Iterator[Callable[..., Any]]:
    """Process of one side; the function it yields takes the name of what is asked, and its arguments."""
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

        def ask(*question: Any) -> Any:
            to.write(json.dumps(question) + "\n")
            to.flush()
            answer = back.readline()
            if not answer:
                said.seek(0)
                raise RuntimeError(f"the process of {side} ended:\n{said.read()[-3000:]}")
            return json.loads(answer)

        with process:
            yield ask
            to.close()


# ---- the measurement


def joined(
    parts: Sequence[Mapping[str, Any]], names: Sequence[str], datasets: Sequence[str]
) -> tuple[Any, ...]:
    """Statistic, gradient and Hessian of the sum over the datasets."""
    stat, gradient, hessian = 0.0, np.zeros(len(names)), np.zeros((len(names), len(names)))
    for part, dataset in zip(parts, datasets, strict=True):
        index = [names.index(name) for name in own_names(names, dataset)]
        stat += part["stat"]
        gradient[index] += part["gradient"]
        hessian[np.ix_(index, index)] += part["hessian"]
    return stat, gradient, hessian


def compare(
    made: Mapping[str, Any], mine: Mapping[str, Any], ask: Mapping[str, Callable[..., Any]]
) -> dict[str, Any]:
    """How far apart statistic, minimum and errors of both likelihoods are at our minimum."""
    names = mine["names"]
    at = dict(zip(names, mine["values"], strict=True))
    widths = STEPS[made["is_map"]] / np.sqrt(np.diag(np.linalg.inv(mine["covariance"])))
    steps = dict(zip(names, widths.tolist(), strict=True))
    parts = {side: ask[side]("differences", made, at, steps) for side in ("ours", "peer")}
    found = {side: joined(part, names, made["names"]) for side, part in parts.items()}
    # in units of the steps
    (stat, slope, curve), (their_stat, their_slope, their_curve) = found["ours"], found["peer"]
    covariance, theirs = 2 * np.linalg.inv(curve), 2 * np.linalg.inv(their_curve)
    errors, their_errors = np.sqrt(np.diag(covariance)), np.sqrt(np.diag(theirs))
    shifts = np.abs(np.linalg.solve(curve, their_slope - slope)) / errors
    ratios = errors / their_errors
    # ours by the same differences over what our fit says
    own = widths * errors / mine["errors"]
    with_our_kernels = sum(part["stat_our_kernels"] for part in parts["peer"])
    return {
        "stat": with_our_kernels - stat,
        "stat_fine_kernels": their_stat - stat,
        "shift": float(shifts.max()),
        "shift_of": names[int(shifts.argmax())],
        "error": float(np.abs(ratios - 1).max()),
        "error_of": names[int(np.abs(ratios - 1).argmax())],
        "own_error": float(np.abs(own - 1).max()),
        "own_error_of": names[int(np.abs(own - 1).argmax())],
    }


def by_default(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """What the peer's fit says with its defaults, beside ours; no target."""
    order = [theirs["names"].index(name) for name in mine["names"]]
    values, errors = (np.array(theirs[key])[order] for key in ("values", "errors"))
    shifts = np.abs(values - mine["values"]) / mine["errors"]
    ratios = np.array(mine["errors"]) / errors
    return {
        "stat": theirs["stat"] - mine["stat"],
        "shift": float(shifts.max()),
        "shift_of": mine["names"][int(shifts.argmax())],
        # where the peer's fit failed it gives no errors
        "error_ratios": [float(ratios.min()), float(ratios.max())] if np.isfinite(ratios).all() else None,
        "success": theirs["success"],
    }


def measure(made: Mapping[str, Any], ask: Mapping[str, Callable[..., Any]], repeats: int) -> dict[str, Any]:
    """Times and differences of one case."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    walls: dict[str, list[float]] = {"ours": [], "peer": []}
    answers: dict[str, Any] = {}
    for _ in range(repeats):
        for side in ("ours", "peer", "ours"):
            answers[side] = ask[side]("fit", made)
            times[side].append(answers[side]["cpu"])
            walls[side].append(answers[side]["wall"])
    mine, theirs = answers["ours"], answers["peer"]
    ours, peer = (statistics.median(times[side]) for side in ("ours", "peer"))
    wall = {side: statistics.median(walls[side]) for side in walls}
    return {
        "n_free": len(mine["names"]),
        "ours": ours,
        "peer": peer,
        "ratio": peer / ours,
        "wall_ratio": wall["peer"] / wall["ours"],
        "times": times,
        "success": mine["success"],
        "message": mine["message"],
        "minimiser": mine["minimiser"],
        "same": compare(made, mine, ask),
        "default": by_default(mine, theirs),
    }


def judge(case: str, row: Mapping[str, Any]) -> dict[str, bool]:
    """Which targets a case meets."""
    same = row["same"]
    return {
        "ratio": row["ratio"] >= TARGETS[case],
        "success": row["success"],
        "stat": abs(same["stat"]) <= STAT,
        "shift": same["shift"] <= SHIFT,
        "error": same["error"] <= ERROR,
    }


def main() -> int:
    """Measure, print the tables, the figures as JSON, and whether the targets are met."""
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
    head = f"{'case':12s} {'free':>4s} {'ours':>9s} {'peer':>9s} {'ratio':>8s} {'wall':>8s} {'target':>6s}"
    print(f"CPU s of a fit with set-up and errors\n{head}   d stat    shift    error", flush=True)
    with tempfile.TemporaryDirectory() as name, worker("ours") as ours, worker("peer") as peer:
        for case in cases:
            made = prepare(case, Path(name))
            repeats = 1 if arguments.quick else REPEATS.get(case, 1)
            row = measure(made, {"ours": ours, "peer": peer}, repeats)
            figures[case] = {**row, "met": judge(case, row)}
            same = row["same"]
            print(
                f"{case:12s} {row['n_free']:4d} {row['ours']:9.4f} {row['peer']:9.3f} {row['ratio']:8.1f} "
                f"{row['wall_ratio']:8.1f} {TARGETS[case]:6d} {same['stat']:+9.1e} {same['shift']:8.1e} {same['error']:8.1e}",
                flush=True,
            )
    print("\nthe peer's default fit less ours (its own kernels, path and tolerance; no target)")
    for case, row in figures.items():
        default, low_high = row["default"], row["default"]["error_ratios"]
        ratios = "none given" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f}"
        print(
            f"{case:12s} stat {default['stat']:+.1e}, largest shift {default['shift']:.4f} errors ({default['shift_of']}), "
            f"errors ours / peer {ratios}"
            + ("" if default["success"] else "; the peer's fit FAILED, its time is that of a failed fit")
        )
        missed = [key for key, is_met in row["met"].items() if not is_met]
        if missed:
            print(f"{case:12s} NOT MET: {', '.join(missed)} ({row['message']}; {row['same']})")
    print(json.dumps(figures))
    return 0 if all(all(row["met"].values()) for row in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
