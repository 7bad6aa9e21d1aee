"""Estimator ``find_sources``: peaks of significance that no source of the fit explains, each placed by a fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, ProductTable, SkyMap
from dl3flow.estimators.images import Circle, significance_maps
from dl3flow.estimators.norms import Sigmas, lost_energies, reference_columns
from dl3flow.estimators.pixels import (
    Slope,
    chosen_edges,
    doubts_of,
    known_models,
    maps_only,
    pixel_bins,
    reference_source,
)
from dl3flow.estimators.registry import TABLES
from dl3flow.estimators.ts_map import ts_map
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import icrs_positions
from dl3flow.geometry.axis import EnergyRange, PositiveAngle
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.peaks import find_peaks
from dl3flow.kernels.significance import chi2_sigma
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.units import DNDE, FLUX

_WHERE = "estimator find_sources"
# an amplitude to start from where the map's flux is not known
_FAINT = 1e-14
# half-axis of an ellipse that holds 68.27 % of a Gaussian on a plane, in standard deviations
_ELLIPSE = float(np.sqrt(-2 * np.log(1 - 0.6826894921370859)))


def _number_of_sources(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
        raise ValueError(f"expected a whole number from 1 to 1000, found {value!r}")
    return value


@dataclass(frozen=True, eq=False)
class _Peak:
    """A peak of the map: where it is, how significant, its flux in the circle over the reference's (NaN: unknown), its name."""

    position: SkyCoord
    sqrt_ts: float
    norm: float
    name: str = ""


@TABLES.register(of_maps=True)
def find_sources(
    datasets: Sequence[Dataset],
    result: FitResult | None,
    *,
    correlation_radius: PositiveAngle = 0.1 * u.deg,
    peaks_of: Literal["excess", "ts"] = "excess",
    threshold: Sigmas = 5.0,
    min_distance: PositiveAngle = 0.2 * u.deg,
    max_sources: Annotated[int, _number_of_sources] = 20,
    localise: bool = True,
    energy: EnergyRange | None = None,
    correlate_off: bool = False,
    index: Slope = 2.0,
) -> ProductTable:
    """Find point-like excesses above the background of a reduction, or above all that a fit predicts.

    The highest peak of the map of significance is fitted as a point with a power law, everything else fixed; its prediction
    joins the background, and the search goes on in what remains, so that the tail of a bright source is no second one. At
    the end all that was found is fitted together.

    Parameters
    ----------
    datasets : sequence of Dataset
        Fitted jointly; all with a known background, or all with a measured one.
    result : FitResult or None
    correlation_radius : Quantity
        Of the circle whose significance is that of its middle.
    peaks_of : 'excess' or 'ts'
        The map in which peaks are looked for: the significance of what is in the circle, or the root of the test statistic of
        a point source (`ts_map`), which finds fainter ones and takes longer.
    threshold : float
        Significance of a peak, before trials.
    min_distance : Quantity
        Of peaks from each other, and from sources found before.
    max_sources : int
    localise : bool
        False lists all peaks of the first map, and fits none.
    energy : Axis or None
        Range, moved to the nearest edges of the data.
    correlate_off : bool
        As in `excess_map`.
    index : float
        Of the power law.

    Returns
    -------
    sources : ProductTable
        One row per source, in the order of their peaks: name, ra, dec (ICRS), ra_err, dec_err (standard deviations on the
        sky), error_major, error_minor (half-axes of the ellipse of 68 %), error_angle (of the major one, from north through
        east), ts (against no such source, its place and flux free), sigma (as deviations of a Gaussian variable, 3 degrees
        of freedom), flux and flux_err (in the range of energies), peak_ra, peak_dec, peak_sqrt_ts, nearest (source of the
        fit) and separation from it, is_fitted. What is not fitted is NaN.

    Raises
    ------
    InputError
        If known and measured backgrounds meet, the energies do not overlap the data, or a measured background is to have a map
        of test statistics.
    """
    maps = maps_only(datasets, _WHERE)
    edges = chosen_edges(maps, energy)
    told = lost_energies(maps, edges)
    maps = [_within(d, edges[0], edges[-1]) for d in maps]
    known = known_models(result, None, _WHERE)
    start = _all_frozen(known)
    taken = {s.name for s in known.sources}
    asked = Circle(correlation_radius, correlate_off)
    reference = reference_source(None, None, index, _WHERE)
    flux = float(reference_columns(reference, edges[:1], edges[-1:])["ref_flux"][0].to_value(FLUX))
    models = start
    peaks: list[_Peak] = []
    told += doubts_of(maps)
    final: FitResult | None = None
    while len(peaks) < max_sources:
        found = _searched(maps, models, reference, asked, peaks_of)
        places = [SkyCoord(*at, unit="deg") for at in icrs_positions(_own(models, taken)).values()]
        avoided = [*places, *(p.position for p in peaks)]
        seen = _peaks_of(found, flux, threshold, min_distance, avoided)
        if not seen:
            break
        if not localise:
            peaks = [replace(p, name=_new_name(n + 1, taken)) for n, p in enumerate(seen[:max_sources])]
            told += [f"{len(seen) - max_sources} more peaks are left out: raise `max_sources`"] * (
                len(seen) > max_sources
            )
            break
        peak = replace(seen[0], name=_new_name(len(peaks) + 1, taken))
        point = _point(peak, index, min_distance)
        fitted = fit(maps, replace(models, sources=(*models.sources, point)))
        peaks.append(peak)
        if any(
            f"{peak.name}.{key}" in fitted.minimiser["at_limit"] for key in ("lon_0", "lat_0", "amplitude")
        ):
            told.append(
                f"{peak.name}: no point source fits within {min_distance:g} of its peak, which is perhaps what a wrong shape or "
                "point spread of its neighbour leaves: it has no values"
            )
            continue
        if not fitted.success:
            told.append(f"the fit of {peak.name} is doubtful: {fitted.message}")
        models, final = _all_frozen(fitted.models), fitted
    else:
        told.append(
            f"the search ended after {max_sources} sources: there may be more above {threshold:g} sigma"
        )
    if len(models.sources) > len(taken) + 1:
        final = _fit_together(maps, models, taken)
    if final is not None and not final.success:
        told.append(f"the fit of all sources together is doubtful: {final.message}")
    rows = _rows(peaks, final, flux, icrs_positions(known))
    geom = maps[0].counts.sky
    at = geom.center.icrs
    return ProductTable(
        "find_sources",
        _table(rows),
        {
            "source positions": icrs_positions(known),
            "field": {
                "center": [float(at.ra.deg), float(at.dec.deg)],
                "width": float(max(geom.shape) * geom.binsz),
            },
            "correlation_radius": float(correlation_radius.to_value(u.deg)) if peaks_of == "excess" else None,
            "peaks_of": peaks_of,
            "threshold": threshold,
            "energy": edges.to_value(u.TeV).tolist(),
            "reference": f"power law of index {index:g}",
            "warnings": told,
            "summary": [["sources found", len(rows)]],
        },
    )


