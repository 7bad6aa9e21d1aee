"""What an instrument makes of photons: which it records, where, and with which energy."""

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from numpy.random import Generator

from dl3flow.irf.table import IrfTable
from dl3flow.kernels.sampling import invert_mixture, nearest_nodes
from dl3flow.registry import Registry

DISTANCES = Registry("point spread that photons can be drawn from")

_ONE = u.dimensionless_unscaled
# parts of a bin of a tabulated point spread, in each of which it is even over the sky
_RAD_PARTS = 4


def corners(table: IrfTable, energy_true: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a table, flattened over its energies and offsets, around each photon, and their weights.

    Parameters
    ----------
    table : IrfTable
        With the axes energy_true and offset.
    energy_true, offset : array, shape (n,)
        TeV and rad.

    Returns
    -------
    rows : int array, shape (4, n)
        Energy slowest.
    weights : array, shape (4, n)
        Linear interpolation as in `IrfTable.hat`: zero outside the edges of either axis.
    """
    places, weights = [], []
    for name, values in (("energy_true", energy_true * u.TeV), ("offset", offset * u.rad)):
        axis = table.axis(name)
        edges = axis.scaled(axis.edges)
        found = nearest_nodes(
            axis.scaled(axis.centers), axis.scaled(values), float(edges[0]), float(edges[-1])
        )
        places.append(found[0])
        weights.append(found[1])
    (i, j), (by_energy, by_offset) = places, weights
    n_offset = table.axis("offset").n_bins
    rows = (i[:, None] * n_offset + j[None]).reshape(4, -1)
    return rows, (by_energy[:, None] * by_offset[None]).reshape(4, -1)


def interpolated(
    table: IrfTable,
    column: str,
    unit: u.UnitBase,
    rows: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Column of a table on (energy_true, offset) at each photon, never negative; see `corners`."""
    values = (table.data[column] * table.units[column]).to_value(unit).ravel()
    return np.asarray(np.maximum((weights * values[rows]).sum(axis=0), 0.0))


def largest_area(aeff: IrfTable, energy_true: np.ndarray) -> np.ndarray:
    """Largest effective area in the field at each energy (TeV), cm2: what photons are drawn for before some are lost."""
    axis = aeff.axis("offset")
    edges = np.maximum(axis.edges.to_value(u.rad), 0.0)
    # linear between its nodes and on to its edges: the largest value is at one of these
    offsets = np.unique(np.concatenate([edges[[0, -1]], np.abs(axis.centers.to_value(u.rad))]))
    area = aeff.quantity.to_value(u.cm**2) @ aeff.hat("offset", offsets * u.rad).T
    return np.asarray(np.maximum(aeff.hat("energy_true", energy_true * u.TeV) @ area, 0.0).max(axis=1))


def area_at(aeff: IrfTable, energy_true: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Effective area of each photon, cm2."""
    return interpolated(aeff, aeff.column, u.cm**2, *corners(aeff, energy_true, offset))


def draw_distances(psf: IrfTable, energy_true: np.ndarray, offset: np.ndarray, rng: Generator) -> np.ndarray:
    """Angle, rad, by which each photon (energy in TeV, offset in rad) is seen off its direction.

    Raises
    ------
    InputError
        For a point spread of another kind than those in `DISTANCES`.
    """
    draw = DISTANCES.find(psf.kind, "HDUCLAS4 of the point spread function")
    return np.asarray(draw(psf, energy_true, offset, rng))


@DISTANCES.register()
def psf_3gauss(psf: IrfTable, energy_true: np.ndarray, offset: np.ndarray, rng: Generator) -> np.ndarray:
    """One of three Gaussians, chosen by their integrals amplitude x sigma^2 (GADF PSF_3GAUSS)."""
    at = corners(psf, energy_true, offset)
    widths = np.array([interpolated(psf, f"SIGMA_{n}", u.rad, *at) for n in (1, 2, 3)])
    tails = [interpolated(psf, f"AMPL_{n}", _ONE, *at) for n in (2, 3)]
    shares = np.cumsum(np.array([np.ones(len(offset)), *tails]) * widths**2, axis=0)
    chosen = (rng.random(len(offset)) * shares[-1] > shares).sum(axis=0)
    width = widths[np.minimum(chosen, 2), np.arange(len(offset))]
    # r^2 / (2 sigma^2) = -ln(1 - p)
    return np.asarray(width * np.sqrt(-2 * np.log1p(-rng.random(len(offset)))))


@DISTANCES.register()
def psf_king(psf: IrfTable, energy_true: np.ndarray, offset: np.ndarray, rng: Generator) -> np.ndarray:
    """Inverse of the enclosed fraction 1 - (1 + r^2 / (2 gamma sigma^2))^(1 - gamma) (GADF PSF_KING)."""
    at = corners(psf, energy_true, offset)
    sigma, gamma = interpolated(psf, "SIGMA", u.rad, *at), interpolated(psf, "GAMMA", _ONE, *at)
    is_used = (sigma > 0) & (gamma > 1)
    gamma = np.where(is_used, gamma, 2.0)
    outside = (1 - rng.random(len(offset))) ** (1 / (1 - gamma))
    return np.where(is_used, sigma * np.sqrt(2 * gamma * (outside - 1)), 0.0)


@DISTANCES.register()
def psf_table(psf: IrfTable, energy_true: np.ndarray, offset: np.ndarray, rng: Generator) -> np.ndarray:
    """By the tabulated rings, interpolated between energies and offsets (GADF PSF_TABLE)."""
    edges = psf.axis("rad").edges.to_value(u.rad)
    steps = np.arange(_RAD_PARTS) / _RAD_PARTS
    fine = np.append((edges[:-1, None] + np.diff(edges)[:, None] * steps).ravel(), edges[-1])
    density = psf.quantity.to_value("sr-1") @ psf.hat("rad", 0.5 * (fine[1:] + fine[:-1]) * u.rad).T
    cumulative = _cumulative(density * np.pi * np.diff(fine**2))
    cell, part = invert_mixture(cumulative, *corners(psf, energy_true, offset), rng.random(len(offset)))
    part = np.nan_to_num(part)  # without a point spread a photon keeps its direction
    return np.asarray(np.sqrt(fine[cell] ** 2 * (1 - part) + fine[cell + 1] ** 2 * part))


def draw_migra(edisp: IrfTable, energy_true: np.ndarray, offset: np.ndarray, rng: Generator) -> np.ndarray:
    """Energy over true energy of each photon, even within a bin of migra as in the reduction's kernels.

    NaN for a photon where the dispersion is zero: it is in no kernel of the reduction either.
    """
    migra = edisp.axis("migra")
    content = np.moveaxis(edisp.quantity.to_value(_ONE), 1, -1) * migra.widths.to_value(_ONE)
    cell, part = invert_mixture(
        _cumulative(content), *corners(edisp, energy_true, offset), rng.random(len(offset))
    )
    edges = migra.edges.to_value(_ONE)
    return np.asarray(edges[cell] + part * np.diff(edges)[cell])


def _cumulative(content: np.ndarray) -> np.ndarray:
    """Sums from 0 along the last axis, shape (n_rows, n_cells + 1); files hold small negative values, taken as 0."""
    sums = np.cumsum(np.maximum(content, 0.0), axis=-1).reshape(-1, content.shape[-1])
    return np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)


def largest_offset(aeff: IrfTable) -> float:
    """Offset, rad, beyond which nothing is detected."""
    return float(aeff.axis("offset").edges[-1].to_value(u.rad))


def is_in_field(irfs: Mapping[str, IrfTable | None], fov_lon: np.ndarray, fov_lat: np.ndarray) -> np.ndarray:
    """True for directions (rad, RADEC aligned) that the background's table covers, or the area's where there is none."""
    bkg = irfs.get("bkg")
    if bkg is None or bkg.kind == "bkg_2d":
        table = irfs["aeff"] if bkg is None else bkg
        assert table is not None  # every observation has an effective area
        return np.asarray(np.hypot(fov_lon, fov_lat) <= largest_offset(table))
    half = [np.abs(bkg.axis(name).edges.to_value(u.rad)).max() for name in ("fov_lon", "fov_lat")]
    return np.asarray((np.abs(fov_lon) <= half[0]) & (np.abs(fov_lat) <= half[1]))
