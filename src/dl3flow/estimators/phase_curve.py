"""Estimator ``phase_curve``: the flux of one source in bins of the phase of a pulsar or orbit."""

from collections.abc import Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.products import FitResult, ProductTable
from dl3flow.data.slices import Slice
from dl3flow.errors import InputError
from dl3flow.estimators.norms import Sigmas, point_meta, with_counts
from dl3flow.estimators.registry import TABLES
from dl3flow.estimators.slices import (
    EnergyBands,
    measure_slice,
    ordered,
    slice_rows,
    slice_warnings,
    source_of,
    unseen_slices,
)
from dl3flow.estimators.variability import describe_variability
from dl3flow.models.source import Models
from dl3flow.reduce.time_bins import PhaseEdges, plan_phase_bins
from dl3flow.units import FLUX

_FLUXES = ("norm", "norm_err", "norm_errn", "norm_errp", "norm_ul")
# of the phases that a dataset was cut to, in its meta
_NEAR = 1e-9


def join_phase_curve(
    slices: Sequence[Slice],
    models: Models,
    *,
    source: str,
    phase: PhaseEdges,
    energy: EnergyBands | None = None,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
    told: Sequence[str] = (),
) -> ProductTable:
    """Phase curve of slices that were measured one by one; parameters as of `phase_curve`, ``told`` are further warnings.

    Raises
    ------
    InputError
        If there is no such source, or no slice has a result.
    """
    found = source_of(models, source, "estimator phase_curve")
    bins = ordered(slices)
    rows = slice_rows(bins, found, n_sigma, n_sigma_ul)
    measures, summary, warnings = describe_variability(bins, rows, is_timed=False)
    warnings = [*unseen_slices(bins, rows), *warnings]
    table = QTable({name: _column([row[name] for row in rows]) for name in rows[0] if name != "dataset"})
    table.rename_columns(["low", "high"], ["phase_min", "phase_max"])
    for name in _FLUXES:
        table[f"flux{name[4:]}"] = (table[name] * table["ref_flux"]).to(FLUX)
    bands = next(each.bands for each in bins if not each.failure)
    edges = u.Quantity([*(band.edges[0] for band in bands), bands[-1].edges[1]])
    meta = point_meta(source, n_sigma, n_sigma_ul, edges, None if energy is None else energy.edges)
    told = [*meta["warnings"], *told, *slice_warnings(bins), *warnings]
    facts = {"n_bands": len(bands), "variability": measures, "summary": summary}
    return ProductTable("phase_curve", table, {**meta, **facts, "warnings": told})


@TABLES.register(bins=plan_phase_bins, binned_by="phase", join=join_phase_curve)
def phase_curve(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    phase: PhaseEdges,
    energy: EnergyBands | None = None,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
) -> ProductTable:
    """Fit the norm of a source's spectrum in each bin of phase, all else as in the best fit or as the models stand.

    The flux is that while the phase lies in the bin: the livetime of a bin is its share of the period.

    Parameters
    ----------
    datasets : sequence of Dataset
        Each of events that were cut to the phases of one bin (`filter_observation`); those of one bin are fitted jointly.
    result : FitResult
    source : str
    phase : tuple of float
        Edges, increasing within one period; or their number.
    energy : Axis, optional
        Energy bands, their edges moved to the nearest edges of the data; one band of all energies by default.
    n_sigma, n_sigma_ul : float
        Of the errors and upper limits.

    Returns
    -------
    curve : ProductTable
        phase_min, phase_max, e_ref, e_min, e_max, the columns of `FluxPoints` and flux with its errors and limit.

    Raises
    ------
    InputError
        If the fit has no such source, or no bin a result.
    """
    counted, told = with_counts(datasets)
    slices, left = [], {dataset.name for dataset in counted}
    for each in plan_phase_bins(phase, []):
        assert each.low is not None
        assert each.high is not None
        ends = (each.low, each.high)
        own = [dataset for dataset in counted if _is_cut_to(dataset, ends)]
        if own:
            slices.append(measure_slice(each.label, own, result.models, source, energy, ends))
            left -= {dataset.name for dataset in own}
    if not slices:
        raise InputError(
            "estimator phase_curve: no dataset was cut to the phases of a bin: reduce the events of each bin by themselves"
        )
    if left:
        told = [*told, f"no bin has the phases of {', '.join(sorted(left))}: these datasets are left out"]
    return join_phase_curve(
        slices,
        result.models,
        source=source,
        phase=phase,
        energy=energy,
        n_sigma=n_sigma,
        n_sigma_ul=n_sigma_ul,
        told=told,
    )


def _is_cut_to(dataset: Dataset, ends: tuple[float, float]) -> bool:
    pairs = dataset.meta.get("phase") or []
    wanted = (ends[0] % 1, ends[1] - np.floor(ends[0]))
    return len(pairs) == 1 and bool(np.allclose(pairs[0], wanted, rtol=0, atol=_NEAR))


def _column(values: list[Any]) -> Any:
    return u.Quantity(values) if isinstance(values[0], u.Quantity) else np.array(values)
