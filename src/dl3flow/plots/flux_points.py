"""Spectral energy distribution: flux points, upper limits, best fit with its band, residuals."""

from dataclasses import replace

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.plots import style
from dl3flow.plots.curve import spectral_curve
from dl3flow.plots.points import Points, draw_points, missing_note, told_limits
from dl3flow.plots.registry import PLOTS

SED = u.Unit("TeV cm-2 s-1")
_N_CURVE = 200
# a likelihood profile is shown up to three standard deviations
_MOST_RISE = 9.0


@PLOTS.register()
def flux_points(product: FluxPoints, result: FitResult | None) -> Figure:
    """E² dN/dE against energy, with the best fit and the points' residuals from it where a fit is given."""
    table, source = product.table, str(product.meta.get("source", "source"))
    points = sed_points(product)
    grid = np.geomspace(points.low.min(), points.high.max(), _N_CURVE)
    at_source = bool(product.meta.get("deabsorbed"))
    curve = None if result is None else spectral_curve(result, source, grid * u.TeV, is_deabsorbed=at_source)
    with style.applied():
        figure = style.new_figure(5.4 if curve is not None else 4.2)
        style.set_title(
            figure, f"Spectral energy distribution of {source}" + ", absorption taken out" * at_source
        )
        if curve is None or result is None:
            upper = figure.subplots()
            lowest = upper
        else:
            upper, lowest = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
            _draw_curve(upper, grid, curve, _fitted_shape(result, source))
            model = spectral_curve(result, source, table["e_ref"], is_deabsorbed=at_source)
            assert model is not None
            _draw_residuals(lowest, points, (model[0] * table["e_ref"] ** 2).to_value(SED))
        n_sigma = float(product.meta.get("n_sigma", 1))
        label = "flux points" if n_sigma == 1 else f"flux points (errors of {n_sigma:g} σ)"
        draw_points(upper, points, label, told_limits(points, product.meta))
        if "stat_scan" in table.colnames:
            _draw_scans(figure, upper, product, points)
        style.set_log_axis(upper, "y", *_limits(points, curve, grid), style.power_label)
        upper.set_ylabel(f"E² dN/dE ({style.unit_text(SED)})")
        style.legend_above(upper, columns=4)
        upper.grid(visible=True)
        style.set_energy_axis(lowest, points.low.min() / 1.15, points.high.max() * 1.15)
        if points.n_missing:
            style.add_note(figure, missing_note(points, "energy bins"))
    return figure


def sed_points(product: FluxPoints) -> Points:
    """E² dN/dE (TeV cm-2 s-1) against energy (TeV)."""
    table = product.table
    energy, low, high = (table[name].to_value(u.TeV) for name in ("e_ref", "e_min", "e_max"))
    columns = ("norm", "norm_errn", "norm_errp", "norm_ul")
    value, errn, errp, limit = (product.e2dnde(c).value for c in columns)
    is_ul = np.asarray(table["is_ul"], dtype=bool)
    return Points(energy, low, high, value, errn, errp, limit, is_ul, is_log=True)


def _draw_scans(figure: Figure, axes: Axes, product: FluxPoints, points: Points) -> None:
    """Likelihood of each bin along its flux, as a colour behind the points."""
    table = product.table
    shown = None
    unit = (table["ref_dnde"] * table["e_ref"] ** 2).to_value(SED)
    for n in range(len(table)):
        flux, stat = (np.asarray(table[name][n], dtype=float) for name in ("norm_scan", "stat_scan"))
        flux = flux * unit[n]
        good = np.isfinite(flux) & (flux > 0) & np.isfinite(stat)
        if good.sum() < 2 or np.ptp(stat[good]) == 0:
            # a bin without data likes every flux alike
            continue
        order = np.argsort(flux[good])
        at, rise = np.log(flux[good][order]), (stat[good] - np.nanmin(stat))[order]
        middle = 0.5 * (at[1:] + at[:-1])
        edges = np.exp([2 * at[0] - middle[0], *middle, 2 * at[-1] - middle[-1]])
        shown = axes.pcolormesh(
            [points.low[n], points.high[n]],
            edges,
            np.where(rise <= _MOST_RISE, rise, np.nan)[:, None],
            cmap=f"{style.SEQUENTIAL}_r",
            vmin=0,
            vmax=_MOST_RISE,
            alpha=0.5,
            rasterized=True,
            zorder=0,
        )
    if shown is not None:
        # both panels give way, so that their energies stay one below the other
        figure.colorbar(shown, ax=figure.axes, label="Δ stat", fraction=0.046, pad=0.02)


def _fitted_shape(result: FitResult, source: str) -> str:
    return next(s.spectral.kind for s in result.models.sources if s.name == source).replace("_", " ")


def _draw_curve(axes: Axes, grid: np.ndarray, curve: tuple[u.Quantity, u.Quantity], shape: str) -> None:
    dnde, error = (q.value * grid**2 for q in curve)
    # a lower edge at or below zero would leave a gap on the logarithmic axis
    low = np.maximum(dnde - error, 1e-3 * dnde)
    axes.fill_between(grid, low, dnde + error, color=style.ORANGE, alpha=0.35, lw=0, label="68 % band")
    axes.plot(grid, dnde, color=style.BLACK, label=f"best fit ({style.plain(shape)})")


def _draw_residuals(axes: Axes, points: Points, expected: np.ndarray) -> None:
    residual = points.value - expected
    # the error on the model's side of the point
    sigma = np.where(residual > 0, points.errn, points.errp)
    good = points.is_point & np.isfinite(sigma) & (sigma > 0)
    pull, one = residual / np.where(good, sigma, 1.0), np.ones(len(residual))
    axes.axhline(0, color=style.BLACK, lw=1)
    axes.axhspan(-1, 1, color=style.LIGHT, alpha=0.6, lw=0)
    pulls = replace(points, value=pull, errn=one, errp=one, is_ul=~good, limit=np.nan * one, is_log=False)
    draw_points(axes, pulls, "")
    reach = max(2.5, 1.3 + float(np.abs(pull[good]).max(initial=0)))
    axes.set_ylim(-reach, reach)
    axes.set_ylabel("(flux − fit) / σ")


def _limits(
    points: Points, curve: tuple[u.Quantity, u.Quantity] | None, grid: np.ndarray
) -> tuple[float, float]:
    """Vertical range that holds points, arrows and curve."""
    parts = [points.bottom, points.top, *([] if curve is None else [curve[0].value * grid**2])]
    every = np.concatenate(parts)
    every = every[np.isfinite(every) & (every > 0)]
    if not every.size:
        return 1e-13, 1e-10
    return float(every.min()) / 1.5, float(every.max()) * 1.5
