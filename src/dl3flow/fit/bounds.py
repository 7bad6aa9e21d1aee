"""Where the entries of a fit's free vector may lie, and how far one step may take them."""

from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np

from dl3flow.fit.binding import free_parameters
from dl3flow.fit.newton import StepLimits
from dl3flow.fit.problem import Problem, holds_all, is_fine
from dl3flow.fit.search import SEARCH_RADIUS
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Models, Parameter, full_names

_POSITION = ("lon_0", "lat_0")
_LARGEST_STEP = 0.2 * u.deg
_SMALLEST_SIZE = 1e-4 * u.deg
_SMALLEST_SCALE = 1e-2
# in one step: of a strength, of another value, or of its error where that is larger
_DOWN, _UP, _OTHER, _ERRORS = 0.7, 1.5, 0.3, 3.0
# the data may say nothing of a parameter: its error is no guide then
_FARTHEST = 1e3
# of a size, whatever its error: a source that has shrunk to a point says nothing of its size any more
_SHRINK, _GROW = 0.4, 0.8
STRENGTHS = ("amplitude", "norm", "const", "value")


def fit_limits(models: Models) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each entry of the free vector, infinite for none.

    A position without limits stays within twice the search radius of its start, an extension above 1e-4 deg.
    """
    names, _ = free_parameters(models)
    parameters, sizes = models.parameters(), _extents(models)
    pairs = [_limits(name, parameters[name], parameters, name in sizes) for name in names]
    low, high = np.array(pairs).reshape(-1, 2).T
    return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)


def size_names(models: Models) -> dict[str, str]:
    """Full names of the parameters that are a source's extension, with the source's name."""
    found = {}
    for source in models.sources:
        if source.spatial is not None:
            size = resolve(source.spatial, "spatial", source.name).companions.get("size")
            own = [p.name for p in source.spatial.parameters]
            if size:
                found[full_names(source)["spatial"][own.index(size)]] = source.name
    return found


def _extents(models: Models) -> set[str]:
    """Full names of all angles that are widths or radii of sources: nothing is narrower than nothing."""
    return {
        full
        for s in models.sources
        if s.spatial is not None
        for full, p in zip(full_names(s)["spatial"], s.spatial.parameters, strict=True)
        if p.name not in (*_POSITION, "phi")
        and p.unit.is_equivalent(u.deg)
        and p.unit != u.dimensionless_unscaled
    }


def strength_names(models: Models, names: Sequence[str]) -> tuple[str, ...]:
    """Entries of the free vector in which the flux of a source is linear."""
    own = {s.name for s in models.sources}
    split = [(name, *name.split(".", 1)) for name in names]
    return tuple(name for name, model, kind in split if model in own and kind in STRENGTHS)


def _limits(
    name: str, p: Parameter, parameters: Mapping[str, Parameter], is_size: bool
) -> tuple[float, float]:
    low, high = p.min, p.max
    model, kind = name.rsplit(".", 1)
    if kind in _POSITION:
        reach = 2 * float(SEARCH_RADIUS.to_value(p.unit))
        if kind == "lon_0":
            # near the pole the search radius spans all longitudes
            shrunk = max(np.cos(parameters[f"{model}.lat_0"].quantity.to_value(u.rad)), 1e-3)
            reach = min(reach / shrunk, float((180 * u.deg).to_value(p.unit)))
        low = p.value - reach if np.isnan(low) else low
        high = p.value + reach if np.isnan(high) else high
    if is_size:
        smallest = float(_SMALLEST_SIZE.to_value(p.unit))
        low = smallest if np.isnan(low) or low <= 0 else low
        # a window grows with the extension: a trial step must not fill the memory
        high = max(5 * p.value, float((0.5 * u.deg).to_value(p.unit))) if np.isnan(high) else high
    if kind in ("exposure_scale", "background_scale"):
        # at nothing at all the statistic is flat
        low = np.fmax(low, _SMALLEST_SCALE)
    if kind == "e":
        low, high = np.fmax(low, 0.0), np.fmin(high, 0.99)
    return low, high


def step_limits(problem: Problem, models: Models) -> StepLimits:
    """How far one step of a search may go: far enough to arrive soon, not so far that it loses the source."""
    parameters = models.parameters()
    is_position = np.array([name.rsplit(".", 1)[1] in _POSITION for name in problem.names], dtype=bool)
    largest = np.array(
        [
            float(_LARGEST_STEP.to_value(parameters[n].unit)) if p else np.inf
            for n, p in zip(problem.names, is_position, strict=True)
        ]
    )

    sizes = size_names(models)
    is_strength = np.array([n.rsplit(".", 1)[1] in STRENGTHS for n in problem.names], dtype=bool)
    is_size = np.array([n in sizes for n in problem.names], dtype=bool)

    def reach(x: np.ndarray, error: np.ndarray, strength: float, size: float) -> np.ndarray:
        share = np.where(is_strength, strength, _OTHER)
        size_of = np.where(x == 0, np.inf, _FARTHEST * np.abs(x))
        free = np.maximum(share * np.abs(x), np.minimum(_ERRORS * error, size_of))
        return np.where(is_position, largest, np.where(is_size, size * np.abs(x), free))

    def up(x: np.ndarray, error: np.ndarray) -> np.ndarray:
        return reach(x, error, _UP, _GROW)

    def down(x: np.ndarray, error: np.ndarray) -> np.ndarray:
        return reach(x, error, _DOWN, _SHRINK)

    return StepLimits(
        down, up, lambda x: holds_all(problem, models, x), lambda x: is_fine(problem, models, x)
    )
