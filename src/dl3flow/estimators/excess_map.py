"""Estimator ``excess_map``: counts above the background around each pixel, and their significance."""

from collections.abc import Sequence
from dataclasses import replace

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.estimators.images import map_meta, significance_maps
from dl3flow.estimators.registry import MAPS
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.geometry.region import Region
from dl3flow.models.source import Models


@MAPS.register()
def excess_map(
    datasets: Sequence[Dataset],
    result: FitResult | None,
    *,
    correlation_radius: PositiveAngle = 0.1 * u.deg,
    correlate_off: bool = False,
    exclusion: Region | None = None,
) -> SkyMap:
    """Excess over the background within ``correlation_radius`` of each pixel, summed over energy.

    The background is that of the reduction, or that of the fit where one is given. Off counts are those of the pixel
    itself, or with ``correlate_off`` the sum of those in the circle, in which rings that overlap count events many times.

    Returns
    -------
    sky : SkyMap
        counts, background, excess, sqrt_ts (Li and Ma 1983, equation 17, for measured backgrounds, with counts_off,
        acceptance and acceptance_off; the Cash test statistic for known ones). Its ``meta["significance"]`` is the
        distribution outside ``exclusion`` (DS9 text; by default 0.3 deg around the fit's sources).
    """
    models = Models(()) if result is None else replace(result.models, sources=())
    background = [predict_counts(d, models)[1] for d in datasets]
    nothing = [np.zeros(mu.shape) for mu in background]
    maps = significance_maps(
        datasets, nothing, background, correlation_radius, "background", correlate_off=correlate_off
    )
    return SkyMap(maps, map_meta("excess_map", result, correlation_radius, maps["sqrt_ts"], exclusion))
