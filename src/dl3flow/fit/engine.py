"""The joint likelihood with its first and second derivatives, what belongs to one dataset alone eliminated.

Entries of the free vector that only one term depends on (norm and tilt of its background, its systematic errors) are
`local`: they are set to their best for any choice of the `shared` ones, by Newton steps that need no convolution, and
their part of the second derivatives is taken out by its Schur complement (block arrow; fit.md 2.4). So the cost of an
evaluation grows linearly with the number of datasets, and the number of evaluations does not grow with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy

from dl3flow.data.dataset import FitData, FluxPointsData
from dl3flow.fit.binding import bind, free_parameters
from dl3flow.fit.compact import compact_counts, compact_points, finished, merged
from dl3flow.fit.flux import Varied, VariedFunction, build_point_flux, scaled, vary_function
from dl3flow.fit.npred import bind_scale, build_flux, frame_of, scale_function, share_at
from dl3flow.fit.quadratic import bounded_step, solve
from dl3flow.fit.settings import FitSettings
from dl3flow.fit.template import TemplateFunction, build_template, holds
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
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.pixels import oversampling
from dl3flow.models.priors import PRIORS
from dl3flow.models.source import Models, Parameter, ResponseModel, Source, full_names

Term = CountsTerm | PointsTerm

_MOST_LOCAL_STEPS, _MOST_DAMPING = 100, 1e12
_LOCAL_EDM = 1e-10


@dataclass(frozen=True, eq=False)
class Problem:
    """All terms of a joint likelihood, with what they share.

    Attributes
    ----------
    names : tuple of str
        Full names of the entries of the free vector.
    start, low, high : array, shape (n_free,)
        In the parameters' own units; infinite limits are none.
    terms : tuple of terms
    dense : tuple of functions () -> term
        Each term with all its bins, for a source with negative flux.
    fluxes, templates : mapping of function
        Of the free vector, by what they are made of.
    penalties : mapping of function (value) -> (stat, slope, curvature)
        Priors, by entry.
    shared : int array
        Entries that are not local to a term.
    n_threads : int
    """

    names: tuple[str, ...]
    start: np.ndarray
    low: np.ndarray
    high: np.ndarray
    terms: tuple[Term, ...]
    dense: tuple[Callable[[], Term], ...]
    fluxes: Mapping[FluxSpec, VariedFunction]
    templates: Mapping[TemplateSpec, TemplateFunction]
    penalties: Mapping[int, Callable[[float], tuple[float, float, float]]]
    shared: np.ndarray
    n_threads: int = 1


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


def build_problem(
    datasets: Sequence[FitData],
    models: Models,
    declared: Models,
    limits: tuple[np.ndarray, np.ndarray] | None = None,
    settings: FitSettings | None = None,
) -> Problem:
    """Terms of all datasets, each in its compact form.

    Parameters
    ----------
    datasets : sequence
    models : Models
        Where templates lie; the start of the free vector.
    declared : Models
        Where responses are taken: those of `models` where nothing has moved yet.
    limits : (low, high), optional
        Of the free vector.
    settings : FitSettings, optional
        Where and how terms are kept.

    Raises
    ------
    InputError
    """
    settings = FitSettings() if settings is None else settings
    names, position = free_parameters(models)
    parameters = models.parameters()
    start = np.array([parameters[name].value for name in names])

    def term(dataset: FitData, *, is_dense: bool) -> Term:
        if isinstance(dataset, FluxPointsData):
            return compact_points(dataset, models, position)
        return compact_counts(
            dataset, models, declared, position, is_dense=is_dense, precision=settings.dtype
        )

    single = [_stored(term(dataset, is_dense=False), settings) for dataset in datasets]
    places = {name: k for k, t in enumerate(single) for name in t.names}
    terms = [t for t in single if isinstance(t, PointsTerm)]
    terms += merged([t for t in single if isinstance(t, CountsTerm)])  # type: ignore[arg-type]

    def dense(names: tuple[str, ...]) -> Callable[[], Term]:
        def build() -> Term:
            parts = [term(datasets[places[name]], is_dense=True) for name in names]
            counts = [p for p in parts if isinstance(p, CountsTerm)]
            return merged(counts)[0] if counts else parts[0]

        return build

    local, shared = _split_slots(terms, models, position, len(names))
    terms = [replace(t, local=own) for t, own in zip(terms, local, strict=True)]
    low, high = (np.full(len(names), -np.inf), np.full(len(names), np.inf)) if limits is None else limits
    sources = {s.name: s for s in models.sources}
    responses = {r.name: r for r in models.responses}
    fluxes, templates = {}, {}
    for spec in {s: None for t in terms for s in _flux_specs(t)}:
        source, response = sources[spec.source], responses.get(spec.response)
        energies = np.array(spec.energies)
        if spec.is_points:
            fluxes[spec] = _points_flux(source, position, energies, response)
            continue
        fluxes[spec] = build_flux(models, source, position, energies, response, spec.times)
        if spec.region:
            fluxes[spec] = _with_share(fluxes[spec], models, spec, position)
    for t in terms:
        for reach in t.reaches if isinstance(t, CountsTerm) else ():
            if reach.template is not None and reach.template not in templates:
                spatial = bind(sources[reach.template.source], "spatial", position)
                energy = np.array(reach.template.energy) if reach.template.energy else None
                frame = frame_of(sources[reach.template.source])
                templates[reach.template] = build_template(
                    spatial, reach.template.geom, reach.template.factor, frame, energy
                )
    return Problem(
        names,
        start,
        low,
        high,
        tuple(terms),
        tuple(dense(t.names) for t in terms),
        fluxes,
        templates,
        _penalties(models, position),
        shared,
        settings.n_threads,
    )


def _stored(term: Term, settings: FitSettings) -> Term:
    """A term whose arrays are read from the store whenever they are needed, if there is one."""
    if isinstance(term, PointsTerm) or all(r.template is None for r in term.reaches):
        return term
    term = finished(term)
    return term if settings.store is None else replace(term, load=settings.store(term.load()))


def _flux_specs(term: Term) -> Iterator[FluxSpec]:
    yield from term.fluxes if isinstance(term, PointsTerm) else (r.flux for r in term.reaches)


def _points_flux(
    source: Source, position: Mapping[str, int], energies: np.ndarray, response: ResponseModel | None
) -> VariedFunction:
    """Flux of a source at the energies of flux points, with the systematic errors of their energies and exposure."""
    spectral = bind(source, "spectral", position)
    if response is None:
        return build_point_flux(spectral, energies)
    flux = build_point_flux(spectral, energies, bind_scale(response, "energy_scale", position))
    exposure = scale_function(bind_scale(response, "exposure_scale", position))
    return lambda x: scaled(flux(x), exposure(x))


def _with_share(
    flux: VariedFunction, models: Models, spec: FluxSpec, position: Mapping[str, int]
) -> VariedFunction:
    """Flux times the share of an extended source in a region."""
    region = RegionGeometry(spec.region)
    source = next(s for s in models.sources if s.name == spec.source)
    spatial, frame = bind(source, "spatial", position), frame_of(source)
    factor = oversampling(spatial.plugin, spatial.start, region.grid)
    share = vary_function(
        spatial, lambda *v: np.asarray(share_at(region, spatial.plugin, np.array(v), frame, factor)), None
    )
    return lambda x: scaled(flux(x), share(x))


def _split_slots(
    terms: Sequence[Term], models: Models, position: Mapping[str, int], n: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Entries local to each term, and the shared ones: parameters of sources always, others that several terms have."""
    own = {b.name for b in models.backgrounds} | {r.name for r in models.responses}
    of_source = {slot for name, slot in position.items() if name.split(".", 1)[0] not in own}
    users = np.zeros(n, dtype=int)
    for term in terms:
        users[term.slots] += 1
    may = np.array([slot not in of_source and users[slot] == 1 for slot in range(n)], dtype=bool)
    local = [term.slots[may[term.slots]] for term in terms]
    return local, np.flatnonzero(~may)


