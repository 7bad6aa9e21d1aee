"""Where else a source could be: a score map over its allowed positions, so that a fit does not end in a side minimum."""

from collections.abc import Sequence
from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset
from dl3flow.fit.binding import bind, for_dataset
from dl3flow.fit.npred import exposure_of, frame_of, predict_counts, response_at, source_position
from dl3flow.kernels.convolve import convolve_same
from dl3flow.kernels.integrate import gauss_legendre_bins
from dl3flow.models.source import Models, Source
from dl3flow.units import ENERGY

SEARCH_RADIUS = 0.5 * u.deg
SEPARATION = 0.15 * u.deg


def best_position(
    datasets: Sequence[Dataset], models: Models, source: Source
) -> tuple[SkyCoord, float, float]:
    """Position within the source's limits at which the data ask most for a point source of its spectrum.

    The score statistic U^2 / I of adding the source (Rao 1948) is summed over the datasets on the pixels of the first:
    U = sum (n / mu - 1) s and I = sum s^2 / mu, with mu the prediction of all else. Where the background is measured,
    alpha n_off stands for it: the score only says where to start a fit.

    Parameters
    ----------
    datasets : sequence of Dataset
        Maps; at least one that sees the source.
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
    seen = [d for d in datasets if for_dataset(d.name, source.datasets)]
    geom = seen[0].counts.sky
    lon, lat = geom.lonlat
    grid = SkyCoord(lon * u.rad, lat * u.rad, frame=geom.frame)
    slope, information = np.zeros(geom.shape), np.zeros(geom.shape)
    for dataset in seen:
        u_map, i_map = _score(dataset, others, source)
        j, i, inside = dataset.geom.index(grid)
        j, i = np.where(inside, j, 0), np.where(inside, i, 0)
        slope += np.where(inside, u_map[j, i], 0.0)
        information += np.where(inside, i_map[j, i], 0.0)
    good = (slope > 0) & (information > 0)
    score = np.where(good, slope**2 / np.where(good, information, 1.0), 0.0)
    j0, i0 = geom.nearest(source_position(source))
    present = float(score[j0, i0])
    free = _allowed(grid, source)
    for other in others.sources:
        if other.spatial is None:
            continue
        # residuals of a bright source are no place for a neighbour
        free &= np.asarray(grid.separation(source_position(other)) > SEPARATION)
    allowed = np.where(free, score, -1.0)
    best = np.unravel_index(int(np.argmax(allowed)), score.shape)
    return grid[best], float(allowed[best]), present


def _score(dataset: Dataset, others: Models, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Slope and information of the likelihood in the source's strength, for every position; (n_lat, n_lon) each."""
    signal, background = predict_counts(dataset, others)
    mu = signal + background
    good = dataset.mask & (mu > 0)
    safe = np.where(good, mu, 1.0)
    response = response_at(dataset, source_position(source))
    spectral = bind(source, "spectral", {})
    points, weights = gauss_legendre_bins(dataset.energy_true.edges.to_value(ENERGY))
    flux = (weights * spectral.plugin.function(points, *spectral.start)).sum(axis=1)
    per_bin = flux * exposure_of(dataset, source.without_irf).max(axis=(1, 2))
    shape = response.kernels.shape[1:]
    kernels = ((response.edisp.T * per_bin) @ response.kernels.reshape(len(flux), -1)).reshape(-1, *shape)
    slope, information = np.zeros(mu.shape[1:]), np.zeros(mu.shape[1:])
    excess = np.where(good, dataset.counts.data / safe - 1, 0.0)
    inverse = np.where(good, 1 / safe, 0.0)
    for kernel, residual, weight in zip(kernels, excess, inverse, strict=True):
        # kernels are symmetric: convolution is correlation
        slope += convolve_same(residual, kernel)
        information += convolve_same(weight, kernel**2)
    return slope, np.maximum(information, 0.0)


def _allowed(grid: SkyCoord, source: Source) -> np.ndarray:
    at = source_position(source)
    keep = grid.separation(at) <= SEARCH_RADIUS
    sky = grid.transform_to(frame_of(source)).spherical
    bounded = False
    inside = np.ones(grid.shape, dtype=bool)
    for name, values in (("lon_0", sky.lon), ("lat_0", sky.lat)):
        parameter = source.parameter(name)
        if np.isfinite(parameter.min) and np.isfinite(parameter.max):
            bounded = True
            middle = 0.5 * (parameter.min + parameter.max) * parameter.unit
            width = 0.5 * (parameter.max - parameter.min) * parameter.unit
            inside &= np.abs(((values - middle).to_value(u.deg) + 180) % 360 - 180) <= width.to_value(u.deg)
    return inside if bounded else np.asarray(keep)
