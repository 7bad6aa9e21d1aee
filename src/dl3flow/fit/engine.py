"""The joint likelihood with its first and second derivatives, what belongs to one dataset alone eliminated.

Entries of the free vector that only one term depends on (norm and tilt of its background, its systematic errors) are
`local`: they are set to their best for any choice of the `shared` ones, by Newton steps that need no convolution, and
their part of the second derivatives is taken out by its Schur complement (block arrow; fit.md 2.4). So the cost of an
evaluation grows linearly with the number of datasets, and the number of evaluations does not grow with it.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy

from dl3flow.fit.flux import Varied
from dl3flow.fit.problem import Problem, flux_specs
from dl3flow.fit.quadratic import bounded_step, solve
from dl3flow.fit.terms import (
    Arrays,
    CountsTerm,
    FluxSpec,
    Measured,
    PointsTerm,
    Shaped,
    TemplateSpec,
    Transforms,
    backward_map,
    measure,
    measure_points,
    shape_reach,
)

_MOST_LOCAL_STEPS, _MOST_DAMPING = 100, 1e12
_LOCAL_EDM = 1e-10


@dataclass(frozen=True, eq=False)
class Block:
    """What is local to one term: its slots, their second derivatives, and those mixed with the shared ones; (n), (n, n), (n_shared, n)."""

    slots: np.ndarray
    hessian: np.ndarray
    mixed: np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The statistic at its best in all that is local, and its derivatives by the shared entries.

    Attributes
    ----------
    x : array, shape (n_free,)
        With local entries at their best.
    stat : float
    stats : array, shape (n_terms,)
    gradient : array, shape (n_shared,)
    hessian, fisher : array, shape (n_shared, n_shared)
        Of the profiled statistic, exact and from first derivatives alone.
    blocks : tuple of Block
    n_negative : int
        Bins with counts where a negative flux leaves no expectation.
    local_edm : float
        What further steps of the local entries would gain.
    """

    x: np.ndarray
    stat: float
    stats: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray
    fisher: np.ndarray
    blocks: tuple[Block, ...]
    n_negative: int
    local_edm: float


def evaluate(
    problem: Problem,
    x: np.ndarray,
    *,
    is_smooth: bool = False,
    without: str = "",
    order: Literal[0, 1, 2] = 2,
) -> Evaluation:
    """Profiled statistic and its derivatives at ``x``; pure: local entries of ``x`` are only where the search for them starts.

    Parameters
    ----------
    problem : Problem
    x : array, shape (n_free,)
    is_smooth : bool
        Take derivatives of points over a pixel.
    without : str
        Name of a source that is left out.
    order : 0, 1 or 2
        1 leaves out the second derivatives by what shapes templates, which most of the time goes to; 0 the first ones too.
    """
    n_shared = len(problem.shared)
    place = np.full(len(x), -1)
    place[problem.shared] = np.arange(n_shared)
    everywhere = {
        spec: function(x, is_smooth, order)
        for spec, function in problem.templates.items()
        if spec.source != without
    }
    transforms: dict[tuple[TemplateSpec, tuple[int, int]], Transforms] = {}
    for term in problem.terms:
        for reach in term.reaches if isinstance(term, CountsTerm) else ():
            if reach.template in everywhere and (reach.template, reach.length) not in transforms:
                at = everywhere[reach.template]
                slopes = at.gradient if order == 2 else at.gradient[:0]
                transforms[reach.template, reach.length] = (
                    scipy.fft.rfft2(at.value, s=reach.length),
                    scipy.fft.rfft2(slopes, s=reach.length).astype(np.complex64) if len(slopes) else slopes,
                )
    with np.errstate(all="ignore"):
        fluxes = {spec: function(x) for spec, function in problem.fluxes.items()}

    def one(k: int) -> "_Part":
        # a trial far from the minimum may overflow: it is refused because it is not finite
        with np.errstate(all="ignore"):
            return _evaluate_term(problem, k, x, fluxes, everywhere, transforms, without, order)

    if problem.n_threads > 1:
        with ThreadPoolExecutor(problem.n_threads) as pool:
            parts = list(pool.map(one, range(len(problem.terms))))
    else:
        parts = [one(k) for k in range(len(problem.terms))]
    gradient, hessian = np.zeros(n_shared), np.zeros((n_shared, n_shared))
    fisher, best, blocks = np.zeros((n_shared, n_shared)), x.copy(), []
    stats = np.array([part.stat for part in parts])
    for part in parts:
        at = place[part.shared]
        gradient[at] += part.gradient
        hessian[np.ix_(at, at)] += part.hessian
        fisher[np.ix_(at, at)] += part.fisher
        best[part.local] = part.values
        if len(part.eliminated):
            mixed = np.zeros((n_shared, len(part.eliminated)))
            mixed[at] = part.mixed
            blocks.append(Block(part.eliminated, part.own, mixed))
    total = float(stats.sum())
    for slot, penalty in problem.penalties.items():
        if place[slot] >= 0:
            value, slope, curvature = penalty(float(x[slot]))
            total += value
            gradient[place[slot]] += slope
            hessian[place[slot], place[slot]] += curvature
            fisher[place[slot], place[slot]] += max(curvature, 0.0)
    n_negative = sum(part.n_negative for part in parts)
    left = sum(part.local_edm for part in parts)
    return Evaluation(best, total, stats, gradient, hessian, fisher, tuple(blocks), n_negative, left)


