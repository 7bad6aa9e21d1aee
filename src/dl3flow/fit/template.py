"""A source's template in a window of pixels, with its derivatives by the free vector: made once for all datasets on those pixels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy

from dl3flow.fit.binding import Binding
from dl3flow.fit.flux import Varied, shared_slots
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import PixelGrid, fraction_derivatives, pixel_fractions, radius
from dl3flow.models.resolve import ModelFunction

# pixels around a template that its centring may fill
MARGIN = 3
# how far a source may walk, and grow, before its window is made anew
_DRIFT = 0.06
_GROWTH = 1.05
# a window is kept that is at most this much larger than need be
_ALIKE = 0.8


@dataclass(frozen=True)
class Window:
    """Pixels that hold a template, with room for it to move and grow.

    Attributes
    ----------
    row, column : int
        First pixel in the dataset's pixels; may lie outside its map.
    shape : (n_rows, n_columns)
    geom : SkyGeometry
        Of the pixels; windows of one template in maps on one pixel grid are equal.
    """

    row: int
    column: int
    shape: tuple[int, int]
    geom: SkyGeometry


def place_window(geom: SkyGeometry, spatial: Binding, frame: str, energy: np.ndarray | None) -> Window | None:
    """Window around a source at its start values; None off the projection."""
    if spatial.plugin.companions.get("is_everywhere"):
        return _window(geom, 0, 0, geom.shape)
    x, y = centre_pixel(geom, spatial.plugin, spatial.start, frame)
    if not (np.isfinite(x) and np.isfinite(y)):
        return None
    moves = spatial.is_free.any()
    half = _half_size(geom, spatial.plugin, spatial.start, _GROWTH if moves else 1.0, energy)
    half += int(np.ceil(_DRIFT / geom.binsz)) if moves else 0
    i, j = round(x), round(y)
    return _window(geom, j - half, i - half, (2 * half + 1, 2 * half + 1))


def _window(geom: SkyGeometry, row: int, column: int, shape: tuple[int, int]) -> Window:
    part = geom.part((row, row + shape[0]), (column, column + shape[1]))
    # the same pixels of the sky are one window whichever map they were cut from
    crpix = (round(part.crpix[0], 6), round(part.crpix[1], 6))
    return Window(row, column, shape, replace(part, crpix=crpix, corner=(0, 0)))


def _half_size(
    geom: SkyGeometry, model: ModelFunction, values: np.ndarray, growth: float, energy: np.ndarray | None
) -> int:
    extent = np.degrees(radius(model, values, energy)) * growth / geom.binsz
    return int(np.ceil(min(extent, sum(geom.shape)))) + MARGIN


def centre_pixel(
    geom: SkyGeometry, model: ModelFunction, values: np.ndarray, frame: str
) -> tuple[float, float]:
    """Pixel (x, y) of a model's position; that of the declared one where it is no parameter."""
    center = model.companions.get("center")
    if center is not None and (declared := center()) is not None:
        lon, lat, frame = declared
        return geom.pixel_at(lon, lat, frame)
    return geom.pixel_at(values[0], values[1], frame)


def holds(
    geom: SkyGeometry,
    model: ModelFunction,
    values: np.ndarray,
    frame: str,
    energy: np.ndarray | None = None,
) -> bool:
    """True if a window of these pixels holds the whole template at these values."""
    if model.companions.get("is_everywhere"):
        return True
    x, y = centre_pixel(geom, model, values, frame)
    half = _half_size(geom, model, values, 1.0, energy)
    n_rows, n_columns = geom.shape
    return bool(
        x - half >= -0.5 and y - half >= -0.5 and x + half < n_columns - 0.5 and y + half < n_rows - 0.5
    )


def suits(geom: SkyGeometry, spatial: Binding, frame: str, energy: np.ndarray | None) -> bool:
    """True if a window of these pixels holds the template at its start values, and one made for it would be hardly smaller."""
    window = place_window(geom, spatial, frame, energy)
    if window is None or not holds(geom, spatial.plugin, spatial.start, frame, energy):
        return False
    return all(new >= _ALIKE * old for new, old in zip(window.shape, geom.shape, strict=True))


TemplateFunction = Callable[[np.ndarray, bool, int], Varied]


def build_template(
    spatial: Binding, geom: SkyGeometry, factor: int, frame: str, energy: np.ndarray | None
) -> TemplateFunction:
    """Share of a source's flux in each pixel of a window, as a function of the free vector.

    Parameters
    ----------
    spatial : Binding
    geom : SkyGeometry
        Pixels of the window.
    factor : int
        Points per pixel and direction.
    frame : str
    energy : array, shape (n_true,), TeV, or None
        Where the shape depends on it.

    Returns
    -------
    template : function (x, is_smooth, order) -> Varied
        Of shape (n_rows, n_columns) or (n_true, n_rows, n_columns). Smooth derivatives of a point are differences over a
        pixel: exact ones jump at pixel centres. Derivatives of a higher order than asked for are left out.
    """
    grid = PixelGrid.create(geom, factor, frame)
    slots, to_slot = shared_slots(spatial)
    model, free = spatial.plugin, spatial.is_free

    def varied(x: np.ndarray, is_smooth: bool, order: int) -> Varied:
        values = spatial.values(x)
        if order > 0 and is_smooth and model.companions.get("is_point"):
            at, first, second = _wide_differences(model, values, grid, free)
        else:
            at, first, second = fraction_derivatives(model, values, grid, free, energy, order)

        def curvature() -> np.ndarray:
            return np.tensordot(to_slot, np.tensordot(to_slot, second, (1, 1)), (1, 1))

        return Varied(slots, at, np.tensordot(to_slot, first, 1) if order > 0 else first, curvature)

    return varied


def _wide_differences(
    model: ModelFunction, values: np.ndarray, grid: PixelGrid, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixel = np.radians(grid.geom.binsz)
    steps = 0.5 * pixel * np.array([1 / max(np.cos(values[1]), 1e-3), 1.0])
    at, rows = pixel_fractions(model, values, grid), []
    for k in np.flatnonzero(free):
        shift = np.zeros(len(values))
        shift[k] = steps[k]
        ahead, behind = (pixel_fractions(model, values + s * shift, grid) for s in (1, -1))
        rows.append((ahead - behind) / (2 * steps[k]))
    return at, np.array(rows), np.zeros((len(rows), len(rows), *at.shape))


def grid_length(window: Window, kernel_half: int) -> tuple[int, int]:
    """Periodic grid on which a window is convolved without wrapping around."""
    rows, columns = (int(scipy.fft.next_fast_len(n + 2 * kernel_half, real=True)) for n in window.shape)
    return rows, columns
