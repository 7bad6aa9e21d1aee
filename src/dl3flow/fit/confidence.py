"""Confidence: MINOS errors, profiles and contours of a fit; the only door to iminuit.

Each works on the profiled statistic F(shared) = min over all that is local, less its value at the best fit: a large
constant would take the digits of differences (fit.md 2.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from iminuit import Minuit
from scipy.special import erf

from dl3flow.data.dataset import FitData
from dl3flow.data.products import Contour, FitResult, Profile
from dl3flow.errors import InputError, choices
from dl3flow.fit.bounds import fit_limits, step_limits
from dl3flow.fit.engine import Evaluation, evaluate
from dl3flow.fit.likelihood import moved
from dl3flow.fit.newton import descend, fixed_at
from dl3flow.fit.problem import Problem, build_problem, holds_all
from dl3flow.fit.settings import FitSettings
from dl3flow.models.source import Models

_PROFILE_POINTS, _PROFILE_ERRORS = 21, 3.0
_MOST_ROUNDS = 6
_MOST_SIGMA = 7


@dataclass(frozen=True, eq=False)
class _Ready:
    """A finished fit made ready for further minimisations around its best."""

    datasets: Sequence[FitData]
    models: Models
    settings: FitSettings
    opened: tuple[str, ...]
    problem: Problem
    best: Evaluation
    errors: np.ndarray

    @classmethod
    def of(
        cls,
        datasets: Sequence[FitData],
        result: FitResult,
        names: Sequence[str],
        settings: FitSettings | None,
    ) -> "_Ready":
        """The fit with the named parameters shared, so that they can be held.

        Raises
        ------
        InputError
            If one is not free.
        """
        settings, models = FitSettings() if settings is None else settings, result.models
        for name in names:
            if name not in result.free:
                raise InputError(f"'{name}' is no free parameter of the fit: {choices(name, result.free)}")
        problem = _opened(datasets, models, models, names, settings)
        best = descend(problem, problem.start, step_limits(problem, models)).evaluation
        widths = np.array([models.parameters()[n].error for n in problem.names])
        # at a limit there is no error: what the statistic's own curvature says stands for it
        curved = np.zeros(len(widths))
        curved[problem.shared] = np.sqrt(2 / np.maximum(np.diag(best.fisher), 1e-300))
        errors = np.where(widths > 0, widths, curved)
        return cls(datasets, models, settings, tuple(names), problem, best, errors)

    def at(self, x: np.ndarray) -> Problem:
        """The problem, or one whose templates' windows lie where they are at ``x``."""
        if holds_all(self.problem, self.models, x):
            return self.problem
        return _opened(self.datasets, moved(self.models, x), self.models, self.opened, self.settings)

    def minimum_at(self, x: np.ndarray, names: tuple[str, ...]) -> Evaluation:
        """Minimum with the named entries held at their values in ``x``."""
        for _ in range(_MOST_ROUNDS):
            problem = fixed_at(self.at(x), x, names)
            start = np.clip(x, problem.low, problem.high)
            found = descend(problem, start, step_limits(problem, moved(self.models, start)))
            x = found.evaluation.x
            if not found.has_outgrown:
                break
        return found.evaluation


def _opened(
    datasets: Sequence[FitData],
    models: Models,
    declared: Models,
    names: Sequence[str],
    settings: FitSettings,
) -> Problem:
    """Problem of a fit with some local entries shared, and the limits of where it began."""
    problem = build_problem(datasets, models, declared, fit_limits(declared), settings)
    slots = np.array([problem.names.index(name) for name in names], dtype=int)
    terms = tuple(replace(t, local=np.setdiff1d(t.local, slots)) for t in problem.terms)
    return replace(problem, terms=terms, shared=np.union1d(problem.shared, slots))


def minos(
    datasets: Sequence[FitData],
    result: FitResult,
    names: Sequence[str],
    settings: FitSettings | None = None,
) -> dict[str, tuple[float, float]]:
    """Distances downwards and upwards to where the profiled statistic is one above its minimum.

    MINOS (James and Roos 1975, through iminuit) with the analytic gradient.

    Parameters
    ----------
    datasets : sequence
    result : FitResult
    names : sequence of str
        Full names of free parameters.

    Returns
    -------
    errors : mapping of (minus, plus)
        Both positive; NaN where the statistic never rises by one, or a limit is met before.

    Raises
    ------
    InputError
        If a parameter is not free.
    """
    if not names:
        return {}
    ready = _Ready.of(datasets, result, names, settings)
    minuit, scale = _minuit(ready)
    found = {}
    minuit.migrad()
    for name in names:
        minuit.minos(name)
        error = minuit.merrors[name]
        is_low = error.lower_valid and not (error.at_lower_limit or error.at_lower_max_fcn)
        is_high = error.upper_valid and not (error.at_upper_limit or error.at_upper_max_fcn)
        found[name] = (
            -error.lower * scale[name] if is_low else np.nan,
            error.upper * scale[name] if is_high else np.nan,
        )
    return found


