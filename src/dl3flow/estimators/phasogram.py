"""Estimator ``phasogram``: counts of a region in bins of the phase of a pulsar or orbit."""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from astropy.table import QTable

from dl3flow.data.binning import selected_events
from dl3flow.data.observation import Observation
from dl3flow.data.phase import PhaseIntervals, Phases
from dl3flow.data.products import ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators.registry import EVENT_TABLES
from dl3flow.geometry.axis import EnergyRange
from dl3flow.geometry.region import Region
from dl3flow.kernels.periodicity import h_test
from dl3flow.kernels.statistics import wstat_ts

_MOST_BINS = 1000


def _bins(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= _MOST_BINS:
        raise ValueError(f"expected a whole number from 2 to {_MOST_BINS}, found {value!r}")
    return value


@EVENT_TABLES.register()
def phasogram(
    observations: Iterable[Observation],
    *,
    region: Region,
    n_bins: Annotated[int, _bins] = 20,
    off_phase: Phases | None = None,
    energy: EnergyRange | None = None,
) -> ProductTable:
    """Count the events of a region in bins of phase, with the background of the off phases and the H test.

    Parameters
    ----------
    observations : iterable of Observation
        With phases of their events.
    region : RegionGeometry
    n_bins : int
        Of equal width, over one period.
    off_phase : PhaseIntervals, optional
        Without a pulse: their mean is the background of each bin.
    energy : Axis of one bin, optional
        Reconstructed energies; all by default.

    Returns
    -------
    table : ProductTable
        phase_min, phase_max, counts, and with off phases background, excess and sqrt_ts (Li & Ma 1983, equation 17; a
        bin within the off phases is compared with itself too, which draws it towards zero). The H test is that of de
        Jager et al. (1989), its probability that of de Jager & Buesching (2010).

    Raises
    ------
    InputError
        If the events of an observation have no phase, or were cut in phase.
    """
    found, n_runs = [np.zeros(0)], 0
    for observation in observations:
        found.append(_phases(observation, region, energy))
        n_runs += 1
    phases = np.concatenate(found)
    edges = np.linspace(0, 1, n_bins + 1)
    counts = np.histogram(phases, edges)[0].astype(float)
    columns = {"phase_min": edges[:-1], "phase_max": edges[1:], "counts": counts}
    told = []
    summary: list[list[object]] = [["observations", n_runs], ["events", len(phases)]]
    if off_phase is not None:
        columns |= _with_background(counts, phases, off_phase)
    h, probability = h_test(phases)
    summary += [["H test", h], ["probability of no pulsation", probability]]
    if not len(phases):
        told.append("no event lies in the region: there is nothing to test")
    meta = {"off_phase": None if off_phase is None else [list(pair) for pair in off_phase.bounds]}
    return ProductTable("phasogram", QTable(columns), {**meta, "warnings": told, "summary": summary})


def _phases(observation: Observation, region: Region, energy: EnergyRange | None) -> np.ndarray:
    events, where = observation.events, f"observation {observation.obs_id}: the estimator `phasogram`"
    if events.phase is None:
        raise InputError(
            f"{where} needs the phase of every event: add a column PHASE to the EVENTS, or `ephemeris` to the section `events`"
        )
    if observation.phase_fraction < 1:
        raise InputError(
            f"{where} needs the events of all phases, and `events` kept some only: leave `phase` out of `events`"
        )
    taken = selected_events(observation, region)
    if energy is not None:
        taken &= (events.energy >= energy.edges[0]) & (events.energy < energy.edges[-1])
    return np.asarray(events.phase[taken], dtype=float)


def _with_background(counts: np.ndarray, phases: np.ndarray, off: PhaseIntervals) -> dict[str, np.ndarray]:
    n_off = float(off.contains(phases).sum())
    alpha = np.full(len(counts), 1 / (len(counts) * off.fraction))
    background = alpha * n_off
    excess = counts - background
    ts = np.maximum(wstat_ts(counts, np.full(len(counts), n_off), alpha), 0)
    return {"background": background, "excess": excess, "sqrt_ts": np.sign(excess) * np.sqrt(ts)}
