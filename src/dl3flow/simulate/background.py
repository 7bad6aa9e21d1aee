"""Background events, drawn from the rate as a reduction evaluates it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.time import Time
from numpy.random import Generator

from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.table import IrfTable
from dl3flow.kernels.sampling import draw_cells
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Models
from dl3flow.simulate.sky import internal_values

_STEPS_PER_DECADE = 40
_CELL = 0.1
# s between which the orientation of the horizon is interpolated
_STEP = 20.0
_NO_PLACE = (
    "the background rate is aligned with the horizon (FOVALIGN = ALTAZ), which needs the place of the observatory: "
    "give lon, lat and altitude of the instrument"
)
Factor = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Background:
    """Background events in the field of view.

    Attributes
    ----------
    energy : array, shape (n,)
        TeV.
    fov_lon, fov_lat : array, shape (n,)
        Rad, in the orientation of the table.
    alignment : str
        RADEC, ALTAZ or REVERSE_LON_RADEC.
    """

    energy: np.ndarray
    fov_lon: np.ndarray
    fov_lat: np.ndarray
    alignment: str

    @classmethod
    def empty(cls) -> "Background":
        """No events."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0), "RADEC")

    def directions(
        self,
        pointing: SkyCoord,
        time: np.ndarray,
        reference: Time,
        location: dict[str, float] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination, rad, of the events at their times (s after the reference).

        Raises
        ------
        InputError
            If the table is aligned with the horizon, and the place on Earth is not known.
        """
        at = (float(pointing.icrs.ra.rad), float(pointing.icrs.dec.rad))
        if self.alignment == "REVERSE_LON_RADEC":
            return fov.fov_to_sky(-self.fov_lon, self.fov_lat, *at)
        if self.alignment != "ALTAZ" or not len(time):
            return fov.fov_to_sky(self.fov_lon, self.fov_lat, *at)
        if not location:
            raise InputError(_NO_PLACE)
        steps = np.linspace(time.min(), time.max(), int(np.ceil(np.ptp(time) / _STEP)) + 2)
        place = (location["geolon"], location["geolat"], location["altitude"])
        axes, _, _ = fov.altaz_axes(pointing, reference + steps * u.s, place)
        east, north = fov.basis(*at)[1:]
        angle = np.interp(time, steps, np.unwrap(np.arctan2(axes[:, 2] @ east, axes[:, 2] @ north)))
        forward, side, up = _components(self.fov_lon, self.fov_lat)
        # the second axis is the pointing times up: with up at the position angle of north it is the west
        on_east = np.sin(angle) * up - np.cos(angle) * side
        on_north = np.cos(angle) * up + np.sin(angle) * side
        native = np.array([forward, on_east, on_north])
        x, y, z = fov.rotated(native, fov.basis(*at).T)
        return np.arctan2(y, x) % (2 * np.pi), np.arcsin(np.clip(z, -1, 1))


def _components(fov_lon: np.ndarray, fov_lat: np.ndarray) -> np.ndarray:
    """Components (3, n) of directions along the axes of `fov.vectors_to_fov`."""
    return fov.unit_vectors(-fov_lon, fov_lat)


def background_factor(models: Models, names: Sequence[str]) -> tuple[Factor | None, list[str]]:
    """Factor on the background rate against energy (TeV), and what of the models is not simulated, in sentences.

    Parameters
    ----------
    models : Models
    names : sequence of str
        Of the run: a background model that lists its datasets must list one of them.

    Raises
    ------
    InputError
        For a background with a template of its own, which is on the pixels of a dataset.
    """
    factors: list[Factor] = []
    warnings = []
    for model in models.backgrounds:
        if model.template is not None:
            raise InputError(
                f"background '{model.name}': a template is on the pixels of a dataset, and events have none: remove it"
            )
        if model.datasets is not None and not set(names) & set(model.datasets):
            warnings.append(f"the background model '{model.name}' is for other datasets and is not simulated")
            continue
        found = resolve(model.spectral, "spectral", f"background '{model.name}'")
        values = internal_values(model.spectral, found)
        factors.append(lambda energy, found=found, values=values: found.function(energy, *values))  # type: ignore[misc]
    warnings += [f"the systematic error '{model.name}' is not simulated" for model in models.responses]
    warnings += [
        f"the source '{source.name}' is simulated in every run, although it lists datasets"
        for source in models.sources
        if source.datasets is not None
    ]
    if not factors:
        return None, warnings
    return lambda energy: np.prod([factor(energy) for factor in factors], axis=0), warnings


def draw_background(
    bkg: IrfTable, ontime: float, rng: Generator, factor: Factor | None = None, most: float = 1e6
) -> Background:
    """Background events of a run.

    Parameters
    ----------
    bkg : IrfTable
        ``bkg_3d`` or ``bkg_2d``.
    ontime : float
        Good time, s, not corrected for dead time.
    rng : Generator
    factor : function (energy, TeV) -> array, optional
        Multiplies the rate.
    most : float
        Number of events that is refused.

    Raises
    ------
    InputError
        If there would be more events than ``most``.
    """
    table = bkg.axis("energy").edges.to_value(u.TeV)
    steps = int(np.ceil(_STEPS_PER_DECADE * np.log10(table[-1] / table[0])))
    energy = Axis.from_bounds("energy", table[0] * u.TeV, table[-1] * u.TeV, steps)
    edges = {}
    for name in ("fov_lon", "fov_lat"):
        low, high = _limits(bkg, name)
        edges[name] = np.linspace(low, high, max(round(np.degrees(high - low) / _CELL), 1) + 1)
    x, y = (0.5 * (edges[name][1:] + edges[name][:-1]) for name in ("fov_lon", "fov_lat"))
    grid_x, grid_y = np.meshgrid(x, y, indexing="ij")
    # the table as it is: its orientation is applied to the events
    plain = replace(bkg, meta={**bkg.meta, "fov_alignment": "RADEC"})
    rate = background_rate(plain, energy, grid_x.ravel(), grid_y.ravel()).to_value("s-1 sr-1")
    if factor is not None:
        rate = rate * np.maximum(np.asarray(factor(energy.centers.to_value(u.TeV))), 0.0)[:, None]
    solid_angle = (x[1] - x[0]) * np.diff(np.sin(edges["fov_lat"]))
    expected = (rate.reshape(energy.n_bins, len(x), len(y)) * solid_angle * ontime).ravel()
    total = expected.sum()
    if not total <= most:
        raise InputError(
            f"the background would give {total:.3g} events in one run: lower its flux or the duration"
        )
    if not total > 0:
        return replace(Background.empty(), alignment=str(bkg.meta.get("fov_alignment", "RADEC")))
    number = rng.poisson(total)
    cell = draw_cells(np.cumsum(expected), rng.random(number))
    k, i, j = np.unravel_index(cell, (energy.n_bins, len(x), len(y)))
    log_edges = np.log(energy.edges.to_value(u.TeV))
    drawn = np.exp(log_edges[k] + rng.random(number) * np.diff(log_edges)[k])
    fov_lon = edges["fov_lon"][i] + rng.random(number) * (x[1] - x[0])
    sin_lat = np.sin(edges["fov_lat"])
    fov_lat = np.arcsin(sin_lat[j] + rng.random(number) * np.diff(sin_lat)[j])
    alignment = "RADEC" if bkg.kind == "bkg_2d" else str(bkg.meta.get("fov_alignment", "RADEC"))
    return Background(drawn, fov_lon, fov_lat, alignment)


def _limits(bkg: IrfTable, name: str) -> tuple[float, float]:
    if bkg.kind == "bkg_2d":
        reach = float(bkg.axis("offset").edges[-1].to_value(u.rad))
        return -reach, reach
    edges = bkg.axis(name).edges.to_value(u.rad)
    return float(edges[0]), float(edges[-1])
