"""Maps of a source's strength wherever it is put: significance, flux, and its error or upper limit."""

import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS

_CONTOUR_SIGMA = 5.0
# a scale to the peak of a bright source would leave nothing to see around it
_MOST_SIGMA = 10.0
_MOST_BANDS = 6
_SHARE = 99
_NAMES = {"flux": "Flux", "dnde": "Differential flux", "eflux": "Energy flux", "e2dnde": "Spectral energy"}


@PLOTS.register()
def ts_map(product: SkyMap, result: FitResult | None) -> Figure:
    """Significance, flux and its error or upper limit, a row per band of energy."""
    quantity = str(product.meta.get("quantity", "flux"))
    name = _NAMES.get(quantity, quantity)
    first = product.maps["sqrt_ts"]
    geom, n_bands = first.sky, first.data.size // int(np.prod(first.geom.shape))
    shown = min(n_bands, _MOST_BANDS)
    third, third_name = (
        (f"{quantity}_ul", "Upper limit")
        if f"{quantity}_ul" in product.maps
        else (f"{quantity}_err", "Error")
    )
    positions = sky.sky_positions(product.meta)
    with style.applied():
        figure = style.new_figure(1.0 + 2.05 * shown)
        style.set_title(figure, "Test statistic and flux of a source on every pixel")
        grid = figure.add_gridspec(shown, 3)
        drawn, has_contour = [], False
        for band in range(shown):
            for column, (key, title, label) in enumerate(
                (
                    ("sqrt_ts", "Significance", "√TS (σ)"),
                    (quantity, name, style.unit_text(product.maps[quantity].unit)),
                    (third, third_name, style.unit_text(product.maps[third].unit)),
                )
            ):
                values = product.maps[key].data.reshape(n_bands, *geom.shape)[band]
                scale, power = (1.0, "") if column == 0 else style.power_of_ten(values)
                axes = sky.draw_panel(
                    figure,
                    grid[band, column],
                    geom,
                    values / scale,
                    f"{title}{band_label(first, band) if column == 0 else ''}",
                    f"{power}{label}",
                    signed=column < 2,
                    vmax=_sigma_scale(values)
                    if column == 0
                    else _scale(values / scale)
                    if column == 2
                    else None,
                    is_left=column == 0,
                    is_bottom=band == shown - 1,
                )
                drawn.append(axes)
                if column == 0:
                    has_contour |= sky.draw_contours(axes, values, _CONTOUR_SIGMA)
        notes = [f"Contours: {_CONTOUR_SIGMA:g} σ."] * has_contour
        notes += [f"The first {shown} of {n_bands} bands of energy."] * (shown < n_bands)
        notes += ["Grey: no data."] * (not np.isfinite(first.data).all())
        if "spectral" in product.meta:
            notes.append(f"Source: {product.meta['spatial']}; {product.meta['spectral']}.")
        # names are placed by their extent, so the layout must be settled
        style.add_note(figure, " ".join(notes) or " ")
        figure.draw_without_rendering()
        for n, axes in enumerate(drawn):
            sky.mark_sources(axes, geom, positions, with_names=n % 3 == 0)
    return figure


def band_label(of: Map, band: int) -> str:
    """Energies of one of a map's bands, as the end of a title; empty for a map without bands."""
    if not of.axes:
        return ""
    low, high = of.axes[0].edges[band : band + 2].to_value("TeV")
    return f", {low:.3g}–{high:.3g} TeV"


def _scale(values: np.ndarray) -> float | None:
    """Largest colour of errors and limits, which grow without bound where the exposure ends."""
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, _SHARE)) if finite.size else None


def _sigma_scale(sigma: np.ndarray) -> float:
    finite = np.abs(sigma[np.isfinite(sigma)])
    return min(float(finite.max(initial=0)), _MOST_SIGMA)
