"""Background method ``off_runs``: the counts of other runs, at the same places in the field of view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.background.camera import (
    SkyRegions,
    control_field,
    moved_run,
    outside,
    passage,
    restrict,
    sky_mask,
)
from dl3flow.background.options import Count
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.binning import bin_events, selected_events, uncut_bins, uncut_places
from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry import shapes
from dl3flow.geometry.axis import Axis, PositiveAngle
from dl3flow.geometry.region import BINSZ, Geometry, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.rad_max import cut_radius
from dl3flow.kernels.acceptance import joined_bins

_WIDEST = 20 * u.deg


@dataclass(frozen=True, eq=False)
class _How:
    """How an off run's camera is laid on that of the on run, and the sky that must not be taken with it."""

    alignment: str = "RADEC"
    exclusion: shapes.Regions | None = None


@BACKGROUNDS.register(off=True)
def off_runs(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    norm: Literal["ontime", "counts"] = "ontime",
    norm_by: Literal["run", "energy"] = "run",
    norm_min_counts: Count = 100,
    norm_radius: PositiveAngle = 2 * u.deg,
    off_exclusion: SkyRegions | None = None,
    alignment: Literal["RADEC", "ALTAZ"] = "RADEC",
) -> Dataset:
    """Counts of further runs at the field-of-view coordinates of each bin; classic on/off observing.

    Each off run's events keep their place in the camera and are binned as if its pointing had been that of the on run:
    on pixels, in a region, or within the RAD_MAX of a point. A bin's acceptance_off is the sum of the off runs' ontimes
    (in the phases that were kept) over that of the on run, of those off runs alone that can serve the bin: its energies
    lie whole between the run's LO_THRES and HI_THRES and in the range, its place within the offset, that its events were
    cut to, and the sky that the run saw there is outside ``off_exclusion``. Berge et al. (2007),
    "On/Off".

    Parameters
    ----------
    observation : Observation
    dataset : Dataset
    inputs : BackgroundInputs
        ``off``: the further runs.
    norm : 'ontime' or 'counts'
        Off exposure from the times alone, or scaled so that the off counts outside the exclusion (of a spectrum: in the
        field within ``norm_radius`` of the pointing, without exclusion and target) meet those of the on run.
    norm_by : 'run' or 'energy'
        One factor, or one for each group of neighbouring energy bins with ``norm_min_counts`` counts on and off.
    off_exclusion : Regions, optional
        Sky with known sources in the fields of the off runs.
    alignment : 'RADEC' or 'ALTAZ'
        Whether cameras are laid on one another with north up, or with the zenith up: then an event of the off run
        is placed by the horizon at the same part of the on run.

    Returns
    -------
    dataset : Dataset
        With `OffCounts`; bins without any off run are not safe.

    Raises
    ------
    InputError
        If there is no off run, one is the on run or of another instrument, none can serve a safe bin, or there are no
        counts for a norm.
    """
    where = f"observation {observation.obs_id}: the background `off_runs`"
    _check(observation, inputs, norm, where)
    energy = dataset.energy
    how = _How(alignment, off_exclusion)
    counts, exposure = _summed(observation, dataset.geom, energy, inputs.off, how)
    # on a map the response's own field ends where there is nothing to measure
    is_region = isinstance(dataset.geom, RegionGeometry)
    known = restrict(dataset, exposure > 0, "no off run", is_replaced=is_region)
    if not known.mask_safe.any():
        raise InputError(
            f"{where}: none of the {len(inputs.off)} off runs serves a safe bin (by their thresholds and `off_exclusion`): choose "
            "off runs of similar zenith"
        )
    norms, error = np.ones(energy.n_bins), 0.0
    if norm == "counts":
        control = _control(observation, known, inputs, norm_radius, how, (counts, exposure))
        norms, error = _norms(*control, norm_min_counts if norm_by == "energy" else None, where)
    map_of = dataset.counts.with_data
    facts = {
        "method": "off_runs",
        "off_obs_ids": [run.obs_id for run in inputs.off],
        "norm": float(norms.mean()),
        "norm_err": error,
        "norms": norms.tolist(),
    }
    warnings = [*dataset.meta.get("warnings", []), *_unserved(dataset, inputs.off)]
    off = OffCounts(map_of(counts), map_of(np.ones(counts.shape)), map_of(exposure / norms[:, None, None]))
    return replace(known, background=off, meta={**dataset.meta, "background": facts, "warnings": warnings})


