"""Background method ``fov``: the background IRF, normalised to the counts of the field of view."""

from dataclasses import replace
from typing import Literal

import astropy.units as u
import numpy as np

from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.kernels.statistics import fit_background_norm


@BACKGROUNDS.register()
def fov(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    method: Literal["scale", "fit"] = "scale",
    tilt: bool = False,
) -> Dataset:
    """Multiply the background by one factor per observation, from the counts outside the exclusion.

    ``scale`` is the ratio of counts (less the known sources) to background; ``fit`` maximises the Poisson likelihood
    with the known sources added, and with ``tilt`` lets the background's spectral index vary too.
    Berge et al. (2007), section 2.6.

    Parameters
    ----------
    observation : Observation
    dataset : Dataset
    inputs : BackgroundInputs

    Returns
    -------
    dataset : Dataset
        With the scaled background, and ``norm``, ``norm_err``, ``tilt`` in ``meta["background"]``.

    Raises
    ------
    InputError
        If no safe bin outside the exclusion is left, or the counts there give no positive factor.
    """
    where = f"observation {observation.obs_id}"
    if tilt and method == "scale":
        raise InputError(
            f"{where}: the background `fov` scales by a ratio, which has no tilt: give `method: fit`, or leave `tilt` out"
        )
    if not isinstance(dataset.background, ExpectedCounts):
        raise InputError(
            f"{where}: the background `fov` scales a background response, and the observation has none"
        )
    mask = dataset.mask & inputs.usable(dataset.counts.sky)
    counts = np.where(mask, dataset.counts.data, 0.0).sum(axis=(1, 2))
    expected = np.where(mask, dataset.background.counts.data, 0.0)
    known = np.zeros_like(expected) if inputs.signal is None else np.where(mask, inputs.signal, 0.0)
    if not mask.any() or expected.sum() <= 0:
        raise InputError(
            f"{where}: the background `fov` finds no safe bin with background outside the exclusion region: make the exclusion "
            "smaller or the safe mask wider"
        )
    excess = counts.sum() - known.sum()
    if excess <= 0:
        raise InputError(
            f"{where}: the background `fov` finds {counts.sum():.0f} counts outside the exclusion, of which {known.sum():.1f} are "
            "expected from the subtracted sources: no positive norm; enlarge the energy range or leave the observation out"
        )
    found = {
        "norm": excess / expected.sum(),
        "norm_err": float(np.sqrt(excess) / expected.sum()),
        "tilt": 0.0,
    }
    if method == "fit":
        found = fit_background_norm(
            dataset.counts.data, expected, known, mask, dataset.energy.centers.to_value(u.TeV), tilt
        )
    shape = found["norm"] * dataset.energy.centers.to_value(u.TeV) ** -found["tilt"]
    scaled = dataset.background.counts.with_data(dataset.background.counts.data * shape[:, None, None])
    meta = {
        **dataset.meta,
        "background": {"method": f"fov-{method}", **{k: float(v) for k, v in found.items()}},
    }
    return replace(dataset, background=ExpectedCounts(scaled), meta=meta)
