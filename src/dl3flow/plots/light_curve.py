"""Light curve: integral flux against time, upper limits, Bayesian blocks or the mean, a panel for each energy band."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
# the axis of time is broken at gaps that are this part of it, if the bins between them fill less than that part
_GAP, _FILLED = 0.05, 0.15
_MOST_PARTS, _LEAST_BINS = 6, 3
# part of the page that the shortest part of the time takes
_NARROWEST = 0.14


@dataclass(frozen=True)
class _Part:
    """A stretch of time with bins, MJD, and how it is told: in units of ``unit`` days after ``origin``."""

    start: float
    stop: float
    origin: float
    unit: float = 1.0


@PLOTS.register()
def light_curve(product: LightCurve, result: FitResult | None) -> Figure:
    """Flux per time bin with errors and limits; the blocks, or the mean of the measured bins weighted by their errors.

    Where a few stretches of bins lie far apart, such as the runs of some nights, the axis of time is broken between them.
    """
    table, source = product.table, str(product.meta.get("source", "source"))
    start, stop = mjd(table, "time_min"), mjd(table, "time_max")
    bands, parts = _bands(table), _parts(start, stop)
    shown = bands[:_MOST_BANDS]
    notes = [f"{len(bands) - len(shown)} further energy bands are not drawn."] * (len(bands) > len(shown))
    with style.applied():
        figure = style.new_figure(4.2 if len(bands) == 1 else 0.9 + _PANEL_HEIGHT * len(shown))
        ends = f", {_range(*bands[0])}" if len(bands) == 1 else ""
        style.set_title(figure, f"Light curve of {source}{ends}")
        panels = _new_panels(figure, len(shown), parts)
        for row, band in zip(panels, shown, strict=True):
            chosen = _in_band(table["e_min"], table["e_max"], band)
            points = _points(table[chosen], start[chosen], stop[chosen])
            factor, power = style.power_of_ten(points.top)
            err = (table["norm_err"] * table["ref_flux"]).to_value(FLUX)[chosen] / factor
            for axes, part in zip(row, parts, strict=True):
                _draw(axes, points.over(factor), err, part, product.meta, band, factor)
            unit = f"({power}{style.unit_text(FLUX)})"
            row[0].set_ylabel(f"Flux {unit}" if len(bands) == 1 else f"{_range(*band)}\n{unit}")
            if points.n_missing:
                told = missing_note(points, "time bins")[:-1]
                notes.append(f"{told}." if len(bands) == 1 else f"{told} at {_range(*band)}.")
        for axes, part in zip(panels[-1], parts, strict=True):
            _set_time_axis(axes, part)
        if len(parts) > 1:
            notes.insert(
                0, "Time in hours after the MJD (TT) below each part; the gaps between are left out."
            )
            _add_legend(panels[0])
        else:
            style.legend_above(panels[0][0])
        if notes:
            style.add_note(figure, " ".join(notes))
    return figure


def _parts(start: np.ndarray, stop: np.ndarray) -> list[_Part]:
    """Stretches between which the axis of time is broken, or the whole of it."""
    low, high = float(start.min()), float(stop.max())
    long = high - low > _LONG_DAYS
    whole = [_Part(low, high, 0.0 if long else float(np.floor(low)))]
    order = np.argsort(start, kind="stable")
    begins, reached = start[order], np.maximum.accumulate(stop[order])
    is_gap = begins[1:] - reached[:-1] > _GAP * (high - low)
    n_parts, n_bins = int(is_gap.sum()) + 1, len(set(zip(start.tolist(), stop.tolist(), strict=True)))
    if not 1 < n_parts <= _MOST_PARTS or n_bins < _LEAST_BINS * n_parts:
        return whole
    firsts, lasts = begins[np.append(True, is_gap)], reached[np.append(is_gap, True)]
    if (lasts - firsts).sum() > _FILLED * (high - low):
        return whole
    return [_Part(float(a), float(b), float(a), 1 / 24) for a, b in zip(firsts, lasts, strict=True)]


def _new_panels(figure: Figure, n_rows: int, parts: Sequence[_Part]) -> list[list[Axes]]:
    """Panels, a row for each energy band and a column for each part of the time."""
    lengths = np.array([part.stop - part.start for part in parts])
    widths = np.maximum(lengths / lengths.sum(), _NARROWEST) if len(parts) > 1 else np.ones(1)
    grid = figure.subplots(
        n_rows, len(parts), sharex="col", sharey="row", squeeze=False, width_ratios=widths.tolist()
    )
    for row in grid:
        for left, right in pairwise(row):
            left.spines["right"].set_visible(False)
            right.spines["left"].set_linestyle(":")
            right.tick_params(left=False)
    return [list(row) for row in grid]


def _add_legend(row: Sequence[Axes]) -> None:
    """One legend for all parts: a limit may stand in one of them alone."""
    named: dict[str, Any] = {}
    for axes in row:
        named |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    style.legend_across(row[0], list(named.values()), list(named))


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
    part: _Part,
    meta: Mapping[str, Any],
    band: tuple[float, float],
    factor: float,
) -> None:
    """One band in one part of the time; its values are in units of ``factor``."""
    low, high = style.padded_limits(np.append(points.bottom, 0.0), points.top)
    inside = (points.low >= part.start - _SAME) & (points.high <= part.stop + _SAME)
    at = points.where(inside).on_scale(part.origin, part.unit)
    draw_points(axes, at, "flux", told_limits(at, meta), height=high - low)
    blocks = _own_blocks(meta, band)
    if blocks:
        _draw_blocks(axes, blocks, factor, part)
    else:
        _draw_mean(axes, points, err, is_told=int(meta.get("n_bands", 1)) == 1)
    axes.axhline(0, color=style.GREY, lw=0.8, ls=":")
    axes.set_ylim(low, high)
    axes.grid(visible=True)


def _draw_mean(axes: Axes, points: Points, err: np.ndarray, *, is_told: bool) -> None:
    weighted = points.is_point & np.isfinite(err) & (err > 0)
    if weighted.any():
        weight = err[weighted] ** -2
        mean, sigma = float(np.average(points.value[weighted], weights=weight)), float(weight.sum() ** -0.5)
        digits = max(0, 1 - int(np.floor(np.log10(sigma))))
        axes.axhspan(mean - sigma, mean + sigma, color=style.ORANGE, alpha=0.35, lw=0)
        # the legend stands for all bands
        label = f"mean {mean:.{digits}f} ± {sigma:.{digits}f}" if is_told else "mean"
        axes.axhline(mean, color=style.BLACK, lw=1.2, label=label)


def _draw_blocks(axes: Axes, blocks: Sequence[Mapping[str, Any]], factor: float, part: _Part) -> None:
    for n, block in enumerate(blocks):
        ends = [(block[name] - part.origin) / part.unit for name in ("time_min", "time_max")]
        flux, errn, errp = (
            float(np.nan_to_num(block[name] if block[name] is not None else np.nan)) / factor
            for name in ("flux", "flux_errn", "flux_errp")
        )
        label = f"Bayesian blocks ({len(blocks)})" if n == 0 else None
        axes.fill_between(ends, flux - errn, flux + errp, color=style.ORANGE, alpha=0.35, lw=0)
        axes.plot(ends, [flux, flux], color=style.BLACK, lw=1.4, label=label)


def _set_time_axis(axes: Axes, part: _Part) -> None:
    start, stop = ((t - part.origin) / part.unit for t in (part.start, part.stop))
    margin = 0.04 * (stop - start) or 0.5
    axes.set_xlim(start - margin, stop + margin)
    is_broken = part.unit != 1.0
    axes.xaxis.set_major_locator(MaxNLocator(2 if is_broken else 6, steps=[1, 2, 2.5, 5, 10]))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    if is_broken:
        axes.set_xlabel(f"MJD {part.origin:.2f}", fontsize="small")
    else:
        axes.set_xlabel("Time (MJD, TT)" if part.origin == 0 else f"Time − MJD {part.origin:.0f} (days, TT)")


def mjd(table: QTable, column: str) -> np.ndarray:
    """Column of times as MJD floats, whether it holds times, days or bare numbers."""
    times = table[column]
    if isinstance(times, Time):
        return np.asarray(times.mjd, dtype=float)
    return np.asarray(times.to_value(u.d) if isinstance(times, u.Quantity) else times, dtype=float)


def _range(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g} TeV"
