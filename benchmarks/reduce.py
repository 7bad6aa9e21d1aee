"""Time the reduction of H.E.S.S. runs against gammapy, and compare what both make.

Both read a run of the first public H.E.S.S. data release and make counts, exposure, background, point-spread and dispersion
maps and the safe mask on 5 x 5 deg around the pointing, pixels of 0.02 deg, 24 energy bins and 40 of true energy, with
response maps of 0.2 deg. Ours and the peer alternate on the same runs, each in a process of its own with one thread:

1. CPU time of reading and reducing one run in a process that has done one before;
2. wall time of a whole job, from the start of its process to the file of one run (ours HDF5, the peer's FITS);
3. the same for a job that takes a batch of runs of one target (20), on one geometry, per run;
4. peak memory of a job of one run.

``--all`` compares counts, safe masks, background and exposure of all 105 runs instead.

Targets (medians over the runs of the peer's time over ours): CPU time >= 20 (aim 35), whole job >= 5, batch >= 12, peak memory
of ours <= 300 MB; counts and safe masks identical, background and exposure within 1e-3.

    python benchmarks/reduce.py [--quick] [--all] [--runs N]
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DL3FLOW_DATA", ROOT.parent / "shared" / "data")) / "hess-dl3-dr1"
CPU_RATIO, CPU_AIM, JOB_RATIO, BATCH_RATIO, MEMORY_MB, CLOSE = 20, 35, 5, 12, 300, 1e-3

CRAB = (23523, 23526, 23559, 23592)
# all 20 of one target: a process starts in about 0.9 s, which ten runs do not yet share out
MSH = (
    *(20136, 20137, 20151, 20282, 20283, 20301, 20302, 20303, 20322, 20323),
    *(20324, 20325, 20343, 20344, 20345, 20346, 20365, 20366, 20367, 20368),
)
# of four targets, north and south
RUNS = (*CRAB, 20136, 20137, 33787, 33788, 20326, 20327)
OFFSET_MAX = 2.5  # deg
# a background is compared where it is above this share of the brightest pixel of its energy
FAINT = 1e-6


# ---- ours


def sections(lon: float, lat: float) -> dict[str, Any]:
    """Options of the step that reduces an observation."""
    return {
        "recipe": {
            "name": "cube",
            "center": {"frame": "icrs", "lon": f"{lon!r} deg", "lat": f"{lat!r} deg"},
            "width": "5 deg",
            "binsz": "0.02 deg",
            "proj": "TAN",
            "energy": {"min": "0.5 TeV", "max": "50 TeV", "nbin": 24},
            "energy_true": {"min": "0.3 TeV", "max": "80 TeV", "nbin": 40},
            "binsz_irf": "0.2 deg",
        },
        "safe_mask": [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": f"{OFFSET_MAX} deg"}],
        "background": None,
    }


def our_reducer() -> Callable[[int, tuple[float, float] | None], Any]:
    """Function of a run and a centre (its pointing by default) that gives a Dataset."""
    from dl3flow.chain import parse_chain, reduce_observation
    from dl3flow.io.gadf import read_observation
    from dl3flow.io.gadf_index import read_index

    entries = {entry.obs_id: entry for entry in read_index(DATA)}

    def reduce(obs_id: int, center: tuple[float, float] | None) -> Any:
        entry = entries[obs_id]
        chain = parse_chain(sections(*(center or (entry.ra, entry.dec))), "benchmark")
        return reduce_observation(read_observation(entry, DATA), str(obs_id), chain, None, [], [], None)

    return reduce


def our_writer() -> Callable[[Any, Path], None]:
    """Function that writes a Dataset."""
    from dl3flow.io.hdf5 import write_dataset
    from dl3flow.io.provenance import Provenance

    provenance = Provenance("reduce_observation", "", "{}", {}, {})
    return lambda dataset, path: write_dataset(path, dataset, provenance)


def our_arrays(dataset: Any) -> dict[str, Any]:
    """What is compared."""
    return {
        "counts": dataset.counts.data,
        "mask": dataset.mask_safe,
        "background": dataset.background.counts.data,
        "exposure": dataset.exposure.data,
    }


# ---- the peer


def peer_reducer() -> Callable[[int, tuple[float, float] | None], Any]:
    """Function of a run and a centre that gives a MapDataset."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from gammapy.data import DataStore
    from gammapy.datasets import MapDataset
    from gammapy.makers import MapDatasetMaker, SafeMaskMaker
    from gammapy.maps import MapAxis, WcsGeom

    store = DataStore.from_dir(DATA)
    table = store.obs_table
    pointings = {int(row["OBS_ID"]): (float(row["RA_PNT"]), float(row["DEC_PNT"])) for row in table}
    maker = MapDatasetMaker()
    masks = SafeMaskMaker(methods=["aeff-default", "offset-max"], offset_max=OFFSET_MAX * u.deg)

    def reduce(obs_id: int, center: tuple[float, float] | None) -> Any:
        observation = store.obs(obs_id)
        at = SkyCoord(*(center or pointings[obs_id]), unit="deg")
        energy = MapAxis.from_energy_bounds(0.5, 50, 24, unit="TeV")
        true = MapAxis.from_energy_bounds(0.3, 80, 40, unit="TeV", name="energy_true")
        geom = WcsGeom.create(skydir=at, width=5, binsz=0.02, proj="TAN", axes=[energy])
        empty = MapDataset.create(geom, energy_axis_true=true, binsz_irf=0.2, name=str(obs_id))
        return masks.run(maker.run(empty, observation), observation)

    return reduce


