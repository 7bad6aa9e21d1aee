"""Fit: the minimum of a joint likelihood, with errors; the only door to iminuit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from iminuit import Minuit

from dl3flow.data.dataset import Dataset, ExpectedCounts, FitData, FluxPointsData, OffCounts
from dl3flow.data.products import DatasetStat, FitResult
from dl3flow.fit.binding import bind, free_parameters
from dl3flow.fit.likelihood import Likelihood, build_likelihood, build_stat
from dl3flow.fit.npred import (
    background_of,
    frame_of,
    predict_counts,
    response_pixel,
    source_position,
    start_vector,
)
from dl3flow.fit.reach import constrained, maps_of
from dl3flow.fit.search import SEARCH_RADIUS, best_position
from dl3flow.kernels.statistics import wstat_background
from dl3flow.models.pixels import oversampling
from dl3flow.models.source import BackgroundModel, Component, Models, Parameter, Source

_MAX_ROUNDS = 5
# a better place must promise this gain in stat before a fit is begun again from there
_SCORE_GAIN = 1.0
# less is rounding and the minimiser's tolerance
_GAIN = 1e-3
# MIGRAD's default of 0.1 stops up to 0.014 errors away from a minimum; gradients are analytic, so more digits are cheap
_TOLERANCE = 0.01
_STEP = 0.1
_POSITION_STEP = 0.02 * u.deg
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


def fit(datasets: Sequence[FitData], models: Models) -> FitResult:
    """Maximum-likelihood fit of ``models`` to all ``datasets`` jointly.

    MIGRAD and HESSE (James and Roos 1975, through iminuit) on the analytic gradient. The responses of a source are those
    at its declared position: where the best fit lies on another response pixel, the fit is repeated there. A source with
    a free position is looked for within its limits (0.5 deg around the start without limits) before the fit and after it,
    and the fit is begun again from a place that the data prefer, from half a pixel where an extension became unresolved,
    and across a pixel's centre. Where a position is free, the covariance is the inverse of half the differences of the
    gradient over steps of about one error (`_smooth_covariance`) in place of HESSE's.

    Parameters
    ----------
    datasets : sequence of Dataset
    models : Models

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
    models, warnings = constrained(datasets, models)
    best = _converged(datasets, _started(datasets, models))
    for restart in (_searched, _grown, _mirrored):
        for _ in range(_MAX_ROUNDS):
            other_start = restart(datasets, best.models)
            if other_start is best.models:
                break
            other = _converged(datasets, other_start)
            if other.stat > best.stat - _GAIN:
                break
            best = other
    warnings += _unresolved(datasets, best.models) + _wandered(models, best.models)
    result = _result(datasets, _with_errors(datasets, best), warnings)
    ts = {s.name: source_ts(datasets, result, s.name) for s in result.models.sources}
    return replace(result, minimiser={**result.minimiser, "ts": ts})


def _mirrored(datasets: Sequence[FitData], models: Models) -> Models:
    """Models with a position mirrored at its pixel's centre where that is better; the same object if none is.

    A point is shared bilinearly among pixels, so the likelihood has a kink at every pixel centre, with a minimum on
    either side of it when the source lies there.
    """
    if not maps_of(datasets):
        return models
    likelihood = build_likelihood(datasets, models)
    at = likelihood.stat(likelihood.start)
    geom = maps_of(datasets)[0].counts.sky
    for source in models.sources:
        names = [f"{source.name}.{n}" for n in ("lon_0", "lat_0")]
        if not set(names) <= set(likelihood.names):
            continue
        x, y = (float(v) for v in geom.pixel(source_position(source)))
        for mx, my in ((2 * round(x) - x, y), (x, 2 * round(y) - y)):
            lon, lat = geom.wcs.all_pix2world(mx, my, 0)
            changed = _moved(source, SkyCoord(lon * u.deg, lat * u.deg, frame=geom.frame))
            trial = likelihood.start.copy()
            for name in names:
                trial[likelihood.names.index(name)] = changed[name].value
            if likelihood.stat(trial) < at - _GAIN:
                return models.with_parameters(changed)
    return models


