"""Likelihoods that were published in place of counts: profiles over a norm, and upper limits.

A profile is interpolated as the signed root of its height above the minimum: a straight line for a Gaussian
measurement, and close to one for Poisson counts.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.special import erfcx, log_ndtr

_ROOT_TWO = np.sqrt(2.0)
# slope of the root outside a profile, as a part of its mean slope inside, where the last points give none
_LEAST_SLOPE = 1e-3
# of a point beside the minimum
_LEAST_HEIGHT = 1e-4
# places per point where an interpolation is looked at for turning back
_CHECKS = 20

ProfileStat = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def with_minimum(
    norm_scan: np.ndarray, stat_scan: np.ndarray, norm: float = np.nan, stat: float = np.nan
) -> tuple[np.ndarray, np.ndarray]:
    """One profile with its minimum among its points, as `profile_stat` needs it.

    Parameters
    ----------
    norm_scan, stat_scan : array, shape (n,)
        In any order; points that are not finite are left out.
    norm, stat : float
        Best fit, where it is known; else the vertex of the parabola through the three lowest neighbours stands in.

    Returns
    -------
    norm_scan, stat_scan : array, shape (m,)
        Increasing, with different norms, and 0 at the minimum.

    Raises
    ------
    ValueError
        If fewer than three points are left.
    """
    good = np.isfinite(norm_scan) & np.isfinite(stat_scan)
    x, first = np.unique(np.asarray(norm_scan, dtype=float)[good], return_index=True)
    y = np.asarray(stat_scan, dtype=float)[good][first]
    if len(x) < 3:
        raise ValueError(f"a profile needs at least 3 finite points, found {len(x)}")
    k = int(np.argmin(y))
    # a best fit above the lowest point is that of another likelihood
    is_known = np.isfinite(norm) and np.isfinite(stat) and stat <= y[k] + 1e-6
    if not is_known and 0 < k < len(x) - 1:
        a, b, c = np.polyfit(x[k - 1 : k + 2] - x[k], y[k - 1 : k + 2] - y[k], 2)
        if a > 0:
            norm, stat, is_known = x[k] - b / (2 * a), y[k] + c - b**2 / (4 * a), True
    if is_known:
        # so close to the minimum a point's height is rounding, whose root would bend the profile
        near = (np.abs(x - norm) <= 1e-9 * (x[-1] - x[0])) | (y - stat < _LEAST_HEIGHT)
        x, y = np.append(x[~near], norm), np.append(y[~near], stat)
        order = np.argsort(x)
        x, y = x[order], y[order]
    return x, np.maximum(y - y.min(), 0.0)


def profile_stat(
    norm: float | np.ndarray, norm_scan: np.ndarray, stat_scan: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistic above its minimum from a profile, with its derivatives by the norm.

    sign(norm - best) sqrt(stat - min) is interpolated by cubic splines with two continuous derivatives, or monotonically
    with one where they would turn back, and squared. Outside the profile it goes on as a straight line, the statistic
    as a parabola.

    Parameters
    ----------
    norm : float or array
    norm_scan, stat_scan : array, shape (n,)
        Increasing norms, with the minimum among them (`with_minimum`).

    Returns
    -------
    stat, slope, curvature : array, shape of norm
    """
    x = np.asarray(norm, dtype=float)
    knots, origins, pieces = _root_pieces(norm_scan, stat_scan)
    k = np.searchsorted(knots, x, side="right")
    return _squared(x - origins[k], pieces[:, k])


def build_profile_stat(profiles: Sequence[tuple[np.ndarray, np.ndarray]]) -> ProfileStat:
    """`profile_stat` of several points at once, interpolated beforehand.

    Parameters
    ----------
    profiles : sequence of (norm_scan, stat_scan)
        One per point, of any lengths.

    Returns
    -------
    stat : function (norm, shape (n_points,)) -> stat, slope, curvature, shape (n_points,)
    """
    every = [_root_pieces(*profile) for profile in profiles]
    longest = max((len(knots) for knots, _, _ in every), default=0)
    knots = np.full((len(every), longest), np.inf)
    origins, pieces = np.zeros((len(every), longest + 1)), np.zeros((4, len(every), longest + 1))
    for row, (own, starts, parts) in enumerate(every):
        knots[row, : len(own)], origins[row, : len(starts)] = own, starts
        pieces[:, row, : len(starts)] = parts
    rows = np.arange(len(every))

    def stat(norm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        k = (knots <= norm[:, None]).sum(axis=1)
        return _squared(norm - origins[rows, k], pieces[:, rows, k])

    return stat


def _root_pieces(norm_scan: np.ndarray, stat_scan: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed root of a profile: its knots, and the origin and cubic coefficients of each piece, the outer two straight."""
    k = int(np.argmin(stat_scan))
    root = np.sqrt(np.maximum(stat_scan - stat_scan[k], 0.0))
    root[:k] *= -1
    spline = CubicSpline(norm_scan, root) if len(norm_scan) > 3 else PchipInterpolator(norm_scan, root)
    fine = np.linspace(norm_scan[0], norm_scan[-1], _CHECKS * len(norm_scan))
    if np.any(spline(fine, 1) < 0):
        spline = PchipInterpolator(norm_scan, root)
    least = _LEAST_SLOPE * (root[-1] - root[0]) / (norm_scan[-1] - norm_scan[0])
    ends = norm_scan[[0, -1]]
    straight = np.array([np.zeros(2), np.zeros(2), np.maximum(spline(ends, 1), least), spline(ends)])
    origins = np.concatenate([ends[:1], norm_scan[:-1], ends[1:]])
    return norm_scan, origins, np.concatenate([straight[:, :1], spline.c, straight[:, 1:]], axis=1)


def _squared(d: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Square of cubic polynomials, and its first two derivatives."""
    value = ((c[0] * d + c[1]) * d + c[2]) * d + c[3]
    slope = (3 * c[0] * d + 2 * c[1]) * d + c[2]
    bend = 6 * c[0] * d + 2 * c[1]
    return value**2, 2 * value * slope, 2 * (slope**2 + value * bend)


def limit_stat(
    value: float | np.ndarray, limit: float | np.ndarray, sigma: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistic of an upper limit: -2 ln of the probability to measure less than it, with derivatives by the value.

    -2 ln(erfc((value - limit) / (sqrt(2) sigma)) / 2): 2 ln 2 where the value is the limit, 0 far below, a parabola far
    above: the likelihood of censored data, Isobe, Feigelson and Nelson (1986).

    Parameters
    ----------
    value, limit, sigma : float or array
        Expected value, limit, and Gaussian error of the measurement that it came from.

    Returns
    -------
    stat, slope, curvature : array
    """
    z = (np.asarray(value, dtype=float) - limit) / sigma
    # hazard of the normal distribution; erfcx keeps its digits where the probability underflows
    hazard = np.sqrt(2 / np.pi) / erfcx(z / _ROOT_TWO)
    bend = np.clip(hazard * (hazard - z), 0.0, 1.0)
    return -2 * log_ndtr(-z), 2 * hazard / sigma, 2 * bend / np.square(sigma)
