"""A finished fit made ready for searches around its best: what MINOS errors, profiles and contours start from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dl3flow.data.dataset import FitData
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError, choices
from dl3flow.fit.binding import bind, free_parameters
from dl3flow.fit.bounds import fit_limits, step_limits, strength_names
from dl3flow.fit.engine import Evaluation, evaluate
from dl3flow.fit.likelihood import moved
from dl3flow.fit.newton import StepLimits, descend, fixed_at
from dl3flow.fit.problem import Problem, build_problem, holds_all, is_fine
from dl3flow.fit.settings import FitSettings
from dl3flow.models.source import Models

_MOST_ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Finished:
    """A fit at its best.

    Attributes
    ----------
    datasets : sequence
    models : Models
        At the best fit.
    settings : FitSettings
    problem : Problem
        Whose windows lie around the best fit.
    best : Evaluation
        There.
    covariance : array, shape (n_free, n_free)
    points : int array
        Entries that are positions of points: the statistic has kinks at pixel centres along them.
    """

    datasets: Sequence[FitData]
    models: Models
    settings: FitSettings
    problem: Problem
    best: Evaluation
    covariance: np.ndarray
    points: np.ndarray

    @classmethod
    def of(
        cls,
        datasets: Sequence[FitData],
        result: FitResult,
        names: Sequence[str],
        settings: FitSettings | None,
    ) -> "Finished":
        """The fit, if it has the named parameters.

        Raises
        ------
        InputError
            If one is not free.
        """
        settings, models = FitSettings() if settings is None else settings, result.models
        for name in names:
            if name not in result.free:
                raise InputError(f"'{name}' is no free parameter of the fit: {choices(name, result.free)}")
        problem = build_problem(datasets, models, models, fit_limits(models), settings)
        points = _point_slots(problem, models)
        if len(points):
            # derivatives across kinks lead away from the best
            best = evaluate(problem, problem.start, is_smooth=True)
        else:
            best = descend(problem, problem.start, step_limits(problem, models)).evaluation
        return cls(datasets, models, settings, problem, best, result.covariance, points)

    def slot(self, name: str) -> int:
        """Entry of the free vector that a parameter is."""
        return self.problem.names.index(name)

    def error(self, slot: int) -> float:
        """Error of an entry; at a limit, where there is none, what the statistic's own curvature says."""
        if self.covariance[slot, slot] > 0:
            return float(np.sqrt(self.covariance[slot, slot]))
        curved = self.opened_best(np.array([slot]))
        at = int(np.searchsorted(np.union1d(self.problem.shared, [slot]), slot))
        return float(np.sqrt(2 / max(curved.fisher[at, at], 1e-300)))

    def opened(self, slots: np.ndarray, x: np.ndarray, problem: Problem | None = None) -> Problem:
        """A problem with some entries shared, so that they can be held, whose templates suit ``x``; the given one if it does."""
        problem = self.problem if problem is None else problem
        if not (holds_all(problem, self.models, x) and is_fine(problem, self.models, x)):
            there = moved(self.models, x)
            limits = (self.problem.low, self.problem.high)
            problem = build_problem(self.datasets, there, self.models, limits, self.settings)
        if np.isin(slots, problem.shared).all():
            return problem
        terms = tuple(replace(t, local=np.setdiff1d(t.local, slots)) for t in problem.terms)
        return replace(problem, terms=terms, shared=np.union1d(problem.shared, slots))

    def opened_best(self, slots: np.ndarray) -> Evaluation:
        """The best with some entries shared."""
        if np.isin(slots, self.problem.shared).all():
            return self.best
        return evaluate(self.opened(slots, self.best.x), self.best.x, is_smooth=bool(len(self.points)))

    def steps(self, problem: Problem) -> StepLimits:
        """How far one step may go."""
        return step_limits(problem, self.models)

    def minimum_at(self, x: np.ndarray, slots: np.ndarray) -> Evaluation:
        """Minimum with some entries held at their values in ``x``."""
        names, problem = tuple(self.problem.names[k] for k in slots), None
        for _ in range(_MOST_ROUNDS):
            problem = self.opened(slots, x, problem)
            held = fixed_at(problem, x, names)
            found = descend(held, np.clip(x, held.low, held.high), self.steps(problem))
            x = found.evaluation.x
            if not found.has_outgrown:
                break
        return self._or_without_source(held, found.evaluation)

    def _or_without_source(self, held: Problem, found: Evaluation) -> Evaluation:
        """A minimum, or a lower one with the sources gone of which something is held.

        Far from the best a shape may ask for a strength so small that no descent arrives there.
        """
        names = [held.names[k] for k in np.flatnonzero(held.low == held.high)]
        own = {name.split(".", 1)[0] for name in names}
        strengths = [n for n in strength_names(self.models, held.names) if n.split(".", 1)[0] in own]
        slots = [held.names.index(n) for n in strengths if n not in names]
        if not slots:
            return found
        x = found.x.copy()
        x[slots] = np.clip(0.0, held.low[slots], held.high[slots])
        gone = evaluate(held, x, order=0)
        if not gone.stat < found.stat:
            return found
        lower = descend(held, x, self.steps(held)).evaluation
        return min((found, gone, lower), key=lambda at: at.stat if np.isfinite(at.stat) else np.inf)


def _point_slots(problem: Problem, models: Models) -> np.ndarray:
    """Entries of the free vector that are positions of points on maps."""
    _, position = free_parameters(models)
    seen = {spec.source for spec in problem.templates}
    bound = [bind(s, "spatial", position) for s in models.sources if s.name in seen]
    slots = [b.slots[b.is_free] for b in bound if b.plugin.companions.get("is_point")]
    return np.unique(np.concatenate(slots)) if slots else np.zeros(0, dtype=int)
