"""Maps of a source's strength wherever it is put: significance, flux, and its error or upper limit."""

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS
from dl3flow.plots.sky_page import Panel, draw_page, quantity_panel, significance_panel

MOST_BANDS = 6
_NAMES = {"flux": "Flux", "dnde": "Differential flux", "eflux": "Energy flux", "e2dnde": "Spectral energy"}
# limits and errors at the edge of the field are as large as one likes: what lies beyond this part of all is cut
_CONTENT, _MOST_MEDIANS = 98, 5


@PLOTS.register()
def ts_map(product: SkyMap, result: FitResult | None) -> Figure:
    """Significance, flux and its error or upper limit, a row per band of energy."""
    quantity = str(product.meta.get("quantity", "flux"))
    name = _NAMES.get(quantity, quantity)
    sigma = product.maps["sqrt_ts"]
    has_limit = f"{quantity}_ul" in product.maps
    third, third_name = (f"{quantity}_ul", "Upper limit") if has_limit else (f"{quantity}_err", "Error")
    flux, width = product.maps[quantity], product.maps[third]
    panels: list[Panel] = []
    n_bands = count_bands(sigma)
    for band in range(min(n_bands, MOST_BANDS)):
        significance = significance_panel(in_band(sigma, band), f"Significance{band_label(sigma, band)}")
        every = in_band(width, band)
        shown = _without_largest(every)
        error = quantity_panel(width, shown, third_name)
        finite = error.values[np.isfinite(error.values)]
        top = float(np.percentile(finite, _CONTENT)) if finite.size else None
        # all values, so that the colour bar tells that some lie beyond its end
        values = every / style.power_of_ten(shown)[0]
        panels += [
            significance,
            quantity_panel(flux, in_band(flux, band), name, is_signed=True),
            replace(error, values=values, top=top),
        ]
    notes = left_out(n_bands)
    if "spectral" in product.meta:
        notes.append(f"Source: {product.meta['spatial']}; {product.meta['spectral']}.")
    title = "Test statistic and flux of a source on every pixel"
    return draw_page(product, sigma.sky, title, panels, columns=3, notes=notes)


def _without_largest(values: np.ndarray) -> np.ndarray:
    """Values up to a multiple of their median, so that the few at the edge of the field do not set the scale."""
    finite = values[np.isfinite(values)]
    return np.minimum(values, _MOST_MEDIANS * np.median(finite)) if finite.size else values


def count_bands(values: Map) -> int:
    """Bins of the only axis of a map beside the sky, or one."""
    return values.axes[0].n_bins if values.axes else 1


def in_band(values: Map, band: int) -> np.ndarray:
    """Image of one energy band."""
    return np.asarray(values.data.reshape(-1, *values.geom.shape)[band], dtype=float)


def band_label(of: Map, band: int) -> str:
    """Energies of a band, to stand after a title; empty where there is no axis of energy."""
    if not of.axes:
        return ""
    low, high = of.axes[0].edges[band : band + 2].to_value("TeV")
    return f", {low:.3g}–{high:.3g} TeV"


def left_out(n_bands: int) -> list[str]:
    """What to say of bands that find no room."""
    return [f"The first {MOST_BANDS} of {n_bands} bands of energy."] * (n_bands > MOST_BANDS)
