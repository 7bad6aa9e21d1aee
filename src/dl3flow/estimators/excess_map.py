"""Estimator ``excess_map``: counts above the background around each pixel, their significance and their flux."""

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
from dl3flow.estimators.pixels import (
    Slope,
    chosen_edges,
    doubts_of,
    known_models,
    maps_only,
    pixel_bins,
    reference_source,
)
from dl3flow.estimators.registry import MAPS
from dl3flow.geometry.axis import EnergyAxis, PositiveAngle
from dl3flow.geometry.region import Region
from dl3flow.reduce.beam import beam_radius

_WHERE = "estimator excess_map"


@MAPS.register()
def excess_map(
    datasets: Sequence[Dataset],
    result: FitResult | None,
    *,
    correlation_radius: PositiveAngle = 0.1 * u.deg,
    correlate_off: bool = False,
    exclusion: Region | None = None,
    energy: EnergyAxis | None = None,
    subtract: list[str] | None = None,
    index: Slope = 2.0,
    spectrum: str | None = None,
    errors: bool = False,
    limits: bool = False,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
) -> SkyMap:
    """Excess over the background within ``correlation_radius`` of each pixel, summed over energy, and its flux.

    The background is that of the reduction, or that of the fit where one is given, with the sources ``subtract`` of it. Off
    counts are those of the pixel itself, or with ``correlate_off`` the sum of those in the circle, in which rings that
    overlap count events many times. The flux in the circle is the excess over the counts that the reference spectrum gives
    with the exposure folded to reconstructed energies, in the mean of the circle, without point spread.

    Parameters
    ----------
    datasets : sequence of Dataset
    result : FitResult or None
    correlation_radius : Quantity
    correlate_off : bool
    exclusion : RegionGeometry or None
    energy : Axis or None
        Bands, moved to the nearest edges of the data: the maps are sums over all of them, and where there are several, each
        has maps of its own too.
    subtract : list of str or None
        Sources of the fit that are no excess.
    index : float
        Of the power law by which counts become fluxes.
    spectrum : str or None
        Source of the fit whose spectrum takes its place.
    errors, limits : bool
        Whether to add the ends of the intervals and upper limits, by the likelihood's rise.
    n_sigma, n_sigma_ul : float

    Returns
    -------
    sky : SkyMap
        counts, background, excess, excess_err, sqrt_ts (Li and Ma 1983, equation 17, for measured backgrounds, with
        counts_off, acceptance and acceptance_off; the Cash test statistic for known ones), flux, flux_err; on request
        excess_errn, excess_errp, excess_ul and the same of flux. Maps of bands are called ``band_...``. Its
        ``meta["significance"]`` is the distribution outside ``exclusion`` (DS9 text; by default 0.3 deg around the fit's
        sources), with the Gaussian fitted to it.

    Raises
    ------
    InputError
        If known and measured backgrounds meet, a source is not in the fit, or the bands do not overlap the data.
    """
    maps = maps_only(datasets, _WHERE)
    models = known_models(result, subtract or [], f"{_WHERE}: subtract")
    reference = reference_source(result, spectrum, index, f"{_WHERE}: spectrum")
    asked = Circle(correlation_radius, correlate_off, errors, limits, n_sigma, n_sigma_ul)
    edges = chosen_edges(maps, energy)
    bins = [pixel_bins(d, models, reference) for d in maps]
    told = [*doubts_of(maps), *lost_bins(bins, edges)]
    bins = [own.within(edges[0], edges[-1]) for own in bins]
    found = significance_maps(bins, asked, "background", reference)
    meta = map_meta("excess_map", result, correlation_radius, found["sqrt_ts"], exclusion)
    by = spectrum or f"power law of index {index:g}"
    meta |= {
        **excess_meta(asked, edges, by),
        "subtracted": subtract or [],
        "warnings": told,
        "beam": beam_radius(maps),
    }
    bands = band_maps(bins, edges, asked, "background", reference) if len(edges) > 2 else {}
    return SkyMap({**found, **bands}, meta)
