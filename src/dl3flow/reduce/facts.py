"""What a recipe writes down about an observation beside its bins."""

from typing import Any

import astropy.units as u

from dl3flow.data.observation import Observation
from dl3flow.geometry.axis import Axis


def dataset_meta(observation: Observation, energy: Axis, energy_true: Axis) -> dict[str, Any]:
    """Facts of the observation for `Dataset.meta`, with a sentence for each thing that a reader must know."""
    return {
        "obs_ids": [observation.obs_id],
        "n_events": len(observation.events),
        "livetime": float(observation.livetime.to_value(u.s)),
        "ontime": float(observation.ontime.to_value(u.s)),
        "telescope": observation.meta.get("telescope", ""),
        "instrument": observation.meta.get("instrument", ""),
        **{key: observation.meta[key] for key in ("event_types", "phase") if key in observation.meta},
        "pointing": [float(observation.pointing.ra.deg), float(observation.pointing.dec.deg)],
        "warnings": [*observation.meta.get("warnings", []), *_narrow(energy, energy_true)],
    }


def _narrow(energy: Axis, energy_true: Axis) -> list[str]:
    """A sentence where events can come from true energies that the axis does not hold."""
    true, reconstructed = energy_true.edges, energy.edges
    if true[0] < reconstructed[0] and true[-1] > reconstructed[-1]:
        return []
    return [
        f"energy_true ({true[0]:.3g} to {true[-1]:.3g}) does not reach beyond energy ({reconstructed[0]:.3g} to "
        f"{reconstructed[-1]:.3g}) at both ends: events that the dispersion carries in are not predicted and fluxes come out wrong"
    ]
