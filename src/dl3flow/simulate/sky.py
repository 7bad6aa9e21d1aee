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
_CELLS, _FINE_CELLS = 4, 24
_LEAST_CELLS, _MOST_CELLS = 64, 2000
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
class Image:
    """A shape at one energy, on cells of a window of its own.

    Attributes
    ----------
    lon, lat : float
        Middle of the window in the frame of the model, rad.
    x, y : array, shape (n + 1,)
        Edges of the cells: longitude and latitude about the middle, rad.
    share : float
        Of the flux within the window; of a model that is not normalised, its integral.
    cumulative : array, shape (n x n,)
    """

    lon: float
    lat: float
    x: np.ndarray
    y: np.ndarray
    share: float
    cumulative: np.ndarray

    def draw(self, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude, rad, from three uniform numbers for each photon, shape (3, n)."""
        row, column = np.divmod(draw_cells(self.cumulative, uniform[0]), len(self.x) - 1)
        x = self.x[column] + uniform[1] * np.diff(self.x)[column]
        sin_y = np.sin(self.y)
        y = np.arcsin(sin_y[row] + uniform[2] * np.diff(sin_y)[row])
        return fov.fov_to_sky(x, y, self.lon, self.lat)


@dataclass(frozen=True, eq=False)
class Extended:
    """A shape of one image, or one per energy.

    Attributes
    ----------
    frame : str
        Of the model.
    nodes : array, shape (k,)
        Logarithms of the energies of the images.
    images : tuple of Image
    """

    frame: str
    nodes: np.ndarray
    images: tuple[Image, ...]

    def share(self, energy: np.ndarray) -> np.ndarray:
        """Share of the flux within the field at each energy (TeV)."""
        places, weights = self._between(energy)
        return np.asarray((weights * self._shares[places]).sum(axis=0))

    def draw(self, energy: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude (ICRS, rad) of photons of each energy (TeV)."""
        n = len(energy)
        chosen = np.zeros(n, dtype=int)
        if len(self.nodes) > 1:
            # between two energies the density is interpolated: a photon belongs to either image
            places, weights = self._between(energy)
            parts = weights * self._shares[places]
            chosen = np.where(rng.random(n) * parts.sum(axis=0) < parts[0], places[0], places[1])
        uniform, lon, lat = rng.random((3, n)), np.zeros(n), np.zeros(n)
        for k in np.unique(chosen):
            here = chosen == k
            lon[here], lat[here] = self.images[k].draw(uniform[:, here])
        return to_icrs(lon, lat, self.frame)

    @property
    def _shares(self) -> np.ndarray:
        return np.array([image.share for image in self.images])

    def _between(self, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.nodes[0], self.nodes[-1]
        return nearest_nodes(self.nodes, np.clip(np.log(energy), low, high), low, high)


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
    nodes = _energy_nodes(energy) if depends_on_energy(model) else np.zeros(1)
    energies = [np.exp(nodes[k : k + 1]) if len(nodes) > 1 else None for k in range(len(nodes))]
    at = None if model.companions.get("is_everywhere") else declared_position(source.spatial)
    sizes = [np.pi if at is None else radius(model, values, energy_true) for energy_true in energies]
    if at is not None:
        here = at.icrs
        distance = fov.separation(np.array(here.ra.rad), np.array(here.dec.rad), lon, lat)
        if float(distance) - max(sizes) > reach:
            return None
        if model.companions.get("is_point"):
            return Point(float(here.ra.rad), float(here.dec.rad))
    frame = str(source.spatial.options.get("frame", "icrs"))
    pointing = SkyCoord(lon * u.rad, lat * u.rad, frame="icrs").transform_to(frame)
    images = []
    for energy_true, size in zip(energies, sizes, strict=True):
        is_whole = at is not None and size < reach
        middle = (at.transform_to(frame) if is_whole and at is not None else pointing).spherical
        half = min(size if is_whole else _MARGIN * reach, np.pi / 2)
        images.append(_image(model, values, (middle.lon.rad, middle.lat.rad), half, energy_true, is_whole))
    return Extended(frame, nodes, tuple(images))


def internal_values(component: Component, model: ModelFunction) -> np.ndarray:
    """Values of a component's parameters in internal units."""
    pairs = zip(component.parameters, model.units, strict=True)
    return np.array([p.quantity.to_value(unit) for p, unit in pairs], dtype=float)


def _energy_nodes(energy: tuple[float, float]) -> np.ndarray:
    low, high = np.log(energy)
    return np.linspace(low, high, max(int(np.ceil((high - low) / np.log(10) * _NODES_PER_DECADE)), 1) + 1)


def _image(
    model: ModelFunction,
    values: np.ndarray,
    middle: tuple[float, float],
    half: float,
    energy: np.ndarray | None,
    is_whole: bool,
) -> Image:
    smooth = model.companions.get("resolution")
    at = {} if energy is None else {"energy": energy}
    # a model that is not scaled to a sum of one may end at an edge, where its integral must not depend on the cells
    cells = _FINE_CELLS if model.companions.get("is_absolute") else _CELLS
    step = half if smooth is None else max(float(smooth(*values, **at)), 1e-9) / cells
    most = _MOST_CELLS if energy is None else _MOST_CELLS // 4
    n = int(np.clip(np.ceil(2 * half / step), _LEAST_CELLS, most))
    x = y = np.linspace(-half, half, n + 1)
    grid_x, grid_y = np.meshgrid(0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1]))
    lon, lat = fov.fov_to_sky(grid_x, grid_y, *middle)
    # the edge of the field cuts a shape that goes on beyond it, not the corners of a window around it
    inside = np.hypot(grid_x, grid_y) <= half if not is_whole else np.ones(grid_x.shape, dtype=bool)
    directions = (lon, lat) if "by_energy" not in model.companions else (lon, lat, energy)
    density = np.asarray(model.function(*directions, *values), dtype=float).reshape(n, n)
    area = (x[1] - x[0]) * np.diff(np.sin(y))[:, None]
    content = np.where(inside & np.isfinite(density), np.maximum(density, 0.0), 0.0) * area
    cumulative = np.cumsum(content.ravel())
    is_scaled = is_whole and not model.companions.get("is_absolute")
    return Image(
        float(middle[0]), float(middle[1]), x, y, 1.0 if is_scaled else float(cumulative[-1]), cumulative
    )
