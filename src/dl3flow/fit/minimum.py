"""The minimum of a joint likelihood: descents from several starts, until none finds a lower one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.fit.binding import bind, for_dataset, free_parameters
from dl3flow.fit.bounds import size_names, step_limits, strength_names
from dl3flow.fit.engine import Evaluation, evaluate
from dl3flow.fit.likelihood import moved
from dl3flow.fit.newton import StepLimits, descend, fixed_at, free_curvature, is_finite, scale_strengths
from dl3flow.fit.npred import frame_of, response_pixel, source_position
from dl3flow.fit.outline import Outline
from dl3flow.fit.problem import Problem, build_problem, redrawn
from dl3flow.fit.quadratic import bounded_step, solve
from dl3flow.fit.search import best_position
from dl3flow.fit.settings import FitSettings
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import depends_on_energy, oversampling
from dl3flow.models.source import Models, Parameter, Source, full_names

_MOST_ROUNDS = 8
_MOST_RESTARTS = 5
# a better place must promise this gain in stat before a search is begun again from there
_SCORE_GAIN = 1.0
# less is rounding
_GAIN = 1e-3
# a point whose search ended farther from a minimum than this is looked for across kinks
_DOUBTFUL = 1e-6
# a gain that a step promises is believed up to this
_BELIEVED = 0.1
# pixels that a source may move from where it was looked for and found
_NEAR = 3.0
# of a point's position, pixels: steps of the search across kinks, and where it ends
_FIRST_BRACKET, _LAST_BRACKET = 0.25, 2e-3
# on a line a search cannot go around a pixel that has no counts: it looks across it
_LINE_BRACKET = 1.0


@dataclass(frozen=True, eq=False)
class FitInput:
    """What a fit reads.

    Attributes
    ----------
    datasets : sequence
        Read one by one, as often as they are needed.
    outlines : tuple of Outline
        Of each.
    limits : (low, high)
        Of the free vector.
    settings : FitSettings
    """

    datasets: Sequence[FitData]
    outlines: tuple[Outline, ...]
    limits: tuple[np.ndarray, np.ndarray]
    settings: FitSettings


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search for the minimum ended.

    Attributes
    ----------
    problem : Problem
    models : Models
        At the minimum, without errors.
    declared : Models
        Where the responses were taken.
    evaluation : Evaluation
    edm : float
        Estimated distance to the minimum, in units of the statistic.
    n_iterations, n_evaluations : int
        Of the last descent, and of all.
    """

    problem: Problem
    models: Models
    declared: Models
    evaluation: Evaluation
    edm: float
    n_iterations: int
    n_evaluations: int

    @property
    def stat(self) -> float:
        """Statistic there."""
        return self.evaluation.stat


def find_minimum(given: FitInput, models: Models) -> Minimum:
    """Minimum of the joint statistic, with positions looked for before and after.

    A source with a free position is looked for within its limits (0.5 deg around the start without limits), and the
    search is begun again from a place that the data prefer, and from half a pixel where an extension became unresolved.
    """
    start = _started(given, models)
    best = converge(given, start)
    for restart in (_searched, _grown):
        for _ in range(_MOST_RESTARTS):
            again = restart(given, best.models, start)
            if again is best.models:
                break
            other = converge(given, again)
            spent = best.n_evaluations + other.n_evaluations
            if not other.stat < best.stat - _GAIN:
                best = replace(best, n_evaluations=spent)
                break
            best = replace(other, n_evaluations=spent)
    return best


