"""Dataset: binned counts with the background and responses that predict them (DL4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry


@dataclass(frozen=True, eq=False)
class ExpectedCounts:
    """Background known in expectation: the counts that a model predicts per bin (Cash statistic).

    Attributes
    ----------
    counts : Map on (energy,)
    """

    counts: Map


@dataclass(frozen=True, eq=False)
class Dataset:
    """Reduced data of one observation, or of a stack of them.

    Attributes
    ----------
    name : str
    counts : Map on (energy,)
    background : ExpectedCounts
    exposure : Map on (energy_true,), m2 s
        On the pixels of `counts`.
    psf : PsfMap or None
    edisp : EdispMap or None
        None only where energy_true and energy are the same bins.
    mask_safe : bool array, shape (n_energy, n_lat, n_lon)
        True where the responses are trusted.
    mask_fit : bool array of that shape, or None
        True where the user asks to fit; None is everywhere.
    gti : Gti
    meta : mapping of JSON values
        ``obs_ids`` (list), ``livetime`` (s), ``ontime`` (s), ``telescope``, ``instrument``; after a background
        method its results, such as ``background: {"method": ..., "norm": ..., "norm_err": ...}``.
    """

    name: str
    counts: Map
    background: ExpectedCounts
    exposure: Map
    psf: PsfMap | None
    edisp: EdispMap | None
    mask_safe: np.ndarray
    mask_fit: np.ndarray | None
    gti: Gti
    meta: Mapping[str, Any]

    @property
    def geom(self) -> SkyGeometry:
        """Sky pixels of the counts."""
        return self.counts.geom

    @property
    def energy(self) -> Axis:
        """Axis of reconstructed energy."""
        return self.counts.axis("energy")

    @property
    def energy_true(self) -> Axis:
        """Axis of true energy."""
        return self.exposure.axis("energy_true")

    @property
    def mask(self) -> np.ndarray:
        """True for the bins that enter a likelihood: safe and asked for."""
        return self.mask_safe if self.mask_fit is None else self.mask_safe & self.mask_fit
