"""Images summed over energy and datasets, their correlation with a circle and the significance of what is in it."""

from collections.abc import Callable, Sequence
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError
from dl3flow.fit.npred import icrs_positions
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.regions import AWAY, away_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.convolve import circle_kernel, convolve_same
from dl3flow.kernels.statistics import cash_ts, wstat
from dl3flow.reduce.reshape import merged_acceptance_off


def common_geometry(datasets: Sequence[Dataset]) -> SkyGeometry:
    """Smallest geometry on the datasets' pixel grid that holds them all."""
    first = datasets[0].counts.sky
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
        here, there = geom.overlap(dataset.counts.sky)
        image[here] += np.where(dataset.mask, cube, 0.0).sum(axis=0)[there]
    return image


def correlated(image: np.ndarray, radius: u.Quantity, binsz: float) -> np.ndarray:
    """Sum of images over the pixels whose centre lies within ``radius`` of each pixel's; shape (..., n_lat, n_lon)."""
    return convolve_same(image, circle_kernel(float(radius.to_value(u.deg)) / binsz))


def significance_maps(
    datasets: Sequence[Dataset],
    signal: Sequence[np.ndarray],
    background: Sequence[np.ndarray],
    radius: u.Quantity,
    name: str,
    *,
    correlate_off: bool = False,
) -> dict[str, Map]:
    """Correlated counts, expectation, their difference and its significance, as images.

    Parameters
    ----------
    datasets : sequence of Dataset
        All with a known background (Cash statistic), or all with a measured one (wstat).
    signal, background : sequence of arrays
        Expected counts of each dataset, (n_energy, n_lat, n_lon).
    radius : Quantity
    name : str
        Of the expectation's map.
    correlate_off : bool
        For measured backgrounds: whether off counts and their acceptance are summed over the circle too. False takes
        those of the pixel itself: rings around neighbouring pixels share their events, and a sum counts them many times.

    Returns
    -------
    maps : dict of Map
        counts, ``name``, excess, sqrt_ts (signed root of the test statistic against the expectation), for measured
        backgrounds counts_off, acceptance and acceptance_off too; NaN outside all masks.

    Raises
    ------
    InputError
        For known and measured backgrounds together, or spectra.
    """
    geom = common_geometry(datasets)
    is_measured = {isinstance(dataset.background, OffCounts) for dataset in datasets}
    if len(is_measured) > 1:
        raise InputError(
            f"datasets {', '.join(d.name for d in datasets)}: some have a known background and some a measured one, whose maps "
            "have no common significance: make a map of each kind"
        )

    def image(cubes: Sequence[np.ndarray]) -> np.ndarray:
        return summed_image(datasets, cubes, geom)

    def in_circle(values: np.ndarray) -> np.ndarray:
        total, pixels = correlated(np.stack([values, (values > 0).astype(float)]), radius, geom.binsz)
        # the sum of nothing is nothing: the transform leaves noise
        return np.where(np.rint(pixels) > 0, np.maximum(total, 0.0), 0.0)

    # counts are whole: rounding takes off the noise of the transform
    counts = np.rint(in_circle(image([d.counts.data for d in datasets])))
    expected_signal = in_circle(image(signal))
    images: dict[str, np.ndarray] = {}
    if is_measured == {True}:
        off = _off_images([d.background for d in datasets if isinstance(d.background, OffCounts)], image)
        off["acceptance"] = in_circle(off["acceptance"])
        if correlate_off:
            off["counts_off"] = np.rint(in_circle(off["counts_off"]))
            off["acceptance_off"] = in_circle(off["acceptance_off"])
        has_off = off["acceptance_off"] > 0
        alpha = np.where(has_off, off["acceptance"] / np.where(has_off, off["acceptance_off"], 1.0), 0.0)
        model = alpha * off["counts_off"] + expected_signal
        ts = np.where(alpha > 0, wstat(counts, off["counts_off"], alpha, expected_signal), np.nan)
        images = off
    else:
        model = in_circle(image(background)) + expected_signal
        ts = cash_ts(counts, model)
    excess = counts - model
    images = {
        "counts": counts,
        name: model,
        "excess": excess,
        "sqrt_ts": np.sign(excess) * np.sqrt(np.maximum(ts, 0.0)),
        **images,
    }
    covered = image([np.ones(d.counts.data.shape) for d in datasets]) > 0
    return {key: Map(geom, (), np.where(covered, values, np.nan)) for key, values in images.items()}


def _off_images(
    backgrounds: Sequence[OffCounts], image: Callable[[Sequence[np.ndarray]], np.ndarray]
) -> dict[str, np.ndarray]:
    """Off counts and acceptances summed over energy and datasets, by the rules of a stack."""
    counts, acceptance, acceptance_off, expected = (
        image(cubes)
        for cubes in (
            [b.counts.data for b in backgrounds],
            [b.acceptance.data for b in backgrounds],
            [b.acceptance_off.data for b in backgrounds],
            [b.alpha * b.counts.data for b in backgrounds],
        )
    )
    merged = merged_acceptance_off(counts, acceptance, acceptance_off, expected)
    return {"counts_off": counts, "acceptance": acceptance, "acceptance_off": merged}


def map_meta(
    estimator: str,
    result: FitResult | None,
    radius: u.Quantity,
    sqrt_ts: Map,
    exclusion: RegionGeometry | None,
) -> dict[str, Any]:
    """Facts that belong to every sky map.

    Parameters
    ----------
    estimator : str
    result : FitResult or None
    radius : Quantity
        Of the circle of correlation.
    sqrt_ts : Map
    exclusion : RegionGeometry or None
        Where the significance is not that of the background; by default within 0.3 deg of the fit's sources.

    Returns
    -------
    meta : dict
        Where the sources are (icrs, deg), the circle's radius, and the distribution of significance outside the exclusion:
        mean, width (standard deviation; 1 for a background that is right), number of pixels, and where.

    Raises
    ------
    InputError
        If the exclusion is a point.
    """
    positions = {} if result is None else icrs_positions(result.models)
    geom = sqrt_ts.sky
    if exclusion is not None and exclusion.is_point:
        raise InputError(f"exclusion: '{exclusion.text}' is a point, which excludes nothing: write a circle")
    usable = away_mask(geom, None if exclusion is None else exclusion.regions, positions)
    where = f"more than {AWAY:g} from sources" if positions else "all pixels"
    where = where if exclusion is None else f"outside {exclusion.text}"
    values = sqrt_ts.data[usable & np.isfinite(sqrt_ts.data)]
    return {
        "estimator": estimator,
        "source positions": positions,
        "correlation_radius": float(radius.to_value(u.deg)),
        "exclusion": None if exclusion is None else exclusion.text,
        "significance": {
            "where": where,
            "n": len(values),
            "mean": float(values.mean()) if len(values) else None,
            "width": float(values.std()) if len(values) else None,
        },
    }
