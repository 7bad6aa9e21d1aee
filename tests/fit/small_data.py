"""Small datasets of every kind for tests of the likelihood: maps with ragged point spreads, spectra, flux points."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import scipy
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, FluxPointsData, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.source import Component, Models, Parameter, Source

from .dense import Dense

LON, LAT = 83.63, 22.01
REGION = "icrs;circle(83.63, 22.01, 0.2)"
DNDE = u.Unit("cm-2 s-1 TeV-1")


def axes(n_energy: int, n_true: int, low: float = 1.0, high: float = 10.0) -> tuple[Axis, Axis]:
    """Reconstructed energy, and true energy from half to twice its range."""
    energy = Axis.from_bounds("energy", low * u.TeV, high * u.TeV, n_energy)
    return energy, Axis.from_bounds("energy_true", 0.5 * low * u.TeV, 2 * high * u.TeV, n_true)


def dispersion(energy: Axis, energy_true: Axis) -> np.ndarray:
    """Matrix (n_true, n_energy): ln(energy / energy_true) is normal, 0.02 +- 0.15, without what no table would hold."""
    true = np.log(energy_true.centers.to_value(u.TeV))[:, None]
    edges = np.log(energy.edges.to_value(u.TeV))
    matrix = np.diff(scipy.special.ndtr((edges - true - 0.02) / 0.15), axis=1)
    return np.where(matrix > 1e-6, matrix, 0.0)


def _meta(seed: int) -> dict[str, object]:
    return {
        "obs_ids": [seed],
        "livetime": 950.0,
        "ontime": 1000.0,
        "telescope": "T",
        "instrument": "I",
    }


def _gti(seed: int) -> Gti:
    return Gti([0.0] * u.s, [1000.0] * u.s, Time(60000 + seed, format="mjd", scale="tt"))


def make_map(
    name: str,
    *,
    seed: int = 0,
    pixels: tuple[int, int] = (24, 24),
    shift: tuple[float, float] = (0.0, 0.0),
    n_energy: int = 4,
    n_true: int = 6,
    low: float = 1.0,
    high: float = 10.0,
    width: float = 0.07,
    level: float = 0.5,
    livetime: float = 1.0,
    amplitude: float = 3e-10,
    use_holes: bool = False,
) -> Dataset:
    """Map of 0.05 deg pixels whose point spread, of ``width`` deg at 1 TeV, narrows with energy and differs with place.

    Counts are drawn from the background and a point of ``amplitude`` at the centre. With holes, part of the bins has no
    background, part of these no counts either, and part is masked.
    """
    energy, energy_true = axes(n_energy, n_true, low, high)
    center = SkyCoord(LON + shift[0], LAT + shift[1], unit="deg")
    ny, nx = pixels
    geom = SkyGeometry.create(center, (nx * 0.05 * u.deg, ny * 0.05 * u.deg), 0.05 * u.deg, "TAN")
    geom_irf = geom.coarser(0.5 * u.deg)
    rad = Axis.from_bounds("rad", 0 * u.deg, 0.6 * u.deg, 60, "lin")
    true = energy_true.centers.to_value(u.TeV)

    def exposure(on: SkyGeometry) -> Map:
        north, west = np.degrees(on.lonlat[1]) - LAT, np.degrees(on.lonlat[0]) - LON
        grow = livetime * np.linspace(1, 3, n_true)[:, None, None]
        return Map(on, (energy_true,), 2e8 * grow * np.exp(-0.1 * north + 0.05 * west), u.Unit("m2 s"))

    place = 1 + 0.04 * np.arange(geom_irf.shape[0])[:, None] + 0.03 * np.arange(geom_irf.shape[1])
    sigma = width * true[:, None, None] ** -0.3 * place
    r = rad.centers.to_value("deg")[:, None, None]
    density = np.exp(-0.5 * (r / sigma[:, None]) ** 2) + 0.05 * np.exp(
        -0.5 * (r / (2.5 * sigma[:, None])) ** 2
    )
    ring = (2 * np.pi * rad.centers.to_value("rad") * rad.widths.to_value("rad"))[:, None, None]
    psf = density / (density * ring).sum(axis=1, keepdims=True)
    matrix = np.broadcast_to(
        dispersion(energy, energy_true)[:, :, None, None], (n_true, n_energy, *geom_irf.shape)
    )
    per_bin = level * livetime * (energy.centers.to_value(u.TeV) ** -1.2)[:, None, None]
    background = per_bin * (1 + 0.2 * np.cos(geom.lonlat[0] * 40))
    mask = np.ones((n_energy, *geom.shape), dtype=bool)
    mask_fit = None
    if use_holes:
        # crosses the source, its surroundings and what no source reaches
        background = background.copy()
        background[-1, ny // 2 - 3 : ny // 2 + 1] = 0
        background[0, :, 3] = 0
        mask[0, :4] = False
        mask[-1, 8:12, 3:9] = False
        mask_fit = np.ones_like(mask)
        mask_fit[1, :, -2:] = False
    dataset = Dataset(
        name=name,
        counts=Map(geom, (energy,), np.zeros((n_energy, *geom.shape))),
        background=ExpectedCounts(Map(geom, (energy,), background)),
        exposure=exposure(geom),
        psf=PsfMap(Map(geom_irf, (energy_true, rad), psf, u.Unit("sr-1")), exposure(geom_irf)),
        edisp=EdispMap(Map(geom_irf, (energy_true, energy), matrix), exposure(geom_irf)),
        mask_safe=mask,
        mask_fit=mask_fit,
        gti=_gti(seed),
        meta=_meta(seed),
    )
    models = Models((point("s", amplitude),))
    signal = Dense([dataset], models).signal(dataset, models)
    drawn = np.random.default_rng(seed).poisson(np.maximum(signal, 0) + background).astype(float)
    if use_holes:
        # counts where neither background nor source can make them
        drawn[0, ny // 2, 3] = 2
    return replace(dataset, counts=dataset.counts.with_data(drawn))


def make_spectrum(
    name: str, *, seed: int = 0, n_energy: int = 6, n_true: int = 9, is_measured: bool = True
) -> Dataset:
    """Spectrum of a region around the centre, with off counts or with an expected background."""
    energy, energy_true = axes(n_energy, n_true, 0.8, 20.0)
    region = RegionGeometry(REGION)
    exposure = Map(region, (energy_true,), np.linspace(1e8, 4e8, n_true)[:, None, None], u.Unit("m2 s"))
    edisp = EdispMap(
        Map(region, (energy_true, energy), dispersion(energy, energy_true)[:, :, None, None]), exposure
    )
    level = (60 * energy.centers.to_value(u.TeV) ** -1.7)[:, None, None]

    def there(values: np.ndarray) -> Map:
        return Map(region, (energy,), np.asarray(values, dtype=float))

    dataset = Dataset(
        name=name,
        counts=there(np.zeros((n_energy, 1, 1))),
        background=ExpectedCounts(there(level)),
        exposure=exposure,
        psf=None,
        edisp=edisp,
        mask_safe=np.ones((n_energy, 1, 1), dtype=bool),
        mask_fit=None,
        gti=_gti(seed + 500),
        meta=_meta(seed + 500),
    )
    models = Models((point("s", 3e-10),))
    random = np.random.default_rng(seed)
    signal = Dense([dataset], models).signal(dataset, models)
    dataset = replace(dataset, counts=there(random.poisson(signal + level)))
    if not is_measured:
        return dataset
    acceptance_off = np.full(level.shape, 4.0)
    # nothing measured in the last bin
    acceptance_off[-1] = 0
    off = OffCounts(there(random.poisson(4 * level)), there(np.ones(level.shape)), there(acceptance_off))
    return replace(dataset, background=off)


def make_points(name: str, *, seed: int = 0, n: int = 5) -> FluxPointsData:
    """Points of 20 % around a power law of index 2.5, with errors upwards larger than downwards."""
    energy = np.geomspace(0.5, 30, n) * u.TeV
    true = 3e-10 * energy.value**-2.5
    drawn = true * (1 + 0.2 * np.random.default_rng(seed).normal(size=n))
    mask = np.ones(n, dtype=bool)
    mask[-1] = False
    return FluxPointsData(name, energy, drawn * DNDE, 0.2 * true * DNDE, 0.25 * true * DNDE, mask, {})


def power_law(amplitude: float = 3e-10, index: float = 2.4) -> Component:
    return Component(
        "power_law",
        (
            Parameter("amplitude", amplitude, DNDE),
            Parameter("index", index),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        ),
    )


def log_parabola(amplitude: float = 3e-10) -> Component:
    return Component(
        "log_parabola",
        (
            Parameter("amplitude", amplitude, DNDE),
            Parameter("reference", 1.0, u.TeV, frozen=True),
            Parameter("alpha", 2.3),
            Parameter("beta", 0.1),
        ),
    )


def point(name: str, amplitude: float = 3e-10, lon: float = LON + 0.007, lat: float = LAT - 0.011) -> Source:
    """A point, by default off the pixels' centres and borders, where the likelihood has kinks."""
    place = (Parameter("lon_0", lon, u.deg), Parameter("lat_0", lat, u.deg))
    return Source(name, power_law(amplitude), Component("point", place))


def gauss(
    name: str,
    amplitude: float = 3e-10,
    lon: float = LON + 0.013,
    lat: float = LAT - 0.006,
    sigma: float = 0.12,
) -> Source:
    """A symmetric Gaussian."""
    parameters = (
        Parameter("lon_0", lon, u.deg),
        Parameter("lat_0", lat, u.deg),
        Parameter("sigma", sigma, u.deg),
        Parameter("e", 0.0, frozen=True),
        Parameter("phi", 0.0, u.deg, frozen=True),
    )
    return Source(name, power_law(amplitude), Component("gauss", parameters))
