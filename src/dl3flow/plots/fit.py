"""A fit: counts against prediction per energy with residuals, and the correlation of its parameters."""

import math

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec

from dl3flow.data.products import DatasetStat, FitResult
from dl3flow.plots import style, uncertainty
from dl3flow.plots.registry import PLOTS

_MOST_PANELS = 6
_COLUMNS = 2
_PANEL_HEIGHT = 3.2
_MOST_NUMBERS = 12
_MOST_LABELS = 80


@PLOTS.register()
def fit(product: FitResult, result: FitResult | None) -> Figure:
    """Counts and prediction per dataset (summed where they are many), the correlation matrix, profiles and contours."""
    # flux points have no counts to draw
    counted = tuple(d for d in product.datasets if len(d.counts_per_energy))
    groups = _grouped(counted)
    is_summed = len(groups) != len(counted)
    shown = groups[:_MOST_PANELS]
    columns = min(_COLUMNS, len(shown)) or 1
    rows = math.ceil(len(shown) / columns)
    n_free = len(product.free)
    matrix_height = min(6.6, 2.0 + 0.42 * n_free)
    profiles, contours = (
        uncertainty.PANEL_HEIGHT * uncertainty.panel_rows(n)
        for n in (len(product.profiles), len(uncertainty.contour_pairs(product)))
    )
    heights = [rows * _PANEL_HEIGHT, 2.2 if is_summed else 0.0, matrix_height, profiles, contours]
    with style.applied():
        figure = style.new_figure(sum(heights) + 0.6)
        style.set_title(
            figure,
            f"Fit: {product.message.rstrip('.')}" if not product.success else "Fit: counts and prediction",
        )
        parts = [h for h in heights if h]
        subfigures = list(
            np.ravel(np.array(figure.subfigures(len(parts), 1, height_ratios=parts), dtype=object))
        )
        if shown:
            grid = subfigures.pop(0).add_gridspec(2 * rows, columns, height_ratios=[3, 1.1] * rows)
            for n, (name, one) in enumerate(shown):
                _draw_counts(grid, _parent(grid), n, columns, name, one)
        if is_summed:
            _draw_totals(subfigures.pop(0).subplots(), counted)
        _draw_correlation(subfigures.pop(0), product)
        if profiles:
            uncertainty.draw_profiles(subfigures.pop(0), product)
        if contours:
            uncertainty.draw_contours(subfigures.pop(0), product)
        if len(groups) > len(shown):
            style.add_note(figure, f"{len(groups) - len(shown)} further energy binnings are not drawn.")
    return figure


def _parent(grid: GridSpec) -> Figure | SubFigure:
    """Figure that a grid belongs to."""
    parent = grid.figure
    assert isinstance(parent, Figure | SubFigure)
    return parent


def _grouped(datasets: tuple[DatasetStat, ...]) -> list[tuple[str, DatasetStat]]:
    """Datasets with the name of their panel; more than a page holds are summed where their energy bins agree."""
    if len(datasets) <= _MOST_PANELS:
        return [(d.name, d) for d in datasets]
    sums: dict[tuple[float, ...], list[DatasetStat]] = {}
    for d in datasets:
        sums.setdefault(tuple(np.round(np.log(d.energy_edges.to_value(u.TeV)), 6)), []).append(d)
    return [
        (members[0].name if len(members) == 1 else f"sum of {len(members)} datasets", _sum(members))
        for members in sums.values()
    ]


def _sum(members: list[DatasetStat]) -> DatasetStat:
    return DatasetStat(
        name="sum",
        stat=sum(d.stat for d in members),
        n_bins=sum(d.n_bins for d in members),
        energy_edges=members[0].energy_edges,
        counts_per_energy=np.sum([d.counts_per_energy for d in members], axis=0),
        signal_per_energy=np.sum([d.signal_per_energy for d in members], axis=0),
        background_per_energy=np.sum([d.background_per_energy for d in members], axis=0),
    )


def _pull(counts: np.ndarray, npred: np.ndarray) -> np.ndarray:
    # bins without a prediction are outside the fit: NaN is not drawn
    return np.asarray(
        np.divide(counts - npred, np.sqrt(npred), out=np.full(npred.shape, np.nan), where=npred > 0)
    )


