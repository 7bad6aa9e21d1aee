"""What the data of a fit can tell: which sources they see, and which parameters they constrain."""

from collections.abc import Sequence
from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.binding import bind, for_dataset
from dl3flow.fit.npred import energies_of_shape, sees, source_position
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import radius
from dl3flow.models.source import Models, Parameter, Source


def maps_of(datasets: Sequence[FitData]) -> list[Dataset]:
    """Those of the datasets that are maps: spectra and flux points say nothing of a place."""
    return [d for d in datasets if isinstance(d, Dataset) and isinstance(d.geom, SkyGeometry)]


def constrained(datasets: Sequence[FitData], models: Models) -> tuple[Models, list[str]]:
    """Models without free parameters that no data constrain, and a sentence for each that was frozen.

    Raises
    ------
    InputError
        If there is no dataset, a source is seen by none, or a start value lies outside its limits.
    """
    warnings: list[str] = []
    if not datasets:
        raise InputError("the fit has no dataset: all observations were left out")
    names = {d.name for d in datasets}
    for source in models.sources:
        if source.datasets is not None and not names & set(source.datasets):
            raise InputError(
                f"source '{source.name}' is restricted to the datasets {', '.join(source.datasets)}, of which none is in the "
                f"fit (datasets: {', '.join(sorted(names))}): correct its `datasets_names`"
            )
        seen = [d for d in datasets if for_dataset(d.name, source.datasets)]
        if source.spatial is None and not any(_reaches(d, source) for d in seen):
            raise InputError(
                f"source '{source.name}' is seen by no dataset: none of those that it is fitted to has any exposure or flux point in the fit"
            )
        if not any(_reaches(d, source) for d in seen):
            position = source_position(source)
            assert position is not None  # a source that is everywhere reaches every dataset
            at = position.icrs
            raise InputError(
                f"source '{source.name}' at ({at.ra.deg:.4f}, {at.dec.deg:.4f}) deg (icrs) lies outside the field of every dataset: "
                "correct its `lon_0` and `lat_0`, or remove it"
            )
    frozen = _without_place(datasets, models, warnings)
    placed = [source for source in models.sources if source.spatial is not None]
    with_responses = [d for d in datasets if isinstance(d, Dataset)]
    warnings += _without_data(with_responses)
    warnings += [w for d in datasets if isinstance(d, FluxPointsData) for w in d.meta.get("warnings", ())]
    for d in with_responses:
        held = [source.name for source in placed if for_dataset(d.name, source.datasets)]
        if held and isinstance(d.geom, RegionGeometry) and not d.geom.is_known:
            warnings.append(
                f"dataset '{d.name}' does not say where on the sky it was taken: it is taken to hold all of {', '.join(held)}"
            )
    for background in models.backgrounds:
        with_it = [d for d in with_responses if for_dataset(d.name, background.datasets)]
        usable = sum(np.any(d.mask & (d.mu_bkg > 0), axis=(1, 2)).sum() for d in with_it)
        for p in background.spectral.parameters:
            if not p.frozen and (usable == 0 or (p.name == "tilt" and usable == 1)):
                frozen[f"{background.name}.{p.name}"] = replace(p, frozen=True)
                warnings.append(
                    f"{background.name}.{p.name} was kept at {p.value:g}: its datasets have {usable} energy bins with background in the fit"
                )
    warnings += counted_twice(datasets)
    for name, p in models.parameters().items():
        if p.value < p.min or p.value > p.max:
            raise InputError(
                f"parameter '{name}' starts at {p.value:g}, outside its limits {p.min:g} to {p.max:g}: correct one of them"
            )
    return models.with_parameters(frozen), warnings


def counted_twice(datasets: Sequence[FitData]) -> list[str]:
    """A sentence for each two datasets that hold events of one observation at the same energies, times and places."""
    told: dict[str, None] = {}
    seen: dict[tuple[str, ...], list[Dataset]] = {}
    for dataset in datasets:
        if isinstance(dataset, FluxPointsData):
            continue
        kind = [str(dataset.meta.get(key)) for key in ("event_types", "phase")]
        for obs_id in dataset.meta["obs_ids"]:
            before = seen.setdefault((str(obs_id), *kind), [])
            for other in before:
                if _is_one_telescope(other, dataset) and _meet(other, dataset):
                    told[
                        f"datasets '{other.name}' and '{dataset.name}' hold the same observation at the same energies: its events "
                        "count twice and errors come out too small"
                    ] = None
            before.append(dataset)
    return list(told)


