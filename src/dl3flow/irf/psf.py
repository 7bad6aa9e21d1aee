"""Point spread function on any true energies, distances and offsets."""

import astropy.units as u
import numpy as np

from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable
from dl3flow.registry import Registry

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
    norm = np.einsum("nrm,r->nm", density, ring)
    return np.divide(density, norm[:, None], out=np.zeros_like(density), where=norm[:, None] > 0) / u.sr


@PSF_SHAPES.register()
def psf_table(psf: IrfTable, energy_true: u.Quantity, rad: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """Tabulated density on (energy_true, offset, rad), interpolated linearly (GADF PSF_TABLE)."""
    values = np.tensordot(psf.hat("energy_true", energy_true), psf.quantity.to_value("sr-1"), axes=(1, 0))
    values = values @ psf.hat("rad", rad).T
    return np.asarray(np.maximum(np.einsum("nor,mo->nrm", values, psf.hat("offset", offset)), 0.0))


@PSF_SHAPES.register()
def psf_3gauss(psf: IrfTable, energy_true: u.Quantity, rad: u.Quantity, offset: u.Quantity) -> np.ndarray:
    """Sum of three Gaussians, whose parameters are interpolated (GADF PSF_3GAUSS; SCALE cancels in the norm)."""

    def at(column: str, unit: str) -> np.ndarray:
        values = psf.hat("energy_true", energy_true) @ (psf.data[column] * psf.units[column]).to_value(unit)
        return np.asarray(np.maximum(values @ psf.hat("offset", offset).T, 0.0)[:, None])

    r2 = rad.to_value(u.rad)[None, :, None] ** 2
    total = np.zeros((len(energy_true), len(rad), len(offset)))
    for n in (1, 2, 3):
        sigma = at(f"SIGMA_{n}", "rad")
        amplitude = 1.0 if n == 1 else at(f"AMPL_{n}", "")
        with np.errstate(divide="ignore", invalid="ignore"):
            # a width of zero marks a Gaussian that the file does not use
            total += np.where(sigma > 0, amplitude * np.exp(-0.5 * r2 / sigma**2), 0.0)
    return total
