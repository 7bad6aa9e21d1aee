"""Off runs for an observation: those taken at about its zenith, azimuth and time, from the index alone."""

from collections.abc import Callable, Sequence
from typing import Annotated

import astropy.units as u
import numpy as np

from dl3flow.data.index import ObservationEntry
from dl3flow.errors import InputError
from dl3flow.geometry.axis import PositiveAngle

_SECONDS_PER_DAY = 86400


def match_off_runs(
    entry: ObservationEntry,
    candidates: Sequence[ObservationEntry],
    *,
    zenith: PositiveAngle | None = None,
    cos_zenith: float | None = None,
    azimuth: PositiveAngle | None = None,
    epoch: Annotated[u.Quantity, u.day] | None = None,
    n_max: int | None = None,
) -> list[int]:
    """Observations whose differences to ``entry`` are all within the limits, the most similar first.

    Runs are ordered by the root of the sum of their squared differences in units of the limits.

    Parameters
    ----------
    entry : ObservationEntry
    candidates : sequence of ObservationEntry
        ``entry`` itself, if among them, is never chosen.
    zenith, azimuth : Quantity, optional
        Largest difference of the zenith distance, and of the azimuth on the circle.
    cos_zenith : float, optional
        Largest difference of the cosine of the zenith distance, which is about the air mass.
    epoch : Quantity, optional
        Largest difference between the middles of the runs.
    n_max : int, optional
        At most so many.

    Returns
    -------
    obs_ids : list of int

    Raises
    ------
    InputError
        If there is none, naming the nearest candidate and its differences, or the index lacks what is compared.
    """
    where = f"observation {entry.obs_id}"
    if n_max is not None and n_max < 1:
        raise InputError(f"{where}: `n_max` of the off runs must be at least 1, found {n_max}")
    measures: list[tuple[str, str, float, Callable[[ObservationEntry], float]]] = []
    if zenith is not None:
        limit = float(zenith.to_value(u.deg))
        measures.append(("zenith", " deg", limit, lambda other: abs(_zenith(other) - _zenith(entry))))
    if cos_zenith is not None:
        measures.append(("cos(zenith)", "", float(cos_zenith), lambda other: abs(_cos(other) - _cos(entry))))
    if azimuth is not None:
        limit = float(azimuth.to_value(u.deg))
        measures.append(("azimuth", " deg", limit, lambda other: _turn(_azimuth(other) - _azimuth(entry))))
    if epoch is not None:
        limit = float(epoch.to_value(u.day))
        measures.append(("epoch", " d", limit, lambda other: abs(_middle(other) - _middle(entry))))
    for name, unit, limit, _ in measures:
        if not limit > 0:
            raise InputError(
                f"{where}: the limit of {name} of the off runs must be above 0, found {limit:g}{unit}"
            )
    others = [other for other in candidates if other.obs_id != entry.obs_id]
    if not others:
        raise InputError(f"{where}: there are no off runs to choose from: widen their selection")
    found = np.array([[measure(other) for _, _, _, measure in measures] for other in others])
    found = found.reshape(len(others), len(measures))
    scaled = found / np.array([limit for _, _, limit, _ in measures])
    distance = np.sqrt((scaled**2).sum(axis=1))
    # equal distances (as without any limit) in the order of the numbers, whatever the order of the candidates
    order = sorted(range(len(others)), key=lambda n: (distance[n], others[n].obs_id))
    chosen = [others[n].obs_id for n in order if (scaled[n] <= 1).all()]
    if not chosen:
        nearest = order[0]
        told = ", ".join(
            f"{name} {value:.3g}{unit} (limit {limit:g}{unit})"
            for (name, unit, limit, _), value in zip(measures, found[nearest], strict=True)
        )
        raise InputError(
            f"{where}: none of the {len(others)} off runs is similar enough; the nearest, {others[nearest].obs_id}, differs by "
            f"{told}: widen a limit or give more off runs"
        )
    return chosen[:n_max]


def _zenith(entry: ObservationEntry) -> float:
    if entry.zenith is None:
        raise InputError(
            f"observation {entry.obs_id}: the index has neither ZEN_PNT nor ALT_PNT, by which off runs are to be matched"
        )
    return entry.zenith


def _cos(entry: ObservationEntry) -> float:
    return float(np.cos(np.radians(_zenith(entry))))


def _azimuth(entry: ObservationEntry) -> float:
    if entry.azimuth is None:
        raise InputError(
            f"observation {entry.obs_id}: the index has no AZ_PNT, by which off runs are to be matched"
        )
    return entry.azimuth


def _turn(difference: float) -> float:
    return abs((difference + 180) % 360 - 180)


def _middle(entry: ObservationEntry) -> float:
    if entry.reference is None:
        raise InputError(
            f"observation {entry.obs_id}: the index has no MJDREFI, so off runs cannot be matched by epoch"
        )
    return entry.reference + 0.5 * (entry.tstart + entry.tstop) / _SECONDS_PER_DAY