def _is_one_telescope(one: Dataset, other: Dataset) -> bool:
    """True unless both name a telescope, and not the same."""
    names = [str(d.meta.get("telescope") or "unknown").lower() for d in (one, other)]
    return "unknown" in names or names[0] == names[1]


def _without_data(datasets: Sequence[Dataset]) -> list[str]:
    """A sentence for each dataset without a bin in the fit, or whose background was not measured in some of them."""
    found = []
    for dataset in datasets:
        if not dataset.mask.any():
            found.append(
                f"dataset '{dataset.name}' has no bin in the fit: its safe mask, or the fit's own limits, leave none"
            )
        elif isinstance(dataset.background, OffCounts):
            lost = int(np.count_nonzero(dataset.mask & ~(dataset.background.alpha > 0)))
            if lost:
                found.append(
                    f"dataset '{dataset.name}': {lost} bins of the fit have no acceptance on or off: no background was measured there, "
                    "and they count for nothing"
                )
    return found


def _meet(one: Dataset, other: Dataset) -> bool:
    """True if the energies of two datasets in the fit, their times and their regions overlap, as far as these are known."""
    if _are_apart(one.geom, other.geom):
        return False
    has_times = len(one.gti.start) and len(other.gti.start)
    if has_times and not one.gti.intersection(other.gti).ontime > 0 * u.s:
        return False
    ranges = []
    for dataset in (one, other):
        used = np.flatnonzero(dataset.mask.any(axis=(1, 2)))
        if not len(used):
            return False
        edges = dataset.energy.edges.to_value(u.TeV)
        ranges.append((edges[used[0]], edges[used[-1] + 1]))
    return bool(ranges[0][0] < ranges[1][1] and ranges[1][0] < ranges[0][1])


def _are_apart(one: Geometry, other: Geometry) -> bool:
    """True for two regions of which none holds a pixel of the other."""
    if not (isinstance(one, RegionGeometry) and isinstance(other, RegionGeometry)):
        return False
    if one.is_point or other.is_point:
        return False
    lon, lat = (v[one.grid_mask] for v in one.grid.lonlat)
    return not other.contains(SkyCoord(lon * u.rad, lat * u.rad, frame=one.frame)).any()


def _without_place(datasets: Sequence[FitData], models: Models, warnings: list[str]) -> dict[str, Parameter]:
    """Free spatial parameters of sources that no map sees, frozen; a sentence for each joins ``warnings``."""
    frozen = {}
    for source in models.sources:
        if source.spatial is None or any(
            for_dataset(d.name, source.datasets) and _reaches(d, source) for d in maps_of(datasets)
        ):
            continue
        for p in source.spatial.parameters:
            if not p.frozen:
                frozen[f"{source.name}.{p.name}"] = replace(p, frozen=True)
                warnings.append(
                    f"{source.name}.{p.name} was kept at {p.value:g} {p.unit}: only spectra see the source, and they say nothing of it"
                )
    return frozen


def _reaches(dataset: FitData, source: Source) -> bool:
    """True for flux points; else if any pixel with exposure lies within the source's radius and point spread, or a region holds the source."""
    if isinstance(dataset, FluxPointsData):
        return bool(dataset.mask.any())
    if source.spatial is None:
        return bool((dataset.exposure.data > 0).any())
    position, spatial = source_position(source), bind(source, "spatial", {})
    if position is None:
        return bool((dataset.exposure.data > 0).any())
    if isinstance(dataset.geom, RegionGeometry):
        # an extended source may be centred outside the region
        return "resolution" in spatial.plugin.companions or sees(dataset.geom, position)
    energy = energies_of_shape(dataset, spatial.plugin)
    reach = radius(spatial.plugin, spatial.start, energy) + 2 * np.radians(dataset.counts.sky.binsz)
    if dataset.psf is not None:
        reach += float(dataset.psf.psf.axis("rad").edges[-1].to_value(u.rad))
    near = dataset.geom.separation(position) <= reach
    return bool((dataset.exposure.data[:, near] > 0).any())
