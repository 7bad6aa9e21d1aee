"""The list of observations: those used, and those left out with the reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dl3flow.io.hdf5 import read_dataset
from dl3flow.io.products import write_observation_table
from dl3flow.io.provenance import Provenance
from dl3flow.steps.reading import read_failures

COLUMNS = ("obs_id", "target", "telescope", "ra", "dec", "tstart", "tstop", "livetime", "quality")


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Write the list; with the setting ``on_error=stop`` fail instead where observations could not be reduced."""
    failures = read_failures(inputs["datasets"], options["on_error"])
    rows = [
        {"observations": name, "data": group["data"]}
        | {key: entry[key] for key in COLUMNS}
        | _outcome(group, entry["obs_id"], inputs["datasets"], failures)
        for name, group in options["groups"].items()
        for entry in group["entries"]
    ]
    write_observation_table(outputs["observations"], rows, provenance)


def _outcome(
    group: Mapping[str, Any], obs_id: int, paths: Sequence[Path], failures: Mapping[Path, str]
) -> dict[str, Any]:
    """What became of an observation, and its counts in the group's first reduction that it is part of."""
    if str(obs_id) in group["left_out"]:
        return {"status": "left out", "reason": group["left_out"][str(obs_id)]}
    mine = [path for path in paths if path.stem == str(obs_id) and path.parent.name in group["reductions"]]
    failed = {path.parent.name: failures[path] for path in mine if path in failures}
    good = [path for path in mine if path.parent.name not in failed]
    reason = "; ".join(dict.fromkeys(f"{name}: {why}" if good else why for name, why in failed.items()))
    if not good:
        return {"status": "failed" if mine else "left out", "reason": reason or "in no reduction"}
    dataset = read_dataset(good[0])
    norm = dataset.meta.get("background", {})
    return {
        "status": "selected",
        "reason": reason,
        "counts": float(np.sum(dataset.counts.data, where=dataset.mask_safe)),
        "background": float(np.sum(dataset.background.counts.data, where=dataset.mask_safe)),
        **{key: norm[key] for key in ("norm", "norm_err") if key in norm},
        "warnings": "; ".join(dataset.meta.get("warnings", [])),
    }
