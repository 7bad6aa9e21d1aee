"""Reshape: datasets of fewer energies, fewer or larger pixels, which predict the same counts.

Energy bins are merged over their safe part: counts and background outside the safe mask are dropped, a merged bin is safe
where any of its bins is, and the dispersion is summed over the safe ones, so that what is predicted in a safe bin is what
was predicted in its safe bins. The axis of true energy, the exposure and the point spread stay.
"""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import scipy
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons, OffCounts
from dl3flow.data.maps import EdispMap, Map
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.masks import pixels_on
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.sky import CutoutMode
from dl3flow.irf.edisp import kernels_from_density

# response maps are kept this many of their pixels beyond a cutout: the nearest to a source on its border
_MARGIN = 1

_Sum = Callable[[np.ndarray], np.ndarray]


def to_image(dataset: Dataset) -> Dataset:
    """Dataset with one bin over all energies; see `resample_energy`."""
    return resample_energy(dataset, Axis("energy", dataset.energy.edges[[0, -1]], dataset.energy.scale))


def resample_energy(dataset: Dataset, axis: Axis) -> Dataset:
    """Dataset on fewer energy bins, each made of whole bins; those beyond the new axis are left out.

    Parameters
    ----------
    dataset : Dataset
        With a known or a measured background. Measured ones are summed as in a stack: counts and acceptance add up, and
        acceptance_off is such that alpha n_off does too (without off counts: the alpha of the summed acceptances).
    axis : Axis
        ``energy``, whose edges are among those of the dataset.

    Returns
    -------
    merged : Dataset
        A density of dispersion becomes kernels. Bins that are safe, but of which the fit mask takes a part only, are
        told in ``meta["warnings"]``.

    Raises
    ------
    InputError
        If an edge is not among the dataset's.
    """
    at = dataset.energy.edge_index(axis.edges, f"dataset '{dataset.name}'")
    safe = dataset.mask_safe
    summed, any_of = _merging(at)

    def masked(values: np.ndarray) -> np.ndarray:
        return summed(np.where(safe, values, 0.0))

    counts = Map(dataset.geom, (axis,), masked(dataset.counts.data), dataset.counts.unit)
    mask_fit, warnings = dataset.mask_fit, list(dataset.meta.get("warnings", []))
    if mask_fit is not None:
        fitted = any_of(safe & mask_fit)
        partly = int(np.count_nonzero(fitted & any_of(safe & ~mask_fit)))
        if partly:
            warnings.append(
                f"dataset '{dataset.name}': {partly} merged energy bins hold bins in and bins off the fit range: they are fitted whole"
            )
        mask_fit = fitted
    reasons = dataset.reasons
    if reasons is not None:
        # a merged bin that is dropped, is so for all that drops its parts
        bits = np.bitwise_or.reduceat(reasons.bits[at[0] : at[-1]], at[:-1] - at[0], axis=0)
        reasons = MaskReasons(reasons.names, np.where(any_of(safe), 0, bits).astype(np.uint8))
    return replace(
        dataset,
        counts=counts,
        background=_summed_background(dataset, counts, masked),
        edisp=_merged_dispersion(dataset, axis, summed),
        mask_safe=any_of(safe),
        mask_fit=mask_fit,
        meta=dataset.meta
        if len(warnings) == len(dataset.meta.get("warnings", []))
        else {**dataset.meta, "warnings": warnings},
        reasons=reasons,
    )


def slice_energy(dataset: Dataset, low: u.Quantity | None, high: u.Quantity | None) -> Dataset:
    """Dataset with the energy bins that lie whole in [low, high], as they are; None is no limit.

    Raises
    ------
    InputError
        If no bin does.
    """
    kept = np.flatnonzero(dataset.energy.contains_bin(low, high))
    if not len(kept):
        edges = dataset.energy.edges
        raise InputError(
            f"dataset '{dataset.name}': no energy bin lies whole between {low} and {high}; its edges run from {edges[0]:.4g} to "
            f"{edges[-1]:.4g} in {dataset.energy.n_bins} bins"
        )
    part = slice(int(kept[0]), int(kept[-1]) + 1)
    axis = dataset.energy.part(part.start, part.stop)

    def cut(of: Map) -> Map:
        return replace(of, axes=(axis,), data=of.data[part])

    edisp = dataset.edisp
    if edisp is None or edisp.is_kernel:
        whole = _kernels(dataset)
        edisp = replace(
            whole,
            edisp=replace(whole.edisp, axes=(whole.edisp.axes[0], axis), data=whole.edisp.data[:, part]),
        )
    reasons = dataset.reasons
    return replace(
        dataset,
        counts=cut(dataset.counts),
        background=_each_map(dataset, cut),
        edisp=edisp,
        mask_safe=dataset.mask_safe[part],
        mask_fit=None if dataset.mask_fit is None else dataset.mask_fit[part],
        reasons=None if reasons is None else MaskReasons(reasons.names, reasons.bits[part]),
    )


