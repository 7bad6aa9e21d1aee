"""Recipe ``cube``: an observation in bins of energy and sky pixels, with its responses."""

from typing import Literal

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.maps import Map
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis, EnergyAxis, EnergyTrueAxis, PositiveAngle
from dl3flow.geometry.sky import SkyGeometry, SkyPosition
from dl3flow.reduce.counts import count_events
from dl3flow.reduce.facts import dataset_meta
from dl3flow.reduce.registry import RECIPES
from dl3flow.reduce.response import background_map, edisp_map, exposure_map, psf_map

_MIN_RESPONSE_PIXELS = 3
RAD = Axis.from_bounds("rad", 0 * u.deg, 0.66 * u.deg, 66, "lin")
MIGRA = Axis.from_bounds("migra", u.Quantity(0.2), u.Quantity(5.0), 48, "lin")


def cube_geometry(
    *,
    center: SkyPosition,
    width: PositiveAngle,
    binsz: PositiveAngle,
    proj: str = "CAR",
    binsz_irf: PositiveAngle,
    **_: object,
) -> tuple[SkyGeometry, SkyGeometry]:
    """Whole geometry of the analysis: that of the counts and the coarser one of the response maps."""
    geom = SkyGeometry.create(center, width, binsz, proj)
    return geom, geom.coarser(binsz_irf)


@RECIPES.register(geometry=cube_geometry)
def cube(
    observation: Observation,
    name: str,
    *,
    center: SkyPosition,
    width: PositiveAngle,
    binsz: PositiveAngle,
    energy: EnergyAxis,
    energy_true: EnergyTrueAxis | None = None,
    proj: Literal["CAR", "TAN", "AIT", "SIN", "ZEA", "STG"] = "CAR",
    binsz_irf: PositiveAngle = 0.2 * u.deg,
    edisp: Literal["kernel", "migra"] = "kernel",
    cutout: PositiveAngle | None = None,
) -> Dataset:
    """Counts, exposure, background, point-spread and dispersion maps of one observation.

    Parameters
    ----------
    observation : Observation
        With effective area, dispersion, point spread and background.
    name : str
        Of the dataset.
    center, width, binsz, proj
        Pixels of the analysis, the same for all its observations.
    energy, energy_true : Axis
        Reconstructed and true energy; the latter is a copy of the former by default.
    binsz_irf : Quantity
        Pixel size of the point-spread and dispersion maps.
    edisp : 'kernel' or 'migra'
        Form of the dispersion map.
    cutout : Quantity, optional
        Width of the part around the pointing that is kept; the whole geometry by default.

    Returns
    -------
    dataset : Dataset
        Every bin with a background above zero is safe.

    Raises
    ------
    InputError
        If the observation has no exposure on the geometry, or a response is missing.
    """
    geom, geom_irf = cube_geometry(center=center, width=width, binsz=binsz, proj=proj, binsz_irf=binsz_irf)
    where = f"observation {observation.obs_id}"
    if observation.psf is None or observation.edisp is None or observation.bkg is None:
        missing = [n for n in ("edisp", "psf", "bkg") if getattr(observation, n) is None]
        raise InputError(
            f"{where}: the recipe `cube` needs the response {', '.join(missing)}, which the HDU index does not name"
        )
    pointlike = [n for n in ("aeff", "edisp") if getattr(observation, n).meta.get("is_pointlike")]
    if pointlike:
        raise InputError(
            f"{where}: the response {', '.join(pointlike)} is POINT-LIKE (HDUCLAS3), made for a directional cut: the recipe `cube` "
            "needs FULL-ENCLOSURE responses"
        )
    if cutout is not None:
        try:
            geom = geom.cutout(observation.pointing, cutout)
            geom_irf = geom_irf.cutout(observation.pointing, cutout, _MIN_RESPONSE_PIXELS)
        except InputError as error:
            raise InputError(f"{where}: {error}: change `center`, `width` or the selection") from None
    energy_true = energy.renamed("energy_true") if energy_true is None else energy_true
    exposure = exposure_map(observation, geom, energy_true)
    if not np.any(exposure.data > 0):
        at = observation.pointing
        raise InputError(
            f"{where}: pointed at ({at.ra.deg:.4f}, {at.dec.deg:.4f}) deg it has no exposure on the map centred on "
            f"({geom.lon_0:.4f}, {geom.lat_0:.4f}) deg: no overlap; change `center`, `width`, `energy_true` or the selection"
        )
    background = background_map(observation, observation.bkg, geom, energy)
    second = energy if edisp == "kernel" else MIGRA
    return Dataset(
        name=name,
        counts=count_events(observation.events, observation.gti, geom, energy),
        background=ExpectedCounts(background),
        exposure=exposure,
        psf=psf_map(observation, observation.psf, geom_irf, energy_true, RAD),
        edisp=edisp_map(observation, observation.edisp, geom_irf, energy_true, second),
        mask_safe=_has_background(background),
        mask_fit=None,
        gti=observation.gti,
        meta=dataset_meta(observation, energy, energy_true),
    )


def _has_background(background: Map) -> np.ndarray:
    return np.asarray(np.isfinite(background.data) & (background.data > 0))