def _too_small(datasets: Sequence[FitData], models: Models) -> dict[str, Parameter]:
    """Free extensions below a third of a pixel, by full name: below it the likelihood hardly depends on them."""
    if not maps_of(datasets):
        return {}
    pixel = _pixel(datasets)
    small = {}
    for source in models.sources:
        if source.spatial is None:
            continue
        name = bind(source, "spatial", {}).plugin.companions.get("size")
        if name and not source.spatial[name].frozen and source.spatial[name].quantity < pixel / 3:
            small[f"{source.name}.{name}"] = source.spatial[name]
    return small


def _unresolved(datasets: Sequence[FitData], models: Models) -> list[str]:
    return [
        f"{name} = {p.value:.2g} {p.unit} is below a third of a pixel, where the data hardly tell it from a point: "
        "its error is not meaningful"
        for name, p in _too_small(datasets, models).items()
    ]


def _grown(datasets: Sequence[FitData], models: Models) -> Models:
    """Models with each free extension below a third of a pixel set to half a pixel; the same object if there is none.

    A fit that wandered there may have passed a minimum.
    """
    size = 0.5 * _pixel(datasets)
    changed = {
        name: replace(p, value=float(size.to_value(p.unit)), error=0.0)
        for name, p in _too_small(datasets, models).items()
    }
    return models.with_parameters(changed) if changed else models


def _pixel(datasets: Sequence[FitData]) -> u.Quantity:
    return min((d.counts.sky.binsz for d in maps_of(datasets)), default=np.inf) * u.deg


@dataclass(frozen=True, eq=False)
class _Minimum:
    """One finished minimisation; without a minimiser where no parameter is free."""

    minuit: Minuit | None
    likelihood: Likelihood
    models: Models
    offset: float
    scale: np.ndarray
    covariance: np.ndarray | None = None

    @property
    def stat(self) -> float:
        return self.offset if self.minuit is None else float(self.minuit.fval) + self.offset


def _is_placed(source: Source) -> bool:
    """True if the source's position is not free by itself."""
    return source.spatial is None or any(
        source.spatial[n].frozen or source.spatial[n].link for n in ("lon_0", "lat_0")
    )


def _started(datasets: Sequence[FitData], models: Models) -> Models:
    """Models with each free position where the data prefer it, all else as declared.

    Where a source is, is judged next to the others at fitted strengths: the first fit keeps every shape and position.
    """
    if all(_is_placed(source) for source in models.sources):
        return models
    fitted = _minimise(datasets, _with_frozen_shapes(models)).models
    moved: dict[str, Parameter] = {}
    for source in models.sources:
        if not _is_placed(source):
            moved |= _preferred(datasets, fitted.with_parameters(moved), source)
    return models.with_parameters(moved)


def _with_frozen_shapes(models: Models) -> Models:
    frozen = {
        f"{s.name}.{p.name}": replace(p, frozen=True)
        for s in models.sources
        if s.spatial is not None
        for p in s.spatial.parameters
    }
    return models.with_parameters(frozen)


def _searched(datasets: Sequence[FitData], models: Models) -> Models:
    """Models with each free position moved to the place that the data prefer; the same object if none is."""
    for source in models.sources:
        if not _is_placed(source) and (moved := _preferred(datasets, models, source)):
            models = models.with_parameters(moved)
    return models


def _preferred(datasets: Sequence[FitData], models: Models, source: Source) -> dict[str, Parameter]:
    """Position parameters at a place that the data prefer to the source's by far; empty if there is none."""
    maps = maps_of(datasets)
    position, score, present = best_position(maps, models, source)
    near = position.separation(source_position(source)) < 1.5 * _pixel(maps)
    return {} if near or score <= present + _SCORE_GAIN else _moved(source, position)


def _wandered(declared: Models, found: Models) -> list[str]:
    """A sentence for each source that ended far from where it was declared."""
    told = []
    for before, after in zip(declared.sources, found.sources, strict=True):
        if before.spatial is None:
            continue
        distance = source_position(before).separation(source_position(after)).to_value(u.deg)
        if distance > _FAR.to_value(u.deg):
            told.append(
                f"{after.name} was found {distance:.2f} deg from its declared position: check that it is the source that was meant"
            )
    return told


