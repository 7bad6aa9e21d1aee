"""What the data of a fit can tell: which sources they see, and which parameters they constrain."""

from collections.abc import Sequence
from dataclasses import replace

import astropy.units as u
from astropy.coordinates import SkyCoord

from dl3flow.errors import InputError
from dl3flow.fit.binding import for_dataset
from dl3flow.fit.npred import is_variable, source_position
from dl3flow.fit.outline import Outline
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.models.source import Models, Parameter, Source


def constrained(outlines: Sequence[Outline], models: Models) -> tuple[Models, list[str]]:
    """Models without free parameters that no data constrain, and a sentence for each that was frozen.

    Raises
    ------
    InputError
        If there is no dataset, a source is seen by none, or a start value lies outside its limits.
    """
    if not outlines:
        raise InputError("the fit has no dataset: all observations were left out")
    names = [o.name for o in outlines]
    twice = (
        next((name for name in names if names.count(name) > 1), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice is not None:
        raise InputError(f"two datasets of the fit are called '{twice}': give one of them another name")
    for source in models.sources:
        _check_seen(outlines, source)
    warnings: list[str] = []
    frozen = _without_place(outlines, models, warnings)
    counted = [o for o in outlines if not o.is_points]
    warnings += [w for o in counted for w in o.warnings]
    warnings += [w for o in outlines if o.is_points for w in o.warnings]
    for o in counted:
        held = [s.name for s in models.sources if s.spatial is not None and for_dataset(o.name, s.datasets)]
        if held and isinstance(o.geom, RegionGeometry) and not o.geom.is_known:
            warnings.append(
                f"dataset '{o.name}' does not say where on the sky it was taken: it is taken to hold all of {', '.join(held)}"
            )
    for background in models.backgrounds:
        usable = sum(o.n_background for o in counted if for_dataset(o.name, background.datasets))
        for p in background.spectral.parameters:
            if not p.frozen and (usable == 0 or (p.name == "tilt" and usable == 1)):
                frozen[f"{background.name}.{p.name}"] = replace(p, frozen=True)
                warnings.append(
                    f"{background.name}.{p.name} was kept at {p.value:g}: its datasets have {usable} energy bins with background in the fit"
                )
    for source in models.sources:
        steady = [o.name for o in outlines if o.is_points and for_dataset(o.name, source.datasets)]
        if is_variable(source) and steady:
            warnings.append(
                f"the temporal model of {source.name} is not applied to the flux points {', '.join(steady)}, which do not say when they "
                "were measured"
            )
    warnings += counted_twice(outlines)
    for name, p in models.parameters().items():
        if p.value < p.min or p.value > p.max:
            raise InputError(
                f"parameter '{name}' starts at {p.value:g}, outside its limits {p.min:g} to {p.max:g}: correct one of them"
            )
    return models.with_parameters(frozen), warnings


def _check_seen(outlines: Sequence[Outline], source: Source) -> None:
    """Refuse a source that no dataset sees."""
    names = {o.name for o in outlines}
    if source.datasets is not None and not names & set(source.datasets):
        raise InputError(
            f"source '{source.name}' is restricted to the datasets {', '.join(source.datasets)}, of which none is in the "
            f"fit (datasets: {', '.join(sorted(names))}): correct its `datasets_names`"
        )
    if any(source.name in o.sources for o in outlines):
        return
    position = None if source.spatial is None else source_position(source)
    if position is None:
        raise InputError(
            f"source '{source.name}' is seen by no dataset: none of those that it is fitted to has any exposure or flux point in the fit"
        )
    at = position.icrs
    raise InputError(
        f"source '{source.name}' at ({at.ra.deg:.4f}, {at.dec.deg:.4f}) deg (icrs) lies outside the field of every dataset: "
        "correct its `lon_0` and `lat_0`, or remove it"
    )


def counted_twice(outlines: Sequence[Outline]) -> list[str]:
    """A sentence for each two datasets that hold events of one observation at the same energies, times and places."""
    told: dict[str, None] = {}
    seen: dict[tuple[str, ...], list[Outline]] = {}
    for outline in outlines:
        if outline.is_points:
            continue
        kind = [str(outline.meta.get(key)) for key in ("event_types", "phase")]
        ids = outline.meta["obs_ids"]
        for obs_id in ids if isinstance(ids, list | tuple) else [ids]:
            before = seen.setdefault((str(obs_id), *kind), [])
            for other in before:
                if _is_one_telescope(other, outline) and _meet(other, outline):
                    told[
                        f"datasets '{other.name}' and '{outline.name}' hold the same observation at the same energies: its events "
                        "count twice and errors come out too small"
                    ] = None
            before.append(outline)
    return list(told)


def _is_one_telescope(one: Outline, other: Outline) -> bool:
    """True unless both name a telescope, and not the same."""
    names = [str(o.meta.get("telescope") or "unknown").lower() for o in (one, other)]
    return "unknown" in names or names[0] == names[1]


def _meet(one: Outline, other: Outline) -> bool:
    """True if the energies of two datasets in the fit, their times and their regions overlap, as far as these are known."""
    assert one.geom is not None
    assert other.geom is not None
    if _are_apart(one.geom, other.geom) or one.energy_range is None or other.energy_range is None:
        return False
    has_times = one.gti and other.gti and len(one.gti.start) and len(other.gti.start)
    if has_times and one.gti and other.gti and not one.gti.intersection(other.gti).ontime > 0 * u.s:
        return False
    return one.energy_range[0] < other.energy_range[1] and other.energy_range[0] < one.energy_range[1]


def _are_apart(one: Geometry, other: Geometry) -> bool:
    """True for two regions of which none holds a pixel of the other."""
    if not (isinstance(one, RegionGeometry) and isinstance(other, RegionGeometry)):
        return False
    if one.is_point or other.is_point:
        return False
    lon, lat = (v[one.grid_mask] for v in one.grid.lonlat)
    return not other.contains(SkyCoord(lon * u.rad, lat * u.rad, frame=one.frame)).any()


def _without_place(outlines: Sequence[Outline], models: Models, warnings: list[str]) -> dict[str, Parameter]:
    """Free spatial parameters of sources that no map sees, frozen; a sentence for each joins ``warnings``."""
    frozen = {}
    for source in models.sources:
        if source.spatial is None or any(o.sky is not None and source.name in o.sources for o in outlines):
            continue
        for p in source.spatial.parameters:
            if not p.frozen:
                frozen[f"{source.name}.{p.name}"] = replace(p, frozen=True)
                warnings.append(
                    f"{source.name}.{p.name} was kept at {p.value:g} {p.unit}: only spectra see the source, and they say nothing of it"
                )
    return frozen
