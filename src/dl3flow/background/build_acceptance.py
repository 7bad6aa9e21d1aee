"""Background rates in the camera, built from the user's own runs by zenith bins."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import astropy.units as u
import numpy as np

from dl3flow.background.camera import Usable, camera_geometry, good_events, zenith_angle
from dl3flow.background.options import Count
from dl3flow.data.binning import uncut_bins, uncut_places
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis, EnergyAxis, PositiveAngle
from dl3flow.irf.table import IrfTable
from dl3flow.kernels.acceptance import (
    extended,
    fit_separable,
    local_index,
    mean_over_center,
    power_law_tail,
    radial_shape,
    smoothed_shape,
)

_RATE = u.Unit("s-1 MeV-1 sr-1")
_MOST_CELLS = 20_000_000


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells of the camera: rings of offset, or squares of (fov_lon, fov_lat).

    Attributes
    ----------
    axes : tuple of Axis
    solid_angle : array, shape (n_cells,), sr
    offset : array, shape (n_cells,)
        Distance of a cell's centre from the pointing, in widths of a cell.
    """

    axes: tuple[Axis, ...]
    solid_angle: np.ndarray
    offset: np.ndarray

    @property
    def number(self) -> int:
        return len(self.solid_angle)

    def index(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """Cell of each place in the camera (rad), -1 outside all."""
        if len(self.axes) == 1:
            return self.axes[0].index(fov.separation(lon, lat, 0.0, 0.0) * u.rad)
        i, j = (axis.index(x * u.rad) for axis, x in zip(self.axes, (lon, lat), strict=True))
        return np.where((i >= 0) & (j >= 0), i * self.axes[1].n_bins + j, -1)


def _rings(number: int, radius: u.Quantity) -> _Cells:
    axis = Axis.from_bounds("offset", 0 * u.deg, radius.to(u.deg), number, "lin")
    solid_angle = -2 * np.pi * np.diff(np.cos(axis.edges.to_value(u.rad)))
    return _Cells((axis,), solid_angle, np.arange(number) + 0.5)


def _squares(number: int, radius: u.Quantity) -> _Cells:
    half = radius.to(u.deg)
    lon, lat = (Axis.from_bounds(name, -half, half, number, "lin") for name in ("fov_lon", "fov_lat"))
    edges = lon.edges.to_value(u.rad)
    solid_angle = np.outer(np.diff(edges), np.diff(np.sin(edges)))
    x = lon.centers.to_value(u.rad)
    offset = fov.separation(x[:, None], x[None, :], 0.0, 0.0)
    return _Cells((lon, lat), solid_angle.ravel(), offset.ravel() / (edges[1] - edges[0]))


@dataclass(eq=False)
class _Sums:
    """What is kept of the runs of one zenith bin: the summed counts, and per run its time and the sky that it could use."""

    counts: np.ndarray
    obs_ids: list[int] = field(default_factory=list)
    ontime: list[float] = field(default_factory=list)
    cos_zenith: list[float] = field(default_factory=list)
    usable: list[np.ndarray] = field(default_factory=list)
    energies: list[np.ndarray] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)