def peer_writer() -> Callable[[Any, Path], None]:
    """Function that writes a MapDataset."""
    return lambda dataset, path: dataset.write(path, overwrite=True)


def peer_arrays(dataset: Any) -> dict[str, Any]:
    """What is compared."""
    return {
        "counts": dataset.counts.data,
        "mask": dataset.mask_safe.data & (dataset.background.data > 0),
        "background": dataset.background.data,
        "exposure": dataset.exposure.quantity.to_value("m2 s"),
    }


SIDES = {
    "ours": (our_reducer, our_writer, our_arrays, ".h5"),
    "peer": (peer_reducer, peer_writer, peer_arrays, ".fits"),
}


# ---- the processes


def work(side: str) -> None:
    """Reduce the runs named on standard input, one answer per line; a second word is where to keep the arrays."""
    import numpy as np

    # what a library prints is no answer
    answers = sys.stdout
    sys.stdout = sys.stderr
    reducer, _, arrays, _ = SIDES[side]
    reduce = reducer()
    for line in sys.stdin:
        words = line.split()
        before = time.process_time()
        dataset = reduce(int(words[0]), None)
        cpu = time.process_time() - before
        if len(words) > 1:
            np.savez(words[1], **arrays(dataset))
        print(json.dumps({"cpu": cpu}), file=answers, flush=True)


def job(side: str, folder: Path, runs: list[int], center: tuple[float, float] | None) -> None:
    """Reduce and write some runs, as one job."""
    reducer, writer, _, suffix = SIDES[side]
    reduce, write = reducer(), writer()
    for obs_id in runs:
        write(reduce(obs_id, center), folder / f"{obs_id}{suffix}")


def environment() -> dict[str, str]:
    """Of the processes: our modules compiled once, as an installed package's are."""
    found = {**os.environ, "PYTHONWARNINGS": "ignore"}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return found


@contextlib.contextmanager
def worker(side: str) -> Iterator[Callable[..., float]]:
    """Process of one side; the function it yields takes a run, and perhaps a file for its arrays, and gives the CPU time."""
    command = [sys.executable, __file__, "--worker", side]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin, process.stdout

        def ask(*words: object) -> float:
            to.write(" ".join(map(str, words)) + "\n")
            to.flush()
            answer = back.readline()
            if not answer:
                raise RuntimeError(f"the process of {side} ended at {words}")
            return float(json.loads(answer)["cpu"])

        yield ask
        to.close()


