"""A page of sky panels with all that belongs on them: sources, circles, beam, contours, exclusion, and a note of what is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import region_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.plots import sky, style

CONTOUR_SIGMA = 5.0
# a scale to the peak of a bright source would leave nothing to see around it
MOST_SIGMA = 10.0
_ROW_HEIGHT = 3.45
# part of a row that what stands below the panels takes
_BELOW = 0.72


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a page.

    Attributes
    ----------
    values : array, shape (n_lat, n_lon)
    title, label : str
        Of the panel and of its colour bar.
    is_signed : bool
        Whether colours diverge from zero.
    top : float or None
        Largest colour; the largest value by default.
    contour : array, shape (n_lat, n_lon), or None
        Significance whose contour is drawn.
    is_named : bool
        Whether sources carry their names.
    """

    values: np.ndarray
    title: str
    label: str
    is_signed: bool = False
    top: float | None = None
    contour: np.ndarray | None = None
    is_named: bool = False


def significance_panel(values: np.ndarray, title: str = "Significance") -> Panel:
    """Panel of a significance, whose colours end at a fixed one where a source is brighter."""
    finite = np.abs(values[np.isfinite(values)])
    top = min(float(finite.max(initial=0)), MOST_SIGMA)
    return Panel(values, title, "√TS (σ)", True, top, contour=values, is_named=True)


def quantity_panel(data: Map, values: np.ndarray, title: str, *, is_signed: bool = False) -> Panel:
    """Panel of a map with a unit, in the power of ten of its largest value."""
    factor, power = style.power_of_ten(values)
    label = f"{power}{style.unit_text(data.unit)}".strip()
    return Panel(values / factor, title, label, is_signed)


def draw_page(
    product: SkyMap,
    geom: SkyGeometry,
    title: str,
    panels: Sequence[Panel],
    sigma: np.ndarray | None = None,
    *,
    columns: int = 2,
    below: Callable[[Axes], None] | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """Figure of all panels, so many in a row.

    Parameters
    ----------
    product : SkyMap
        Its ``meta`` tells of sources, radii, beam and exclusion.
    geom : SkyGeometry
    title : str
    panels : sequence of Panel
    sigma : array, shape (n_lat, n_lon), optional
        Significance, for the note, and the outline of the exclusion.
    columns : int
    below : function of Axes, optional
        Draws what stands below the panels.
    notes : sequence of str
        Further sentences.
    """
    rows = -(-len(panels) // columns)
    heights = [1.0] * rows + [_BELOW] * (below is not None)
    text = product.meta.get("exclusion")
    exclusion = None if text is None else RegionGeometry(text)
    with style.applied():
        figure = style.new_figure(0.45 + _ROW_HEIGHT * sum(heights) * 2 / columns)
        style.set_title(figure, title)
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        drawn = [
            sky.draw_panel(
                figure,
                grid[n // columns, n % columns],
                geom,
                panel.values,
                panel.title,
                panel.label,
                signed=panel.is_signed,
                vmax=panel.top,
                is_left=n % columns == 0,
                is_bottom=n + columns >= len(panels),
            )
            for n, panel in enumerate(panels)
        ]
        if below is not None:
            below(figure.add_subplot(grid[rows, :]))
        told = [*_mark(product, geom, panels, drawn, sigma, exclusion), *notes]
        _name_sources(figure, product, geom, panels, drawn, told)
    return figure


def _mark(
    product: SkyMap,
    geom: SkyGeometry,
    panels: Sequence[Panel],
    drawn: Sequence[WCSAxes],
    sigma: np.ndarray | None,
    exclusion: RegionGeometry | None,
) -> list[str]:
    """Circle, beam, contours and exclusion; what the note says of them."""
    told = []
    radius, beam = (float(product.meta.get(name) or 0.0) for name in ("correlation_radius", "beam"))
    if radius:
        told.append(f"Circle: correlation radius {radius:g}°.")
        for axes in drawn:
            sky.draw_circle(axes, geom, radius)
    if beam:
        told.append(f"Disk: point spread (68 %), {beam:.2g}°.")
        for axes in drawn:
            sky.draw_beam(axes, geom, beam)
    contours = [
        sky.draw_contours(axes, panel.contour, CONTOUR_SIGMA)
        for axes, panel in zip(drawn, panels, strict=True)
        if panel.contour is not None
    ]
    told += [f"Contours: {CONTOUR_SIGMA:g} σ."] * any(contours)
    if sigma is not None:
        named = [axes for axes, panel in zip(drawn, panels, strict=True) if panel.is_named]
        if exclusion is not None and any(
            [sky.draw_outline(axes, region_mask(geom, exclusion.regions)) for axes in named]
        ):
            told.append("Dashed: exclusion.")
        if np.isfinite(sigma).any():
            told.append(f"Largest significance: {np.nanmax(sigma):.1f} σ.")
    if any(not np.isfinite(panel.values).all() for panel in panels):
        told.append("Grey: no data.")
    return told


def _name_sources(
    figure: Figure,
    product: SkyMap,
    geom: SkyGeometry,
    panels: Sequence[Panel],
    drawn: Sequence[WCSAxes],
    told: list[str],
) -> None:
    """Crosses and names, placed by their extent: the layout must be settled before."""
    positions = sky.sky_positions(product.meta)
    style.add_note(figure, " ".join(told) or " ")
    figure.draw_without_rendering()
    unnamed: list[str] = []
    for axes, panel in zip(drawn, panels, strict=True):
        left = sky.mark_sources(axes, geom, positions, with_names=panel.is_named)
        unnamed = left or unnamed
    if unnamed:
        told.append(f"No place for the names of: {', '.join(unnamed)}.")
    style.add_note(figure, " ".join(told) or " ")
