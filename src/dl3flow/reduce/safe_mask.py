"""Safe masks: the bins in which the responses are trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.binning import uncut_bins, uncut_places
from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis, PositiveAngle
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.sky import SkyPosition
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.edisp import dispersion_kernels, kernels_from_density
from dl3flow.irf.table import IrfTable
from dl3flow.reduce.registry import SAFE_MASKS
from dl3flow.registry import Plugin, convert

_MOST_REASONS = 8


@dataclass(frozen=True, eq=False)
class Kept:
    """What a safe mask returns.

    Attributes
    ----------
    bins : bool array
        True for the bins that it keeps; of a shape that broadcasts to (n_energy, n_lat, n_lon).
    warnings : tuple of str
        A sentence for whatever it assumed.
    """

    bins: np.ndarray
    warnings: tuple[str, ...] = ()


def parse_percent(entry: Any) -> float:
    """Number above 0 and below 100.

    Raises
    ------
    ValueError
        If it is not.
    """
    percent = convert(entry, float, "value")
    if not 0 < percent < 100:
        raise ValueError(f"expected a percentage above 0 and below 100, found {entry}")
    return float(percent)


Percent = Annotated[float, parse_percent]
Energy = Annotated[u.Quantity, u.TeV]
Source = Literal["DL4", "DL3"]


def apply_safe_masks(
    observation: Observation, dataset: Dataset, masks: Sequence[tuple[Plugin, Mapping[str, Any]]]
) -> Dataset:
    """Dataset whose safe mask is its present one and all of ``masks``, with the reason of every dropped bin.

    Raises
    ------
    InputError
        If there are more masks than reasons can be kept of, or one does not fit the dataset.
    """
    kept = {"no response": dataset.mask_safe, **_whole_bins(observation, dataset)}
    if len(kept) + len(masks) > _MOST_REASONS:
        raise InputError(
            f"safe_mask: at most {_MOST_REASONS - len(kept)} safe masks can be combined, found {len(masks)}"
        )
    warnings = list(dataset.meta.get("warnings", []))
    for mask, options in masks:
        # one mask may be asked for twice, with other options
        name = mask.name if mask.name not in kept else f"{mask.name} ({len(kept)})"
        found: Kept = mask(observation, dataset, **options)
        kept[name] = found.bins
        warnings += [f"safe mask {mask.name}: {text}" for text in found.warnings]
    bits = np.zeros(dataset.mask_safe.shape, dtype=np.uint8)
    for n, keep in enumerate(kept.values()):
        bits |= np.where(keep, np.uint8(0), np.uint8(1 << n))
    return replace(
        dataset,
        mask_safe=bits == 0,
        reasons=MaskReasons(tuple(kept), bits),
        meta={**dataset.meta, "warnings": warnings},
    )


def _whole_bins(observation: Observation, dataset: Dataset) -> dict[str, np.ndarray]:
    """Bins that the observation's events fill, where they were cut in energy or offset: the responses were not."""
    kept = {}
    if "event_energy" in observation.meta:
        kept["events.energy"] = _column(uncut_bins(observation, dataset.energy))
    if "event_offset" in observation.meta:
        kept["events.offset"] = uncut_places(observation, dataset.geom)[None]
    return kept


@SAFE_MASKS.register("aeff-default")
def aeff_default(observation: Observation, dataset: Dataset) -> Kept:
    """Energy bins that lie whole between LO_THRES and HI_THRES of the effective area's header."""
    # files write 0 where they set no limit
    found = (observation.aeff.meta.get(key) for key in ("lo_thres", "hi_thres"))
    limits = [limit if limit is not None and limit > 0 * u.TeV else None for limit in found]
    warnings = [
        f"the effective area's header has no {key}, so that no {side} limit in energy is set"
        for key, side, limit in zip(("LO_THRES", "HI_THRES"), ("lower", "upper"), limits, strict=True)
        if limit is None
    ]
    return Kept(_column(dataset.energy.contains_bin(*limits)), tuple(warnings))


