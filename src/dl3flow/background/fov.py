"""Background method ``fov``: the background IRF, normalised to the counts of the field of view."""

from dataclasses import replace
from typing import Any, Literal

import astropy.units as u
import numpy as np

from dl3flow.background.options import Count
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.kernels.statistics import fit_background_norm


@BACKGROUNDS.register(expected=True)
def fov(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    method: Literal["scale", "fit"] = "scale",
    tilt: bool = False,
    min_counts: Count | None = None,
) -> Dataset:
    """Multiply the background by one factor per observation, or per group of energies, from the counts outside the exclusion.

    ``scale`` is the ratio of counts (less the known sources) to background; ``fit`` maximises the Poisson likelihood
    with the known sources added, and with ``tilt`` lets the background's spectral index vary too. With ``min_counts``
    neighbouring energy bins are merged, from the lowest energy on, until each group has as many counts, and each group
    gets its own factor: a correction of the spectrum that does not follow the fluctuations of single bins.
    Berge et al. (2007), section 2.6.

    Parameters
    ----------
    observation : Observation
    dataset : Dataset
        A map with an expected background.
    inputs : BackgroundInputs

    Returns
    -------
    dataset : Dataset
        With the scaled background, and ``norm``, ``norm_err``, ``tilt`` in ``meta["background"]``; there also ``groups``,
        a list of ``energy_min``, ``energy_max`` (TeV), ``norm`` and ``norm_err``, if energies were grouped.

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
    if tilt and min_counts is not None:
        raise InputError(
            f"{where}: the background `fov` takes either one `tilt` or norms of energy groups: leave `tilt` or `min_counts` out"
        )
    if not isinstance(dataset.background, ExpectedCounts):
        raise InputError(
            f"{where}: the background `fov` scales a background response, and the observation has none"
        )
    mask = dataset.mask & inputs.usable(dataset.counts.sky)
    counts = np.where(mask, dataset.counts.data, 0.0)
    expected = np.where(mask, dataset.background.counts.data, 0.0)
    known = np.zeros_like(expected) if inputs.signal is None else np.where(mask, inputs.signal, 0.0)
    if not mask.any() or expected.sum() <= 0:
        raise InputError(
            f"{where}: the background `fov` finds no safe bin with background outside the exclusion region: make the exclusion "
            "smaller or the safe mask wider"
        )
    if counts.sum() - known.sum() <= 0:
        raise InputError(
            f"{where}: the background `fov` finds {counts.sum():.0f} counts outside the exclusion, of which {known.sum():.1f} are "
            "expected from the subtracted sources: no positive norm; enlarge the energy range or leave the observation out"
        )
    energy = dataset.energy.centers.to_value(u.TeV)
    found = _norm(counts, expected, known, mask, energy, method, tilt)
    shape = found["norm"] * energy ** -found["tilt"]
    meta: dict[str, Any] = {"method": f"fov-{method}", **{k: float(v) for k, v in found.items()}}
    if min_counts is not None:
        n, b, k = (values.sum(axis=(1, 2)) for values in (counts, expected, known))
        groups = energy_groups(n, b, k, min_counts)
        edges = dataset.energy.edges.to_value(u.TeV)
        meta["groups"] = []
        for low, high in groups:
            part = slice(low, high)
            one = _norm(counts[part], expected[part], known[part], mask[part], energy[part], method, tilt)
            shape[part] = one["norm"]
            meta["groups"].append(
                {
                    "energy_min": float(edges[low]),
                    "energy_max": float(edges[high]),
                    "norm": float(one["norm"]),
                    "norm_err": float(one["norm_err"]),
                }
            )
    warnings = list(dataset.meta.get("warnings", []))
    if tilt and not found["tilt_err"] > 0:
        warnings.append("the background `fov` has counts at one energy alone: its tilt was kept at 0")
    meta = {"background": meta, **({"warnings": warnings} if warnings else {})}
    scaled = dataset.background.counts.with_data(dataset.background.counts.data * shape[:, None, None])
    return replace(dataset, background=ExpectedCounts(scaled), meta={**dataset.meta, **meta})


def energy_groups(
    counts: np.ndarray, expected: np.ndarray, known: np.ndarray, min_counts: int
) -> list[tuple[int, int]]:
    """Groups of neighbouring bins, first and one past the last, that each have enough counts for a norm.

    Parameters
    ----------
    counts, expected, known : array, shape (n_energy,)
        Counts, background and known sources per energy.
    min_counts : int
        A group is closed as soon as it has as many counts, more than the known sources and some background. Bins left
        at the highest energies join the last group.
    """
    groups, low = [], 0
    for high in range(1, len(counts) + 1):
        n, b, s = (float(v[low:high].sum()) for v in (counts, expected, known))
        if n >= min_counts and n > s and b > 0:
            groups.append((low, high))
            low = high
    starts = [low for low, _ in groups] or [0]
    while len(starts) > 1 and not counts[starts[-1] :].sum() > known[starts[-1] :].sum():
        starts.pop()
    return list(zip(starts, [*starts[1:], len(counts)], strict=True))


def _norm(
    counts: np.ndarray,
    expected: np.ndarray,
    known: np.ndarray,
    mask: np.ndarray,
    energy: np.ndarray,
    method: str,
    tilt: bool,
) -> dict[str, float]:
    if method == "fit":
        return fit_background_norm(counts, expected, known, mask, energy, tilt)
    excess = float(counts.sum() - known.sum())
    total = float(expected.sum())
    return {"norm": excess / total, "norm_err": float(np.sqrt(excess)) / total, "tilt": 0.0}
