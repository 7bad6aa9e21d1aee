"""Adaptively smoothed maps: counts, flux, and the scale of the smoothing."""

from dataclasses import replace

from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, SkyMap
from dl3flow.plots.registry import PLOTS
from dl3flow.plots.sky_page import Panel, draw_page, quantity_panel
from dl3flow.plots.ts_map import MOST_BANDS, band_label, count_bands, in_band, left_out


@PLOTS.register()
def adaptive_smooth(product: SkyMap, result: FitResult | None) -> Figure:
    """Counts, flux and scale, a row per band of energy."""
    counts, flux, scale = (product.maps[key] for key in ("counts", "flux", "scale"))
    n_bands = count_bands(counts)
    panels: list[Panel] = []
    for band in range(min(n_bands, MOST_BANDS)):
        smooth = quantity_panel(flux, in_band(flux, band), "Flux")
        panels += [
            Panel(
                in_band(counts, band), f"Counts{band_label(counts, band)}", "counts per pixel", is_named=True
            ),
            replace(smooth, label=f"{smooth.label} per pixel"),
            Panel(in_band(scale, band), "Scale", "deg"),
        ]
    kind = "width of a Gaussian" if product.meta.get("kernel") == "gauss" else "radius of a circle"
    notes = [f"Scale: {kind} that holds {float(product.meta.get('threshold', 5)):g} σ.", *left_out(n_bands)]
    return draw_page(product, counts.sky, "Adaptively smoothed maps", panels, columns=3, notes=notes)