@dataclass(frozen=True, eq=False)
class _Part:
    """One term's part of an evaluation, what is local to it eliminated."""

    stat: float
    shared: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray
    fisher: np.ndarray
    local: np.ndarray
    values: np.ndarray
    eliminated: np.ndarray
    own: np.ndarray
    mixed: np.ndarray
    n_negative: int
    local_edm: float


def _evaluate_term(
    problem: Problem,
    number: int,
    x: np.ndarray,
    fluxes: Mapping[FluxSpec, Varied],
    templates: Mapping[TemplateSpec, Varied],
    transforms: Mapping[tuple[TemplateSpec, tuple[int, int]], Transforms],
    without: str,
    order: int,
) -> _Part:
    term = problem.terms[number]
    local, x = term.local, x.copy()
    specs = list(flux_specs(term))
    seen = [k for k, spec in enumerate(specs) if spec.source != without]
    if isinstance(term, CountsTerm) and (
        any(fluxes[specs[k]].value.min() < 0 for k in seen)
        or any(weight(x).value.min() < 0 for weight in term.weights)
    ):
        # a negative expectation is cut in every bin, which takes them all
        dense = problem.dense[number]()
        assert isinstance(dense, CountsTerm)
        term = replace(dense, local=local)
    arrays: Arrays = term.load() if isinstance(term, CountsTerm) else {}
    shaped: list[Shaped] = []
    if isinstance(term, CountsTerm):
        chosen = tuple(term.reaches[k] for k in seen)
        arrays = _renumbered(arrays, seen)
        term = replace(term, reaches=chosen)
        for k, reach in enumerate(chosen):
            template = None
            if reach.template is not None:
                template = (templates[reach.template], transforms[reach.template, reach.length])
            shaped.append(shape_reach(reach, k, arrays, template))
    varies = {spec: len(np.intersect1d(fluxes[spec].slots, local)) > 0 for spec in specs}
    specs = [specs[k] for k in seen]

    def at(x: np.ndarray, wanted: np.ndarray, order: int) -> tuple[Measured, list[Varied]]:
        now = [problem.fluxes[spec](x) if varies[spec] else fluxes[spec] for spec in specs]
        if isinstance(term, PointsTerm):
            found = measure_points(term, now, wanted)
        else:
            weights = [weight(x) for weight in term.weights]
            found = measure(term, arrays, shaped, now, weights, wanted, order)
        return _with_penalties(found, problem, x, wanted, local), now

    left = 0.0
    if len(local):
        x, left = _best_local(problem, lambda y: at(y, local, 2)[0], x, local)
    found, now = at(x, term.slots, order)
    hessian, gradient = found.hessian.copy(), found.gradient.copy()
    if isinstance(term, CountsTerm) and order > 0:
        for k, reach in enumerate(term.reaches):
            if reach.template is None:
                continue
            shape = templates[reach.template]
            by_template = backward_map(term, k, arrays, now[k], found.by_bin, shape.value.ndim == 3)
            where = np.searchsorted(term.slots, shape.slots)
            gradient[where] += 2 * np.tensordot(shape.gradient, by_template, by_template.ndim)
            if order == 1:
                continue
            curved = np.tensordot(shape.curvature, by_template, by_template.ndim)
            hessian[np.ix_(where, where)] += 2 * curved
    is_local = np.isin(term.slots, local)
    at_limit = (x[term.slots] <= problem.low[term.slots]) | (x[term.slots] >= problem.high[term.slots])
    free = is_local & ~at_limit
    kept = ~is_local
    own = hessian[np.ix_(free, free)]
    if free.any() and not _is_positive(own):
        own = found.fisher[np.ix_(free, free)]
    mixed = hessian[np.ix_(kept, free)]
    fisher_mixed = found.fisher[np.ix_(kept, free)]
    reduced, fisher = hessian[np.ix_(kept, kept)], found.fisher[np.ix_(kept, kept)]
    if free.any():
        reduced = reduced - mixed @ solve(own, mixed.T)
        fisher = fisher - fisher_mixed @ solve(found.fisher[np.ix_(free, free)], fisher_mixed.T)
    slots = term.slots
    return _Part(
        found.stat,
        slots[kept],
        gradient[kept],
        reduced,
        fisher,
        local,
        x[local],
        slots[free],
        own,
        mixed,
        found.n_negative,
        left,
    )


