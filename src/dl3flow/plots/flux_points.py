"""Spectral energy distribution: flux points, upper limits, best fit with its band, residuals."""

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.plots import style
from dl3flow.plots.curve import spectral_curve
from dl3flow.plots.registry import PLOTS

_SED = u.Unit("TeV cm-2 s-1")
_N_CURVE = 200
_ARROW = 0.25


@PLOTS.register()
def flux_points(product: FluxPoints, result: FitResult | None) -> Figure:
    """E² dN/dE against energy, with the best fit and the points' residuals from it where a fit is given."""
    table, source = product.table, str(product.meta.get("source", "source"))
    energy, low, high = (table[name].to_value(u.TeV) for name in ("e_ref", "e_min", "e_max"))
    value, errn, errp, limit = (
        product.e2dnde(c).value for c in ("norm", "norm_errn", "norm_errp", "norm_ul")
    )
    is_point = ~np.asarray(table["is_ul"], dtype=bool) & np.isfinite(value) & (value > 0)
    # a flux at or below zero has no place on a logarithmic axis, its upper limit has
    is_limit = ~is_point & np.isfinite(limit) & (limit > 0)
    edges = low.min() / 1.15, high.max() * 1.15
    grid = np.geomspace(low.min(), high.max(), _N_CURVE)
    curve = None if result is None else spectral_curve(result, source, grid * u.TeV)
    with style.applied():
        figure = style.new_figure(5.4 if curve is not None else 4.2)
        style.set_title(figure, f"Spectral energy distribution of {source}")
        if curve is None or result is None:
            upper = figure.subplots()
            lowest = upper
        else:
            upper, lowest = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
            _draw_curve(upper, grid, curve, _fitted_shape(result, source))
            model = spectral_curve(result, source, table["e_ref"])
            assert model is not None
            expected = (model[0] * table["e_ref"] ** 2).to_value(_SED)
            _draw_residuals(lowest, (energy, low, high), value - expected, (errn, errp), is_point)
        span = np.array([energy - low, high - energy])
        n_sigma = float(product.meta.get("n_sigma", 1))
        if is_point.any():
            upper.errorbar(
                energy[is_point],
                value[is_point],
                xerr=span[:, is_point],
                yerr=np.nan_to_num([errn[is_point], errp[is_point]]),
                fmt="o",
                ms=4.5,
                color=style.BLUE,
                elinewidth=1.2,
                label="flux points" if n_sigma == 1 else f"flux points (errors of {n_sigma:g} σ)",
                zorder=3,
            )
        if is_limit.any():
            # one length of arrow on the logarithmic axis
            length = limit[is_limit] * (1 - 10**-_ARROW)
            style.draw_limits(
                upper,
                energy[is_limit],
                limit[is_limit],
                span[:, is_limit],
                length,
                style.limit_label(product.meta),
            )
        style.set_log_axis(
            upper, "y", *_limits(value, errn, errp, limit, is_point, is_limit, curve, grid), style.power_label
        )
        upper.set_ylabel(f"E² dN/dE ({style.unit_text(_SED)})")
        style.legend_above(upper, columns=4)
        upper.grid(visible=True, color=style.LIGHT, lw=0.5)
        style.set_energy_axis(lowest, *edges)
        n_missing = len(table) - int(is_point.sum()) - int(is_limit.sum())
        if n_missing:
            style.add_note(
                figure, f"{n_missing} of {len(table)} energy bins have neither a flux nor a limit above zero."
            )
    return figure


def _fitted_shape(result: FitResult, source: str) -> str:
    return next(s.spectral.kind for s in result.models.sources if s.name == source).replace("_", " ")


def _draw_curve(axes: Axes, grid: np.ndarray, curve: tuple[u.Quantity, u.Quantity], shape: str) -> None:
    dnde, error = (q.value * grid**2 for q in curve)
    # a lower edge at or below zero would leave a gap on the logarithmic axis
    low = np.maximum(dnde - error, 1e-3 * dnde)
    axes.fill_between(grid, low, dnde + error, color=style.ORANGE, alpha=0.35, lw=0, label="68 % band")
    axes.plot(grid, dnde, color=style.BLACK, label=f"best fit ({style.plain(shape)})")


def _draw_residuals(
    axes: Axes,
    energy: tuple[np.ndarray, np.ndarray, np.ndarray],
    residual: np.ndarray,
    errors: tuple[np.ndarray, np.ndarray],
    is_point: np.ndarray,
) -> None:
    center, low, high = energy
    # the error on the model's side of the point
    sigma = np.where(residual > 0, errors[0], errors[1])
    good = is_point & np.isfinite(sigma) & (sigma > 0)
    pull = residual[good] / sigma[good]
    axes.axhline(0, color=style.BLACK, lw=1)
    axes.axhspan(-1, 1, color=style.LIGHT, alpha=0.6, lw=0)
    axes.errorbar(
        center[good],
        pull,
        xerr=[(center - low)[good], (high - center)[good]],
        yerr=np.ones(good.sum()),
        fmt="o",
        ms=4.5,
        color=style.BLUE,
        elinewidth=1.2,
    )
    reach = max(2.5, 1.3 + float(np.abs(pull).max(initial=0)))
    axes.set_ylim(-reach, reach)
    axes.set_ylabel("(flux − fit) / σ")


def _limits(
    value: np.ndarray,
    errn: np.ndarray,
    errp: np.ndarray,
    limit: np.ndarray,
    is_point: np.ndarray,
    is_limit: np.ndarray,
    curve: tuple[u.Quantity, u.Quantity] | None,
    grid: np.ndarray,
) -> tuple[float, float]:
    """Vertical range that holds points, arrows and curve; an error bar to zero or below is cut at a fifth of its point."""
    lower = np.maximum(value - np.nan_to_num(errn), 0.2 * value)[is_point]
    parts = [lower, (value + np.nan_to_num(errp))[is_point], limit[is_limit], limit[is_limit] * 10**-_ARROW]
    if curve is not None:
        parts.append(curve[0].value * grid**2)
    every = np.concatenate(parts)
    every = every[np.isfinite(every) & (every > 0)]
    if not every.size:
        return 1e-13, 1e-10
    return float(every.min()) / 1.5, float(every.max()) * 1.5
