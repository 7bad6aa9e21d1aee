"""Flux in boxes along a line, or in rings, against the distance."""

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS
from dl3flow.units import FLUX

_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE)
_ARROW = 0.08


@PLOTS.register()
def flux_profile(product: ProductTable, result: FitResult | None) -> Figure:
    """Flux per solid angle with errors, in a colour for each energy band; limits as arrows."""
    table, meta = product.table, product.meta
    area = table["solid_angle"].to_value(u.deg**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, errn, errp, limit = (
            table[key].to_value(FLUX) / area for key in ("flux", "flux_errn", "flux_errp", "flux_ul")
        )
    is_ul = np.asarray(table["is_ul"], dtype=bool) & np.isfinite(limit)
    is_point = ~np.asarray(table["is_ul"], dtype=bool) & np.isfinite(value)
    factor, power = style.power_of_ten(
        np.concatenate([(value + np.nan_to_num(errp))[is_point], limit[is_ul]])
    )
    value, errn, errp, limit = (v / factor for v in (value, errn, errp, limit))
    x, low, high = (table[key].to_value(u.deg) for key in ("distance", "distance_min", "distance_max"))
    e_low, e_high = (table[key].to_value(u.TeV) for key in ("e_min", "e_max"))
    with style.applied():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        style.set_title(figure, "Flux profile")
        bottom, top = style.padded_limits(
            np.concatenate([(value - np.nan_to_num(errn))[is_point], 0 * limit[is_ul], [0.0]]),
            np.concatenate([(value + np.nan_to_num(errp))[is_point], limit[is_ul]]),
        )
        for n, band in enumerate(dict.fromkeys(zip(e_low.tolist(), e_high.tolist(), strict=True))):
            own = (e_low == band[0]) & (e_high == band[1])
            span = np.array([x - low, high - x])
            colour = _COLOURS[n % len(_COLOURS)]
            show = own & is_point
            axes.errorbar(
                x[show],
                value[show],
                xerr=span[:, show],
                yerr=np.nan_to_num([errn[show], errp[show]]),
                fmt="o",
                ms=4,
                color=colour,
                label=f"{band[0]:.3g} to {band[1]:.3g} TeV",
            )
            show = own & is_ul
            if show.any():
                length = np.full(int(show.sum()), _ARROW * (top - bottom))
                axes.errorbar(
                    x[show],
                    limit[show],
                    xerr=span[:, show],
                    yerr=length,
                    uplims=True,
                    fmt="none",
                    ecolor=colour,
                )
        axes.axhline(0, color=style.GREY, lw=0.8, ls=":")
        axes.set_ylim(bottom, top)
        is_ring = meta.get("shape") == "annuli"
        axes.set_xlabel("Distance (deg)" if is_ring else f"Distance along {meta.get('angle') or 0:g}° (deg)")
        axes.set_ylabel(f"Flux ({power}{style.unit_text(FLUX)} deg⁻²)")
        style.legend_above(axes)
        if is_ul.any():
            style.add_note(figure, f"Arrows: {style.limit_label(meta)}.")
    return figure
