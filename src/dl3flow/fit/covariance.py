"""Covariance of a joint fit: the shared entries from the reduced second derivatives, the local ones from theirs."""

from collections.abc import Sequence

import numpy as np

from dl3flow.fit.engine import Evaluation, evaluate
from dl3flow.fit.minimum import Minimum, free_points, pixel_size, position_names
from dl3flow.fit.newton import free_curvature
from dl3flow.fit.outline import Outline
from dl3flow.fit.problem import Problem
from dl3flow.fit.quadratic import solve

# of the curvature that first derivatives alone make: less is none; and of a direction, what a parameter has part in it
_FLAT, _PART = 1e-8, 0.3


def fit_covariance(outlines: Sequence[Outline], found: Minimum) -> tuple[np.ndarray, bool]:
    """Covariance of all entries of the free vector, and whether the second derivatives are positive.

    Twice the inverse of the second derivatives of the statistic; entries at a limit have none. With the block arrow of
    local entries b (second derivatives B, mixed M), cov(b) = 2 B^-1 + B^-1 M^T C M B^-1 for C = cov(shared) (fit.md 2.4).

    Returns
    -------
    covariance : array, shape (n_free, n_free)
    is_positive : bool
    """
    problem, at = found.problem, found.evaluation
    n = len(problem.names)
    covariance = np.zeros((n, n))
    free, _ = free_curvature(problem, at)
    hessian = _smooth_hessian(outlines, found)
    slots = problem.shared[free]
    curved = hessian[np.ix_(free, free)]
    is_positive = _is_positive(curved)
    shared = 2 * solve(curved, np.eye(len(slots))) if len(slots) else np.zeros((0, 0))
    covariance[np.ix_(slots, slots)] = shared
    # d(local)/d(shared) at the local minimum, for all blocks at once
    local = np.concatenate([b.slots for b in at.blocks]) if at.blocks else np.zeros(0, dtype=int)
    if len(local):
        follow = np.concatenate([-solve(b.hessian, b.mixed[free].T) for b in at.blocks])
        cross = follow @ shared
        covariance[np.ix_(local, slots)] = cross
        covariance[np.ix_(slots, local)] = cross.T
        covariance[np.ix_(local, local)] = cross @ follow.T
        for block in at.blocks:
            covariance[np.ix_(block.slots, block.slots)] += 2 * solve(block.hessian, np.eye(len(block.slots)))
            is_positive &= _is_positive(block.hessian)
    return covariance, bool(is_positive and np.isfinite(covariance).all())


def unconstrained(found: Minimum) -> list[str]:
    """Shared entries along which the statistic does not rise."""
    problem, at = found.problem, found.evaluation
    free, _ = free_curvature(problem, at)
    names = [problem.names[k] for k in problem.shared[free]]
    curved, fisher = (m[np.ix_(free, free)] for m in (at.hessian, at.fisher))
    if not names or not (np.isfinite(curved).all() and np.isfinite(fisher).all()):
        return []
    scale = np.sqrt(np.maximum(np.diag(fisher), 0.0))
    flat = [name for name, s in zip(names, scale, strict=True) if s == 0]
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(curved / np.outer(scale, scale))
    if not flat and values[0] < _FLAT:
        flat = [names[k] for k in np.flatnonzero(np.abs(vectors[:, 0]) > _PART)]
    return flat


def _is_positive(matrix: np.ndarray) -> bool:
    if not len(matrix):
        return True
    diagonal = np.diag(matrix)
    if not (np.isfinite(matrix).all() and np.all(diagonal > 0)):
        return False
    scale = np.sqrt(diagonal)
    return bool(np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0] > 1e-10)


def _smooth_hessian(outlines: Sequence[Outline], found: Minimum) -> np.ndarray:
    """Second derivatives over the shared entries; those of a point's position over a step of about one error.

    A point is shared bilinearly among pixels: its likelihood has a kink at every pixel centre, and derivatives at one
    place are wrong for the distances that matter. Positions are stepped by half a pixel first and by the error that
    follows from it then.
    """
    problem, at = found.problem, found.evaluation
    names = position_names(free_points(outlines, found.models), problem.names)
    if not names:
        return at.hessian
    parameters = found.models.parameters()
    free, _ = free_curvature(problem, at)
    free[[int(np.searchsorted(problem.shared, problem.names.index(name))) for name in names]] = True
    half = 0.5 * pixel_size(outlines)
    hessian = at.hessian.copy()
    places = {name: int(np.searchsorted(problem.shared, problem.names.index(name))) for name in names}
    steps = {name: float(half.to_value(parameters[name].unit)) for name in names}
    for _ in range(2):
        for name, k in places.items():
            column = _difference(problem, at, problem.names.index(name), steps[name])
            if column is None:
                return at.hessian
            hessian[:, k] = hessian[k] = column
        chosen = np.array(list(places.values()))
        block = hessian[np.ix_(chosen, chosen)]
        hessian[np.ix_(chosen, chosen)] = 0.5 * (block + block.T)
        curved = hessian[np.ix_(free, free)]
        if not _is_positive(curved):
            return at.hessian if _is_positive(at.hessian[np.ix_(free, free)]) else at.fisher
        errors = np.zeros(len(hessian))
        errors[free] = np.sqrt(np.diag(2 * solve(curved, np.eye(len(curved)))))
        steps = {name: float(errors[k]) for name, k in places.items()}
    return hessian


def _difference(problem: Problem, at: Evaluation, slot: int, step: float) -> np.ndarray | None:
    """Central difference of the profiled gradient, as far as the limits let it; None where they leave no room."""
    room = min(step, problem.high[slot] - at.x[slot], at.x[slot] - problem.low[slot])
    if room <= 0.1 * step:
        return None
    sides = []
    for sign in (1, -1):
        x = at.x.copy()
        x[slot] += sign * room
        sides.append(evaluate(problem, x, order=1).gradient)
    return np.asarray((sides[0] - sides[1]) / (2 * room))