def cutout(dataset: Dataset, center: SkyCoord, width: u.Quantity, mode: CutoutMode = "trim") -> Dataset:
    """Part of a dataset of ``width`` around a direction; a spectrum stays whole.

    The response maps keep one of their pixels more on each side, so that a source in the part finds the same responses.

    Parameters
    ----------
    dataset : Dataset
    center : SkyCoord
    width : Quantity
    mode : 'trim', 'partial' or 'strict'
        What is done where it reaches beyond the border: leave that out, fill it with empty bins that are not safe, or
        refuse it.

    Raises
    ------
    InputError
        If nothing is left, or with ``strict`` not all.
    """
    if isinstance(dataset.geom, RegionGeometry):
        return dataset
    whole = dataset.geom
    part = whole.cutout(center, width, mode=mode)

    def placed(values: np.ndarray) -> np.ndarray:
        return pixels_on(values, whole, part, 0)

    def moved(of: Map) -> Map:
        return replace(of, geom=part, data=placed(of.data))

    def response(of: Map) -> Map:
        margin = 2 * _MARGIN * of.sky.binsz * u.deg
        near = of.sky.cutout(center, width + margin)
        return replace(of, geom=near, data=pixels_on(of.data, of.sky, near, 0))

    psf, edisp, reasons = dataset.psf, dataset.edisp, dataset.reasons
    return replace(
        dataset,
        counts=moved(dataset.counts),
        background=_each_map(dataset, moved),
        exposure=moved(dataset.exposure),
        psf=psf and replace(psf, psf=response(psf.psf), exposure=response(psf.exposure)),
        edisp=edisp and replace(edisp, edisp=response(edisp.edisp), exposure=response(edisp.exposure)),
        mask_safe=placed(dataset.mask_safe),
        mask_fit=None if dataset.mask_fit is None else placed(dataset.mask_fit),
        reasons=reasons and MaskReasons(reasons.names, placed(reasons.bits)),
    )


def downsample(dataset: Dataset, factor: int) -> Dataset:
    """Dataset whose pixels are squares of ``factor`` x ``factor`` of the present ones.

    Counts and background are summed, the exposure is averaged. A pixel is safe where all of its parts are: a part of its
    area with the exposure of the whole would predict too much. Measured backgrounds are summed as in `resample_energy`;
    off counts that neighbouring pixels share, as rings do, then count more than once, which a sentence says.

    Raises
    ------
    InputError
        For a spectrum, or if the pixels do not come in such squares.
    """
    geom = dataset.counts.sky.downsampled(factor)
    shape = (*geom.shape, factor, factor)

    def blocks(values: np.ndarray) -> np.ndarray:
        n_lat, n_lon = geom.shape
        return np.swapaxes(values.reshape(*values.shape[:-2], n_lat, factor, n_lon, factor), -3, -2)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.asarray(blocks(values).sum(axis=(-2, -1)))

    safe = np.asarray(blocks(dataset.mask_safe).all(axis=(-2, -1)))
    counts = Map(
        geom, dataset.counts.axes, np.where(safe, summed(dataset.counts.data), 0.0), dataset.counts.unit
    )
    background = _summed_background(dataset, counts, lambda values: np.where(safe, summed(values), 0.0))
    meta = dict(dataset.meta)
    if isinstance(background, OffCounts) and factor > 1:
        meta["warnings"] = [
            *meta.get("warnings", []),
            f"dataset '{dataset.name}': off counts were summed over {factor} x {factor} pixels: events in the rings of several "
            "pixels count more than once; downsample before the background method",
        ]
    reasons = dataset.reasons
    if reasons is not None:
        bits = np.bitwise_or.reduce(
            blocks(reasons.bits).reshape(*reasons.bits.shape[:-2], *shape[:2], -1), axis=-1
        )
        reasons = MaskReasons(reasons.names, bits)
    return replace(
        dataset,
        counts=counts,
        background=background,
        exposure=replace(dataset.exposure, geom=geom, data=summed(dataset.exposure.data) / factor**2),
        mask_safe=safe,
        mask_fit=None
        if dataset.mask_fit is None
        else np.asarray(blocks(dataset.mask_fit).all(axis=(-2, -1))),
        meta=meta,
        reasons=reasons,
    )


def summed_off(off: OffCounts, like: Map, summed: _Sum) -> OffCounts:
    """Off counts of merged bins: counts and acceptance add up, and acceptance_off makes alpha n_off add up.

    Parameters
    ----------
    off : OffCounts
    like : Map
        With the axes and pixels of the result.
    summed : function (array) -> array
        Sum of values on the present bins over those that make up a merged one.
    """
    counts, acceptance, acceptance_off = (
        summed(part.data) for part in (off.counts, off.acceptance, off.acceptance_off)
    )
    expected = summed(off.alpha * off.counts.data)
    acceptance_off = merged_acceptance_off(counts, acceptance, acceptance_off, expected)
    return OffCounts(*(like.with_data(values) for values in (counts, acceptance, acceptance_off)))


