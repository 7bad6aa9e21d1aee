"""Dataset: binned counts with the background and responses that predict them (DL4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry


@dataclass(frozen=True, eq=False)
class ExpectedCounts:
    """Background known in expectation: the counts that a model predicts per bin (Cash statistic).

    Attributes
    ----------
    counts : Map on (energy,)
    """

    counts: Map


@dataclass(frozen=True, eq=False)
class OffCounts:
    """Background measured in off regions: the statistic of two Poisson counts (wstat).

    Attributes
    ----------
    counts : Map on (energy,)
        Counts in the off regions of each bin.
    acceptance, acceptance_off : Map on (energy,)
        Relative background exposure of the bin and of its off regions; no off region is acceptance_off = 0.
    """

    counts: Map
    acceptance: Map
    acceptance_off: Map

    @cached_property
    def alpha(self) -> np.ndarray:
        """Acceptance / acceptance_off per bin; 0 where nothing was measured."""
        on, off = self.acceptance.data, self.acceptance_off.data
        return np.asarray(np.divide(on, off, out=np.zeros(on.shape), where=off > 0))


@dataclass(frozen=True, eq=False)
class MaskReasons:
    """Why bins of one observation are not safe.

    Attributes
    ----------
    names : tuple of str
        Safe masks in the order of their application, at most 8.
    bits : uint8 array, shape of the counts
        Bit n is set where ``names[n]`` drops the bin.
    """

    names: tuple[str, ...]
    bits: np.ndarray

    def dropped(self, name: str) -> np.ndarray:
        """True for the bins that one safe mask drops."""
        return np.asarray(self.bits & (1 << self.names.index(name)) > 0)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Reduced data of one observation, or of a stack of them.

    | what the field calls it | geometry of the counts | background |
    |---|---|---|
    | MapDataset, MapDatasetOnOff | SkyGeometry | ExpectedCounts, OffCounts |
    | SpectrumDataset, SpectrumDatasetOnOff | RegionGeometry | ExpectedCounts, OffCounts |

    Attributes
    ----------
    name : str
    counts : Map on (energy,)
    background : ExpectedCounts, OffCounts or None
        None only between a recipe that found no background response and a background method.
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
    reasons : MaskReasons, or None
        Of one reduced observation; a stack has none.
    """

    name: str
    counts: Map
    background: ExpectedCounts | OffCounts | None
    exposure: Map
    psf: PsfMap | None
    edisp: EdispMap | None
    mask_safe: np.ndarray
    mask_fit: np.ndarray | None
    gti: Gti
    meta: Mapping[str, Any]
    reasons: MaskReasons | None = None

    @property
    def geom(self) -> Geometry:
        """Sky pixels of the counts, or their region."""
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

    @property
    def mu_bkg(self) -> np.ndarray:
        """Expected background counts per bin, alpha n_off where they are measured; zero where there is no background."""
        match self.background:
            case ExpectedCounts(counts):
                return counts.data
            case OffCounts() as off:
                return np.asarray(off.alpha * off.counts.data)
            case None:
                return np.zeros(self.counts.data.shape)


@dataclass(frozen=True, eq=False)
class NormProfiles:
    """Likelihood profile of each of several flux points over its norm.

    Attributes
    ----------
    ref_dnde : Quantity, shape (n,)
        Differential flux of norm 1.
    norm, stat : tuple of n arrays
        Increasing norms, the best among them, and the statistic above its minimum there; empty where a point has none.
    """

    ref_dnde: u.Quantity
    norm: tuple[np.ndarray, ...]
    stat: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class FluxPointsData:
    """Measured fluxes as data of a fit, where no response is needed any more: the field's FluxPointsDataset.

    Attributes
    ----------
    name : str
    energy_ref : Quantity, shape (n,)
    dnde, errn, errp : Quantity, shape (n,)
        Differential flux, and its errors downwards and upwards (both positive).
    mask : bool array, shape (n,)
        True for the points that enter a likelihood: measured, not limits.
    meta : mapping of JSON values
        ``warnings`` and, where known, ``telescope``.
    stat_type : 'chi2', 'profile' or 'distrib'
        What a fit makes of them: squares of (dnde - model) / error; the likelihood profile of each point; or these
        squares for measured points and the probability of having measured less for upper limits.
    profiles : NormProfiles or None
        Not None for ``profile``.
    limit, limit_error : Quantity, shape (n,), or None
        Upper limits, NaN for measured points, and the Gaussian errors of the measurements behind them; not None for
        ``distrib``, whose ``mask`` holds the limits too.
    """

    name: str
    energy_ref: u.Quantity
    dnde: u.Quantity
    errn: u.Quantity
    errp: u.Quantity
    mask: np.ndarray
    meta: Mapping[str, Any]
    stat_type: str = "chi2"
    profiles: NormProfiles | None = None
    limit: u.Quantity | None = None
    limit_error: u.Quantity | None = None


FitData = Dataset | FluxPointsData
