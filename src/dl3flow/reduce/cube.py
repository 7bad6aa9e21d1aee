"""Recipe ``cube``: an observation in bins of energy and sky pixels, with its responses."""

from collections.abc import Collection
from functools import lru_cache
from typing import Annotated, Any, Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.maps import Map
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis, EnergyAxis, EnergyTrueAxis, PositiveAngle
from dl3flow.geometry.sky import SkyCenter, SkyGeometry
from dl3flow.reduce.counts import count_events
from dl3flow.reduce.facts import dataset_meta
from dl3flow.reduce.registry import RECIPES
from dl3flow.reduce.response import background_map, edisp_map, exposure_map, psf_map

_MIN_RESPONSE_PIXELS = 3
_RAD_BIN = 0.01 * u.deg
_MOST_PARTS = 100
MIGRA = Axis.from_bounds("migra", u.Quantity(0.2), u.Quantity(5.0), 48, "lin")

Selected = Literal["counts", "exposure", "background", "psf", "edisp"]
_RESPONSES: dict[Selected, str] = {"exposure": "aeff", "psf": "psf", "edisp": "edisp"}


def _parse_parts(entry: Any) -> int:
    if not isinstance(entry, int) or isinstance(entry, bool) or not 1 <= entry <= _MOST_PARTS:
        raise ValueError(f"expected a whole number from 1 to {_MOST_PARTS}, found {entry!r}")
    return entry


Parts = Annotated[int, _parse_parts]


def cube_geometry(
    *,
    center: SkyCoord | None,
    width: PositiveAngle,
    binsz: PositiveAngle,
    proj: str = "CAR",
    binsz_irf: PositiveAngle,
    pointing: SkyCoord | None = None,
    **_: object,
) -> tuple[SkyGeometry, SkyGeometry] | None:
    """Whole geometry of the analysis: that of the counts and the coarser one of the response maps.

    None where each observation has its own, around its pointing, and that is not given.
    """
    center = pointing if center is None else center
    if center is None:
        return None
    geom = SkyGeometry.create(center, width, binsz, proj)
    return _shared(geom), _shared(geom.coarser(binsz_irf))


@lru_cache(maxsize=2)
def _shared(geom: SkyGeometry) -> SkyGeometry:
    """One of equal geometries, so that a process that reduces many runs computes their pixels once."""
    return geom


