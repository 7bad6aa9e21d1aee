"""Instrument responses: effective area, dispersion, point spread, background and directional cuts, at several offsets."""

from collections.abc import Callable, Mapping

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from dl3flow.data.products import FitResult
from dl3flow.geometry.axis import Axis
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.containment import CONTAINMENTS, containment
from dl3flow.irf.edisp import migra_density
from dl3flow.irf.table import IrfTable
from dl3flow.plots import style
from dl3flow.plots.registry import PLOTS

COLUMNS = 2
ROW_HEIGHT = 2.75
_OFFSETS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)  # deg
_MOST_LINES = 4
_N_ENERGY = 120
_CONTENTS = ((0.68, "-"), (0.95, "--"))
# the point spread is searched on this many radii
_N_RADII = 200
# what falls below this part of the largest value is no part of the picture
_SHOWN = 1e-5
_FAINT = 1e-3


@PLOTS.register()
def responses(product: Mapping[str, IrfTable], result: FitResult | None) -> Figure:
    """All responses of one file."""
    with style.applied():
        figure = style.new_figure(0.5 + ROW_HEIGHT * panel_rows(product))
        style.set_title(figure, "Instrument responses")
        draw_responses(figure, product)
    return figure


def panel_rows(irfs: Mapping[str, IrfTable]) -> int:
    """Rows that the panels of some responses take."""
    return -(-len(_panels(irfs)) // COLUMNS) or 1


def draw_responses(figure: Figure | SubFigure, irfs: Mapping[str, IrfTable]) -> None:
    """A panel for each response, two in a row.

    Parameters
    ----------
    figure : Figure or SubFigure
    irfs : mapping of IrfTable
        By ``aeff``, ``edisp``, ``psf``, ``bkg`` and ``rad_max``, as far as they are there.
    """
    grid = figure.add_gridspec(panel_rows(irfs), COLUMNS)
    for n, (draw, table) in enumerate(_panels(irfs)):
        draw(figure, figure.add_subplot(grid[n // COLUMNS, n % COLUMNS]), table)


def _panels(irfs: Mapping[str, IrfTable]) -> list[tuple[Callable[..., None], IrfTable]]:
    every = (
        ("aeff", _draw_area),
        ("edisp", _draw_dispersion),
        ("psf", _draw_point_spread),
        ("bkg", _draw_background),
        ("bkg", _draw_field),
        ("rad_max", _draw_cut),
    )
    return [(draw, irfs[name]) for name, draw in every if name in irfs]


def _energies(table: IrfTable, name: str) -> u.Quantity:
    axis = table.axis(name)
    low, high = (axis.centers if axis.n_bins > 1 else axis.edges).to_value(u.TeV)[[0, -1]]
    return np.geomspace(low, high, _N_ENERGY) * u.TeV


def _offsets(table: IrfTable) -> u.Quantity:
    """A few whole offsets inside the table, its only one where it has no more."""
    edges = table.axis("offset").edges.to_value(u.deg)
    low, high = float(edges[0]), float(edges[-1])
    found = [x for x in _OFFSETS if low <= x <= high]
    # responses of one offset are stored as a narrow bin around it
    return np.array(found[:_MOST_LINES] or [0.5 * (low + high)]) * u.deg


def _at(offset: u.Quantity) -> str:
    return f"{offset.to_value(u.deg):.3g}°"


def _scale(axes: Axes, values: np.ndarray) -> None:
    """Logarithmic axis that holds the positive values, down to a small part of the largest."""
    positive = values[np.isfinite(values) & (values > 0)]
    top = float(positive.max()) if positive.size else 1.0
    low = max(float(positive.min()), _SHOWN * top) if positive.size else 0.1
    style.set_log_axis(axes, "y", low / 1.5, top * 2, style.power_label)


def _finish(axes: Axes, energy: u.Quantity, has_value: np.ndarray, name: str = "True energy") -> None:
    """Axis of the energies that have a value, grid and legend."""
    used = np.flatnonzero(has_value)
    ends = energy.to_value(u.TeV)[[used[0], used[-1]] if len(used) > 1 else [0, -1]]
    style.set_energy_axis(axes, float(ends[0]), float(ends[1]), name=name)
    axes.grid(visible=True)
    style.legend_above(axes, columns=_MOST_LINES)


def _draw_area(figure: Figure | SubFigure, axes: Axes, aeff: IrfTable) -> None:
    energy, offsets = _energies(aeff, "energy_true"), _offsets(aeff)
    area = effective_area(aeff, energy, offsets).to_value(u.m**2)
    for values, offset, colour in zip(area.T, offsets, style.cycle(len(offsets)), strict=True):
        axes.plot(energy.value, np.where(values > 0, values, np.nan), color=colour, label=_at(offset))
    _scale(axes, area)
    axes.set_ylabel("Effective area (m²)")
    _finish(axes, energy, (area > 0).any(axis=1))


def _draw_dispersion(figure: Figure | SubFigure, axes: Axes, edisp: IrfTable) -> None:
    """Density of migra over its largest value per true energy, at the smallest offset shown; median, 16 and 84 %."""
    energy, offset = _energies(edisp, "energy_true"), _offsets(edisp)[:1]
    migra = edisp.axis("migra")
    density = migra_density(edisp, energy, offset, migra)[:, :, 0]
    edges, x = migra.edges.value, energy.to_value(u.TeV)
    top = density.max(axis=1, keepdims=True)
    shares = np.divide(density, top, out=np.zeros_like(density), where=top > 0)
    shown = axes.pcolormesh(
        x,
        migra.centers.value,
        np.where(shares > _FAINT, shares, np.nan).T,
        cmap=style.SEQUENTIAL,
        vmin=0,
        vmax=1,
        shading="nearest",
        rasterized=True,
    )
    figure.colorbar(shown, ax=axes, label="density / largest")
    below = np.concatenate([np.zeros((len(x), 1)), np.cumsum(density * np.diff(edges), axis=1)], axis=1)
    for content, line in ((0.16, ":"), (0.5, "-"), (0.84, ":")):
        quantile = [np.interp(content, row, edges) if row[-1] > 0 else np.nan for row in below]
        axes.plot(x, quantile, color=style.VERMILION, ls=line, lw=1.1)
    reach = np.array([[np.interp(c, row, edges) for c in (0.005, 0.995)] for row in below if row[-1] > 0])
    axes.set_ylim(
        max(float(edges[0]), float(reach.min(initial=1.0)) - 0.1),
        min(float(edges[-1]), float(reach.max(initial=1.0)) + 0.1, 3.0),
    )
    axes.set_ylabel("Energy / true energy")
    _finish(axes, energy, top[:, 0] > 0)
    axes.set_title(f"Energy dispersion at {_at(offset[0])}", loc="left")
    axes.grid(visible=False)


def _draw_point_spread(figure: Figure | SubFigure, axes: Axes, psf: IrfTable) -> None:
    energy, offsets = _energies(psf, "energy_true"), _offsets(psf)
    axes.set_ylabel("Point spread, 68 and 95 % (°)")
    radii = _containment_radii(psf, energy, offsets)
    for n, (offset, colour) in enumerate(zip(offsets, style.cycle(len(offsets)), strict=True)):
        for (content, line), values in zip(_CONTENTS, radii[:, :, n], strict=True):
            label = _at(offset) if content == _CONTENTS[0][0] else None
            axes.plot(energy.value, values, color=colour, ls=line, label=label)
    finite = radii[np.isfinite(radii)]
    axes.set_ylim(0, 1.1 * float(np.percentile(finite, 99)) if finite.size else 1.0)
    _finish(axes, energy, np.isfinite(radii).any(axis=(0, 2)))


def _containment_radii(psf: IrfTable, energy: u.Quantity, offsets: u.Quantity) -> np.ndarray:
    """Radii (deg) that hold 68 and 95 % of the light, shape (2, n_energy, n_offset); NaN where there is none."""
    radii = np.geomspace(1e-3, 5.0, _N_RADII)
    if psf.kind not in CONTAINMENTS.names():
        return np.full((len(_CONTENTS), len(energy), len(offsets)), np.nan)
    held = np.array([containment(psf, energy, radius * u.deg, offsets) for radius in radii])
    found = np.full((len(_CONTENTS), len(energy), len(offsets)), np.nan)
    for n, (content, _) in enumerate(_CONTENTS):
        for place in np.ndindex(len(energy), len(offsets)):
            curve = held[(slice(None), *place)]
            if curve[-1] >= content:
                found[(n, *place)] = np.interp(content, curve, radii)
    return found


def _draw_background(figure: Figure | SubFigure, axes: Axes, bkg: IrfTable) -> None:
    """Rate per energy at offsets to the north."""
    axis, offsets = bkg.axis("energy"), _field_offsets(bkg)
    bins = (
        Axis("energy", axis.edges, "log")
        if axis.nodes is None
        else Axis.from_nodes("energy", axis.nodes, "log")
    )
    rate = background_rate(bkg, bins, np.zeros(len(offsets)), offsets.to_value(u.rad)).to_value("s-1 sr-1")
    density = rate / bins.widths.to_value(u.TeV)[:, None]
    for values, offset, colour in zip(density.T, offsets, style.cycle(len(offsets)), strict=True):
        axes.plot(
            bins.centers.to_value(u.TeV),
            np.where(values > 0, values, np.nan),
            color=colour,
            label=_at(offset),
        )
    _scale(axes, density[density > _SHOWN * density.max(initial=0)])
    axes.set_ylabel("Background (s⁻¹ TeV⁻¹ sr⁻¹)")
    _finish(axes, bins.centers, (density > _SHOWN * density.max(initial=0)).any(axis=1), "Energy")


def _field_offsets(bkg: IrfTable) -> u.Quantity:
    if bkg.kind == "bkg_2d":
        return _offsets(bkg)
    reach = float(bkg.axis("fov_lat").edges.to_value(u.deg)[-1])
    return np.array([x for x in _OFFSETS if x <= reach][:_MOST_LINES] or [0.0]) * u.deg


def _draw_field(figure: Figure | SubFigure, axes: Axes, bkg: IrfTable) -> None:
    """Rate of all energies over the field of view."""
    name = "offset" if bkg.kind == "bkg_2d" else "fov_lat"
    reach = float(bkg.axis(name).edges.to_value(u.deg)[-1])
    edges = np.linspace(-reach, reach, 61)
    centers = 0.5 * (edges[:-1] + edges[1:])
    lon, lat = (x.ravel() for x in np.meshgrid(np.radians(centers), np.radians(centers)))
    axis = bkg.axis("energy")
    bins = (
        Axis("energy", axis.edges, "log")
        if axis.nodes is None
        else Axis.from_nodes("energy", axis.nodes, "log")
    )
    rate = background_rate(bkg, bins, lon, lat).to_value("s-1 deg-2").sum(axis=0).reshape(60, 60)
    factor, power = style.power_of_ten(rate)
    shown = axes.pcolormesh(
        edges,
        edges,
        np.where(rate > 0, rate / factor, np.nan),
        cmap=style.SEQUENTIAL,
        vmin=0,
        rasterized=True,
    )
    figure.colorbar(shown, ax=axes, label=f"rate ({power}s⁻¹ deg⁻²)")
    axes.set_aspect("equal")
    axes.set_xlabel("Field of view, longitude (°)")
    axes.set_ylabel("Latitude (°)")
    axes.set_title("Background, all energies", loc="left")


def _draw_cut(figure: Figure | SubFigure, axes: Axes, rad_max: IrfTable) -> None:
    """Radius of the directional cut in the table's own bins."""
    edges = rad_max.axis("energy").edges.to_value(u.TeV)
    centers = rad_max.axis("offset").centers
    columns = rad_max.quantity.to_value(u.deg).T[:_MOST_LINES]
    for values, offset, colour in zip(columns, centers, style.cycle(len(columns)), strict=False):
        axes.stairs(values, edges, color=colour, baseline=None, label=_at(offset))
    axes.set_ylim(0, 1.15 * float(columns.max(initial=0)) or 1.0)
    axes.set_ylabel("Directional cut (°)")
    _finish(axes, rad_max.axis("energy").edges, np.ones(len(edges)), "Energy")
