"""A line through a fit's best along which some entries are held, and the statistic's quadratic form around a place on it."""

from dataclasses import dataclass

import numpy as np

from dl3flow.fit.engine import Evaluation
from dl3flow.fit.finished import Finished
from dl3flow.fit.newton import StepLimits, scaled_eigenvalues
from dl3flow.fit.problem import Problem
from dl3flow.fit.quadratic import bounded_step, solve

_SMALLEST_RATIO = 1e-3


@dataclass(frozen=True, eq=False)
class Line:
    """Entries held along a straight line from the best fit.

    Attributes
    ----------
    slots : int array, shape (n_held,)
        Entries, in increasing order.
    direction : array, shape (n_held,)
        Of these, for t = 1: about one error.
    """

    slots: np.ndarray
    direction: np.ndarray

    def farthest(self, finished: Finished) -> float:
        """Where a limit of the held entries is met."""
        problem, at = finished.problem, finished.best.x[self.slots]
        wall = np.where(self.direction > 0, problem.high[self.slots], problem.low[self.slots])
        moves = self.direction != 0
        return float(np.min((wall[moves] - at[moves]) / self.direction[moves], initial=np.inf))

    def follow(self, finished: Finished) -> np.ndarray:
        """Change of all entries with t that the covariance expects, (n_free,)."""
        change = np.zeros(len(finished.best.x))
        block = finished.covariance[np.ix_(self.slots, self.slots)]
        if np.all(np.diag(block) > 0):
            change = finished.covariance[:, self.slots] @ solve(block, self.direction)
        change[self.slots] = self.direction
        return change


@dataclass(frozen=True, eq=False)
class Foot:
    """A place on a line.

    Attributes
    ----------
    t : float
    x : array, shape (n_free,)
        With all other entries at their best.
    problem : Problem
        Whose templates suit ``x``.
    curved : Evaluation
        Nearby, with second derivatives.
    is_limit : bool
        True if a limit of the held entries is met before the height.
    """

    t: float
    x: np.ndarray
    problem: Problem
    curved: Evaluation
    is_limit: bool = False


def start_of(finished: Finished, line: Line, t: float) -> Foot:
    """Where the covariance expects the statistic's minimum at ``t``."""
    x = finished.best.x + t * line.follow(finished)
    problem = finished.opened(line.slots, finished.best.x)
    return Foot(t, x, problem, finished.opened_best(line.slots))


@dataclass(frozen=True, eq=False)
class Form:
    """Quadratic form of the statistic at a place on a line, over the shared entries.

    With gradient g and second derivatives H, f for the free entries and t for the line, the minimum over f is
    -edm + slope dt + bend dt^2 / 2 above the place, where

        edm = g_f H_ff^-1 g_f / 2,  slope = g_t - H_tf H_ff^-1 g_f,  bend = H_tt - H_tf H_ff^-1 H_ft.

    ``edm`` is what the free entries gain by their best, ``slope`` and ``bend`` are the derivatives along the line with them
    at their best; a step of the free entries lies between ``low`` and ``high``.
    """

    gradient: np.ndarray
    curved: np.ndarray
    along: np.ndarray
    free: np.ndarray
    low: np.ndarray
    high: np.ndarray
    edm: float
    slope: float
    bend: float

    def change(self, dt: float) -> np.ndarray:
        """Change of the shared entries with a step along the line, the free ones following."""
        change, free = dt * self.along, self.free
        slope = (self.gradient + self.curved @ change)[free]
        change[free] = bounded_step(slope, self.curved[np.ix_(free, free)], self.low, self.high)
        return change


def reduce_to_line(
    finished: Finished, problem: Problem, at: Evaluation, line: Line, kept: np.ndarray | None = None
) -> Form:
    """The form at an evaluation; entries that are ``kept`` do not follow, and their derivatives are exact."""
    shared = problem.shared
    held = np.searchsorted(shared, line.slots)
    along = np.zeros(len(shared))
    along[held] = line.direction
    gradient = at.gradient if kept is not None else _without_kinks(finished, problem, at)
    if kept is not None:
        held = np.union1d(held, np.searchsorted(shared, kept))
    x, low, high = at.x[shared], problem.low[shared], problem.high[shared]
    pushed = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
    free = np.setdiff1d(np.flatnonzero(~pushed), held)
    curved = _positive(at, free)
    mixed = (curved @ along)[free]
    back = solve(curved[np.ix_(free, free)], np.column_stack([gradient[free], mixed]))
    # far from a minimum numbers may overflow: what follows is no number then, and not believed
    with np.errstate(all="ignore"):
        edm = 0.5 * float(gradient[free] @ back[:, 0])
        slope = float(gradient @ along - mixed @ back[:, 0])
        bend = float(along @ curved @ along - mixed @ back[:, 1])
    down, up = _room(problem, at, finished.steps(problem))
    return Form(gradient, curved, along, free, -down[free], up[free], edm, slope, bend)


def _positive(at: Evaluation, free: np.ndarray) -> np.ndarray:
    """Second derivatives that are positive over the free entries: all of them, or those from first derivatives alone."""
    values = scaled_eigenvalues(at.hessian[np.ix_(free, free)], at.fisher[np.ix_(free, free)])
    if not len(values) or values[0] > _SMALLEST_RATIO:
        return at.hessian
    return np.asarray(at.fisher + 1e-9 * np.diag(np.maximum(np.diag(at.fisher), 1e-300)))


def _without_kinks(finished: Finished, problem: Problem, at: Evaluation) -> np.ndarray:
    """Gradient by the shared entries, less what derivatives over a pixel leave of a point's at the best fit itself."""
    gradient = at.gradient.copy()
    if len(finished.points):
        best = np.searchsorted(finished.problem.shared, finished.points)
        gradient[np.searchsorted(problem.shared, finished.points)] -= finished.best.gradient[best]
    return gradient


def _room(problem: Problem, at: Evaluation, limits: StepLimits) -> tuple[np.ndarray, np.ndarray]:
    """How far one step may take the shared entries down and up."""
    slots, error = problem.shared, np.zeros(len(at.x))
    error[slots] = np.sqrt(2 / np.maximum(np.diag(at.fisher), 1e-300))
    x = at.x[slots]
    down = np.minimum(x - problem.low[slots], limits.down(at.x, error)[slots])
    up = np.minimum(problem.high[slots] - x, limits.up(at.x, error)[slots])
    return np.maximum(down, 0.0), np.maximum(up, 0.0)