@RECIPES.register(geometry=cube_geometry)
def cube(
    observation: Observation,
    name: str,
    *,
    center: SkyCenter,
    width: PositiveAngle,
    binsz: PositiveAngle,
    energy: EnergyAxis,
    energy_true: EnergyTrueAxis | None = None,
    proj: Literal["CAR", "TAN", "AIT", "SIN", "ZEA", "STG"] = "CAR",
    binsz_irf: PositiveAngle = 0.2 * u.deg,
    edisp: Literal["kernel", "migra"] = "kernel",
    cutout: PositiveAngle | None = None,
    selection: tuple[Selected, ...] = ("counts", "exposure", "background", "psf", "edisp"),
    psf_rad_max: PositiveAngle = 0.66 * u.deg,
    background_oversampling: Parts = 1,
    fill_gaps: bool = True,
    fov_rotation_step: PositiveAngle = 1 * u.deg,
) -> Dataset:
    """Counts, exposure, background, point-spread and dispersion maps of one observation.

    Parameters
    ----------
    observation : Observation
        With the responses of the selected maps.
    name : str
        Of the dataset.
    center, width, binsz, proj
        Pixels of the analysis, the same for all its observations; with the centre ``pointing`` each has its own, and they
        cannot be stacked.
    energy, energy_true : Axis
        Reconstructed and true energy; the latter is a copy of the former by default.
    binsz_irf : Quantity
        Pixel size of the point-spread and dispersion maps.
    edisp : 'kernel' or 'migra'
        Form of the dispersion map.
    cutout : Quantity, optional
        Width of the part around the pointing that is kept; the whole geometry by default.
    selection : tuple of str
        Maps to make; counts and exposure are zero where they are left out, the others None.
    psf_rad_max : Quantity
        Largest angle of the point-spread map, in steps of 0.01 deg.
    background_oversampling : int
        Parts of each energy bin in which the background is integrated.
    fill_gaps : bool
        Whether zeros of the background between energies that have a rate are filled.
    fov_rotation_step : Quantity
        Turn of the field after which a background aligned with the horizon is evaluated again.

    Returns
    -------
    dataset : Dataset
        Every bin with a background above zero is safe; without a background response, every bin with exposure.

    Raises
    ------
    InputError
        If the observation has no exposure on the geometry, a response of a selected map other than the background is
        missing, or true energies are not the reconstructed ones without a dispersion.
    """
    found = cube_geometry(
        center=center,
        width=width,
        binsz=binsz,
        proj=proj,
        binsz_irf=binsz_irf,
        pointing=observation.pointing,
    )
    assert found is not None  # the pointing is known
    geom, geom_irf = found
    where = f"observation {observation.obs_id}"
    energy_true = energy.renamed("energy_true") if energy_true is None else energy_true
    _check(observation, selection, energy, energy_true, where)
    if cutout is not None:
        try:
            geom = geom.cutout(observation.pointing, cutout)
            geom_irf = geom_irf.cutout(observation.pointing, cutout, _MIN_RESPONSE_PIXELS)
        except InputError as error:
            raise InputError(f"{where}: {error}: change `center`, `width` or the selection") from None
    exposure = Map(geom, (energy_true,), np.zeros((energy_true.n_bins, *geom.shape)), u.m**2 * u.s)
    if "exposure" in selection:
        exposure = exposure_map(observation, geom, energy_true)
    if "exposure" in selection and not np.any(exposure.data > 0):
        at = observation.pointing
        raise InputError(
            f"{where}: pointed at ({at.ra.deg:.4f}, {at.dec.deg:.4f}) deg it has no exposure on the map centred on "
            f"({geom.lon_0:.4f}, {geom.lat_0:.4f}) deg: no overlap; change `center`, `width`, `energy_true` or the selection"
        )
    background = None
    if "background" in selection and observation.bkg is not None:
        background = background_map(
            observation,
            observation.bkg,
            geom,
            energy,
            oversampling=background_oversampling,
            fill_gaps=fill_gaps,
            fov_rotation_step=fov_rotation_step,
        )
    rad = Axis.from_bounds(
        "rad", 0 * u.deg, psf_rad_max, max(round((psf_rad_max / _RAD_BIN).to_value("")), 1), "lin"
    )
    psf_table = observation.psf if "psf" in selection else None
    edisp_table = observation.edisp if "edisp" in selection else None
    # the weight of both responses in a stack
    weight = exposure_map(observation, geom_irf, energy_true)
    second = energy if edisp == "kernel" else MIGRA
    counts = np.zeros((energy.n_bins, *geom.shape))
    meta = dataset_meta(observation, energy, energy_true)
    if "background" in selection and background is None:
        meta["warnings"].append(
            "the HDU index names no background response: a background method must measure it"
        )
    return Dataset(
        name=name,
        counts=count_events(observation.events, observation.gti, geom, energy)
        if "counts" in selection
        else Map(geom, (energy,), counts),
        background=None if background is None else ExpectedCounts(background),
        exposure=exposure,
        psf=None
        if psf_table is None
        else psf_map(observation, psf_table, geom_irf, energy_true, rad, weight),
        edisp=None
        if edisp_table is None
        else edisp_map(observation, edisp_table, geom_irf, energy_true, second, weight),
        mask_safe=_is_predicted(background, exposure, counts.shape),
        mask_fit=None,
        gti=observation.gti,
        meta=meta,
    )


def _check(
    observation: Observation, selection: Collection[Selected], energy: Axis, energy_true: Axis, where: str
) -> None:
    """Refuse what the selected maps cannot be made from."""
    tables = {name: getattr(observation, name) for key, name in _RESPONSES.items() if key in selection}
    missing = [name for name, table in tables.items() if table is None]
    if missing:
        raise InputError(
            f"{where}: the recipe `cube` needs the response {', '.join(missing)}, which the HDU index does not name: complete the "
            "index, or leave its map out of `selection`"
        )
    pointlike = [name for name, table in tables.items() if table.meta.get("is_pointlike")]
    if pointlike:
        raise InputError(
            f"{where}: the response {', '.join(pointlike)} is POINT-LIKE (HDUCLAS3), made for a directional cut: the recipe `cube` "
            "needs FULL-ENCLOSURE responses"
        )
    if "edisp" not in selection and not energy_true.renamed("energy").is_close(energy):
        raise InputError(
            f"{where}: without `edisp` in `selection` true energies are taken as reconstructed: leave `energy_true` out"
        )


def _is_predicted(background: Map | None, exposure: Map, shape: tuple[int, ...]) -> np.ndarray:
    """True where the background is above zero; without one, in pixels with exposure, or everywhere if there is none."""
    if background is not None:
        return background.data > 0
    exposed = (exposure.data > 0).any(axis=0)
    return np.broadcast_to(exposed | ~exposed.any(), shape).copy()
