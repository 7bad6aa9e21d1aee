"""Estimator ``sensitivity``: the weakest flux that would be detected, per energy band."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.dataset import FitData
from dl3flow.data.products import FitResult, ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators.norms import Sigmas, lost_energies, reference_columns, snapped_edges, with_counts
from dl3flow.estimators.pixels import Slope, reference_source
from dl3flow.estimators.regions import RegionCounts, added, at_region, region_counts
from dl3flow.estimators.registry import TABLES
from dl3flow.geometry.axis import EnergyAxis
from dl3flow.geometry.region import Region
from dl3flow.kernels.counts_interval import cash_excess_at, wstat_excess_at
from dl3flow.models.source import Models
from dl3flow.units import DNDE, EFLUX, FLUX

_WHERE = "estimator sensitivity"
_CRITERIA = np.array(["significance", "gamma", "bkg"])
_NO_DATA = "no data"


def _from_zero(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
        raise ValueError(f"expected a number from 0 on, found {value!r}")
    return float(value)


@TABLES.register(region_of_maps=True)
def sensitivity(
    datasets: Sequence[FitData],
    result: FitResult | None,
    *,
    energy: EnergyAxis | None = None,
    n_sigma: Sigmas = 5.0,
    gamma_min: Annotated[float, _from_zero] = 10.0,
    bkg_syst: Annotated[float, _from_zero] = 0.05,
    region: Region | None = None,
    spectrum: str | None = None,
    index: Slope = 2.0,
    correlate_off: bool = False,
) -> ProductTable:
    """Flux at which a source would be detected: significant, with enough photons, and above the background's systematic error.

    The excess is the largest of three: that with a significance of ``n_sigma`` over the background (Li and Ma 1983, equation
    17, for measured backgrounds; the Cash test statistic for known ones), ``gamma_min`` counts, and ``bkg_syst`` times the
    background. Counts of the source itself are not used.

    Parameters
    ----------
    datasets : sequence of Dataset
        Added up; all with known or all with measured backgrounds.
    result : FitResult or None
        Its backgrounds are those of the fit.
    energy : Axis, optional
        Bands, each edge moved to the nearest one of the data; every bin of the first dataset by default.
    n_sigma, gamma_min, bkg_syst : float
    region : RegionGeometry, optional
        For maps: where counts are taken; its middle is where the source would be. Spectra have their region.
    spectrum : str, optional
        Source of the fit whose spectrum and place turn counts into flux.
    index : float
        Of a power law, where no source is named.
    correlate_off : bool
        As in `counts_table`.

    Returns
    -------
    table : ProductTable
        e_ref, e_min, e_max, e2dnde, dnde, flux (in the band), excess, background, signal efficiency in the form
        ``npred`` (counts that the reference flux gives), and criterion: ``significance``, ``gamma`` or ``bkg``, which of the
        three decides, or ``no data``.

    Raises
    ------
    InputError
        If maps come without a region, or a source is named that is not in the fit.
    """
    kept, told = with_counts(datasets)
    if not kept:
        raise InputError(f"{_WHERE}: there are no counts: take a reduction, or a fit of counts")
    maps = [d.name for d in kept if d.counts.data.shape[1:] != (1, 1)]
    if maps and region is None:
        raise InputError(
            f"{_WHERE}: '{maps[0]}' is a map: give `region`, the circle in which a source would be counted"
        )
    reference = at_region(reference_source(result, spectrum, index, _WHERE), kept, region)
    models = replace(Models(()) if result is None else result.models, sources=(reference,))
    edges = kept[0].energy.edges if energy is None else snapped_edges(kept[0].energy, energy.edges)
    bands = u.Quantity([edges[:-1], edges[1:]]).T
    found = added([region_counts(d, models, bands, region, _WHERE, correlate_off) for d in kept], _WHERE)
    excess, decides = _least_excess(found, n_sigma, gamma_min, bkg_syst)
    seen = (found.n_bins > 0) & (found.signal > 0) & np.isfinite(excess)
    norm = np.where(seen, excess / np.where(seen, found.signal, 1.0), np.nan)
    columns = reference_columns(reference, edges[:-1], edges[1:])
    table = QTable(
        {
            **{name: columns[name] for name in ("e_ref", "e_min", "e_max")},
            "e2dnde": (norm * columns["ref_e2dnde"]).to(EFLUX),
            "dnde": (norm * columns["ref_dnde"]).to(DNDE),
            "flux": (norm * columns["ref_flux"]).to(FLUX),
            "excess": np.where(seen, excess, np.nan),
            "background": found.background,
            "npred": found.signal,
            "criterion": np.where(seen, _CRITERIA[decides], _NO_DATA),
        }
    )
    unknown = int(np.count_nonzero(~seen))
    if unknown:
        told.append(
            f"{unknown} of {len(table)} energy bands have no data, or a background that was not measured"
        )
    told += lost_energies(kept, edges, beyond=energy is None)
    livetime = sum(float(d.meta.get("livetime", 0)) for d in kept)
    summary = [
        ["datasets", len(kept)],
        ["livetime (h)", livetime / 3600],
        ["significance asked for (sigma)", n_sigma],
        ["least counts", gamma_min],
        ["systematic error of the background", bkg_syst],
        ["spectrum", spectrum or f"power law of index {index:g}"],
    ]
    return ProductTable("sensitivity", table, {"n_sigma": n_sigma, "warnings": told, "summary": summary})


def _least_excess(
    found: RegionCounts, n_sigma: float, gamma_min: float, bkg_syst: float
) -> tuple[np.ndarray, np.ndarray]:
    """Least excess of each band, NaN where its background was not measured, and the number of what decides."""
    if found.counts_off is None or found.alpha is None:
        significant = cash_excess_at(n_sigma, found.background)
    else:
        measured = found.alpha > 0
        alpha = np.where(measured, found.alpha, 1.0)
        significant = np.where(measured, wstat_excess_at(n_sigma, found.counts_off, alpha), np.nan)
    least = np.full(len(significant), gamma_min)
    each = np.array([significant, least, bkg_syst * found.background])
    return np.max(each, axis=0), np.argmax(np.nan_to_num(each), axis=0)
