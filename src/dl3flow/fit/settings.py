"""How a fit is computed, which changes no result beyond rounding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit.

    Attributes
    ----------
    precision : 'float64' or 'float32'
        In which responses are kept in memory; sums are always float64.
    n_threads : int
        Datasets are evaluated side by side; results are the same for any number.
    store : function (arrays) -> function () -> arrays, or None
        Puts the arrays of one dataset aside, on a disk, and says how to get them again; None keeps them in memory.
    """

    precision: Literal["float64", "float32"] = "float64"
    n_threads: int = 1
    store: Callable[[Arrays], Callable[[], Arrays]] | None = None

    @property
    def dtype(self) -> type:
        """Type of the kept responses."""
        return np.float32 if self.precision == "float32" else np.float64