def _moved(source: Source, position: SkyCoord) -> dict[str, Parameter]:
    at = position.transform_to(frame_of(source)).spherical
    moved = {}
    for name, value in (("lon_0", at.lon), ("lat_0", at.lat)):
        p = source.parameter(name)
        found = float(value.to_value(p.unit))
        if name == "lon_0":
            turn = float((360 * u.deg).to_value(p.unit))
            found += turn * round((p.value - found) / turn)
        moved[f"{source.name}.{name}"] = replace(p, value=found)
    return moved


def _converged(datasets: Sequence[FitData], models: Models) -> _Minimum:
    """Minimum whose sources lie on the response pixels, and are as fine, as the likelihood was built for."""
    found = _minimise(datasets, models)
    for _ in range(_MAX_ROUNDS):
        if _responses(datasets, found.models) == _responses(datasets, models) and not _is_coarse(
            datasets, models, found.models
        ):
            break
        models = found.models
        found = _minimise(datasets, models)
    return found


def _is_coarse(datasets: Sequence[FitData], built: Models, found: Models) -> bool:
    """True if a source at its best fit is too small for the pixel division that its start values asked for."""
    for before, after in zip(built.sources, found.sources, strict=True):
        if before.spatial is None or after.spatial is None:
            continue
        old = bind(before, "spatial", {})
        new = bind(after, "spatial", {})
        geometries = [d.counts.sky for d in maps_of(datasets)]
        if any(
            oversampling(new.plugin, new.start, g) > oversampling(old.plugin, old.start, g)
            for g in geometries
        ):
            return True
    return False


def _responses(datasets: Sequence[FitData], models: Models) -> list[tuple[tuple[int, int], ...]]:
    return [
        tuple(
            response_pixel(m.exposure.geom, m.exposure.data, source_position(s))
            for d in maps_of(datasets)
            for m in (d.psf, d.edisp)
            if m is not None
        )
        for s in models.sources
        if s.spatial is not None
    ]


def _minimise(datasets: Sequence[FitData], models: Models) -> _Minimum:
    likelihood = build_likelihood(datasets, models)
    parameters = models.parameters()
    free = [parameters[name] for name in likelihood.names]
    scale = np.array([_step(name, p) / _STEP for name, p in zip(likelihood.names, free, strict=True)])
    offset = likelihood.stat(likelihood.start)
    if not free:
        return _Minimum(None, likelihood, models, offset, scale)
    # the large constant is taken off so that differences keep their digits
    minuit = Minuit(
        lambda x: likelihood.stat(x * scale) - offset,
        likelihood.start / scale,
        name=likelihood.names,
        grad=lambda x: likelihood.gradient(x * scale) * scale,
    )
    # strategy 0: errors are computed once, at the end, and not after every search
    minuit.errordef, minuit.tol, minuit.strategy = 1.0, _TOLERANCE, 0
    for name, p, s in zip(likelihood.names, free, scale, strict=True):
        low, high = _limits(name, p, parameters)
        minuit.limits[name] = (None if np.isnan(low) else low / s, None if np.isnan(high) else high / s)
        minuit.errors[name] = _STEP
    minuit.migrad(ncall=5000)
    if not minuit.valid:
        minuit.strategy = 1
        minuit.migrad(ncall=5000)
    return _updated(_Minimum(minuit, likelihood, models, offset, scale), minuit)


def _with_errors(datasets: Sequence[FitData], found: _Minimum) -> _Minimum:
    """The same minimum with HESSE errors; the search goes on where they show that it had not arrived."""
    minuit = found.minuit
    if minuit is None:
        return found
    minuit.strategy = 1
    minuit.hesse()
    if minuit.fmin.edm > minuit.fmin.edm_goal:
        minuit.migrad(ncall=5000)
        minuit.hesse()
    found = _updated(found, minuit)
    covariance = _smooth_covariance(datasets, found)
    if covariance is None:
        return found
    parameters = found.models.parameters()
    errors = np.sqrt(np.diag(covariance))
    changed = {
        n: replace(parameters[n], error=float(e)) for n, e in zip(found.likelihood.names, errors, strict=True)
    }
    return replace(found, models=_with_links(found.models, changed), covariance=covariance)


