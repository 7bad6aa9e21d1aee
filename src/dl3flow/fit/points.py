"""Flux points as data: the statistic of each point as a function of the flux expected there."""

from collections.abc import Callable

import numpy as np

from dl3flow.data.dataset import FluxPointsData, NormProfiles
from dl3flow.kernels.profiles import build_profile_stat, limit_stat
from dl3flow.units import DNDE

PointsStat = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def build_points_stat(points: FluxPointsData) -> PointsStat:
    """Statistic of each used point with two derivatives, as `FluxPointsData.stat_type` says.

    ``chi2``: ((dnde - model) / error)^2, with the error on the model's side of the point. ``profile``: its likelihood
    profile. ``distrib``: chi2, and the probability to have measured less where there is a limit.
    """
    if points.profiles is not None and points.stat_type == "profile":
        return _build_profiles(points, points.profiles)
    chi2 = _build_chi2(points)
    if points.limit is None or points.limit_error is None or points.stat_type != "distrib":
        return chi2
    used = points.mask
    limit, error = (q.to_value(DNDE)[used] for q in (points.limit, points.limit_error))
    is_limit = np.isfinite(limit)
    # what is computed for points without a limit is not used
    ends, widths = np.where(is_limit, limit, 0.0), np.where(is_limit, error, 1.0)

    def stat(dnde: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pairs = zip(limit_stat(dnde, ends, widths), chi2(dnde), strict=True)
        below, squares, bends = (np.where(is_limit, one, other) for one, other in pairs)
        return below, squares, bends

    return stat


def _build_chi2(points: FluxPointsData) -> PointsStat:
    used = points.mask
    measured, below, above = (q.to_value(DNDE)[used] for q in (points.dnde, points.errn, points.errp))

    def stat(dnde: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        error = np.where(dnde > measured, above, below)
        pulls = (dnde - measured) / error
        return pulls**2, 2 * pulls / error, 2 / error**2

    return stat


def _build_profiles(points: FluxPointsData, profiles: NormProfiles) -> PointsStat:
    used = np.flatnonzero(points.mask)
    reference = profiles.ref_dnde.to_value(DNDE)[used]
    of_norm = build_profile_stat([(profiles.norm[k], profiles.stat[k]) for k in used])

    def stat(dnde: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        value, slope, curvature = of_norm(dnde / reference)
        return value, slope / reference, curvature / reference**2

    return stat
