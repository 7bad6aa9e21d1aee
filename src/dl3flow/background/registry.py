"""Registry of background methods, and what every method is given."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dl3flow.data.observation import Observation
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.table import IrfTable
from dl3flow.registry import Registry

BACKGROUNDS = Registry("background method")
"""Companions of a method: ``expected`` (True: it gives ExpectedCounts, otherwise OffCounts), ``image`` (True: all energies are
summed before it), ``off`` (True: it takes further runs), ``build`` (function that builds background models from further runs)."""


@dataclass(frozen=True, eq=False)
class BackgroundInputs:
    """What a method may use beside the observation and its dataset.

    Attributes
    ----------
    usable : function (SkyGeometry) -> bool array, shape (n_lat, n_lon)
        True for the pixels of any geometry that the background may be taken from.
    signal : array, shape (n_energy, n_lat, n_lon), or None
        Expected counts of known sources in the dataset.
    off : tuple of Observation
        Further runs, for a method registered with ``off=True``.
    models : tuple of IrfTable
        Background rates built from other runs, for a method registered with a companion ``build``.
    """

    usable: Callable[[SkyGeometry], np.ndarray]
    signal: np.ndarray | None = None
    off: tuple[Observation, ...] = ()
    models: tuple[IrfTable, ...] = ()
