"""Flux in boxes along a line, or in rings, against the distance."""

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.points import Points, draw_points, missing_note, told_limits
from dl3flow.plots.registry import PLOTS
from dl3flow.units import FLUX

# points of several bands at one distance are drawn beside each other, within this part of the bin
_SPREAD = 0.4
_MARKERS = "osD^vP"


@PLOTS.register()
def flux_profile(product: ProductTable, result: FitResult | None) -> Figure:
    """Flux per solid angle with errors, in a colour for each energy band; limits as arrows."""
    table, meta = product.table, product.meta
    every = _points(product)
    factor, power = style.power_of_ten(every.top)
    every = every.over(factor)
    low, high = (table[key].to_value(u.TeV) for key in ("e_min", "e_max"))
    bands = list(dict.fromkeys(zip(low.tolist(), high.tolist(), strict=True)))
    with style.applied():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        style.set_title(figure, "Flux profile")
        bottom, top = style.padded_limits(np.append(every.bottom, 0.0), every.top)
        for n, (band, colour) in enumerate(zip(bands, style.cycle(len(bands)), strict=True)):
            own = every.where((low == band[0]) & (high == band[1]))
            shift = _SPREAD * ((n + 0.5) / len(bands) - 0.5) * (own.high - own.low)
            own = own.shifted(shift)
            draw_points(
                axes,
                own,
                f"{band[0]:.3g} to {band[1]:.3g} TeV",
                colour=colour,
                limit_colour=colour,
                marker=_MARKERS[n % len(_MARKERS)],
                height=top - bottom,
            )
        axes.axhline(0, color=style.GREY, lw=0.8, ls=":")
        axes.set_ylim(bottom, top)
        is_ring = meta.get("shape") == "annuli"
        axes.set_xlabel(
            "Distance (deg)"
            if is_ring
            else f"Distance towards position angle {meta.get('angle') or 0:g}° (deg)"
        )
        axes.set_ylabel(f"Flux ({power}{style.unit_text(FLUX)} deg⁻²)")
        axes.grid(visible=True)
        style.legend_above(axes)
        limits = told_limits(every, meta)
        notes = [f"Arrows: {limits}."] * bool(limits) + [missing_note(every, "bins")] * bool(every.n_missing)
        if notes:
            style.add_note(figure, " ".join(notes))
    return figure


def _points(product: ProductTable) -> Points:
    """Flux per solid angle (cm-2 s-1 deg-2) against the distance (deg)."""
    table = product.table
    area = table["solid_angle"].to_value(u.deg**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = ("flux", "flux_errn", "flux_errp", "flux_ul")
        value, errn, errp, limit = (table[key].to_value(FLUX) / area for key in columns)
    x, low, high = (table[key].to_value(u.deg) for key in ("distance", "distance_min", "distance_max"))
    return Points(x, low, high, value, errn, errp, limit, np.asarray(table["is_ul"], dtype=bool))
