"""Background method ``adaptive_ring``: around each pixel the smallest ring that holds background enough."""

from typing import Annotated, Literal

import astropy.units as u
import numpy as np

from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.background.ring import off_sky, with_rings
from dl3flow.data.dataset import Dataset
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.kernels.convolve import circle_kernel, convolve_same, ring_kernel

_MOST_RINGS = 1000


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ValueError(f"expected a number above 0, found {value!r}")
    return float(value)


@BACKGROUNDS.register(image=True)
def adaptive_ring(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    r_in: PositiveAngle,
    width: PositiveAngle,
    r_out_max: PositiveAngle,
    step: PositiveAngle = 0.02 * u.deg,
    threshold_alpha: Annotated[float, _positive] = 0.1,
    theta: PositiveAngle = 0.22 * u.deg,
    method: Literal["fixed_width", "fixed_r_in"] = "fixed_width",
) -> Dataset:
    """Counts in the smallest ring around each pixel whose acceptance is large against that of an on region.

    Rings grow from ``r_in`` and ``width`` by ``step``, moving out (``fixed_width``) or widening (``fixed_r_in``), while
    their outer radius stays below ``r_out_max``. The first is taken in which the acceptance of a circle of radius
    ``theta`` around the pixel, over that of the ring outside the exclusion, is at most ``threshold_alpha``. (H.E.S.S.
    collaboration (2018), "The H.E.S.S. Galactic plane survey", section 3.3. The circle is summed as published; gammapy
    takes a single pixel for it, whatever ``theta``.) Acceptance and edges are as in the method ``ring``.

    Parameters
    ----------
    observation : Observation
    dataset : Dataset
        With `ExpectedCounts`.
    inputs : BackgroundInputs

    Returns
    -------
    dataset : Dataset
        With `OffCounts`; bins without a sufficient ring are not safe.

    Raises
    ------
    InputError
        If no ring fits below ``r_out_max``.
    """
    where = f"observation {observation.obs_id}: the background `adaptive_ring`"
    sky = off_sky(observation, dataset, inputs, "adaptive_ring")
    binsz = sky.geom.binsz
    start, thick, end, by, circle = (
        float(angle.to_value(u.deg)) / binsz for angle in (r_in, width, r_out_max, step, theta)
    )
    # as far as the outer radius is below the largest, but for rounding
    n_rings = max(int(np.ceil((end - start - thick) / by - 1e-9)), 0)
    if n_rings == 0:
        raise InputError(
            f"{where}: no ring from {r_in} with the width {width} fits below r_out_max, {r_out_max}"
        )
    if n_rings > _MOST_RINGS:
        raise InputError(f"{where}: {n_rings} rings up to {r_out_max}: make `step`, {step}, larger")
    wanted = convolve_same(sky.acceptance, circle_kernel(circle)) / threshold_alpha
    counts, acceptance_off = np.zeros_like(sky.counts), np.zeros_like(sky.counts)
    # where nothing is expected there is nothing to measure
    open_bins = dataset.mask_safe & (sky.acceptance > 0)
    for n in range(n_rings):
        if not open_bins.any():
            break
        inner, ring_width = (start + n * by, thick) if method == "fixed_width" else (start, thick + n * by)
        in_ring, acceptance = sky.within(ring_kernel(inner, inner + ring_width))
        taken = open_bins & (acceptance > 0) & (acceptance >= wanted)
        counts[taken], acceptance_off[taken] = in_ring[taken], acceptance[taken]
        open_bins &= ~taken
    facts = {
        "method": f"adaptive_ring-{method}",
        **{
            name: float(angle.to_value(u.deg))
            for name, angle in (
                ("r_in", r_in),
                ("width", width),
                ("r_out_max", r_out_max),
                ("step", step),
                ("theta", theta),
            )
        },
        "threshold_alpha": threshold_alpha,
    }
    return with_rings(
        dataset,
        counts,
        acceptance_off,
        facts,
        f"no ring out to {r_out_max:g} has an alpha of at most {threshold_alpha:g}",
    )
