"""Synthetic products with known numbers, of any number of bins; one for each picture stands in EXAMPLES."""

from collections.abc import Callable
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable, vstack
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.events import EventList, Gti
from dl3flow.data.maps import Map
from dl3flow.data.observation import Observation
from dl3flow.data.products import (
    Butterfly,
    DatasetStat,
    FitResult,
    FluxPoints,
    LightCurve,
    ProductTable,
    SkyMap,
)
from dl3flow.fit.propagate import butterfly_table
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.source import BackgroundModel, Component, Models, Parameter, Source
from dl3flow.simulate.irfs import simulate_irfs
from dl3flow.simulate.plan import Instrument

CRAB = SkyCoord(83.63, 22.01, unit="deg")
FLUX = u.Unit("cm-2 s-1 TeV-1")


def make_models(n_backgrounds: int = 0) -> Models:
    """Crab-like power law, as many background norms as asked for."""
    spectral = Component(
        "power_law",
        (
            Parameter("amplitude", 4.56e-11, FLUX, error=0.36e-11),
            Parameter("index", 2.6, error=0.08),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        ),
    )
    spatial = Component(
        "point",
        (Parameter("lon_0", 83.63, u.deg, frozen=True), Parameter("lat_0", 22.01, u.deg, frozen=True)),
        {"frame": "icrs"},
    )
    norm = Component("power_law_norm", (Parameter("norm", 1.02, error=0.02),))
    backgrounds = tuple(BackgroundModel(f"run{n}-bkg", norm, (f"run{n}",)) for n in range(n_backgrounds))
    return Models((Source("crab", spectral, spatial),), backgrounds)


def make_result(n_datasets: int = 1, n_energy: int = 10) -> FitResult:
    """Fit with counts equal to the rounded prediction plus one standard deviation in every second bin."""
    models = make_models(n_datasets)
    free = ("crab.amplitude", "crab.index", *(f"run{n}-bkg.norm" for n in range(n_datasets)))
    sigma = np.array([0.36e-11, 0.08, *[0.02] * n_datasets])
    correlation = np.eye(len(free))
    correlation[0, 1] = correlation[1, 0] = 0.5
    edges = np.geomspace(1, 30, n_energy + 1) * u.TeV
    center = np.sqrt(edges[:-1] * edges[1:]).value
    signal, background = 120 * center**-1.6, 800 * center**-2.0
    counts = np.round(signal + background + np.sqrt(signal + background) * (np.arange(n_energy) % 2))
    datasets = tuple(
        DatasetStat(f"run{n}", 1234.5, 5000, edges, counts, signal, background) for n in range(n_datasets)
    )
    return FitResult(
        True,
        "The fit converged.",
        1234.5 * n_datasets,
        models,
        free,
        correlation * np.outer(sigma, sigma),
        datasets,
        {"name": "minuit", "edm": 1e-6, "n_evaluations": 87, "at_limit": [], "warnings": []},
    )


def make_flux_points(n: int, n_limits: int = 1) -> FluxPoints:
    """Power law with 10 % errors that grow with energy; the last bins are upper limits (none for a single bin)."""
    edges = np.geomspace(1, 30, n + 1) * u.TeV
    e_ref = np.sqrt(edges[:-1] * edges[1:])
    rng = np.random.default_rng(1)
    dnde = 4.56e-11 * e_ref.value**-2.6 * FLUX
    err = 0.1 * e_ref.value**0.6
    norm = 1 + err * rng.standard_normal(n)
    is_ul = np.arange(n) >= n - (n_limits if n > 1 else 0)
    table = QTable(
        {
            "e_ref": e_ref,
            "e_min": edges[:-1],
            "e_max": edges[1:],
            "ref_dnde": dnde,
            "ref_flux": dnde * (edges[1:] - edges[:-1]),
            "norm": norm,
            "norm_err": err,
            "norm_errn": 0.9 * err,
            "norm_errp": 1.1 * err,
            "norm_ul": norm + 2 * err,
            "sqrt_ts": np.maximum(norm / err, 0),
            "ts": np.maximum(norm / err, 0) ** 2,
            "counts": np.full(n, 17),
            "npred": np.full(n, 16.25),
            "is_ul": is_ul,
            "success": np.ones(n, dtype=bool),
        }
    )
    return FluxPoints(table, {"source": "crab", "n_sigma": 1, "n_sigma_ul": 2, "ul_conf": 0.9545})


