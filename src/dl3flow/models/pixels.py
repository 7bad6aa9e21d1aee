"""A spatial model on pixels: the share of a source's flux in each pixel of a window, and how it changes with the model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Component
from dl3flow.models.spatial_registry import Expansion

# a model so small that this does not resolve it is a point but for rounding: its centroid and sum are exact
_MAX_OVERSAMPLING = 10
# steps of differences of a density and of its gradient in closed form, as parts of the distance between points
_STEP, _FINE_STEP = 1e-3, 1e-4
# step in rad of differences between pixel coordinates, which are smooth over degrees
_PLACE_STEP = 1e-4
# Lagrange's four-point formula on -1, 0, 1, 2: coefficients of 1, d, d^2, d^3 of each weight
_LAGRANGE = np.array(
    [
        [0.0, -1 / 3, 1 / 2, -1 / 6],
        [1.0, -1 / 2, -1.0, 1 / 2],
        [0.0, 1.0, 1 / 2, -1 / 2],
        [0.0, -1 / 6, 0.0, 1 / 6],
    ]
)


@dataclass(frozen=True, eq=False)
class PixelGrid:
    """Points at which a model is evaluated in a window of pixels; made once for many evaluations.

    Attributes
    ----------
    geom : SkyGeometry
        Window that holds the whole model.
    factor : int
        Points per pixel and direction; see `oversampling`.
    frame : str
        Frame of the model.
    lon, lat : array, shape (n_lat x factor, n_lon x factor)
        Directions in that frame, rad.
    """

    geom: SkyGeometry
    factor: int
    frame: str
    lon: np.ndarray
    lat: np.ndarray

    @classmethod
    def create(cls, geom: SkyGeometry, factor: int, frame: str) -> "PixelGrid":
        """Grid of ``factor`` x ``factor`` points in each pixel of ``geom``."""
        steps = (np.arange(factor) + 0.5) / factor - 0.5
        y = (np.arange(geom.shape[0])[:, None] + steps).reshape(-1, 1)
        x = (np.arange(geom.shape[1])[:, None] + steps).reshape(1, -1)
        lon, lat = geom.wcs.all_pix2world(*np.broadcast_arrays(x, y), 0)
        lon, lat = np.radians(lon), np.radians(lat)
        if frame != geom.frame:
            sky = SkyCoord(lon * u.rad, lat * u.rad, frame=geom.frame).transform_to(frame).spherical
            lon, lat = sky.lon.rad, sky.lat.rad
        return cls(geom, factor, frame, lon, lat)

    @property
    def cell(self) -> float:
        """Distance between points, rad."""
        return float(np.radians(self.geom.binsz)) / self.factor

    def averaged(self, density: np.ndarray) -> np.ndarray:
        """Mean over the points of each pixel, times its solid angle; shape (..., n_lat, n_lon)."""
        ny, nx = self.geom.shape
        n = self.factor
        if n > 1:
            rows = density.reshape(*density.shape[:-2], ny, n, nx * n).sum(axis=-2)
            density = sum((rows[..., k::n] for k in range(1, n)), rows[..., ::n]) / n**2
        return np.asarray(density * self.geom.solid_angle.value)


def depends_on_energy(model: ModelFunction) -> bool:
    """True if the shape of a model is another at every energy."""
    return bool(model.companions.get("by_energy"))


def pixel_fractions(
    model: ModelFunction, values: np.ndarray, grid: PixelGrid, energy: np.ndarray | None = None
) -> np.ndarray:
    """Share of the flux in each pixel of a window.

    A point is shared among the four nearest pixels so that its centroid is exact. Another model is averaged over the
    points of each pixel, times the pixel's solid angle, scaled to a sum of one and moved until its centroid is exact
    too: this changes only models smaller than a pixel, which so keep their position within the pixel. A model that is
    absolute (a constant, a template) is neither scaled nor moved.

    Parameters
    ----------
    model : ModelFunction
        Spatial.
    values : array, shape (n_par,)
        Parameters in rad, in the frame of the grid.
    grid : PixelGrid
    energy : array, shape (n_true,), TeV, or None
        Needed by a model whose shape depends on it.

    Returns
    -------
    fractions : array, shape (n_lat, n_lon), or (n_true, n_lat, n_lon) of a model whose shape depends on energy
    """
    return _pixelised(model, values, grid, energy, np.zeros(len(values), dtype=bool), 0).density


def pixel_integrals(
    model: ModelFunction, values: np.ndarray, grid: PixelGrid, energy: np.ndarray | None = None
) -> np.ndarray:
    """Density averaged over each pixel times its solid angle, as `pixel_fractions` before they are scaled and moved."""
    found = _evaluated(model, values, grid, energy, np.zeros(len(values), dtype=bool), 0)
    return grid.averaged(_finite(found).density)


def fraction_derivatives(
    model: ModelFunction,
    values: np.ndarray,
    grid: PixelGrid,
    is_free: np.ndarray,
    energy: np.ndarray | None = None,
    order: int = 2,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`pixel_fractions` and their first and second derivatives by the free parameters.

    They are the derivatives of the fractions themselves (averaging, scaling and centring by the product rule), in closed
    form where the model has one and by central differences otherwise. Those of a point jump where it crosses the centre
    of a row or column of pixels: it is shared linearly between two of them, so that its second derivative is only the
    mixed one.

    Parameters
    ----------
    model, values, grid, energy
        As for `pixel_fractions`.
    is_free : bool array, shape (n_par,)
    order : 0, 1 or 2
        Derivatives of a higher order are left out: their arrays are empty.

    Returns
    -------
    fractions : array, shape (n_lat, n_lon) or (n_true, n_lat, n_lon)
    gradient : array, shape (n_free, ...)
        Per internal unit of each free parameter, in their order.
    curvature : array, shape (n_free, n_free, ...)
    """
    values, is_free = np.asarray(values, dtype=float), np.asarray(is_free, dtype=bool)
    at = _pixelised(model, values, grid, energy, is_free, order)
    none = np.zeros((0, *at.density.shape))
    if order == 0:
        return at.density, none, none[:, None]
    if at.gradient is not None and (order == 1 or at.curvature is not None):
        return at.density, at.gradient, none[:, None] if at.curvature is None else at.curvature
    free = np.flatnonzero(is_free)
    steps = _steps(model, values, grid, _STEP if at.gradient is None else _FINE_STEP)

    def gradient(values: np.ndarray) -> np.ndarray:
        found = _pixelised(model, values, grid, energy, is_free, 1)
        if found.gradient is not None:
            return found.gradient
        return _differences(
            lambda v: pixel_fractions(model, v, grid, energy), values, free, steps, found.density.shape
        )

    first = gradient(values) if at.gradient is None else at.gradient
    if order == 1:
        return at.density, first, none[:, None]
    second = _differences(gradient, values, free, steps, first.shape)
    return at.density, first, 0.5 * (second + np.swapaxes(second, 0, 1))


