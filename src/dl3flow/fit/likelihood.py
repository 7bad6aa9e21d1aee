"""The statistic of datasets under models: a pure function of the free vector, with its gradient.

Cash (1979) in gammapy's convention, 2 sum(mu - n ln mu) with mu cut at 1e-25, and wstat with its saturated terms, so that
totals compare; chi2 (or the stored profiles) for flux points; and -2 ln of the priors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dl3flow.data.dataset import FitData
from dl3flow.fit.binding import free_parameters
from dl3flow.fit.engine import Evaluation, evaluate
from dl3flow.fit.problem import Problem, build_problem, holds_all
from dl3flow.models.source import Models


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Statistic of several datasets as a function of one free vector.

    Attributes
    ----------
    names : tuple of str
        Full names of the free parameters.
    start : array, shape (n_free,)
        In the parameters' own units.
    datasets : sequence
    models : Models
        Responses are those at their positions, whatever the free vector.
    problem : Problem
    """

    names: tuple[str, ...]
    start: np.ndarray
    datasets: Sequence[FitData]
    models: Models
    problem: Problem

    def stat(self, x: np.ndarray) -> float:
        """Sum of the statistic at ``x``."""
        return self._at(x).stat

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Derivatives of `stat` by the free vector."""
        return self._at(x).gradient

    def _at(self, x: np.ndarray) -> Evaluation:
        problem = self.problem
        if not holds_all(problem, self.models, x):
            # a template that left its window gets one where it is
            problem = _open(build_problem(self.datasets, moved(self.models, x), self.models))
        return evaluate(problem, np.asarray(x, dtype=float), order=1)


def build_likelihood(datasets: Sequence[FitData], models: Models) -> Likelihood:
    """Joint likelihood of ``datasets``: the sum of theirs, with parameters shared by name.

    Raises
    ------
    InputError
        If a dataset has no background, or data that cannot be.
    """
    problem = _open(build_problem(datasets, models, models))
    return Likelihood(problem.names, problem.start, datasets, models, problem)


def _open(problem: Problem) -> Problem:
    """The same likelihood with nothing set to its best beforehand."""
    none = np.zeros(0, dtype=int)
    terms = tuple(replace(term, local=none) for term in problem.terms)
    return replace(problem, terms=terms, shared=np.arange(len(problem.names)))


def moved(models: Models, x: np.ndarray, errors: np.ndarray | None = None) -> Models:
    """Models at a free vector; linked parameters follow the first of them."""
    _, position = free_parameters(models)
    parameters = models.parameters()
    return models.with_parameters(
        {
            name: replace(
                parameters[name],
                value=float(x[k]),
                error=parameters[name].error if errors is None else float(errors[k]),
            )
            for name, k in position.items()
        }
    )