def make_light_curve(n: int, n_limits: int = 1, step_days: float = 1.0) -> LightCurve:
    """Runs of 28 minutes; the last bins are upper limits (none for a single bin)."""
    rng = np.random.default_rng(2)
    start = 53343.9 + step_days * np.arange(n)
    err = np.full(n, 0.12)
    norm = 1 + err * rng.standard_normal(n)
    one = np.ones(n)
    table = QTable(
        {
            "time_min": Time(start, format="mjd", scale="tt"),
            "time_max": Time(start + 28 / 1440, format="mjd", scale="tt"),
            "e_ref": 3.16 * one * u.TeV,
            "e_min": 1 * one * u.TeV,
            "e_max": 10 * one * u.TeV,
            "ref_flux": 2.1e-11 * one * u.Unit("cm-2 s-1"),
            "norm": norm,
            "norm_err": err,
            "norm_errn": 0.9 * err,
            "norm_errp": 1.1 * err,
            "norm_ul": norm + 2 * err,
            "sqrt_ts": norm / err,
            "counts": np.full(n, 21),
            "npred": np.full(n, 20.5),
            "is_ul": np.arange(n) >= n - (n_limits if n > 1 else 0),
            "success": np.ones(n, dtype=bool),
        }
    )
    return LightCurve(table, {"source": "crab", "n_sigma": 1, "n_sigma_ul": 2})


def make_banded_light_curve(n: int, n_bands: int) -> LightCurve:
    """Light curves in energy bands, in Bayesian blocks of five bins each."""
    parts = [make_light_curve(n).table for _ in range(n_bands)]
    edges = np.geomspace(1, 10, n_bands + 1) * u.TeV
    for k, part in enumerate(parts):
        part["e_min"], part["e_max"] = np.full(n, edges[k]) * u.TeV, np.full(n, edges[k + 1]) * u.TeV
        part["norm"] *= 3.0**-k
    rows = [part[k : k + 1] for k in range(n) for part in parts]
    table = vstack(rows)
    blocks = [
        {
            "time_min": part["time_min"][first].mjd,
            "time_max": part["time_max"][min(first + 4, n - 1)].mjd,
            "e_min": part["e_min"][0].value,
            "e_max": part["e_max"][0].value,
            "flux": 2.1e-11 * 3.0**-k,
            "flux_errn": 1e-12,
            "flux_errp": 1e-12,
        }
        for first in range(0, n, 5)
        for k, part in enumerate(parts)
    ]
    return LightCurve(table, {"source": "crab", "n_sigma_ul": 2, "n_bands": n_bands, "blocks": blocks})


def make_sky_map(
    expected: str, n_sources: int = 1, n_pixels: int = 100, peak: float = 12.0, frame: str = "icrs"
) -> SkyMap:
    """Unit normal noise with a bump of ``peak`` sigma at the first source."""
    center = CRAB.transform_to(frame)
    geom = SkyGeometry.create(center, 5 * u.deg, 5 / n_pixels * u.deg, "CAR" if frame == "icrs" else "TAN")
    rng = np.random.default_rng(3)
    bump = np.exp(-0.5 * (np.degrees(geom.separation(center)) / 0.12) ** 2)
    sigma = rng.standard_normal(geom.shape) + peak * bump
    mu = 6 * np.exp(-0.5 * (np.degrees(geom.separation(center)) / 1.3) ** 2) + 0.2
    far = np.degrees(geom.separation(center)) > 2.4
    data = {"counts": mu + sigma * np.sqrt(mu), expected: mu, "excess": sigma * np.sqrt(mu), "sqrt_ts": sigma}
    maps = {name: Map(geom, (), np.where(far, np.nan, values)) for name, values in data.items()}
    places = {f"source-{n}": [CRAB.ra.deg + 0.35 * n, CRAB.dec.deg + 0.1 * n] for n in range(n_sources)}
    return SkyMap(maps, {"estimator": "excess_map", "source positions": places, "correlation_radius": 0.1})


