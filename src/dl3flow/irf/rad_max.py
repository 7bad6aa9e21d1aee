"""Radii of directional cuts: which events lie close enough to a source."""

import astropy.units as u
import numpy as np

from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable


def cut_radius(rad_max: IrfTable, energy: u.Quantity, offset: u.Quantity) -> u.Quantity:
    """Radius of the cut at reconstructed energies, of the nearest bin of energy and of offset.

    The cuts were made on the bins, so that interpolating between them would count other events than those the effective
    area was computed for.

    Parameters
    ----------
    rad_max : IrfTable
        ``rad_max_2d`` on (energy, offset), column RAD_MAX.
    energy : Quantity, shape (n,)
    offset : Quantity, scalar
        Of the source from the pointing.

    Returns
    -------
    radius : Quantity, shape (n,), deg
    """
    table = rad_max.quantity.to_value(u.deg)
    column = _nearest(rad_max.axis("offset"), offset.reshape(1))[0]
    return table[_nearest(rad_max.axis("energy"), energy), column] * u.deg


def largest_radius(rad_max: IrfTable, energy: Axis, offset: u.Quantity) -> u.Quantity:
    """Largest radius of the cut in the energy bins that overlap an axis, deg; what regions must keep apart by."""
    bins = rad_max.axis("energy")
    column = _nearest(rad_max.axis("offset"), offset.reshape(1))[0]
    low, high = energy.edges[0], energy.edges[-1]
    # outside the table the outermost bin holds
    overlap = (bins.edges[1:] >= low) & (bins.edges[:-1] <= high)
    overlap[_nearest(bins, u.Quantity([low, high]))] = True
    return float(rad_max.quantity.to_value(u.deg)[overlap, column].max()) * u.deg


def _nearest(axis: Axis, values: u.Quantity) -> np.ndarray:
    centers = axis.scaled(axis.centers)
    return np.searchsorted(0.5 * (centers[1:] + centers[:-1]), axis.scaled(values))
