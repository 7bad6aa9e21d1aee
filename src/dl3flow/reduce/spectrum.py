"""Recipe ``spectrum``: an observation in bins of energy, within one region of the sky."""

from dataclasses import replace

import astropy.units as u
import numpy as np

from dl3flow.data.binning import bin_events, selected_events
from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.maps import EdispMap, Map
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis, EnergyAxis, EnergyTrueAxis
from dl3flow.geometry.region import Region, RegionGeometry
from dl3flow.irf.containment import containment
from dl3flow.reduce.facts import dataset_meta
from dl3flow.reduce.registry import RECIPES
from dl3flow.reduce.response import background_map, edisp_map, exposure_map

# relative; radii are rounded in headers
_SAME_RADIUS = 1e-3
# runs are pointed so well, and responses change so little
_SAME_OFFSET = 0.1 * u.deg


def spectrum_geometry(*, region: Region, **_: object) -> tuple[RegionGeometry, RegionGeometry]:
    """Geometry of the analysis: that of the counts and that of the responses, both the region."""
    return region, region


@RECIPES.register(geometry=spectrum_geometry)
def spectrum(
    observation: Observation,
    name: str,
    *,
    region: Region,
    energy: EnergyAxis,
    energy_true: EnergyTrueAxis | None = None,
    containment_correction: bool = False,
    use_region_center: bool = True,
) -> Dataset:
    """Counts, exposure, dispersion and expected background of one observation within a region.

    Responses are those at the region's centre; the background response, where there is one, is summed over the region.

    Parameters
    ----------
    observation : Observation
        With effective area and dispersion; for a point region also with RAD_MAX.
    name : str
        Of the dataset.
    region : RegionGeometry
        Where the counts are taken; a point takes the events within RAD_MAX of it (directional cuts).
    energy, energy_true : Axis
        Reconstructed and true energy; the latter is a copy of the former by default.
    containment_correction : bool
        Multiply the exposure by the fraction of a point source's photons within the circle.
    use_region_center : bool
        False averages the exposure over the region.

    Returns
    -------
    dataset : Dataset
        On the region, without a point spread. Bins without expected background are not safe until the background is
        measured.

    Raises
    ------
    InputError
        If the observation has no exposure at the region, a response is missing, or the region and the options do not go
        together.
    """
    where = f"observation {observation.obs_id}"
    _check(observation, region, where, containment_correction, use_region_center)
    energy_true = energy.renamed("energy_true") if energy_true is None else energy_true
    exposure = _exposure(observation, region, energy_true, use_region_center)
    if not np.any(exposure.data > 0):
        at, to = observation.pointing, region.center.icrs
        raise InputError(
            f"{where}: pointed at ({at.ra.deg:.4f}, {at.dec.deg:.4f}) deg it has no exposure on the region around "
            f"({to.ra.deg:.4f}, {to.dec.deg:.4f}) deg: change `region`, `energy_true` or the selection"
        )
    if containment_correction:
        exposure = exposure.with_data(exposure.data * _contained(observation, region, energy_true, where))
    background = _background(observation, region, energy)
    meta = dataset_meta(observation, energy, energy_true)
    meta["warnings"] += [*_radius_warnings(observation, region), *_offset_warnings(observation, region)]
    return Dataset(
        name=name,
        counts=bin_events(observation.events, selected_events(observation, region), region, energy),
        background=None if background is None else ExpectedCounts(background),
        exposure=exposure,
        psf=None,
        edisp=_edisp(observation, region, energy_true, energy, where),
        mask_safe=_is_predicted(background, (energy.n_bins, 1, 1)),
        mask_fit=None,
        gti=observation.gti,
        meta=meta,
    )


def _check(
    observation: Observation,
    region: RegionGeometry,
    where: str,
    containment_correction: bool,
    use_region_center: bool,
) -> None:
    if region.is_point and observation.rad_max is None:
        raise InputError(
            f"{where}: the region '{region.text}' is a point, which takes events within RAD_MAX, and the observation has none: "
            "write a circle"
        )
    if region.is_point and not use_region_center:
        raise InputError(
            f"{where}: the region '{region.text}' is a point, over which no exposure can be averaged: leave `use_region_center` out"
        )
    if not containment_correction:
        return
    if observation.aeff.meta.get("is_pointlike"):
        raise InputError(
            f"{where}: the effective area is POINT-LIKE (HDUCLAS3), which holds the loss of its directional cut already: leave "
            "`containment_correction` out"
        )
    if region.radius is None:
        raise InputError(
            f"{where}: `containment_correction` is for one circle, and the region is '{region.text}': write a circle or leave the "
            "correction out"
        )


