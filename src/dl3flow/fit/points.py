"""Flux points as data: the statistic of each point as a function of the flux expected there."""

from collections.abc import Callable

import numpy as np

from dl3flow.data.dataset import FluxPointsData
from dl3flow.units import DNDE

PointsStat = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def build_points_stat(points: FluxPointsData) -> PointsStat:
    """((dnde - model) / error)^2 of each used point, with the error on the model's side of it, and two derivatives."""
    used = points.mask
    measured, below, above = (q.to_value(DNDE)[used] for q in (points.dnde, points.errn, points.errp))

    def stat(dnde: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        error = np.where(dnde > measured, above, below)
        pulls = (dnde - measured) / error
        return pulls**2, 2 * pulls / error, 2 / error**2

    return stat