def profile(
    datasets: Sequence[FitData],
    result: FitResult,
    name: str,
    values: np.ndarray | None = None,
    settings: FitSettings | None = None,
) -> Profile:
    """Statistic along one parameter, all others at their best for each value, less the best fit's.

    Parameters
    ----------
    datasets : sequence
    result : FitResult
    name : str
    values : array, optional
        In the parameter's unit; 21 values within three errors by default.

    Raises
    ------
    InputError
        If the parameter is not free.
    """
    ready = _Ready.of(datasets, result, (name,), settings)
    slot = ready.problem.names.index(name)
    center, error = ready.best.x[slot], ready.errors[slot]
    if values is None:
        values = center + error * np.linspace(-_PROFILE_ERRORS, _PROFILE_ERRORS, _PROFILE_POINTS)
        values = values[(values >= ready.problem.low[slot]) & (values <= ready.problem.high[slot])]
    stats = np.empty(len(values))
    # outwards from the best fit, so that each starts at its neighbour's minimum
    order = np.argsort(np.abs(values - center))
    sides = {True: ready.best.x, False: ready.best.x}
    for k in order:
        x = sides[bool(values[k] > center)].copy()
        x[slot] = values[k]
        there = ready.minimum_at(x, (name,))
        sides[bool(values[k] > center)] = there.x
        stats[k] = there.stat - ready.best.stat
    return Profile(name, np.asarray(values, dtype=float), stats)


def contour(
    datasets: Sequence[FitData],
    result: FitResult,
    names: tuple[str, str],
    n_sigma: float = 1.0,
    n_points: int = 40,
    settings: FitSettings | None = None,
) -> Contour:
    """Closed line on which the profiled statistic lies a fixed height above its minimum.

    The height is the chi2 of two degrees of freedom that has the probability of ``n_sigma`` of one Gaussian variable
    (2.30 for one, 6.18 for two), found by MNCONTOUR (through iminuit).

    Raises
    ------
    InputError
        If a parameter is not free, or both are the same.
    """
    if not 0 < n_sigma <= _MOST_SIGMA:
        raise InputError(
            f"a contour of {n_sigma:g} sigma has no height in floating point: ask for one of 0 to {_MOST_SIGMA}"
        )
    if names[0] == names[1]:
        raise InputError(f"a contour needs two parameters, found '{names[0]}' twice")
    minuit, scale = _minuit(_Ready.of(datasets, result, names, settings))
    minuit.migrad()
    level = float(erf(n_sigma / np.sqrt(2)))
    points = np.asarray(minuit.mncontour(*names, cl=level, size=n_points), dtype=float)
    if len(points) < 3:
        return Contour((names[0], names[1]), n_sigma, np.zeros(0), np.zeros(0))
    return Contour(
        (names[0], names[1]), n_sigma, points[:, 0] * scale[names[0]], points[:, 1] * scale[names[1]]
    )


def _minuit(ready: _Ready) -> tuple[Minuit, dict[str, float]]:
    """Minuit on the profiled statistic over the shared entries, in units of their errors."""
    problem, best = ready.problem, ready.best
    slots = problem.shared
    names = [problem.names[k] for k in slots]
    scale = np.where(ready.errors[slots] > 0, ready.errors[slots], np.maximum(np.abs(best.x[slots]), 1.0))

    def at(point: np.ndarray) -> Evaluation:
        x = best.x.copy()
        x[slots] = np.asarray(point) * scale
        if not np.isfinite(x).all():
            # the minimiser may lose its way: it is told that there is nothing
            return replace(best, stat=np.inf, gradient=np.zeros(len(slots)))
        return evaluate(ready.at(x), x, order=1)

    function: Callable[[np.ndarray], float] = lambda point: at(point).stat - best.stat  # noqa: E731
    gradient: Callable[[np.ndarray], np.ndarray] = lambda point: at(point).gradient * scale  # noqa: E731
    minuit = Minuit(function, best.x[slots] / scale, name=names, grad=gradient)
    minuit.errordef, minuit.strategy, minuit.tol = 1.0, 0, 0.1
    for name, k, s in zip(names, slots, scale, strict=True):
        low, high = problem.low[k] / s, problem.high[k] / s
        minuit.limits[name] = (None if np.isinf(low) else low, None if np.isinf(high) else high)
        minuit.errors[name] = 1.0
    return minuit, dict(zip(names, scale, strict=True))
