"""The registry of spatial models, and what their functions hand to pixels."""

from typing import NamedTuple

import numpy as np

from dl3flow.registry import Registry

SPATIAL_MODELS = Registry("spatial model")


class Expansion(NamedTuple):
    """A density and its derivatives by the free parameters; None for what was not asked for or has no closed form.

    Attributes
    ----------
    density : array
        Per solid angle, sr-1.
    gradient : array, shape (n_free, ...), or None
    curvature : array, shape (n_free, n_free, ...), or None
    """

    density: np.ndarray
    gradient: np.ndarray | None = None
    curvature: np.ndarray | None = None
