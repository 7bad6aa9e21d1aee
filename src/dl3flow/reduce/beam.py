"""The beam of a map: the radius that holds most of the light of a point source in it."""

from collections.abc import Sequence

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.kernels.integrate import power_law_integral

_INDEX = 2.0


def beam_radius(datasets: Sequence[Dataset], content: float = 0.68, index: float = _INDEX) -> float | None:
    """Radius around a point source at the middle of a map that holds a part of its light.

    The point spreads of all true energies within the map's energies are averaged by exposure and a power law.

    Parameters
    ----------
    datasets : sequence of Dataset
    content : float
        Part of the light.
    index : float
        Of the power law.

    Returns
    -------
    radius : float or None
        Deg; None where no dataset has a point spread, or the profiles end before that part.
    """
    total, rad = None, None
    for dataset in datasets:
        if dataset.psf is None:
            continue
        axis = dataset.psf.psf.axes[1]
        # profiles on other distances cannot be added; such datasets are rare, and their beams much alike
        if rad is None or (axis.n_bins == rad.n_bins and np.allclose(axis.edges.value, rad.edges.value)):
            profile = _mean_profile(dataset, index)
            total, rad = profile if total is None else total + profile, axis
    if total is None or rad is None:
        return None
    ring = 2 * np.pi * rad.centers.to_value(u.rad) * rad.widths.to_value(u.rad)
    held = np.concatenate([[0.0], np.cumsum(total * ring)])
    if held[-1] <= 0:
        return None
    share = held / held[-1]
    return float(np.interp(content, share, rad.edges.to_value(u.deg)))


def _mean_profile(dataset: Dataset, index: float) -> np.ndarray:
    """Point spread at the middle, summed over true energies by exposure and spectrum; shape (n_rad,)."""
    assert dataset.psf is not None
    values, exposure = dataset.psf.psf.data, dataset.psf.exposure.data
    lat, lon = values.shape[2] // 2, values.shape[3] // 2
    edges = dataset.energy_true.edges.to_value(u.TeV)
    spectrum = power_law_integral(edges, -index * np.log(edges)[None], -np.inf)[0]
    low, high = dataset.energy.edges.to_value(u.TeV)[[0, -1]]
    inside = (edges[1:] > low) & (edges[:-1] < high)
    weight = np.where(inside, exposure[:, lat, lon] * spectrum, 0.0)
    return np.asarray(weight @ values[:, :, lat, lon])