def _renumbered(arrays: Arrays, seen: Sequence[int]) -> Arrays:
    """Arrays of some reaches, numbered anew."""
    if not any(k != n for n, k in enumerate(seen)):
        return arrays
    plain = {
        key: value for key, value in arrays.items() if key[0] not in _REACH_KEYS or not key[1:].isdigit()
    }
    for n, k in enumerate(seen):
        plain |= {f"{c}{n}": arrays[f"{c}{k}"] for c in _REACH_KEYS if f"{c}{k}" in arrays}
    return plain


_REACH_KEYS = "vALpgMTD"


def _with_penalties(
    found: Measured, problem: Problem, x: np.ndarray, wanted: np.ndarray, local: np.ndarray
) -> Measured:
    """Priors on what is local to a term belong to it."""
    slots = [slot for slot in local if slot in problem.penalties]
    if not slots:
        return found
    stat, gradient = found.stat, found.gradient.copy()
    hessian, fisher = found.hessian.copy(), found.fisher.copy()
    for slot in slots:
        value, slope, curvature = problem.penalties[slot](float(x[slot]))
        stat += value
        k = int(np.searchsorted(wanted, slot))
        gradient[k] += slope
        hessian[k, k] += curvature
        fisher[k, k] += max(curvature, 0.0)
    return replace(found, stat=stat, gradient=gradient, hessian=hessian, fisher=fisher)


def _best_local(
    problem: Problem, measured: Callable[[np.ndarray], Measured], x: np.ndarray, local: np.ndarray
) -> tuple[np.ndarray, float]:
    """``x`` with the local entries at their minimum, by damped Newton steps within their limits, and what is left to gain."""
    low, high = problem.low[local], problem.high[local]
    x[local] = np.clip(x[local], low, high)
    found, damping, gain = measured(x), 0.0, np.inf
    for _ in range(_MOST_LOCAL_STEPS):
        curved = found.hessian if _is_positive(found.hessian) else found.fisher
        scale = np.diag(np.maximum(np.diag(found.fisher), 1e-300))
        step = bounded_step(found.gradient, curved + damping * scale, low - x[local], high - x[local])
        gain = -(found.gradient @ step + 0.5 * step @ curved @ step)
        if gain < _LOCAL_EDM:
            break
        trial = x.copy()
        trial[local] += step
        there = measured(trial)
        # below the digits of the sum a decrease cannot be seen
        if there.stat <= found.stat + 1e-12 * abs(found.stat) or gain < 1e-11 * abs(found.stat):
            x, found, damping = trial, there, damping / 10 if damping > 1e-3 else 0.0
        else:
            damping = max(10 * damping, 0.1)
            if damping > _MOST_DAMPING:
                break
    return x, float(gain)


def _is_positive(matrix: np.ndarray) -> bool:
    if len(matrix) == 1:
        return bool(matrix[0, 0] > 0)
    diagonal = np.diag(matrix)
    if not np.all(diagonal > 0):
        return False
    scale = np.sqrt(diagonal)
    return bool(np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0] > 1e-10)
