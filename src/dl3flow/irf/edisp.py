"""Energy dispersion: its density in migra and its kernels, on any true energies and offsets."""

import astropy.units as u
import numpy as np

from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable

# kernel elements below this are rounding noise of the cumulative sums
_SMALLEST_PROBABILITY = 1e-8
_ONE = u.dimensionless_unscaled


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
    values = np.tensordot(edisp.hat("energy_true", energy_true), edisp.quantity.to_value(_ONE), axes=(1, 0))
    weights = edisp.hat("migra", migra.centers)
    values = np.einsum("km,nmo->nko", weights, values) if migra is not edisp.axis("migra") else values
    # tables hold small negative entries (unfolding noise): clip after the last interpolation, before the sum
    density = np.maximum(values @ edisp.hat("offset", offset).T, 0.0)
    norm = np.einsum("nkm,k->nm", density, migra.widths.to_value(_ONE))
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
    values = np.tensordot(
        edisp.hat("energy_true", energy_true.centers), edisp.quantity.to_value(_ONE), axes=(1, 0)
    )
    weights = edisp.hat("offset", offset)
    overlap = _overlap(migra, energy_true, energy)
    widths = migra.widths.to_value(_ONE)
    # integrals over migra commute with the interpolation in offset, and there are few offsets in a table ...
    kernels = _normalised(overlap @ values @ weights.T, widths @ values @ weights.T)
    # ... but not where a negative density is to be clipped: between extrapolated offsets, or in a table that has some
    outside = (weights < 0).any(axis=1)
    clipped = ((values < 0).any(axis=1).astype(float) @ (weights != 0).T > 0) & ~outside
    parts = [(slice(None), np.flatnonzero(outside))]
    parts += [(slice(n, n + 1), np.flatnonzero(clipped[n])) for n in np.flatnonzero(clipped.any(axis=1))]
    for rows, columns in parts:
        density = np.maximum(values[rows] @ weights[columns].T, 0.0)
        kernels[rows][:, :, columns] = _normalised(overlap[rows] @ density, widths @ density)
    kernels[kernels < _SMALLEST_PROBABILITY] = 0.0
    return np.asarray(kernels)


def kernels_from_density(density: np.ndarray, migra: Axis, energy_true: Axis, energy: Axis) -> np.ndarray:
    """Kernels (n_energy_true, n_energy, ...) of a density (n_energy_true, n_migra, ...); see `dispersion_kernels`."""
    n_true, n_migra = density.shape[:2]
    kernels = _overlap(migra, energy_true, energy) @ density.reshape(n_true, n_migra, -1)
    kernels[kernels < _SMALLEST_PROBABILITY] = 0.0
    return np.asarray(kernels.reshape(n_true, energy.n_bins, *density.shape[2:]))


def _overlap(migra: Axis, energy_true: Axis, energy: Axis) -> np.ndarray:
    """Part of each bin of migra within each bin of energy, at the centres of true energy; shape (n_true, n_energy, n_migra)."""
    edges = migra.edges.to_value(_ONE)
    at = energy.edges.to_value(u.TeV) / energy_true.centers.to_value(u.TeV)[:, None]
    below = np.clip(at[..., None] - edges[:-1], 0.0, np.diff(edges))
    return np.diff(below, axis=1)


def _normalised(kernels: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Kernels (n, n_energy, m) over their norm (n, m); unchanged, zero, where that is zero."""
    kernels /= np.where(norm > 0, norm, 1.0)[:, None]
    return kernels
