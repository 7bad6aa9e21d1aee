"""Exposure, background, point-spread and dispersion maps of one observation."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.edisp import dispersion_kernels, kernels_from_density, migra_density
from dl3flow.irf.psf import point_spread
from dl3flow.irf.table import IrfTable
from dl3flow.kernels.integrate import gauss_legendre_bins

_EXPOSURE = u.m**2 * u.s
_PER_SR = u.sr**-1
# of the Earth, against the stars
_ROTATION = 2 * np.pi / 86164.0905 / u.s
_SHORTEST_STEP = 1 * u.s


def exposure_map(observation: Observation, geom: Geometry, energy_true: Axis) -> Map:
    """Effective area at the bin centres times livetime, m2 s; on (energy_true,)."""
    # the livetime goes into the table, which is smaller than the map
    livetime = observation.livetime.to_value(u.s)
    data = {name: values * livetime for name, values in observation.aeff.data.items()}
    scaled = replace(observation.aeff, data=data)
    exposure = effective_area(scaled, energy_true.centers, _offset(observation, geom)).to_value(u.m**2)
    return Map(geom, (energy_true,), exposure, _EXPOSURE)


def background_map(
    observation: Observation,
    bkg: IrfTable,
    geom: SkyGeometry,
    energy: Axis,
    *,
    oversampling: int = 1,
    fill_gaps: bool = True,
    fov_rotation_step: u.Quantity = 1 * u.deg,
) -> Map:
    """Expected background counts: rate times solid angle times ontime (GADF: no dead-time correction); on (energy,).

    Parameters
    ----------
    observation, bkg, geom, energy
    oversampling, fill_gaps
        See `background_rate`.
    fov_rotation_step : Quantity
        Where the table is aligned with the horizon (BKG_3D with FOVALIGN = ALTAZ), the rate is evaluated whenever the
        field has turned by this angle, at least a second apart, and integrated by the trapezoidal rule.

    Raises
    ------
    InputError
        If a table is aligned with the horizon and the place of the observatory is not known.
    """
    total: np.ndarray | None = None
    for seconds, (fov_lon, fov_lat) in _orientations(observation, bkg, geom, fov_rotation_step):
        rate = background_rate(
            bkg, energy, fov_lon.ravel(), fov_lat.ravel(), oversampling=oversampling, fill_gaps=fill_gaps
        ).to_value(_PER_SR / u.s)
        rate *= seconds
        total = rate if total is None else np.add(total, rate, out=total)
    counts = np.zeros((energy.n_bins, *geom.shape)) if total is None else total.reshape(-1, *geom.shape)
    counts *= geom.solid_angle.to_value(u.sr) * observation.phase_fraction
    return Map(geom, (energy,), counts)


def _orientations(
    observation: Observation, bkg: IrfTable, geom: SkyGeometry, step: u.Quantity
) -> Iterator[tuple[float, tuple[np.ndarray, np.ndarray]]]:
    """Seconds for which the field of view stands still, and the pixels' coordinates in it."""
    if bkg.kind == "bkg_2d" or bkg.meta.get("fov_alignment") != "ALTAZ":
        yield observation.ontime.to_value(u.s), geom.fov_lonlat(observation.pointing)
        return
    place = observation.meta.get("location")
    if not place:
        raise InputError(
            f"observation {observation.obs_id}: the background has FOVALIGN = ALTAZ, and the place of the observatory is not known: "
            "add GEOLON, GEOLAT and ALTITUDE to the header of the events"
        )
    location = (place["geolon"], place["geolat"], place["altitude"])
    gti = observation.gti
    for start, stop in zip(gti.start.to_value(u.s), gti.stop.to_value(u.s), strict=True):
        times, all_axes = [float(start)], []
        while True:
            when = (gti.reference + times[-1] * u.s).reshape(1)
            axes, azimuth, altitude = fov.altaz_axes(observation.pointing, when, location)
            all_axes.append(axes[0])
            if times[-1] >= stop:
                break
            speed = (
                _ROTATION * np.cos(np.radians(location[1])) * abs(np.cos(azimuth[0])) / np.cos(altitude[0])
            )
            with np.errstate(divide="ignore"):
                seconds = max(step.to_value(u.rad) / speed, _SHORTEST_STEP).to_value(u.s)
            times.append(min(times[-1] + float(seconds), float(stop)))
        widths = np.diff(times)
        weights = 0.5 * (np.append(widths, 0.0) + np.append(0.0, widths))
        for weight, axes in zip(weights, all_axes, strict=True):
            yield float(weight), geom.fov_on(axes)


