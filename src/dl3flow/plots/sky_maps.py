"""Maps of counts, background or prediction, excess and significance, with the distribution of significance."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, SkyMap
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import AWAY, away_mask, region_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS

_CONTOUR_SIGMA = 5.0
_BIN_SIGMA = 0.25
# a scale to the peak of a bright source would leave nothing to see around it
_MOST_SIGMA = 10.0


@PLOTS.register()
def excess_map(product: SkyMap, result: FitResult | None) -> Figure:
    """Counts, background, excess and significance on the sky."""
    return _draw(product, "background", "Background", "Excess and significance maps", "of excess")


@PLOTS.register()
def residual_map(product: SkyMap, result: FitResult | None) -> Figure:
    """Counts, prediction of the best fit, what remains, and its significance."""
    return _draw(product, "npred", "Prediction of the fit", "Residual maps", "of residual")


def _draw(product: SkyMap, expected: str, expected_name: str, title: str, of_what: str) -> Figure:
    geom = product.maps["counts"].sky
    counts, mu, excess, sigma = (
        sky.image(product.maps[name]) for name in ("counts", expected, "excess", "sqrt_ts")
    )
    radius = float(product.meta.get("correlation_radius", 0.0))
    positions = sky.sky_positions(product.meta)
    within = f"within {radius:g}°" if radius else "per pixel"
    # counts and a fit's prediction compare only on one scale; a bare background would vanish on that of a bright source
    largest = (
        float(np.nanmax([np.nanmax(counts, initial=0), np.nanmax(mu, initial=0)]))
        if expected == "npred"
        else None
    )
    excess_name = "Excess" if expected == "background" else "Counts − prediction"
    with style.applied():
        figure = style.new_figure(9.6)
        style.set_title(figure, title)
        grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 0.72))
        panels = (
            (counts, "Counts", f"counts {within}", False, largest),
            (mu, expected_name, f"expected counts {within}", False, largest),
            (excess, excess_name, f"counts {within}", True, None),
            (sigma, "Significance", "√TS (σ)", True, _sigma_scale(sigma)),
        )
        drawn = [
            sky.draw_panel(
                figure,
                grid[n // 2, n % 2],
                geom,
                values,
                name,
                label,
                signed=signed,
                vmax=top,
                is_left=n % 2 == 0,
                is_bottom=n >= 2,
            )
            for n, (values, name, label, signed, top) in enumerate(panels)
        ]
        text = product.meta.get("exclusion")
        exclusion = None if text is None else RegionGeometry(text)
        _draw_histogram(figure.add_subplot(grid[2, :]), geom, sigma, positions, exclusion, of_what)
        notes = []
        if radius:
            notes.append(f"Circle: correlation radius {radius:g}°.")
            for axes in drawn:
                sky.draw_circle(axes, geom, radius)
        if [sky.draw_contours(axes, sigma, _CONTOUR_SIGMA) for axes in drawn[2:]][0]:
            notes.append(f"Contours: {_CONTOUR_SIGMA:g} σ.")
        if exclusion is not None and sky.draw_outline(drawn[-1], region_mask(geom, exclusion.regions)):
            notes.append("Dashed: exclusion.")
        if np.isfinite(sigma).any():
            notes.append(f"Largest significance: {np.nanmax(sigma):.1f} σ.")
        if not np.isfinite(sigma).all():
            notes.append("Grey: no data.")
        # names are placed by their extent, so the layout must be settled
        style.add_note(figure, " ".join(notes) or " ")
        figure.draw_without_rendering()
        unnamed = [sky.mark_sources(axes, geom, positions, with_names=n >= 2) for n, axes in enumerate(drawn)]
        if unnamed[-1]:
            notes.append(f"No place for the names of: {', '.join(unnamed[-1])}.")
        style.add_note(figure, " ".join(notes) or " ")
    return figure


def _sigma_scale(sigma: np.ndarray) -> float:
    finite = np.abs(sigma[np.isfinite(sigma)])
    return min(float(finite.max(initial=0)), _MOST_SIGMA)


def _draw_histogram(
    axes: Axes,
    geom: SkyGeometry,
    sigma: np.ndarray,
    positions: Mapping[str, Sequence[float]],
    exclusion: RegionGeometry | None,
    of_what: str,
) -> None:
    """Significance of the background's pixels, with the Gaussian of its mean and width and the one it should be."""
    finite = np.isfinite(sigma)
    every = sigma[finite]
    axes.set_xlabel(f"Significance {of_what}, √TS (σ)")
    axes.set_ylabel("Pixels")
    if not every.size:
        axes.text(0.5, 0.5, "no pixel has a significance", ha="center", va="center", transform=axes.transAxes)
        return
    away = finite & away_mask(geom, None if exclusion is None else exclusion.regions, positions)
    is_part = bool(positions or exclusion) and int(away.sum()) not in (0, every.size)
    chosen = sigma[away] if is_part else every
    where = "all pixels"
    if is_part:
        where = "outside the exclusion" if exclusion else f"more than {AWAY.to_value('deg'):g}° from sources"
    low, high = min(-5.0, float(every.min())), max(5.0, float(every.max()))
    # whole bins around zero, and no more of them than a page can show
    bin_width = _BIN_SIGMA * max(1.0, np.ceil((high - low) / (_BIN_SIGMA * 200)))
    edges = np.arange(np.floor(low / bin_width), np.ceil(high / bin_width) + 1) * bin_width
    mean, width = float(chosen.mean()), float(chosen.std())
    if is_part:
        axes.hist(every, edges, histtype="step", color=style.GREY, lw=1.2, label="all pixels")
    axes.hist(
        chosen,
        edges,
        color=style.BLUE,
        alpha=0.55,
        label=f"{where}: mean {style.rounded(mean)}, width {width:.2f}",
    )
    x = np.linspace(-5, 5, 201)
    scale = chosen.size * bin_width / np.sqrt(2 * np.pi)
    axes.plot(x, scale * np.exp(-(x**2) / 2), color=style.VERMILION, label="standard normal")
    if width > 0:
        gauss = scale / width * np.exp(-(((x - mean) / width) ** 2) / 2)
        axes.plot(x, gauss, color=style.BLUE, ls="--", label="normal of their mean and width")
    axes.set_yscale("log")
    top = max(float(np.histogram(every, edges)[0].max()), scale)
    axes.set_ylim(0.5, 2 * top)
    axes.set_xlim(edges[0] - bin_width, edges[-1] + bin_width)
    style.legend_above(axes, columns=2)
