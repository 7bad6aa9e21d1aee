"""Flux in bins of phase, over two periods."""

import numpy as np
from astropy.table import QTable
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS
from dl3flow.units import FLUX

_ARROW = 0.08


@PLOTS.register()
def phase_curve(product: ProductTable, result: FitResult | None) -> Figure:
    """Flux with errors and upper limits; of several energy bands a panel each."""
    table, n_bands = product.table, int(product.meta.get("n_bands", 1))
    with style.applied():
        figure = style.new_figure(2.6 + 1.9 * n_bands)
        panels = np.ravel(figure.subplots(n_bands, 1, sharex=True))
        style.set_title(figure, f"Phase curve of {product.meta.get('source', 'source')}")
        for band, axes in enumerate(panels):
            _draw(axes, table[band::n_bands], product)
            low, high = (float(table[name][band].to_value("TeV")) for name in ("e_min", "e_max"))
            axes.text(
                0.01, 0.96, f"{low:.3g} to {high:.3g} TeV", transform=axes.transAxes, va="top", fontsize=8
            )
        panels[-1].set_xlabel("Phase (two periods)")
        style.legend_above(panels[0])
    return figure


def _draw(axes: Axes, table: QTable, product: ProductTable) -> None:
    names = ("flux", "flux_errn", "flux_errp", "flux_ul")
    value, errn, errp, limit = (np.tile(table[name].to_value(FLUX), 2) for name in names)
    low, high = (
        np.concatenate([np.asarray(table[name], dtype=float) + k for k in (0, 1)])
        for name in ("phase_min", "phase_max")
    )
    is_ul = np.tile(np.asarray(table["is_ul"], dtype=bool), 2)
    is_limit, is_point = is_ul & np.isfinite(limit), ~is_ul & np.isfinite(value)
    factor, power = style.power_of_ten(
        np.concatenate([(value + np.nan_to_num(errp))[is_point], limit[is_limit]])
    )
    value, errn, errp, limit = (x / factor for x in (value, errn, errp, limit))
    x, span = 0.5 * (low + high), 0.5 * np.array([high - low, high - low])
    if is_point.any():
        axes.errorbar(
            x[is_point],
            value[is_point],
            xerr=span[:, is_point],
            yerr=np.nan_to_num([errn[is_point], errp[is_point]]),
            fmt="o",
            ms=4.5,
            color=style.BLUE,
            elinewidth=1.2,
            label="flux",
        )
    bottom = np.concatenate([(value - np.nan_to_num(errn))[is_point], [0.0]])
    ends = style.padded_limits(
        bottom, np.concatenate([(value + np.nan_to_num(errp))[is_point], limit[is_limit]])
    )
    if is_limit.any():
        length = np.full(int(is_limit.sum()), _ARROW * (ends[1] - ends[0]))
        label = style.limit_label(product.meta)
        style.draw_limits(axes, x[is_limit], limit[is_limit], span[:, is_limit], length, label)
    axes.axhline(0, color=style.GREY, lw=0.8, ls=":")
    axes.set_ylim(*ends)
    axes.set_xlim(low.min(), high.max())
    axes.set_ylabel(f"Flux ({power}{style.unit_text(FLUX)})")
    axes.grid(visible=True, color=style.LIGHT, lw=0.5)
