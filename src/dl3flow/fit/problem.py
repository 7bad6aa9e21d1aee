"""The terms of a joint likelihood and what they share: built once for many evaluations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dl3flow.data.dataset import FitData, FluxPointsData
from dl3flow.fit.binding import bind, free_parameters
from dl3flow.fit.compact import compact_counts, compact_points, finished
from dl3flow.fit.flux import VariedFunction, build_point_flux, scaled, vary_function
from dl3flow.fit.npred import bind_scale, build_flux, frame_of, scale_function, share_at
from dl3flow.fit.settings import FitSettings
from dl3flow.fit.spectra import Shares, Spectrum, alike, compact_spectra, plain_spectrum
from dl3flow.fit.template import TemplateFunction, build_template, holds, suits
from dl3flow.fit.terms import CountsTerm, FluxSpec, PointsTerm, TemplateSpec
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.pixels import oversampling
from dl3flow.models.priors import PRIORS
from dl3flow.models.source import Models, Parameter, ResponseModel, Source, full_names

Term = CountsTerm | PointsTerm


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

    def single(place: int) -> Term:
        found = term(datasets[place], is_dense=True)
        return finished(found) if isinstance(found, CountsTerm) else found

    def joined(group: Sequence[Spectrum], *, is_dense: bool) -> Term:
        return compact_spectra(group, models, position, is_dense=is_dense, precision=settings.dtype)

    terms: list[Term] = []
    dense: list[Callable[[], Term]] = []
    spectra: list[Spectrum] = []
    shares: Shares = {}
    for place, dataset in enumerate(datasets):
        if (spectrum := plain_spectrum(dataset, models, shares)) is not None:
            spectra.append(spectrum)
            continue
        terms.append(_stored(term(dataset, is_dense=False), settings))
        dense.append(partial(single, place))
    for group in alike(spectra):
        terms.append(joined(group, is_dense=False))
        dense.append(partial(joined, group, is_dense=True))

    local, shared = _split_slots(terms, models, position, len(names))
    terms = [replace(t, local=own) for t, own in zip(terms, local, strict=True)]
    low, high = (np.full(len(names), -np.inf), np.full(len(names), np.inf)) if limits is None else limits
    sources = {s.name: s for s in models.sources}
    responses = {r.name: r for r in models.responses}
    fluxes = {}
    for spec in {s: None for t in terms for s in flux_specs(t)}:
        source, response = sources[spec.source], responses.get(spec.response)
        energies = np.array(spec.energies)
        if spec.is_points:
            fluxes[spec] = _points_flux(source, position, energies, response)
            continue
        fluxes[spec] = build_flux(models, source, position, energies, response, spec.times)
        if spec.region:
            fluxes[spec] = _with_share(fluxes[spec], models, spec, position)
    templates = {spec: _template(spec, models, position) for spec in _template_specs(terms)}
    return Problem(
        names,
        start,
        low,
        high,
        tuple(terms),
        tuple(dense),
        fluxes,
        templates,
        _penalties(models, position),
        shared,
        settings.n_threads,
    )


def _stored(term: Term, settings: FitSettings) -> Term:
    """A term whose arrays are read from the store whenever they are needed, if there is one."""
    if isinstance(term, PointsTerm):
        return term
    term = finished(term)
    if all(r.template is None for r in term.reaches):
        return term
    return term if settings.store is None else replace(term, load=settings.store(term.load()))


def _template(spec: TemplateSpec, models: Models, position: Mapping[str, int]) -> TemplateFunction:
    source = next(s for s in models.sources if s.name == spec.source)
    energy = np.array(spec.energy) if spec.energy else None
    spatial = bind(source, "spatial", position)
    return build_template(spatial, spec.geom, spec.factor, frame_of(source), energy)


def _template_specs(terms: Sequence[Term]) -> dict[TemplateSpec, None]:
    """What the terms' templates are made of, each once."""
    reaches = (r for t in terms if isinstance(t, CountsTerm) for r in t.reaches)
    return {r.template: None for r in reaches if r.template is not None}


def flux_specs(term: Term) -> Iterator[FluxSpec]:
    """What the fluxes of a term are made of, one per source."""
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


def redrawn(problem: Problem, models: Models) -> Problem | None:
    """The same terms with templates on the points that they need at ``models``; None where their windows do not suit."""
    names, position = free_parameters(models)
    changed: dict[TemplateSpec, TemplateSpec] = {}
    for spec in problem.templates:
        source = next(s for s in models.sources if s.name == spec.source)
        spatial, energy = bind(source, "spatial", position), np.array(spec.energy) if spec.energy else None
        if not suits(spec.geom, spatial, frame_of(source), energy):
            return None
        factor = oversampling(spatial.plugin, spatial.start, spec.geom, energy)
        changed[spec] = replace(spec, factor=max(factor, spec.factor))
    parameters = models.parameters()
    return replace(
        problem,
        start=np.array([parameters[name].value for name in names]),
        terms=tuple(_with_templates(term, changed) for term in problem.terms),
        dense=tuple(partial(_dense_with, build, changed) for build in problem.dense),
        templates={spec: _template(spec, models, position) for spec in changed.values()},
    )


def _dense_with(build: Callable[[], Term], changed: Mapping[TemplateSpec, TemplateSpec]) -> Term:
    return _with_templates(build(), changed)


def _with_templates(term: Term, changed: Mapping[TemplateSpec, TemplateSpec]) -> Term:
    if isinstance(term, PointsTerm):
        return term
    reaches = tuple(
        r if r.template is None else replace(r, template=changed[r.template]) for r in term.reaches
    )
    return replace(term, reaches=reaches)


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
