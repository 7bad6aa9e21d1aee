"""Likelihood against the size of a source, with the best size and the upper limit."""

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS


@PLOTS.register()
def extension(product: ProductTable, result: FitResult | None) -> Figure:
    """Profile of the statistic over the size; the first point is the source as a point."""
    size, stat, meta = product.table["size"].to_value(u.deg), np.asarray(product.table["stat"]), product.meta
    source, shape = str(meta.get("source", "source")), str(meta.get("shape", "gauss"))
    best, limit = (meta.get(key) for key in ("size", "size_ul"))
    rise = float(meta.get("n_sigma_ul", 2)) ** 2
    with style.applied():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        style.set_title(figure, f"Extension of {source}")
        axes.plot(size, stat, "o-", ms=4, color=style.BLUE, label=f"profile ({shape})")
        if best is not None and np.isfinite(best):
            axes.axvline(best, color=style.GREEN, ls="--", lw=1.2, label=f"best {best:.3g}°")
        if limit is not None and np.isfinite(limit):
            axes.axvline(limit, color=style.VERMILION, lw=1.2, label=f"limit {limit:.3g}°")
            axes.axhline(rise, color=style.GREY, lw=0.8, ls=":")
        finite = stat[np.isfinite(stat)]
        top = max(2.5 * rise, 1.0)
        axes.set_ylim(min(0.0, float(finite.min(initial=0.0))) - 0.05 * top, top)
        axes.set_xlabel("Size (deg)")
        axes.set_ylabel("−2 ln L above the best")
        axes.grid(visible=True, color=style.LIGHT, lw=0.5)
        style.legend_above(axes)
        ts = meta.get("ts")
        if ts is not None:
            beyond = " The point lies above the picture." if len(stat) and stat[0] > top else ""
            style.add_note(
                figure, f"Test statistic of the extension: {round(float(ts), 1) + 0.0:.1f}.{beyond}"
            )
    return figure
