"""Panels of a spectrum: exposure, dispersion, off regions, and the reasons of its safe mask."""

from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from dl3flow.data.dataset import Dataset
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import bounding_box, parse_regions
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.edisp import kernels_from_density
from dl3flow.plots import style
from dl3flow.plots.sky import sky_axes

# shares of a stack, that are no safe mask
_ALL = "all"
# a sketch shows this much sky around the regions, and at least this
_MARGIN, _LEAST = 1.15, 0.3 * u.deg


def draw_exposure(axes: Axes, product: Dataset) -> None:
    """Exposure per true energy."""
    edges = product.energy_true.edges.to_value(u.TeV)
    values = product.exposure.quantity[:, 0, 0].to_value("m2 s")
    axes.stairs(values, edges, color=style.BLUE, lw=1.5, baseline=None)
    positive = values[values > 0]
    top = float(positive.max()) if positive.size else 1.0
    # what lies far below the maximum is the threshold's edge, and would flatten the rest
    low = max(float(positive.min()), 1e-4 * top) if positive.size else 0.1
    style.set_log_axis(axes, "y", 0.6 * low, 2 * top, style.power_label)
    style.set_energy_axis(axes, edges[0], edges[-1], "True energy")
    axes.set_ylabel("Exposure (m² s)")
    axes.set_title("Exposure")
    axes.grid(visible=True, color=style.LIGHT, lw=0.5)


def draw_dispersion(figure: Figure, axes: Axes, product: Dataset) -> None:
    """Probability of each reconstructed energy, per true energy."""
    true, energy = (axis.edges.to_value(u.TeV) for axis in (product.energy_true, product.energy))
    kernel = np.eye(len(energy) - 1)
    if product.edisp is not None:
        kernel = product.edisp.edisp.data[:, :, 0, 0]
        if not product.edisp.is_kernel:
            migra = product.edisp.edisp.axes[1]
            kernel = kernels_from_density(kernel, migra, product.energy_true, product.energy)
    shown = axes.pcolormesh(true, energy, kernel.T, cmap=style.SEQUENTIAL, vmin=0, rasterized=True)
    figure.colorbar(shown, ax=axes, label="probability per bin")
    style.set_energy_axis(axes, true[0], true[-1], "True energy")
    style.set_log_axis(axes, "y", energy[0], energy[-1], lambda value: f"{value:.6g}")
    axes.set_ylabel("Energy (TeV)")
    axes.set_title("Energy dispersion")


def dropped_share(product: Dataset) -> dict[str, np.ndarray]:
    """Share of the bins per energy that each safe mask drops, of a dataset or summed over those of a stack.

    Returns
    -------
    shares : dict of name to array, shape (n_energy,), between 0 and 1
        Only masks that drop a bin; a bin can be dropped by several. Empty where the reasons are not known.
    """
    if product.reasons is not None:
        reasons = product.reasons
        shares = {name: reasons.dropped(name).mean(axis=(1, 2)) for name in reasons.names}
    else:
        numbers = product.meta.get("mask_reasons", {})
        total = np.asarray(numbers.get(_ALL, np.zeros(product.energy.n_bins)), dtype=float)
        shares = {
            name: np.divide(n, total, out=np.zeros(len(total)), where=total > 0)
            for name, n in numbers.items()
            if name != _ALL
        }
    return {name: share for name, share in shares.items() if np.any(share > 0)}


def draw_reasons(axes: Axes, edges: np.ndarray, shares: Mapping[str, np.ndarray]) -> None:
    """Share of the bins per energy that each safe mask drops.

    Parameters
    ----------
    edges : array, shape (n_energy + 1,), TeV
    shares : mapping of name to array, shape (n_energy,)
        See `dropped_share`.
    """
    colours = style.cycle(len(shares))
    for n, (name, share) in enumerate(shares.items()):
        # masks that drop the same bins stay visible beside one another
        axes.stairs(
            100 * share,
            edges,
            color=colours[n],
            lw=3.2 - 0.4 * min(n, 5),
            baseline=None,
            label=style.plain(name),
        )
    axes.set_ylim(-4, 104)
    style.set_energy_axis(axes, edges[0], edges[-1])
    axes.set_ylabel("Bins dropped (%)")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=style.LIGHT, lw=0.5)
    style.legend_above(axes, columns=2)


def draw_regions(
    figure: Figure,
    cell: SubplotSpec,
    region: RegionGeometry,
    off_text: str,
    pointing: Sequence[float] | None,
) -> WCSAxes:
    """The on region, its off regions and the pointing on the sky.

    Parameters
    ----------
    region : RegionGeometry
    off_text : str
        DS9 text of the off regions.
    pointing : (ra, dec), deg, or None
    """
    off = parse_regions(off_text, "off regions", is_point_allowed=True)
    middle, side = bounding_box([*region.regions, *off])
    side = max(_MARGIN * side, _LEAST)
    geom = SkyGeometry.create(middle, side, side / 200, "TAN")
    axes = sky_axes(figure, cell, geom)
    axes.set_aspect("equal")
    for regions, colour, label in ((region.regions, style.BLUE, "on"), (off, style.VERMILION, "off")):
        for n, shape in enumerate(regions):
            pixels = shape.to_pixel(geom.wcs)
            name = f"{label} ({len(regions)})" if label == "off" else label
            if hasattr(pixels, "area") and pixels.area > 0:
                artist = pixels.as_artist(
                    facecolor="none", edgecolor=colour, lw=1.2, label=name if n == 0 else None
                )
                axes.add_artist(artist)
            else:
                axes.plot(
                    pixels.center.x,
                    pixels.center.y,
                    "o",
                    ms=5,
                    mfc="none",
                    color=colour,
                    label=name if n == 0 else None,
                )
    if pointing is not None:
        x, y = geom.pixel(SkyCoord(*pointing, unit="deg"))
        axes.plot(float(x), float(y), "+", ms=8, color=style.BLACK, label="pointing")
    style.legend_above(axes)
    return axes
