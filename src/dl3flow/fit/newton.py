"""Newton's method with safeguards on a profiled likelihood: Fisher scoring far from a minimum, all second derivatives near it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dl3flow.fit.engine import Evaluation, evaluate
from dl3flow.fit.problem import Problem
from dl3flow.fit.quadratic import bounded_step

# where a search ends, and from where on its last step is taken without new second derivatives (in units of the statistic)
EDM_GOAL = 1e-8
_LAST_EDM = 1e-4
_COARSE_EDM = 0.1
# below this a step is taken without a look at the statistic, whose last digits are rounding there
_TRUSTED_EDM = 1e-3
_MOST_ITERATIONS = 60
# so many steps in a row that gain less end a search: kinks stop it, or it has arrived
_MOST_STALLED, _LEAST_GAIN = 5, 1e-5
# smallest eigenvalue, relative to first derivatives alone, at which all second derivatives are used
_SMALLEST_RATIO = 1e-3
_ROUNDING = 1e-12
_STRENGTH_STEPS = 3
# a strength that changes by less than this share is left to the steps of all parameters
_NEAR_STRENGTH = 0.5


@dataclass(frozen=True, eq=False)
class StepLimits:
    """How far one step may go, as functions of the free vector and of one error of each entry.

    Attributes
    ----------
    down, up : function (x, error) -> array, shape (n_free,)
        Positive.
    holds : function (x) -> bool
        False where the templates of a problem do not reach.
    is_fine : function (x) -> bool
        False where they are drawn on too few points.
    """

    down: Callable[[np.ndarray, np.ndarray], np.ndarray]
    up: Callable[[np.ndarray, np.ndarray], np.ndarray]
    holds: Callable[[np.ndarray], bool]
    is_fine: Callable[[np.ndarray], bool]


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a search ended.

    Attributes
    ----------
    evaluation : Evaluation
    edm : float
        What another step would gain.
    n_iterations : int
        Evaluations of all derivatives.
    has_outgrown : bool
        True if the templates need other windows before the search can go on.
    """

    evaluation: Evaluation
    edm: float
    n_iterations: int
    has_outgrown: bool


def descend(problem: Problem, x: np.ndarray, limits: StepLimits, *, is_smooth: bool = False) -> Descent:
    """Search for the minimum of the profiled statistic from ``x``.

    The full second derivatives are used where they are positive, first derivatives alone elsewhere; a step that does not
    lower the statistic is damped (Levenberg 1944, Marquardt 1963).
    """
    at = evaluate(problem, x, is_smooth=is_smooth)
    damping, n, stalled = 0.0, 1, 0
    if not is_finite(at):
        return Descent(at, np.inf, n, False)
    while True:
        step, edm, is_exact = _step(problem, at, limits, damping)
        if edm < EDM_GOAL or n >= _MOST_ITERATIONS or stalled >= _MOST_STALLED:
            return Descent(at, edm, n, False)
        if edm < _COARSE_EDM and not limits.is_fine(at.x):
            # near enough to draw the templates anew: the last steps are for those
            return Descent(at, edm, n, True)
        trial, is_short = _within(problem, at.x, step, limits)
        if problem.templates and edm < _LAST_EDM and is_exact and not is_smooth:
            last = evaluate(problem, trial, order=1)
            # second derivatives hardly change over a hundredth of an error
            last = replace(last, hessian=at.hessian, fisher=at.fisher, blocks=at.blocks)
            _, left, _ = _step(problem, last, limits, 0.0)
            if left < _LAST_EDM**1.5:
                return Descent(last, left, n, False)
        there = evaluate(problem, trial, is_smooth=is_smooth)
        n += 1
        stalled = stalled + 1 if edm > _LAST_EDM and there.stat > at.stat - _LEAST_GAIN else 0
        is_lower = is_finite(there) and there.stat <= at.stat + _ROUNDING * abs(at.stat)
        is_near = is_exact and damping == 0 and edm < _TRUSTED_EDM and not is_smooth and is_finite(there)
        if is_lower or is_near:
            at, damping = there, damping / 10 if damping > 1e-2 else 0.0
            if is_short:
                return Descent(at, edm, n, True)
        else:
            damping = max(10 * damping, 0.3)


def is_finite(at: Evaluation) -> bool:
    """True if the statistic and its derivatives are numbers."""
    return bool(np.isfinite(at.stat) and np.isfinite(at.gradient).all() and np.isfinite(at.hessian).all())


