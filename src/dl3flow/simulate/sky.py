"""Where the photons of a source come from: its share of flux in the field, and directions drawn from its shape."""

from dataclasses import dataclass
from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from numpy.random import Generator

from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.kernels.sampling import draw_cells, nearest_nodes
from dl3flow.models.pixels import declared_position, depends_on_energy, radius
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Component, Source

# cells per angle below which a model is smooth, in each of which its flux is even
_CELLS = 4
_LEAST_CELLS, _MOST_CELLS = 64, 2000
_MOST_VALUES = 2e7
_NODES_PER_DECADE = 12
# the plane of the cells is not the sphere
_MARGIN = 1.02


@dataclass(frozen=True, eq=False)
class Point:
    """A point source: all photons from one direction (ICRS, rad)."""

    lon: float
    lat: float

    def share(self, energy: np.ndarray) -> np.ndarray:
        """All of the flux, whatever the energy."""
        return np.ones(len(energy))

    def draw(self, energy: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of each photon, rad."""
        return np.full(len(energy), self.lon), np.full(len(energy), self.lat)


@dataclass(frozen=True, eq=False)
class Extended:
    """A shape on cells of a window, of one image or one per energy.

    Attributes
    ----------
    frame : str
        Of the model.
    lon, lat : float
        Middle of the window in that frame, rad.
    x, sin_y : array, shape (n + 1,)
        Edges of the cells: longitude, and sine of the latitude, about the middle.
    nodes : array, shape (k,), or None
        Logarithms of the energies of the images; None for one image.
    shares : array, shape (k,)
        Of the flux within the window; of a model that is not normalised, its integral.
    cumulative : array, shape (k, n x n)
    """

    frame: str
    lon: float
    lat: float
    x: np.ndarray
    sin_y: np.ndarray
    nodes: np.ndarray | None
    shares: np.ndarray
    cumulative: np.ndarray

    def share(self, energy: np.ndarray) -> np.ndarray:
        """Share of the flux within the window at each energy (TeV)."""
        places, weights = self._between(energy)
        return np.asarray((weights * self.shares[places]).sum(axis=0))

    def draw(self, energy: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude (ICRS, rad) of photons of each energy (TeV)."""
        n = len(energy)
        plane = np.zeros(n, dtype=int)
        if self.nodes is not None:
            # between two energies the density is interpolated: a photon belongs to either image
            places, weights = self._between(energy)
            parts = weights * self.shares[places]
            plane = np.where(rng.random(n) * parts.sum(axis=0) < parts[0], places[0], places[1])
        uniform, cell = rng.random(n), np.zeros(n, dtype=int)
        for k in np.unique(plane):
            here = plane == k
            cell[here] = draw_cells(self.cumulative[k], uniform[here])
        row, column = np.divmod(cell, len(self.x) - 1)
        x = self.x[column] + rng.random(n) * np.diff(self.x)[column]
        sin_y = self.sin_y[row] + rng.random(n) * np.diff(self.sin_y)[row]
        lon, lat = fov.fov_to_sky(x, np.arcsin(sin_y), self.lon, self.lat)
        return to_icrs(lon, lat, self.frame)

    def _between(self, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nodes = np.zeros(1) if self.nodes is None else self.nodes
        return nearest_nodes(nodes, np.clip(np.log(energy), nodes[0], nodes[-1]), nodes[0], nodes[-1])


def to_icrs(lon: np.ndarray, lat: np.ndarray, frame: str) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination, rad, of directions in another frame."""
    if frame == "icrs":
        return lon, lat
    x, y, z = fov.rotated(fov.unit_vectors(lon, lat), _rotation(frame, "icrs"))
    return np.arctan2(y, x) % (2 * np.pi), np.arctan2(z, np.hypot(x, y))


@lru_cache(maxsize=4)
def _rotation(frame: str, other: str) -> np.ndarray:
    axes = SkyCoord(*np.eye(3), representation_type="cartesian", frame=frame).transform_to(other)
    return np.asarray(axes.cartesian.xyz.value)


def build_shape(
    source: Source, lon: float, lat: float, reach: float, energy: tuple[float, float]
) -> Point | Extended | None:
    """Shape of a source as one run sees it.

    Parameters
    ----------
    source : Source
    lon, lat : float
        Pointing, ICRS, rad.
    reach : float
        Offset beyond which nothing is detected, rad.
    energy : (float, float)
        Range of true energies, TeV.

    Returns
    -------
    shape : Point, Extended, or None if it lies outside the field

    Raises
    ------
    InputError
        If the source has no place.
    """
    where = f"source '{source.name}'"
    if source.spatial is None:
        raise InputError(
            f"{where}: it has no spatial model, and photons need a direction: give it one, such as `type: PointSpatialModel`"
        )
    model = resolve(source.spatial, "spatial", where)
    values = internal_values(source.spatial, model)
    nodes = _energy_nodes(energy) if depends_on_energy(model) else None
    at = None if model.companions.get("is_everywhere") else declared_position(source.spatial)
    size = np.pi if at is None else radius(model, values, None if nodes is None else np.exp(nodes))
    if at is not None:
        here = at.icrs
        distance = fov.separation(np.array(here.ra.rad), np.array(here.dec.rad), lon, lat)
        if float(distance) - size > reach:
            return None
        if model.companions.get("is_point"):
            return Point(float(here.ra.rad), float(here.dec.rad))
    frame = str(source.spatial.options.get("frame", "icrs"))
    is_whole = at is not None and size < reach
    if is_whole and at is not None:
        middle = at.transform_to(frame).spherical
    else:
        middle = SkyCoord(lon * u.rad, lat * u.rad, frame="icrs").transform_to(frame).spherical
    half = min(size if is_whole else _MARGIN * reach, np.pi / 2)
    return _on_cells(
        model, values, frame, (float(middle.lon.rad), float(middle.lat.rad)), half, nodes, is_whole
    )


def internal_values(component: Component, model: ModelFunction) -> np.ndarray:
    """Values of a component's parameters in internal units."""
    pairs = zip(component.parameters, model.units, strict=True)
    return np.array([p.quantity.to_value(unit) for p, unit in pairs], dtype=float)


def _energy_nodes(energy: tuple[float, float]) -> np.ndarray:
    low, high = np.log(energy)
    return np.linspace(low, high, max(int(np.ceil((high - low) / np.log(10) * _NODES_PER_DECADE)), 1) + 1)


def _on_cells(
    model: ModelFunction,
    values: np.ndarray,
    frame: str,
    middle: tuple[float, float],
    half: float,
    nodes: np.ndarray | None,
    is_whole: bool,
) -> Extended:
    energy = None if nodes is None else np.exp(nodes)
    smooth = model.companions.get("resolution")
    at = {} if energy is None else {"energy": energy}
    step = half if smooth is None else max(float(smooth(*values, **at)), 1e-9) / _CELLS
    most = min(_MOST_CELLS, int(np.sqrt(_MOST_VALUES / (1 if nodes is None else len(nodes)))))
    n = int(np.clip(np.ceil(2 * half / step), _LEAST_CELLS, most))
    x, y = np.linspace(-half, half, n + 1), np.linspace(-half, half, n + 1)
    grid_x, grid_y = np.meshgrid(0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1]))
    lon, lat = fov.fov_to_sky(grid_x, grid_y, *middle)
    # the edge of the field cuts a shape that goes on beyond it, not the corners of a window around it
    inside = np.hypot(grid_x, grid_y) <= half if not is_whole else np.ones(grid_x.shape, dtype=bool)
    directions = (lon, lat) if "by_energy" not in model.companions else (lon, lat, energy)
    density = np.asarray(model.function(*directions, *values), dtype=float).reshape(-1, n, n)
    area = (x[1] - x[0]) * np.diff(np.sin(y))[:, None]
    content = np.where(inside & np.isfinite(density), np.maximum(density, 0.0), 0.0) * area
    cumulative = np.cumsum(content.reshape(len(content), -1), axis=1)
    is_scaled = is_whole and not model.companions.get("is_absolute")
    shares = np.ones(len(content)) if is_scaled else cumulative[:, -1].copy()
    return Extended(frame, *middle, x, np.sin(y), nodes, shares, cumulative)
