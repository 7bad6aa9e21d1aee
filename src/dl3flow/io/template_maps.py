"""Maps of the sky that spatial models are read from (GADF sky maps, as the field's tools write them)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.maps import Map
from dl3flow.errors import InputError
from dl3flow.io.skymaps import read_sky_map
from dl3flow.units import DNDE, ENERGY, SOLID_ANGLE

_ENERGY_AXES = ("energy_true", "energy")
# of the largest value: what the rounding of other tools leaves below zero
_ROUNDING = 1e-6


def read_template_map(path: Path, entry: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options of the spatial model ``template`` from the first map of a file.

    Parameters
    ----------
    path : Path
    entry : mapping, optional
        The model's own entry; only its ``normalize`` matters here.

    Returns
    -------
    options : dict
        geom, values, shape (n_lat, n_lon) or (n_bins, n_lat, n_lon) in sr-1 or cm-2 s-1 TeV-1 sr-1, and frame; with
        energies their edges, TeV.

    Raises
    ------
    InputError
        If there is no map, it has other axes than energy, a unit that no source has, or negative or no values.
    """
    name, sky_map = next(iter(read_sky_map(path).maps.items()))
    where = f"{path}: HDU {name.upper()}"
    axes = [axis.name for axis in sky_map.axes]
    if len(axes) > 1 or (axes and axes[0] not in _ENERGY_AXES):
        raise InputError(
            f"{where}: a template has the sky, and at most the axis energy_true beside it, found {axes}: sum over the others"
        )
    is_shares = bool((entry or {}).get("normalize", True))
    values = np.nan_to_num(np.asarray(sky_map.data, dtype=float)) * _factor(sky_map, is_shares, where)
    if values.min() < -_ROUNDING * max(values.max(), 0.0):
        raise InputError(
            f"{where}: has negative values, the least {values.min():.3g}, which no source has: set them to zero"
        )
    if not values.max() > 0:
        raise InputError(f"{where}: has no value above zero: name a map that shows something")
    values = np.maximum(values, 0.0)
    options: dict[str, Any] = {"geom": sky_map.sky, "values": values, "frame": sky_map.sky.frame}
    edges = sky_map.axes[0].edges.to_value(ENERGY) if axes else np.zeros(2)
    if edges[0] < edges[-1]:
        return {**options, "edges": np.asarray(edges, dtype=float)}
    return {**options, "values": values.reshape(sky_map.sky.shape)}


def _factor(sky_map: Map, is_shares: bool, where: str) -> float:
    """Internal units per unit of the map; one where only the ratios of pixels count, and for a bare number."""
    if is_shares or sky_map.unit == u.dimensionless_unscaled:
        return 1.0
    for unit in (SOLID_ANGLE**-1, DNDE / SOLID_ANGLE):
        if sky_map.unit.is_equivalent(unit):
            return float(sky_map.unit.to(unit))
    raise InputError(
        f"{where}: has the unit '{sky_map.unit}', expected 'sr-1' or 'cm-2 s-1 TeV-1 sr-1' for a template that is not "
        "normalized: correct BUNIT, or set `normalize: true`"
    )