@SAFE_MASKS.register("aeff-max")
def aeff_max(
    observation: Observation,
    dataset: Dataset,
    *,
    percent: Percent = 10.0,
    position: SkyPosition | None = None,
    fixed_offset: PositiveAngle | None = None,
    irfs: Source = "DL4",
) -> Kept:
    """Energy bins above the energy where the effective area reaches a percentage of its maximum.

    That true energy is applied to reconstructed energies as it is. The area is interpolated between the centres of the
    bins, linearly in log-log; where it starts above the percentage already, no bin is dropped.

    Parameters
    ----------
    observation, dataset
    percent : float
        Of the largest effective area.
    position : SkyCoord, optional
        Where the area is taken; the centre of the map by default.
    fixed_offset : Quantity, optional
        Distance north of the pointing, instead of a position.
    irfs : 'DL4' or 'DL3'
        The exposure of the dataset, or the response as the file has it, on its own energies; the latter at the pointing
        unless a position or offset is given.
    """
    if irfs == "DL3":
        axis = observation.aeff.axis("energy_true")
        offset = _offset(observation, position, fixed_offset)
        area = effective_area(observation.aeff, axis.edges, offset.reshape(1)).to_value("m2")[:, 0]
        if not np.any(area > 0):
            return _nothing("the effective area is zero at all energies")
        reached = area > percent / 100 * area.max()
        return Kept(_column(dataset.energy.contains_bin(axis.edges[np.argmax(reached)], None)))
    exposure = _at(dataset, observation, position, fixed_offset)
    if not np.any(exposure > 0):
        return _nothing("the exposure is zero at all energies")
    threshold = energy_reaching(dataset.energy_true, exposure, percent / 100 * exposure.max())
    return Kept(_column(dataset.energy.contains_bin(threshold, None)))


@SAFE_MASKS.register("edisp-bias")
def edisp_bias(
    observation: Observation,
    dataset: Dataset,
    *,
    percent: Percent = 10.0,
    position: SkyPosition | None = None,
    fixed_offset: PositiveAngle | None = None,
    irfs: Source = "DL4",
) -> Kept:
    """Energy bins above the energy where the bias of the reconstruction falls to a percentage.

    The bias is the mean of energy / energy_true - 1 of the dispersion kernel; from its maximum it is followed upward
    to the true energy where it falls to the percentage, and the threshold is that energy times 1 + percentage. Mean
    energies are those within the axis of reconstructed energy: an axis that cuts the kernels shifts the threshold.

    Parameters
    ----------
    observation, dataset
    percent : float
    position, fixed_offset, irfs
        As in `aeff_max`.
    """
    limit = percent / 100
    if irfs == "DL3":
        if observation.edisp is None:
            raise _missing(observation, "edisp_bias", "energy dispersion")
        axis = observation.edisp.axis("energy_true")
        offset = _offset(observation, position, fixed_offset).reshape(1)
        reco = axis.renamed("energy")
        kernel = dispersion_kernels(observation.edisp, axis, reco, offset)[..., 0]
    else:
        axis, reco = dataset.energy_true, dataset.energy
        kernel = _kernel(dataset, observation, position, fixed_offset)
    if not np.any(kernel > 0):
        return _nothing("the energy dispersion is zero at all energies")
    threshold = bias_threshold(kernel, axis, reco, limit)
    if threshold is not None and not np.isfinite(threshold):
        return _nothing(f"the bias of the energy nowhere falls to {percent:g} %")
    return Kept(_column(dataset.energy.contains_bin(threshold, None)))


