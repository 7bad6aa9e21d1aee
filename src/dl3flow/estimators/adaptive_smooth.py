"""Estimator ``adaptive_smooth``: counts, background and flux, smoothed just as far as makes what is seen significant."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.estimators.images import common_geometry
from dl3flow.estimators.norms import Sigmas, lost_energies, point_meta, reference_columns, snapped_edges
from dl3flow.estimators.pixels import doubts_of
from dl3flow.estimators.registry import MAPS
from dl3flow.estimators.signals import expected_signal, placed_source, subtracted_sources
from dl3flow.fit.npred import icrs_positions, predict_counts
from dl3flow.geometry.axis import Axis, EnergyAxis, PositiveAngle
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.adaptive_smooth import gauss_kernel, smooth_adaptively
from dl3flow.kernels.convolve import circle_kernel
from dl3flow.models.source import Models
from dl3flow.models.written import WrittenSpectrum, written

_WHERE = "estimator adaptive_smooth"
_N_SCALES, _GROWTH = 9, np.sqrt(2)


@MAPS.register()
def adaptive_smooth(
    datasets: Sequence[Dataset],
    result: FitResult | None,
    *,
    scales: list[PositiveAngle] | None = None,
    kernel: Literal["gauss", "tophat"] = "gauss",
    method: Literal["lima", "asmooth"] = "lima",
    threshold: Sigmas = 5.0,
    energy: EnergyAxis | None = None,
    subtract: list[str] | None = None,
    spectral: WrittenSpectrum | None = None,
) -> SkyMap:
    """Smooth each pixel with the smallest kernel that holds a significance above ``threshold``. Ebeling et al. (2006).

    Parameters
    ----------
    datasets : sequence of Dataset
        On one pixel grid; their counts, backgrounds and exposures are summed. A measured background is taken as known.
    result : FitResult or None
        None takes the backgrounds as the reduction left them.
    scales : list of Quantity, or None
        Widths (sigma) of Gaussians or radii of circles, from small to large; None is nine, each the root of 2 larger than the
        one before, from the size of a pixel on.
    kernel : 'gauss' or 'tophat'
    method : 'lima' or 'asmooth'
        Significance by the likelihood, or the excess over the root of counts and background, equation 5 of the paper.
    threshold : float
    energy : Axis or None
        Bands, whose edges are moved to the nearest ones of the first dataset; None is one over all energies.
    subtract : list of str, or None
        Sources of the fit that count as background; None is none.
    spectral : Component or None
        Spectrum that counts become fluxes with, such as ``{type: power_law, index: 2.5}``; by default that with index 2.

    Returns
    -------
    sky : SkyMap
        counts and background (per pixel, means under the kernel), flux (cm-2 s-1 per pixel), scale (deg) and sqrt_ts. Where
        no kernel suffices, the means over all such pixels, and NaN for scale and sqrt_ts; NaN outside all masks.

    Raises
    ------
    InputError
        For an unknown source, or energies off those of the data.
    """
    geom = common_geometry([d.counts.sky for d in datasets])
    models = Models(()) if result is None else result.models
    chosen = subtracted_sources(subtract or [], [s.name for s in models.sources], None, _WHERE)
    source = placed_source(geom, result, None, spectral, None, _WHERE)
    known = replace(models, sources=tuple(s for s in models.sources if s.name in chosen))
    expected = [np.add(*predict_counts(d, known)) for d in datasets]
    signals = [expected_signal(d, source, models, None).weight for d in datasets]
    axis = datasets[0].energy
    edges = axis.edges[[0, -1]] if energy is None else snapped_edges(axis, energy.edges)
    columns = reference_columns(source, edges[:-1], edges[1:])
    widths = _widths(scales, geom)
    shape = gauss_kernel if kernel == "gauss" else circle_kernel
    kernels = [shape(width / geom.binsz) for width in widths]
    bands = []
    for low, high, flux in zip(edges[:-1], edges[1:], columns["ref_flux"].value, strict=True):
        band = (None, None) if energy is None else (low, high)
        keeps = [d.mask & d.energy.contains_bin(*band)[:, None, None] for d in datasets]
        cubes = ([d.counts.data for d in datasets], expected, signals, [np.ones(k.shape) for k in keeps])
        counts, background, signal, covered = (_summed(datasets, of, keeps, geom) for of in cubes)
        excess = np.divide(counts - background, signal, out=np.zeros(geom.shape), where=signal > 0)
        found = smooth_adaptively(
            counts, background, {"flux": excess * flux}, kernels, threshold, method, covered > 0
        )
        which = found.pop("kernel")
        found["scale"] = np.where(which < 0, np.nan, np.array(widths)[which])
        bands.append(found)
    axes = () if energy is None else (Axis("energy", edges, "log"),)
    units = {"flux": columns["ref_flux"].unit, "scale": u.deg}
    maps = {
        name: Map(
            geom,
            axes,
            np.stack([b[name] for b in bands]).reshape(*(a.n_bins for a in axes), *geom.shape),
            units.get(name, u.dimensionless_unscaled),
        )
        for name in ("counts", "background", "flux", "scale", "sqrt_ts")
    }
    measured = [d.name for d in datasets if isinstance(d.background, OffCounts)]
    told = point_meta("", 1.0, 2.0, edges, None if energy is None else energy.edges)["warnings"]
    told += [*doubts_of(datasets), *([] if energy is None else lost_energies(datasets, edges))]
    told += [f"the measured background of {', '.join(measured)} is taken as known"] * bool(measured)
    told += _unseen(bands, threshold)
    meta: dict[str, Any] = {
        "estimator": "adaptive_smooth",
        "source positions": icrs_positions(models),
        "spectral": written(source.spectral),
        "subtracted": chosen,
        "kernel": kernel,
        "method": method,
        "threshold": threshold,
        "scales": widths,
        "warnings": told,
    }
    return SkyMap(maps, meta)


def _widths(scales: Sequence[u.Quantity] | None, geom: SkyGeometry) -> list[float]:
    if scales is None:
        return [float(geom.binsz * _GROWTH**n) for n in range(_N_SCALES)]
    return sorted(float(scale.to_value(u.deg)) for scale in scales)


def _summed(
    datasets: Sequence[Dataset], cubes: Sequence[np.ndarray], keeps: Sequence[np.ndarray], geom: SkyGeometry
) -> np.ndarray:
    image = np.zeros(geom.shape)
    for dataset, cube, keep in zip(datasets, cubes, keeps, strict=True):
        here, there = geom.overlap(dataset.counts.sky)
        image[here] += np.add.reduce(cube, axis=0, where=keep, initial=0.0)[there]
    return image


def _unseen(bands: Sequence[dict[str, np.ndarray]], threshold: float) -> list[str]:
    """A sentence where no pixel of a band is significant."""
    empty = sum(bool(np.isnan(band["sqrt_ts"]).all()) for band in bands)
    return [f"no kernel holds {threshold:g} sigma anywhere in {empty} of {len(bands)} bands"] * bool(empty)
