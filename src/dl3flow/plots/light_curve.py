"""Light curve: integral flux against time, upper limits, Bayesian blocks or the mean, a panel for each energy band."""

from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.time import Time
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dl3flow.data.products import FitResult, LightCurve
from dl3flow.plots import style
from dl3flow.plots.points import Points, draw_points, missing_note, told_limits
from dl3flow.plots.registry import PLOTS
from dl3flow.units import FLUX

_LONG_DAYS = 30.0
_PANEL_HEIGHT = 2.1
_MOST_BANDS = 6
_SAME = 1e-6


@PLOTS.register()
def light_curve(product: LightCurve, result: FitResult | None) -> Figure:
    """Flux per time bin with errors and limits; the blocks, or the mean of the measured bins weighted by their errors."""
    table, source = product.table, str(product.meta.get("source", "source"))
    start, stop = mjd(table, "time_min"), mjd(table, "time_max")
    origin = 0.0 if stop.max() - start.min() > _LONG_DAYS else float(np.floor(start.min()))
    bands = _bands(table)
    shown = bands[:_MOST_BANDS]
    notes = (
        [f"{len(bands) - len(shown)} further energy bands are not drawn."] if len(bands) > len(shown) else []
    )
    with style.applied():
        figure = style.new_figure(4.2 if len(bands) == 1 else 0.9 + _PANEL_HEIGHT * len(shown))
        ends = f", {_range(*bands[0])}" if len(bands) == 1 else ""
        style.set_title(figure, f"Light curve of {source}{ends}")
        panels = np.ravel(np.array(figure.subplots(len(shown), 1, sharex=True), dtype=object))
        for axes, band in zip(panels, shown, strict=True):
            chosen = _in_band(table["e_min"], table["e_max"], band)
            points = _points(table[chosen], start[chosen] - origin, stop[chosen] - origin)
            err = (table["norm_err"] * table["ref_flux"]).to_value(FLUX)[chosen]
            power = _draw(axes, points, err, product.meta, _own_blocks(product.meta, band), origin)
            unit = f"({power}{style.unit_text(FLUX)})"
            axes.set_ylabel(f"Flux {unit}" if len(bands) == 1 else f"{_range(*band)}\n{unit}")
            notes += [
                f"{missing_note(points, 'time bins')[:-1]}{'' if len(bands) == 1 else f' at {_range(*band)}'}."
            ] * bool(points.n_missing)
        style.legend_above(panels[0])
        _set_time_axis(panels[-1], start - origin, stop - origin, origin)
        if notes:
            style.add_note(figure, " ".join(notes))
    return figure


def _bands(table: QTable) -> list[tuple[float, float]]:
    """Ends (TeV) of the energy bands, in their order."""
    pairs = zip(*(table[name].to_value(u.TeV).tolist() for name in ("e_min", "e_max")), strict=True)
    return list(dict.fromkeys(pairs))


def _in_band(e_min: u.Quantity, e_max: u.Quantity, band: tuple[float, float]) -> np.ndarray:
    low, high = (np.asarray(e.to_value(u.TeV)) for e in (e_min, e_max))
    return np.asarray(np.isclose(low, band[0], rtol=_SAME) & np.isclose(high, band[1], rtol=_SAME))


def _points(table: QTable, start: np.ndarray, stop: np.ndarray) -> Points:
    columns = ("norm", "norm_errn", "norm_errp", "norm_ul")
    value, errn, errp, limit = ((table[c] * table["ref_flux"]).to_value(FLUX) for c in columns)
    is_ul = np.asarray(table["is_ul"], dtype=bool)
    return Points(0.5 * (start + stop), start, stop, value, errn, errp, limit, is_ul)


def _own_blocks(meta: Mapping[str, Any], band: tuple[float, float]) -> list[Mapping[str, Any]]:
    return [
        block
        for block in meta.get("blocks") or []
        if np.allclose((block["e_min"], block["e_max"]), band, rtol=_SAME)
    ]


def _draw(
    axes: Axes,
    points: Points,
    err: np.ndarray,
    meta: Mapping[str, Any],
    blocks: Sequence[Mapping[str, Any]],
    origin: float,
) -> str:
    """One band; the power of ten that its fluxes are in."""
    factor, power = style.power_of_ten(points.top)
    points = points.over(factor)
    low, high = style.padded_limits(np.append(points.bottom, 0.0), points.top)
    draw_points(axes, points, "flux", told_limits(points, meta), height=high - low)
    if blocks:
        _draw_blocks(axes, blocks, factor, origin)
    else:
        _draw_mean(axes, points, err / factor)
    axes.axhline(0, color=style.GREY, lw=0.8, ls=":")
    axes.set_ylim(low, high)
    axes.grid(visible=True)
    return power


def _draw_mean(axes: Axes, points: Points, err: np.ndarray) -> None:
    weighted = points.is_point & np.isfinite(err) & (err > 0)
    if weighted.any():
        weight = err[weighted] ** -2
        mean, sigma = float(np.average(points.value[weighted], weights=weight)), float(weight.sum() ** -0.5)
        digits = max(0, 1 - int(np.floor(np.log10(sigma))))
        axes.axhspan(mean - sigma, mean + sigma, color=style.ORANGE, alpha=0.35, lw=0)
        axes.axhline(mean, color=style.BLACK, lw=1.2, label=f"mean {mean:.{digits}f} ± {sigma:.{digits}f}")


def _draw_blocks(axes: Axes, blocks: Sequence[Mapping[str, Any]], factor: float, origin: float) -> None:
    for n, block in enumerate(blocks):
        ends = [block["time_min"] - origin, block["time_max"] - origin]
        flux, errn, errp = (
            float(np.nan_to_num(block[name] if block[name] is not None else np.nan)) / factor
            for name in ("flux", "flux_errn", "flux_errp")
        )
        label = f"Bayesian blocks ({len(blocks)})" if n == 0 else None
        axes.fill_between(ends, flux - errn, flux + errp, color=style.ORANGE, alpha=0.35, lw=0)
        axes.plot(ends, [flux, flux], color=style.BLACK, lw=1.4, label=label)


def _set_time_axis(axes: Axes, start: np.ndarray, stop: np.ndarray, origin: float) -> None:
    margin = 0.04 * (stop.max() - start.min()) or 0.5
    axes.set_xlim(start.min() - margin, stop.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.set_xlabel("Time (MJD, TT)" if origin == 0 else f"Time − MJD {origin:.0f} (days, TT)")


def mjd(table: QTable, column: str) -> np.ndarray:
    """Column of times as MJD floats, whether it holds times, days or bare numbers."""
    times = table[column]
    if isinstance(times, Time):
        return np.asarray(times.mjd, dtype=float)
    return np.asarray(times.to_value(u.d) if isinstance(times, u.Quantity) else times, dtype=float)


def _range(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g} TeV"