def timed(command: list[str]) -> tuple[float, float]:
    """Wall time, s, and peak memory, MB, of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{said.decode()}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def step_command(obs_id: int, folder: Path) -> list[str]:
    """The workflow's own job for one run."""
    sys.path.insert(0, str(ROOT / "src"))
    from dl3flow.io.gadf_index import read_index

    entry = next(entry for entry in read_index(DATA) if entry.obs_id == obs_id)
    options = {
        "name": str(obs_id),
        "run": {"entry": entry.to_json(), "events": None},
        "off": [],
        **sections(entry.ra, entry.dec),
    }
    return [
        *(sys.executable, "-m", "dl3flow", "reduce_observation", "--options", json.dumps(options)),
        *(
            "--input",
            "events",
            str(DATA / entry.paths[0]),
            "--input",
            "mask",
            "--input",
            "off",
            "--input",
            "models",
        ),
        *("--output", "dataset", str(folder / f"{obs_id}.h5")),
    ]


def job_command(
    side: str, folder: Path, runs: list[int], center: tuple[float, float] | None = None
) -> list[str]:
    where = [] if center is None else ["--center", *map(str, center)]
    return [sys.executable, __file__, "--job", side, str(folder), *map(str, runs), *where]


# ---- the measurements


def measure_cpu(runs: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    rows = []
    with worker("ours") as ours, worker("peer") as peer:
        for ask in (ours, peer):  # the first run of a process pays for imports and caches
            ask(runs[-1])
        for obs_id in runs:
            pairs = [(ours(obs_id), peer(obs_id)) for _ in range(repeats)]
            mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
            rows.append({"obs_id": obs_id, "ours": mine, "peer": theirs, "ratio": theirs / mine})
            print(f"{obs_id:8d} {mine:10.3f} {theirs:10.3f} {theirs / mine:8.1f}", flush=True)
    return rows


def measure_jobs(runs: tuple[int, ...], folder: Path) -> dict[str, Any]:
    timed(step_command(runs[-1], folder))  # compiles what was changed since the last start
    ratios, memory, times = [], {"ours": [], "peer": []}, {"ours": [], "peer": []}
    for obs_id in runs:
        wall = {}
        for side, command in (
            ("ours", step_command(obs_id, folder)),
            ("peer", job_command("peer", folder, [obs_id])),
        ):
            wall[side], peak = timed(command)
            times[side].append(wall[side])
            memory[side].append(peak)
        ratios.append(wall["peer"] / wall["ours"])
    return {
        "ours": statistics.median(times["ours"]),
        "peer": statistics.median(times["peer"]),
        "ratio": statistics.median(ratios),
        "memory_ours": max(memory["ours"]),
        "memory_peer": max(memory["peer"]),
    }


def measure_batch(runs: tuple[int, ...], folder: Path, repeats: int) -> dict[str, float]:
    center = (228.53, -59.16)  # MSH 15-52
    walls = [
        [timed(job_command(side, folder, list(runs), center))[0] / len(runs) for side in ("ours", "peer")]
        for _ in range(repeats)
    ]
    ours, peer = (statistics.median(column) for column in zip(*walls, strict=True))
    return {"ours": ours, "peer": peer, "ratio": statistics.median(theirs / mine for mine, theirs in walls)}


def differences(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """Number of different counts and mask bins; largest relative difference of background and exposure."""
    import numpy as np

    found = {name: float(np.count_nonzero(ours[name] != peer[name])) for name in ("counts", "mask")}
    for name in ("background", "exposure"):
        a, b = ours[name], peer[name]
        bright = b > FAINT * b.max(axis=(1, 2), keepdims=True)
        found[name] = float(np.max(np.abs(a[bright] / b[bright] - 1), initial=0.0))
    return found


def compare(runs: tuple[int, ...], folder: Path) -> list[dict[str, float]]:
    import numpy as np

    rows = []
    with worker("ours") as ours, worker("peer") as peer:
        for obs_id in runs:
            kept = {}
            for side, ask in (("ours", ours), ("peer", peer)):
                path = folder / f"{side}.npz"
                ask(obs_id, path)
                with np.load(path) as arrays:
                    kept[side] = dict(arrays)
            row = differences(kept["ours"], kept["peer"])
            rows.append(row)
            print(f"{obs_id:8d} " + " ".join(f"{row[name]:12.3g}" for name in row), flush=True)
    return rows


def all_runs() -> tuple[int, ...]:
    sys.path.insert(0, str(ROOT / "src"))
    from dl3flow.io.gadf_index import read_index

    return tuple(entry.obs_id for entry in read_index(DATA))


def main() -> int:
    """Measure, print the tables, the figures as JSON, and whether the targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two runs once each, a job of one, a batch of three, and the numbers of one",
    )
    parser.add_argument("--all", action="store_true", help="compare the numbers of all 105 runs instead")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many runs are timed")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--center", nargs=2, type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return 0
    if arguments.job:
        side, folder, *runs = arguments.job
        job(side, Path(folder), [int(run) for run in runs], arguments.center and tuple(arguments.center))
        return 0
    if not DATA.is_dir():
        print(
            f"{DATA}: the H.E.S.S. data release is absent: name its parent in DL3FLOW_DATA", file=sys.stderr
        )
        return 1
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not arguments.all:
            runs = RUNS[:2] if arguments.quick else RUNS[: arguments.runs]
            print("CPU time of reading and reducing, s\n     run       ours       peer    ratio")
            rows = measure_cpu(runs, 1 if arguments.quick else 3)
            figures["cpu"] = {
                key: statistics.median(row[key] for row in rows) for key in ("ours", "peer", "ratio")
            }
            figures["cpu"]["ratios"] = [round(row["ratio"], 1) for row in rows]
            figures["job"] = measure_jobs(runs[:1] if arguments.quick else runs, folder)
            figures["batch"] = measure_batch(
                MSH[:3] if arguments.quick else MSH, folder, 1 if arguments.quick else 3
            )
            for key, title in (
                ("cpu", "reading and reducing, CPU s"),
                ("job", "whole job, wall s"),
                ("batch", "batch, wall s per run"),
            ):
                row = figures[key]
                print(f"{title:30s} {row['ours']:8.3f} {row['peer']:8.3f} {row['ratio']:8.1f}")
            print(
                f"{'peak memory, MB':30s} {figures['job']['memory_ours']:8.0f} {figures['job']['memory_peer']:8.0f}"
            )
        compared = all_runs() if arguments.all else RUNS[:1] if arguments.quick else RUNS[: arguments.runs]
        print("different bins of counts and mask; largest relative difference of background and exposure")
        found = compare(compared, folder)
    figures["compared"] = len(found)
    figures["largest"] = {key: max(row[key] for row in found) for key in found[0]}
    largest = figures["largest"]
    met = {
        "counts": largest["counts"] == 0,
        "mask": largest["mask"] == 0,
        "background": largest["background"] <= CLOSE,
        "exposure": largest["exposure"] <= CLOSE,
    }
    if not arguments.all:
        # three runs of a batch share the start of its process less than ten do
        met |= {
            "cpu": figures["cpu"]["ratio"] >= CPU_RATIO,
            "job": figures["job"]["ratio"] >= JOB_RATIO,
            "batch": figures["batch"]["ratio"] >= (JOB_RATIO if arguments.quick else BATCH_RATIO),
            "memory": figures["job"]["memory_ours"] <= MEMORY_MB,
        }
        figures["aim_met"] = figures["cpu"]["ratio"] >= CPU_AIM
    figures["met"] = met
    print(json.dumps(figures))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