def _smooth_covariance(datasets: Sequence[FitData], found: _Minimum) -> np.ndarray | None:
    """Covariance from differences of the gradient over steps that see past the kinks of the likelihood.

    A point is shared bilinearly among pixels: its likelihood has a kink at every pixel centre, and second derivatives
    over the minimiser's small steps are wrong there. Positions are stepped by half a pixel first and by the error that
    follows from it then, other parameters by a tenth of their HESSE error. None where a parameter is not free to be
    stepped (at a limit), no position is free, or the curvature is not positive.
    """
    names, parameters = found.likelihood.names, found.models.parameters()
    is_position = np.array([n.rsplit(".", 1)[1] in ("lon_0", "lat_0") for n in names])
    if not is_position.any() or any(_is_at_limit(n, parameters[n], found) for n in names):
        return None
    x, gradient = start_vector(found.models), found.likelihood.gradient
    errors = np.array([parameters[n].error for n in names])
    half = 0.5 * _pixel(datasets)
    steps = np.array(
        [
            half.to_value(parameters[n].unit) if p else 0.1 * e
            for n, p, e in zip(names, is_position, errors, strict=True)
        ]
    )
    covariance: np.ndarray | None = None
    for _ in range(2):
        steps = np.minimum(steps, _room(found, x))
        if not np.all(np.isfinite(steps) & (steps > 0)):
            return None
        rows = []
        for k, step in enumerate(steps):
            shift = np.zeros(len(x))
            shift[k] = step
            rows.append((gradient(x + shift) - gradient(x - shift)) / (2 * step))
        hessian = 0.5 * (np.array(rows) + np.array(rows).T)
        scaled = hessian / np.sqrt(np.outer(np.abs(np.diag(hessian)), np.abs(np.diag(hessian))))
        if not np.all(np.isfinite(scaled)) or np.linalg.eigvalsh(scaled)[0] <= 0:
            return None
        covariance = 2 * np.linalg.inv(hessian)
        steps = np.where(is_position, np.sqrt(np.diag(covariance)), steps)
    return covariance


def _room(found: _Minimum, x: np.ndarray) -> np.ndarray:
    """Largest step of each parameter to both sides that stays within the limits of the minimisation."""
    assert found.minuit is not None
    limits = np.array([found.minuit.limits[name] for name in found.likelihood.names], dtype=float)
    low, high = limits.T * found.scale
    return np.asarray(np.minimum(x - low, high - x))


def _updated(found: _Minimum, minuit: Minuit) -> _Minimum:
    names, parameters = found.likelihood.names, found.models.parameters()
    changed = {
        name: replace(parameters[name], value=float(v * s), error=float(e * s))
        for name, v, e, s in zip(names, minuit.values, minuit.errors, found.scale, strict=True)
    }
    return replace(found, models=_with_links(found.models, changed))


def _with_links(models: Models, changed: dict[str, Parameter]) -> Models:
    names, position = free_parameters(models)
    parameters = models.parameters()
    linked = {
        name: replace(parameters[name], value=changed[names[k]].value, error=changed[names[k]].error)
        for name, k in position.items()
    }
    return models.with_parameters(linked)


def _step(name: str, p: Parameter) -> float:
    """First trial step: a tenth of the value, or what the kind of parameter suggests."""
    if p.error > 0:
        return p.error
    if name.rsplit(".", 1)[1] in ("lon_0", "lat_0"):
        return float(_POSITION_STEP.to_value(p.unit))
    return _STEP * abs(p.value) if p.value != 0 else _STEP


def _limits(name: str, p: Parameter, parameters: Mapping[str, Parameter]) -> tuple[float, float]:
    """The parameter's limits; a position without any stays within twice the search radius of its start."""
    low, high = p.min, p.max
    model, kind = name.rsplit(".", 1)
    if kind in ("lon_0", "lat_0"):
        reach = 2 * float(SEARCH_RADIUS.to_value(p.unit))
        if kind == "lon_0":
            # near the pole the search radius spans all longitudes
            shrunk = max(np.cos(parameters[f"{model}.lat_0"].quantity.to_value(u.rad)), 1e-3)
            reach = min(reach / shrunk, float((180 * u.deg).to_value(p.unit)))
        low = p.value - reach if np.isnan(low) else low
        high = p.value + reach if np.isnan(high) else high
    if kind == "sigma":
        degree = float((1 * u.deg).to_value(p.unit))
        low = 1e-4 * degree if np.isnan(low) or low <= 0 else low
        # a window grows with the extension: a trial step must not fill the memory
        high = max(5 * p.value, 0.5 * degree) if np.isnan(high) else high
    if kind == "e":
        low, high = np.fmax(low, 0.0), np.fmin(high, 0.99)
    return low, high


