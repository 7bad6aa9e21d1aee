"""Estimator ``residual_map``: counts less all that a fit predicts, around each pixel."""

from collections.abc import Sequence

import astropy.units as u

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.estimators.images import map_meta, significance_maps
from dl3flow.estimators.registry import MAPS
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.geometry.region import Region


@MAPS.register()
def residual_map(
    datasets: Sequence[Dataset],
    result: FitResult,
    *,
    correlation_radius: PositiveAngle = 0.1 * u.deg,
    correlate_off: bool = False,
    exclusion: Region | None = None,
) -> SkyMap:
    """Counts less the prediction of a fit within ``correlation_radius`` of each pixel, summed over energy.

    Options as in `excess_map`.

    Returns
    -------
    sky : SkyMap
        counts, npred, excess, sqrt_ts; for measured backgrounds counts_off, acceptance and acceptance_off too.
    """
    predicted = [predict_counts(d, result.models) for d in datasets]
    maps = significance_maps(
        datasets,
        [signal for signal, _ in predicted],
        [background for _, background in predicted],
        correlation_radius,
        "npred",
        correlate_off=correlate_off,
    )
    return SkyMap(maps, map_meta("residual_map", result, correlation_radius, maps["sqrt_ts"], exclusion))