def merged_acceptance_off(
    counts: np.ndarray, acceptance: np.ndarray, acceptance_off: np.ndarray, expected: np.ndarray
) -> np.ndarray:
    """Acceptance of merged off regions for which alpha n_off is the sum of the parts'; their sum without off counts.

    Parameters
    ----------
    counts, acceptance, acceptance_off, expected : array
        Sums over the parts of the off counts, the two acceptances, and alpha n_off.
    """
    measured = expected > 0
    return np.asarray(
        np.where(measured, acceptance * counts / np.where(measured, expected, 1.0), acceptance_off)
    )


def _summed_background(dataset: Dataset, like: Map, summed: _Sum) -> ExpectedCounts | OffCounts | None:
    match dataset.background:
        case ExpectedCounts(counts):
            return ExpectedCounts(like.with_data(summed(counts.data)))
        case OffCounts() as off:
            return summed_off(off, like, summed)
        case None:
            return None


def _each_map(dataset: Dataset, change: Callable[[Map], Map]) -> ExpectedCounts | OffCounts | None:
    match dataset.background:
        case ExpectedCounts(counts):
            return ExpectedCounts(change(counts))
        case OffCounts(counts, acceptance, acceptance_off):
            return OffCounts(change(counts), change(acceptance), change(acceptance_off))
        case None:
            return None


def _merging(at: np.ndarray) -> tuple[_Sum, _Sum]:
    """Sum and logical or over the bins between the edges ``at`` of the first axis."""
    part, starts = slice(int(at[0]), int(at[-1])), at[:-1] - at[0]
    return (
        lambda values: np.asarray(np.add.reduceat(values[part], starts, axis=0)),
        lambda mask: np.asarray(np.logical_or.reduceat(mask[part], starts, axis=0)),
    )


def _kernels(dataset: Dataset) -> EdispMap:
    """Dispersion in kernels, also where the dataset has a density, or none."""
    edisp = dataset.edisp
    if edisp is None:
        exposure = dataset.exposure if dataset.psf is None else dataset.psf.exposure
        if not dataset.energy_true.is_close(dataset.energy.renamed("energy_true")):
            raise InputError(
                f"dataset '{dataset.name}': it has no energy dispersion, and its axes of energy and energy_true differ: add one of the two"
            )
        n = dataset.energy.n_bins
        values = np.broadcast_to(np.eye(n)[:, :, None, None], (n, n, *exposure.geom.shape))
        return EdispMap(Map(exposure.geom, (dataset.energy_true, dataset.energy), values), exposure)
    if edisp.is_kernel:
        return edisp
    values = kernels_from_density(
        edisp.edisp.data, edisp.edisp.axis("migra"), dataset.energy_true, dataset.energy
    )
    return replace(edisp, edisp=replace(edisp.edisp, axes=(dataset.energy_true, dataset.energy), data=values))


def _merged_dispersion(dataset: Dataset, axis: Axis, summed: _Sum) -> EdispMap:
    whole = _kernels(dataset)
    safe = _safe_at(dataset, whole.edisp.geom)
    values = np.where(safe[None], whole.edisp.data, 0.0)
    merged = np.stack([summed(row) for row in values])
    return replace(whole, edisp=replace(whole.edisp, axes=(dataset.energy_true, axis), data=merged))


def _safe_at(dataset: Dataset, geom: Geometry) -> np.ndarray:
    """Safe energies at each response pixel, those of the nearest pixel with any; shape (n_energy, n_lat, n_lon).

    A source off the safe pixels still spills into them, so its dispersion must not vanish.
    """
    safe = dataset.mask_safe
    ever = np.asarray(safe.any(axis=0))
    if isinstance(geom, RegionGeometry) or isinstance(dataset.geom, RegionGeometry) or not ever.any():
        return (
            np.broadcast_to(safe[:, :1, :1], (len(safe), *geom.shape))
            if ever.any()
            else np.zeros((len(safe), *geom.shape), dtype=bool)
        )
    lon, lat = geom.lonlat
    x, y = dataset.geom.pixel(SkyCoord(lon * u.rad, lat * u.rad, frame=geom.frame))
    j, i = (
        np.clip(np.round(np.nan_to_num(v)), 0, n - 1).astype(int)
        for v, n in zip((y, x), ever.shape, strict=True)
    )
    rows, columns = scipy.ndimage.distance_transform_edt(~ever, return_distances=False, return_indices=True)
    return np.asarray(safe[:, rows[j, i], columns[j, i]])