def make_excess_map(n_sources: int) -> SkyMap:
    """An excess map with fluxes, limits, two energy bands, an exclusion and the Gaussian fitted outside of it."""
    plain = make_sky_map("background", n_sources)
    sigma, excess = plain.maps["sqrt_ts"], plain.maps["excess"].data
    flux = u.Unit("cm-2 s-1")
    axis = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 2)
    more = {
        "flux": Map(sigma.sky, (), 1e-13 * excess, flux),
        "flux_ul": Map(sigma.sky, (), 1e-13 * (np.abs(excess) + 3), flux),
        "band_sqrt_ts": Map(sigma.sky, (axis,), np.stack([sigma.data, 0.5 * sigma.data])),
    }
    fit = {"mean": -0.07, "mean_err": 0.04, "width": 1.04, "width_err": 0.02}
    center = sigma.sky.center.icrs
    meta = {
        "exclusion": f"icrs;circle({center.ra.deg}, {center.dec.deg}, 0.5)",
        "significance": {"fit": fit},
        "beam": 0.07,
        "n_sigma_ul": 2,
    }
    return SkyMap({**plain.maps, **more}, {**plain.meta, **meta})


def make_dataset(n_energy: int, n_pixels: int = 80) -> Dataset:
    """Poisson counts of a background and a source; the lowest quarter of energies is unsafe in the outer half."""
    geom = SkyGeometry.create(CRAB, 4 * u.deg, 4 / n_pixels * u.deg)
    energy = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, n_energy)
    true = Axis.from_bounds("energy_true", 0.3 * u.TeV, 30 * u.TeV, max(3, n_energy))
    distance = np.degrees(geom.separation(CRAB))
    slope = energy.centers.value**-1.7
    bkg = 0.6 / n_energy * slope[:, None, None] * np.exp(-0.5 * (distance / 1.2) ** 2)
    source = 4.0 / n_energy * slope[:, None, None] * np.exp(-0.5 * (distance / 0.08) ** 2)
    counts = np.random.default_rng(4).poisson(bkg + source).astype(float)
    safe = np.ones(counts.shape, dtype=bool)
    safe[: max(1, n_energy // 4), distance > 1.4] = False
    safe[:, distance > 1.9] = False
    exposure = 1e9 * np.ones((true.n_bins, 1, 1)) * np.exp(-0.5 * (distance / 1.5) ** 2)
    gti = Gti([0] * u.s, [1687] * u.s, Time(53343.9, format="mjd", scale="tt"))
    return Dataset(
        "cube",
        Map(geom, (energy,), counts),
        ExpectedCounts(Map(geom, (energy,), bkg)),
        Map(geom, (true,), exposure, u.Unit("m2 s")),
        None,
        None,
        safe,
        None,
        gti,
        {"obs_ids": [1], "livetime": 6312.0, "ontime": 6748.0},
    )


def make_butterfly(n: int) -> Butterfly:
    """Spectrum of the fit at one energy more than asked for."""
    energy = np.geomspace(1, 30, n + 1) * u.TeV
    table = butterfly_table(make_result(), "crab", energy)
    return Butterfly(table, {"source": "crab", "pivot_energy": 1.5})


def make_phasogram(n: int) -> ProductTable:
    """Counts that peak in phase, the off phases measured in the last third."""
    edges = np.linspace(0, 1, n + 1)
    phase = 0.5 * (edges[:-1] + edges[1:])
    counts = np.random.default_rng(5).poisson(100 + 60 * np.exp(-0.5 * ((phase - 0.3) / 0.05) ** 2))
    table = QTable(
        {
            "phase_min": edges[:-1],
            "phase_max": edges[1:],
            "counts": counts,
            "background": np.full(n, 101.5),
            "excess": counts - 101.5,
        }
    )
    return ProductTable("phasogram", table, {"off_phase": [[0.6, 0.95]]})


def make_observation(n: int) -> Observation:
    """As many hundred events (one for a single bin) in two good times, the last of them outside; toy responses."""
    n_events = 1 if n == 1 else 100 * n
    rng = np.random.default_rng(6)
    offset, angle = rng.rayleigh(0.6, n_events), rng.uniform(0, 360, n_events)
    radec = CRAB.directional_offset_by(angle * u.deg, offset * u.deg)
    time = np.sort(rng.uniform(0, 1680, n_events))
    time[-1] += 1000 * (n > 1)
    energy = 0.5 * (1 + rng.pareto(1.7, n_events))
    reference = Time(53343.9, format="mjd", scale="tt")
    irfs = simulate_irfs(Instrument())
    return Observation(
        obs_id=23523,
        events=EventList(np.arange(n_events), time * u.s, reference, radec, energy * u.TeV),
        gti=Gti([0, 900] * u.s, [800, 1700] * u.s, reference),
        pointing=CRAB.directional_offset_by(0 * u.deg, 0.5 * u.deg),
        deadtime_fraction=0.05,
        aeff=irfs["aeff"],
        edisp=irfs["edisp"],
        psf=irfs["psf"],
        bkg=irfs["bkg"],
        meta={"object": "Crab Nebula"},
    )


def make_theta_squared(n: int) -> ProductTable:
    """A falling excess on 20 off counts per bin."""
    edges = np.linspace(0, 0.16, n + 1)
    off = np.full(n, 20.0)
    counts = np.round(10 + 60 * np.exp(-edges[:-1] / 0.02))
    alpha = np.full(n, 0.5)
    columns = {"counts": counts, "counts_off": off, "alpha": alpha, "excess": counts - alpha * off}
    theta2 = {"theta2_min": edges[:-1] * u.deg**2, "theta2_max": edges[1:] * u.deg**2}
    return ProductTable("theta_squared", QTable({**theta2, **columns}), {"cut": 0.1})


def make_combined(n_sources: int) -> SkyMap:
    """Significance as of an excess map, of two data sets in the inner half and one beyond."""
    excess = make_sky_map("background", n_sources)
    sigma = excess.maps["sqrt_ts"]
    n_dof = np.where(np.degrees(sigma.sky.separation(sigma.sky.center)) < 1.2, 2.0, 1.0)
    maps = {"sqrt_ts": sigma, "n_dof": sigma.with_data(np.where(np.isfinite(sigma.data), n_dof, np.nan))}
    return SkyMap(maps, {**excess.meta, "estimator": "combined_significance", "beam": 0.07})


def make_flux_profile(n: int) -> ProductTable:
    """Boxes along a line in two energy bands; the flux falls from the middle, and the last box is a limit."""
    edges = np.linspace(-1, 1, n + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    columns: dict[str, list[float]] = {}
    for x, low, high in zip(middle, edges[:-1], edges[1:], strict=True):
        for k, strength in enumerate((1e-12, 2e-13)):
            flux = strength * np.exp(-8 * x**2)
            row = {
                "distance": x,
                "distance_min": low,
                "distance_max": high,
                "e_min": 1 + 9.0 * k,
                "e_max": 10 + 90.0 * k,
            }
            row |= {
                "solid_angle": 0.02,
                "flux": flux,
                "flux_errn": 0.2 * strength,
                "flux_errp": 0.25 * strength,
            }
            row |= {"flux_ul": flux + 0.5 * strength, "is_ul": float(n > 1 and high == 1)}
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    units = dict.fromkeys(("distance", "distance_min", "distance_max"), u.deg)
    units |= {"e_min": u.TeV, "e_max": u.TeV, "solid_angle": u.deg**2}
    units |= dict.fromkeys(("flux", "flux_errn", "flux_errp", "flux_ul"), u.Unit("cm-2 s-1"))
    table = QTable({name: np.array(v) * units.get(name, u.one) for name, v in columns.items()})
    return ProductTable("flux_profile", table, {"shape": "boxes", "angle": 30.0, "n_sigma_ul": 2})


def make_found_sources(n: int) -> ProductTable:
    """As many sources in a field of four degrees, every third without a place of its own."""
    rng = np.random.default_rng(8)
    lon, lat = CRAB.ra.deg + rng.uniform(-1.8, 1.8, n), CRAB.dec.deg + rng.uniform(-1.8, 1.8, n)
    unknown = np.where(np.arange(n) % 3 == 2, np.nan, 1.0)
    table = QTable(
        {
            "name": [f"source-{k + 1}" for k in range(n)],
            "ra": (lon + 0.01) * unknown * u.deg,
            "dec": lat * unknown * u.deg,
            "error_major": np.full(n, 0.05) * u.deg,
            "error_minor": np.full(n, 0.02) * u.deg,
            "error_angle": np.linspace(0, 170, n) * u.deg,
            "peak_ra": lon * u.deg,
            "peak_dec": lat * u.deg,
        }
    )
    meta = {"field": {"center": [CRAB.ra.deg, CRAB.dec.deg], "width": 4.0}, "threshold": 5.0}
    return ProductTable("find_sources", table, {**meta, "source positions": {"crab": [83.63, 22.01]}})


def make_extension(n: int) -> ProductTable:
    """Profile of a parabola around 0.1 deg."""
    size = np.linspace(0, 0.3, n + 1)
    meta = {"source": "crab", "shape": "gauss", "size": 0.1, "size_ul": 0.16, "n_sigma_ul": 2.0, "ts": 12.3}
    table = QTable({"size": size * u.deg, "stat": ((size - 0.1) / 0.03) ** 2})
    return ProductTable("extension", table, meta)


def make_counts_table(n: int) -> ProductTable:
    """Counts of datasets, added up in order of time."""
    counts, background = 40.0 * np.arange(1, n + 1), 25.0 * np.arange(1, n + 1)
    excess = counts - background
    table = QTable(
        {
            "livetime": 0.45 * np.arange(1, n + 1) * u.h,
            "counts": counts,
            "background": background,
            "excess": excess,
            "sqrt_ts": excess / np.sqrt(counts),
        }
    )
    return ProductTable("counts_table", table, {"cumulative": True})


def make_sensitivity(n: int) -> ProductTable:
    """Systematics decide at low energies, counts at high ones."""
    edges = np.geomspace(0.1, 30, n + 1) * u.TeV
    e_ref = np.sqrt(edges[:-1] * edges[1:])
    words = ["bkg", "significance", "gamma"]
    table = QTable(
        {
            "e_ref": e_ref,
            "e_min": edges[:-1],
            "e_max": edges[1:],
            "e2dnde": 1e-12 * (e_ref.value**-0.5 + 0.1 * e_ref.value) * u.Unit("TeV cm-2 s-1"),
            "criterion": [words[min(3 * k // n, 2)] for k in range(n)],
        }
    )
    return ProductTable("sensitivity", table, {})


def make_phase_curve(n: int) -> ProductTable:
    """A flux that rises and falls once a period, in two energy bands; the last bin is a limit."""
    edges = np.linspace(0, 1, n + 1)
    phase = np.repeat(0.5 * (edges[1:] + edges[:-1]), 2)
    strength = np.tile([1e-11, 3e-12], n)
    flux = strength * (1 + 0.5 * np.cos(2 * np.pi * phase))
    unit = u.Unit("cm-2 s-1")
    table = QTable(
        {
            "phase_min": np.repeat(edges[:-1], 2),
            "phase_max": np.repeat(edges[1:], 2),
            "e_min": np.tile([1.0, 3.0], n) * u.TeV,
            "e_max": np.tile([3.0, 10.0], n) * u.TeV,
            "flux": flux * unit,
            "flux_errn": 0.2 * strength * unit,
            "flux_errp": 0.25 * strength * unit,
            "flux_ul": (flux + 0.5 * strength) * unit,
            "is_ul": (np.repeat(np.arange(n), 2) == n - 1) & (n > 1),
        }
    )
    return ProductTable("phase_curve", table, {"source": "crab", "n_bands": 2, "n_sigma_ul": 2})


def make_strength_map(n_sources: int) -> SkyMap:
    """Significance, flux and its upper limit in two energy bands."""
    sigma = make_sky_map("background", n_sources).maps["sqrt_ts"]
    axis = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 2)

    def on(values: np.ndarray, unit: str = "") -> Map:
        return Map(sigma.sky, (axis,), np.stack([values, 0.5 * values]), u.Unit(unit))

    flux = 1e-13 * sigma.data
    maps = {
        "sqrt_ts": on(sigma.data),
        "flux": on(flux, "cm-2 s-1"),
        "flux_ul": on(np.abs(flux) + 2e-13, "cm-2 s-1"),
    }
    meta = make_sky_map("background", n_sources).meta
    meta = {**meta, "estimator": "ts_map", "quantity": "flux", "beam": 0.08, "n_sigma_ul": 2}
    return SkyMap(maps, {k: v for k, v in meta.items() if k != "correlation_radius"})


def make_smooth_map(n_sources: int) -> SkyMap:
    """Counts, flux and scale in two energy bands."""
    plain = make_sky_map("background", n_sources)
    axis = Axis.from_bounds("energy", 1 * u.TeV, 10 * u.TeV, 2)
    counts = plain.maps["counts"]
    away = np.degrees(counts.sky.separation(counts.sky.center))
    scale = np.where(away < 2, 0.05 + 0.1 * away, np.nan)

    def on(values: np.ndarray, unit: str = "") -> Map:
        return Map(counts.sky, (axis,), np.stack([values, values]), u.Unit(unit))

    names = {"counts": on(counts.data), "background": on(plain.maps["background"].data)}
    names |= {"flux": on(1e-13 * counts.data, "cm-2 s-1"), "sqrt_ts": on(plain.maps["sqrt_ts"].data)}
    return SkyMap(
        {**names, "scale": on(scale, "deg")},
        {**plain.meta, "estimator": "adaptive_smooth", "kernel": "gauss", "threshold": 3.0},
    )


Example = tuple[Any, FitResult | None]
# by the name of the picture: a product of so many bins (or sources, or datasets), and the fit that it comes with
EXAMPLES: dict[str, Callable[[int], Example]] = {
    "adaptive_smooth": lambda n: (make_smooth_map(n), None),
    "butterfly": lambda n: (make_butterfly(n), None),
    "combined_flux_points": lambda n: (make_flux_points(n), make_result()),
    "combined_significance": lambda n: (make_combined(n), None),
    "counts_table": lambda n: (make_counts_table(n), None),
    "dataset": lambda n: (make_dataset(n), None),
    "excess_map": lambda n: (make_excess_map(n), None),
    "extension": lambda n: (make_extension(n), None),
    "find_sources": lambda n: (make_found_sources(n), None),
    "fit": lambda n: (make_result(n), None),
    "flux_points": lambda n: (make_flux_points(n), make_result()),
    "flux_profile": lambda n: (make_flux_profile(n), None),
    "light_curve": lambda n: (make_light_curve(n), None),
    "observation": lambda n: (make_observation(n), None),
    "phase_curve": lambda n: (make_phase_curve(n), None),
    "phasogram": lambda n: (make_phasogram(n), None),
    "residual_map": lambda n: (make_sky_map("npred", n), None),
    "responses": lambda n: (simulate_irfs(Instrument()), None),
    "sensitivity": lambda n: (make_sensitivity(n), None),
    "theta_squared": lambda n: (make_theta_squared(n), None),
    "ts_map": lambda n: (make_strength_map(n), None),
}
