"""One observation (DL3): its events on the sky, in energy, time and offset, and its responses."""

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import SubplotSpec

from dl3flow.data.observation import Observation
from dl3flow.data.products import FitResult
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS
from dl3flow.plots.responses import ROW_HEIGHT, draw_responses, panel_rows

_RESPONSES = ("aeff", "edisp", "psf", "bkg", "rad_max")
_EVENTS_HEIGHT = 6.0
# pixels from one side of the field to the other
_N_PIXELS = 60
_BINS_PER_DECADE = 8
_N_TIMES = 30
_N_RINGS = 20
# events beyond this part of the widest offsets are few, and would shrink the rest
_CONTENT = 98
_LEAST_FIELD = 0.1  # deg


@PLOTS.register()
def observation(product: Observation, result: FitResult | None) -> Figure:
    """Events in four views, and a panel for each response."""
    tables = {name: getattr(product, name) for name in _RESPONSES}
    irfs = {name: table for name, table in tables.items() if table is not None}
    heights = [_EVENTS_HEIGHT, ROW_HEIGHT * panel_rows(irfs)]
    with style.applied():
        figure = style.new_figure(sum(heights) + 0.5)
        style.set_title(figure, _title(product))
        upper, lower = np.ravel(np.array(figure.subfigures(2, 1, height_ratios=heights), dtype=object))
        _draw_events(upper, product)
        draw_responses(lower, irfs)
        # an event list may be of any time; that of the good times is what a reduction bins
        outside = int((~product.gti.holds(product.events)).sum())
        if outside:
            style.add_note(figure, f"{outside} of {len(product.events)} events lie outside the good times.")
    return figure


def _title(product: Observation) -> str:
    target = str(product.meta.get("object") or "")
    minutes = product.ontime.to_value(u.min)
    n = len(product.events)
    return f"Observation {product.obs_id}{f' of {target}' if target else ''}: {n} events in {minutes:.4g} min"


def _draw_events(parent: SubFigure, product: Observation) -> None:
    offset = product.pointing.separation(product.events.radec).to_value(u.deg)
    reach = max(float(np.percentile(offset, _CONTENT)) if offset.size else 1.0, _LEAST_FIELD)
    grid = parent.add_gridspec(2, 2)
    _draw_sky(parent, grid[0, 0], product, reach)
    _draw_energy(parent.add_subplot(grid[0, 1]), product.events.energy.to_value(u.TeV))
    _draw_time(parent.add_subplot(grid[1, 0]), product)
    _draw_offset(parent.add_subplot(grid[1, 1]), offset, reach)


def _draw_sky(parent: SubFigure, cell: SubplotSpec, product: Observation, reach: float) -> None:
    side = 2 * reach
    geom = SkyGeometry.create(product.pointing, side * u.deg, side / _N_PIXELS * u.deg, "TAN")
    rows, columns, inside = geom.index(product.events.radec)
    counts = np.zeros(geom.shape)
    np.add.at(counts, (rows[inside], columns[inside]), 1)
    axes = sky.draw_panel(parent, cell, geom, counts, "", f"events per ({side / _N_PIXELS:.2g}°)²")
    x, y = geom.pixel(product.pointing)
    axes.plot(float(x), float(y), "x", ms=7, mew=1.6, color=style.VERMILION, label="pointing")
    style.legend_above(axes)


def _draw_energy(axes: Axes, energy: np.ndarray) -> None:
    low, high = (float(energy.min()), float(energy.max())) if energy.size else (0.1, 10.0)
    steps = np.arange(
        np.floor(np.log10(low) * _BINS_PER_DECADE), np.ceil(np.log10(high) * _BINS_PER_DECADE) + 2
    )
    edges = 10 ** (steps / _BINS_PER_DECADE)
    counts = np.histogram(energy, edges)[0]
    axes.stairs(counts, edges, color=style.BLUE, lw=1.4)
    style.set_log_axis(axes, "y", 0.6, max(2.0, 2.0 * float(counts.max(initial=1))), style.count_label)
    style.set_energy_axis(axes, edges[0], edges[-1])
    axes.set_ylabel("Events per bin")
    axes.grid(visible=True)


def _draw_time(axes: Axes, product: Observation) -> None:
    """Rate of the events between the first and the last good time, which are marked."""
    events, gti = product.events, product.gti
    begin = float(gti.start.to_value(u.s).min())
    start, stop = ((t.to_value(u.s) - begin) / 60 for t in (gti.start, gti.stop))
    time = ((events.time + (events.reference - gti.reference).to(u.s)).to_value(u.s) - begin) / 60
    edges = np.linspace(0, float(stop.max()), _N_TIMES + 1)
    counts = np.histogram(time, edges)[0]
    widths = 60 * np.diff(edges)
    for n, (a, b) in enumerate(zip(start, stop, strict=True)):
        axes.axvspan(a, b, color=style.LIGHT, alpha=0.5, lw=0, label="good times" if n == 0 else None)
    centers = 0.5 * (edges[:-1] + edges[1:])
    axes.errorbar(
        centers,
        counts / widths,
        yerr=np.sqrt(counts) / widths,
        fmt="o",
        ms=2.8,
        color=style.BLUE,
        elinewidth=1,
    )
    axes.set_ylim(0, 1.15 * float(((counts + np.sqrt(counts)) / widths).max(initial=0)) or 1.0)
    axes.set_xlabel(f"Minutes after MJD {(gti.reference + begin * u.s).mjd:.4f}")
    axes.set_ylabel("Rate (s⁻¹)")
    style.legend_above(axes)


def _draw_offset(axes: Axes, offset: np.ndarray, reach: float) -> None:
    edges = np.linspace(0, reach**2, _N_RINGS + 1)
    counts = np.histogram(offset**2, edges)[0]
    axes.stairs(counts, edges, color=style.BLUE, lw=1.4)
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, 1.15 * float(counts.max(initial=1)))
    axes.set_xlabel("Squared offset (deg²)")
    axes.set_ylabel("Events per bin")
    axes.grid(visible=True)
