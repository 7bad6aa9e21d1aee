"""Events against their squared distance from a source."""

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS


@PLOTS.register()
def theta_squared(product: ProductTable, result: FitResult | None) -> Figure:
    """Counts around the place with their Poisson errors, the scaled off counts, and the cut within which excess is counted."""
    table = product.table
    edges = np.append(table["theta2_min"].to_value(u.deg**2), table["theta2_max"][-1].to_value(u.deg**2))
    centers = 0.5 * (edges[:-1] + edges[1:])
    counts, off, alpha = (np.asarray(table[n], dtype=float) for n in ("counts", "counts_off", "alpha"))
    background, error = alpha * off, alpha * np.sqrt(off)
    with style.applied():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        style.set_title(figure, "Events against squared distance")
        axes.stairs(background, edges, fill=True, color=style.LIGHT)
        axes.stairs(background, edges, color=style.ORANGE, lw=1.4, label="off counts × α")
        axes.errorbar(centers, background, yerr=error, fmt="none", ecolor=style.ORANGE, elinewidth=1)
        axes.errorbar(
            centers,
            counts,
            yerr=np.sqrt(counts),
            xerr=0.5 * np.diff(edges),
            fmt="o",
            ms=3.5,
            color=style.BLUE,
            elinewidth=1,
            label="on counts",
        )
        cut = product.meta.get("cut")
        if cut:
            axes.axvline(float(cut) ** 2, color=style.GREY, ls="--", lw=1, label=f"θ = {float(cut):.3g}°")
        axes.set_xlim(edges[0], edges[-1])
        top = np.concatenate([counts + np.sqrt(counts), background + error])
        axes.set_ylim(0, style.padded_limits([0.0], top)[1])
        axes.set_xlabel("θ² (deg²)")
        axes.set_ylabel("Counts per bin")
        style.legend_above(axes)
    return figure
