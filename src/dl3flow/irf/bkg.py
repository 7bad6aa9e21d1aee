"""Background rate, integrated over bins of reconstructed energy, at any place in the field of view."""

import astropy.units as u
import numpy as np

from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable
from dl3flow.kernels.integrate import power_law_integral
from dl3flow.kernels.interpolate import hat_matrix

# stands for a rate of zero where logarithms are interpolated: the smallest float32 in GADF's unit, s-1 MeV-1 sr-1
_LOG_TINY = float(np.log(np.finfo(np.float32).tiny * 1e6))
_RATE = u.s**-1 * u.sr**-1
# points whose intermediate values stay in the processor's cache
_CHUNK = 2048


def background_rate(
    bkg: IrfTable,
    energy: Axis,
    fov_lon: np.ndarray,
    fov_lat: np.ndarray,
    *,
    oversampling: int = 1,
    fill_gaps: bool = True,
) -> u.Quantity:
    """Rate per solid angle in bins of reconstructed energy.

    The logarithm of the rate is interpolated linearly in log energy and field-of-view coordinates at the bin edges,
    between which it is integrated as a power law.

    Parameters
    ----------
    bkg : IrfTable
        ``bkg_3d`` on (energy, fov_lon, fov_lat), or ``bkg_2d`` on (energy, offset).
    energy : Axis
    fov_lon, fov_lat : array, shape (n,)
        Rad; aligned with the horizon for a ``bkg_3d`` that is (FOVALIGN = ALTAZ), else RADEC.
    oversampling : int
        Parts, equal in log energy, in which each bin is integrated.
    fill_gaps : bool
        Whether zeros between two energies that have a rate are filled, in the logarithm.

    Returns
    -------
    rate : Quantity, shape (n_energy, n), s-1 sr-1
    """
    log_edges = np.log(energy.edges.to_value(u.TeV))
    steps = np.linspace(log_edges[:-1], log_edges[1:], oversampling, endpoint=False)
    edges = np.exp(np.append(steps.T.ravel(), log_edges[-1]))
    log_rate = _log_rate(bkg, fill_gaps)
    weights = bkg.hat("energy", edges * u.TeV)
    at_edges = np.tensordot(weights, log_rate, axes=(1, 0))
    at_edges[weights.sum(axis=1) == 0] = _LOG_TINY
    # energy last: the values of a point are gathered as one piece of memory
    table = np.ascontiguousarray(np.moveaxis(at_edges, 0, -1)).reshape(-1, len(edges))
    if bkg.kind == "bkg_2d":
        corners, shares, inside = _linear(bkg, np.hypot(fov_lon, fov_lat))
        table = np.concatenate([table, table[-1:]])
    else:
        is_reversed = bkg.meta.get("fov_alignment") == "REVERSE_LON_RADEC"
        corners, shares, inside = _bilinear(bkg, -fov_lon if is_reversed else fov_lon, fov_lat)
    rate = np.empty((energy.n_bins, fov_lon.size))
    for start in range(0, fov_lon.size, _CHUNK):
        here = slice(start, start + _CHUNK)
        values = table.take(corners[0][here], axis=0)
        values *= shares[0][here, None]
        for corner, share in zip(corners[1:], shares[1:], strict=True):
            term = table.take(corner[here], axis=0)
            term *= share[here, None]
            values += term
        parts = power_law_integral(edges, values, _LOG_TINY + np.log(2.0))
        if not inside[here].all():
            parts[~inside[here]] = 0.0
        rate[:, here] = (
            parts.reshape(-1, energy.n_bins, oversampling).sum(axis=2).T if oversampling > 1 else parts.T
        )
    return rate << _RATE


def _log_rate(bkg: IrfTable, fill_gaps: bool) -> np.ndarray:
    """Logarithm of the rate (s-1 TeV-1 sr-1), gaps along energy filled linearly against the bin number if asked for."""
    rate = bkg.quantity.to_value(_RATE / u.TeV)
    n_energy = rate.shape[0]
    flat = rate.reshape(n_energy, -1)
    good = np.isfinite(flat) & (flat > 0)
    log_rate = np.where(good, np.log(np.where(good, flat, 1.0)), _LOG_TINY)
    if not fill_gaps:
        return log_rate.reshape(rate.shape)
    first, last = good.argmax(axis=0), n_energy - 1 - good[::-1].argmax(axis=0)
    row = np.arange(n_energy)[:, None]
    gaps = ~good & (row > first) & (row < last) & good.any(axis=0)
    for column in np.nonzero(gaps.any(axis=0))[0]:
        known = np.nonzero(good[:, column])[0]
        missing = np.nonzero(gaps[:, column])[0]
        log_rate[missing, column] = np.interp(missing, known, log_rate[known, column])
    return log_rate.reshape(rate.shape)


_Corners = tuple[list[np.ndarray], list[np.ndarray], np.ndarray]


def _linear(bkg: IrfTable, offset: np.ndarray) -> _Corners:
    """Nodes next to each offset (rad), their shares, and whether it lies inside the edges.

    The axis has one more node outside, with the values of the last: without it the rate would fall off linearly within
    the last bin.
    """
    axis = bkg.axis("offset")
    nodes, edges = axis.centers.to_value(u.rad), axis.edges.to_value(u.rad)
    step = edges[-1] - edges[-2] if axis.nodes is None else nodes[-1] - nodes[-2]
    nodes, high = np.append(nodes, nodes[-1] + step), edges[-1] + step
    weights = hat_matrix(nodes, offset, float(edges[0]), float(high))
    left = np.clip(np.searchsorted(nodes, offset, side="right") - 1, 0, len(nodes) - 2)
    rows = np.arange(len(offset))
    shares = [weights[rows, left], weights[rows, left + 1]]
    return [left, left + 1], shares, weights.sum(axis=1) > 0


def _bilinear(bkg: IrfTable, fov_lon: np.ndarray, fov_lat: np.ndarray) -> _Corners:
    """Cells of the table around each point, their shares (extrapolated to the outer edges), and whether it is inside."""
    left, fraction, inside = [], [], np.ones(fov_lon.shape, dtype=bool)
    for name, points in (("fov_lon", fov_lon), ("fov_lat", fov_lat)):
        axis = bkg.axis(name)
        nodes, edges = axis.centers.to_value(u.rad), axis.edges.to_value(u.rad)
        index = np.clip(np.searchsorted(nodes, points, side="right") - 1, 0, len(nodes) - 2)
        left.append(index)
        fraction.append((points - nodes[index]) / (nodes[index + 1] - nodes[index]))
        inside &= (points >= edges[0]) & (points <= edges[-1])
    n_lat = bkg.axis("fov_lat").n_bins
    corner = left[0] * n_lat + left[1]
    f, g = fraction
    return (
        [corner, corner + 1, corner + n_lat, corner + n_lat + 1],
        [(1 - f) * (1 - g), (1 - f) * g, f * (1 - g), f * g],
        inside,
    )
