"""Background rate, integrated over bins of reconstructed energy, at any place in the field of view."""

from dataclasses import replace

import astropy.units as u
import numpy as np

from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable
from dl3flow.kernels.integrate import power_law_integral

# stands for a rate of zero where logarithms are interpolated: the smallest float32 in GADF's unit, s-1 MeV-1 sr-1
_LOG_TINY = float(np.log(np.finfo(np.float32).tiny * 1e6))


def background_rate(bkg: IrfTable, energy: Axis, fov_lon: np.ndarray, fov_lat: np.ndarray) -> u.Quantity:
    """Rate per solid angle in bins of reconstructed energy.

    Zeros between two energies that have a rate are filled; the logarithm of the rate is interpolated linearly in log
    energy and field-of-view coordinates at the bin edges, between which it is integrated as a power law.

    Parameters
    ----------
    bkg : IrfTable
        ``bkg_3d`` on (energy, fov_lon, fov_lat), or ``bkg_2d`` on (energy, offset).
    energy : Axis
    fov_lon, fov_lat : array, shape (n,)
        Rad, RADEC alignment.

    Returns
    -------
    rate : Quantity, shape (n_energy, n), s-1 sr-1

    Raises
    ------
    InputError
        If the table is aligned with the horizon (FOVALIGN = ALTAZ).
    """
    log_rate = _log_rate(bkg)
    weights = bkg.hat("energy", energy.edges)
    at_edges = np.tensordot(weights, log_rate, axes=(1, 0))
    at_edges[weights.sum(axis=1) == 0] = _LOG_TINY
    if bkg.kind == "bkg_2d":
        padded = _padded_offset(bkg.axis("offset"))
        at_edges = np.concatenate([at_edges, at_edges[:, -1:]], axis=1)
        offset = np.hypot(fov_lon, fov_lat) * u.rad
        table = replace(bkg, axes=(bkg.axes[0], padded))
        hat = table.hat("offset", offset)
        values, inside = at_edges @ hat.T, hat.sum(axis=1) > 0
    else:
        values, inside = _bilinear(bkg, at_edges, _aligned(bkg, fov_lon), fov_lat)
    values = np.where(inside & (values > _LOG_TINY + np.log(2.0)), values, -np.inf)
    return power_law_integral(energy.edges.to_value(u.TeV), values) / u.s / u.sr


def _aligned(bkg: IrfTable, fov_lon: np.ndarray) -> np.ndarray:
    alignment = bkg.meta.get("fov_alignment", "RADEC")
    if alignment == "ALTAZ":
        raise InputError(
            "the background has FOVALIGN = ALTAZ, which the reduction cannot rotate to the sky: use a table aligned with "
            "RADEC, or a BKG_2D"
        )
    return -fov_lon if alignment == "REVERSE_LON_RADEC" else fov_lon


def _log_rate(bkg: IrfTable) -> np.ndarray:
    """Logarithm of the rate (s-1 TeV-1 sr-1), gaps along energy filled linearly against the bin number."""
    rate = bkg.quantity.to_value("s-1 TeV-1 sr-1")
    n_energy = rate.shape[0]
    flat = rate.reshape(n_energy, -1)
    good = np.isfinite(flat) & (flat > 0)
    log_rate = np.where(good, np.log(np.where(good, flat, 1.0)), _LOG_TINY)
    first, last = good.argmax(axis=0), n_energy - 1 - good[::-1].argmax(axis=0)
    row = np.arange(n_energy)[:, None]
    gaps = ~good & (row > first) & (row < last) & good.any(axis=0)
    for column in np.nonzero(gaps.any(axis=0))[0]:
        known = np.nonzero(good[:, column])[0]
        missing = np.nonzero(gaps[:, column])[0]
        log_rate[missing, column] = np.interp(missing, known, log_rate[known, column])
    return log_rate.reshape(rate.shape)


def _padded_offset(offset: Axis) -> Axis:
    """Offset axis with one more bin outside: without it the rate would fall off linearly within the last bin."""
    step = (
        offset.edges[-1] - offset.edges[-2] if offset.nodes is None else offset.nodes[-1] - offset.nodes[-2]
    )
    return Axis(
        "offset",
        u.Quantity([*offset.edges, offset.edges[-1] + step]),
        offset.scale,
        u.Quantity([*offset.centers, offset.centers[-1] + step]),
    )


def _bilinear(
    bkg: IrfTable, values: np.ndarray, fov_lon: np.ndarray, fov_lat: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values (k, n_lon, n_lat) at points, extrapolated to the outer edges, and whether a point is inside them."""
    left, fraction, inside = [], [], np.ones(fov_lon.shape, dtype=bool)
    for name, points in (("fov_lon", fov_lon), ("fov_lat", fov_lat)):
        axis = bkg.axis(name)
        nodes, edges = axis.centers.to_value(u.rad), axis.edges.to_value(u.rad)
        index = np.clip(np.searchsorted(nodes, points, side="right") - 1, 0, len(nodes) - 2)
        left.append(index)
        fraction.append((points - nodes[index]) / (nodes[index + 1] - nodes[index]))
        inside &= (points >= edges[0]) & (points <= edges[-1])
    n_lat = values.shape[2]
    flat = values.reshape(len(values), -1)
    corner = left[0] * n_lat + left[1]
    f, g = fraction
    found = (
        flat[:, corner] * ((1 - f) * (1 - g))
        + flat[:, corner + 1] * ((1 - f) * g)
        + flat[:, corner + n_lat] * (f * (1 - g))
        + flat[:, corner + n_lat + 1] * (f * g)
    )
    return found, inside