def _check(observation: Observation, inputs: BackgroundInputs, norm: str, where: str) -> None:
    if not inputs.off:
        raise InputError(f"{where} is given no off run: name the runs that it may take")
    if inputs.signal is not None and norm == "ontime":
        raise InputError(
            f"{where} counts events and cannot `subtract` sources from them: give `norm: counts`, whose factor needs them, or "
            "leave `subtract` out"
        )
    own = [observation.meta.get(key) for key in ("telescope", "instrument")]
    for run in inputs.off:
        if run.obs_id == observation.obs_id:
            raise InputError(f"{where} is given the observation itself as off run: leave it out")
        other = [run.meta.get(key) for key in ("telescope", "instrument")]
        if other != own:
            raise InputError(
                f"{where} is given the off run {run.obs_id} of another instrument ({' '.join(map(str, other))}, not "
                f"{' '.join(map(str, own))}): leave it out"
            )
        types = [each.meta.get("event_types") for each in (observation, run)]
        if types[0] != types[1]:
            raise InputError(
                f"{where} is given the off run {run.obs_id} with events of the types {types[1] or 'all'}, and its own are of "
                f"{types[0] or 'all'}: give both groups the same `event_types`"
            )


def _safe_bins(run: Observation, energy: Axis) -> np.ndarray:
    limits = run.aeff.meta.get("lo_thres"), run.aeff.meta.get("hi_thres")
    return np.asarray(energy.contains_bin(*limits) & uncut_bins(run, energy))


