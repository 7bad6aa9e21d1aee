"""Background method ``phase``: counts of a pulsar's region in the part of its period without a pulse."""

from dataclasses import replace

from dl3flow.background.off_regions import check_no_signal, with_off_counts
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.binning import bin_events, selected_events
from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.observation import Observation
from dl3flow.data.phase import Phases
from dl3flow.errors import InputError

# 1.3 - 1 is more than 0.3
_ROUNDING = 1e-9


@BACKGROUNDS.register()
def phase(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    on_phase: Phases,
    off_phase: Phases,
) -> Dataset:
    """Count events of the on phases, and as background those of the off phases, in the same bins.

    The acceptances are the widths of the phases. The exposure becomes that of the on phases, so that fluxes are those
    while the pulse is on: their average over the period is smaller by the width of the on phases. Phases are intervals
    [low, high); one that passes 1 is cut in two.

    Parameters
    ----------
    observation : Observation
        With phases of the events.
    dataset : Dataset
        A spectrum or a map.
    inputs : BackgroundInputs

    Returns
    -------
    dataset : Dataset
        With other counts, exposure and livetime, and off counts.

    Raises
    ------
    InputError
        If the events have no phase or were cut in phase, or an on phase and an off phase overlap.
    """
    where = f"observation {observation.obs_id}: the background `phase`"
    check_no_signal(observation, inputs, "phase")
    events = observation.events
    if events.phase is None:
        raise InputError(
            f"{where} needs the phase of every event: add a column PHASE to the EVENTS, or `ephemeris` to the section `events`"
        )
    if observation.phase_fraction < 1:
        raise InputError(
            f"{where} needs the events of all phases, and `events` kept some only: leave `phase` out of `events`"
        )
    for low, high in on_phase.bounds:
        for start, stop in off_phase.bounds:
            if low < stop - _ROUNDING and start < high - _ROUNDING:
                raise InputError(
                    f"{where}: `on_phase` ({on_phase}) and `off_phase` ({off_phase}) overlap: give phases apart"
                )
    taken = selected_events(observation, dataset.geom)
    on, off = (
        bin_events(events, taken & phases.contains(events.phase), dataset.geom, dataset.energy)
        for phases in (on_phase, off_phase)
    )
    livetime = float(dataset.meta["livetime"]) * on_phase.fraction
    lit = replace(
        dataset,
        counts=on,
        exposure=_scaled(dataset.exposure, on_phase.fraction),
        psf=dataset.psf and replace(dataset.psf, exposure=_scaled(dataset.psf.exposure, on_phase.fraction)),
        edisp=dataset.edisp
        and replace(dataset.edisp, exposure=_scaled(dataset.edisp.exposure, on_phase.fraction)),
        meta={**dataset.meta, "livetime": livetime},
    )
    found = {"method": "phase", "on_phase": str(on_phase), "off_phase": str(off_phase)}
    return with_off_counts(lit, off.data, on_phase.fraction, off_phase.fraction, found)


def _scaled(exposure: Map, fraction: float) -> Map:
    return exposure.with_data(exposure.data * fraction)