def _steps(model: ModelFunction, values: np.ndarray, grid: PixelGrid, part: float) -> np.ndarray:
    is_angle = np.array(
        [unit.is_equivalent(u.rad) and unit != u.dimensionless_unscaled for unit in model.units]
    )
    steps = np.where(is_angle, part * grid.cell, 0.1 * part * np.maximum(np.abs(values), 0.1))
    if len(steps) > 1 and not model.companions.get("is_everywhere"):
        # a longitude moves a source by its cosine
        steps[0] /= max(np.cos(values[1]), 1e-3)
    return steps


def _differences(
    function: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    free: np.ndarray,
    steps: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Central differences of ``function`` by each free value; shape (n_free, *shape)."""
    found = np.zeros((len(free), *shape))
    for row, k in enumerate(free):
        ahead, behind = values.copy(), values.copy()
        ahead[k] += steps[k]
        behind[k] -= steps[k]
        found[row] = (function(ahead) - function(behind)) / (ahead[k] - behind[k])
    return found


def _pixelised(
    model: ModelFunction,
    values: np.ndarray,
    grid: PixelGrid,
    energy: np.ndarray | None,
    is_free: np.ndarray,
    order: int,
) -> Expansion:
    """Fractions and their derivatives by the free parameters, up to ``order`` where they have a closed form."""
    if model.companions.get("is_point"):
        return _point(grid, values, is_free, order)
    found = _finite(_evaluated(model, values, grid, energy, is_free, order))
    order = 0 if found.gradient is None else 1 if found.curvature is None else order
    stack = grid.averaged(_stack(found))
    n_free = int(np.sum(is_free)) if order else 0
    if not model.companions.get("is_absolute"):
        total = stack[0].sum(axis=(-2, -1))
        is_seen = total > 0
        # what falls between the points is a point
        stack[:, ~is_seen] = 1.0 if total.ndim else stack[:, ~is_seen]
        if not np.all(is_seen) and not total.ndim:
            return _point(grid, values, is_free, order)
        stack = _scaled(stack, n_free)
        if model.companions.get("is_symmetric", True):
            stack = _centred(stack, *_place(grid, values, is_free, order), n_free)
        if not np.all(is_seen):
            stack[:, ~is_seen] = _stack(_point(grid, values, is_free, order))[:, None]
    return _unstack(stack, n_free, order)


def _evaluated(
    model: ModelFunction,
    values: np.ndarray,
    grid: PixelGrid,
    energy: np.ndarray | None,
    is_free: np.ndarray,
    order: int,
) -> Expansion:
    _check_energy(model, energy)
    directions = (grid.lon, grid.lat) if "by_energy" not in model.companions else (grid.lon, grid.lat, energy)
    expand = model.companions.get("expand")
    if expand is not None:
        found: Expansion = expand(*directions, *values, is_free=is_free, cell=grid.cell, order=order)
        return found
    density = np.asarray(model.function(*directions, *values), dtype=float)
    gradient = model.companions.get("gradient")
    if order == 0 or gradient is None:
        return Expansion(density, None if is_free.any() else np.zeros((0, *density.shape)))
    return Expansion(density, gradient(*directions, *values)[is_free])


def _finite(found: Expansion) -> Expansion:
    """Without values that are none, off the projection or where a density diverges."""
    if all(part is None or np.isfinite(part.sum()) for part in found):
        return found

    def finite(part: np.ndarray | None) -> np.ndarray | None:
        return None if part is None else np.where(np.isfinite(part), part, 0.0)

    density = np.where(np.isfinite(found.density), found.density, 0.0)
    return Expansion(density, finite(found.gradient), finite(found.curvature))


def _pairs(n_free: int) -> Iterator[tuple[int, int]]:
    return ((k, m) for k in range(n_free) for m in range(k, n_free))


def _stack(found: Expansion) -> np.ndarray:
    """Density, gradient and the upper half of the curvature as one array, so that each step is done once."""
    parts = [found.density[None]]
    if found.gradient is not None:
        parts.append(found.gradient)
        if found.curvature is not None:
            parts += [found.curvature[k, m][None] for k, m in _pairs(len(found.gradient))]
    return np.concatenate(parts)


def _unstack(stack: np.ndarray, n_free: int, order: int) -> Expansion:
    if order == 0 and len(stack) == 1:
        return Expansion(stack[0])
    gradient = stack[1 : 1 + n_free]
    if order < 2:
        return Expansion(stack[0], gradient)
    curvature = np.empty((n_free, n_free, *stack.shape[1:]))
    for row, (k, m) in enumerate(_pairs(n_free), start=1 + n_free):
        curvature[k, m] = curvature[m, k] = stack[row]
    return Expansion(stack[0], gradient, curvature)


def _scaled(stack: np.ndarray, n_free: int) -> np.ndarray:
    """Fractions with a sum of one, and the derivatives of those."""
    totals = stack.sum(axis=(-2, -1), keepdims=True)
    scaled = np.empty_like(stack)
    scaled[0] = stack[0] / totals[0]
    for k in range(1, min(len(stack), n_free + 1)):
        scaled[k] = (stack[k] - scaled[0] * totals[k]) / totals[0]
    for row, (k, m) in enumerate(_pairs(n_free), start=1 + n_free):
        if row == len(stack):
            break
        cross = scaled[k + 1] * totals[m + 1] + scaled[m + 1] * totals[k + 1]
        scaled[row] = (stack[row] - cross - scaled[0] * totals[row]) / totals[0]
    return scaled


def _centred(stack: np.ndarray, x: np.ndarray, y: np.ndarray, n_free: int) -> np.ndarray:
    """Fractions whose centroid is a pixel: moved by at most a pixel with Lagrange's four-point formula.

    Parameters
    ----------
    stack : array, shape (n, ..., n_lat, n_lon)
        Fractions, and derivatives as in `_stack`.
    x, y : array, shape (n,)
        Where the centroid belongs, and derivatives likewise.
    n_free : int
    """
    for axis, place in ((-2, y), (-1, x)):
        profile = stack.sum(axis=-3 - axis)
        shift = place.reshape(-1, *(1,) * (profile.ndim - 2)) - profile @ np.arange(profile.shape[-1])
        stack = _moved(stack, shift, axis, n_free)
    return stack


def _moved(stack: np.ndarray, shift: np.ndarray, axis: int, n_free: int) -> np.ndarray:
    is_moved = (np.abs(shift[0]) > 0) & (np.abs(shift[0]) < 1)
    if not np.any(is_moved):
        return stack
    direction, d = np.where(shift[0] < 0, -1, 1), np.where(is_moved, np.abs(shift[0]), 0.0)
    n_second = len(stack) > n_free + 1
    # weights of the neighbours -2 ... 2 and their derivatives by the shift
    weights = np.zeros((3, 5, *d.shape))
    for order in range(1 + (n_free > 0) + (n_free > 0 and n_second)):
        powers = np.array([_falling(p, order) * d ** max(p - order, 0) for p in range(4)])
        for n, weight in zip((-1, 0, 1, 2), np.tensordot(_LAGRANGE, powers, 1), strict=True):
            for sign in (-1, 1):
                weights[order, 2 + sign * n] += np.where(
                    direction == sign, np.where(is_moved, weight * sign**order, (n == 0) * (order == 0)), 0.0
                )
    moved, turned, bent = np.zeros_like(stack), np.zeros_like(stack[: n_free + 1]), np.zeros_like(stack[0])
    for n in range(-2, 3):
        first, second, third = weights[:, n + 2, ..., None, None]
        if not weights[:, n + 2].any():
            continue
        neighbour = np.roll(stack, n, axis=axis)
        moved += first * neighbour
        if n_free:
            turned += second * neighbour[: n_free + 1]
            bent += third * neighbour[0]
    if n_free == 0:
        return moved
    step = shift[..., None, None]
    moved[1 : n_free + 1] += step[1 : n_free + 1] * turned[0]
    if n_second:
        for row, (k, m) in enumerate(_pairs(n_free), start=1 + n_free):
            moved[row] += (
                step[k + 1] * turned[m + 1]
                + step[m + 1] * turned[k + 1]
                + step[row] * turned[0]
                + step[k + 1] * step[m + 1] * bent
            )
    return moved


def _falling(power: int, order: int) -> int:
    """Factor of the derivative of that order of d^power."""
    return int(np.prod([power - k for k in range(order)])) if power >= order else 0


def _place(
    grid: PixelGrid, values: np.ndarray, is_free: np.ndarray, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel (x, y) of the model's position, and its derivatives by the free parameters as in `_stack`.

    By differences: a projection is smooth over degrees, so that they are exact to a part in 10^8.
    """
    at = grid.geom.pixel_at(values[0], values[1], grid.frame)
    free = np.flatnonzero(is_free)
    n = len(free)
    places = np.zeros((2, 1 + (order > 0) * n + (order > 1) * n * (n + 1) // 2))
    places[:, 0] = at
    if order == 0 or not (is_free[:2].any() and np.isfinite(at).all()):
        return places[0], places[1]
    h = _PLACE_STEP
    k, m = np.meshgrid([-1, 0, 1], [-1, 0, 1])
    around = _pixels_at(grid.geom, values[0] + h * k, values[1] + h * m, grid.frame)
    first = np.array([around[:, 1, 2] - around[:, 1, 0], around[:, 2, 1] - around[:, 0, 1]]) / (2 * h)
    second = np.empty((2, 2, 2))
    second[0, 0] = (around[:, 1, 2] - 2 * around[:, 1, 1] + around[:, 1, 0]) / h**2
    second[1, 1] = (around[:, 2, 1] - 2 * around[:, 1, 1] + around[:, 0, 1]) / h**2
    second[0, 1] = second[1, 0] = (around[:, 2, 2] - around[:, 2, 0] - around[:, 0, 2] + around[:, 0, 0]) / (
        4 * h**2
    )
    for row, p in enumerate(free, start=1):
        if p < 2:
            places[:, row] = first[p]
    if order > 1:
        for row, (a, b) in enumerate(_pairs(n), start=1 + n):
            if free[a] < 2 and free[b] < 2:
                places[:, row] = second[free[a], free[b]]
    return places[0], places[1]


def _pixels_at(geom: SkyGeometry, lon: np.ndarray, lat: np.ndarray, frame: str) -> np.ndarray:
    """Zero-based pixels (2, ...) of directions in rad of ``frame``."""
    if frame != geom.frame:
        x, y, z = fov.rotated(fov.unit_vectors(lon, lat), _rotation(frame, geom.frame))
        lon, lat = np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))
    return np.array(geom.wcs.all_world2pix(np.degrees(lon), np.degrees(lat), 0))


@lru_cache(maxsize=4)
def _rotation(frame: str, other: str) -> np.ndarray:
    axes = SkyCoord(*np.eye(3), representation_type="cartesian", frame=frame).transform_to(other)
    return np.asarray(axes.cartesian.xyz.value)


def _point(grid: PixelGrid, values: np.ndarray, is_free: np.ndarray, order: int) -> Expansion:
    """A point shared bilinearly among the four nearest pixels."""
    x, y = _place(grid, values, is_free, order)
    n_free = int(np.sum(is_free)) if order else 0
    # by none, by x, by y, by both
    shares = np.array(
        [_share_bilinear(grid.geom, x[0], y[0], *by) for by in ((0, 0), (1, 0), (0, 1), (1, 1))]
    )
    stack = np.zeros((len(x), *grid.geom.shape))
    stack[0] = shares[0]
    for row in range(1, len(x)):
        stack[row] = x[row] * shares[1] + y[row] * shares[2]
    if order > 1:
        for row, (k, m) in enumerate(_pairs(n_free), start=1 + n_free):
            stack[row] += (x[k + 1] * y[m + 1] + x[m + 1] * y[k + 1]) * shares[3]
    return _unstack(stack, n_free, order)


def _share_bilinear(geom: SkyGeometry, x: float, y: float, by_x: int = 0, by_y: int = 0) -> np.ndarray:
    """Shares of the four nearest pixels, or their derivatives by x and y."""
    fractions = np.zeros(geom.shape)
    i, j = int(np.floor(x)), int(np.floor(y))
    dx, dy = x - i, y - j
    along_y = (-1.0, 1.0) if by_y else (1 - dy, dy)
    along_x = (-1.0, 1.0) if by_x else (1 - dx, dx)
    for row, by_row in zip((j, j + 1), along_y, strict=True):
        for column, by_column in zip((i, i + 1), along_x, strict=True):
            if 0 <= row < geom.shape[0] and 0 <= column < geom.shape[1]:
                fractions[row, column] = by_row * by_column
    return fractions


def oversampling(
    model: ModelFunction, values: np.ndarray, geom: SkyGeometry, energy: np.ndarray | None = None
) -> int:
    """Points per pixel and direction that resolve the model at these parameters."""
    if "resolution" not in model.companions:
        return 1
    resolution = max(_at_energies("resolution", model, values, energy), 1e-12)
    return int(np.clip(np.ceil(np.radians(geom.binsz) / resolution), 1, _MAX_OVERSAMPLING))


def radius(model: ModelFunction, values: np.ndarray, energy: np.ndarray | None = None) -> float:
    """Distance from the position, rad, beyond which the model is taken as zero (at every one of the energies)."""
    return _at_energies("radius", model, values, energy)


def _at_energies(name: str, model: ModelFunction, values: np.ndarray, energy: np.ndarray | None) -> float:
    _check_energy(model, energy)
    at = {"energy": energy} if depends_on_energy(model) else {}
    return float(model.companions[name](*values, **at))


def _check_energy(model: ModelFunction, energy: np.ndarray | None) -> None:
    if energy is None and depends_on_energy(model):
        raise InputError(
            f"spatial model '{model.name}': its shape depends on energy, which only maps take: restrict the source to them by "
            "`datasets_names`, or give it another shape"
        )


def declared_position(component: Component) -> SkyCoord | None:
    """Direction that a spatial component states, in its frame; None if it is everywhere."""
    frame = str(component.options.get("frame", "icrs"))
    names = [p.name for p in component.parameters]
    if "lon_0" in names and "lat_0" in names:
        return SkyCoord(component["lon_0"].quantity, component["lat_0"].quantity, frame=frame)
    center = resolve(component, "spatial", f"spatial model '{component.kind}'").companions.get("center")
    found = None if center is None else center()
    return None if found is None else SkyCoord(found[0] * u.rad, found[1] * u.rad, frame=found[2])
