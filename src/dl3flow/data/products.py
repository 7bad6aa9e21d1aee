"""FitResult, FluxPoints, LightCurve and SkyMap: published results (DL5)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from dl3flow.data.maps import Map
from dl3flow.models.source import Models, Parameter, full_names


@dataclass(frozen=True, eq=False)
class DatasetStat:
    """One dataset at the best fit: sums over its fit bins, in all and per bin of reconstructed energy.

    Attributes
    ----------
    name : str
    stat : float
    n_bins : int
    energy_edges : Quantity, shape (n_energy + 1,)
    counts_per_energy, signal_per_energy, background_per_energy : array, shape (n_energy,)
    obs_ids : tuple of int
        Observations that it holds, where they are known.
    """

    name: str
    stat: float
    n_bins: int
    energy_edges: u.Quantity
    counts_per_energy: np.ndarray
    signal_per_energy: np.ndarray
    background_per_energy: np.ndarray
    obs_ids: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Profile:
    """Statistic along one parameter, all others at their best for each value.

    Attributes
    ----------
    name : str
    values : array, shape (n,)
        In the parameter's unit, increasing.
    stat : array, shape (n,)
        Above the best fit's.
    """

    name: str
    values: np.ndarray
    stat: np.ndarray


@dataclass(frozen=True, eq=False)
class Contour:
    """Where the statistic, all other parameters at their best, lies a fixed height above the best fit's.

    Attributes
    ----------
    names : tuple of two str
    n_sigma : float
        The contour holds the true values with the probability of ``n_sigma`` of one Gaussian variable.
    x, y : array, shape (n,)
        Points of the closed line, in the parameters' units.
    """

    names: tuple[str, str]
    n_sigma: float
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class FitResult:
    """A finished fit.

    Attributes
    ----------
    success : bool
    message : str
        Why a fit failed or is doubtful; else that it converged.
    stat : float
        Sum over datasets of -2 log L in the convention of each statistic.
    models : Models
        At the best fit, with errors.
    free : tuple of str
        Full names of the free parameters, in the order of ``covariance``.
    covariance : array, shape (n_free, n_free)
        In the parameters' own units.
    datasets : tuple of DatasetStat
    minimiser : mapping
        ``name``, ``edm``, ``n_evaluations``, ``at_limit`` (list of names), ``warnings`` (list of sentences).
    minos : mapping of (minus, plus)
        Distances (both positive) to where the profiled statistic is one above the best, by parameter; NaN where it never is.
    profiles : mapping of Profile
        By parameter.
    contours : tuple of Contour
    """

    success: bool
    message: str
    stat: float
    models: Models
    free: tuple[str, ...]
    covariance: np.ndarray
    datasets: tuple[DatasetStat, ...]
    minimiser: Mapping[str, Any]
    minos: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    contours: tuple[Contour, ...] = ()

    @property
    def n_bins(self) -> int:
        """Bins of all datasets in the likelihood."""
        return sum(d.n_bins for d in self.datasets)

    @property
    def doubts(self) -> list[str]:
        """Why not to believe the fit, or what to know of it, one sentence each."""
        failed = [] if self.success else [f"the fit failed: {self.message}"]
        return [*failed, *self.minimiser.get("warnings", [])]

    @property
    def systematics(self) -> list[tuple[str, tuple[str, ...], Parameter, float]]:
        """Systematic errors that were fitted: name, the datasets that share it, parameter, and its pull from the prior (sigma)."""
        found = []
        for model in self.models.responses:
            (names,) = full_names(model).values()
            for name, p in zip(names, model.scale.parameters, strict=True):
                if not p.frozen:
                    given = {} if p.prior is None else p.prior.values
                    is_gaussian = {"mu", "sigma"} <= set(given)
                    pull = (p.value - given["mu"]) / given["sigma"] if is_gaussian else np.nan
                    found.append((name, model.datasets or (), p, float(pull)))
        return found

    def parameter(self, name: str) -> Parameter:
        """Best-fit parameter by its full name."""
        return self.models.parameters()[name]


@dataclass(frozen=True, eq=False)
class Samples:
    """Points drawn from the posterior of a fit's free parameters.

    Attributes
    ----------
    names : tuple of str
        Full names of the parameters.
    values : array, shape (n_samples, n_free)
        In the parameters' units, in the order of the chain; those of several walkers interleaved.
    log_posterior : array, shape (n_samples,)
        Up to a constant.
    n_walkers : int
    acceptance : float
        Part of the proposed steps that were taken.
    autocorrelation : array, shape (n_free,)
        Steps of a walker between independent points: n_samples / n_walkers / autocorrelation are independent per walker.
    meta : mapping of JSON values
        ``sampler`` with its options, ``seed``, ``n_burn`` and ``warnings``.
    """

    names: tuple[str, ...]
    values: np.ndarray
    log_posterior: np.ndarray
    n_walkers: int
    acceptance: float
    autocorrelation: np.ndarray
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_effective(self) -> np.ndarray:
        """Number of independent points of each parameter."""
        return np.asarray(len(self.values) / np.maximum(self.autocorrelation, 1.0))

    @property
    def mean(self) -> np.ndarray:
        """Mean of each parameter."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the parameters."""
        scale = np.maximum(self.values.std(axis=0), np.finfo(float).tiny)
        scaled = (self.values - self.values.mean(axis=0)) / scale
        return np.asarray(np.atleast_2d(np.cov(scaled, rowvar=False)) * np.outer(scale, scale))

    def interval(self, name: str, content: float = 0.6826894921370859) -> tuple[float, float]:
        """Ends of the central interval of a parameter that holds ``content`` of the samples."""
        column = self.values[:, self.names.index(name)]
        low, high = np.quantile(column, [0.5 - content / 2, 0.5 + content / 2])
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Butterfly:
    """Spectrum of one source at the best fit with its error band.

    Attributes
    ----------
    table : QTable, one row per energy
        energy, dnde, dnde_err (standard deviation), dnde_errn and dnde_errp (to the ends of the 68 % interval).
    meta : mapping
        ``source``, ``method``, ``pivot_energy`` (TeV) and ``warnings``.
    """

    table: QTable
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FluxPoints:
    """Flux of one source in energy bins, relative to a reference spectrum.

    Attributes
    ----------
    table : QTable, one row per energy bin
        e_ref, e_min, e_max, ref_dnde, ref_flux, ref_eflux, ref_e2dnde, norm, norm_err, norm_errn, norm_errp, norm_ul,
        ts, sqrt_ts, npred, npred_excess, counts, stat, stat_null, is_ul, success.
    meta : mapping
        ``source``, ``sed_type`` (likelihood), ``n_sigma``, ``n_sigma_ul``, ``ul_conf``.
    """

    table: QTable
    meta: Mapping[str, Any] = field(default_factory=dict)

    def dnde(self, column: str = "norm") -> u.Quantity:
        """Differential flux at e_ref: ``norm``, ``norm_err``, ``norm_errn``, ``norm_errp`` or ``norm_ul`` x ref_dnde."""
        return self.table[column] * self.table["ref_dnde"]

    def e2dnde(self, column: str = "norm") -> u.Quantity:
        """Spectral energy density at e_ref, TeV cm-2 s-1."""
        return (self.dnde(column) * self.table["e_ref"] ** 2).to(u.Unit("TeV cm-2 s-1"))


