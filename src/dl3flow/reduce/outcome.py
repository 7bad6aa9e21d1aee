"""What became of each observation: a row of the list of observations."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dl3flow.data.dataset import Dataset, OffCounts

COLUMNS = ("obs_id", "target", "telescope", "ra", "dec", "tstart", "tstop", "livetime", "quality")


def outcome(
    name: str,
    group: Mapping[str, Any],
    entry: Mapping[str, Any],
    failures: Mapping[tuple[str, str], str],
    read: Callable[[tuple[str, str]], Dataset],
) -> dict[str, Any]:
    """Row of one observation: its index entry, whether it is used and why not, and what is left of its events.

    ``events`` are those of the file (after the group's criteria), ``binned`` those in good times and on the map or in the
    region, ``counts`` those in safe bins, ``unsafe`` the share of the bins that each safe mask drops.

    Parameters
    ----------
    name, group : str, mapping
        The group of observations: ``data``, ``left_out`` and ``failed`` (reasons by obs_id), ``reductions`` that use it and those
        whose background it ``serves``.
    entry : mapping
        Index entry with the `COLUMNS`.
    failures : mapping
        Why a reduction failed, by (reduction, obs_id).
    read : function
        Gives the reduced observation of (reduction, obs_id); called for the first reduction that did not fail.

    Returns
    -------
    row : dict
        ``status`` is selected, background (of other observations), failed or left out.
    """
    obs_id = str(entry["obs_id"])
    row = {"observations": name, "data": group["data"], **{key: entry[key] for key in COLUMNS}}
    if obs_id in group["left_out"]:
        return {**row, "status": "left out", "reason": group["left_out"][obs_id]}
    if obs_id in group["failed"]:
        return {**row, "status": "failed", "reason": group["failed"][obs_id]}
    keys = [(reduction, obs_id) for reduction in group["reductions"]]
    good = [key for key in keys if key not in failures]
    reasons = [f"{key[0]}: {failures[key]}" if good else failures[key] for key in keys if key in failures]
    reason = "; ".join(dict.fromkeys(reasons))
    if not keys and group.get("serves"):
        return {
            **row,
            "status": "background",
            "reason": f"gives the background of {', '.join(group['serves'])}",
        }
    if not good:
        return {**row, "status": "failed" if keys else "left out", "reason": reason or "in no reduction"}
    dataset = read(good[0])
    norm = dataset.meta.get("background", {})
    off, livetime = dataset.background, dataset.meta.get("livetime")
    return {
        **row,
        # the index tells of the whole run, the dataset of the times that were used
        "livetime": row["livetime"] if livetime is None else livetime,
        "status": "selected",
        "reason": reason,
        **({"events": int(dataset.meta["n_events"])} if "n_events" in dataset.meta else {}),
        "binned": float(dataset.counts.data.sum()),
        "counts": float(np.sum(dataset.counts.data, where=dataset.mask_safe)),
        "background": float(np.sum(dataset.mu_bkg, where=dataset.mask_safe)),
        **(
            {"off_counts": float(np.sum(off.counts.data, where=dataset.mask_safe))}
            if isinstance(off, OffCounts)
            else {}
        ),
        **{key: norm[key] for key in ("norm", "norm_err") if key in norm},
        "unsafe": "; ".join(_shares(dataset)),
        "warnings": "; ".join(dataset.meta.get("warnings", [])),
    }


def _shares(dataset: Dataset) -> list[str]:
    """What each safe mask drops, in percent of the bins; those that drop none are left out."""
    if dataset.reasons is None:
        return []
    shares = {name: 100 * float(dataset.reasons.dropped(name).mean()) for name in dataset.reasons.names}
    return [f"{name} {share:.3g} %" for name, share in shares.items() if share > 0]
