"""Exposure, background, point-spread and dispersion maps of one observation."""

import astropy.units as u
import numpy as np

from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.data.observation import Observation
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.edisp import dispersion_kernels, migra_density
from dl3flow.irf.psf import point_spread
from dl3flow.irf.table import IrfTable


def exposure_map(observation: Observation, geom: SkyGeometry, energy_true: Axis) -> Map:
    """Effective area at the bin centres times livetime, m2 s; on (energy_true,)."""
    area = effective_area(observation.aeff, energy_true.centers, _offset(observation, geom))
    return Map(geom, (energy_true,), (area * observation.livetime).to_value("m2 s"), u.Unit("m2 s"))


def background_map(observation: Observation, bkg: IrfTable, geom: SkyGeometry, energy: Axis) -> Map:
    """Expected background counts: rate times solid angle times ontime (GADF: no dead-time correction); on (energy,)."""
    fov_lon, fov_lat = geom.fov_lonlat(observation.pointing)
    rate = background_rate(bkg, energy, fov_lon.ravel(), fov_lat.ravel()).to_value("s-1 sr-1")
    counts = rate.reshape(energy.n_bins, *geom.shape) * geom.solid_angle.to_value("sr")
    return Map(geom, (energy,), counts * observation.ontime.to_value("s"))


def psf_map(
    observation: Observation, psf: IrfTable, geom: SkyGeometry, energy_true: Axis, rad: Axis
) -> PsfMap:
    """Point spread at each pixel's offset, normalised on ``rad``."""
    values = point_spread(psf, energy_true.centers, rad, _offset(observation, geom).ravel())
    data = values.to_value("sr-1").reshape(energy_true.n_bins, rad.n_bins, *geom.shape)
    return PsfMap(
        Map(geom, (energy_true, rad), data, u.Unit("sr-1")), exposure_map(observation, geom, energy_true)
    )


def edisp_map(
    observation: Observation, edisp: IrfTable, geom: SkyGeometry, energy_true: Axis, second: Axis
) -> EdispMap:
    """Energy dispersion at each pixel's offset: kernels if ``second`` is the energy axis, a density if it is migra."""
    offset = _offset(observation, geom).ravel()
    if second.name == "energy":
        values = dispersion_kernels(edisp, energy_true, second, offset)
    else:
        values = migra_density(edisp, energy_true.centers, offset, second)
    data = values.reshape(energy_true.n_bins, second.n_bins, *geom.shape)
    return EdispMap(Map(geom, (energy_true, second), data), exposure_map(observation, geom, energy_true))


def _offset(observation: Observation, geom: SkyGeometry) -> u.Quantity:
    # pixels off the projection are NaN: put them outside every table
    return np.nan_to_num(geom.separation(observation.pointing), nan=np.pi) * u.rad
