"""Adaptively smoothed maps: counts, background, flux, and the scale of the smoothing."""

from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, SkyMap
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS
from dl3flow.plots.ts_map import band_label

_MOST_BANDS = 6


@PLOTS.register()
def adaptive_smooth(product: SkyMap, result: FitResult | None) -> Figure:
    """Counts, flux and scale, a row per band of energy."""
    first = product.maps["counts"]
    geom = first.sky
    n_bands = first.axes[0].n_bins if first.axes else 1
    shown = min(n_bands, _MOST_BANDS)
    positions = sky.sky_positions(product.meta)
    panels = (
        ("counts", "Counts", "counts per pixel"),
        ("flux", "Flux", f"{style.unit_text(product.maps['flux'].unit)} per pixel"),
        ("scale", "Scale", "deg"),
    )
    with style.applied():
        figure = style.new_figure(1.0 + 2.05 * shown)
        style.set_title(figure, "Adaptively smoothed maps")
        grid = figure.add_gridspec(shown, len(panels))
        drawn = []
        for band in range(shown):
            for column, (key, title, label) in enumerate(panels):
                values = product.maps[key].data.reshape(n_bands, *geom.shape)[band]
                scale, power = style.power_of_ten(values)
                within = band_label(first, band) if column == 0 else ""
                axes = sky.draw_panel(
                    figure,
                    grid[band, column],
                    geom,
                    values / scale,
                    title + within,
                    f"{power}{label}",
                    is_left=column == 0,
                    is_bottom=band == shown - 1,
                )
                drawn.append(axes)
        kind = "width of a Gaussian" if product.meta.get("kernel") == "gauss" else "radius of a circle"
        notes = [f"Scale: {kind} that holds {float(product.meta.get('threshold', 5)):g} σ; grey: none does."]
        notes += [f"The first {shown} of {n_bands} bands of energy."] * (shown < n_bands)
        # names are placed by their extent, so the layout must be settled
        style.add_note(figure, " ".join(notes))
        figure.draw_without_rendering()
        for n, axes in enumerate(drawn):
            sky.mark_sources(axes, geom, positions, with_names=n % len(panels) == 0)
    return figure
