"""IrfTable: a response on the axes of its file, and its interpolation on any points."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.geometry.axis import Axis
from dl3flow.kernels.interpolate import hat_matrix


@dataclass(frozen=True, eq=False)
class IrfTable:
    """One instrument response (effective area, dispersion, point spread or background).

    Attributes
    ----------
    kind : str
        GADF HDUCLAS4 in lower case: ``aeff_2d``, ``edisp_2d``, ``psf_table``, ``psf_3gauss``, ``bkg_2d``, ``bkg_3d``.
    axes : tuple of Axis
        Slowest first, as in `data`: energy (or energy_true), then migra, rad, offset, fov_lon, fov_lat.
    data : dict of arrays, each of the shape of the axes
        By column name; one column but for parametric point spreads.
    units : dict of units, by column name
    meta : mapping
        ``is_pointlike``, ``fov_alignment`` (RADEC, ALTAZ or REVERSE_LON_RADEC), ``lo_thres``, ``hi_thres`` (Quantity or None).
    """

    kind: str
    axes: tuple[Axis, ...]
    data: Mapping[str, np.ndarray]
    units: Mapping[str, u.UnitBase]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def axis(self, name: str) -> Axis:
        """Axis of that name."""
        return next(axis for axis in self.axes if axis.name == name)

    @property
    def column(self) -> str:
        """Name of the only data column."""
        (name,) = self.data
        return name

    @property
    def quantity(self) -> u.Quantity:
        """Values of the only data column."""
        return self.data[self.column] * self.units[self.column]

    def hat(self, name: str, values: u.Quantity) -> np.ndarray:
        """Weights (n_values, n_nodes) that interpolate linearly along one axis, zero outside its edges.

        Between an outer edge and the outermost centre the last two nodes are extrapolated.
        """
        axis = self.axis(name)
        edges = axis.scaled(axis.edges)
        return hat_matrix(axis.scaled(axis.centers), axis.scaled(values), float(edges[0]), float(edges[-1]))