def build_acceptance(
    observations: Iterable[Observation],
    usable: Usable | None = None,
    *,
    kind: Literal["bkg_2d", "bkg_3d"] = "bkg_2d",
    energy: EnergyAxis,
    radius: PositiveAngle = 2.5 * u.deg,
    binsz: PositiveAngle = 0.2 * u.deg,
    zenith_bins: list[Annotated[u.Quantity, u.deg]] | None = None,
    min_counts: Count = 1000,
    smoothing: PositiveAngle = 0.5 * u.deg,
    below_threshold: bool = False,
) -> tuple[IrfTable, ...]:
    """Background rate in the camera (RADEC alignment) from the events of runs outside an exclusion, by zenith bins.

    The counts N of a run r in an energy bin k and a cell c of the camera are taken as Poisson with the mean
    f_r t_r u_rc Omega_c a_k s_kc: ontime t, the part u of the cell outside the exclusion (drawn around each pointing, so
    that the exclusion wanders through the camera as the runs point elsewhere), solid angle Omega, spectrum a, shape s,
    and one factor f per run for the atmosphere and the telescope, with the time-weighted mean 1. Effective exposure
    corrected for the exclusion, by zenith bins: Mohrmann et al. (2019), A&A 632, A72, figure 8. Run-wise factors keep
    runs of higher rate from printing their exclusion and threshold on the shape.

    Where counts are few: energies share one shape until together they have ``min_counts``; rings join until they have 200;
    ``bkg_3d`` is a radial profile times the smoothed ratio of counts to that profile, which tends to one where hardly
    anything was counted; and the spectrum goes on as a power law fitted to its end where an energy bin has fewer than 25.

    Parameters
    ----------
    observations : iterable of Observation
        Held one at a time.
    usable : function (SkyGeometry) -> bool array, optional
        False for sky that may hold gamma rays (known sources); everything is usable by default.
    kind : 'bkg_2d' or 'bkg_3d'
        Radial, or on squares of the camera.
    energy : Axis
        Of the table.
    radius : Quantity
        Largest offset, or half-width of the square.
    binsz : Quantity
        About the width of the rings or squares, of which a whole number fits.
    zenith_bins : list of Quantity, optional
        Increasing edges; a run outside is left out. One table of all runs by default.
    min_counts : int
        Counts that a shape is taken from.
    smoothing : Quantity
        Width (sigma) of the Gaussian of ``bkg_3d``.
    below_threshold : bool
        Take also events beyond a run's LO_THRES and HI_THRES, where rates differ from run to run.

    Returns
    -------
    tables : tuple of IrfTable
        ``bkg_2d`` on (energy, offset) or ``bkg_3d`` on (energy, fov_lon, fov_lat), by increasing zenith. ``meta``:
        ``zenith`` (of the mean cosine, weighted with ontime), ``zenith_min``, ``zenith_max`` (deg, of the bin), ``obs_ids``,
        ``ontime`` (s), ``n_events``, ``norms`` (the factors), ``lo_thres`` and ``hi_thres`` (Quantity, of the energies that
        some run measured; one bin further at each end is extrapolated, for those who interpolate to these edges),
        ``telescope``, ``instrument``, ``warnings``.

    Raises
    ------
    InputError
        For edges that do not increase, runs of several instruments, a run whose zenith is unknown, or no event.
    """
    edges = _zenith_edges(zenith_bins)
    cells = _camera(kind, energy.n_bins, radius, binsz)
    sums = [_Sums(np.zeros((energy.n_bins, cells.number))) for _ in edges[1:]]
    warnings: list[str] = []
    origin: tuple[Any, ...] | None = None
    for run in observations:
        own = tuple(run.meta.get(key, "") for key in ("telescope", "instrument"))
        origin = own if origin is None else origin
        if own != origin:
            raise InputError(
                f"observation {run.obs_id} is of another instrument ({' '.join(own)}) than those before ({' '.join(origin)}): build "
                "one background for each"
            )
        zenith = _zenith(run, is_needed=zenith_bins is not None)
        n = int(np.searchsorted(edges, zenith, side="right")) - 1
        if not 0 <= n < len(sums):
            warnings.append(
                f"observation {run.obs_id} at zenith {zenith:.1f} deg lies in no zenith bin and is left out"
            )
            continue
        _add(sums[n], run, zenith, cells, energy, radius, usable, below_threshold)
    tables = []
    for part, low, high in zip(sums, edges[:-1], edges[1:], strict=True):
        if part.counts.sum() < 1:
            warnings.append(
                f"no event lies in the zenith bin from {low:g} to {high:g} deg: it gives no background"
            )
            continue
        sigma = float((smoothing / cells.axes[0].widths[0]).to_value(""))
        rate, found = _rate(part, cells, energy, kind, min_counts, sigma)
        values = rate.reshape(energy.n_bins, *(axis.n_bins for axis in cells.axes))
        meta = {**_facts(part, low, high), **found, "warnings": warnings}
        meta |= dict(zip(("telescope", "instrument"), origin or ("", ""), strict=True))
        tables.append(IrfTable(kind, (energy, *cells.axes), {"BKG": values}, {"BKG": _RATE}, meta))
    if not tables:
        raise InputError(
            "a background cannot be built: no run has an event outside the exclusion, in its zenith bin and above its threshold"
        )
    return tuple(tables)


def _camera(kind: str, n_energy: int, radius: u.Quantity, binsz: u.Quantity) -> _Cells:
    number = max(round(float((radius / binsz).to_value("")) * (1 if kind == "bkg_2d" else 2)), 2)
    # readers that take tables of either order of axes (gammapy) tell it from their lengths
    number += number == n_energy
    size = number if kind == "bkg_2d" else number**2
    if size * n_energy > _MOST_CELLS:
        raise InputError(
            f"a background of {n_energy} x {size} cells is too large: make `binsz` larger or `radius` smaller"
        )
    return _rings(number, radius) if kind == "bkg_2d" else _squares(number, radius)


def _zenith_edges(zenith_bins: list[u.Quantity] | None) -> list[float]:
    if zenith_bins is None:
        return [0.0, 90.0]
    edges = [float(edge.to_value(u.deg)) for edge in zenith_bins]
    if len(edges) < 2 or min(edges) < 0 or max(edges) > 90 or any(np.diff(edges) <= 0):
        raise InputError(
            f"`zenith_bins` must be two or more increasing edges between 0 and 90 deg, found {', '.join(map(str, zenith_bins))}"
        )
    return edges


