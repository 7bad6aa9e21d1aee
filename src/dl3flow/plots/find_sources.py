"""Sources found, on the sky: the ellipses of their places and what was known before."""

from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from dl3flow.data.products import FitResult, ProductTable
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.plots import sky, style
from dl3flow.plots.registry import PLOTS

_N_PIXELS = 200
_LEAST_FIELD = 0.1  # deg


@PLOTS.register()
def find_sources(product: ProductTable, result: FitResult | None) -> Figure:
    """Crosses at the peaks, ellipses of 68 % around the places found, points at the sources of the fit."""
    table, meta = product.table, product.meta
    field: dict[str, Any] = meta.get("field") or {"center": [0.0, 0.0], "width": 1.0}
    side = max(float(field["width"]), _LEAST_FIELD)
    geom = SkyGeometry.create(
        SkyCoord(*field["center"], unit="deg"), side * u.deg, side / _N_PIXELS * u.deg, "TAN"
    )
    with style.applied():
        figure = style.new_figure(6.4)
        style.set_title(figure, f"Sources found: {len(table)}")
        axes = sky.sky_axes(figure, figure.add_gridspec(1, 1)[0], geom)
        axes.set_aspect("equal")
        axes.coords.grid(color=style.LIGHT, lw=0.5)
        for n, (lon, lat) in enumerate(sky.sky_positions(meta).values()):
            x, y = geom.pixel(SkyCoord(lon * u.deg, lat * u.deg))
            label = "known before" if n == 0 else None
            axes.plot(float(x), float(y), "o", mfc="none", color=style.GREY, label=label)
        _draw_ellipses(axes, geom, product)
        peaks = [
            (str(row["name"]), [float(row[key].to_value(u.deg)) for key in ("peak_ra", "peak_dec")])
            for row in table
        ]
        if peaks:
            axes.plot([], [], "+", ms=8, mew=1.4, color=style.BLACK, ls="none", label="peaks")
        style.legend_above(axes)
        notes = [] if peaks else [f"No peak above {float(meta.get('threshold', 5)):g} σ."]
        # names are placed by their extent, so the layout must be settled
        style.add_note(figure, " ".join(notes) or " ")
        figure.draw_without_rendering()
        unnamed = sky.mark_sources(axes, geom, dict(peaks), with_names=True)
        if unnamed:
            notes.append(f"No place for the names of: {', '.join(unnamed)}.")
        style.add_note(figure, " ".join(notes) or " ")
    return figure


def _draw_ellipses(axes: WCSAxes, geom: SkyGeometry, product: ProductTable) -> None:
    """Ellipses around the places that a fit found; the position angle counts from north to east."""
    label: str | None = "68 % ellipse"
    for row in product.table:
        values = [float(row[key].to_value(u.deg)) for key in ("ra", "dec", "error_major", "error_minor")]
        angle = float(row["error_angle"].to_value(u.deg))
        if not np.isfinite([*values, angle]).all():
            continue
        lon, lat, major, minor = values
        x, y = geom.pixel(SkyCoord(lon * u.deg, lat * u.deg))
        # longitude grows to the left: a turn to the east is one against the clock
        axes.add_patch(
            Ellipse(
                (float(x), float(y)),
                2 * minor / geom.binsz,
                2 * major / geom.binsz,
                angle=angle,
                fc="none",
                ec=style.VERMILION,
                lw=1.4,
                label=label,
            )
        )
        label = None
