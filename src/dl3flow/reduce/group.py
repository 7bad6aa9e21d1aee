"""Groups of observations under similar conditions, to stack within and fit jointly across."""

from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import brentq

from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.containment import containment
from dl3flow.irf.edisp import migra_density

_CONTAINED = 0.68
_LARGEST = 5 * u.deg


def response_features(
    observation: Observation, energy_true: u.Quantity, offset: u.Quantity
) -> dict[str, float]:
    """Numbers by which observations resemble one another, at one true energy and offset.

    Parameters
    ----------
    observation : Observation
    energy_true, offset : Quantity, scalar

    Returns
    -------
    features : dict of float
        ``log_area`` (log10 of the effective area, m2), and where the responses are there ``bias`` and ``resolution``
        (mean and standard deviation of energy / energy_true - 1) and ``psf_radius`` (deg, of 68 % containment).

    Raises
    ------
    InputError
        If a response is zero there.
    """
    energy, at = energy_true.reshape(1), offset.reshape(1)
    where = f"observation {observation.obs_id}: at {energy_true:g} and an offset of {offset:g}"
    area = float(effective_area(observation.aeff, energy, at).to_value("m2")[0, 0])
    if area <= 0:
        raise InputError(f"{where} the effective area is zero: choose another energy or offset")
    features = {"log_area": float(np.log10(area))}
    if observation.edisp is not None:
        migra = observation.edisp.axis("migra")
        weight = migra_density(observation.edisp, energy, at, migra)[0, :, 0] * migra.widths.to_value("")
        if weight.sum() <= 0:
            raise InputError(f"{where} the energy dispersion is zero: choose another energy or offset")
        center = migra.centers.to_value("")
        mean = float(weight @ center)
        features |= {"bias": mean - 1, "resolution": float(np.sqrt(weight @ (center - mean) ** 2))}
    if (psf := observation.psf) is not None:

        def missing(radius: float) -> float:
            return float(containment(psf, energy, radius * u.deg, at)[0, 0]) - _CONTAINED

        if missing(_LARGEST.value) <= 0:
            raise InputError(
                f"{where} the point spread is zero or ends too early: choose another energy or offset"
            )
        features["psf_radius"] = float(brentq(missing, 0.0, _LARGEST.value, xtol=1e-6))
    return features


def group_observations(features: Sequence[Mapping[str, float]], n_groups: int) -> list[int]:
    """Number of the group of each observation, by Ward's hierarchical clustering of the standardised features.

    Each feature has its mean subtracted and is divided by its standard deviation; one that is the same everywhere
    counts for nothing.

    Parameters
    ----------
    features : sequence of mapping
        One per observation, all with the same names; `response_features`, or what an index says, such as a zenith angle.
    n_groups : int
        At most; there are fewer where observations are identical.

    Returns
    -------
    groups : list of int
        From 0, numbered in the order in which they first occur.

    Raises
    ------
    InputError
        If there is no observation, the names differ, or ``n_groups`` is below 1.
    """
    if not features or n_groups < 1:
        raise InputError(
            f"groups: expected observations and at least 1 group, found {len(features)} and {n_groups}"
        )
    names = sorted(features[0])
    for n, each in enumerate(features):
        if sorted(each) != names:
            raise InputError(
                f"groups: observation number {n + 1} has the features {sorted(each)}, the first has {names}"
            )
    table = np.array([[each[name] for name in names] for each in features], dtype=float)
    table = table - table.mean(axis=0)
    spread = table.std(axis=0)
    # the mean of equal numbers is off by their rounding
    is_same = spread <= 1e-12 * np.maximum(np.abs(table).max(axis=0), 1.0)
    scaled = np.where(is_same, 0.0, table / np.where(is_same, 1.0, spread))
    if len(features) == 1:
        return [0]
    labels = fcluster(linkage(scaled, method="ward"), n_groups, criterion="maxclust").tolist()
    rank = {label: n for n, label in enumerate(dict.fromkeys(labels))}
    return [rank[label] for label in labels]
