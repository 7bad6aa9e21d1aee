"""Maps of counts, background or prediction, excess, significance and flux, with the distribution of significance."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, SkyMap
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import AWAY, away_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS
from dl3flow.plots.sky_page import Panel, draw_page, quantity_panel, significance_panel

_BIN_SIGMA = 0.25
_MOST_BANDS = 6


@PLOTS.register()
def excess_map(product: SkyMap, result: FitResult | None) -> Figure:
    """Counts, background, excess, significance and flux on the sky, and the significance of each energy band."""
    return _draw(product, "background", "Background", "Excess and significance maps", "of excess")


@PLOTS.register()
def residual_map(product: SkyMap, result: FitResult | None) -> Figure:
    """Counts, prediction of the best fit, what remains, and its significance."""
    return _draw(product, "npred", "Prediction of the fit", "Residual maps", "of residual")


@PLOTS.register()
def combined_significance(product: SkyMap, result: FitResult | None) -> Figure:
    """Combined significance and degrees of freedom on the sky."""
    geom = product.maps["sqrt_ts"].sky
    sigma, n_dof = (sky.image(product.maps[key]) for key in ("sqrt_ts", "n_dof"))
    panels = (
        significance_panel(sigma),
        Panel(n_dof, "Degrees of freedom", "datasets and bands"),
    )
    return draw_page(product, geom, "Combined significance", panels, sigma)


def _draw(product: SkyMap, expected: str, expected_name: str, title: str, of_what: str) -> Figure:
    geom = product.maps["counts"].sky
    counts, mu, excess, sigma = (
        sky.image(product.maps[name]) for name in ("counts", expected, "excess", "sqrt_ts")
    )
    radius = float(product.meta.get("correlation_radius", 0.0))
    within = f"within {radius:g}°" if radius else "per pixel"
    # counts and a fit's prediction compare only on one scale; a bare background would vanish on that of a bright source
    largest = (
        float(np.nanmax([np.nanmax(counts, initial=0), np.nanmax(mu, initial=0)]))
        if expected == "npred"
        else None
    )
    excess_name = "Excess" if expected == "background" else "Counts − prediction"
    panels = [
        Panel(counts, "Counts", f"counts {within}", top=largest),
        Panel(mu, expected_name, f"expected counts {within}", top=largest),
        Panel(excess, excess_name, f"counts {within}", True, contour=sigma, is_named=True),
        significance_panel(sigma),
        *_flux_panels(product),
    ]
    bands, notes = _band_panels(product)
    text = product.meta.get("exclusion")
    exclusion = None if text is None else RegionGeometry(text)

    def histogram(axes: Axes) -> None:
        _draw_histogram(axes, geom, sigma, product.meta, exclusion, of_what)

    return draw_page(product, geom, title, [*panels, *bands], sigma, below=histogram, notes=notes)


def _flux_panels(product: SkyMap) -> list[Panel]:
    """Flux, and its upper limit where there is one, else its error."""
    if "flux" not in product.maps:
        return []
    n_sigma = float(product.meta.get("n_sigma_ul", 2))
    names = {"flux_ul": f"Upper limit of the flux ({n_sigma:g} σ)", "flux_err": "Error of the flux"}
    second = next((name for name in names if name in product.maps), None)
    found = product.maps["flux"]
    panels = [quantity_panel(found, sky.image(found), "Flux", is_signed=True)]
    if second is not None:
        panels.append(quantity_panel(product.maps[second], sky.image(product.maps[second]), names[second]))
    return panels


def _band_panels(product: SkyMap) -> tuple[list[Panel], list[str]]:
    """Significance of each energy band, and how many are not shown."""
    bands = product.maps.get("band_sqrt_ts")
    if bands is None:
        return [], []
    edges = bands.axes[0].edges.to_value("TeV")
    panels = [
        significance_panel(np.asarray(values, dtype=float), f"Significance, {low:.3g} to {high:.3g} TeV")
        for values, low, high in zip(bands.data, edges[:-1], edges[1:], strict=True)
    ]
    n_left = len(panels) - _MOST_BANDS
    notes = [f"{n_left} further energy bands are not drawn."] if n_left > 0 else []
    return [replace(panel, contour=None, is_named=False) for panel in panels[:_MOST_BANDS]], notes


def _draw_histogram(
    axes: Axes,
    geom: SkyGeometry,
    sigma: np.ndarray,
    meta: Mapping[str, Any],
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
    positions = sky.sky_positions(meta)
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
    fitted = (meta.get("significance") or {}).get("fit")
    if is_part:
        axes.hist(every, edges, histtype="step", color=style.GREY, lw=1.2, label="all pixels")
    axes.hist(
        chosen,
        edges,
        color=style.BLUE,
        alpha=0.55,
        # the numbers of a fit say more, and both together would not fit beside each other
        label=where if fitted else f"{where}: mean {style.rounded(mean)}, width {width:.2f}",
    )
    x = np.linspace(-5, 5, 201)
    scale = chosen.size * bin_width / np.sqrt(2 * np.pi)
    axes.plot(x, scale * np.exp(-(x**2) / 2), color=style.VERMILION, label="standard normal")
    if fitted:
        found = f"{style.rounded(fitted['mean'])} ± {fitted['mean_err']:.2f}"
        label = f"fit: mean {found}, width {fitted['width']:.2f} ± {fitted['width_err']:.2f}"
        _draw_gauss(axes, x, scale, fitted["mean"], fitted["width"], label)
    elif width > 0:
        _draw_gauss(axes, x, scale, mean, width, "normal of that mean and width")
    axes.set_yscale("log")
    top = max(float(np.histogram(every, edges)[0].max()), scale)
    axes.set_ylim(0.5, 2 * top)
    axes.set_xlim(edges[0] - bin_width, edges[-1] + bin_width)
    style.legend_above(axes, columns=2)


def _draw_gauss(axes: Axes, x: np.ndarray, scale: float, mean: float, width: float, label: str) -> None:
    gauss = scale / width * np.exp(-(((x - mean) / width) ** 2) / 2)
    axes.plot(x, gauss, color=style.BLACK, ls="--", label=label)
