"""What counts in a region say: excess, significance, intervals and limits, for a known or a measured background."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from dl3flow.kernels.statistics import cash, cash_ts, wstat, wstat_ts

_BRACKETS = 200
# halvings until an interval is at rounding level
_HALVINGS = 90


@dataclass(frozen=True, eq=False)
class CountsInterval:
    """Excess of counts over a background, per element of the inputs.

    Attributes
    ----------
    excess : array
        Counts less background, which may be negative.
    error : array
        Standard deviation: of the counts, sqrt(n), and of alpha n_off where the background is measured.
    ts, sqrt_ts : array
        Test statistic against no excess, and its root with the sign of the excess; Li and Ma (1983), equation 17, where
        the background is measured.
    p_value : array
        Probability of at least this root by chance, one-sided.
    low, high : array
        Ends of the interval of n_sigma: where the statistic has risen by n_sigma^2. Without counts on a known background it
        ends where nothing at all is expected, at an excess of minus the background.
    ul : array
        Upper limit: rise by n_sigma_ul^2 from the best excess that is not negative.
    """

    excess: np.ndarray
    error: np.ndarray
    ts: np.ndarray
    sqrt_ts: np.ndarray
    p_value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ul: np.ndarray

    @property
    def errn(self) -> np.ndarray:
        """Distance to the lower end."""
        return np.asarray(self.excess - self.low)

    @property
    def errp(self) -> np.ndarray:
        """Distance to the upper end."""
        return np.asarray(self.high - self.excess)


def cash_interval(
    n: float | np.ndarray, mu_bkg: float | np.ndarray, n_sigma: float = 1.0, n_sigma_ul: float = 2.0
) -> CountsInterval:
    """Excess of ``n`` counts over an expected background.

    Parameters
    ----------
    n, mu_bkg : array
        Not negative.
    n_sigma, n_sigma_ul : float
    """
    n, b = (np.asarray(v, dtype=float) for v in np.broadcast_arrays(n, mu_bkg))
    return _interval(
        lambda mu: cash(n, np.maximum(mu + b, 0.0)),
        n - b,
        np.sqrt(n),
        cash_ts(n, b),
        -b,
        n_sigma,
        n_sigma_ul,
    )


def wstat_interval(
    n_on: float | np.ndarray,
    n_off: float | np.ndarray,
    alpha: float | np.ndarray,
    n_sigma: float = 1.0,
    n_sigma_ul: float = 2.0,
    known: float | np.ndarray = 0.0,
) -> CountsInterval:
    """Excess of ``n_on`` counts over a background of ``n_off`` counts measured with 1 / ``alpha`` of its exposure.

    Parameters
    ----------
    n_on, n_off, alpha : array
        Not negative; alpha above 0.
    n_sigma, n_sigma_ul : float
    known : array
        Counts expected beside the background, above which the excess is counted.
    """
    n, m, a, s = (np.asarray(v, dtype=float) for v in np.broadcast_arrays(n_on, n_off, alpha, known))
    return _interval(
        lambda mu: wstat(n, m, a, mu + s),
        n - a * m - s,
        np.sqrt(n + a**2 * m),
        wstat(n, m, a, s),
        np.full(n.shape, -np.inf),
        n_sigma,
        n_sigma_ul,
    )


def cash_excess_at(n_sigma: float, mu_bkg: float | np.ndarray) -> np.ndarray:
    """Excess over an expected background whose significance is ``n_sigma``."""
    b = np.asarray(mu_bkg, dtype=float)
    known = np.where(b > 0, b, 1.0)
    found = _crossing(lambda s: cash_ts(s + known, known), np.zeros(b.shape), n_sigma**2, 1)
    # without background any excess is beyond chance
    return np.where(b > 0, found, 0.0)


def wstat_excess_at(n_sigma: float, n_off: float | np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
    """Excess over a measured background whose significance is ``n_sigma``."""
    m, a = (np.asarray(v, dtype=float) for v in np.broadcast_arrays(n_off, alpha))
    return _crossing(lambda s: wstat_ts(s + a * m, m, a), np.zeros(m.shape), n_sigma**2, 1)


def _interval(
    stat: Callable[[np.ndarray], np.ndarray],
    excess: np.ndarray,
    error: np.ndarray,
    ts: np.ndarray,
    lowest: np.ndarray,
    n_sigma: float,
    n_sigma_ul: float,
) -> CountsInterval:
    ts = np.maximum(ts, 0.0)
    sqrt_ts = np.sign(excess) * np.sqrt(ts)
    low = _crossing(stat, excess, n_sigma**2, -1, lowest)
    high = _crossing(stat, excess, n_sigma**2, 1)
    ul = _crossing(stat, np.maximum(excess, 0.0), n_sigma_ul**2, 1)
    return CountsInterval(excess, error, ts, sqrt_ts, ndtr(-sqrt_ts), low, high, ul)


def _crossing(
    stat: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    rise: float,
    side: int,
    lowest: np.ndarray | float = -np.inf,
) -> np.ndarray:
    """Where a statistic that rises from ``start`` to one side has risen by ``rise``; ``lowest`` where it never does."""
    target = stat(start) + rise
    inner, step = np.array(start, dtype=float), np.full(np.shape(start), np.maximum(rise, 1.0) / 2)
    outer = inner
    for _ in range(_BRACKETS):
        outer = np.maximum(start + side * step, lowest)
        is_open = ~(stat(outer) >= target) & (outer > lowest)
        if not is_open.any():
            break
        inner = np.where(is_open, outer, inner)
        step = np.where(is_open, 2 * step, step)
    for _ in range(_HALVINGS):
        middle = 0.5 * (inner + outer)
        is_beyond = stat(middle) >= target
        inner, outer = np.where(is_beyond, inner, middle), np.where(is_beyond, middle, outer)
    return np.asarray(outer)