@dataclass(frozen=True, eq=False)
class LightCurve:
    """Flux of one source in bins of time, in one or several bands of energy.

    Attributes
    ----------
    table : QTable, one row per bin and band, in order of time, then energy
        time_min, time_max (MJD, TT), e_min, e_max, e_ref and the columns of `FluxPoints`; ``livetime``, ``dataset`` and, with
        Bayesian blocks, ``block`` (-1 for a bin in none) of the bin.
    meta : mapping
        Those of `FluxPoints`, ``n_bands``, ``labels`` of the bins, ``variability`` (a mapping per band), ``blocks`` (ends and
        fluxes of each) and ``summary`` (label and number or text, for the report).
    """

    table: QTable
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ProductTable:
    """Table of an estimator whose columns are its own, such as theta squared, a profile or a list of peaks.

    Attributes
    ----------
    kind : str
        Name of the estimator, under which the picture is found.
    table : QTable
        One value per cell: numbers, with their units, booleans or texts.
    meta : mapping
        JSON values; ``warnings`` is a list of sentences, ``summary`` a list of (label, number or text) that the report
        shows beside the table.
    """

    kind: str
    table: QTable
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SkyMap:
    """Sky maps of one estimator on one geometry, by name (such as ``counts``, ``excess``, ``sqrt_ts``)."""

    maps: Mapping[str, Map]
    meta: Mapping[str, Any] = field(default_factory=dict)
