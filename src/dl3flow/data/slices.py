"""Slice: what one bin of time or phase says about the strength of a source."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np

from dl3flow.kernels.norm import Bins


@dataclass(frozen=True, eq=False)
class Band:
    """One range of energy of a slice.

    Attributes
    ----------
    edges : Quantity, shape (2,)
        Ends of the data's energy bins, TeV.
    parts : tuple of ExpectedBins or MeasuredBins
        Of each dataset, the bins in which the source is expected.
    counts, expected, stat : float
        Sums over the further bins, on which the source has no influence.
    """

    edges: u.Quantity
    parts: tuple[Bins, ...]
    counts: float = 0.0
    expected: float = 0.0
    stat: float = 0.0


@dataclass(frozen=True, eq=False)
class Slice:
    """One bin of a light curve or phase curve, from which its flux can be fitted, alone or with others.

    Attributes
    ----------
    label : str
    low, high : float
        Its ends: MJD (TT), or phases.
    bands : tuple of Band
        In order of energy; empty where the slice has failed.
    datasets : tuple of str
    livetime : Quantity
        Sum over the datasets, s.
    failure : str
        Why there is no result; empty if there is one.
    warnings : tuple of str
    """

    label: str
    low: float
    high: float
    bands: tuple[Band, ...]
    datasets: tuple[str, ...] = ()
    livetime: u.Quantity = 0 * u.s
    failure: str = ""
    warnings: tuple[str, ...] = ()


def failed_slice(label: str, low: float | None, high: float | None, why: str) -> Slice:
    """A slice without a result."""
    start, stop = (np.nan if end is None else float(end) for end in (low, high))
    return Slice(label, start, stop, (), failure=why)
