"""Estimator ``counts_table``: counts, background, excess and its significance per dataset or energy bin, cumulative on request."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.products import FitResult, ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators.norms import lost_energies, snapped_edges, with_counts
from dl3flow.estimators.regions import RegionCounts, added, region_counts
from dl3flow.estimators.registry import TABLES
from dl3flow.geometry.axis import EnergyAxis
from dl3flow.geometry.region import Region
from dl3flow.kernels.counts_interval import CountsInterval, cash_interval, wstat_interval
from dl3flow.models.source import Models

_WHERE = "estimator counts_table"


@TABLES.register()
def counts_table(
    datasets: Sequence[FitData],
    result: FitResult | None,
    *,
    by: Literal["dataset", "energy"] = "dataset",
    cumulative: bool = False,
    region: Region | None = None,
    energy: EnergyAxis | None = None,
    correlate_off: bool = False,
) -> ProductTable:
    """Count what is in the data, with and without a fit.

    Parameters
    ----------
    datasets : sequence of Dataset
        All with known or all with measured backgrounds.
    result : FitResult or None
        Its backgrounds and expected signal are those of the fit.
    by : 'dataset' or 'energy'
        What makes a row. Datasets stand in order of time.
    cumulative : bool
        True makes each row the sum of itself and all before it: over time, or over all energies above its ``e_min``.
    region : RegionGeometry, optional
        For maps: where counts are taken; all pixels by default. Spectra have their region.
    energy : Axis, optional
        Of rows by energy their edges, each moved to the nearest one of the data; else the range from its low to its high
        end. All energies of the data by default.
    correlate_off : bool
        For maps with measured backgrounds: off counts are the mean of those of the pixels, as for rings, which share events;
        True takes their sum.

    Returns
    -------
    table : ProductTable
        name, or e_min and e_max; livetime (of the data so far, for cumulative rows by dataset), counts, background, excess,
        excess_errn, excess_errp, sqrt_ts (Li and Ma 1983, equation 17, for measured backgrounds; of the Cash statistic for
        known ones), counts_off and alpha of measured backgrounds; npred_signal and npred with a fit; counts_rate,
        background_rate and excess_rate.

    Raises
    ------
    InputError
        For known and measured backgrounds together, or energies and regions that hold no data.
    """
    kept, told = with_counts(datasets)
    if not kept:
        raise InputError(f"{_WHERE}: there are no counts: take a reduction, or a fit of counts")
    kept = sorted(kept, key=_start)
    models = Models(()) if result is None else result.models
    edges = kept[0].energy.edges if energy is None else snapped_edges(kept[0].energy, energy.edges)
    ends = edges if energy is not None else u.Quantity([e for d in kept for e in d.energy.edges[[0, -1]]])
    whole = u.Quantity([ends.min(), ends.max()])[None]
    count = partial(region_counts, models=models, region=region, where=_WHERE, correlate_off=correlate_off)
    times = np.array([float(d.meta.get("livetime", np.nan)) for d in kept])
    if by == "energy":
        high = edges[-1] * np.ones(len(edges) - 1) if cumulative else edges[1:]
        bands = u.Quantity([edges[:-1], high]).T
        found = added([count(d, bands=bands) for d in kept], _WHERE)
        first: dict[str, Any] = {"e_min": bands[:, 0], "e_max": bands[:, 1]}
        livetime = np.full(len(bands), times.sum())
    else:
        each = [count(d, bands=whole) for d in kept]
        rows = [added(each[0 if cumulative else k : k + 1], _WHERE) for k in range(len(kept))]
        found = _in_rows(rows)
        first = {"name": [d.name for d in kept]}
        livetime = np.cumsum(times) if cumulative else times
    columns = {**first, "livetime": livetime * u.s, **_count_columns(found, result is not None)}
    seconds = np.where(livetime > 0, livetime, np.nan)
    for name in ("counts", "background", "excess"):
        columns[f"{name}_rate"] = columns[name] / seconds / u.s
    unmeasured = int(np.count_nonzero(~np.isfinite(columns["sqrt_ts"])))
    if unmeasured:
        told.append(
            f"{unmeasured} of {len(livetime)} rows have no background to compare with: they have no significance"
        )
    each = [count(d, bands=whole) for d in kept] if by == "energy" else each
    if by == "energy":
        told += lost_energies(kept, edges, beyond=energy is None)
    all_of_it = _count_columns(added(each, _WHERE), False)
    summary = [
        ["datasets", len(kept)],
        ["livetime (h)", float(times.sum()) / 3600],
        *([label, float(all_of_it[label][0])] for label in ("counts", "background", "excess")),
        ["significance (sigma)", float(all_of_it["sqrt_ts"][0])],
    ]
    meta = {"by": by, "cumulative": cumulative, "warnings": told, "summary": summary}
    return ProductTable("counts_table", QTable(columns), meta)


def _start(dataset: Dataset) -> float:
    gti = dataset.gti
    return float((gti.reference + gti.start.min()).tt.mjd) if len(gti.start) else np.inf


def _in_rows(parts: Sequence[RegionCounts]) -> RegionCounts:
    """Sums of one band each, as rows."""
    names = [f.name for f in fields(RegionCounts) if getattr(parts[0], f.name) is not None]
    return replace(parts[0], **{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def _count_columns(found: RegionCounts, has_fit: bool) -> dict[str, Any]:
    """Columns of a table with a row per band."""
    counts, background, seen = found.counts, found.background, found.n_bins > 0
    columns = {"counts": counts, "background": background}
    if found.counts_off is None or found.alpha is None:
        known = seen & ((background > 0) | (counts == 0))
        interval: CountsInterval = cash_interval(counts, background)
    else:
        known = seen & (found.alpha > 0)
        interval = wstat_interval(counts, found.counts_off, np.where(known, found.alpha, 1.0))
        columns |= {"counts_off": found.counts_off, "alpha": found.alpha}
    pairs = {"excess": "excess", "excess_errn": "errn", "excess_errp": "errp", "sqrt_ts": "sqrt_ts"}
    columns |= {name: np.where(known, getattr(interval, of), np.nan) for name, of in pairs.items()}
    if has_fit:
        columns |= {"npred_signal": found.signal, "npred": found.signal + background}
    return columns