def _draw_counts(
    grid: GridSpec, parent: Figure | SubFigure, n: int, columns: int, name: str, one: DatasetStat
) -> None:
    row, column = 2 * (n // columns), n % columns
    upper = parent.add_subplot(grid[row, column])
    lower = parent.add_subplot(grid[row + 1, column], sharex=upper)
    edges = one.energy_edges.to_value(u.TeV)
    centers = np.sqrt(edges[:-1] * edges[1:])
    half = [centers - edges[:-1], edges[1:] - centers]
    counts = np.asarray(one.counts_per_energy, dtype=float)
    signal, background = (
        np.asarray(x, dtype=float) for x in (one.signal_per_energy, one.background_per_energy)
    )
    npred = signal + background
    upper.stairs(npred, edges, color=style.BLACK, lw=1.5, baseline=None, label="prediction")
    upper.stairs(background, edges, color=style.VERMILION, lw=1.3, ls="--", baseline=None, label="background")
    upper.errorbar(
        centers,
        counts,
        xerr=half,
        yerr=np.sqrt(counts),
        fmt="o",
        ms=3.8,
        color=style.BLUE,
        elinewidth=1.1,
        label="counts",
    )
    positive = np.concatenate([x[x > 0] for x in (counts, background, npred)])
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.5, 1.0)
    style.set_log_axis(upper, "y", max(0.1, 0.4 * low), 2.5 * high, style.count_label)
    upper.set_ylabel("Counts per bin")
    upper.tick_params(labelbottom=False)
    upper.grid(visible=True, color=style.LIGHT, lw=0.5)
    upper.set_title(
        f"{style.plain(name)}: {counts.sum():.0f} counts, {npred.sum():.1f} predicted",
        fontsize="small",
        loc="left",
        pad=22 if n < columns else 6,
    )
    if n < columns:
        upper.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=3,
            borderaxespad=0.1,
            columnspacing=1.0,
            handlelength=1.4,
        )
    pull = _pull(counts, npred)
    lower.axhline(0, color=style.BLACK, lw=1)
    lower.axhspan(-1, 1, color=style.LIGHT, alpha=0.6, lw=0)
    lower.errorbar(centers, pull, xerr=half, fmt="o", ms=3.8, color=style.BLUE, elinewidth=1.1)
    reach = max(2.5, 1.2 * float(np.nanmax(np.abs(pull), initial=0)))
    lower.set_ylim(-reach, reach)
    lower.set_ylabel("Δ / √pred.")
    style.set_energy_axis(lower, edges[0], edges[-1])


def _draw_totals(axes: Axes, datasets: tuple[DatasetStat, ...]) -> None:
    npred = np.array([float(np.sum(d.signal_per_energy) + np.sum(d.background_per_energy)) for d in datasets])
    counts = np.array([float(np.sum(d.counts_per_energy)) for d in datasets])
    pull = _pull(counts, npred)
    x = np.arange(1, len(datasets) + 1)
    axes.axhline(0, color=style.BLACK, lw=1)
    axes.axhspan(-1, 1, color=style.LIGHT, alpha=0.6, lw=0)
    axes.plot(x, pull, "o", ms=4, color=style.BLUE)
    reach = max(2.5, 1.2 * float(np.nanmax(np.abs(pull), initial=0)))
    axes.set_ylim(-reach, reach)
    axes.set_xlim(0.5, len(datasets) + 0.5)
    axes.set_xlabel(f"Dataset in the order of the fit (1 to {len(datasets)})")
    axes.set_ylabel("(counts − pred.) / √pred.")
    axes.set_title("All energies, per dataset", loc="left")


def _draw_correlation(parent: SubFigure, product: FitResult) -> None:
    axes = parent.subplots()
    n = len(product.free)
    axes.set_title("Correlation of the free parameters", loc="left")
    if n == 0:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "the fit has no free parameter", ha="center", va="center", transform=axes.transAxes
        )
        return
    sigma = np.sqrt(np.maximum(np.diag(product.covariance), 0))
    scale = np.outer(sigma, sigma)
    matrix = np.divide(product.covariance, scale, out=np.full_like(scale, np.nan), where=scale > 0)
    shown = axes.imshow(matrix, cmap=style.DIVERGING, vmin=-1, vmax=1)
    axes.invert_yaxis()
    axes.set_facecolor(style.LIGHT)
    parent.colorbar(shown, ax=axes, label="correlation", fraction=0.046, pad=0.03)
    size = 8.3 if n <= 15 else max(4.5, 8.3 * 15 / n)
    step = math.ceil(n / _MOST_LABELS)
    ticks = np.arange(0, n, step)
    names = [style.plain(product.free[t]) for t in ticks]
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set_xticks(ticks, names, fontsize=size, rotation=90)
    if n <= _MOST_NUMBERS:
        for row in range(n):
            for column in range(n):
                value = matrix[row, column]
                colour = "white" if abs(value) > 0.6 else style.BLACK
                text = "–" if not np.isfinite(value) else style.rounded(value)
                axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
