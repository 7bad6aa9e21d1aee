"""Temporal models that are another at every energy: for simulations, as a fit takes one factor for all energies.

Functions take energies (TeV) after the times, each an array that broadcasts with them; so do the companions. Fits of bands
of energy, each with a model of its own, show such a change.
"""

import numpy as np

from dl3flow.models.spectral import above_zero
from dl3flow.models.tables import Energies, check_nodes, places
from dl3flow.models.temporal import TEMPORAL_MODELS, Days, Numbers, Scale, Times, to_tt
from dl3flow.units import Energy, Number

_YEAR_2000 = 51544.0


def _constant_at(energy: np.ndarray, t0: float, delta: float, reference: float) -> np.ndarray:
    return np.asarray(t0 * (energy / reference) ** delta)


def _decay_gradient(
    time: np.ndarray,
    energy: np.ndarray,
    t0: float,
    t_ref: float,
    delta: float,
    reference: float,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    constant = _constant_at(energy, t0, delta, reference)
    x = (time - to_tt(t_ref, scale)) / constant
    value = np.exp(-x)
    by_log = value * x  # times the derivative of the logarithm of the constant
    return np.array(
        [by_log / t0, value / constant, by_log * np.log(energy / reference), -by_log * delta / reference]
    )


def _decay_integral(
    start: np.ndarray,
    stop: np.ndarray,
    energy: np.ndarray,
    t0: float,
    t_ref: float,
    delta: float,
    reference: float,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    constant = _constant_at(energy, t0, delta, reference)
    first = np.exp(-(start - to_tt(t_ref, scale)) / constant)
    return np.asarray(-constant * first * np.expm1(-(stop - start) / constant))


@TEMPORAL_MODELS.register(
    "exp-decay-by-energy",
    by_energy=True,
    gradient=_decay_gradient,
    integral=_decay_integral,
    check=above_zero(t0=0, reference=3),
    frozen={"t_ref", "reference"},
)
def exp_decay_by_energy(
    time: np.ndarray,
    energy: np.ndarray,
    t0: Days = 1.0,
    t_ref: Days = _YEAR_2000,
    delta: Number = -0.5,
    reference: Energy = 1.0,
    *,
    scale: Scale = "utc",
) -> np.ndarray:
    """Decay within ``t0`` (energy / ``reference``)^``delta``: by synchrotron losses delta is -1/2, faster at high energies."""
    return np.asarray(np.exp(-(time - to_tt(t_ref, scale)) / _constant_at(energy, t0, delta, reference)))


def _check_table(
    t_ref: float, *, time: np.ndarray, energy: np.ndarray, norm: np.ndarray, scale: Scale = "utc"
) -> str | None:
    if np.ndim(norm) != 2 or np.shape(norm) != (np.size(energy), np.size(time)):
        return (
            f"`norm` has the shape {np.shape(norm)}, and must list one light curve of {np.size(time)} numbers for each of the "
            f"{np.size(energy)} energies"
        )
    if wrong := check_nodes(energy, 2):
        return wrong
    if np.size(time) < 2 or not (np.isfinite(time).all() and np.all(np.diff(time) > 0)):
        return "`time` must list at least two increasing numbers"
    return None if np.isfinite(norm).all() and np.all(norm >= 0) else "`norm` must be finite and not negative"


@TEMPORAL_MODELS.register("template-by-energy", by_energy=True, check=_check_table, frozen={"t_ref"})
def light_curve_by_energy(
    t: np.ndarray,
    at: np.ndarray,
    t_ref: Days = _YEAR_2000,
    *,
    time: Times,
    energy: Energies,
    norm: Numbers,
    scale: Scale = "utc",
) -> np.ndarray:
    """Straight lines between the values ``norm`` (one list for each ``energy``) at the days ``time`` after ``t_ref``.

    Between energies it is linear in their logarithm; beyond the table in time and energy the outermost values hold.
    """
    days, energies = np.broadcast_arrays(np.asarray(t - to_tt(t_ref, scale), dtype=float), at)
    early, part = places(np.asarray(time), np.clip(days, time[0], time[-1]))
    low, share = places(np.log(energy), np.clip(np.log(energies), np.log(energy[0]), np.log(energy[-1])))
    rows = [norm[low + k, early] * (1 - part) + norm[low + k, early + 1] * part for k in (0, 1)]
    return np.asarray(rows[0] * (1 - share) + rows[1] * share)