def scale_strengths(
    problem: Problem, x: np.ndarray, names: tuple[str, ...], limits: StepLimits
) -> np.ndarray:
    """``x`` with the named entries, in which the flux is linear, brought near their best by Fisher scoring.

    Each step needs first derivatives only, and all others arrive sooner from a strength that suits the data.
    """
    chosen = np.isin(problem.shared, [problem.names.index(name) for name in names])
    if not chosen.any():
        return x
    at = evaluate(problem, x, order=0)
    if not is_finite(at):
        return x
    for _ in range(_STRENGTH_STEPS):
        slots = problem.shared[chosen]
        error = np.zeros(len(x))
        error[slots] = np.sqrt(2 / np.maximum(np.diag(at.fisher)[chosen], 1e-300))
        low = np.maximum(problem.low[slots] - at.x[slots], -limits.down(at.x, error)[slots])
        high = np.minimum(problem.high[slots] - at.x[slots], 2 * limits.up(at.x, error)[slots])
        step = bounded_step(at.gradient[chosen], _ridged(at.fisher[np.ix_(chosen, chosen)]), low, high)
        trial = at.x.copy()
        trial[slots] += step
        if np.all(np.abs(step) < np.maximum(error[slots], _NEAR_STRENGTH * np.abs(at.x[slots]))):
            return trial
        there = evaluate(problem, trial, order=0)
        if not (is_finite(there) and there.stat <= at.stat):
            return at.x
        at = there
    return at.x


def _ridged(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix + 1e-9 * np.diag(np.maximum(np.diag(matrix), 1e-300)))


def free_curvature(problem: Problem, at: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Shared entries that are at no limit (bool), and whether the second derivatives over them are positive."""
    x, slots = at.x[problem.shared], problem.shared
    pushed_down = (x <= problem.low[slots]) & (at.gradient > 0)
    pushed_up = (x >= problem.high[slots]) & (at.gradient < 0)
    free = ~(pushed_down | pushed_up)
    return free, scaled_eigenvalues(at.hessian[np.ix_(free, free)], at.fisher[np.ix_(free, free)])


def scaled_eigenvalues(hessian: np.ndarray, fisher: np.ndarray) -> np.ndarray:
    """Eigenvalues of second derivatives in units of their positive part's diagonal, in increasing order."""
    if not (np.isfinite(hessian).all() and np.isfinite(fisher).all()):
        return np.full(len(hessian), -np.inf)
    scale = np.sqrt(np.maximum(np.diag(fisher), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    return np.asarray(np.linalg.eigvalsh(hessian / np.outer(scale, scale)))


def _step(
    problem: Problem, at: Evaluation, limits: StepLimits, damping: float
) -> tuple[np.ndarray, float, bool]:
    """Step over the shared entries, what the undamped one would gain, and whether all second derivatives made it."""
    slots = problem.shared
    if not len(slots):
        return np.zeros(0), 0.0, True
    free, values = free_curvature(problem, at)
    is_exact = bool(not len(values) or values[0] > _SMALLEST_RATIO)
    curved = at.hessian if is_exact else _positive_part(at)
    diagonal = np.maximum(np.diag(at.fisher), 1e-300)
    error = np.zeros(len(at.x))
    error[slots] = np.sqrt(2 / diagonal)
    x = at.x[slots]
    low, high = problem.low[slots] - x, problem.high[slots] - x
    wanted = bounded_step(at.gradient, curved, low, high)
    edm = float(-(at.gradient @ wanted + 0.5 * wanted @ curved @ wanted))
    down, up = limits.down(at.x, error)[slots], limits.up(at.x, error)[slots]
    low, high = np.maximum(low, -down), np.minimum(high, up)
    damped = curved + damping * np.diag(diagonal)
    return bounded_step(at.gradient, damped, low, high), edm, is_exact


def _positive_part(at: Evaluation) -> np.ndarray:
    """Second derivatives made positive: first derivatives alone, with a floor for what hardly changes the statistic."""
    diagonal = np.diag(at.fisher)
    return np.asarray(at.fisher + 1e-9 * np.diag(np.maximum(diagonal, 1e-300)))


def _within(problem: Problem, x: np.ndarray, step: np.ndarray, limits: StepLimits) -> tuple[np.ndarray, bool]:
    """Trial that the templates' windows hold, and whether the step had to be cut for it."""
    share = 1.0
    for _ in range(12):
        trial = x.copy()
        trial[problem.shared] += share * step
        trial[problem.shared] = np.clip(
            trial[problem.shared], problem.low[problem.shared], problem.high[problem.shared]
        )
        if limits.holds(trial):
            return trial, share < 1.0
        share *= 0.5
    return x.copy(), True


def fixed_at(problem: Problem, x: np.ndarray, names: tuple[str, ...]) -> Problem:
    """The same problem with some entries held at their values in ``x``."""
    low, high = problem.low.copy(), problem.high.copy()
    for name in names:
        k = problem.names.index(name)
        low[k] = high[k] = x[k]
    return replace(problem, low=low, high=high)
