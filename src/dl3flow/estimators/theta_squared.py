"""Estimator ``theta_squared``: events against their squared distance from a place, and from places without a source."""

from collections.abc import Iterable
from typing import Annotated, Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from dl3flow.data.observation import Observation
from dl3flow.data.products import ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators.registry import EVENT_TABLES
from dl3flow.geometry.axis import EnergyRange, PositiveAngle
from dl3flow.geometry.sky import SkyPosition
from dl3flow.kernels.counts_interval import wstat_interval

_MOST_BINS, _MOST_OFF = 1000, 100
_WHERE = "estimator theta_squared"


def _between(lowest: int, highest: int) -> Any:
    def whole(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"expected a whole number from {lowest} to {highest}, found {value!r}")
        return value

    return whole


@EVENT_TABLES.register()
def theta_squared(
    observations: Iterable[Observation],
    *,
    position: SkyPosition,
    theta_max: PositiveAngle = 0.4 * u.deg,
    n_bins: Annotated[int, _between(1, _MOST_BINS)] = 40,
    n_off: Annotated[int, _between(1, _MOST_OFF)] = 1,
    cut: PositiveAngle | None = None,
    energy: EnergyRange | None = None,
) -> ProductTable:
    """Count events in bins of their squared angular distance to a place and to its off positions.

    Off positions lie as far from the pointing as the place itself, at equal angles around it, so that the acceptance of
    the camera, as far as it depends on the offset alone, is the same.

    Parameters
    ----------
    observations : iterable of Observation
    position : SkyCoord
    theta_max : Quantity
        Largest distance; bins have equal widths in its square.
    n_bins : int
    n_off : int
        Off positions per observation: 1 is that opposite to the pointing.
    cut : Quantity, optional
        Distance within which the report counts the excess and its significance; that of the first quarter of the bins by
        default.
    energy : Axis of one bin, optional
        Reconstructed energies; all by default.

    Returns
    -------
    table : ProductTable
        theta2_min, theta2_max (deg2), counts, counts_off, acceptance and acceptance_off (numbers of positions), alpha,
        excess, excess_errn, excess_errp, sqrt_ts (Li and Ma 1983, equation 17).

    Raises
    ------
    InputError
        If no observation can be used, or ``cut`` lies beyond ``theta_max``.
    """
    edges = np.linspace(0, theta_max.to_value(u.deg) ** 2, n_bins + 1)
    radius = np.sqrt(edges[-(-n_bins // 4)]) if cut is None else float(cut.to_value(u.deg))
    if radius > theta_max.to_value(u.deg) * (1 + 1e-9):
        raise InputError(
            f"{_WHERE}: `cut` ({cut}) lies beyond `theta_max` ({theta_max}): make one of them larger or smaller"
        )
    on, off, inside = np.zeros(n_bins), np.zeros(n_bins), np.zeros(2)
    used, livetime, without, near = 0, 0.0, [], []
    for observation in observations:
        places = off_positions(observation.pointing, position, n_off)
        apart = places.separation(position).min().to_value(u.deg)
        if apart < 2 * np.sqrt(edges[1]):
            without.append(str(observation.obs_id))
            continue
        if apart < theta_max.to_value(u.deg) + radius:
            near.append(str(observation.obs_id))
        seen = _events(observation, energy)
        squares = [seen.separation(place).to_value(u.deg) ** 2 for place in (position, *places)]
        # a bin is [low, high), the last one too
        counts = [np.histogram(s[s < edges[-1]], edges)[0] for s in squares]
        on, off = on + counts[0], off + np.sum(counts[1:], axis=0)
        inside += np.array([(squares[0] < radius**2).sum(), sum((s < radius**2).sum() for s in squares[1:])])
        used, livetime = used + 1, livetime + float(observation.livetime.to_value(u.s))
    if not used:
        raise InputError(
            f"{_WHERE}: no observation can be used: {_pointed(without)}"
            if without
            else f"{_WHERE}: there is no observation: select at least one"
        )
    alpha = np.full(n_bins, 1 / n_off)
    found = wstat_interval(on, off, alpha)
    table = QTable(
        {
            "theta2_min": edges[:-1] * u.deg**2,
            "theta2_max": edges[1:] * u.deg**2,
            "counts": on,
            "counts_off": off,
            "acceptance": np.full(n_bins, float(used)),
            "acceptance_off": np.full(n_bins, float(used * n_off)),
            "alpha": alpha,
            "excess": found.excess,
            "excess_errn": found.errn,
            "excess_errp": found.errp,
            "sqrt_ts": found.sqrt_ts,
        }
    )
    told = [_pointed(without)] * bool(without)
    if near:
        told.append(
            f"off positions lie so near to the place that their outer bins hold its photons, in {', '.join(near)}: lower `theta_max` or "
            "`n_off`"
        )
    whole = wstat_interval(inside[0], inside[1], 1 / n_off)
    at = position.icrs
    meta = {
        "position": [float(at.ra.deg), float(at.dec.deg)],
        "n_off": n_off,
        "cut": radius,
        "warnings": told,
        "summary": [
            ["observations", used],
            ["livetime (h)", livetime / 3600],
            ["within (deg)", radius],
            ["counts on", float(inside[0])],
            ["counts off", float(inside[1])],
            ["alpha", 1 / n_off],
            ["excess", float(whole.excess)],
            ["significance (sigma)", float(whole.sqrt_ts)],
        ],
    }
    return ProductTable("theta_squared", table, meta)


def off_positions(pointing: SkyCoord, position: SkyCoord, n_off: int) -> SkyCoord:
    """Places as far from the pointing as a position, at equal angles around it; shape (n_off,)."""
    here, there = pointing.icrs, position.icrs
    angles = here.position_angle(there) + np.arange(1, n_off + 1) * 360 * u.deg / (n_off + 1)
    return here.directional_offset_by(angles, here.separation(there))


def _events(observation: Observation, energy: EnergyRange | None) -> SkyCoord:
    """Directions of the events in good times, and in the energy range if there is one."""
    events = observation.events
    taken = np.asarray(observation.gti.holds(events), dtype=bool)
    if energy is not None:
        taken &= (events.energy >= energy.edges[0]) & (events.energy < energy.edges[-1])
    return events.radec.icrs[taken]


def _pointed(names: list[str]) -> str:
    return f"the telescopes pointed at the place itself, which leaves no off position, in {', '.join(names)}: these are left out"
