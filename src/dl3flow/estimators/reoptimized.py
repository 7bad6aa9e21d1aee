"""Norm of one source in a slice of the data with all else that was free fitted anew there."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.fit.bounds import fit_limits, step_limits
from dl3flow.fit.engine import Evaluation
from dl3flow.fit.minimum import with_frozen_shapes
from dl3flow.fit.newton import descend, fixed_at
from dl3flow.fit.outline import outlines_of
from dl3flow.fit.problem import Problem, build_problem
from dl3flow.fit.quadratic import solve
from dl3flow.fit.reach import constrained
from dl3flow.kernels.norm import NormFit, find_crossing
from dl3flow.models.compound import compound
from dl3flow.models.source import Component, Models, Parameter, Source, full_names

_UNSEEN = NormFit(*(np.nan,) * 5, 0.0, 0.0)


def refit_norm(
    datasets: Sequence[Dataset],
    models: Models,
    source: Source,
    lowest: float,
    signal: float,
    n_sigma: float = 1.0,
    n_sigma_ul: float = 2.0,
) -> tuple[NormFit, Models, Callable[[float], float]]:
    """Fit the norm of a source together with all other free parameters, whose best follows every norm in the errors too.

    The other sources keep their places and shapes, as in the test statistic of a fit, and the source keeps its spectrum.

    Parameters
    ----------
    datasets : sequence of Dataset
        Their ``mask_fit`` says which bins.
    models : Models
        At the best fit of all bins.
    source : Source
    lowest : float
        Strength at which the first prediction turns negative.
    signal : float
        Expected counts of norm 1; with none there is nothing to fit.
    n_sigma, n_sigma_ul : float

    Returns
    -------
    fit : NormFit
        As of `fit_norm`; NaN where the data in these bins do not see the source.
    best : Models
        All others at their best beside it.
    stat : function (norm) -> float
        Likelihood profile.
    """
    seen = [d for d in datasets if d.mask.any()]
    scaled, name = _with_norm(models, source, lowest)
    outlines = outlines_of(seen, scaled)
    reached = {s for o in outlines for s in o.sources}
    if source.name not in reached or not signal > 0:
        return _UNSEEN, models, lambda norm: np.nan
    scaled = replace(scaled, sources=tuple(s for s in scaled.sources if s.name in reached))
    scaled, _ = constrained(outlines, scaled)
    curve = _Curve(build_problem(seen, scaled, scaled, fit_limits(scaled)), scaled, name)
    norm, curvature = curve.norm, curve.curvature
    is_free = curvature > 0 and norm > lowest
    err = float(np.sqrt(2 / curvature)) if is_free else np.nan

    def crossing(start: float, rise: float, side: int) -> float:
        step = side * (rise / (2 * signal) + (np.sqrt(rise) * err if is_free else 0.0))
        at, target = np.array([start]), curve.stat(np.array([start])) + rise
        bounds = np.array([lowest]), np.array([True])
        return float(find_crossing(curve.stat, curve.derivatives, at, target, np.array([step]), *bounds)[0])

    fitted = NormFit(
        norm=norm,
        err=err,
        errn=norm - crossing(norm, n_sigma**2, -1),
        errp=crossing(norm, n_sigma**2, 1) - norm,
        ul=crossing(max(norm, 0.0), n_sigma_ul**2, 1),
        stat=curve.best.stat,
        stat_null=float(curve.stat(np.zeros(1))[0]),
    )
    return fitted, _at_best(models, scaled, curve), lambda norm: float(curve.stat(np.array([norm]))[0])


def _with_norm(models: Models, source: Source, lowest: float) -> tuple[Models, str]:
    """Models in which the source has one free parameter, a factor on its best fit, and the others keep their shapes."""
    names = {n for own in full_names(source).values() for n in own}
    parameters = models.parameters()
    labels = {parameters[n].link for n in names} - {""}
    # what another source shares with this one keeps its value with it
    shared = {n: replace(p, frozen=True) for n, p in parameters.items() if n in names or p.link in labels}
    frozen = with_frozen_shapes(models.with_parameters(shared))
    own = next(s for s in frozen.sources if s.name == source.name)
    kept = {
        part: replace(c, parameters=tuple(replace(p, link="", prior=None) for p in c.parameters))
        for part, c in own.parts.items()
    }
    low = lowest if np.isfinite(lowest) else np.nan
    norm = Component("scale", (Parameter("norm", max(1.0, lowest), min=low),))
    spectral = compound("mul", kept["spectral"], norm)
    own = replace(own, spectral=spectral, spatial=kept.get("spatial"), temporal=kept.get("temporal"))
    sources = tuple(own if s.name == source.name else s for s in frozen.sources)
    return replace(frozen, sources=sources), full_names(own)["spectral"][-1]


class _Curve:
    """The statistic as a function of the norm, all else at its best; where it was last looked at is kept."""

    def __init__(self, problem: Problem, models: Models, name: str) -> None:
        self.problem, self.name = problem, name
        self.limits = step_limits(problem, models)
        self.slot = problem.names.index(name)
        self.place = int(np.flatnonzero(problem.shared == self.slot)[0])
        self.best = self._descend(problem, problem.start)
        self._known = {float(self.best.x[self.slot]): self.best}

    @property
    def norm(self) -> float:
        """Best norm; what the search has left to go is taken off where the curvature says how much that is."""
        left = float(self.best.gradient[self.place]) / self.curvature if self.curvature > 0 else 0.0
        found = float(self.best.x[self.slot])
        return found - left if found > self.problem.low[self.slot] else found

    @property
    def curvature(self) -> float:
        """Second derivative at the best norm, all else following it."""
        rest = np.arange(len(self.problem.shared)) != self.place
        hessian = self.best.hessian
        mixed = hessian[self.place, rest]
        return float(hessian[self.place, self.place] - mixed @ solve(hessian[np.ix_(rest, rest)], mixed))

    def stat(self, c: np.ndarray) -> np.ndarray:
        """Statistic at a norm, shape (1,)."""
        return np.array([self._at(float(c[0])).stat])

    def derivatives(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First derivative at a norm, shape (1,); the second is not asked for."""
        return np.array([self._at(float(c[0])).gradient[self.place]]), np.array([np.nan])

    def _at(self, norm: float) -> Evaluation:
        if norm not in self._known:
            nearest = min(self._known, key=lambda c: abs(c - norm))
            x = self._known[nearest].x.copy()
            x[self.slot] = norm
            held = fixed_at(self.problem, x, (self.name,))
            self._known[norm] = self._descend(held, x)
        return self._known[norm]

    def _descend(self, problem: Problem, x: np.ndarray) -> Evaluation:
        # far from the minimum of few counts a step may overflow, and is not taken
        with np.errstate(all="ignore"):
            return descend(problem, x, self.limits).evaluation


def _at_best(models: Models, scaled: Models, curve: _Curve) -> Models:
    """Models of the whole fit with those values that were fitted anew."""
    fitted = dict(zip(curve.problem.names, curve.best.x, strict=True))
    leaders = {p.link: n for n, p in scaled.parameters().items() if p.link and n in fitted}
    known = models.parameters()
    changed = {}
    for name, p in scaled.parameters().items():
        leader = name if name in fitted else leaders.get(p.link)
        if name in known and leader in fitted and not p.frozen:
            changed[name] = replace(known[name], value=float(fitted[leader]))
    return models.with_parameters(changed)