def _result(datasets: Sequence[FitData], found: _Minimum, warnings: list[str]) -> FitResult:
    minuit, names = found.minuit, found.likelihood.names
    parameters = found.models.parameters()
    at_limit = [n for n in names if _is_at_limit(n, parameters[n], found)]
    warnings = warnings + [
        f"{n} ends at a limit ({parameters[n].value:g}): its error is not meaningful" for n in at_limit
    ]
    covariance = np.zeros((len(names), len(names)))
    reasons = []
    if minuit is not None:
        if found.covariance is not None:
            covariance = found.covariance
        elif minuit.covariance is not None:
            covariance = np.asarray(minuit.covariance) * np.outer(found.scale, found.scale)
        fmin = minuit.fmin
        if not fmin.is_valid:
            reasons.append(
                f"the minimum was not reached (estimated distance {fmin.edm:.2g}, goal {fmin.edm_goal:.2g})"
            )
        if found.covariance is None and not fmin.has_accurate_covar and not at_limit:
            reasons.append("the covariance is not accurate: a parameter may not be constrained by the data")
        if not np.isfinite(found.stat):
            reasons.append("the statistic is not finite")
    else:
        warnings = [*warnings, "no parameter is free: the statistic is that of the start values"]
    covariance.setflags(write=False)
    return FitResult(
        success=not reasons,
        message="; ".join(reasons) or "converged",
        stat=found.likelihood.stat(_vector(found)),
        models=found.models,
        free=names,
        covariance=covariance,
        datasets=tuple(_dataset_stat(d, found.models) for d in datasets),
        minimiser={
            "name": "minuit migrad + hesse",
            "edm": 0.0 if minuit is None else float(minuit.fmin.edm),
            "n_evaluations": 0 if minuit is None else int(minuit.nfcn + minuit.ngrad),
            "at_limit": at_limit,
            "warnings": warnings,
        },
    )


def _vector(found: _Minimum) -> np.ndarray:
    return found.likelihood.start if found.minuit is None else np.array(found.minuit.values) * found.scale


def _is_at_limit(name: str, p: Parameter, found: _Minimum) -> bool:
    """True if the parameter ended at a limit of the minimisation, its own or the one of a position without any."""
    if found.minuit is None:
        return False
    low, high = (v * found.scale[found.likelihood.names.index(name)] for v in found.minuit.limits[name])
    near = max(1e-3 * p.error, 1e-9 * abs(p.value))
    return bool(p.value - low < near or high - p.value < near)


def _dataset_stat(dataset: FitData, models: Models) -> DatasetStat:
    stat = build_stat(dataset, models)(start_vector(models), None)
    if isinstance(dataset, FluxPointsData):
        # no counts: an axis without bins
        none = np.zeros(0)
        return DatasetStat(
            dataset.name, stat, int(dataset.mask.sum()), dataset.energy_ref[:1], none, none, none
        )
    mask = dataset.mask
    signal, background = predict_counts(dataset, models)
    if isinstance(dataset.background, OffCounts):
        background = measured_background(dataset, dataset.background, signal)
    weigh = [np.where(mask, v, 0.0).sum(axis=(1, 2)) for v in (dataset.counts.data, signal, background)]
    return DatasetStat(
        dataset.name,
        stat,
        int(mask.sum()),
        dataset.energy.edges,
        *weigh,
    )


def measured_background(dataset: Dataset, off: OffCounts, signal: np.ndarray) -> np.ndarray:
    """Expected background counts per bin that suit on and off counts best at a given signal; 0 where none was measured."""
    alpha = off.alpha
    mu_off = wstat_background(dataset.counts.data, off.counts.data, np.where(alpha > 0, alpha, 1.0), signal)
    return np.asarray(alpha * mu_off)


def source_ts(datasets: Sequence[FitData], result: FitResult, source: str) -> float:
    """Test statistic of a source: stat of the best fit without it, less stat with it.

    The other sources keep their positions and shapes: one that is free to walk would take the place of the missing one.
    """
    without = replace(result.models, sources=tuple(s for s in result.models.sources if s.name != source))
    return _minimise(datasets, _with_frozen_shapes(without)).stat - result.stat
