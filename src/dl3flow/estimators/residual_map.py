"""Estimator ``residual_map``: counts less all that a fit predicts, around each pixel."""

from collections.abc import Sequence

import astropy.units as u

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.estimators.images import (
    Circle,
    band_maps,
    excess_meta,
    lost_bins,
    map_meta,
    significance_maps,
)
from dl3flow.estimators.norms import Sigmas
from dl3flow.estimators.pixels import chosen_edges, doubts_of, maps_only, pixel_bins
from dl3flow.estimators.registry import MAPS
from dl3flow.geometry.axis import EnergyAxis, PositiveAngle
from dl3flow.geometry.region import Region
from dl3flow.reduce.beam import beam_radius


@MAPS.register()
def residual_map(
    datasets: Sequence[Dataset],
    result: FitResult,
    *,
    correlation_radius: PositiveAngle = 0.1 * u.deg,
    correlate_off: bool = False,
    exclusion: Region | None = None,
    energy: EnergyAxis | None = None,
    errors: bool = False,
    n_sigma: Sigmas = 1.0,
) -> SkyMap:
    """Counts less the prediction of a fit within ``correlation_radius`` of each pixel, summed over energy.

    Options as in `excess_map`.

    Returns
    -------
    sky : SkyMap
        counts, npred, excess, excess_err, sqrt_ts; for measured backgrounds counts_off, acceptance and acceptance_off too; on
        request excess_errn and excess_errp. Maps of bands are called ``band_...``. ``meta["significance"]`` is the
        distribution outside ``exclusion``, with the Gaussian fitted to it.

    Raises
    ------
    InputError
        If known and measured backgrounds meet, or the bands do not overlap the data.
    """
    maps = maps_only(datasets, "estimator residual_map")
    asked = Circle(correlation_radius, correlate_off, errors, n_sigma=n_sigma)
    edges = chosen_edges(maps, energy)
    bins = [pixel_bins(d, result.models, None) for d in maps]
    told = [*doubts_of(maps), *lost_bins(bins, edges)]
    bins = [own.within(edges[0], edges[-1]) for own in bins]
    found = significance_maps(bins, asked, "npred")
    meta = map_meta("residual_map", result, correlation_radius, found["sqrt_ts"], exclusion)
    meta |= {**excess_meta(asked, edges, None), "warnings": told, "beam": beam_radius(maps)}
    bands = band_maps(bins, edges, asked, "npred", None) if len(edges) > 2 else {}
    return SkyMap({**found, **bands}, meta)
