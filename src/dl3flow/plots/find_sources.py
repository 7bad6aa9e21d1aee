"""Sources found, on the sky: the ellipses of their places and what was known before."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS

# beyond so many a name would find no place
_MOST_NAMES = 40


@PLOTS.register()
def find_sources(product: ProductTable, result: FitResult | None) -> Figure:
    """Crosses at the peaks, ellipses of 68 % around the places found, points at the sources of the fit."""
    table, meta = product.table, product.meta
    field: dict[str, Any] = meta.get("field") or {"center": [0.0, 0.0], "width": 1.0}
    (lon, lat), half = field["center"], 0.5 * float(field["width"])
    stretch = 1 / max(float(np.cos(np.radians(lat))), 0.05)
    with style.applied():
        figure = style.new_figure(6.4)
        axes = figure.subplots()
        style.set_title(figure, f"Sources found: {len(table)}")
        known = sky.sky_positions(meta)
        for n, (x, y) in enumerate(known.values()):
            x = lon + (x - lon + 180) % 360 - 180
            axes.plot(x, y, "o", ms=4, color=style.GREY, label="known before" if n == 0 else None)
        for n, row in enumerate(table):
            x, y = (float(row[key].to_value("deg")) for key in ("peak_ra", "peak_dec"))
            x = lon + (x - lon + 180) % 360 - 180
            axes.plot(x, y, "+", ms=7, color=style.BLACK, label="peaks" if n == 0 else None)
            at = [float(row[key].to_value("deg")) for key in ("ra", "dec")]
            if np.isfinite(at).all():
                at[0] = lon + (at[0] - lon + 180) % 360 - 180
                major, minor, angle = (
                    float(row[key].to_value("deg")) for key in ("error_major", "error_minor", "error_angle")
                )
                axes.add_patch(
                    Ellipse(
                        (at[0], at[1]),
                        2 * minor * stretch,
                        2 * major,
                        angle=-angle,
                        fc="none",
                        ec=style.VERMILION,
                        lw=1.4,
                        label="68 % ellipse" if n == 0 else None,
                    )
                )
            if len(table) <= _MOST_NAMES:
                axes.annotate(
                    style.plain(row["name"]), (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8
                )
        axes.set_xlim(lon + half * stretch, lon - half * stretch)
        axes.set_ylim(lat - half, lat + half)
        axes.set_aspect(stretch)
        axes.set_xlabel("Right ascension (deg)")
        axes.set_ylabel("Declination (deg)")
        axes.ticklabel_format(style="plain", useOffset=False)
        axes.grid(visible=True, color=style.LIGHT, lw=0.5)
        style.legend_above(axes)
        if not len(table):
            style.add_note(figure, f"No peak above {float(meta.get('threshold', 5)):g} σ.")
    return figure
