"""Estimator ``light_curve``: the flux of one source in bins of time."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.products import FitResult, LightCurve
from dl3flow.data.slices import Slice
from dl3flow.errors import InputError
from dl3flow.estimators.norms import Sigmas, point_meta, with_counts
from dl3flow.estimators.registry import TABLES
from dl3flow.estimators.slices import (
    EnergyBands,
    find_blocks,
    good_times,
    joined,
    measure_slice,
    ordered,
    slice_rows,
    slice_warnings,
    source_of,
    unseen_slices,
)
from dl3flow.estimators.variability import describe_variability
from dl3flow.models.source import Models
from dl3flow.reduce.time_bins import TimeBinning, TimeBins, bins_of_spans, plan_time_bins
from dl3flow.units import FLUX

RUN = TimeBinning("run")
# gammapy's: a dataset that ends with an interval belongs to it in spite of rounding
_TOLERANCE = 1e-6 / 86400


def _probability(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"expected a probability between 0 and 1, found {value!r}")
    return float(value)


Probability = Annotated[float, _probability]


def join_light_curve(
    slices: Sequence[Slice],
    models: Models,
    *,
    source: str,
    energy: EnergyBands | None = None,
    time: TimeBins = RUN,
    blocks: Probability | None = None,
    rows: Literal["bins", "blocks"] = "bins",
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
    told: Sequence[str] = (),
) -> LightCurve:
    """Light curve of slices that were measured one by one.

    Parameters
    ----------
    slices : sequence of Slice
    models : Models
        Those that the slices were measured with.
    source, energy, time, blocks, rows, n_sigma, n_sigma_ul
        As of `light_curve`.
    told : sequence of str
        Further warnings.

    Returns
    -------
    curve : LightCurve

    Raises
    ------
    InputError
        If there is no such source, or no slice has a result.
    """
    found = source_of(models, source, "estimator light_curve")
    every = ordered(slices)
    # a bin that failed and whose times no index tells has no place in a table; the warnings name it
    bins = [each for each in every if np.isfinite(each.low)]
    fitted = slice_rows(bins, found, n_sigma, n_sigma_ul)
    measures, summary, warnings = describe_variability(bins, fitted)
    warnings = [*unseen_slices(bins, fitted), *warnings]
    if rows == "blocks" and blocks is None:
        raise InputError("estimator light_curve: rows of blocks need `blocks`, such as `blocks: 0.05`")
    shown, facts = bins, {}
    if blocks is not None:
        places = find_blocks(bins, fitted, blocks)
        merged = [joined([bins[k] for k in place]) for place in places]
        if not places:
            warnings.append("no bin has a flux in all of its energy bands, so there are no Bayesian blocks")
        in_blocks = slice_rows(merged, found, n_sigma, n_sigma_ul) if places else []
        facts = {"blocks": _block_facts(in_blocks), "blocks_p0": blocks}
        summary.append(["Bayesian blocks", f"{len(places)} (p0 {blocks:g})"])
        if rows == "blocks" and places:
            shown, fitted = merged, in_blocks
        else:
            number = {k: n for n, place in enumerate(places) for k in place}
            n_bands = len(fitted) // len(bins)
            fitted = [{**row, "block": number.get(k // n_bands, -1)} for k, row in enumerate(fitted)]
    bands = next(each.bands for each in bins if not each.failure)
    edges = u.Quantity([*(band.edges[0] for band in bands), bands[-1].edges[1]])
    meta = point_meta(source, n_sigma, n_sigma_ul, edges, None if energy is None else energy.edges)
    return LightCurve(
        _table(fitted),
        {
            **meta,
            **facts,
            "warnings": [*meta["warnings"], *told, *slice_warnings(every), *warnings],
            "n_bands": len(bands),
            "time": time.kind,
            "labels": [each.label for each in shown],
            "variability": measures,
            "summary": summary,
        },
    )


@TABLES.register(bins=plan_time_bins, binned_by="time", join=join_light_curve)
def light_curve(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    energy: EnergyBands | None = None,
    time: TimeBins = RUN,
    blocks: Probability | None = None,
    rows: Literal["bins", "blocks"] = "bins",
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
) -> LightCurve:
    """Fit the norm of a source's spectrum in each bin of time, all else as in the best fit or as the models stand.

    A temporal model of the source is left out, so that fluxes are those of the bins.

    Parameters
    ----------
    datasets : sequence of Dataset
        One per run, or per part of a run. Those whose good times lie in one bin are fitted jointly; of bins of a width or
        intervals, a dataset that reaches beyond is left out with a warning: a workflow cuts it out of the events.
    result : FitResult
    source : str
    energy : Axis, optional
        Energy bands, their edges moved to the nearest edges of a bin's first dataset; one band of all energies by default.
    time : TimeBinning
        A bin per dataset (run), per night, on a grid, or in intervals.
    blocks : float, optional
        Bins are joined to Bayesian blocks, which cut a constant light curve with this probability. The fitness is the
        likelihood itself.
    rows : 'bins' or 'blocks'
        What a row of the table is; with bins, ``block`` numbers the blocks and ``meta["blocks"]`` holds their fluxes.
    n_sigma, n_sigma_ul : float
        Of the errors and upper limits.

    Returns
    -------
    curve : LightCurve
        In order of time and energy; flux columns refer to the energies of the row. ``meta["variability"]`` as
        `describe_variability` gives it.

    Raises
    ------
    InputError
        If the fit has no such source, or no bin a result.
    """
    counted, told = with_counts(datasets)
    if not counted:
        raise InputError(
            "estimator light_curve: the fit has flux points only, and no counts to make a light curve of"
        )
    groups, outside = _groups(counted, time)
    if not groups:
        raise InputError(
            "estimator light_curve: no bin of `time` holds the good times of a dataset: cut the datasets to the bins, or make "
            "these larger"
        )
    if outside:
        told = [*told, f"no bin holds the times of {', '.join(outside)}: these datasets are left out"]
    slices = [measure_slice(label, own, result.models, source, energy, ends) for label, ends, own in groups]
    return join_light_curve(
        slices,
        result.models,
        source=source,
        energy=energy,
        time=time,
        blocks=blocks,
        rows=rows,
        n_sigma=n_sigma,
        n_sigma_ul=n_sigma_ul,
        told=told,
    )


def _groups(
    datasets: Sequence[Dataset], time: TimeBinning
) -> tuple[list[tuple[str, tuple[float, float] | None, list[Dataset]]], list[str]]:
    """Label, ends and datasets of each bin, and the names of those in none."""
    if time.kind == "run":
        return [(dataset.name, None, [dataset]) for dataset in datasets], []
    spans = dict(enumerate(good_times([dataset]) for dataset in datasets))
    found, left = [], set(spans)
    for each in bins_of_spans(time, spans, {}):
        if each.low is None or each.high is None:
            ends, held = None, each.obs_ids
        else:
            low, high = ends = each.low, each.high
            held = tuple(
                k
                for k in each.obs_ids
                if low - _TOLERANCE <= spans[k][0] and spans[k][1] <= high + _TOLERANCE
            )
        if held:
            found.append((each.label, ends, [datasets[k] for k in held]))
            left -= set(held)
    return found, [datasets[k].name for k in sorted(left)]


def _block_facts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Ends, energies and fluxes of blocks as plain numbers: MJD (TT), TeV, cm-2 s-1."""
    return [
        {
            "time_min": row["low"],
            "time_max": row["high"],
            **{name: float(row[name].to_value(u.TeV)) for name in ("e_min", "e_max")},
            **{
                f"flux{name[4:]}": float(row[name] * row["ref_flux"].to_value(FLUX))
                for name in ("norm", "norm_err", "norm_errn", "norm_errp", "norm_ul")
            },
            "ts": float(row["ts"]),
        }
        for row in rows
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> QTable:
    """Columns of rows, the times first."""
    names = {"low": "time_min", "high": "time_max"}
    columns = {names.get(name, name): _column([row[name] for row in rows]) for name in rows[0]}
    return QTable({**columns, **{name: columns[name] * u.d for name in names.values()}})


def _column(values: list[Any]) -> Any:
    return u.Quantity(values) if isinstance(values[0], u.Quantity) else np.array(values)
