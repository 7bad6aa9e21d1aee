"""Map on named axes, and the point-spread and dispersion maps built on it."""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np

from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry


@dataclass(frozen=True, eq=False)
class Map:
    """Values on bins of named axes (slowest first) and sky pixels.

    Attributes
    ----------
    geom : SkyGeometry or RegionGeometry
    axes : tuple of Axis
    data : array, shape (axes..., n_lat, n_lon)
    unit : unit
    """

    geom: Geometry
    axes: tuple[Axis, ...]
    data: np.ndarray
    unit: u.UnitBase = u.dimensionless_unscaled

    def __post_init__(self) -> None:
        expected = (*(axis.n_bins for axis in self.axes), *self.geom.shape)
        if self.data.shape != expected:
            raise ValueError(
                f"a map on {[a.name for a in self.axes]} must have the shape {expected}, not {self.data.shape}"
            )

    def axis(self, name: str) -> Axis:
        """Axis of that name."""
        return next(axis for axis in self.axes if axis.name == name)

    @property
    def sky(self) -> SkyGeometry:
        """Sky pixels, where only a map will do.

        Raises
        ------
        InputError
            For values on a region.
        """
        if isinstance(self.geom, RegionGeometry):
            raise InputError(
                f"the spectrum of '{self.geom.text}' is no map: take a reduction with the recipe `cube`"
            )
        return self.geom

    @property
    def quantity(self) -> u.Quantity:
        """Values with their unit."""
        return self.data * self.unit

    def with_data(self, data: np.ndarray) -> "Map":
        """Same geometry and unit with other values."""
        return replace(self, data=data)


@dataclass(frozen=True, eq=False)
class PsfMap:
    """Point spread per solid angle on a coarse sky grid.

    Attributes
    ----------
    psf : Map on (energy_true, rad), sr-1
        Normalised so that the sum over rad of psf x 2 pi rad d(rad) is 1.
    exposure : Map on (energy_true,), m2 s
        At the same pixels; the weight in a stack.
    """

    psf: Map
    exposure: Map


@dataclass(frozen=True, eq=False)
class EdispMap:
    """Energy dispersion on a coarse sky grid.

    Attributes
    ----------
    edisp : Map on (energy_true, energy) or (energy_true, migra)
        Probability per bin of energy (a kernel), or density per unit of migra.
    exposure : Map on (energy_true,), m2 s
    """

    edisp: Map
    exposure: Map

    @property
    def is_kernel(self) -> bool:
        """True if the second axis is reconstructed energy, False if it is migra."""
        return self.edisp.axes[1].name == "energy"