def _searched(
    maps: Sequence[Dataset], models: Models, reference: Source, asked: Circle, peaks_of: str
) -> Mapping[str, Map]:
    """Maps sqrt_ts and flux of what the models do not explain."""
    if peaks_of == "excess":
        bins = [pixel_bins(d, models, reference) for d in maps]
        return significance_maps(bins, asked, "background", reference)
    known = FitResult(True, "", 0.0, models, (), np.zeros((0, 0)), (), {})
    sky: SkyMap = ts_map(maps, known, spectral=reference.spectral)
    return sky.maps


def _within(dataset: Dataset, low: u.Quantity, high: u.Quantity) -> Dataset:
    keep = dataset.energy.contains_bin(low, high)[:, None, None] & dataset.mask
    return replace(dataset, mask_fit=keep)


def _all_frozen(models: Models) -> Models:
    return models.with_parameters(
        {name: replace(p, frozen=True, prior=None) for name, p in models.parameters().items()}
    )


def _own(models: Models, taken: set[str]) -> Models:
    """Only what was found."""
    return replace(models, sources=tuple(s for s in models.sources if s.name not in taken))


def _peaks_of(
    found: Mapping[str, Map],
    flux: float,
    threshold: float,
    min_distance: u.Quantity,
    avoided: Sequence[SkyCoord],
) -> list[_Peak]:
    """Peaks away from given directions, the most significant first."""
    geom: SkyGeometry = found["sqrt_ts"].sky
    image = found["sqrt_ts"].data
    peaks = []
    for j, i in find_peaks(image, threshold, float(min_distance.to_value(u.deg)) / geom.binsz):
        lon, lat = geom.wcs.all_pix2world(i, j, 0)
        at = SkyCoord(float(lon), float(lat), unit="deg", frame=geom.frame).icrs
        if all(at.separation(other) > min_distance for other in avoided):
            peaks.append(_Peak(at, float(image[j, i]), float(found["flux"].data[j, i]) / flux))
    return peaks


def _new_name(number: int, taken: set[str]) -> str:
    name = f"source-{number}"
    while name in taken:
        name = f"new-{name}"
    return name


def _point(peak: _Peak, index: float, reach: u.Quantity) -> Source:
    """Point source at a peak, whose amplitude is free, and its place within ``reach``."""
    amplitude = 1e-12 * peak.norm if np.isfinite(peak.norm) and peak.norm > 0 else _FAINT
    spectral = (
        Parameter("amplitude", amplitude, DNDE, min=0.0),
        Parameter("index", index, frozen=True),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    )
    lon, lat, far = (float(v.to_value(u.deg)) for v in (peak.position.ra, peak.position.dec, reach))
    wide = far / max(np.cos(np.radians(lat)), 1e-3)
    spatial = (
        Parameter("lon_0", lon, u.deg, min=lon - wide, max=lon + wide),
        Parameter("lat_0", lat, u.deg, min=max(lat - far, -90.0), max=min(lat + far, 90.0)),
    )
    return Source(peak.name, Component("power_law", spectral), Component("point", spatial, {"frame": "icrs"}))