@SAFE_MASKS.register("bkg-peak")
def bkg_peak(
    observation: Observation,
    dataset: Dataset,
    *,
    edge: Literal["lower", "upper"] = "lower",
    irfs: Source = "DL4",
) -> Kept:
    """Energy bins from an edge of the bin with the most expected background.

    Above its peak the background is nearly a power law. H.E.S.S. (arXiv:1910.08088) took the upper edge.

    Parameters
    ----------
    observation, dataset
    edge : 'lower' or 'upper'
        Whether the bin of the peak is kept.
    irfs : 'DL4' or 'DL3'
        The dataset's background over all its pixels, or the response over the whole field of view, on its own energies.
    """
    if irfs == "DL3":
        if observation.bkg is None:
            raise _missing(observation, "bkg_peak", "background response")
        axis, total = observation.bkg.axis("energy"), _rate_per_bin(observation.bkg)
    else:
        if not isinstance(dataset.background, ExpectedCounts):
            raise _missing(observation, "bkg_peak", "expected background")
        axis, total = dataset.energy, np.nan_to_num(dataset.background.counts.data).sum(axis=(1, 2))
    if not np.any(total > 0):
        return _nothing("the expected background is zero at all energies")
    peak = int(np.argmax(total)) + (edge == "upper")
    return Kept(_column(dataset.energy.contains_bin(axis.edges[peak], None)))


@SAFE_MASKS.register("energy-range")
def energy_range(
    observation: Observation, dataset: Dataset, *, min: Energy | None = None, max: Energy | None = None
) -> Kept:
    """Energy bins that lie whole between two reconstructed energies; without one of them that side is open."""
    if min is not None and max is not None and not min < max:
        raise InputError(f"safe mask energy_range: `min` ({min}) must be below `max` ({max})")
    return Kept(_column(dataset.energy.contains_bin(min, max)))


@SAFE_MASKS.register("offset-max")
def offset_max(observation: Observation, dataset: Dataset, *, offset_max: PositiveAngle) -> Kept:
    """Pixels closer to the pointing than ``offset_max``; for a spectrum its region's centre."""
    return Kept((dataset.geom.separation(observation.pointing) < offset_max.to_value(u.rad))[None])


def energy_reaching(axis: Axis, values: np.ndarray, level: float) -> u.Quantity | None:
    """First energy where values at the bin centres reach a level, in log-log between them; None if they start above it.

    Parameters
    ----------
    axis : Axis
    values : array, shape (n,)
        Not negative, their maximum at least the level.
    level : float
        Positive.
    """
    energy = axis.centers
    first = int(np.flatnonzero(values >= level)[0])
    if first == 0:
        return None
    low, high = values[first - 1], values[first]
    if low <= 0:
        # nothing to interpolate from: the lowest energy with an area
        return energy[first]
    part = np.log(level / low) / np.log(high / low)
    return energy[first - 1] * (energy[first] / energy[first - 1]).to_value("") ** part


def bias_threshold(kernel: np.ndarray, energy_true: Axis, energy: Axis, limit: float) -> u.Quantity | None:
    """Energy above which the mean of energy / energy_true - 1 is below a limit.

    Parameters
    ----------
    kernel : array, shape (n_true, n_energy)
        Not zero everywhere.
    energy_true, energy : Axis
    limit : float
        Positive.

    Returns
    -------
    threshold : Quantity or None
        True energy where the bias, followed upward from its maximum, falls to the limit, times 1 + limit; None if the
        bias nowhere exceeds it, infinite if it nowhere falls to it.
    """
    true, norm = energy_true.centers.to_value(u.TeV), kernel.sum(axis=1)
    reconstructed = kernel @ energy.centers.to_value(u.TeV)
    mean = np.divide(reconstructed, norm, out=np.zeros_like(norm), where=norm > 0)
    bias = mean / true - 1
    first = int(np.argmax(bias))
    if bias[first] <= limit:
        return None
    low = first + np.flatnonzero(bias[first:] <= limit)
    if not low.size:
        return np.inf * u.TeV
    # linear in the logarithms of both, between the last centre above the limit and the first one below it
    n = int(low[0])
    above, below = np.log(bias[n - 1]), np.log(max(bias[n], np.finfo(float).tiny))
    part = (np.log(limit) - above) / (below - above)
    return true[n - 1] * (true[n] / true[n - 1]) ** part * (1 + limit) * u.TeV


def _column(bins: np.ndarray) -> np.ndarray:
    return bins[:, None, None]


def _nothing(why: str) -> Kept:
    return Kept(np.zeros((1, 1, 1), dtype=bool), (f"{why}: no bin is kept",))


def _missing(observation: Observation, mask: str, what: str) -> InputError:
    return InputError(
        f"observation {observation.obs_id}: the safe mask `{mask}` needs the {what}, and there is none: leave the mask out"
    )


