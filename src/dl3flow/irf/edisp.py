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
    density = migra_density(edisp, energy_true.centers, offset, migra)
    return kernels_from_density(density, migra, energy_true, energy)


def kernels_from_density(density: np.ndarray, migra: Axis, energy_true: Axis, energy: Axis) -> np.ndarray:
    """Kernels (n_energy_true, n_energy, ...) of a density (n_energy_true, n_migra, ...); see `dispersion_kernels`."""
    n_true, n_migra = density.shape[:2]
    widths = migra.widths.to_value("")
    flat = density.reshape(n_true, n_migra, -1) * widths[:, None]
    cumulative = np.concatenate([np.zeros_like(flat[:, :1]), np.cumsum(flat, axis=1)], axis=1)
    at = energy.edges.to_value(u.TeV) / energy_true.centers.to_value(u.TeV)[:, None]
    edges = migra.edges.to_value("")
    low = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, n_migra - 1)
    fraction = np.clip((at - edges[low]) / (edges[low + 1] - edges[low]), 0.0, 1.0)[..., None]
    rows = np.arange(n_true)[:, None]
    below = cumulative[rows, low] * (1 - fraction) + cumulative[rows, low + 1] * fraction
    kernels = np.diff(below, axis=1)
    kernels[kernels < _SMALLEST_PROBABILITY] = 0.0
    return np.asarray(kernels.reshape(n_true, energy.n_bins, *density.shape[2:]))
