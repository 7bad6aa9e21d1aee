"""Estimator ``light_curve``: the flux of one source in time bins."""

from collections.abc import Sequence
from typing import Literal

import astropy.units as u
from astropy.table import QTable

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.products import FitResult, LightCurve
from dl3flow.errors import InputError
from dl3flow.estimators.norms import (
    Sigmas,
    find_source,
    norm_row,
    point_meta,
    reference_columns,
    selected_bins,
    snapped_edges,
    with_counts,
)
from dl3flow.estimators.registry import TABLES
from dl3flow.geometry.axis import EnergyRange


@TABLES.register()
def light_curve(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    energy: EnergyRange | None = None,
    time: Literal["run"] = "run",
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
) -> LightCurve:
    """Fit the norm of a source's best-fit spectrum in each dataset alone, all else fixed at the best fit.

    Parameters
    ----------
    datasets : sequence of Dataset
        Of a joint fit: one time bin each, from the start of its first to the end of its last good time interval.
    result : FitResult
    source : str
    energy : Axis, optional
        The bins from its low to its high end, each moved to the nearest edge of the data, are joined; all by default.
    time : 'run'
        One bin per dataset.
    n_sigma, n_sigma_ul : float

    Returns
    -------
    curve : LightCurve
        In order of time; flux columns refer to the energy range of the row.

    Raises
    ------
    InputError
        If the fit has no such source, or an observation no energy bin in the range.
    """
    found = find_source(result, source, "estimator light_curve")
    datasets, told = with_counts(datasets)
    if not datasets:
        raise InputError(
            "estimator light_curve: the fit has flux points only, and no counts to make a light curve of"
        )
    rows = []
    for dataset in datasets:
        edges = dataset.energy.edges if energy is None else snapped_edges(dataset.energy, energy.edges)
        keep = dataset.mask & dataset.energy.contains_bin(edges[0], edges[-1])[:, None, None]
        columns = {name: value[0] for name, value in reference_columns(found, edges[:1], edges[-1:]).items()}
        row = norm_row([selected_bins(dataset, result.models, found)(keep)], n_sigma, n_sigma_ul)
        rows.append({**_interval(dataset), **columns, **row, "dataset": dataset.name})
    rows.sort(key=lambda row: row["time_min"])
    table = QTable({name: _column([row[name] for row in rows]) for name in rows[0]})
    ends = u.Quantity([table["e_min"][0], table["e_max"][0]])
    meta = point_meta(source, n_sigma, n_sigma_ul, ends, None if energy is None else energy.edges)
    return LightCurve(table, {**meta, "warnings": [*meta["warnings"], *told], "time": time})


def _interval(dataset: Dataset) -> dict[str, u.Quantity]:
    gti = dataset.gti
    if not len(gti.start):
        raise InputError(
            f"estimator light_curve: dataset '{dataset.name}' has no good time intervals, so its times are not known: take a fit "
            "without it"
        )
    ends = (gti.reference + gti.start.min(), gti.reference + gti.stop.max())
    return {name: t.tt.mjd * u.d for name, t in zip(("time_min", "time_max"), ends, strict=True)}


def _column(values: list[object]) -> object:
    return u.Quantity(values) if isinstance(values[0], u.Quantity) else values
