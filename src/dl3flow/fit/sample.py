"""Points of a fit's posterior: likelihood times priors within the limits of the parameters, drawn by a registered sampler.

A sampler is a function (log_posterior, start, seed, *, options) -> Chain; ``stretch`` is our own and the default, ``emcee``
needs the extra `sampling`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl3flow.data.dataset import FitData
from dl3flow.data.products import FitResult, Samples
from dl3flow.errors import InputError
from dl3flow.fit.bounds import size_names
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.propagate import draw
from dl3flow.models.priors import PRIORS
from dl3flow.models.source import Models, Parameter
from dl3flow.registry import Registry

SAMPLERS = Registry("sampler")

LogPosterior = Callable[[np.ndarray], float]

_WALKERS_PER_PARAMETER = 4
_FEWEST_WALKERS = 32
# a walker's steps per correlation time below which its own correlation time is not known (Sokal 1997)
_LONG_ENOUGH = 50
# a window of so many correlation times holds the correlation without its noise
_WINDOW = 5.0
_MANY_PARAMETERS = 30


@dataclass(frozen=True, eq=False)
class Chain:
    """What a sampler returns: the path of each walker.

    Attributes
    ----------
    values : array, shape (n_steps, n_walkers, n_free)
    log_posterior : array, shape (n_steps, n_walkers)
    acceptance : float
    """

    values: np.ndarray
    log_posterior: np.ndarray
    acceptance: float


@SAMPLERS.register()
def stretch(
    log_posterior: LogPosterior, start: np.ndarray, seed: int, *, n_steps: int = 2000, scale: float = 2.0
) -> Chain:
    """Ensemble of walkers that step along the lines to one another: the same for any units and correlations.

    Goodman and Weare (2010), "stretch move" with ``scale`` a = 2, the two halves of the ensemble in turn.

    Parameters
    ----------
    log_posterior : function (x) -> float
    start : array, shape (n_walkers, n_free)
        An even number of walkers, at least twice as many as parameters.
    seed : int
    n_steps : int
        Of each walker.
    scale : float
    """
    random = np.random.default_rng(seed)
    x = np.array(start, dtype=float)
    at = np.array([log_posterior(row) for row in x])
    n_walkers, n_free = x.shape
    half = n_walkers // 2
    values, found, n_taken = np.empty((n_steps, *x.shape)), np.empty((n_steps, n_walkers)), 0
    for step in range(n_steps):
        for own, others in ((slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))):
            here, partners = x[own], x[others]
            # density 1 / sqrt(z) between 1 / a and a
            z = (1 + (scale - 1) * random.random(len(here))) ** 2 / scale
            partner = partners[random.integers(len(partners), size=len(here))]
            proposed = partner + z[:, None] * (here - partner)
            values_there = np.array([log_posterior(row) for row in proposed])
            gain = (n_free - 1) * np.log(z) + values_there - at[own]
            is_taken = np.log(random.random(len(here))) < gain
            x[own] = np.where(is_taken[:, None], proposed, here)
            at[own] = np.where(is_taken, values_there, at[own])
            n_taken += int(is_taken.sum())
        values[step], found[step] = x, at
    return Chain(values, found, n_taken / (n_steps * n_walkers))


@SAMPLERS.register()
def emcee(log_posterior: LogPosterior, start: np.ndarray, seed: int, *, n_steps: int = 2000) -> Chain:
    """Ensemble sampler of the package emcee (Foreman-Mackey et al. 2013), with its default moves.

    Raises
    ------
    InputError
        If the package is not installed.
    """
    try:
        import emcee as package
    except ImportError:
        raise InputError(
            "the sampler 'emcee' needs the package emcee: install it with `pip install 'dl3flow[sampling]'`, or take the sampler 'stretch'"
        ) from None
    n_walkers, n_free = start.shape
    sampler = package.EnsembleSampler(n_walkers, n_free, log_posterior)
    state = np.random.RandomState(seed).get_state()  # noqa: NPY002  what the package takes
    sampler.run_mcmc(package.State(start, random_state=state), n_steps, skip_initial_state_check=True)
    return Chain(sampler.get_chain(), sampler.get_log_prob(), float(np.mean(sampler.acceptance_fraction)))


def sample(
    datasets: Sequence[FitData],
    result: FitResult,
    sampler: Mapping[str, Any] | str = "stretch",
    n_walkers: int | None = None,
    n_burn: int | None = None,
    seed: int = 0,
) -> Samples:
    """Draw points from the posterior of a fit's free parameters.

    Parameters
    ----------
    datasets : sequence of Dataset or FluxPointsData
        Those of the fit.
    result : FitResult
        Walkers start from draws of its covariance.
    sampler : str or mapping
        Name, or ``name`` with options such as ``n_steps``.
    n_walkers : int or None
        Even; None is four per parameter, at least 32.
    n_burn : int or None
        First steps of each walker that are left out; None is a quarter of them.
    seed : int
        Of the start and of the steps: the same seed gives the same samples.

    Returns
    -------
    samples : Samples
        A chain shorter than 50 of its correlation times says so in ``meta["warnings"]``.

    Raises
    ------
    InputError
        If no parameter is free, the fit has no covariance, or an option is wrong.
    """
    entry = {"name": sampler} if isinstance(sampler, str) else dict(sampler)
    run, options = SAMPLERS.bind(entry, "sampler")
    n_free = len(result.free)
    if not n_free:
        raise InputError("the fit has no free parameter, so there is no posterior to sample")
    if not np.all(np.diag(result.covariance) > 0):
        raise InputError(
            "a parameter of the fit has no error, so walkers have no place to start: free or freeze it in a fit before sampling"
        )
    walkers = max(_WALKERS_PER_PARAMETER * n_free, _FEWEST_WALKERS) if n_walkers is None else n_walkers
    if walkers % 2 or walkers < 2 * n_free:
        raise InputError(
            f"{walkers} walkers for {n_free} parameters: take an even number of at least {2 * n_free}"
        )
    log_posterior = build_log_posterior(datasets, result)
    chain = run(log_posterior, _start(result, log_posterior, walkers, seed), seed, **options)
    n_steps = len(chain.values)
    burn = n_steps // 4 if n_burn is None else n_burn
    if not 0 <= burn < n_steps:
        raise InputError(f"{burn} of {n_steps} steps cannot be left out: lower `n_burn`")
    kept = chain.values[burn:]
    times = np.array([autocorrelation_time(kept[:, :, k]) for k in range(n_free)])
    told = []
    if not np.all(times * _LONG_ENOUGH <= len(kept)):
        slowest = result.free[int(np.argmax(np.nan_to_num(times, nan=np.inf)))]
        told.append(
            f"{len(kept)} steps are only {len(kept) / np.nanmax(times):.0f} correlation times of {slowest}: with at least "
            f"{int(np.ceil(_LONG_ENOUGH * np.nanmax(times)))} steps the samples are independent enough"
        )
    if n_free > _MANY_PARAMETERS:
        told.append(
            f"{n_free} parameters are many for an ensemble of walkers: stack or group the datasets first"
        )
    meta = {"sampler": run.name, "options": dict(options), "seed": seed, "n_burn": burn, "warnings": told}
    return Samples(
        result.free,
        kept.reshape(-1, n_free),
        chain.log_posterior[burn:].ravel(),
        walkers,
        chain.acceptance,
        times,
        meta,
    )


def build_log_posterior(datasets: Sequence[FitData], result: FitResult) -> LogPosterior:
    """Logarithm of the posterior, above that of the best fit, as a function of the free vector; -inf outside limits."""
    likelihood = build_likelihood(datasets, result.models)
    order = [result.free.index(name) for name in likelihood.names]
    low, high = _limits(result.models, result.free)
    best = likelihood.stat(likelihood.start)

    def log_posterior(x: np.ndarray) -> float:
        if not np.all((x >= low) & (x <= high)):
            return -np.inf
        value = -0.5 * (likelihood.stat(x[order]) - best)
        return float(value) if np.isfinite(value) else -np.inf

    return log_posterior


def autocorrelation_time(values: np.ndarray) -> float:
    """Integrated autocorrelation time of one parameter, in steps, from the mean correlation of all walkers.

    Summed up to a window of five times itself (Sokal 1997, section 3); NaN where nothing moves.

    Parameters
    ----------
    values : array, shape (n_steps, n_walkers)
    """
    n = len(values)
    centred = values - values.mean(axis=0)
    # zeros behind keep the end of a chain from meeting its start
    spectrum = np.fft.rfft(centred, 2 * n, axis=0)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:n].mean(axis=1)
    if not correlation[0] > 0:
        return float("nan")
    times = 2 * np.cumsum(correlation / correlation[0]) - 1
    within = np.arange(n) >= _WINDOW * times
    return float(times[int(np.argmax(within)) if within.any() else n - 1])


def _start(result: FitResult, log_posterior: LogPosterior, n_walkers: int, seed: int) -> np.ndarray:
    """Draws from the covariance that the posterior allows."""
    drawn = draw(result, 20 * n_walkers, seed)
    allowed: list[np.ndarray] = []
    for x in drawn:
        if np.isfinite(log_posterior(x)):
            allowed.append(x)
        if len(allowed) == n_walkers:
            return np.array(allowed)
    raise InputError(
        f"only {len(allowed)} of {len(drawn)} draws from the covariance lie where the posterior is above zero: check the priors and limits"
    )


def _limits(models: Models, free: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    parameters, sizes = models.parameters(), size_names(models)
    pairs = np.array([_limits_of(parameters[name], name in sizes) for name in free])
    return pairs[:, 0], pairs[:, 1]


def _limits_of(parameter: Parameter, is_size: bool) -> tuple[float, float]:
    low, high = np.fmax(parameter.min, -np.inf), np.fmin(parameter.max, np.inf)
    if is_size:
        low = max(low, 0.0)
    if parameter.prior is not None:
        limits = PRIORS.find(parameter.prior.kind, f"prior of '{parameter.name}'").companions.get("limits")
        if limits is not None:
            ends = limits(**parameter.prior.values)
            low, high = max(low, ends[0]), min(high, ends[1])
    return float(low), float(high)
