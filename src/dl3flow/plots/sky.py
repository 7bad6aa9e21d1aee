"""One panel of the sky: WCS axes, image, colour bar, source markers and the circle of correlation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib import colormaps
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.plots import style

_AXIS_NAMES = {
    "icrs": ("Right ascension", "Declination"),
    "galactic": ("Galactic longitude", "Galactic latitude"),
}
_NO_DATA = "#BDBDBD"
# where a name may stand beside its marker, in points, in order of preference
_PLACES = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (14, 14, "left", "bottom"),
    (-14, 14, "right", "bottom"),
    (14, -14, "left", "top"),
    (-14, -14, "right", "top"),
    (0, 28, "center", "bottom"),
    (0, -28, "center", "top"),
)
_FAR_POINTS = 10


def image(data: Map) -> np.ndarray:
    """Sky image of a map with no axis but the sky, or with axes of one bin."""
    return np.asarray(data.data.reshape(data.geom.shape), dtype=float)


def draw_panel(
    figure: Figure | SubFigure,
    cell: SubplotSpec,
    geom: SkyGeometry,
    values: np.ndarray,
    title: str,
    bar_label: str,
    *,
    signed: bool = False,
    vmax: float | None = None,
    is_left: bool = True,
    is_bottom: bool = True,
) -> WCSAxes:
    """Image with its colour bar; signed values get a diverging colour map centred on zero.

    Parameters
    ----------
    values : array, shape (n_lat, n_lon)
        NaN where there are no data, drawn grey.
    vmax : float, optional
        Largest colour; by default the largest value.
    is_left, is_bottom : bool
        Whether the panel carries the labels of its latitude and longitude axis.
    """
    axes = sky_axes(figure, cell, geom, is_left=is_left, is_bottom=is_bottom)
    finite = values[np.isfinite(values)]
    top = (
        vmax
        if vmax is not None
        else float(np.abs(finite).max() if signed else finite.max())
        if finite.size
        else 1.0
    )
    top = top or 1.0
    bottom = -top if signed else min(0.0, float(finite.min())) if finite.size else 0.0
    colours = colormaps[style.DIVERGING if signed else style.SEQUENTIAL].with_extremes(bad=_NO_DATA)
    shown = axes.imshow(values, cmap=colours, vmin=bottom, vmax=top, origin="lower", interpolation="nearest")
    beyond = bool(finite.size) and (float(finite.max()) > top, float(finite.min()) < bottom)
    extend = {(True, True): "both", (True, False): "max", (False, True): "min"}.get(
        beyond or (False, False), "neither"
    )
    figure.colorbar(shown, ax=axes, label=bar_label, fraction=0.046, pad=0.03, extend=extend)
    axes.set_title(title)
    axes.coords.grid(color=style.GREY if signed else style.PAPER, alpha=0.25, lw=0.5)
    return axes


def sky_axes(
    figure: Figure | SubFigure,
    cell: SubplotSpec,
    geom: SkyGeometry,
    *,
    is_left: bool = True,
    is_bottom: bool = True,
) -> WCSAxes:
    """Empty axes of the sky with few ticks in degrees, at the left and below only."""
    axes = figure.add_subplot(cell, projection=geom.wcs)
    assert isinstance(axes, WCSAxes)
    names = _AXIS_NAMES[geom.frame]
    for coordinate, name, is_shown, side in zip(axes.coords, names, (is_bottom, is_left), "bl", strict=True):
        coordinate.set_format_unit("deg", decimal=True, show_decimal_unit=False)
        coordinate.set_ticks(number=4)
        coordinate.set_axislabel(f"{name} (deg)" if is_shown else "", minpad=0.9)
        coordinate.set_auto_axislabel(False)
        coordinate.set_ticklabel_visible(is_shown)
        coordinate.set_ticks_position(side)
        coordinate.set_ticklabel_position(side)
        coordinate.set_axislabel_position(side)
    axes.set_xlim(-0.5, geom.shape[1] - 0.5)
    axes.set_ylim(-0.5, geom.shape[0] - 0.5)
    return axes


def mark_sources(
    axes: WCSAxes, geom: SkyGeometry, positions: Mapping[str, Sequence[float]], *, with_names: bool
) -> list[str]:
    """Crosses at the sources that lie on the map, with names where they fit beside each other.

    Parameters
    ----------
    positions : mapping of name to (lon, lat)
        ICRS, deg.

    Returns
    -------
    unnamed : list of str
        Sources whose name found no free place.
    """
    unnamed = []
    stroke = [withStroke(linewidth=2.2, foreground=style.PAPER)]
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels: dict[str, tuple[float, float]] = {}
    for name, (lon, lat) in positions.items():
        x, y = geom.pixel(SkyCoord(lon * u.deg, lat * u.deg))
        if -0.5 <= x < geom.shape[1] - 0.5 and -0.5 <= y < geom.shape[0] - 0.5:
            pixels[name] = (float(x), float(y))
    taken = []
    for at in pixels.values():
        (cross,) = axes.plot(*at, "+", ms=8, mew=1.4, color=style.BLACK, path_effects=stroke, gid="source")
        taken.append(cross.get_window_extent(renderer))
    if not with_names:
        return []
    frame = axes.get_window_extent(renderer)
    for name, at in pixels.items():
        for dx, dy, ha, va in _PLACES:
            label = axes.annotate(
                style.plain(name),
                at,
                xytext=(dx, dy),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize="small",
                color=style.BLACK,
                path_effects=stroke,
                gid="source name",
                arrowprops={"arrowstyle": "-", "color": style.BLACK, "lw": 0.7}
                if max(abs(dx), abs(dy)) > _FAR_POINTS
                else None,
            )
            label.update_positions(renderer)
            # the text alone: the annotation's own extent holds the line to its marker too
            box = Text.get_window_extent(label, renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()
        else:
            unnamed.append(name)
    return unnamed


def draw_circle(axes: WCSAxes, geom: SkyGeometry, radius_deg: float) -> None:
    """Circle of the correlation radius in the lower left corner, on white."""
    radius = radius_deg / geom.binsz
    ny, nx = geom.shape
    if 2 * radius > 0.8 * min(nx, ny):
        return
    at = (radius + 0.04 * nx, radius + 0.04 * ny)
    axes.add_patch(
        Circle(at, radius, fc=style.PAPER, ec=style.BLACK, lw=1.2, alpha=0.9, gid="correlation circle")
    )


def draw_beam(axes: WCSAxes, geom: SkyGeometry, radius_deg: float) -> None:
    """Disk of the point spread in the lower right corner."""
    radius = radius_deg / geom.binsz
    ny, nx = geom.shape
    if 2 * radius > 0.4 * min(nx, ny):
        return
    at = (nx - 1 - radius - 0.04 * nx, radius + 0.04 * ny)
    axes.add_patch(Circle(at, radius, fc=style.GREY, ec=style.PAPER, lw=1.0, gid="beam"))


def draw_contours(axes: WCSAxes, significance: np.ndarray, level: float) -> bool:
    """Contour at a significance, if any pixel reaches it."""
    finite = np.isfinite(significance)
    if not (finite.any() and float(significance[finite].max()) > level):
        return False
    filled = np.where(finite, significance, 0.0)
    if min(filled.shape) < 2:
        return False
    axes.contour(filled, levels=[level], colors=[style.BLACK], linewidths=1.0)
    return True


def draw_outline(axes: WCSAxes, covered: np.ndarray) -> bool:
    """Dashed line around the pixels that are True, if there are such and others."""
    if covered.all() or not covered.any() or min(covered.shape) < 2:
        return False
    axes.contour(covered.astype(float), levels=[0.5], colors=[style.GREY], linewidths=1.0, linestyles=["--"])
    return True


def sky_positions(meta: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Source positions of a map's meta, ICRS, deg."""
    return {str(name): (float(p[0]), float(p[1])) for name, p in meta.get("source positions", {}).items()}


def with_sources(product: Any, sources: Mapping[str, Any]) -> Any:
    """A sky map with further source positions (ICRS, deg, by name) to mark; any other product as it is."""
    if not isinstance(product, SkyMap) or not sources:
        return product
    return replace(
        product, meta={**product.meta, "source positions": {**sources, **sky_positions(product.meta)}}
    )