def _fit_together(maps: Sequence[Dataset], models: Models, taken: set[str]) -> FitResult:
    """Fit of all sources that were found, from where each was found."""
    parameters = models.parameters()
    names = [
        f"{s.name}.{key}" for s in _own(models, taken).sources for key in ("amplitude", "lon_0", "lat_0")
    ]
    free = {name: replace(parameters[name], frozen=False) for name in names}
    return fit(maps, models.with_parameters(free))


def _rows(
    peaks: Sequence[_Peak], final: FitResult | None, flux: float, known: dict[str, list[float]]
) -> list[dict[str, Any]]:
    fitted = [] if final is None else [s.name for s in final.models.sources]
    rows = []
    for peak in peaks:
        row: dict[str, Any] = {"name": peak.name, **_unfitted()}
        at, is_fitted = peak.position, peak.name in fitted
        if final is not None and is_fitted:
            row |= _fitted(final, peak.name, flux)
            at = SkyCoord(row["ra"], row["dec"])
        distances = {name: at.separation(SkyCoord(*place, unit="deg")).deg for name, place in known.items()}
        nearest = min(distances, key=lambda name: distances[name], default="none")
        row |= {
            "peak_ra": peak.position.ra.to(u.deg),
            "peak_dec": peak.position.dec.to(u.deg),
            "peak_sqrt_ts": peak.sqrt_ts,
            "nearest": nearest,
            "separation": distances.get(nearest, np.nan) * u.deg,
            "is_fitted": final is not None and is_fitted and final.success,
        }
        rows.append(row)
    return rows


def _unfitted() -> dict[str, Any]:
    angles = ("ra", "dec", "ra_err", "dec_err", "error_major", "error_minor", "error_angle")
    return {
        **{key: np.nan * u.deg for key in angles},
        "ts": np.nan,
        "sigma": np.nan,
        "flux": np.nan * FLUX,
        "flux_err": np.nan * FLUX,
    }


def _fitted(final: FitResult, name: str, flux: float) -> dict[str, Any]:
    lon, lat, amplitude = (final.parameter(f"{name}.{key}") for key in ("lon_0", "lat_0", "amplitude"))
    slots = [final.free.index(f"{name}.{key}") for key in ("lon_0", "lat_0")]
    # in degrees on the sky, where a degree of longitude is shorter
    turn = np.diag([np.cos(np.radians(lat.value)), 1.0])
    covariance = turn @ final.covariance[np.ix_(slots, slots)] @ turn
    squares, axes = np.linalg.eigh(covariance)
    minor, major = _ELLIPSE * np.sqrt(np.maximum(squares, 0.0))
    east, north = axes[:, 1]
    ts = float(final.minimiser["ts"][name])
    return {
        "ra": lon.value % 360 * u.deg,
        "dec": lat.value * u.deg,
        "ra_err": float(np.sqrt(max(covariance[0, 0], 0.0))) * u.deg,
        "dec_err": float(np.sqrt(max(covariance[1, 1], 0.0))) * u.deg,
        "error_major": float(major) * u.deg,
        "error_minor": float(minor) * u.deg,
        "error_angle": float(np.degrees(np.arctan2(east, north)) % 180) * u.deg,
        "ts": ts,
        "sigma": float(chi2_sigma(np.array(max(ts, 0.0)), np.array(3))),
        "flux": amplitude.value / 1e-12 * flux * FLUX,
        "flux_err": amplitude.error / 1e-12 * flux * FLUX,
    }


_EMPTY = {
    "name": np.array([], dtype=str),
    **{
        key: [] * u.deg
        for key in ("ra", "dec", "ra_err", "dec_err", "error_major", "error_minor", "error_angle")
    },
    "ts": np.array([]),
    "sigma": np.array([]),
    "flux": [] * FLUX,
    "flux_err": [] * FLUX,
    "peak_ra": [] * u.deg,
    "peak_dec": [] * u.deg,
    "peak_sqrt_ts": np.array([]),
    "nearest": np.array([], dtype=str),
    "separation": [] * u.deg,
    "is_fitted": np.array([], dtype=bool),
}


def _table(rows: Sequence[dict[str, Any]]) -> QTable:
    if not rows:
        return QTable(_EMPTY)
    columns = {key: [row[key] for row in rows] for key in _EMPTY}
    return QTable(
        {key: u.Quantity(v) if isinstance(v[0], u.Quantity) else np.array(v) for key, v in columns.items()}
    )
