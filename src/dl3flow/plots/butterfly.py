"""Best-fit spectrum with its error band, and how wide the band is."""

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import Butterfly, FitResult
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS

_SED = u.Unit("TeV cm-2 s-1")


@PLOTS.register()
def butterfly(product: Butterfly, result: FitResult | None) -> Figure:
    """E² dN/dE with its 68 % band against energy, and the band relative to the best fit, with the pivot energy."""
    table, source = product.table, str(product.meta.get("source", "source"))
    energy = table["energy"].to_value(u.TeV)
    sed, errn, errp = (
        (table[c] * table["energy"] ** 2).to_value(_SED) for c in ("dnde", "dnde_errn", "dnde_errp")
    )
    with style.applied():
        figure = style.new_figure(5.4)
        style.set_title(figure, f"Spectrum of {source} with its error band")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        # a lower edge at or below zero would leave a gap on the logarithmic axis
        low, high = np.maximum(sed - errn, 1e-3 * sed), sed + errp
        upper.fill_between(energy, low, high, color=style.ORANGE, alpha=0.35, lw=0, label="68 % band")
        upper.plot(energy, sed, color=style.BLACK, label="best fit")
        seen = np.concatenate([low, high])
        seen = seen[np.isfinite(seen) & (seen > 0)]
        ends = (float(seen.min()) / 1.5, float(seen.max()) * 1.5) if seen.size else (1e-13, 1e-10)
        style.set_log_axis(upper, "y", *ends, style.power_label)
        upper.set_ylabel(f"E² dN/dE ({style.unit_text(_SED)})")
        upper.grid(visible=True, color=style.LIGHT, lw=0.5)
        with np.errstate(divide="ignore", invalid="ignore"):
            down, up = (np.where(sed > 0, 100 * e / sed, np.nan) for e in (-errn, errp))
        lower.fill_between(energy, down, up, color=style.ORANGE, alpha=0.35, lw=0)
        lower.axhline(0, color=style.BLACK, lw=1)
        pivot = float(product.meta.get("pivot_energy") or np.nan)
        if energy.min() <= pivot <= energy.max():
            for axes in (upper, lower):
                axes.axvline(pivot, color=style.BLUE, lw=1, ls="--", label=f"pivot energy {pivot:.3g} TeV")
        lower.set_ylabel("Band (%)")
        style.legend_above(upper, columns=3)
        style.set_energy_axis(lower, energy.min(), energy.max())
    return figure