def _exposure(
    observation: Observation, region: RegionGeometry, energy_true: Axis, use_region_center: bool
) -> Map:
    if use_region_center:
        return exposure_map(observation, region, energy_true)
    whole = exposure_map(observation, region.grid, energy_true)
    mean = np.average(whole.data.reshape(energy_true.n_bins, -1), axis=1, weights=region.cover.ravel())
    return replace(whole, geom=region, data=mean.reshape(-1, 1, 1))


def _contained(observation: Observation, region: RegionGeometry, energy_true: Axis, where: str) -> np.ndarray:
    if observation.psf is None:
        raise InputError(
            f"{where}: `containment_correction` needs a point spread function, which the HDU index does not name"
        )
    offset = _offset(observation, region).reshape(1)
    fraction = containment(observation.psf, energy_true.centers, region.radius, offset)
    return fraction.reshape(-1, 1, 1)


def _background(observation: Observation, region: RegionGeometry, energy: Axis) -> Map | None:
    """Expected background of the region; None without a response, or for a point, whose size depends on the energy."""
    if observation.bkg is None or region.is_point:
        return None
    whole = background_map(observation, observation.bkg, region.grid, energy)
    total = (whole.data * region.cover).sum(axis=(1, 2)).reshape(-1, 1, 1)
    return Map(region, (energy,), total)


def _edisp(
    observation: Observation, region: RegionGeometry, energy_true: Axis, energy: Axis, where: str
) -> EdispMap | None:
    if observation.edisp is not None:
        return edisp_map(observation, observation.edisp, region, energy_true, energy)
    if not energy_true.renamed("energy").is_close(energy):
        raise InputError(
            f"{where}: the HDU index names no energy dispersion: leave `energy_true` out, so that true energies are taken as reconstructed"
        )
    return None


def _is_predicted(background: Map | None, shape: tuple[int, ...]) -> np.ndarray:
    if background is None:
        return np.ones(shape, dtype=bool)
    return np.asarray(np.isfinite(background.data) & (background.data > 0))


def _offset(observation: Observation, region: RegionGeometry) -> u.Quantity:
    return region.separation(observation.pointing)[0, 0] * u.rad


def _offset_warnings(observation: Observation, region: RegionGeometry) -> list[str]:
    """A sentence where the effective area is of one offset alone, as those of wobble runs are, and the region elsewhere."""
    axis = observation.aeff.axis("offset")
    low, high = axis.edges[0], axis.edges[-1]
    offset = _offset(observation, region).to(u.deg)
    if axis.n_bins > 1 or low - _SAME_OFFSET <= offset <= high + _SAME_OFFSET:
        return []
    return [
        f"the effective area was made for offsets of {low.to_value(u.deg):.3g} to {high.to_value(u.deg):.3g} deg alone, and is taken as it "
        f"is for the region, {offset.value:.3g} deg from the pointing"
    ]


def _radius_warnings(observation: Observation, region: RegionGeometry) -> list[str]:
    """A sentence where the effective area was made for other cuts than the region makes."""
    is_pointlike = bool(observation.aeff.meta.get("is_pointlike"))
    if region.is_point:
        return (
            []
            if is_pointlike
            else [
                "the effective area is FULL-ENCLOSURE (HDUCLAS3) and the region a point with directional cuts: the photons that the "
                "cuts lose are not corrected for and fluxes come out low"
            ]
        )
    if not is_pointlike:
        return []
    made_for = observation.rad_max
    if made_for is None:
        return [
            "the effective area is POINT-LIKE (HDUCLAS3) and names no RAD_MAX: its radius cannot be compared with the region"
        ]
    table = made_for.quantity.to_value(u.deg)
    low, high = float(table.min()), float(table.max())
    if region.radius is not None:
        radius = float(region.radius.to_value(u.deg))
        if low * (1 - _SAME_RADIUS) <= radius <= low * (1 + _SAME_RADIUS) and np.isclose(low, high):
            return []
    spoken = f"{low:.4g} deg" if np.isclose(low, high) else f"{low:.4g} to {high:.4g} deg with the energy"
    return [
        f"the effective area is POINT-LIKE, made for events within RAD_MAX = {spoken} of the source, and the region is "
        f"'{region.text}': fluxes come out wrong unless the region is a circle of that radius, or a point"
    ]
