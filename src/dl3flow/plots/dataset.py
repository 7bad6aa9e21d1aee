"""Reduced data: counts, background, exposure and mask on the sky or of a region, and why bins are left out."""

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.products import FitResult
from dl3flow.geometry.region import RegionGeometry
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS
from dl3flow.plots.spectrum import draw_dispersion, draw_exposure, draw_reasons, draw_regions, dropped_share
from dl3flow.reduce.beam import beam_radius


@PLOTS.register()
def dataset(product: Dataset, result: FitResult | None) -> Figure:
    """Counts and background in the safe bins, the responses, and the share of bins that each safe mask drops."""
    with style.applied():
        if isinstance(product.geom, RegionGeometry):
            return _spectrum(product, product.geom)
        return _cube(product)


def _title(product: Dataset) -> str:
    livetime = float(product.meta.get("livetime", 0.0))
    hours = f", livetime {livetime / 3600:.3g} h" if livetime else ""
    return f"Reduced data of {product.name}{hours}"


def _spectrum(product: Dataset, region: RegionGeometry) -> Figure:
    """Counts per energy, exposure and dispersion, and where they are known the off regions and reasons."""
    shares = dropped_share(product)
    off_text = product.meta.get("background", {}).get("regions")
    n_below = bool(shares) + bool(off_text)
    figure = style.new_figure(9.6 if n_below else 6.6)
    style.set_title(figure, _title(product))
    rows = figure.add_gridspec(3 if n_below else 2, 1, height_ratios=(1, 1, 1) if n_below else (1, 1))
    edges = product.energy.edges.to_value(u.TeV)
    axes = figure.add_subplot(rows[0])
    _draw_energies(axes, product)
    _shade_unsafe(axes, edges, product.mask_safe[:, 0, 0])
    middle = rows[1].subgridspec(1, 2)
    draw_exposure(figure.add_subplot(middle[0]), product)
    draw_dispersion(figure, figure.add_subplot(middle[1]), product)
    if n_below:
        below = rows[2].subgridspec(1, n_below)
        if off_text:
            draw_regions(figure, below[0], region, off_text, product.meta.get("pointing"))
        if shares:
            draw_reasons(figure.add_subplot(below[n_below - 1]), edges, shares)
    notes = ["Numbers are of the safe bins."]
    if not product.mask_safe.all():
        notes.append("Grey: energies that are not safe.")
    style.add_note(figure, " ".join(notes))
    return figure


def _cube(product: Dataset) -> Figure:
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
    shares = dropped_share(product)
    figure = style.new_figure(9.6 + 2.2 * bool(shares))
    style.set_title(figure, _title(product))
    heights = (1, 1, 0.8, 0.6) if shares else (1, 1, 0.8)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    range_text = f"{edges[0]:.3g} to {edges[-1]:.3g} TeV"
    panels = (
        (counts, f"Counts, {range_text}", "counts per pixel", None),
        (background, f"Background, {range_text}", "expected counts per pixel", None),
        (exposure / factor, f"Exposure at {true[nearest]:.3g} TeV", f"exposure ({power}m² s)", None),
        (n_safe, "Safe energy bins", f"bins of {product.energy.n_bins}", float(product.energy.n_bins)),
    )
    beam = beam_radius([product])
    for n, (values, title, label, top) in enumerate(panels):
        axes = sky.draw_panel(
            figure,
            grid[n // 2, n % 2],
            product.counts.sky,
            values,
            title,
            label,
            vmax=top,
            is_left=n % 2 == 0,
            is_bottom=n >= 2,
        )
        if beam is not None and n == 0:
            sky.draw_beam(axes, product.counts.sky, beam)
    _draw_energies(figure.add_subplot(grid[2, :]), product)
    if shares:
        draw_reasons(figure.add_subplot(grid[3, :]), edges, shares)
    style.add_note(
        figure,
        "Counts and background are summed over the safe bins."
        + (" Grey: none is safe." if nowhere.any() else "")
        + (f" Disk: point spread (68 %), {beam:.2g}°." if beam is not None else ""),
    )
    return figure


def _draw_energies(axes: Axes, product: Dataset) -> None:
    """Events and background per energy in the safe bins."""
    safe, edges = product.mask_safe, product.energy.edges.to_value(u.TeV)
    counts, background = (
        np.where(safe, values, 0).sum(axis=(1, 2)) for values in (product.counts.data, product.mu_bkg)
    )
    centers = np.sqrt(edges[:-1] * edges[1:])
    half = [centers - edges[:-1], edges[1:] - centers]
    axes.errorbar(
        centers,
        counts,
        xerr=half,
        yerr=np.sqrt(counts),
        fmt="o",
        ms=4,
        color=style.BLUE,
        elinewidth=1.1,
        label=f"events: {counts.sum():.0f}",
    )
    match product.background:
        case OffCounts() as off:
            variance = np.where(safe, off.alpha**2 * off.counts.data, 0).sum(axis=(1, 2))
            n_off = np.where(safe, off.counts.data, 0).sum()
            axes.errorbar(
                centers,
                background,
                xerr=half,
                yerr=np.sqrt(variance),
                fmt="s",
                ms=3.5,
                color=style.VERMILION,
                elinewidth=1.1,
                # on a map the off counts of neighbouring pixels are the same events
                label=f"background: {background.sum():.1f}"
                + (f" from {n_off:.0f} off" if safe.shape[1:] == (1, 1) else ""),
            )
        case ExpectedCounts():
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


def _shade_unsafe(axes: Axes, edges: np.ndarray, safe: np.ndarray) -> None:
    for low, high in zip(edges[:-1][~safe], edges[1:][~safe], strict=True):
        axes.axvspan(low, high, color=style.LIGHT, lw=0, zorder=0, gid="not safe")
