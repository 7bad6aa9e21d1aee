"""Reduced data: counts, background, exposure and mask on the sky, and events per energy."""

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS


@PLOTS.register()
def dataset(product: Dataset, result: FitResult | None) -> Figure:
    """Sums over the safe energy bins of counts and background, the exposure, and how many bins are safe where."""
    safe = product.mask_safe
    counts = np.where(safe, product.counts.data, 0).sum(axis=0).astype(float)
    background = np.where(safe, product.mu_bkg, 0).sum(axis=0).astype(float)
    n_safe = safe.sum(axis=0).astype(float)
    nowhere = n_safe == 0
    counts[nowhere], background[nowhere] = np.nan, np.nan
    edges = product.energy.edges.to_value(u.TeV)
    middle = np.sqrt(edges[0] * edges[-1])
    true = product.energy_true.centers.to_value(u.TeV)
    nearest = int(np.argmin(np.abs(np.log(true / middle))))
    exposure = product.exposure.quantity[nearest].to_value("m2 s")
    factor, power = style.power_of_ten(exposure)
    with style.applied():
        figure = style.new_figure(9.6)
        livetime = float(product.meta.get("livetime", 0.0))
        hours = f", livetime {livetime / 3600:.3g} h" if livetime else ""
        style.set_title(figure, f"Reduced data of {product.name}{hours}")
        grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 0.8))
        range_text = f"{edges[0]:.3g} to {edges[-1]:.3g} TeV"
        panels = (
            (counts, f"Counts, {range_text}", "counts per pixel", None),
            (background, f"Background, {range_text}", "expected counts per pixel", None),
            (exposure / factor, f"Exposure at {true[nearest]:.3g} TeV", f"exposure ({power}m² s)", None),
            (n_safe, "Safe energy bins", f"bins of {product.energy.n_bins}", float(product.energy.n_bins)),
        )
        for n, (values, title, label, top) in enumerate(panels):
            sky.draw_panel(
                figure,
                grid[n // 2, n % 2],
                product.geom,
                values,
                title,
                label,
                vmax=top,
                is_left=n % 2 == 0,
                is_bottom=n >= 2,
            )
        axes = figure.add_subplot(grid[2, :])
        _draw_energies(
            axes,
            edges,
            *(
                np.where(safe, m.data, 0).sum(axis=(1, 2))
                for m in (product.counts, product.background.counts)
            ),
        )
        style.add_note(
            figure,
            "Counts and background are summed over the safe bins."
            + (" Grey: none is safe." if nowhere.any() else ""),
        )
    return figure


def _draw_energies(axes: Axes, edges: np.ndarray, counts: np.ndarray, background: np.ndarray) -> None:
    centers = np.sqrt(edges[:-1] * edges[1:])
    axes.errorbar(
        centers,
        counts,
        xerr=[centers - edges[:-1], edges[1:] - centers],
        yerr=np.sqrt(counts),
        fmt="o",
        ms=4,
        color=style.BLUE,
        elinewidth=1.1,
        label=f"events: {counts.sum():.0f}",
    )
    axes.stairs(
        background,
        edges,
        color=style.VERMILION,
        lw=1.5,
        baseline=None,
        label=f"background: {background.sum():.1f}",
    )
    positive = np.concatenate([counts[counts > 0], background[background > 0]])
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.5, 1.0)
    style.set_log_axis(axes, "y", max(0.1, 0.4 * low), 2.5 * high, style.count_label)
    style.set_energy_axis(axes, edges[0], edges[-1])
    axes.set_ylabel("Counts per bin")
    axes.grid(visible=True, color=style.LIGHT, lw=0.5)
    style.legend_above(axes)
