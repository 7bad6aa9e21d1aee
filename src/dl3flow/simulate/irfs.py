"""Analytic instrument responses on GADF's axes, for simulated observations."""

import astropy.units as u
import numpy as np
import scipy

from dl3flow.geometry.axis import Axis
from dl3flow.irf.table import IrfTable
from dl3flow.simulate.plan import ENERGY_LIMITS, Instrument

_OFFSETS = np.arange(0.0, 3.01, 0.5)
_AREA_WIDTH = 2.2
_BKG_WIDTH = 1.8
_BKG_INDEX = 2.7
# Rate across the field: a gradient along each direction, so that a wrong orientation of the table shows.
_BKG_SLOPES = (0.20, -0.12)
# Second and third Gaussian of the point spread: amplitude and width relative to the first.
_TAILS = ((0.15, 2.2), (0.01, 3.2))
_HIGH_THRESHOLD = 100.0


def simulate_irfs(instrument: Instrument) -> dict[str, IrfTable]:
    """Effective area, energy dispersion, point spread and background rate, by HDU_TYPE."""
    return {
        "aeff": effective_area_table(instrument),
        "edisp": dispersion_table(instrument),
        "psf": point_spread_table(instrument),
        "bkg": background_table(instrument),
    }


def _energy_axis(name: str, per_decade: int) -> Axis:
    low, high = ENERGY_LIMITS
    number = round(per_decade * np.log10(high / low))
    return Axis.from_bounds(name, low * u.TeV, high * u.TeV, number)


def _offset_axis() -> Axis:
    return Axis.from_nodes("offset", _OFFSETS * u.deg)


def _efficiency(energy: np.ndarray, threshold: float) -> np.ndarray:
    """Share of showers that trigger: 32/33 at the threshold, 1/2 at half of it, falling as energy^5."""
    return 1 / (1 + (0.5 * threshold / energy) ** 5)


def effective_area_table(instrument: Instrument) -> IrfTable:
    """AEFF_2D: rises to ``area`` through the threshold, falls off with the offset as a Gaussian."""
    energy, offset = _energy_axis("energy_true", 20), _offset_axis()
    rise = _efficiency(energy.centers.to_value(u.TeV), instrument.threshold)
    fall = np.exp(-0.5 * (offset.centers.to_value(u.deg) / _AREA_WIDTH) ** 2)
    meta = {
        "is_pointlike": False,
        "lo_thres": instrument.threshold * u.TeV,
        "hi_thres": _HIGH_THRESHOLD * u.TeV,
    }
    area = instrument.area * rise[:, None] * fall
    return IrfTable("aeff_2d", (energy, offset), {"EFFAREA": area}, {"EFFAREA": u.m**2}, meta)


def dispersion_table(instrument: Instrument) -> IrfTable:
    """EDISP_2D: ln(migra) is normal, with a bias upward and a larger width below the threshold."""
    energy, offset = _energy_axis("energy_true", 12), _offset_axis()
    migra = Axis.from_bounds("migra", u.Quantity(0.2), u.Quantity(3.0), 140, "lin")
    low = instrument.threshold / energy.centers.to_value(u.TeV)
    bias = 0.25 * low**2 / (1 + low**2)
    width = instrument.energy_resolution * (1 + 0.5 * low / (1 + low))
    spread = width[:, None, None] * (1 + 0.03 * offset.centers.to_value(u.deg) ** 2)
    x = (np.log(migra.edges.to_value(""))[:, None] - bias[:, None, None]) / spread
    content = np.diff(scipy.special.ndtr(x), axis=1)
    content /= content.sum(axis=1, keepdims=True)
    density = content / migra.widths.to_value("")[:, None]
    return IrfTable(
        "edisp_2d",
        (energy, migra, offset),
        {"MATRIX": density},
        {"MATRIX": u.dimensionless_unscaled},
        {"is_pointlike": False},
    )


def point_spread_table(instrument: Instrument) -> IrfTable:
    """PSF_3GAUSS: a core that narrows with energy and widens with the offset, and two wider tails."""
    energy, offset = _energy_axis("energy_true", 10), _offset_axis()
    narrowing = np.clip(energy.centers.to_value(u.TeV), 0.1, 50.0) ** -0.15
    sigma = (
        instrument.angular_resolution * narrowing[:, None] * (1 + 0.05 * offset.centers.to_value(u.deg) ** 2)
    )
    one = np.ones_like(sigma)
    data, volume = {}, np.radians(sigma) ** 2
    for n, (amplitude, ratio) in enumerate(_TAILS, start=2):
        data[f"AMPL_{n}"], data[f"SIGMA_{n}"] = amplitude * one, ratio * sigma
        volume = volume + amplitude * np.radians(ratio * sigma) ** 2
    columns = {"SCALE": 1 / (2 * np.pi * volume), "SIGMA_1": sigma, **data}
    units = {name: u.deg if name.startswith("SIGMA") else u.dimensionless_unscaled for name in columns}
    units["SCALE"] = u.Unit("sr-1")
    return IrfTable("psf_3gauss", (energy, offset), columns, units, {"is_pointlike": False})


def background_table(instrument: Instrument) -> IrfTable:
    """BKG_3D: a power law in energy times a Gaussian in the field with a gradient; FOVALIGN is RADEC."""
    energy = _energy_axis("energy", 6)
    half, n_bins = instrument.field, 25
    lon, lat = (
        Axis.from_bounds(name, -half * u.deg, half * u.deg, n_bins, "lin") for name in ("fov_lon", "fov_lat")
    )
    x, y = lon.centers.to_value(u.deg)[:, None], lat.centers.to_value(u.deg)
    slope_x, slope_y = _BKG_SLOPES
    shape = np.exp(-0.5 * (x**2 + y**2) / _BKG_WIDTH**2) * (1 + slope_x * x / half + slope_y * y / half)
    # Integral over the field of the shape, and over energies above 1 TeV of E^-index, fix the rate in between.
    cell = np.cos(np.radians(y)) * np.radians(2 * half / n_bins) ** 2
    per_tev = instrument.background_rate * (_BKG_INDEX - 1) / (shape * cell).sum()
    x_energy = energy.centers.to_value(u.TeV)
    spectrum = x_energy**-_BKG_INDEX * _efficiency(x_energy, instrument.threshold)
    rate = (per_tev * spectrum[:, None, None] * shape) * u.Unit("s-1 TeV-1 sr-1")
    unit = u.Unit("s-1 MeV-1 sr-1")
    meta = {"is_pointlike": False, "fov_alignment": "RADEC"}
    return IrfTable("bkg_3d", (energy, lon, lat), {"BKG": rate.to_value(unit)}, {"BKG": unit}, meta)
