"""Off regions: the on region turned around the pointing, and what is counted in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.background.registry import BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import shapes
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import bounding_box
from dl3flow.geometry.sky import SkyGeometry

# the plane around the pointing reaches twice as far as the region's centre, and this much more
_MARGIN = 0.3 * u.deg
_ARCSECOND = 1 * u.arcsec


@dataclass(frozen=True, eq=False)
class Turntable:
    """The tangent plane around a pointing, on which a region turns.

    Attributes
    ----------
    region : RegionGeometry
    plane : SkyGeometry
        TAN, its centre is the pointing.
    """

    region: RegionGeometry
    plane: SkyGeometry

    @classmethod
    def create(cls, region: RegionGeometry, pointing: SkyCoord, binsz: u.Quantity) -> Turntable:
        """Plane that holds the region at every angle."""
        to = pointing.transform_to(region.frame)
        distance = region.separation(pointing)[0, 0] * u.rad
        width = 4 * distance + _MARGIN
        if not region.is_point and region.radius is None:
            # half the diagonal of the box around the region
            width = max(width, 2 * distance + np.sqrt(2) * bounding_box(region.regions)[1])
        return cls(region, SkyGeometry.create(to, width, binsz, "TAN"))

    @cached_property
    def axle(self) -> shapes.PixCoord:
        """Pixel of the pointing."""
        x, y = self.plane.pixel(self.plane.center)
        return shapes.PixCoord(float(x), float(y))

    @cached_property
    def parts(self) -> list[shapes.PixelRegion]:
        """The region's shapes in pixels."""
        return [self._to_pixel(shape) for shape in self.region.regions]

    def _to_pixel(self, shape: shapes.SkyRegion) -> shapes.PixelRegion:
        if not isinstance(shape, shapes.CircleSkyRegion):
            return shape.to_pixel(self.plane.wcs)
        # a circle in the sky is none in the plane: its radius is measured along the meridian, as the field's finder does; what
        # the package `regions` takes differs with its version by 1e-4, enough to move single events
        north = shape.center.directional_offset_by(0 * u.deg, _ARCSECOND)
        (x, y), (x_north, y_north) = self.plane.pixel(shape.center), self.plane.pixel(north)
        pixels = float(np.hypot(x_north - x, y_north - y)) * float((shape.radius / _ARCSECOND).to_value(""))
        return shapes.CirclePixelRegion(shapes.PixCoord(float(x), float(y)), pixels)

    def drawn(self, parts: Iterable[shapes.PixelRegion]) -> np.ndarray:
        """True for the plane's pixels whose centre lies in one of the shapes."""
        y, x = np.indices(self.plane.shape)
        return _inside(parts, shapes.PixCoord(x, y))

    def turned(self, angle: float) -> list[shapes.PixelRegion]:
        """The region's shapes turned by ``angle`` rad, counter-clockwise in pixels: to larger position angles."""
        return [shape.rotate(self.axle, angle * u.rad) for shape in self.parts]

    def excluded(self, inputs: BackgroundInputs) -> shapes.PixCoord:
        """Centres of the plane's pixels that the background must not be taken from."""
        y, x = np.nonzero(~inputs.usable(self.plane))
        return shapes.PixCoord(x, y)

    def angular_size(self) -> float:
        """Largest angle (rad) between two pixels of the region as seen from the pointing, which lies outside of it.

        Raises
        ------
        InputError
            If the region holds no pixel.
        """
        y, x = np.nonzero(self.drawn(self.parts))
        if not x.size:
            raise InputError(
                f"the region '{self.region.text}' holds no pixel of {self.plane.binsz:g} deg: make `binsz` smaller"
            )
        angle = np.arctan2(self.axle.x - x, self.axle.y - y)
        size = float(np.ptp(angle))
        # a region across the cut of the arc tangent
        return float(np.ptp(angle % (2 * np.pi))) if size > np.pi else size

    def events_inside(
        self, observation: Observation, groups: Iterable[list[shapes.PixelRegion]]
    ) -> np.ndarray:
        """True for events in good times that lie in any of the turned regions; shape (n,)."""
        if not len(observation.events):
            return np.zeros(0, dtype=bool)
        x, y = self.plane.pixel(observation.events.radec)
        at = shapes.PixCoord(np.nan_to_num(x, nan=-1e9), np.nan_to_num(y, nan=-1e9))
        inside = _inside((part for group in groups for part in group), at)
        return np.asarray(inside & observation.gti.holds(observation.events))

    def text(self, groups: Iterable[list[shapes.PixelRegion]]) -> str:
        """DS9 text of turned regions on the sky."""
        pairs = [pair for group in groups for pair in zip(group, self.region.regions, strict=True)]
        circles = [k for k, (_, shape) in enumerate(pairs) if isinstance(shape, shapes.CircleSkyRegion)]
        sky = dict(zip(circles, self._places([pairs[k][0].center for k in circles]), strict=True))
        return ds9_text(
            shapes.CircleSkyRegion(sky[k], shape.radius) if k in sky else part.to_sky(self.plane.wcs)
            for k, (part, shape) in enumerate(pairs)
        )

    def _places(self, at: Sequence[shapes.PixCoord]) -> SkyCoord:
        lon, lat = self.plane.wcs.all_pix2world([c.x for c in at], [c.y for c in at], 0) if at else ([], [])
        return SkyCoord(lon * u.deg, lat * u.deg, frame=self.plane.frame)