def _summed(
    observation: Observation,
    geom: Geometry,
    energy: Axis,
    off: Sequence[Observation],
    how: _How,
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and exposure of all off runs, each in its safe energies; shape (n_energy, n_lat, n_lon) each."""
    shape = (energy.n_bins, *geom.shape)
    counts, exposure = np.zeros(shape), np.zeros(shape)
    for run in off:
        part = _measure(observation, run, geom, energy, _safe_bins(run, energy), how)
        counts += part[0]
        exposure += part[1]
    return counts, exposure


def _measure(
    observation: Observation,
    run: Observation,
    geom: Geometry,
    energy: Axis,
    bins: np.ndarray,
    how: _How,
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of one run, in the energies ``bins``, on the on run's sky, and its ontime (in kept phases) over the on run's.

    Returns
    -------
    counts, exposure : array, shape (n_energy, n_lat, n_lon)
    """
    pixels = _pixels(observation, geom, energy)
    lon, lat = pixels.lonlat
    # a place keeps its offset from the pointing: where the run's events were cut away, it serves nothing
    # (of the fine pixels of a region about half of those at the limit, as of the events)
    there = replace(run, pointing=observation.pointing)
    cut = uncut_places(there, pixels, whole=isinstance(geom, SkyGeometry))
    share = (np.isfinite(lon) & np.isfinite(lat) & cut).astype(float)
    way = passage(run, observation, how.alignment)
    moved = moved_run(run, observation, way)
    taken = selected_events(moved, geom)
    # a pixel whose place is known by its centre is used or not as a whole, else events and area are counted apart
    by_pixel = isinstance(geom, SkyGeometry) and how.alignment == "RADEC"
    if how.exclusion is not None:
        centers = SkyCoord(np.nan_to_num(lon) * u.rad, np.nan_to_num(lat) * u.rad, frame=pixels.frame)
        events = run.events.radec
        reach = np.append(
            centers.separation(observation.pointing)[share > 0], events.separation(run.pointing)
        ).max()
        may_use = sky_mask(run, outside(how.exclusion), min(reach, _WIDEST))
        share = share * np.mean([may_use(way.backward(centers, at)) for at in way.moments], axis=0)
        if not by_pixel:
            taken = taken & may_use(events)
    counts = bin_events(moved.events, taken, geom, energy).data * bins[:, None, None]
    usable = share[None]
    if isinstance(geom, RegionGeometry):
        usable = _region_share(observation, geom, energy, pixels, share)
    elif by_pixel:
        counts = counts * usable
    ratio = float((run.kept_ontime / observation.kept_ontime).to_value(""))
    return counts, ratio * bins[:, None, None] * np.broadcast_to(usable, counts.shape)


def _pixels(observation: Observation, geom: Geometry, energy: Axis) -> SkyGeometry:
    """Pixels on which a geometry's share of usable sky is counted."""
    if isinstance(geom, SkyGeometry):
        return geom
    if not geom.is_point:
        return geom.grid
    # of a directional cut: the largest circle
    radius = _cut(observation, geom, energy.centers).max()
    return SkyGeometry.create(geom.center, 2 * radius + 4 * BINSZ, BINSZ, "TAN")


def _region_share(
    observation: Observation, geom: RegionGeometry, energy: Axis, pixels: SkyGeometry, usable: np.ndarray
) -> np.ndarray:
    """Part of a region's solid angle that is usable, per energy bin; shape (n_energy or 1, 1, 1)."""
    if not geom.is_point:
        return np.full((1, 1, 1), usable[geom.grid_mask].mean())
    radius = _cut(observation, geom, energy.centers).to_value(u.rad)
    within = pixels.separation(geom.center) <= radius[:, None, None]
    return np.asarray((usable * within).sum(axis=(1, 2)) / within.sum(axis=(1, 2)))[:, None, None]


def _cut(observation: Observation, geom: RegionGeometry, energies: u.Quantity) -> u.Quantity:
    """Radius of the directional cut of a point."""
    if observation.rad_max is None:
        raise InputError(
            f"observation {observation.obs_id}: the region '{geom.text}' is a point, which takes events within RAD_MAX, and the "
            "observation has none: write a circle"
        )
    return cut_radius(observation.rad_max, energies, geom.separation(observation.pointing)[0, 0] * u.rad)


def _control(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    radius: u.Quantity,
    how: _How,
    measured: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On counts, off counts and their sum times alpha in the control field; shape (n_energy,) each."""
    on, (off, exposure) = dataset.counts.data, measured
    if isinstance(dataset.geom, RegionGeometry):
        geom, usable = control_field(observation, dataset, inputs, radius)
        mask = np.asarray(dataset.mask.any(axis=(1, 2)))[:, None, None] & usable
        whole = np.ones(dataset.energy.n_bins, dtype=bool)
        on, _ = _measure(observation, observation, geom, dataset.energy, whole, _How())
        off, exposure = _summed(observation, geom, dataset.energy, inputs.off, how)
    else:
        mask = dataset.mask & inputs.usable(dataset.geom)
        on = on if inputs.signal is None else on - inputs.signal
    mask = np.asarray(mask & (exposure > 0))
    alpha = np.divide(1.0, exposure, out=np.zeros(exposure.shape), where=mask)
    return tuple(np.where(mask, values, 0.0).sum(axis=(1, 2)) for values in (on, off, alpha * off))


def _norms(
    on: np.ndarray, off: np.ndarray, expected: np.ndarray, min_counts: int | None, where: str
) -> tuple[np.ndarray, float]:
    """On over expected counts for each energy bin, joined to groups of enough counts, and the error of the whole."""
    if on.sum() <= 0 or expected.sum() <= 0:
        raise InputError(
            f"{where} finds {on.sum():.0f} counts of the run and {off.sum():.0f} of the off runs outside the exclusion: no norm; "
            "make the exclusion smaller, or take `norm: ontime`"
        )
    groups = np.zeros(len(on), dtype=int)
    if min_counts is not None:
        groups = joined_bins(np.minimum(on, off), min_counts)
    ratio = np.bincount(groups, on) / np.bincount(groups, expected)
    error = on.sum() / expected.sum() * np.sqrt(1 / on.sum() + 1 / off.sum())
    return ratio[groups], float(error)


def _unserved(dataset: Dataset, off: Sequence[Observation]) -> list[str]:
    """A sentence for off runs whose thresholds or cuts leave out energies that are safe in the dataset."""
    safe = dataset.mask_safe.any(axis=(1, 2))
    lost = {run.obs_id: int((safe & ~_safe_bins(run, dataset.energy)).sum()) for run in off}
    cut = {obs_id: n for obs_id, n in lost.items() if n}
    if not cut:
        return []
    told = ", ".join(f"{obs_id} ({n})" for obs_id, n in cut.items())
    return [
        "off runs are left out of safe energy bins that reach beyond their own LO_THRES or HI_THRES, or the energies that their "
        f"events were cut to (number of bins): {told}"
    ]
