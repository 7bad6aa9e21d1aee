"""Point spread function on any true energies, distances and offsets."""

import astropy.units as u
import numpy as np

from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable
from dl3flow.registry import Registry

_PER_SR = u.sr**-1
PSF_SHAPES = Registry("point-spread shape")


def point_spread(psf: IrfTable, energy_true: u.Quantity, rad: Axis, offset: u.Quantity) -> u.Quantity:
    """Probability per solid angle at the centres of ``rad``, normalised on that axis.

    Parameters
    ----------
    psf : IrfTable
        Of a kind in `PSF_SHAPES`.
    energy_true : Quantity, shape (n,)
    rad : Axis
    offset : Quantity, shape (m,)

    Returns
    -------
    psf : Quantity, shape (n, n_rad, m), sr-1
        Sum of psf x 2 pi rad d(rad) is one; zero where the file has none.
    """
    shape = PSF_SHAPES.find(psf.kind, "HDUCLAS4 of the point spread function")
    density: np.ndarray = shape(psf, energy_true, rad.centers, offset)
    ring = 2 * np.pi * rad.centers.to_value(u.rad) * rad.widths.to_value(u.rad)
    for at_energy in density:  # one at a time, while it is in the processor's cache
        norm = ring @ at_energy
        at_energy /= np.where(norm > 0, norm, 1.0)
    return density << _PER_SR


@PSF_SHAPES.register()
def psf_table(psf: IrfTable, energy_true: u.Quantity, rad: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """Tabulated density on (energy_true, offset, rad), interpolated linearly (GADF PSF_TABLE)."""
    values = np.tensordot(psf.hat("energy_true", energy_true), psf.quantity.to_value(_PER_SR), axes=(1, 0))
    at_rad = np.swapaxes(values @ psf.hat("rad", rad).T, 1, 2)
    weights = np.ascontiguousarray(psf.hat("offset", offset).T)
    density = np.empty((*at_rad.shape[:2], len(offset)))
    for found, nodes in zip(density, np.ascontiguousarray(at_rad), strict=True):
        np.maximum(np.matmul(nodes, weights, out=found), 0.0, out=found)
    return density


@PSF_SHAPES.register()
def psf_3gauss(psf: IrfTable, energy_true: u.Quantity, rad: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """Sum of three Gaussians, whose parameters are interpolated (GADF PSF_3GAUSS; SCALE cancels in the norm)."""
    r2 = rad.to_value(u.rad)[None, :, None] ** 2
    total = np.zeros((len(energy_true), len(rad), len(offset)))
    for n in (1, 2, 3):
        sigma = _parameter(psf, f"SIGMA_{n}", u.rad, energy_true, offset)
        amplitude = (
            1.0 if n == 1 else _parameter(psf, f"AMPL_{n}", u.dimensionless_unscaled, energy_true, offset)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            # a width of zero marks a Gaussian that the file does not use
            total += np.where(sigma > 0, amplitude * np.exp(-0.5 * r2 / sigma**2), 0.0)
    return total


@PSF_SHAPES.register()
def psf_king(psf: IrfTable, energy_true: u.Quantity, rad: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """King profile, whose parameters are interpolated (GADF PSF_KING; King 1962, AJ 67, 471)."""
    gamma = _parameter(psf, "GAMMA", u.dimensionless_unscaled, energy_true, offset)
    sigma = _parameter(psf, "SIGMA", u.rad, energy_true, offset)
    # at gamma = 1 the integral diverges and the normalised profile is zero: files mark empty cells so
    is_used = (sigma > 0) & (gamma > 1)
    gamma, sigma = np.where(is_used, gamma, 2.0), np.where(is_used, sigma, 1.0)
    r2 = rad.to_value(u.rad)[None, :, None] ** 2
    return np.asarray(np.where(is_used, (1 + r2 / (2 * gamma * sigma**2)) ** -gamma / sigma**2, 0.0))


def _parameter(
    psf: IrfTable, column: str, unit: u.UnitBase, energy_true: u.Quantity, offset: u.Quantity
) -> np.ndarray:
    """One column, interpolated linearly and never negative, shape (n_energy_true, 1, n_offset)."""
    values = psf.hat("energy_true", energy_true) @ (psf.data[column] * psf.units[column]).to_value(unit)
    return np.asarray(np.maximum(values @ psf.hat("offset", offset).T, 0.0)[:, None])
