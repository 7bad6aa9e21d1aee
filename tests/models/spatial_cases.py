"""Every registered spatial model away from its defaults, with the options it needs: what contracts are tested on."""

from typing import Any

import numpy as np

from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Component
from dl3flow.models.spatial import SPATIAL_MODELS

WINDOW = SkyGeometry("icrs", "TAN", 83.63, 22.01, 0.02, (49, 49), (20.3, 31.0))
# a place off the pixel centres, near the middle of the window
CENTER = np.radians([float(v) for v in WINDOW.wcs.all_pix2world(24.13, 23.88, 0)])
ENERGY = np.array([0.5, 1.5, 4.0])
ENERGY.setflags(write=False)

# degrees for angles
_VALUES: dict[str, dict[str, float]] = {
    "gauss": {"sigma": 0.06, "e": 0.6, "phi": 30.0},
    "gauss_by_energy": {"sigma": 0.05, "delta": 0.2, "reference": 1.0},
    "gauss_general": {"r_0": 0.08, "eta": 0.4, "e": 0.3, "phi": 25.0},
    "disk": {"r_0": 0.23, "e": 0.5, "phi": 25.0, "edge_width": 0.05},
    "shell": {"radius": 0.2, "width": 0.1},
    "shell2": {"r_0": 0.3, "eta": 0.3},
    "constant": {"value": 2.0},
}
# what a symmetric model has where it has no direction
ROUND = {"e": 0.0, "phi": 0.0}


def template_options(n_energy: int = 0) -> dict[str, Any]:
    """A map of a sloping ridge, and the same at several energies."""
    geom = SkyGeometry("icrs", "TAN", 83.6, 22.0, 0.03, (24, 22), (11.5, 12.5))
    y, x = np.indices(geom.shape)
    image = np.exp(-0.5 * (((x - 11) / 4) ** 2 + ((y - 12) / 3) ** 2 + 0.1 * np.cos(x * y)))
    options: dict[str, Any] = {"geom": geom, "normalize": True, "frame": "icrs"}
    if not n_energy:
        return {**options, "values": _read_only(image)}
    cube = image * np.linspace(1.0, 0.3, n_energy)[:, None, None]
    return {**options, "values": _read_only(cube), "edges": _read_only(np.geomspace(0.3, 10, n_energy + 1))}


def _read_only(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)
    return values


def model(name: str, **options: Any) -> ModelFunction:
    """Model of a name; a template takes a map if it is not given one."""
    if name == "template" and not options:
        options = template_options()
    return resolve(Component(name, (), options), "spatial", name)


def names_of(name: str) -> list[str]:
    """Parameters of a model."""
    return list(SPATIAL_MODELS.find(name, name).parameters)


def values_of(name: str, **changed: float) -> np.ndarray:
    """Values in internal units (angles of ``changed`` in degrees) at `CENTER`."""
    given = {**_VALUES.get(name, {}), **changed}
    found = []
    for key, (unit, default) in SPATIAL_MODELS.find(name, name).parameters.items():
        if key in ("lon_0", "lat_0"):
            found.append(CENTER[int(key == "lat_0")])
        else:
            value = given.get(key, default)
            found.append(np.radians(value) if key in given and str(unit) == "rad" else value)
    return np.array(found, dtype=float)


def energies(found: ModelFunction) -> np.ndarray | None:
    """What a model whose shape depends on energy is given."""
    return ENERGY if found.companions.get("by_energy") else None
