"""Where else a source could be: a score map over its allowed positions, so that a fit does not end in a side minimum."""

from collections.abc import Iterable
from dataclasses import replace

import astropy.units as u
import numpy as np
import scipy
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.fit.binding import bind
from dl3flow.fit.npred import (
    build_flux,
    energies_of_shape,
    exposure_of,
    frame_of,
    good_times,
    predict_counts,
    response_at,
    response_model,
    source_position,
    weigh_background,
)
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.pixels import PixelGrid, oversampling, pixel_fractions, radius
from dl3flow.models.source import Models, Source
from dl3flow.units import ENERGY

SEARCH_RADIUS = 0.5 * u.deg
SEPARATION = 0.15 * u.deg
# a template larger than this is looked for as one of this size
_LARGEST_RADIUS = np.radians(1.0)
_NOTHING = np.zeros(0)

Drawn = dict[tuple[SkyGeometry, int, bytes | None], np.ndarray]


def best_position(
    datasets: Iterable[Dataset], models: Models, source: Source
) -> tuple[SkyCoord, float, float]:
    """Position within the source's limits at which the data ask most for a source of its spectrum and shape.

    The score statistic U^2 / I of adding the source (Rao 1948) is summed over the datasets on the pixels of the first:
    U = sum (n / mu - 1) s and I = sum s^2 / mu, with mu the prediction of all else. Energies are added up with the
    weights of the spectrum before they are correlated with the source's mean image, and where the background is measured
    alpha n_off stands for it: the score only says where to start a fit.

    Parameters
    ----------
    datasets : iterable of Dataset
        Maps that see the source; at least one.
    models : Models
    source : Source

    Returns
    -------
    position : SkyCoord
        Of the largest score.
    score, present : float
        There, and at the source's present position.
    """
    others = replace(models, sources=tuple(s for s in models.sources if s.name != source.name))
    here = source_position(source)
    assert here is not None
    geom: SkyGeometry | None = None
    drawn: Drawn = {}
    for dataset in datasets:
        if geom is None:
            geom = _neighbourhood(dataset.counts.sky, source, here)
            slope, information = np.zeros(geom.shape), np.zeros(geom.shape)
        u_map, i_map = _score(dataset, geom, models, others, source, drawn)
        slope += u_map
        information += i_map
    assert geom is not None
    lon, lat = geom.lonlat
    grid = SkyCoord(lon * u.rad, lat * u.rad, frame=geom.frame)
    good = (slope > 0) & (information > 0)
    score = np.where(good, slope**2 / np.where(good, information, 1.0), 0.0)
    j0, i0 = geom.nearest(here)
    present = float(score[j0, i0])
    free = _allowed(grid, source, geom.binsz)
    for other in others.sources:
        at = None if other.spatial is None else source_position(other)
        if at is not None:
            # residuals of a bright source are no place for a neighbour
            free &= np.asarray(grid.separation(at) > SEPARATION)
    allowed = np.where(free, score, -1.0)
    best = np.unravel_index(int(np.argmax(allowed)), score.shape)
    return grid[best], float(allowed[best]), present


def _neighbourhood(geom: SkyGeometry, source: Source, here: SkyCoord) -> SkyGeometry:
    """Pixels around all allowed positions; the whole map where they are not near its own pixels."""
    reach = SEARCH_RADIUS
    for name in ("lon_0", "lat_0"):
        p = source.parameter(name)
        if np.isfinite(p.min) and np.isfinite(p.max):
            reach = max(reach, max(abs(p.value - p.min), abs(p.max - p.value)) * p.unit)
    half = int(np.ceil(reach.to_value(u.deg) / geom.binsz)) + 1
    x, y = geom.pixel(here)
    if not (np.isfinite(x) and np.isfinite(y)):
        return geom
    j, i = geom.nearest(here)
    rows = (max(j - half, 0), min(j + half + 1, geom.shape[0]))
    columns = (max(i - half, 0), min(i + half + 1, geom.shape[1]))
    return geom.part(rows, columns)


