"""Light curves and phase curves of an analysis: planned bin by bin, each bin a job of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dl3flow.chain import Chain
from dl3flow.data.index import ObservationEntry
from dl3flow.errors import InputError
from dl3flow.io.intervals import read_intervals
from dl3flow.plan import Fit, Job, Reduction, SliceJob
from dl3flow.reduce.time_bins import Bin, span_of
from dl3flow.registry import Plugin
from dl3flow.sources import existing_file, new_job


@dataclass(frozen=True, eq=False)
class CurveOrigin:
    """What a curve is made from.

    Attributes
    ----------
    fit : Fit or None
    reductions : mapping of (Reduction, Chain)
        Those of the fit, or the one that the curve names.
    models_text : object
        The section ``models`` as plain values.
    inputs : tuple of str
        Data reduced elsewhere that the fit has too.
    """

    fit: Fit | None
    reductions: Mapping[str, tuple[Reduction, Chain]]
    models_text: Any
    inputs: tuple[str, ...] = ()


def spelled_out(plugin: Plugin, own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options in which the name of a table of intervals is replaced by its intervals."""
    time = own.get("time")
    if plugin.companions.get("binned_by") != "time" or not isinstance(time, Mapping):
        return dict(own)
    named = time.get("intervals")
    if not isinstance(named, str):
        return dict(own)
    place = f"{where}.time.intervals"
    return {**own, "time": {**time, "intervals": read_intervals(existing_file(named, place))}}


def plan_slices(
    origin: CurveOrigin, plugin: Plugin, own: Mapping[str, Any], bound: Mapping[str, Any], where: str
) -> dict[str, SliceJob]:
    """Job of each bin by its label.

    Raises
    ------
    InputError
        If runs cannot be told apart, the index does not say when they were taken, or no bin holds any.
    """
    entries = _entries(origin, where)
    by = plugin.companions["binned_by"]
    try:
        bins: list[Bin] = plugin.companions["bins"](bound[by], list(entries.values()))
    except ValueError as error:
        raise InputError(f"{where}.{by}: {error}") from None
    if not bins:
        raise InputError(
            f"{where}.{by}: no run lies in any of the bins: correct `{by}`, or select other observations"
        )
    return {each.label: _slice_job(origin, each, own, entries, where) for each in bins}


def join_job(origin: CurveOrigin, plugin: Plugin, own: Mapping[str, Any], where: str) -> Job:
    """Job that makes the curve of its slices."""
    left = ", ".join(origin.inputs)
    told = [f"data reduced elsewhere ({left}) are in no bin"] if origin.inputs else []
    return new_job("join_slices", {"estimator": own, "told": told, **_models(origin)}, plugin, where=where)


def _entries(origin: CurveOrigin, where: str) -> dict[int, ObservationEntry]:
    """Entries of all runs by their number, in the order of the reductions."""
    found: dict[int, tuple[str, ObservationEntry]] = {}
    for name, (reduction, _) in origin.reductions.items():
        for obs_id in reduction.jobs:
            source, _ = found.setdefault(obs_id, (reduction.source.name, reduction.source.entries[obs_id]))
            if source != reduction.source.name:
                raise InputError(
                    f"{where}: '{name}' has a run {obs_id} of '{reduction.source.name}', and there is one of '{source}' with the same "
                    "number, so that bins cannot tell them apart: make a light curve of each"
                )
    return {obs_id: entry for obs_id, (_, entry) in found.items()}


def _models(origin: CurveOrigin) -> dict[str, Any]:
    """Without a fit a job is given the models as they stand."""
    return {} if origin.fit else {"models": origin.models_text}


def _slice_job(
    origin: CurveOrigin,
    each: Bin,
    own: Mapping[str, Any],
    entries: Mapping[int, ObservationEntry],
    where: str,
) -> SliceJob:
    held = [(name, k) for name, (r, _) in origin.reductions.items() for k in each.obs_ids if k in r.jobs]
    limits = origin.fit.data if origin.fit else {}
    options = {
        "label": each.label,
        "ends": None if each.low is None else [each.low, each.high],
        "span": _span([entries[k] for k in each.obs_ids]) if each.low is None else [each.low, each.high],
        "source": own["source"],
        "band_energy": own.get("energy"),
        "energy": limits.get("energy", {}),
        "region": limits.get("region", {}),
        **_models(origin),
    }
    if not each.cut:
        return SliceJob("measure_datasets", new_job("measure_datasets", options, where=where), tuple(held))
    runs, plugins = [], dict[str, Plugin]()
    files: dict[str, list[str]] = {
        role: [] for role in ("events", "responses", "mask", "off", "off_responses")
    }
    built = []
    for name, obs_id in held:
        reduction, chain = origin.reductions[name]
        further = reduction.further
        own_files = {
            **reduction.source.files(obs_id),
            **({} if further is None else further.files(obs_id)),
            "mask": list(reduction.mask_file),
        }
        for role, paths in own_files.items():
            files[role] += paths
        is_built = further is not None and further.model is not None
        built += [name] * is_built
        runs.append(
            {
                **reduction.told[obs_id],
                "reduction": name,
                "n_masks": len(reduction.mask_file),
                "n_models": int(is_built),
            }
        )
        plugins |= {plugin.module: plugin for plugin in chain.plugins}
    job = new_job("measure_runs", {**options, "cut": each.cut, "runs": runs}, *plugins.values(), where=where)
    return SliceJob(
        "measure_runs", job, (), {role: tuple(paths) for role, paths in files.items()}, tuple(built)
    )


def _span(entries: Sequence[ObservationEntry]) -> list[float] | None:
    """From the first start to the last stop, where the index says so; it stands in the table if the bin fails."""
    try:
        spans = [span_of(entry) for entry in entries]
    except ValueError:
        return None
    return [min(low for low, _ in spans), max(high for _, high in spans)]