def converge(given: FitInput, models: Models) -> Minimum:
    """One descent, repeated where sources end on other response pixels, or finer, than the likelihood was built for."""
    declared, n, outlines = models, 0, given.outlines
    kept: Problem | None = None
    for n_round in range(_MOST_ROUNDS):
        problem = kept or build_problem(given.datasets, models, declared, given.limits, given.settings)
        kept = None
        steps, start = step_limits(problem, models), problem.start
        if n_round == 0:
            start = scale_strengths(problem, start, strength_names(models, problem.names), steps)
        descent = descend(problem, start, steps, is_smooth=bool(free_points(outlines, models)))
        at, edm, n = descent.evaluation, descent.edm, n + descent.n_iterations
        is_last = n_round == _MOST_ROUNDS - 1
        points = free_points(outlines, moved(models, at.x))
        if points and not descent.has_outgrown:
            # from near by, exact derivatives arrive unless a kink is in the way
            exact = descend(problem, at.x, steps)
            at, edm, n = exact.evaluation, exact.edm, n + exact.n_iterations
        if points and not descent.has_outgrown and (edm > _DOUBTFUL or any(map(_is_on_line, points))):
            at, more = _polished(outlines, problem, models, at, points)
            edm, n = _free_gain(problem, at, points), n + more
        before, models = models, moved(models, at.x)
        if is_last:
            break
        if descent.has_outgrown:
            continue
        if _responses(outlines, models) != _responses(outlines, declared):
            declared = models
        elif not _is_coarse(outlines, before, models):
            break
        else:
            kept = redrawn(problem, models)
    return Minimum(problem, models, declared, at, edm, descent.n_iterations, n)


def free_points(outlines: Sequence[Outline], models: Models) -> list[Source]:
    """Points, and sources too small to tell from one, with a free position on a map: kinks at pixel centres."""
    if not maps_of(outlines):
        return []
    small = {size_names(models)[name] for name in too_small(outlines, models)}
    return [
        s
        for s in models.sources
        if s.spatial is not None
        and (s.name in small or bind(s, "spatial", {}).plugin.companions.get("is_point"))
        and any(p.name in ("lon_0", "lat_0") and not p.frozen for p in s.spatial.parameters)
    ]


def position_names(points: Sequence[Source], names: Sequence[str]) -> tuple[str, ...]:
    """Entries of the free vector that are positions of these sources."""
    wanted = {f"{s.name}.{n}" for s in points for n in ("lon_0", "lat_0")}
    return tuple(n for n in names if n in wanted)


def shape_names(points: Sequence[Source], names: Sequence[str]) -> tuple[str, ...]:
    """Entries of the free vector that shape or place these sources."""
    wanted = {n for s in points for n in full_names(s).get("spatial", ())}
    return tuple(n for n in names if n in wanted)


def _polished(
    outlines: Sequence[Outline], problem: Problem, models: Models, at: Evaluation, points: Sequence[Source]
) -> tuple[Evaluation, int]:
    """The same minimum with points placed to a few thousandths of a pixel, along rows and columns in turn.

    A point is shared bilinearly among pixels, so that the statistic has a kink at every pixel centre, often with the
    minimum on it: derivatives end a pixel's fraction away. All other parameters follow each trial by one Newton step.
    """
    geom, n = maps_of(outlines)[0], 0
    names = shape_names(points, problem.names)
    limits = step_limits(problem, models)
    for source in points:
        own = [f"{source.name}.{k}" for k in ("lon_0", "lat_0")]
        if not set(own) & set(problem.names):
            continue
        bracket = _LINE_BRACKET if _is_on_line(source) else _FIRST_BRACKET
        while bracket > _LAST_BRACKET:
            best = at
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                while n < 400:
                    trial = _shifted(problem, models, best.x, source, geom, bracket * dx, bracket * dy)
                    if not limits.holds(trial) or np.any((trial < problem.low) | (trial > problem.high)):
                        break
                    there = _followed(problem, evaluate(problem, trial, order=1), names, limits)
                    n += 1
                    if there.stat >= best.stat - 1e-7:
                        break
                    best = there
            if best is at:
                bracket /= 4
            at = best
    held = descend(fixed_at(problem, at.x, names), at.x, limits)
    free = descend(problem, held.evaluation.x, limits)
    final = min((held.evaluation, free.evaluation), key=lambda found: found.stat)
    return final, n + held.n_iterations + free.n_iterations


def _shifted(
    problem: Problem,
    models: Models,
    x: np.ndarray,
    source: Source,
    geom: SkyGeometry,
    dx: float,
    dy: float,
) -> np.ndarray:
    """Free vector with a source moved by a fraction of a pixel."""
    there = next(s for s in moved(models, x).sources if s.name == source.name)
    column, row = geom.pixel(source_position(there))
    lon, lat = geom.wcs.all_pix2world(column + dx, row + dy, 0)
    at = SkyCoord(lon * u.deg, lat * u.deg, frame=geom.frame)
    trial = x.copy()
    for name, p in moved_position(there, at).items():
        if name in problem.names:
            trial[problem.names.index(name)] = p.value
    return trial


