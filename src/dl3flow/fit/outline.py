"""Outline of a dataset: the few facts of it that a fit asks for again and again, so that its arrays are read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData, OffCounts
from dl3flow.data.events import Gti
from dl3flow.fit.binding import bind, for_dataset
from dl3flow.fit.npred import energies_of_shape, sees, source_position
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import radius
from dl3flow.models.source import Models, Source


@dataclass(frozen=True, eq=False)
class Outline:
    """What a fit needs to know of a dataset beside its likelihood.

    Attributes
    ----------
    name : str
    geom : Geometry or None
        None for flux points.
    gti : Gti or None
    energy_range : (float, float) or None
        Lowest and highest edge of the bins in the fit, TeV; None if there are none, and for flux points.
    meta : mapping
        Of the dataset.
    sources : frozenset of str
        Names of the sources of the fit that reach its data.
    n_background : int
        Energy bins with background in the fit.
    warnings : tuple of str
    responses : tuple of (geometry, exposure)
        Of the point spread and the dispersion of a map: where they are known.
    energy_true : array, TeV, or None
        Centres of the true-energy bins of a map.
    """

    name: str
    geom: Geometry | None
    gti: Gti | None
    energy_range: tuple[float, float] | None
    meta: Mapping[str, object]
    sources: frozenset[str]
    n_background: int
    warnings: tuple[str, ...]
    responses: tuple[tuple[Geometry, np.ndarray], ...] = ()
    energy_true: np.ndarray | None = None

    @property
    def is_points(self) -> bool:
        """True for flux points."""
        return self.geom is None

    @property
    def sky(self) -> SkyGeometry | None:
        """Pixels of a map; None for a spectrum and for flux points, which say nothing of a place."""
        return self.geom if isinstance(self.geom, SkyGeometry) else None


def outlines_of(datasets: Sequence[FitData], models: Models) -> tuple[Outline, ...]:
    """Outlines of all datasets, each read once."""
    seen: dict[tuple[RegionGeometry, str], bool] = {}
    return tuple(_outline(dataset, models, seen) for dataset in datasets)


def _outline(dataset: FitData, models: Models, seen: dict[tuple[RegionGeometry, str], bool]) -> Outline:
    sources = frozenset(
        s.name for s in models.sources if for_dataset(dataset.name, s.datasets) and _reaches(dataset, s, seen)
    )
    if isinstance(dataset, FluxPointsData):
        told = tuple(str(w) for w in dataset.meta.get("warnings", ()))
        return Outline(dataset.name, None, None, None, dataset.meta, sources, 0, told)
    is_map = isinstance(dataset.geom, SkyGeometry)
    mask = dataset.mask
    used = np.flatnonzero(mask.any(axis=(1, 2)))
    edges = dataset.energy.edges
    ends = edges.value[[used[0], used[-1] + 1]] * float(edges.unit.to(u.TeV)) if len(used) else None
    maps = (dataset.psf, dataset.edisp) if is_map else ()
    return Outline(
        dataset.name,
        dataset.geom,
        dataset.gti,
        None if ends is None else (float(ends[0]), float(ends[1])),
        dataset.meta,
        sources,
        int((mask & (dataset.mu_bkg > 0)).any(axis=(1, 2)).sum()),
        tuple(_without_data(dataset)),
        tuple((m.exposure.geom, m.exposure.data) for m in maps if m is not None),
        dataset.energy_true.centers.to_value(u.TeV) if is_map else None,
    )


def _without_data(dataset: Dataset) -> list[str]:
    """A sentence if a dataset has no bin in the fit, or its background was not measured in some of them."""
    if not dataset.mask.any():
        return [
            f"dataset '{dataset.name}' has no bin in the fit: its safe mask, or the fit's own limits, leave none"
        ]
    if isinstance(dataset.background, OffCounts):
        lost = int(np.count_nonzero(dataset.mask & ~(dataset.background.alpha > 0)))
        if lost:
            return [
                f"dataset '{dataset.name}': {lost} bins of the fit have no acceptance on or off: no background was measured there, "
                "and they count for nothing"
            ]
    return []


def _reaches(dataset: FitData, source: Source, seen: dict[tuple[RegionGeometry, str], bool]) -> bool:
    """True for flux points; else if any pixel with exposure lies within the source's radius and point spread, or a region holds the source.

    ``seen`` takes what regions hold, for the spectra that follow.
    """
    if isinstance(dataset, FluxPointsData):
        return bool(dataset.mask.any())
    if source.spatial is None:
        return bool((dataset.exposure.data > 0).any())
    region = dataset.geom
    if isinstance(region, RegionGeometry) and (region, source.name) in seen:
        return seen[region, source.name]
    position, spatial = source_position(source), bind(source, "spatial", {})
    if position is None:
        return bool((dataset.exposure.data > 0).any())
    if isinstance(region, RegionGeometry):
        # an extended source may be centred outside the region
        seen[region, source.name] = "resolution" in spatial.plugin.companions or sees(region, position)
        return seen[region, source.name]
    j, i = dataset.geom.nearest(position)
    if dataset.geom.index(position)[2] and (dataset.exposure.data[:, j, i] > 0).any():
        return True
    energy = energies_of_shape(dataset, spatial.plugin)
    reach = radius(spatial.plugin, spatial.start, energy) + 2 * np.radians(dataset.counts.sky.binsz)
    if dataset.psf is not None:
        reach += float(dataset.psf.psf.axis("rad").edges[-1].to_value(u.rad))
    near = dataset.geom.separation(position) <= reach
    return bool((dataset.exposure.data[:, near] > 0).any())
