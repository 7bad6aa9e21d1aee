"""Absorption of gamma rays by the extragalactic background light, from a table of transmissions."""

import numpy as np

from dl3flow.models.spectral import NORM_MODELS
from dl3flow.models.tables import Energies, Numbers, check_nodes, line_through, log_or_tiny, places
from dl3flow.units import Number


def _log_transmission(
    at: np.ndarray, redshift: float, energy: np.ndarray, param: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the transmission and its derivative by redshift.

    It is linear in redshift and in ln(energy), continued so beyond the table, and never above zero.
    """
    left, part = places(param, np.array([redshift]))
    low, fraction = int(left[0]), float(part[0])
    high = min(low + 1, len(param) - 1)
    # only two rows of a table of thousands matter
    rows = log_or_tiny(np.asarray(values)[[low, high]])
    step = float(param[high] - param[low]) if high > low else 1.0
    where = places(np.log(energy), np.log(at))
    found = line_through(rows[0] * (1 - fraction) + rows[1] * fraction, *where)
    by_redshift = line_through((rows[1] - rows[0]) / step, *where)
    return np.minimum(found, 0.0), np.where(found > 0, 0.0, by_redshift)


def _gradient(
    at: np.ndarray,
    redshift: float,
    alpha_norm: float,
    *,
    energy: np.ndarray,
    param: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    log, by_redshift = _log_transmission(at, redshift, energy, param, values)
    transmission = np.exp(alpha_norm * log)
    return np.array([transmission * alpha_norm * by_redshift, transmission * log])


def _breaks(
    redshift: float, alpha_norm: float, *, energy: np.ndarray, param: np.ndarray, values: np.ndarray
) -> np.ndarray:
    # even a table of 40 nodes per decade is rough enough to move a bin by 1e-3
    return np.asarray(energy)


def _check(
    redshift: float, alpha_norm: float, *, energy: np.ndarray, param: np.ndarray, values: np.ndarray
) -> str | None:
    if wrong := check_nodes(energy, 1):
        return wrong
    if np.ndim(param) != 1 or np.size(param) < 1 or not np.all(np.diff(param) > 0):
        return "`param` must list increasing redshifts"
    if np.shape(values) != (len(param), len(energy)):
        return (
            f"`values` has the shape {np.shape(values)} for {len(param)} redshifts and {len(energy)} energies, "
            "and must have a row per redshift"
        )
    if not (np.isfinite(values).all() and np.all(np.asarray(values) >= 0)):
        return "`values` must be finite and not below 0"
    return None if redshift >= 0 else f"`redshift` is {redshift:g}, and must not be below 0"


@NORM_MODELS.register(
    "EBLAbsorptionNormSpectralModel",
    "ebl-norm",
    gradient=_gradient,
    frozen=("redshift", "alpha_norm"),
    breaks=_breaks,
    check=_check,
    reads="ebl",
)
def ebl_absorption(
    at: np.ndarray,
    redshift: Number = 0.1,
    alpha_norm: Number = 1.0,
    *,
    energy: Energies,
    param: Numbers,
    values: Numbers,
) -> np.ndarray:
    """Transmission of gamma rays from ``redshift``, to the power ``alpha_norm``.

    ``values`` holds the transmission exp(-tau) for each redshift in ``param`` (rows) and ``energy`` (columns). Its
    logarithm, the optical depth, is interpolated linearly in redshift and ln(energy), so that ``alpha_norm`` scales the
    density of the background light.
    """
    log, _ = _log_transmission(at, redshift, energy, param, values)
    return np.asarray(np.exp(alpha_norm * log))
