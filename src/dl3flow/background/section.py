"""A ``background:`` section of the configuration: a method, and what every method is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.background import BACKGROUNDS
from dl3flow.background.match import match_off_runs
from dl3flow.data.maps import Map
from dl3flow.errors import InputError, choices
from dl3flow.geometry import shapes
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.regions import exclusion_mask, parse_regions, sample_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.registry import Plugin, convert

MATCH = Plugin("runs", match_off_runs)
# the exclusion of a spectrum is drawn on a map of this width around its region
_FIELD = 10 * u.deg
SHARED = ("exclusion", "exclusion_binsz", "subtract", "runs", "model")


@dataclass(frozen=True, eq=False)
class BackgroundSection:
    """What the section says.

    Attributes
    ----------
    method : Plugin
        Of `BACKGROUNDS`.
    options : mapping
        Its keyword arguments.
    exclusion : Regions or None
        Sky that the background must not be taken from.
    exclusion_binsz : Quantity or None
        Pixel size on which the regions are drawn; that of the map by default.
    subtract : object or None
        Models of known sources, as the section gives them.
    runs : mapping
        Further runs: ``observations`` (the name of a group), and how they are matched to a run (`match_off_runs`).
    match : mapping
        Keyword arguments of `match_off_runs`.
    build : function or None
        Builds the method's background models from further runs, its options bound; None where the method has none.
    """

    method: Plugin
    options: Mapping[str, Any]
    exclusion: shapes.Regions | None
    exclusion_binsz: u.Quantity | None
    subtract: Any
    runs: Mapping[str, Any]
    match: Mapping[str, Any]
    build: Callable[..., Any] | None

    def usable_sky(self, geom: SkyGeometry, whole: Geometry | None, drawn: Map | None = None) -> np.ndarray:
        """True for the pixels of ``geom`` outside the exclusion; shape (n_lat, n_lon).

        Parameters
        ----------
        geom : SkyGeometry
            Where it is asked.
        whole : SkyGeometry or RegionGeometry or None
            Geometry of the analysis, on which regions are drawn where `exclusion_binsz` asks for other pixels; None draws
            them on ``geom``.
        drawn : Map, optional
            Mask that takes the place of the regions: above zero in every bin is usable.
        """
        if drawn is not None:
            usable = np.asarray((drawn.data > 0).reshape(-1, *drawn.geom.shape).all(axis=0))
            return sample_mask(drawn.sky, usable, geom)
        if self.exclusion is None:
            return np.ones(geom.shape, dtype=bool)
        if whole is None:
            return exclusion_mask(geom, self.exclusion, geom)
        if isinstance(whole, RegionGeometry):
            whole = SkyGeometry.create(whole.center, _FIELD, _FIELD / 100)
        return exclusion_mask(geom, self.exclusion, whole, self.exclusion_binsz)


def parse_background(entry: Any, where: str) -> BackgroundSection:
    """Check a section whose region, if it has one, is DS9 text.

    Raises
    ------
    InputError
        For an unknown method or option, or a value of the wrong kind.
    """
    if not isinstance(entry, Mapping):
        raise InputError(
            f"{where}: expected an entry such as `{{name: fov, method: scale}}`, found {entry!r}"
        )
    if "name" in entry:
        known = [*BACKGROUNDS.find(entry["name"], f"{where}.name").options, *SHARED]
        for key in entry:
            if key != "name" and key not in known:
                raise InputError(
                    f"{where}: unknown option '{key}' of '{entry['name']}': {choices(str(key), known)}"
                )
    method, options = BACKGROUNDS.bind({k: v for k, v in entry.items() if k not in SHARED}, where)
    binsz = entry.get("exclusion_binsz")
    runs, builder = entry.get("runs"), method.companions.get("build")
    if (runs is not None) != bool(builder or method.companions.get("off")):
        need = (
            "takes no further runs: leave `runs` out"
            if runs is not None
            else "needs further runs: give `runs`"
        )
        raise InputError(f"{where}: the background method '{method.name}' {need} `{{observations: GROUP}}`")
    if runs is not None and (not isinstance(runs, Mapping) or not isinstance(runs.get("observations"), str)):
        raise InputError(f"{where}.runs: expected `{{observations: GROUP}}`, found {runs!r}")
    matching = {key: value for key, value in (runs or {}).items() if key != "observations"}
    if matching and builder is not None:
        raise InputError(
            f"{where}.runs: the background method '{method.name}' builds its model from all runs of the group, so that '{next(iter(matching))}' "
            "would do nothing: leave it out, and choose runs by the group's `select` or by `zenith_bins` of the model"
        )
    if "model" in entry and builder is None:
        raise InputError(
            f"{where}.model: the background method '{method.name}' builds no model: leave it out"
        )
    return BackgroundSection(
        method,
        options,
        parse_regions(entry["exclusion"], f"{where}.exclusion") if "exclusion" in entry else None,
        None if binsz is None else convert(binsz, PositiveAngle, f"{where}.exclusion_binsz"),
        entry.get("subtract"),
        runs or {},
        MATCH.bind(matching, f"{where}.runs") if matching else {},
        None if builder is None else _bound(builder, entry.get("model", {}), f"{where}.model"),
    )


def _bound(builder: Callable[..., Any], options: Any, where: str) -> Callable[..., Any]:
    if not isinstance(options, Mapping):
        raise InputError(f"{where}: expected options such as `{{kind: bkg_3d}}`, found {options!r}")
    return partial(builder, **Plugin(builder.__name__, builder).bind(options, where))
