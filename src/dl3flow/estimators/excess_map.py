"""Estimator ``excess_map``: counts above the background around each pixel, and their significance."""

from collections.abc import Sequence

import astropy.units as u

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.estimators.images import map_meta, significance_maps
from dl3flow.estimators.registry import MAPS
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.models.source import Models


@MAPS.register()
def excess_map(
    datasets: Sequence[Dataset], result: FitResult | None, *, correlation_radius: PositiveAngle = 0.1 * u.deg
) -> SkyMap:
    """Excess over the background within ``correlation_radius`` of each pixel, summed over energy.

    The background is that of the reduction, or that of the fit where one is given.

    Returns
    -------
    sky : SkyMap
        counts, background, excess, sqrt_ts (Li and Ma 1983 for a known background: the Cash test statistic).
    """
    models = Models(()) if result is None else Models((), result.models.backgrounds)
    expected = [predict_counts(d, models)[1] for d in datasets]
    return SkyMap(
        significance_maps(datasets, expected, correlation_radius, "background"),
        map_meta("excess_map", result, correlation_radius),
    )
