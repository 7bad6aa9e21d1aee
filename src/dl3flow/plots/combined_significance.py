"""Significance of several datasets and energy bands together, and the number of them that say something of each pixel."""

import numpy as np
from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, SkyMap
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS


@PLOTS.register()
def combined_significance(product: SkyMap, result: FitResult | None) -> Figure:
    """Combined significance and degrees of freedom on the sky."""
    geom = product.maps["sqrt_ts"].sky
    sigma, n_dof = (sky.image(product.maps[key]) for key in ("sqrt_ts", "n_dof"))
    positions = sky.sky_positions(product.meta)
    with style.applied():
        figure = style.new_figure(4.2)
        style.set_title(figure, "Combined significance")
        grid = figure.add_gridspec(1, 2)
        top = float(np.nanmax(np.abs(sigma), initial=0.0)) if np.isfinite(sigma).any() else 1.0
        panels = (
            (sigma, "Significance", "σ", True, min(top, 10.0)),
            (n_dof, "Degrees of freedom", "datasets and bands", False, None),
        )
        drawn = [
            sky.draw_panel(
                figure, grid[0, n], geom, values, name, label, signed=signed, vmax=vmax, is_left=n == 0
            )
            for n, (values, name, label, signed, vmax) in enumerate(panels)
        ]
        radius = float(product.meta.get("correlation_radius", 0.0))
        style.add_note(figure, f"Within {radius:g}° of each pixel." if radius else " ")
        figure.draw_without_rendering()
        for n, axes in enumerate(drawn):
            sky.mark_sources(axes, geom, positions, with_names=n == 0)
    return figure