def _followed(problem: Problem, at: Evaluation, held: Sequence[str], limits: StepLimits) -> Evaluation:
    """An evaluation with the gain of a Newton step over all but the ``held`` entries taken off, and that step taken.

    A large gain is not believed but looked at.
    """
    if not is_finite(at):
        return replace(at, stat=np.inf)
    chosen = np.array([problem.names[k] not in held for k in problem.shared], dtype=bool)
    free, _ = free_curvature(problem, at)
    chosen &= free
    slots, gradient = problem.shared[chosen], at.gradient[chosen]
    fisher = at.fisher[np.ix_(chosen, chosen)]
    error = np.zeros(len(at.x))
    error[slots] = np.sqrt(2 / np.maximum(np.diag(fisher), 1e-300))
    low = np.maximum(problem.low - at.x, -limits.down(at.x, error))[slots]
    high = np.minimum(problem.high - at.x, limits.up(at.x, error))[slots]
    step = bounded_step(gradient, fisher + 1e-9 * np.diag(np.diag(fisher)), low, high)
    gain = float(gradient @ step + 0.5 * step @ fisher @ step)
    x = at.x.copy()
    x[slots] += step
    if gain < -_BELIEVED:
        there = evaluate(problem, x, order=1)
        return there if is_finite(there) and there.stat < at.stat else at
    return replace(at, x=x, stat=at.stat + gain)


def _free_gain(problem: Problem, at: Evaluation, points: Sequence[Source]) -> float:
    held = shape_names(points, problem.names)
    chosen = np.array([problem.names[k] not in held for k in problem.shared], dtype=bool)
    free, _ = free_curvature(problem, at)
    chosen &= free
    gradient = at.gradient[chosen]
    return float(0.5 * gradient @ solve(at.fisher[np.ix_(chosen, chosen)], gradient))


def _started(given: FitInput, models: Models) -> Models:
    """Models with each free position where the data prefer it, all else as declared.

    Where a source is, is judged next to the others at fitted strengths: the first fit keeps every shape and position.
    """
    if all(is_placed(source) for source in models.sources):
        return models
    fitted = models
    if len(models.sources) > 1:
        frozen = with_frozen_shapes(models)
        kept = replace(given, limits=limits_of(given.limits, models, frozen))
        fitted = converge(kept, frozen).models
        fitted = models.with_parameters(
            {n: replace(p, value=fitted.parameters()[n].value) for n, p in models.parameters().items()}
        )
    changed: dict[str, Parameter] = {}
    for source in models.sources:
        if not is_placed(source):
            changed |= _preferred(given, fitted.with_parameters(changed), source)
    return models.with_parameters(changed)