def is_hit(parts: Iterable[shapes.PixelRegion], excluded: shapes.PixCoord) -> bool:
    """True if a region holds the centre of an excluded pixel."""
    return bool(excluded.x.size) and bool(_inside(parts, excluded).any())


def _inside(parts: Iterable[shapes.PixelRegion], at: shapes.PixCoord) -> np.ndarray:
    inside = np.zeros(np.shape(at.x), dtype=bool)
    for part in parts:
        inside |= np.asarray(part.contains(at))
    return inside


def ds9_text(regions: Iterable[shapes.SkyRegion]) -> str:
    """Regions as one line of DS9 text, such as ``icrs;circle(83.63, 22.01, 0.1);circle(...)``."""
    lines = shapes.Regions(list(regions)).serialize(format="ds9", precision=6).splitlines()
    return ";".join(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def on_region(
    observation: Observation, dataset: Dataset, inputs: BackgroundInputs, method: str
) -> RegionGeometry:
    """Region of a spectrum.

    Raises
    ------
    InputError
        For a map, or if known sources are to be subtracted.
    """
    check_no_signal(observation, inputs, method)
    if isinstance(dataset.geom, RegionGeometry):
        return dataset.geom
    raise InputError(
        f"observation {observation.obs_id}: the background `{method}` turns the region of a spectrum around the pointing, and the "
        "dataset is a map: use the recipe `spectrum`, or the background `ring` or `fov`"
    )


def check_no_signal(observation: Observation, inputs: BackgroundInputs, method: str) -> None:
    """Refuse to subtract known sources from off counts, which would not be Poisson counts any more.

    Raises
    ------
    InputError
        If there are known sources.
    """
    if inputs.signal is not None:
        raise InputError(
            f"observation {observation.obs_id}: the background `{method}` takes off counts as they are: leave `subtract` out and "
            "keep the off regions clear of sources with `exclusion`"
        )


def with_off_counts(
    dataset: Dataset,
    counts: np.ndarray,
    acceptance: np.ndarray | float,
    acceptance_off: np.ndarray | float,
    found: Mapping[str, Any],
) -> Dataset:
    """Dataset whose background is measured.

    Bins of a spectrum that were not safe only because no background was expected are safe now: it is measured. Bins
    without an off region are not.

    Parameters
    ----------
    dataset : Dataset
    counts : array, shape of the dataset's counts
        In the off regions.
    acceptance, acceptance_off : array of that shape, or float
    found : mapping
        For ``meta["background"]``.
    """
    shape = dataset.counts.data.shape
    on, off = (np.array(np.broadcast_to(value, shape), dtype=float) for value in (acceptance, acceptance_off))
    safe, reasons = dataset.mask_safe, dataset.reasons
    if isinstance(dataset.geom, RegionGeometry) and isinstance(dataset.background, ExpectedCounts):
        if reasons is None:
            safe = safe | ~(dataset.background.counts.data > 0)
        else:
            # the first reason is the recipe's: no background expected
            reasons = replace(reasons, bits=reasons.bits & np.uint8(~np.uint8(1)))
            safe = reasons.bits == 0
    as_map = dataset.counts.with_data
    return replace(
        dataset,
        background=OffCounts(as_map(counts), as_map(on), as_map(off)),
        mask_safe=safe & (off > 0),
        reasons=reasons,
        meta={**dataset.meta, "background": dict(found)},
    )
