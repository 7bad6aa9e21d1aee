"""How much a series of measurements varies beyond its errors, and how fast."""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc


@dataclass(frozen=True)
class Change:
    """The fastest rise by a factor of two, or fall by it, between two measurements.

    Attributes
    ----------
    time, error : float
        In the unit of the times; NaN where nothing rises (or falls).
    at : float
        Time of the first of the two measurements.
    """

    time: float
    error: float
    at: float


def constant_chi2(flux: np.ndarray, error: np.ndarray) -> tuple[float, int, float]:
    """Chi2 of measurements about their weighted mean, its degrees of freedom, and the probability of a constant source.

    Parameters
    ----------
    flux, error : array, shape (n,)
        Finite; errors positive.

    Returns
    -------
    chi2, n_dof, probability : float, int, float
        NaN probability for fewer than two measurements.
    """
    if len(flux) < 2:
        return 0.0, 0, float("nan")
    weight = error**-2.0
    chi2 = float((weight * (flux - np.average(flux, weights=weight)) ** 2).sum())
    return chi2, len(flux) - 1, float(chdtrc(len(flux) - 1, chi2))


def excess_variance(flux: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Variance beyond the errors over the squared mean, and its error; Vaughan et al. (2003), equations 8 and 11.

    Negative where the measurements scatter less than their errors. NaN for fewer than two measurements or a mean of zero.
    """
    return _normalised(flux, error, float(np.var(flux, ddof=1)) if len(flux) > 1 else np.nan)


def point_to_point_variance(flux: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """The same of neighbours: half of the mean squared step; Edelson et al. (2002), equation 3.

    It equals `excess_variance` for white noise and is less for slow changes.
    """
    steps = np.diff(flux)
    return _normalised(flux, error, float(0.5 * np.mean(steps**2)) if len(steps) else np.nan)


def _normalised(flux: np.ndarray, error: np.ndarray, variance: float) -> tuple[float, float]:
    mean = float(np.mean(flux)) if len(flux) else np.nan
    if not np.isfinite(variance) or mean == 0:
        return float("nan"), float("nan")
    noise = float(np.mean(error**2)) / mean**2
    excess = variance / mean**2 - noise
    sigma = np.sqrt(2 / len(flux) * noise**2 + noise / len(flux) * 4 * abs(excess))
    return excess, float(sigma)


def fraction(excess: float, error: float) -> tuple[float, float]:
    """Fractional variability and its error from an excess variance; Vaughan et al. (2003), equations 10 and B2.

    NaN where the excess is not positive: then only the excess variance itself says how much may vary.
    """
    if not excess > 0:
        return float("nan"), float("nan")
    value = float(np.sqrt(excess))
    return value, error / (2 * value)


def fastest_changes(time: np.ndarray, flux: np.ndarray, error: np.ndarray) -> tuple[Change, Change]:
    """The fastest doubling and halving between neighbours, dt ln 2 / ln (f2 / f1), with propagated errors.

    Parameters
    ----------
    time : array, shape (n,)
        Increasing.
    flux, error : array, shape (n,)
        Pairs with a flux that is not positive are passed over.
    """
    positive = (flux[:-1] > 0) & (flux[1:] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(flux[1:] / flux[:-1])
        scale = np.diff(time) * np.log(2) / ratio
        sigma = np.abs(scale / ratio) * np.hypot(error[1:] / flux[1:], error[:-1] / flux[:-1])
    found = []
    for side in (1, -1):
        usable = np.flatnonzero(positive & (side * ratio > 0))
        if not len(usable):
            found.append(Change(*[float("nan")] * 3))
            continue
        k = usable[np.argmin(np.abs(scale[usable]))]
        found.append(Change(float(abs(scale[k])), float(sigma[k]), float(time[k])))
    return found[0], found[1]
