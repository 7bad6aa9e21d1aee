"""Energy dispersion: its density in migra and its kernels, on any true energies and offsets."""

import astropy.units as u
import numpy as np

from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable

# kernel elements below this are rounding noise of the cumulative sums
_SMALLEST_PROBABILITY = 1e-8


def migra_density(edisp: IrfTable, energy_true: u.Quantity, offset: u.Quantity, migra: Axis) -> np.ndarray:
    """Probability density of migra = energy / energy_true.

    Parameters
    ----------
    edisp : IrfTable
        ``edisp_2d`` on (energy_true, migra, offset).
    energy_true : Quantity, shape (n,)
    offset : Quantity, shape (m,)
    migra : Axis
        Where the density is wanted: at its centres.

    Returns
    -------
    density : array, shape (n, n_migra, m)
        Normalised so that its sum times the bin widths is one; all zero where the table is.
    """
    values = np.tensordot(edisp.hat("energy_true", energy_true), edisp.quantity.to_value(""), axes=(1, 0))
    weights = edisp.hat("migra", migra.centers)
    values = np.einsum("km,nmo->nko", weights, values) if migra is not edisp.axis("migra") else values
    # tables hold small negative entries (unfolding noise): clip after the last interpolation, before the sum
    density = np.maximum(values @ edisp.hat("offset", offset).T, 0.0)
    norm = np.einsum("nkm,k->nm", density, migra.widths.to_value(""))
    return np.asarray(np.divide(density, norm[:, None], out=np.zeros_like(density), where=norm[:, None] > 0))


def dispersion_kernels(edisp: IrfTable, energy_true: Axis, energy: Axis, offset: u.Quantity) -> np.ndarray:
    """Probability that a photon at the centre of a true-energy bin is reconstructed in each energy bin.

    The cumulative distribution on the table's own migra axis is interpolated linearly at energy / energy_true. Rows
    sum to less than one where the energy axis truncates.

    Parameters
    ----------
    edisp : IrfTable
    energy_true, energy : Axis
    offset : Quantity, shape (m,)

    Returns
    -------
    kernels : array, shape (n_energy_true, n_energy, m)
    """
    migra = edisp.axis("migra")
    widths, edges = migra.widths.to_value(""), energy.edges.to_value(u.TeV)
    true = energy_true.centers
    values = np.tensordot(edisp.hat("energy_true", true), edisp.quantity.to_value(""), axes=(1, 0))
    weights = edisp.hat("offset", offset)
    migra_edges, at = migra.edges.to_value(""), edges / true.to_value(u.TeV)[:, None]
    # sums over migra commute with the interpolation in offset, and there are few offsets in a table ...
    cumulative = _cumulative(values * widths[:, None])
    below = _at_migra(cumulative, migra_edges, at) @ weights.T
    norm = cumulative[:, -1] @ weights.T
    kernels = np.diff(below, axis=1) / np.where(norm > 0, norm, 1.0)[:, None]
    # ... but not where a negative density is to be clipped: between extrapolated offsets, or in a table that has some
    outside = (weights < 0).any(axis=1)
    clipped = ((values < 0).any(axis=1).astype(float) @ (weights != 0).T > 0) & ~outside
    parts = [(slice(None), np.flatnonzero(outside))]
    parts += [(slice(n, n + 1), np.flatnonzero(clipped[n])) for n in np.flatnonzero(clipped.any(axis=1))]
    for rows, columns in parts:
        density = np.maximum(values[rows] @ weights[columns].T, 0.0)
        cumulative = _cumulative(density * widths[:, None])
        norm = cumulative[:, -1:]
        exact = np.diff(_at_migra(cumulative, migra_edges, at[rows]), axis=1) / np.where(norm > 0, norm, 1.0)
        kernels[rows][:, :, columns] = exact
    kernels[kernels < _SMALLEST_PROBABILITY] = 0.0
    return np.asarray(kernels)


def kernels_from_density(density: np.ndarray, migra: Axis, energy_true: Axis, energy: Axis) -> np.ndarray:
    """Kernels (n_energy_true, n_energy, ...) of a density (n_energy_true, n_migra, ...); see `dispersion_kernels`."""
    n_true, n_migra = density.shape[:2]
    flat = density.reshape(n_true, n_migra, -1) * migra.widths.to_value("")[:, None]
    at = energy.edges.to_value(u.TeV) / energy_true.centers.to_value(u.TeV)[:, None]
    kernels = np.diff(_at_migra(_cumulative(flat), migra.edges.to_value(""), at), axis=1)
    kernels[kernels < _SMALLEST_PROBABILITY] = 0.0
    return np.asarray(kernels.reshape(n_true, energy.n_bins, *density.shape[2:]))


def _cumulative(probability: np.ndarray) -> np.ndarray:
    """Sums below each edge, shape (n, n_migra + 1, m), of the probability per bin (n, n_migra, m)."""
    n, n_migra, m = probability.shape
    sums = np.zeros((n, n_migra + 1, m))
    np.cumsum(probability, axis=1, out=sums[:, 1:])
    return sums


def _at_migra(cumulative: np.ndarray, edges: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cumulative sums (n, n_migra + 1, m) interpolated linearly at ``at`` (n, k); shape (n, k, m)."""
    low = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    fraction = np.clip((at - edges[low]) / (edges[low + 1] - edges[low]), 0.0, 1.0)[..., None]
    rows = np.arange(len(at))[:, None]
    return np.asarray(cumulative[rows, low] * (1 - fraction) + cumulative[rows, low + 1] * fraction)
