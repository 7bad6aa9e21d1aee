"""What a source of one spectrum and shape would add to the counts, wherever on the map it is centred.

Its expected counts in a bin k of reconstructed energy, at x, for a centre at y, are taken as a product (the peer's too),

    s[k, x] = K[k](x - y) W[k, x],   W[k, x] = sum_E edisp[E, k] exposure[E, x] flux[E],

with the responses at the middle of the map: K is the source's shape through the point spread, averaged over true energies
with what each adds to the bin there, and its sum is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError, choices
from dl3flow.estimators.norms import find_source
from dl3flow.fit.binding import bind
from dl3flow.fit.npred import (
    build_flux,
    exposure_of,
    good_times,
    predict_counts,
    response_at,
    response_model,
    response_pixel,
)
from dl3flow.fit.template import place_window
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.convolve import convolve_same
from dl3flow.kernels.ts_map import SignalBins
from dl3flow.models.pixels import PixelGrid, depends_on_energy, oversampling, pixel_fractions
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.units import ENERGY

KernelMean = Literal["counts", "plain"]
_NOTHING = np.zeros(0)
_POWER_LAW = Component(
    "power_law",
    (
        Parameter("amplitude", 1e-12, u.Unit("cm-2 s-1 TeV-1"), frozen=True),
        Parameter("index", 2.0, frozen=True),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    ),
)


def placed_source(
    geom: SkyGeometry,
    result: FitResult | None,
    like: str | None,
    spectral: Component | None,
    spatial: Component | None,
    where: str,
) -> Source:
    """Source whose strength a map gives, on the pixel in the middle of the map.

    Parameters
    ----------
    geom : SkyGeometry
    result : FitResult or None
    like : str or None
        Source of the fit whose spectrum, shape and course in time it has.
    spectral, spatial : Component or None
        In their place; by default, without ``like``, a power law of index 2 and a point.
    where : str
        What an error names.

    Raises
    ------
    InputError
        If the fit has no such source, or its shape cannot be moved.
    """
    model = None
    if like is not None:
        if result is None:
            raise InputError(
                f"{where}: `like: {like}` names a source of a fit: give `fit` instead of `reduction`, or write `spectral` and `spatial`"
            )
        model = find_source(result, like, where)
    spectral = spectral or (model.spectral if model is not None else _POWER_LAW)
    spatial = spatial or (None if model is None else model.spatial)
    if spatial is None:
        spatial = Component("point", (Parameter("lon_0", 0.0, u.deg), Parameter("lat_0", 0.0, u.deg)))
    if not {"lon_0", "lat_0"} <= {p.name for p in spatial.parameters}:
        raise InputError(f"{where}: the shape '{spatial.kind}' has no place that could vary: write `spatial`")
    at = middle(geom)
    placed = {"lon_0": at.spherical.lon.deg, "lat_0": at.spherical.lat.deg}
    parameters = tuple(
        Parameter(p.name, float(placed[p.name]), u.deg, frozen=True) if p.name in placed else p
        for p in spatial.parameters
    )
    placed_shape = replace(spatial, parameters=parameters, options={**spatial.options, "frame": geom.frame})
    if model is None:
        return Source("reference", spectral, placed_shape)
    return replace(model, name="reference", spectral=spectral, spatial=placed_shape, datasets=None)


def subtracted_sources(
    asked: Sequence[str] | None, names: Sequence[str], like: str | None, where: str
) -> list[str]:
    """Sources of a fit that count as background: those asked for, by default (None) all but ``like``.

    Raises
    ------
    InputError
        If the fit has no source of that name.
    """
    if asked is None:
        return [name for name in names if name != like]
    for name in asked:
        if name not in names:
            raise InputError(
                f"{where}: `subtract` names '{name}', which is no source of the fit {choices(name, names)}"
            )
    return list(asked)


def middle(geom: SkyGeometry) -> SkyCoord:
    """Direction of the centre of the pixel in the middle of a map."""
    j, i = (n // 2 for n in geom.shape)
    lon, lat = geom.wcs.all_pix2world(i, j, 0)
    return SkyCoord(lon * u.deg, lat * u.deg, frame=geom.frame)


def known_counts(dataset: Dataset, result: FitResult | None, known: Sequence[str]) -> np.ndarray:
    """Expected counts beside the source that is looked for: the background and the known sources of the fit.

    Parameters
    ----------
    dataset : Dataset
    result : FitResult or None
        None takes the background as the reduction left it.
    known : sequence of str
        Names of those sources.

    Returns
    -------
    counts : array, shape (n_energy, n_lat, n_lon)

    Raises
    ------
    InputError
        For a measured background.
    """
    if isinstance(dataset.background, OffCounts):
        raise InputError(
            f"dataset '{dataset.name}': its background is measured in off regions, and a map of fitted strengths needs an expected one: "
            "reduce with the background `fov` or `acceptance`, or take an `excess_map`"
        )
    models = Models(()) if result is None else result.models
    models = replace(models, sources=tuple(s for s in models.sources if s.name in known))
    signal, background = predict_counts(dataset, models)
    return np.asarray(signal + background)


@dataclass(frozen=True, eq=False)
class Signal:
    """Expected counts of a source of norm one in one dataset, centred anywhere.

    Attributes
    ----------
    weight : array, shape (n_energy, n_lat, n_lon)
        W of the module's formula.
    kernels : array, shape (n_energy, k, k)
    at_middle : array, shape (n_energy,)
        W in the middle of the map.
    """

    weight: np.ndarray
    kernels: np.ndarray
    at_middle: np.ndarray


def expected_signal(
    dataset: Dataset, source: Source, models: Models, kernel_width: u.Quantity | None
) -> Signal:
    """Signal of a source in the middle of the map.

    Parameters
    ----------
    dataset : Dataset
    source : Source
    models : Models
        Of which the systematic errors of the responses apply.
    kernel_width : Quantity or None
        Beyond half of it kernels are cut off, and scaled to one again; None keeps all that the point spread holds.
    """
    spatial = source.spatial
    assert spatial is not None
    position = SkyCoord(spatial["lon_0"].quantity, spatial["lat_0"].quantity, frame=spatial.options["frame"])
    edges = dataset.energy_true.edges.to_value(ENERGY)
    scales, times = response_model(dataset.name, models), good_times(dataset, source)
    flux = build_flux(models, source, {}, edges, scales, times)(_NOTHING).value
    response = response_at(dataset, position, source.without_irf)
    exposure = exposure_of(dataset, source.without_irf)
    matrix = response.edisp.T * flux
    j, i = response_pixel(dataset.counts.sky, exposure, position)
    by_true = matrix * exposure[:, j, i]
    shares = _smeared_shape(dataset, source, response.kernels)
    kernels = np.tensordot(by_true, shares, (1, 0))
    kernels = np.maximum(_cut(kernels, kernel_width, dataset.counts.sky.binsz), 0.0)
    total = kernels.sum(axis=(1, 2), keepdims=True)
    kernels = np.divide(kernels, total, out=np.zeros_like(kernels), where=total > 0)
    weight = np.tensordot(matrix, exposure, (1, 0))
    return Signal(weight, kernels, by_true.sum(axis=1))


def _smeared_shape(dataset: Dataset, source: Source, kernels: np.ndarray) -> np.ndarray:
    """Shape through point spread by true energy, its middle in the middle; shape (n_true, k, k)."""
    spatial = bind(source, "spatial", {})
    if spatial.plugin.companions.get("is_point"):
        return kernels
    geom = dataset.counts.sky
    energy = dataset.energy_true.centers.to_value(ENERGY) if depends_on_energy(spatial.plugin) else None
    window = place_window(geom, spatial, geom.frame, energy)
    assert window is not None
    half = kernels.shape[-1] // 2
    around = window.geom.part((-half, window.shape[0] + half), (-half, window.shape[1] + half))
    grid = PixelGrid.create(around, oversampling(spatial.plugin, spatial.start, geom, energy), geom.frame)
    template = np.broadcast_to(
        pixel_fractions(spatial.plugin, spatial.start, grid, energy), (len(kernels), *around.shape)
    )
    return np.stack([convolve_same(t, k) for t, k in zip(template, kernels, strict=True)])


def _cut(kernels: np.ndarray, width: u.Quantity | None, binsz: float) -> np.ndarray:
    half = kernels.shape[-1] // 2
    if width is None:
        return kernels
    cut = half - min(int(np.floor(float(width.to_value(u.deg)) / (2 * binsz) + 1e-9)), half)
    return kernels[:, cut : kernels.shape[1] - cut, cut : kernels.shape[2] - cut]


def signal_bins(
    datasets: Sequence[Dataset],
    signals: Sequence[Signal],
    known: Sequence[np.ndarray],
    keeps: Sequence[np.ndarray],
    geom: SkyGeometry,
    is_summed: bool,
    kernel_mean: KernelMean,
) -> SignalBins:
    """Bins of several datasets on one geometry.

    Parameters
    ----------
    datasets, signals : sequence
    known : sequence of array, shape (n_energy, n_lat, n_lon)
        Expected counts beside the source.
    keeps : sequence of bool array of that shape
        Bins that are used.
    geom : SkyGeometry
        Holds the maps of all datasets.
    is_summed : bool
        Whether the energies of a dataset are summed to one image.
    kernel_mean : 'counts' or 'plain'
        How the kernels of summed energies are averaged, over those that are used in a pixel: by their expected counts in the
        middle of the map, or all alike.
    """
    half = max(signal.kernels.shape[-1] // 2 for signal in signals)
    cubes: list[list[np.ndarray]] = [[], [], []]
    kernels: list[np.ndarray] = []
    index: list[np.ndarray] = []
    for dataset, signal, expected, keep in zip(datasets, signals, known, keeps, strict=True):
        used = np.flatnonzero(keep.any(axis=(1, 2)))
        kept = keep[used]
        own = [np.where(kept, of[used], 0.0) for of in (dataset.counts.data, expected, signal.weight)]
        which = np.broadcast_to(np.arange(len(used))[:, None, None], kept.shape)
        shapes = signal.kernels[used]
        if is_summed and len(used):
            own = [of.sum(axis=0, keepdims=True) for of in own]
            weights = signal.at_middle[used] if kernel_mean == "counts" else np.ones(len(used))
            shapes, which = _mean_kernels(shapes, weights, kept)
        margin = half - shapes.shape[-1] // 2
        here, there = geom.overlap(dataset.counts.sky)
        for cube, of in zip(cubes, own, strict=True):
            cube.append(_placed(of, geom, here, there))
        index.append(_placed(which + sum(len(k) for k in kernels), geom, here, there))
        kernels.append(np.pad(shapes, ((0, 0), (margin, margin), (margin, margin))))
    counts, background, weight = (np.concatenate(cube) for cube in cubes)
    return SignalBins(counts, background, weight, np.concatenate(kernels), np.concatenate(index))


def _mean_kernels(
    kernels: np.ndarray, weights: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean kernel for each set of energies that are used together, and which of them a pixel has."""
    # each set of energies as one number of as many bytes as it takes
    packed = np.ascontiguousarray(np.packbits(kept.reshape(len(kernels), -1), axis=0).T)
    sets, which = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_inverse=True)
    flags = sets.view(np.uint8).reshape(len(sets), -1)
    shares = np.unpackbits(flags, axis=1, count=len(kernels)).T * weights[:, None]
    total = shares.sum(axis=0)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    return np.tensordot(shares.T, kernels, (1, 0)), which.reshape(1, *kept.shape[1:])


def _placed(
    values: np.ndarray, geom: SkyGeometry, here: tuple[slice, slice], there: tuple[slice, slice]
) -> np.ndarray:
    placed = np.zeros((len(values), *geom.shape), dtype=values.dtype)
    placed[:, here[0], here[1]] = values[:, there[0], there[1]]
    return placed
