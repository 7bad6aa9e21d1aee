"""Images summed over energy and datasets, and their correlation with a circle: what sky-map estimators share."""

from collections.abc import Sequence
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult
from dl3flow.fit.npred import icrs_positions
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.convolve import convolve_same
from dl3flow.kernels.statistics import cash_ts


def common_geometry(datasets: Sequence[Dataset]) -> SkyGeometry:
    """Smallest geometry on the datasets' pixel grid that holds them all."""
    first = datasets[0].geom
    corners = [d.geom.offset_in(first) for d in datasets]
    rows = (
        min(r for r, _ in corners),
        max(r + d.geom.shape[0] for (r, _), d in zip(corners, datasets, strict=True)),
    )
    columns = (
        min(c for _, c in corners),
        max(c + d.geom.shape[1] for (_, c), d in zip(corners, datasets, strict=True)),
    )
    return first.part(rows, columns)


def summed_image(datasets: Sequence[Dataset], cubes: Sequence[np.ndarray], geom: SkyGeometry) -> np.ndarray:
    """Sum over datasets and energy of each dataset's cube within its mask; shape (n_lat, n_lon)."""
    image = np.zeros(geom.shape)
    for dataset, cube in zip(datasets, cubes, strict=True):
        here, there = geom.overlap(dataset.geom)
        image[here] += np.where(dataset.mask, cube, 0.0).sum(axis=0)[there]
    return image


def correlated(image: np.ndarray, radius: u.Quantity, binsz: float) -> np.ndarray:
    """Sum of an image over the pixels whose centre lies within ``radius`` of each pixel's; shape (n_lat, n_lon)."""
    reach = radius.to_value(u.deg) / binsz
    half = int(np.floor(reach + 1e-9))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = (np.hypot(x, y) <= reach + 1e-9).astype(float)
    return convolve_same(image, kernel)


def significance_maps(
    datasets: Sequence[Dataset], expected: Sequence[np.ndarray], radius: u.Quantity, name: str
) -> dict[str, Map]:
    """Correlated counts, expectation, their difference and its significance, as images.

    Parameters
    ----------
    datasets : sequence of Dataset
    expected : sequence of arrays
        Expected counts of each dataset, (n_energy, n_lat, n_lon).
    radius : Quantity
    name : str
        Of the expectation's map.

    Returns
    -------
    maps : dict of Map
        counts, ``name``, excess, sqrt_ts (signed root of the Cash test statistic); NaN outside all masks.
    """
    geom = common_geometry(datasets)
    covered = summed_image(datasets, [np.ones(d.counts.data.shape) for d in datasets], geom) > 0
    # counts are whole: rounding takes off the noise of the transform
    counts = np.rint(
        correlated(summed_image(datasets, [d.counts.data for d in datasets], geom), radius, geom.binsz)
    )
    model = np.maximum(correlated(summed_image(datasets, expected, geom), radius, geom.binsz), 0.0)
    excess = counts - model
    images = {
        "counts": counts,
        name: model,
        "excess": excess,
        "sqrt_ts": np.sign(excess) * np.sqrt(np.maximum(cash_ts(counts, model), 0.0)),
    }
    return {key: Map(geom, (), np.where(covered, image, np.nan)) for key, image in images.items()}


def map_meta(estimator: str, result: FitResult | None, radius: u.Quantity) -> dict[str, Any]:
    """Facts that belong to every sky map: where the sources are (icrs, deg) and over what circle it was summed."""
    return {
        "estimator": estimator,
        "source positions": {} if result is None else icrs_positions(result.models),
        "correlation_radius": float(radius.to_value(u.deg)),
    }
