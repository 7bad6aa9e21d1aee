"""Counts, background and significance of the rows of a table of counts."""

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS


@PLOTS.register()
def counts_table(product: ProductTable, result: FitResult | None) -> Figure:
    """Counts, background and excess above, the significance below: against energy, livetime, or in the order of the datasets."""
    table, is_cumulative = product.table, bool(product.meta.get("cumulative"))
    counts, background, excess, root = (
        np.asarray(table[name], dtype=float) for name in ("counts", "background", "excess", "sqrt_ts")
    )
    of_energy = "e_min" in table.colnames
    if of_energy:
        x = table["e_min"].to_value(u.TeV)
    elif is_cumulative:
        x = table["livetime"].to_value(u.h)
    else:
        x = np.arange(1.0, len(table) + 1)
    with style.applied():
        figure = style.new_figure(5.0)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        style.set_title(figure, "Counts and significance")
        look = {"ms": 4, "ls": "-" if is_cumulative else "none", "lw": 1}
        upper.plot(x, counts, "o", color=style.BLUE, label="counts", **look)
        upper.plot(x, background, "s", color=style.ORANGE, label="background", **look)
        upper.plot(x, excess, "D", color=style.GREEN, label="excess", **look)
        lower.plot(x, root, "o", color=style.BLACK, **look)
        lower.axhline(0, color=style.GREY, lw=0.8)
        upper.set_ylim(*style.padded_limits([0.0], np.concatenate([counts, background, excess])))
        lower.set_ylim(*style.padded_limits([0.0], root))
        upper.set_ylabel("Counts")
        lower.set_ylabel("√TS")
        if of_energy:
            name = "Lowest energy" if is_cumulative else "Lower edge of the energy bin"
            style.set_energy_axis(lower, x.min() / 1.15, x.max() * 1.15, name)
        else:
            lower.set_xlabel("Livetime (h)" if is_cumulative else "Dataset, in order of time")
            lower.set_xlim(*style.padded_limits([x.min() - 0.02], x))
        style.legend_above(upper)
    return figure
