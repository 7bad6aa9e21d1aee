"""Estimator ``residual_map``: counts less all that a fit predicts, around each pixel."""

from collections.abc import Sequence

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.estimators.images import map_meta, significance_maps
from dl3flow.estimators.registry import MAPS
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.axis import PositiveAngle


@MAPS.register()
def residual_map(
    datasets: Sequence[Dataset], result: FitResult, *, correlation_radius: PositiveAngle = 0.1 * u.deg
) -> SkyMap:
    """Counts less the prediction of a fit within ``correlation_radius`` of each pixel, summed over energy.

    Returns
    -------
    sky : SkyMap
        counts, npred, excess, sqrt_ts.
    """
    expected = [np.add(*predict_counts(d, result.models)) for d in datasets]
    return SkyMap(
        significance_maps(datasets, expected, correlation_radius, "npred"),
        map_meta("residual_map", result, correlation_radius),
    )