def _place(
    observation: Observation, position: SkyCoord | None, fixed_offset: u.Quantity | None
) -> SkyCoord | None:
    if position is not None and fixed_offset is not None:
        raise InputError("safe mask: give `position` or `fixed_offset`, not both")
    if fixed_offset is not None:
        return observation.pointing.directional_offset_by(0 * u.deg, fixed_offset)
    return position


def _offset(
    observation: Observation, position: SkyCoord | None, fixed_offset: u.Quantity | None
) -> u.Quantity:
    at = _place(observation, position, fixed_offset)
    return 0 * u.deg if at is None else at.separation(observation.pointing).to(u.deg)


def _dl4_place(
    dataset: Dataset, observation: Observation, position: SkyCoord | None, fixed_offset: u.Quantity | None
) -> SkyCoord:
    at = _place(observation, position, fixed_offset)
    if at is None:
        return dataset.geom.center
    if isinstance(dataset.geom, RegionGeometry):
        raise InputError(
            "safe mask: a spectrum has the responses of its region only: leave `position` and `fixed_offset` out, or set `irfs: DL3`"
        )
    if not dataset.geom.index(at.reshape(1))[2][0]:
        raise InputError(
            f"observation {observation.obs_id}: the place of a safe mask, ({at.icrs.ra.deg:.4f}, {at.icrs.dec.deg:.4f}) deg, lies off "
            "the map: change `position` or `fixed_offset`, or set `irfs: DL3`"
        )
    return at


def _at(
    dataset: Dataset, observation: Observation, position: SkyCoord | None, fixed_offset: u.Quantity | None
) -> np.ndarray:
    """Exposure at a place, bilinear between pixel centres; shape (n_true,)."""
    at = _dl4_place(dataset, observation, position, fixed_offset)
    data, geom = dataset.exposure.data, dataset.geom
    if isinstance(geom, RegionGeometry):
        return data[:, 0, 0]
    x, y = (float(v) for v in geom.pixel(at))
    n_lat, n_lon = geom.shape
    i, j = (int(np.clip(np.floor(v), 0, max(n - 2, 0))) for v, n in ((x, n_lon), (y, n_lat)))
    right, up = (float(np.clip(v - k, 0, 1)) for v, k in ((x, i), (y, j)))
    columns = (1 - right) * data[:, :, i] + right * data[:, :, min(i + 1, n_lon - 1)]
    return np.asarray((1 - up) * columns[:, j] + up * columns[:, min(j + 1, n_lat - 1)])


def _kernel(
    dataset: Dataset, observation: Observation, position: SkyCoord | None, fixed_offset: u.Quantity | None
) -> np.ndarray:
    """Dispersion kernel at the response pixel nearest to a place; shape (n_true, n_energy)."""
    if dataset.edisp is None:
        raise _missing(observation, "edisp_bias", "energy dispersion")
    edisp = dataset.edisp.edisp
    j, i = edisp.geom.nearest(_dl4_place(dataset, observation, position, fixed_offset))
    values = edisp.data[:, :, j, i]
    if dataset.edisp.is_kernel:
        return values
    return kernels_from_density(values, edisp.axes[1], dataset.energy_true, dataset.energy)


def _rate_per_bin(bkg: IrfTable) -> np.ndarray:
    """Rate of a background response over its field of view, in each of its energy bins."""
    values = np.nan_to_num(bkg.quantity.to_value("s-1 TeV-1 sr-1"))
    per_energy = values.reshape(len(values), -1)
    if bkg.kind == "bkg_2d":
        offset = bkg.axis("offset")
        edges = np.maximum(offset.edges.to_value(u.rad), 0.0)
        weights = 2 * np.pi * np.diff(-np.cos(edges))
    else:
        widths = [np.abs(bkg.axis(name).widths.to_value(u.rad)) for name in ("fov_lon", "fov_lat")]
        weights = np.multiply.outer(*widths).ravel()
    return np.asarray(per_energy @ weights * bkg.axis("energy").widths.to_value(u.TeV))