def _score(
    dataset: Dataset, geom: SkyGeometry, models: Models, others: Models, source: Source, drawn: Drawn
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and information of the likelihood in the source's strength at the pixels of ``geom``."""
    response = response_at(dataset, source_position(source) or dataset.counts.sky.center, source.without_irf)
    per_energy, mean = _image(dataset, response.kernels, response.edisp, models, source, drawn)
    half = mean.shape[0] // 2
    rows, columns, inside = _pixels(dataset.counts.sky, geom, half)
    flat = (slice(None), rows, columns)
    counts, mask = dataset.counts.data[flat], dataset.mask[flat] & inside
    if others.sources:
        signal, background = predict_counts(dataset, others)
        mu = (signal + background)[flat]
    else:
        mu = np.zeros(mask.shape)
        for part, weight in weigh_background(dataset, models, {}):
            values = dataset.mu_bkg[flat] if part is None else part[flat]
            mu += values * weight(_NOTHING).value[:, None, None]
    good = mask & (mu > 0)
    inverse = np.divide(1.0, mu, out=np.zeros(mu.shape), where=good)
    excess = np.einsum("e,eyx->yx", per_energy, np.where(good, counts * inverse - 1, 0.0))
    weight_map = np.einsum("e,eyx->yx", per_energy**2, inverse)
    return _correlated(excess, mean), np.maximum(_correlated(weight_map, mean**2), 0.0)


def _image(
    dataset: Dataset, kernels: np.ndarray, edisp: np.ndarray, models: Models, source: Source, drawn: Drawn
) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts of the source per energy, and its mean image, which sums to one; odd size."""
    edges = dataset.energy_true.edges.to_value(ENERGY)
    response = response_model(dataset.name, models)
    flux = build_flux(models, source, {}, edges, response, good_times(dataset, source))(_NOTHING).value
    at = source_position(source)
    assert at is not None
    j, i = dataset.counts.sky.nearest(at)
    near = exposure_of(dataset, source.without_irf, slice(j, j + 1), slice(i, i + 1))[:, 0, 0]
    if not near.any():
        near = exposure_of(dataset, source.without_irf).max(axis=(1, 2))
    per_true = flux * near
    per_energy = edisp.T @ per_true
    used = dataset.mask.any(axis=(1, 2))
    weights = per_true * (edisp @ used)
    total = weights.sum()
    mean = np.einsum("t,tyx->yx", weights / total if total else np.full(len(flux), 1 / len(flux)), kernels)
    template = _template(dataset, source, drawn)
    if template.shape != (1, 1):
        shape = [m + n - 1 for m, n in zip(mean.shape, template.shape, strict=True)]
        length = [scipy.fft.next_fast_len(n, real=True) for n in shape]
        both = scipy.fft.rfft2(mean, s=length) * scipy.fft.rfft2(template, s=length)
        mean = scipy.fft.irfft2(both, s=length)[: shape[0], : shape[1]]
    return np.where(used, per_energy, 0.0), np.maximum(mean, 0.0)


def _template(dataset: Dataset, source: Source, drawn: Drawn) -> np.ndarray:
    """Shape of the source around the middle of an odd square of pixels; one pixel for a point.

    ``drawn`` takes those of pixels that further datasets may have too.
    """
    spatial, geom = bind(source, "spatial", {}), dataset.counts.sky
    energy = energies_of_shape(dataset, spatial.plugin)
    extent = min(radius(spatial.plugin, spatial.start, energy), _LARGEST_RADIUS)
    half = int(np.ceil(0.7 * np.degrees(extent) / geom.binsz))
    if half < 1:
        return np.ones((1, 1))
    x, y = geom.pixel_at(spatial.start[0], spatial.start[1], frame_of(source))
    if not (np.isfinite(x) and np.isfinite(y)):
        return np.ones((1, 1))
    j, i = round(y), round(x)
    window = geom.part((j - half, j + half + 1), (i - half, i + half + 1))
    factor = oversampling(spatial.plugin, spatial.start, geom, energy)
    pixels = replace(window, crpix=(round(window.crpix[0], 6), round(window.crpix[1], 6)), corner=(0, 0))
    key = (pixels, factor, None if energy is None else energy.tobytes())
    if key not in drawn:
        shares = pixel_fractions(
            spatial.plugin, spatial.start, PixelGrid.create(pixels, factor, frame_of(source)), energy
        )
        drawn[key] = shares if shares.ndim == 2 else shares.mean(axis=0)
    return drawn[key]


def _pixels(
    sky: SkyGeometry, geom: SkyGeometry, half: int
) -> tuple[np.ndarray | slice, np.ndarray | slice, np.ndarray]:
    """Rows and columns of a map at the pixels of ``geom`` and ``half`` more on each side, and whether they are on the map."""
    try:
        row, column = geom.offset_in(sky)
    except InputError:
        wide = geom.part((-half, geom.shape[0] + half), (-half, geom.shape[1] + half))
        lon, lat = wide.lonlat
        rows, columns, inside = sky.index(SkyCoord(lon * u.rad, lat * u.rad, frame=wide.frame))
    else:
        (j, j_end), (i, i_end) = (
            (first - half, first + n + half) for first, n in zip((row, column), geom.shape, strict=True)
        )
        if j >= 0 and i >= 0 and j_end <= sky.shape[0] and i_end <= sky.shape[1]:
            return slice(j, j_end), slice(i, i_end), np.ones((j_end - j, i_end - i), dtype=bool)
        y, x = np.arange(j, j_end), np.arange(i, i_end)
        rows, columns = np.broadcast_arrays(y[:, None], x)
        inside = (rows >= 0) & (rows < sky.shape[0]) & (columns >= 0) & (columns < sky.shape[1])
    return np.where(inside, rows, 0), np.where(inside, columns, 0), inside


def _correlated(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation where the kernel lies whole within the image: what wraps around on a grid of its size is elsewhere."""
    length = [scipy.fft.next_fast_len(n, real=True) for n in image.shape]
    transform = scipy.fft.rfft2(image, s=length) * scipy.fft.rfft2(kernel, s=length).conj()
    rows, columns = (n - k + 1 for n, k in zip(image.shape, kernel.shape, strict=True))
    return np.asarray(scipy.fft.irfft2(transform, s=length)[:rows, :columns])


def _allowed(grid: SkyCoord, source: Source, binsz: float) -> np.ndarray:
    at = source_position(source)
    assert at is not None
    on_line = np.ones(grid.shape, dtype=bool)
    sky = grid.transform_to(frame_of(source)).spherical
    for name, values, shrunk in (("lon_0", sky.lon, np.cos(sky.lat)), ("lat_0", sky.lat, 1.0)):
        parameter = source.parameter(name)
        if parameter.frozen:
            away = ((values - parameter.quantity).to_value(u.deg) + 180) % 360 - 180
            on_line &= np.abs(away * shrunk) <= 0.5 * binsz
    bounded = False
    inside = np.ones(grid.shape, dtype=bool)
    for name, values in (("lon_0", sky.lon), ("lat_0", sky.lat)):
        parameter = source.parameter(name)
        if not parameter.frozen and np.isfinite(parameter.min) and np.isfinite(parameter.max):
            bounded = True
            middle = 0.5 * (parameter.min + parameter.max) * parameter.unit
            width = 0.5 * (parameter.max - parameter.min) * parameter.unit
            inside &= np.abs(((values - middle).to_value(u.deg) + 180) % 360 - 180) <= width.to_value(u.deg)
    return on_line & (inside if bounded else grid.separation(at) <= SEARCH_RADIUS)