def _penalties(
    models: Models, position: Mapping[str, int]
) -> dict[int, Callable[[float], tuple[float, float, float]]]:
    found = {}
    for name, parameter in models.parameters().items():
        if parameter.prior is not None and name in position:
            found[position[name]] = _penalty(parameter, name)
    return found


def _penalty(parameter: Parameter, name: str) -> Callable[[float], tuple[float, float, float]]:
    prior = parameter.prior
    assert prior is not None
    plugin, values, weight = PRIORS.find(prior.kind, f"prior of '{name}'"), dict(prior.values), prior.weight

    def stat(value: float) -> tuple[float, float, float]:
        parts = (plugin.function, plugin.companions["gradient"], plugin.companions["curvature"])
        at, slope, curvature = (weight * float(part(value, **values)) for part in parts)
        return at, slope, curvature

    return stat


def prior_stat(models: Models, source: str) -> float:
    """Part of the statistic that priors on parameters of one source make, those linked to other models' left out."""
    total = 0.0
    parameters = models.parameters()
    own = {n for s in models.sources if s.name == source for names in full_names(s).values() for n in names}
    shared = {p.link for n, p in parameters.items() if p.link and n not in own}
    done: set[str] = set()
    for name in sorted(own):
        p = parameters[name]
        if p.prior is None or p.frozen or p.link in shared or (p.link and p.link in done):
            continue
        done.add(p.link)
        total += _penalty(p, name)(p.value)[0]
    return total


def holds_all(problem: Problem, models: Models, x: np.ndarray) -> bool:
    """True if all templates lie within their windows at ``x``."""
    _, position = free_parameters(models)
    for spec in problem.templates:
        source = next(s for s in models.sources if s.name == spec.source)
        spatial = bind(source, "spatial", position)
        energy = np.array(spec.energy) if spec.energy else None
        if not holds(spec.geom, spatial.plugin, spatial.values(x), frame_of(source), energy):
            return False
    return True


def is_fine(problem: Problem, models: Models, x: np.ndarray) -> bool:
    """True if the points on which templates are drawn resolve them at ``x``."""
    _, position = free_parameters(models)
    for spec in problem.templates:
        source = next(s for s in models.sources if s.name == spec.source)
        spatial = bind(source, "spatial", position)
        energy = np.array(spec.energy) if spec.energy else None
        if oversampling(spatial.plugin, spatial.values(x), spec.geom, energy) > spec.factor:
            return False
    return True


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
    everywhere = {spec: function(x, is_smooth) for spec, function in problem.templates.items()}
    transforms: dict[tuple[TemplateSpec, tuple[int, int]], Transforms] = {}
    for term in problem.terms:
        for reach in term.reaches if isinstance(term, CountsTerm) else ():
            if reach.template is not None and (reach.template, reach.length) not in transforms:
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
    specs = list(_flux_specs(term))
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
