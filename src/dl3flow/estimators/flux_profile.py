"""Estimator ``flux_profile``: excess and flux along a strip of boxes, or in rings around a place."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from dl3flow.data.dataset import Dataset
from dl3flow.data.products import FitResult, ProductTable
from dl3flow.errors import InputError
from dl3flow.estimators.images import common_geometry, lost_bins
from dl3flow.estimators.norms import TS_LIMIT, Sigmas, reference_columns
from dl3flow.estimators.pixels import (
    OffBins,
    PixelBins,
    Slope,
    chosen_edges,
    doubts_of,
    known_models,
    maps_only,
    pixel_bins,
    reference_source,
)
from dl3flow.estimators.registry import TABLES
from dl3flow.geometry.axis import EnergyAxis, PositiveAngle
from dl3flow.geometry.sky import SkyGeometry, SkyPosition
from dl3flow.kernels.norm import Bins, ExpectedBins, MeasuredBins, NormFit, fit_norm
from dl3flow.units import FLUX

_WHERE = "estimator flux_profile"
_MOST = 1000
_UNKNOWN = NormFit(*[np.nan] * 7)


def _number_of_bins(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise ValueError(f"expected a whole number from 1 to {_MOST}, found {value!r}")
    return value


@TABLES.register(of_maps=True)
def flux_profile(
    datasets: Sequence[Dataset],
    result: FitResult | None,
    *,
    center: SkyPosition,
    length: PositiveAngle,
    n_bins: Annotated[int, _number_of_bins],
    shape: Literal["boxes", "annuli"] = "boxes",
    width: PositiveAngle = 0.2 * u.deg,
    angle: Annotated[u.Quantity, u.deg] = 0 * u.deg,
    energy: EnergyAxis | None = None,
    correlate_off: bool = False,
    subtract: list[str] | None = None,
    index: Slope = 2.0,
    spectrum: str | None = None,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
) -> ProductTable:
    """Fit the flux in each of a row of boxes or rings, above the background of the reduction or of a fit.

    A pixel counts where its centre lies, so that each counts once. The flux of a box is taken to be spread evenly over it,
    and no point spread is applied: what leaves a box counts in its neighbour. Its spectrum is the reference's.

    Parameters
    ----------
    datasets : sequence of Dataset
        Fitted jointly; known and measured backgrounds may meet.
    result : FitResult or None
    center : SkyCoord
        Middle of the strip, or of the rings.
    length : Quantity
        Of the strip; the outer radius of the rings.
    n_bins : int
        Number of boxes or rings, of equal length or thickness.
    shape : 'boxes' or 'annuli'
    width : Quantity
        Of the strip, across it.
    angle : Quantity
        From north (ICRS) through east to the direction in which the distance grows.
    energy : Axis or None
        Bands, moved to the nearest edges of the data; each makes its own rows. By default all energies are one.
    correlate_off : bool
        Off counts of a box are the mean of those of its pixels, as for rings, which share events; True takes their sum.
    subtract, index, spectrum
        As in `excess_map`.
    n_sigma, n_sigma_ul : float

    Returns
    -------
    profile : ProductTable
        One row per band and box: distance (middle; of boxes signed), distance_min, distance_max, e_min, e_max, n_pixels,
        solid_angle, counts, background, excess, excess_err, flux, flux_err, flux_errn, flux_errp, flux_ul (cm-2 s-1 in the
        box), ts, sqrt_ts, is_ul.

    Raises
    ------
    InputError
        If no pixel lies in any box, a source is not in the fit, or the bands do not overlap the data.
    """
    maps = maps_only(datasets, _WHERE)
    models = known_models(result, subtract or [], f"{_WHERE}: subtract")
    reference = reference_source(result, spectrum, index, f"{_WHERE}: spectrum")
    edges = chosen_edges(maps, energy)
    bins = [pixel_bins(d, models, reference) for d in maps]
    places, steps = _places(center, length, width, angle, n_bins, shape)
    geom = common_geometry([own.geom for own in bins])
    covered = np.zeros(geom.shape, dtype=bool)
    for own in bins:
        here, there = geom.overlap(own.geom)
        inside = own.energy.contains_bin(edges[0], edges[-1])
        covered[here] |= own.mask[inside].any(axis=0)[there]
    at = np.where(covered, places(geom), -1)
    if not (at >= 0).any():
        raise InputError(
            f"{_WHERE}: no pixel in use lies in any of its {n_bins} {shape}: correct `center`, or make `length` or `width` larger"
        )
    area = geom.solid_angle.to_value(u.deg**2)
    rows: list[dict[str, Any]] = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        parts = [own.within(low, high) for own in bins]
        flux = float(
            reference_columns(reference, u.Quantity([low]), u.Quantity([high]))["ref_flux"][0].to_value(FLUX)
        )
        for k in range(n_bins):
            row = _row(parts, geom, at == k, flux, correlate_off, n_sigma, n_sigma_ul)
            place = {
                "distance": 0.5 * (steps[k] + steps[k + 1]),
                "distance_min": steps[k],
                "distance_max": steps[k + 1],
            }
            held = {"n_pixels": int((at == k).sum()), "solid_angle": area[at == k].sum() * u.deg**2}
            rows.append({**place, "e_min": low.to(u.TeV), "e_max": high.to(u.TeV), **held, **row})
    empty = int(sum(row["n_pixels"] == 0 for row in rows[:n_bins]))
    told = [f"{empty} of {n_bins} {shape} hold no pixel in use and have no values"] * bool(empty)
    thickness = float(length.to_value(u.deg)) / n_bins
    if thickness < geom.binsz * (1 - 1e-9):
        told.append(
            f"{shape} of {thickness:.3g} deg are thinner than the pixels of {geom.binsz:.3g} deg: make `n_bins` smaller"
        )
    columns = {key: _column([row[key] for row in rows]) for key in rows[0]}
    return ProductTable(
        "flux_profile",
        QTable(columns),
        {
            "shape": shape,
            "center": [float(center.icrs.ra.deg), float(center.icrs.dec.deg)],
            "width": float(width.to_value(u.deg)) if shape == "boxes" else None,
            "angle": float(angle.to_value(u.deg)) if shape == "boxes" else None,
            "reference": spectrum or f"power law of index {index:g}",
            "subtracted": subtract or [],
            "n_sigma": n_sigma,
            "n_sigma_ul": n_sigma_ul,
            "warnings": [*doubts_of(maps), *lost_bins(bins, edges), *told],
            "summary": [["excess in all", float(np.nansum(columns["excess"]))]],
        },
    )


def _column(values: list[Any]) -> Any:
    return u.Quantity(values) if isinstance(values[0], u.Quantity) else np.array(values)


def _places(
    center: SkyCoord, length: u.Quantity, width: u.Quantity, angle: u.Quantity, n_bins: int, shape: str
) -> tuple[Any, u.Quantity]:
    """Function from a geometry to the number of the box that holds each of its pixels, -1 for none; edges of the boxes."""
    size = float(length.to_value(u.deg))
    low, high = (0.0, size) if shape == "annuli" else (-size / 2, size / 2)
    edges = np.linspace(low, high, n_bins + 1)

    def places(geom: SkyGeometry) -> np.ndarray:
        if shape == "annuli":
            along, across = np.degrees(geom.separation(center)), np.zeros(geom.shape)
        else:
            west, north = (np.degrees(v) for v in geom.fov_lonlat(center))
            sin, cos = np.sin(angle.to_value(u.rad)), np.cos(angle.to_value(u.rad))
            along, across = -west * sin + north * cos, -west * cos - north * sin
        # pixel centres on an edge must not fall to one side or the other by rounding
        found = np.floor((along - low) / (size / n_bins) + 1e-9).astype(int)
        half = 0.5 * float(width.to_value(u.deg))
        inside = (
            (along >= low - 1e-9) & (found < n_bins) & (np.floor((across + half) / (2 * half) + 1e-9) == 0)
        )
        return np.where(inside, found, -1)

    return places, edges * u.deg


def _row(
    parts: Sequence[PixelBins],
    geom: SkyGeometry,
    inside: np.ndarray,
    flux: float,
    correlate_off: bool,
    n_sigma: float,
    n_sigma_ul: float,
) -> dict[str, Any]:
    """Counts and fitted flux of the pixels that are True."""
    n_pixels = int(inside.sum())
    counts = background = variance = 0.0
    fitted: list[Bins] = []
    for own in parts if n_pixels else ():
        here, there = geom.overlap(own.geom)
        use = own.mask[:, *there] & inside[here]
        if not use.any():
            continue
        n, known, expected, measured = _sums(own, use, there, correlate_off)
        assert own.per_norm is not None
        signal = own.per_norm[:, *there].sum(axis=(1, 2), where=use) / n_pixels
        used = use.any(axis=(1, 2))
        if measured is None:
            fitted.append(ExpectedBins(n[used], signal[used], (known + expected)[used]))
        else:
            n_off, alpha = measured
            used &= alpha > 0
            fitted.append(MeasuredBins(n[used], signal[used], known[used], n_off[used], alpha[used]))
            variance += float((alpha**2 * n_off)[used].sum())
        counts += float(n[used].sum())
        background += float((known + expected)[used].sum())
    excess = counts - background
    found = fit_norm(fitted, n_sigma, n_sigma_ul) if fitted else _UNKNOWN
    ts = max(found.ts, 0.0)
    is_known = bool(np.isfinite(found.norm))
    values = {"counts": counts, "background": background, "excess": excess}
    values["excess_err"] = n_sigma * float(np.sqrt(counts + variance))
    row: dict[str, Any] = {key: value if fitted else np.nan for key, value in values.items()}
    for key, norm in (
        ("flux", found.norm),
        ("flux_err", found.err * n_sigma),
        ("flux_errn", found.errn),
        ("flux_errp", found.errp),
        ("flux_ul", found.ul),
    ):
        row[key] = norm * flux * FLUX
    row["ts"] = ts if is_known else np.nan
    row["sqrt_ts"] = float(np.sign(found.norm) * np.sqrt(ts)) if is_known else np.nan
    row["is_ul"] = bool(not (ts >= TS_LIMIT and found.norm > 0))
    return row


def _sums(
    own: PixelBins, use: np.ndarray, there: tuple[slice, slice], correlate_off: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Counts, known signal and expected background per energy in some pixels; off counts and alpha where it is measured."""

    def total(cube: np.ndarray) -> np.ndarray:
        return np.asarray(cube[:, *there].sum(axis=(1, 2), where=use))

    counts = total(own.counts)
    known = np.zeros(len(counts)) if own.signal is None else total(own.signal)
    if not isinstance(own.background, OffBins):
        return counts, known, total(own.background), None
    off = own.background
    has_off = off.acceptance_off[:, *there] > 0
    n = np.maximum((use & has_off).sum(axis=(1, 2)), 1)
    share = np.ones(len(n)) if correlate_off else 1 / n
    n_off, acceptance_off = total(off.counts) * share, total(off.acceptance_off) * share
    acceptance = total(off.acceptance)
    alpha = np.divide(acceptance, acceptance_off, out=np.zeros(len(n)), where=acceptance_off > 0)
    return counts, known, alpha * n_off, (n_off, alpha)