def _zenith(run: Observation, *, is_needed: bool) -> float:
    angle = zenith_angle(run)
    if angle is None and is_needed:
        raise InputError(
            f"observation {run.obs_id}: its zenith is unknown, as the events' header lacks GEOLON, GEOLAT or ALTITUDE: leave "
            "`zenith_bins` out"
        )
    return 0.0 if angle is None else min(float(angle.to_value(u.deg)), 89.999)


def _add(
    sums: _Sums,
    run: Observation,
    zenith: float,
    cells: _Cells,
    energy: Axis,
    radius: u.Quantity,
    usable: Usable | None,
    below_threshold: bool,
) -> None:
    """Add one run: its counts in usable sky, and of every cell the usable part."""
    where, energies = good_events(run)
    at = run.pointing.icrs
    lon, lat = fov.sky_to_fov(where.ra.rad, where.dec.rad, at.ra.rad, at.dec.rad)
    k, c = energy.index(energies), cells.index(lon, lat)
    kept = uncut_bins(run, energy)
    if not below_threshold:
        kept = kept & energy.contains_bin(run.aeff.meta.get("lo_thres"), run.aeff.meta.get("hi_thres"))
    good = (k >= 0) & (c >= 0) & kept[k]
    part = np.ones(cells.number)
    if usable is not None or "event_offset" in run.meta:
        # squares reach sqrt(2) farther at their corners
        drawn = camera_geometry(run, radius if len(cells.axes) == 1 else 1.5 * radius)
        free = uncut_places(run, drawn)
        if usable is not None:
            free = free & usable(drawn)
        j, i, on_map = drawn.index(where)
        good &= on_map
        good[good] = free[j[good], i[good]]
        pixel = cells.index(*drawn.fov_lonlat(run.pointing)).ravel()
        area = drawn.solid_angle.to_value(u.sr).ravel()
        inside = pixel >= 0
        total, seen = (
            np.bincount(pixel[inside], weights[inside], cells.number)
            for weights in (area, area * free.ravel())
        )
        part = np.divide(seen, total, out=np.ones(cells.number), where=total > 0)
    found = np.bincount(k[good] * cells.number + c[good], minlength=sums.counts.size)
    sums.counts += found.reshape(sums.counts.shape)
    sums.obs_ids.append(run.obs_id)
    sums.ontime.append(float(run.kept_ontime.to_value(u.s)))
    sums.cos_zenith.append(float(np.cos(np.radians(zenith))))
    sums.usable.append(part.astype(np.float32))
    sums.energies.append(kept)
    sums.totals.append(float(np.count_nonzero(good)))


def _facts(sums: _Sums, low: float, high: float) -> dict[str, Any]:
    mean = float(np.average(sums.cos_zenith, weights=sums.ontime))
    return {
        "is_pointlike": False,
        "fov_alignment": "RADEC",
        "zenith": float(np.degrees(np.arccos(mean))),
        "zenith_min": low,
        "zenith_max": high,
        "obs_ids": list(sums.obs_ids),
        "ontime": float(np.sum(sums.ontime)),
        "n_events": int(sums.counts.sum()),
    }


def _rate(
    sums: _Sums, cells: _Cells, energy: Axis, kind: str, min_counts: int, sigma: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Rate in s-1 MeV-1 sr-1 at the centres of the bins, shape (n_energy, n_cells), and what was found of the runs."""
    if kind == "bkg_2d":
        shape_of = radial_shape(cells.offset)
    else:
        n_lon, n_lat = (axis.n_bins for axis in cells.axes)
        shape_of = smoothed_shape(cells.offset, (n_lon, n_lat), sigma)
    fitted = fit_separable(
        sums.counts,
        np.array(sums.totals),
        np.array(sums.ontime),
        np.array(sums.energies),
        np.array(sums.usable, dtype=float) * cells.solid_angle,
        min_counts,
        shape_of,
    )
    edges, centers = energy.edges.to_value(u.MeV), energy.centers.to_value(u.MeV)
    spectrum = fitted.spectrum / np.diff(edges)
    # the table holds the rate at the bin's centre, and the counts gave its mean over the bin
    spectrum = spectrum / mean_over_center(edges, local_index(centers, spectrum))
    spectrum = power_law_tail(edges, spectrum, sums.counts.sum(axis=1), fitted.exposure)
    measured = np.nonzero(fitted.exposure > 0)[0]
    facts = {
        "norms": [float(norm) for norm in fitted.norms],
        "lo_thres": energy.edges[measured[0]],
        "hi_thres": energy.edges[measured[-1] + 1],
    }
    return extended(edges, spectrum)[:, None] * fitted.shape, facts
