"""Tests of phases against a uniform distribution."""

import numpy as np

_HARMONICS = 20


def h_test(phases: np.ndarray) -> tuple[float, float]:
    """H statistic of phases and its probability without a pulsation.

    H is the largest of Z_m^2 - 4 m + 4 over m = 1 .. 20 harmonics (de Jager, Raubenheimer & Swanepoel 1989, equation 11);
    exp(-0.4 H) is its probability (de Jager & Buesching 2010).

    Parameters
    ----------
    phases : array, shape (n,)
        In periods.

    Returns
    -------
    h, probability : float
        NaN without phases.
    """
    if not len(phases):
        return float("nan"), float("nan")
    turn = np.exp(2j * np.pi * np.asarray(phases, dtype=float))
    power, total, best = np.ones(len(turn), dtype=complex), 0.0, 0.0
    for m in range(1, _HARMONICS + 1):
        power = power * turn
        total += 2 / len(turn) * abs(power.sum()) ** 2
        best = max(best, total - 4 * m + 4)
    return float(best), float(np.exp(-0.4 * best))
