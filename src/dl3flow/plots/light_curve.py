"""Light curve: integral flux against time, upper limits and the mean."""

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.time import Time
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dl3flow.data.products import FitResult, LightCurve
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS
from dl3flow.units import FLUX

_ARROW = 0.08
_LONG_DAYS = 30.0


@PLOTS.register()
def light_curve(product: LightCurve, result: FitResult | None) -> Figure:
    """Flux per time bin with errors and limits, and the mean of the measured bins weighted by their errors."""
    table, source = product.table, str(product.meta.get("source", "source"))
    start, stop = mjd(table, "time_min"), mjd(table, "time_max")
    value, err, errn, errp, limit = (
        (table[c] * table["ref_flux"]).to_value(FLUX)
        for c in ("norm", "norm_err", "norm_errn", "norm_errp", "norm_ul")
    )
    is_limit = np.asarray(table["is_ul"], dtype=bool) & np.isfinite(limit)
    is_point = ~np.asarray(table["is_ul"], dtype=bool) & np.isfinite(value)
    factor, power = style.power_of_ten(
        np.concatenate([(value + np.nan_to_num(errp))[is_point], limit[is_limit]])
    )
    value, err, errn, errp, limit = (x / factor for x in (value, err, errn, errp, limit))
    middle = 0.5 * (start + stop)
    origin = 0.0 if stop.max() - start.min() > _LONG_DAYS else float(np.floor(start.min()))
    x, span = middle - origin, np.array([middle - start, stop - middle])
    with style.applied():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        style.set_title(figure, f"Light curve of {source}, {_energy_range(table)}")
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
                zorder=3,
            )
        bottom = np.concatenate([(value - np.nan_to_num(errn))[is_point], 0 * limit[is_limit], [0.0]])
        low, high = style.padded_limits(
            bottom, np.concatenate([(value + np.nan_to_num(errp))[is_point], limit[is_limit]])
        )
        if is_limit.any():
            length = np.full(int(is_limit.sum()), _ARROW * (high - low))
            label = style.limit_label(product.meta)
            style.draw_limits(axes, x[is_limit], limit[is_limit], span[:, is_limit], length, label)
        weighted = is_point & np.isfinite(err) & (err > 0)
        if weighted.any():
            weight = err[weighted] ** -2
            mean, sigma = float(np.average(value[weighted], weights=weight)), float(weight.sum() ** -0.5)
            digits = max(0, 1 - int(np.floor(np.log10(sigma))))
            axes.axhspan(mean - sigma, mean + sigma, color=style.ORANGE, alpha=0.35, lw=0)
            axes.axhline(
                mean, color=style.BLACK, lw=1.2, label=f"mean {mean:.{digits}f} ± {sigma:.{digits}f}"
            )
        axes.axhline(0, color=style.GREY, lw=0.8, ls=":")
        axes.set_ylim(low, high)
        margin = 0.04 * (stop.max() - start.min()) or 0.5
        axes.set_xlim(start.min() - origin - margin, stop.max() - origin + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.set_xlabel("Time (MJD, TT)" if origin == 0 else f"Time − MJD {origin:.0f} (days, TT)")
        axes.set_ylabel(f"Flux ({power}{style.unit_text(FLUX)})")
        axes.grid(visible=True, color=style.LIGHT, lw=0.5)
        style.legend_above(axes)
        n_missing = len(table) - int(is_point.sum()) - int(is_limit.sum())
        if n_missing:
            style.add_note(figure, f"{n_missing} of {len(table)} time bins have neither a flux nor a limit.")
    return figure


def mjd(table: QTable, column: str) -> np.ndarray:
    """Column of times as MJD floats, whether it holds times, days or bare numbers."""
    times = table[column]
    if isinstance(times, Time):
        return np.asarray(times.mjd, dtype=float)
    return np.asarray(times.to_value(u.d) if isinstance(times, u.Quantity) else times, dtype=float)


def _energy_range(table: QTable) -> str:
    low, high = table["e_min"].to_value(u.TeV).min(), table["e_max"].to_value(u.TeV).max()
    return f"{low:.3g} to {high:.3g} TeV"
