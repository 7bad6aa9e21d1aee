"""Temporal models: a factor on a source's flux against time.

Functions take times in MJD (TT) as days and parameters in days, and return a dimensionless factor; a gradient has one row
per parameter.
"""

import numpy as np

from dl3flow.registry import Registry

TEMPORAL_MODELS = Registry("temporal model")


@TEMPORAL_MODELS.register(
    "ConstantTemporalModel", "const", gradient=lambda time: np.zeros((0, *np.shape(time)))
)
def constant(time: np.ndarray) -> np.ndarray:
    """A steady source."""
    return np.ones(np.shape(time))