def limits_of(
    limits: tuple[np.ndarray, np.ndarray], models: Models, fewer: Models
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the entries that are left when some parameters are frozen or gone."""
    names, kept = free_parameters(models)[0], free_parameters(fewer)[0]
    at = [names.index(name) for name in kept]
    return limits[0][at], limits[1][at]


def with_frozen_shapes(models: Models) -> Models:
    """Models whose spatial parameters are all frozen."""
    frozen = {
        f"{s.name}.{p.name}": replace(p, frozen=True)
        for s in models.sources
        if s.spatial is not None
        for p in s.spatial.parameters
    }
    return models.with_parameters(frozen)


def is_placed(source: Source) -> bool:
    """True if no coordinate of the source's position is free by itself."""
    if source.spatial is None:
        return True
    own = [p for p in source.spatial.parameters if p.name in ("lon_0", "lat_0")]
    return len(own) < 2 or any(p.link for p in own) or all(p.frozen for p in own)


def _is_on_line(source: Source) -> bool:
    """True if one coordinate of a source's position is free and the other is not."""
    own = (
        [p.frozen for p in source.spatial.parameters if p.name in ("lon_0", "lat_0")]
        if source.spatial
        else []
    )
    return any(own) and not all(own)


def _moves(source: Source) -> bool:
    """True if a fit may change the source's position, by itself or with another parameter."""
    if source.spatial is None:
        return False
    return any(p.name in ("lon_0", "lat_0") and not p.frozen for p in source.spatial.parameters)


def _searched(given: FitInput, models: Models, start: Models) -> Models:
    """Models with each free position moved to the place that the data prefer; the same object if none is.

    One that ended where the search before the fit had placed it is not looked for again.
    """
    pixel = pixel_size(given.outlines)
    for before, source in zip(start.sources, models.sources, strict=True):
        if is_placed(source):
            continue
        here, there = source_position(before), source_position(source)
        is_far = here is None or there is None or here.separation(there) > _NEAR * pixel
        if is_far and (changed := _preferred(given, models, source)):
            models = models.with_parameters(changed)
    return models


def _preferred(given: FitInput, models: Models, source: Source) -> dict[str, Parameter]:
    """Position parameters at a place that the data prefer to the source's by far; empty if there is none."""
    seen = [k for k, o in enumerate(given.outlines) if o.sky and for_dataset(o.name, source.datasets)]
    position, score, present = best_position(
        (d for k in seen if isinstance(d := given.datasets[k], Dataset)), models, source
    )
    here = source_position(source)
    assert here is not None
    near = position.separation(here) < 1.5 * pixel_size(given.outlines)
    if near or score <= present + _SCORE_GAIN:
        return {}
    return {n: p for n, p in moved_position(source, position).items() if not p.frozen}


def moved_position(source: Source, position: SkyCoord) -> dict[str, Parameter]:
    """Position parameters of a source at another direction."""
    at = position.transform_to(frame_of(source)).spherical
    changed = {}
    for name, value in (("lon_0", at.lon), ("lat_0", at.lat)):
        p = source.parameter(name)
        found = float(value.to_value(p.unit))
        if name == "lon_0":
            turn = float((360 * u.deg).to_value(p.unit))
            found += turn * round((p.value - found) / turn)
        changed[f"{source.name}.{name}"] = replace(p, value=found)
    return changed


def too_small(outlines: Sequence[Outline], models: Models) -> dict[str, Parameter]:
    """Free extensions below a third of a pixel, by full name: below it the likelihood hardly depends on them."""
    if not maps_of(outlines):
        return {}
    pixel, parameters = pixel_size(outlines), models.parameters()
    return {
        name: parameters[name]
        for name in size_names(models)
        if not parameters[name].frozen and parameters[name].quantity < pixel / 3
    }


def _grown(given: FitInput, models: Models, start: Models) -> Models:
    """Models with each free extension below a third of a pixel set to half a pixel; the same object if there is none.

    A fit that wandered there may have passed a minimum.
    """
    size = 0.5 * pixel_size(given.outlines)
    return models.with_parameters(
        {
            name: replace(p, value=float(size.to_value(p.unit)), error=0.0)
            for name, p in too_small(given.outlines, models).items()
        }
    )


def pixel_size(outlines: Sequence[Outline]) -> u.Quantity:
    """Size of the smallest pixels."""
    return min((sky.binsz for sky in maps_of(outlines)), default=np.inf) * u.deg


def maps_of(outlines: Sequence[Outline]) -> list[SkyGeometry]:
    """Pixels of those of the datasets that are maps."""
    return [o.sky for o in outlines if o.sky is not None]


def _responses(outlines: Sequence[Outline], models: Models) -> list[tuple[tuple[int, int], ...]]:
    return [
        tuple(response_pixel(geom, exposure, at) for o in outlines for geom, exposure in o.responses)
        for s in models.sources
        if _moves(s) and (at := source_position(s)) is not None
    ]


def _is_coarse(outlines: Sequence[Outline], built: Models, found: Models) -> bool:
    """True if a source at its best fit is too small for the pixel division that its start values asked for."""
    geometries = list(dict.fromkeys(replace(sky, corner=(0, 0)) for sky in maps_of(outlines)))
    energies = [o.energy_true for o in outlines if o.sky is not None and o.energy_true is not None]
    for before, after in zip(built.sources, found.sources, strict=True):
        if before.spatial is None or after.spatial is None or not geometries:
            continue
        old, new = bind(before, "spatial", {}), bind(after, "spatial", {})
        if "size" not in old.plugin.companions:
            continue
        energy = np.concatenate(energies) if depends_on_energy(new.plugin) and energies else None
        factors = [[oversampling(b.plugin, b.start, g, energy) for g in geometries] for b in (old, new)]
        if any(n > o for o, n in zip(*factors, strict=True)):
            return True
    return False
