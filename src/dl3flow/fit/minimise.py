"""Fit: the best-fit models of a joint likelihood with their errors, and all that is doubtful about them in words."""

from collections.abc import Sequence
from dataclasses import replace

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, ExpectedCounts, FitData
from dl3flow.data.products import FitResult
from dl3flow.fit.bounds import fit_limits
from dl3flow.fit.covariance import fit_covariance, unconstrained
from dl3flow.fit.engine import evaluate
from dl3flow.fit.likelihood import moved
from dl3flow.fit.minimum import (
    FitInput,
    Minimum,
    converge,
    find_minimum,
    too_small,
    with_frozen_shapes,
)
from dl3flow.fit.newton import EDM_GOAL
from dl3flow.fit.npred import background_of, source_position
from dl3flow.fit.outline import Outline, outlines_of
from dl3flow.fit.problem import prior_stat
from dl3flow.fit.reach import constrained
from dl3flow.fit.settings import FitSettings
from dl3flow.fit.summary import dataset_stats
from dl3flow.models.source import BackgroundModel, Component, Models, Parameter

# an estimated distance above this (in units of the statistic) is no minimum
_DOUBTFUL_EDM = 1e-3
_FAR = 0.1 * u.deg


def add_backgrounds(datasets: Sequence[FitData], models: Models, free: Sequence[str]) -> Models:
    """Models with a FoV background ``<dataset>-bkg`` for every dataset that has none; ``free`` names what varies.

    A dataset with measured off counts needs none.
    """
    added = []
    for dataset in datasets:
        if (
            isinstance(dataset, Dataset)
            and isinstance(dataset.background, ExpectedCounts)
            and background_of(dataset, models) is None
        ):
            parameters = (
                Parameter("norm", 1.0, frozen="norm" not in free, min=0.0),
                Parameter("tilt", 0.0, frozen="tilt" not in free),
                Parameter("reference", 1.0, u.TeV, frozen=True),
            )
            added.append(
                BackgroundModel(
                    f"{dataset.name}-bkg", Component("power_law_norm", parameters), (dataset.name,)
                )
            )
    return replace(models, backgrounds=(*models.backgrounds, *added))


def fit(datasets: Sequence[FitData], models: Models, settings: FitSettings | None = None) -> FitResult:
    """Maximum-likelihood fit of ``models`` to all ``datasets`` jointly.

    Newton's method on the exact first and second derivatives, with what belongs to one dataset alone (its background,
    its systematic errors) eliminated, so that the cost is linear in the number of datasets. The responses of a source are
    those at its declared position: where the best fit lies on another response pixel, the fit is repeated there. Errors
    are those of the exact second derivatives.

    Parameters
    ----------
    datasets : sequence of Dataset
        May read each one when it is asked for: it is used at the beginning, whenever terms are built, and at the end.
    models : Models
    settings : FitSettings, optional

    Returns
    -------
    result : FitResult
        ``success`` is False, and ``message`` says why, where the minimum is doubtful. ``minimiser["ts"]`` holds the test
        statistic of each source (`source_ts`).

    Raises
    ------
    InputError
        If a source is seen by no dataset, or a start value lies outside its limits.
    """
    settings = FitSettings() if settings is None else settings
    outlines = outlines_of(datasets, models)
    models, warnings = constrained(outlines, models)
    given = FitInput(datasets, outlines, fit_limits(models), settings)
    found = find_minimum(given, models)
    covariance, is_positive = fit_covariance(outlines, found)
    warnings = [*warnings, *_unresolved(outlines, found.models), *_wandered(models, found.models)]
    problem, at = found.problem, found.evaluation
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    at_limit = [
        name
        for name, x, low, high, error in zip(
            problem.names, at.x, problem.low, problem.high, errors, strict=True
        )
        if min(x - low, high - x) <= max(1e-3 * error, 1e-9 * abs(x))
    ]
    best = moved(found.models, at.x, errors)
    warnings += [
        f"{n} ends at a limit ({best.parameters()[n].value:g}): its error is not meaningful" for n in at_limit
    ]
    if not problem.names:
        warnings.append("no parameter is free: the statistic is that of the start values")
    reasons = _doubts(found, is_positive)
    if all(o.energy_range is None and not o.is_points for o in outlines):
        reasons.insert(
            0, "no dataset has a bin in the fit: their safe masks, or the fit's own limits, leave none"
        )
    covariance.setflags(write=False)
    ts = {s.name: _source_ts(given, found, s.name) for s in best.sources}
    slope = float(np.max(np.abs(at.gradient * errors[problem.shared]), initial=0.0))
    return FitResult(
        success=not reasons,
        message="; ".join(reasons) or "converged",
        stat=at.stat,
        models=best,
        free=problem.names,
        covariance=covariance,
        datasets=dataset_stats(datasets, found),
        minimiser={
            "name": "newton with eliminated nuisances",
            "edm": found.edm + at.local_edm,
            "gradient": slope,
            "is_covariance_positive": is_positive,
            "n_iterations": found.n_iterations,
            "n_evaluations": found.n_evaluations,
            "at_limit": at_limit,
            "warnings": warnings,
            "ts": ts,
        },
    )


