"""Effective area on any true energies and offsets."""

import astropy.units as u
import numpy as np

from dl3flow.irf.table import IrfTable


def effective_area(aeff: IrfTable, energy_true: u.Quantity, offset: u.Quantity) -> u.Quantity:
    """Effective area, interpolated linearly in log energy and offset.

    Parameters
    ----------
    aeff : IrfTable
        ``aeff_2d`` on (energy_true, offset).
    energy_true : Quantity, shape (n,)
    offset : Quantity, any shape (...)

    Returns
    -------
    area : Quantity, shape (n, ...), m2
        Zero outside the axes' edges, never negative.
    """
    at_energy = aeff.hat("energy_true", energy_true) @ aeff.quantity.to_value(u.m**2)
    area = at_energy @ aeff.hat("offset", offset.ravel()).T
    np.maximum(area, 0.0, out=area)
    return area.reshape(len(energy_true), *offset.shape) << u.m**2
