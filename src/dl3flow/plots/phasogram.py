"""Counts in bins of phase, over two periods."""

import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS


@PLOTS.register()
def phasogram(product: ProductTable, result: FitResult | None) -> Figure:
    """Counts with their Poisson errors, and the background of the off phases where there is one."""
    table = product.table
    edges = np.append(np.asarray(table["phase_min"]), float(table["phase_max"][-1]))
    counts = np.asarray(table["counts"], dtype=float)
    both, twice = np.append(edges, 1 + edges[1:]), np.tile(counts, 2)
    with style.applied():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        style.set_title(figure, "Counts against phase")
        for low, high in product.meta.get("off_phase") or []:
            for shift in (0, 1):
                axes.axvspan(low + shift, high + shift, color=style.LIGHT, alpha=0.6, lw=0)
        axes.stairs(twice, both, color=style.BLUE, lw=1.4, label="counts")
        centers = 0.5 * (both[:-1] + both[1:])
        axes.errorbar(centers, twice, yerr=np.sqrt(twice), fmt="none", ecolor=style.BLUE, elinewidth=1)
        if "background" in table.colnames:
            background = np.tile(np.asarray(table["background"], dtype=float), 2)
            axes.stairs(
                background, both, color=style.ORANGE, lw=1.6, baseline=None, label="background (off phases)"
            )
        axes.set_xlim(0, 2)
        axes.set_ylim(0, style.padded_limits([0.0], twice + np.sqrt(twice))[1])
        axes.set_xlabel("Phase (two periods)")
        axes.set_ylabel("Counts per bin")
        style.legend_above(axes)
    return figure
