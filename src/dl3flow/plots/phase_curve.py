"""Flux in bins of phase, over two periods."""

import astropy.units as u
import numpy as np
from astropy.table import QTable
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.points import Points, draw_points, missing_note, told_limits
from dl3flow.plots.registry import PLOTS
from dl3flow.units import FLUX

_PANEL_HEIGHT = 2.1
_MOST_BANDS = 6


@PLOTS.register()
def phase_curve(product: ProductTable, result: FitResult | None) -> Figure:
    """Flux with errors and upper limits; of several energy bands a panel each."""
    table, n_bands = product.table, int(product.meta.get("n_bands", 1))
    shown = min(n_bands, _MOST_BANDS)
    notes = [f"{n_bands - shown} further energy bands are not drawn."] * (n_bands > shown)
    ends = [f"{low:.3g} to {high:.3g} TeV" for low, high in zip(*_energies(table, n_bands), strict=True)]
    with style.applied():
        figure = style.new_figure(4.2 if n_bands == 1 else 0.9 + _PANEL_HEIGHT * shown)
        panels = np.ravel(np.array(figure.subplots(shown, 1, sharex=True), dtype=object))
        within = f", {ends[0]}" if n_bands == 1 else ""
        style.set_title(figure, f"Phase curve of {product.meta.get('source', 'source')}{within}")
        for band, axes in enumerate(panels):
            points = _points(table[band::n_bands])
            power = _draw(axes, points, product)
            unit = f"({power}{style.unit_text(FLUX)})"
            axes.set_ylabel(f"Flux {unit}" if n_bands == 1 else f"{ends[band]}\n{unit}")
            if points.n_missing:
                told = missing_note(points, "bins")[:-1]
                notes.append(f"{told}." if n_bands == 1 else f"{told} at {ends[band]}.")
        panels[-1].set_xlabel("Phase (two periods)")
        style.legend_above(panels[0])
        if notes:
            style.add_note(figure, " ".join(notes))
    return figure


def _energies(table: QTable, n_bands: int) -> tuple[list[float], list[float]]:
    low, high = (table[name][:n_bands].to_value(u.TeV).tolist() for name in ("e_min", "e_max"))
    return low, high


def _points(table: QTable) -> Points:
    """Flux (cm-2 s-1) against phase, in one period."""
    low, high = (np.asarray(table[name], dtype=float) for name in ("phase_min", "phase_max"))
    columns = ("flux", "flux_errn", "flux_errp", "flux_ul")
    value, errn, errp, limit = (table[name].to_value(FLUX) for name in columns)
    is_ul = np.asarray(table["is_ul"], dtype=bool)
    return Points(0.5 * (low + high), low, high, value, errn, errp, limit, is_ul)


def _draw(axes: Axes, points: Points, product: ProductTable) -> str:
    """One band over two periods; the power of ten that its fluxes are in."""
    factor, power = style.power_of_ten(points.top)
    points = points.over(factor)
    low, high = style.padded_limits(np.append(points.bottom, 0.0), points.top)
    limits = told_limits(points, product.meta)
    draw_points(axes, points, "flux", limits, height=high - low)
    draw_points(axes, points.on_scale(-1.0, 1.0), "", "", height=high - low)
    axes.axhline(0, color=style.GREY, lw=0.8, ls=":")
    axes.set_ylim(low, high)
    axes.set_xlim(float(points.low.min()), 1 + float(points.high.max()))
    axes.grid(visible=True)
    return power
