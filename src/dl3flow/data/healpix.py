"""HealpixCube: a quantity over the whole sky at nodes of true energy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.kernels.healpix import ring_weights


@dataclass(frozen=True, eq=False)
class HealpixCube:
    """Values on HEALPix pixels, such as the exposure of a survey.

    Attributes
    ----------
    energy_true : Quantity, shape (n_energy,)
        Nodes.
    values : array, shape (n_energy, 12 nside**2), above 0
        In RING order.
    unit : Unit
    nside : int
    frame : str
        ``icrs`` or ``galactic``.
    meta : mapping
        ``warnings``: what was assumed, as sentences.
    """

    energy_true: u.Quantity
    values: np.ndarray
    unit: u.UnitBase
    nside: int
    frame: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    def at(self, position: SkyCoord, energy_true: u.Quantity | None = None) -> u.Quantity:
        """Values at positions, bilinear in the sky; between nodes linear in the logarithms of energy and value.

        Parameters
        ----------
        position : SkyCoord, shape (m,) or scalar
        energy_true : Quantity, shape (k,), optional
            Default: the nodes.

        Returns
        -------
        values : Quantity, shape (k, m) or (k,)
            Beyond the nodes those of the outermost node.
        """
        there = position.transform_to(self.frame).spherical
        lon, lat = (np.ravel(angle.to_value(u.rad)) for angle in (there.lon, there.lat))
        pixels, weights = ring_weights(self.nside, lon, lat)
        found = (self.values[:, pixels] * weights).sum(axis=-1)
        if energy_true is not None:
            nodes = np.log(self.energy_true.to_value(u.TeV))
            x = np.log(energy_true.to_value(u.TeV))
            found = np.exp(np.stack([np.interp(x, nodes, column) for column in np.log(found).T], axis=-1))
        return found.reshape(len(found), *position.shape) * self.unit