def psf_map(
    observation: Observation,
    psf: IrfTable,
    geom: SkyGeometry,
    energy_true: Axis,
    rad: Axis,
    exposure: Map | None = None,
) -> PsfMap:
    """Point spread at each pixel's offset, normalised on ``rad``; the exposure there is computed where it is not given."""
    values = point_spread(psf, energy_true.centers, rad, _offset(observation, geom).ravel())
    data = values.to_value(_PER_SR).reshape(energy_true.n_bins, rad.n_bins, *geom.shape)
    exposure = exposure_map(observation, geom, energy_true) if exposure is None else exposure
    return PsfMap(Map(geom, (energy_true, rad), data, _PER_SR), exposure)


def edisp_map(
    observation: Observation,
    edisp: IrfTable,
    geom: Geometry,
    energy_true: Axis,
    second: Axis,
    exposure: Map | None = None,
) -> EdispMap:
    """Energy dispersion at each pixel's offset: kernels if ``second`` is the energy axis, a density if it is migra.

    The exposure there is computed where it is not given.
    """
    offset = _offset(observation, geom).ravel()
    if second.name == "energy":
        values = dispersion_kernels(edisp, energy_true, second, offset)
    else:
        values = migra_density(edisp, energy_true.centers, offset, second)
    data = values.reshape(energy_true.n_bins, second.n_bins, *geom.shape)
    exposure = exposure_map(observation, geom, energy_true) if exposure is None else exposure
    return EdispMap(Map(geom, (energy_true, second), data), exposure)


def reco_exposure(
    dataset: Dataset, spectrum: Callable[[np.ndarray], np.ndarray] = lambda energy: energy**-2.0
) -> Map:
    """Exposure in reconstructed energy for an assumed spectrum: expected counts over the flux in each bin.

    The flux in each bin of true energy times the exposure is folded with the dispersion at the centre of the map and
    divided by the flux in the bin of reconstructed energy.

    Parameters
    ----------
    dataset : Dataset
    spectrum : function
        Flux per energy, in any unit, at energies in TeV; a power law of index 2 by default.

    Returns
    -------
    exposure : Map on (energy,), m2 s
    """
    flux, flux_true = (
        (weights * spectrum(points)).sum(axis=1)
        for points, weights in (
            gauss_legendre_bins(axis.edges.to_value(u.TeV)) for axis in (dataset.energy, dataset.energy_true)
        )
    )
    kernel = np.eye(dataset.energy.n_bins)
    if dataset.edisp is not None:
        edisp = dataset.edisp.edisp
        here = (slice(None), slice(None), *edisp.geom.nearest(dataset.geom.center))
        kernel = edisp.data[here]
        if not dataset.edisp.is_kernel:
            kernel = kernels_from_density(kernel, edisp.axes[1], dataset.energy_true, dataset.energy)
    folded = np.tensordot((kernel * flux_true[:, None] / flux).T, dataset.exposure.data, axes=(1, 0))
    return Map(dataset.geom, (dataset.energy,), folded, dataset.exposure.unit)


def _offset(observation: Observation, geom: Geometry) -> u.Quantity:
    # pixels off the projection are NaN: put them outside every table
    return np.nan_to_num(geom.separation(observation.pointing), nan=np.pi) * u.rad
