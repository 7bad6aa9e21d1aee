"""Fraction of the photons of a point source that a circle around it holds."""

import astropy.units as u
import numpy as np

from dl3flow.irf.table import IrfTable
from dl3flow.registry import Registry

CONTAINMENTS = Registry("point-spread shape with a containment")


def containment(psf: IrfTable, energy_true: u.Quantity, radius: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """Fraction of the point spread within a radius.

    Parameters
    ----------
    psf : IrfTable
        Of a kind in `CONTAINMENTS`.
    energy_true : Quantity, shape (n,)
    radius : Quantity, scalar
    offset : Quantity, shape (m,)

    Returns
    -------
    fraction : array, shape (n, m)
        Between 0 and 1; zero where the file has no point spread.
    """
    shape = CONTAINMENTS.find(psf.kind, "HDUCLAS4 of the point spread function")
    return np.asarray(np.clip(np.nan_to_num(shape(psf, energy_true, radius, offset)), 0.0, 1.0))


@CONTAINMENTS.register()
def psf_table(psf: IrfTable, energy_true: u.Quantity, radius: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """Sum of the table's rings up to the radius, linear in the ring that holds it (GADF PSF_TABLE)."""
    rad = psf.axis("rad")
    edges = rad.edges.to_value(u.rad)
    ring = 2 * np.pi * rad.centers.to_value(u.rad) * np.diff(edges)
    part = np.clip((radius.to_value(u.rad) - edges[:-1]) / np.diff(edges), 0.0, 1.0)
    held = psf.quantity.to_value("sr-1") @ (ring * part)
    return np.asarray(psf.hat("energy_true", energy_true) @ held @ psf.hat("offset", offset).T)


@CONTAINMENTS.register()
def psf_3gauss(psf: IrfTable, energy_true: u.Quantity, radius: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """Sum of three Gaussians, whose parameters are interpolated (GADF PSF_3GAUSS)."""
    r2 = radius.to_value(u.rad) ** 2
    inside = np.zeros((len(energy_true), len(offset)))
    total = np.zeros_like(inside)
    for n in (1, 2, 3):
        sigma2 = _at(psf, f"SIGMA_{n}", "rad", energy_true, offset) ** 2
        # a width of zero marks a Gaussian that the file does not use
        weight = sigma2 if n == 1 else sigma2 * _at(psf, f"AMPL_{n}", "", energy_true, offset)
        safe = np.where(sigma2 > 0, sigma2, 1.0)
        inside += weight * -np.expm1(-0.5 * r2 / safe)
        total += weight
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


@CONTAINMENTS.register()
def psf_king(psf: IrfTable, energy_true: u.Quantity, radius: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """King profile, whose parameters are interpolated (GADF PSF_KING, equation of the enclosed fraction)."""
    sigma = _at(psf, "SIGMA", "rad", energy_true, offset)
    gamma = _at(psf, "GAMMA", "", energy_true, offset)
    usable = (sigma > 0) & (gamma > 1)
    scale = np.where(usable, 2 * gamma * sigma**2, 1.0)
    outside = (1 + radius.to_value(u.rad) ** 2 / scale) ** (1 - np.where(usable, gamma, 2.0))
    return np.where(usable, 1 - outside, 0.0)


def _at(psf: IrfTable, column: str, unit: str, energy_true: u.Quantity, offset: u.Quantity) -> np.ndarray:
    values = psf.hat("energy_true", energy_true) @ (psf.data[column] * psf.units[column]).to_value(unit)
    return np.asarray(np.maximum(values @ psf.hat("offset", offset).T, 0.0))