def _doubts(found: Minimum, is_positive: bool) -> list[str]:
    """Why the end of a search may be no minimum."""
    reasons = []
    if not np.isfinite(found.stat):
        reasons.append("the statistic is not finite")
    elif not found.edm + found.evaluation.local_edm < _DOUBTFUL_EDM:
        edm = found.edm + found.evaluation.local_edm
        reasons.append(f"the minimum was not reached (estimated distance {edm:.2g}, goal {EDM_GOAL:.2g})")
    if found.evaluation.n_negative:
        reasons.append(
            f"a negative flux or factor leaves no expectation in {found.evaluation.n_negative} bins with counts: give the strength of "
            "that source or background `min: 0`, or start nearer to the data"
        )
    if not is_positive:
        names = ", ".join(unconstrained(found)) or "a parameter"
        reasons.append(f"the covariance is not positive: {names} may not be constrained by the data")
    return reasons


def _unresolved(outlines: Sequence[Outline], models: Models) -> list[str]:
    return [
        f"{name} = {p.value:.2g} {p.unit} is below a third of a pixel, where the data hardly tell it from a point: "
        "its error is not meaningful"
        for name, p in too_small(outlines, models).items()
    ]


def _wandered(declared: Models, found: Models) -> list[str]:
    """A sentence for each source that ended far from where it was declared."""
    told = []
    for before, after in zip(declared.sources, found.sources, strict=True):
        if before.spatial is None:
            continue
        here, there = source_position(before), source_position(after)
        if here is None or there is None:
            continue
        distance = here.separation(there).to_value(u.deg)
        if distance > _FAR.to_value(u.deg):
            told.append(
                f"{after.name} was found {distance:.2f} deg from its declared position: check that it is the source that was meant"
            )
    return told


def source_ts(
    datasets: Sequence[FitData], result: FitResult, source: str, settings: FitSettings | None = None
) -> float:
    """Test statistic of a source: stat of the best fit without it, less stat with it.

    The other sources keep their positions and shapes: one that is free to walk would take the place of the missing one.
    """
    settings = FitSettings() if settings is None else settings
    given = FitInput(datasets, outlines_of(datasets, result.models), fit_limits(result.models), settings)
    return _null_stat(given, result.models, source) - (result.stat - prior_stat(result.models, source))


def _null_stat(given: FitInput, models: Models, source: str) -> float:
    without = replace(models, sources=tuple(s for s in models.sources if s.name != source))
    null = with_frozen_shapes(without)
    return converge(replace(given, limits=fit_limits(null)), null).stat


def _source_ts(given: FitInput, found: Minimum, source: str) -> float:
    """As `source_ts`, from the terms that are there already where nothing shared is left to fit."""
    problem = found.problem
    own = np.array([problem.names[k].split(".", 1)[0] == source for k in problem.shared], dtype=bool)
    linked = any(p.link for p in found.models.parameters().values())
    if own.all() and not linked:
        return evaluate(problem, found.evaluation.x, without=source, order=1).stat - found.stat
    return _null_stat(given, found.models, source) - (found.stat - prior_stat(found.models, source))
