"""Weakest detectable flux against energy, with what decides it."""

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS

_SED = u.Unit("TeV cm-2 s-1")
_WORDS = {"significance": "significance", "gamma": "least counts", "bkg": "background systematics"}


@PLOTS.register()
def sensitivity(product: ProductTable, result: FitResult | None) -> Figure:
    """E² dN/dE of the weakest detectable source; the marker says which criterion decides."""
    table = product.table
    low, high, energy = (table[name].to_value(u.TeV) for name in ("e_min", "e_max", "e_ref"))
    flux = table["e2dnde"].to_value(_SED)
    criterion = np.asarray(table["criterion"]).astype(str)
    good = np.isfinite(flux) & (flux > 0)
    with style.applied():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        style.set_title(figure, "Sensitivity")
        axes.plot(energy[good], flux[good], color=style.GREY, lw=1)
        marks = zip(_WORDS, "osD", (style.BLUE, style.ORANGE, style.GREEN), strict=True)
        for name, marker, colour in marks:
            at = good & (criterion == name)
            if at.any():
                half = [(energy - low)[at], (high - energy)[at]]
                axes.errorbar(
                    energy[at],
                    flux[at],
                    xerr=half,
                    fmt=marker,
                    color=colour,
                    ms=4.5,
                    elinewidth=1.2,
                    label=_WORDS[name],
                )
        known = flux[good] if good.any() else np.array([1e-14, 1e-10])
        style.set_log_axis(axes, "y", known.min() / 1.5, known.max() * 1.5, style.power_label)
        style.set_energy_axis(axes, low.min() / 1.15, high.max() * 1.15)
        axes.set_ylabel(f"E² dN/dE ({style.unit_text(_SED)})")
        axes.grid(visible=True, color=style.LIGHT, lw=0.5)
        if good.any():
            style.legend_above(axes)
        else:
            style.add_note(figure, "No energy band has data.")
    return figure
