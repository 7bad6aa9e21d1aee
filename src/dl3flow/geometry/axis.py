"""Axis: the bins or nodes of one quantity (energy, energy_true, offset, rad, migra, fov_lon, fov_lat)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import astropy.units as u
import numpy as np

from dl3flow.errors import InputError
from dl3flow.registry import convert

Scale = Literal["lin", "log"]
_EDGE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Axis:
    """Contiguous bins of one quantity.

    Attributes
    ----------
    name : str
        Field's standard name, such as ``energy`` or ``offset``.
    edges : Quantity, shape (n + 1,)
        Increasing bin edges.
    scale : 'lin' or 'log'
        Coordinate in which values between bins are interpolated; also the mean that defines the centres.
    nodes : Quantity, shape (n,), optional
        Points at which a table is sampled, where they are given instead of bins.
    """

    name: str
    edges: u.Quantity
    scale: Scale = "lin"
    nodes: u.Quantity | None = None

    @classmethod
    def from_nodes(cls, name: str, nodes: u.Quantity, scale: Scale = "lin") -> "Axis":
        """Axis of sampled points: edges half-way between the nodes, extended by half a step at both ends."""
        x = _forward(nodes.value, scale)
        if len(x) == 1:
            return cls(name, u.Quantity([nodes[0], nodes[0]]), scale, nodes)
        middle = 0.5 * (x[1:] + x[:-1])
        ends = np.concatenate([[x[0] - (middle[0] - x[0])], middle, [x[-1] + (x[-1] - middle[-1])]])
        return cls(name, _backward(ends, scale) * nodes.unit, scale, nodes)

    @classmethod
    def from_bounds(
        cls, name: str, low: u.Quantity, high: u.Quantity, nbin: int, scale: Scale = "log"
    ) -> "Axis":
        """Axis of ``nbin`` bins of equal width in ``scale`` from ``low`` to ``high``."""
        low, high = u.Quantity(low), u.Quantity(high).to(u.Quantity(low).unit)
        edges = _backward(
            np.linspace(_forward(low.value, scale), _forward(high.value, scale), nbin + 1), scale
        )
        edges[0], edges[-1] = low.value, high.value
        return cls(name, edges * low.unit, scale)

    @property
    def unit(self) -> u.UnitBase:
        """Unit of the edges."""
        return self.edges.unit

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1 if self.nodes is None else len(self.nodes)

    @property
    def centers(self) -> u.Quantity:
        """Nodes where given, else the mean of the edges: geometric for ``log``, arithmetic for ``lin``."""
        if self.nodes is not None:
            return self.nodes
        x = _forward(self.edges.value, self.scale)
        return _backward(0.5 * (x[1:] + x[:-1]), self.scale) * self.unit

    @property
    def widths(self) -> u.Quantity:
        """Width of each bin."""
        return np.diff(self.edges)

    def scaled(self, values: u.Quantity) -> np.ndarray:
        """Coordinate of ``values`` in which the axis interpolates: their logarithm, or themselves, in the axis' unit."""
        return _forward(values.to_value(self.unit), self.scale)

    def index(self, values: u.Quantity) -> np.ndarray:
        """Bin of each value, -1 outside; bins are [low, high), and the last one includes its upper edge."""
        edges, x = self.edges.value, values.to_value(self.unit)
        found = np.searchsorted(edges, x, side="right") - 1
        found = np.where(x == edges[-1], self.n_bins - 1, found)
        return np.where((x >= edges[0]) & (x <= edges[-1]), found, -1)

    def contains_bin(self, low: u.Quantity | None, high: u.Quantity | None) -> np.ndarray:
        """True for bins that lie whole in [low, high], up to a rounding of 1e-6 of the edge."""
        edges = self.edges.value
        inside = np.ones(self.n_bins, dtype=bool)
        if low is not None:
            inside &= edges[:-1] >= low.to_value(self.unit) * (1 - _EDGE_TOLERANCE)
        if high is not None:
            inside &= edges[1:] <= high.to_value(self.unit) * (1 + _EDGE_TOLERANCE)
        return inside

    def part(self, start: int, stop: int) -> "Axis":
        """Bins ``start`` to ``stop`` - 1."""
        nodes = None if self.nodes is None else self.nodes[start:stop]
        return Axis(self.name, self.edges[start : stop + 1], self.scale, nodes)

    def edge_index(self, edges: u.Quantity, where: str) -> np.ndarray:
        """Place of each of ``edges`` among this axis' own, of which it must be one up to a rounding of 1e-6.

        Raises
        ------
        InputError
            Beginning with ``where``, if one is not.
        """
        own, asked = self.edges.value, edges.to_value(self.unit)
        at = np.abs(own[None, :] - asked[:, None]).argmin(axis=1)
        missing = ~np.isclose(own[at], asked, rtol=_EDGE_TOLERANCE, atol=1e-12)
        if missing.any():
            raise InputError(
                f"{where}: {asked[missing][0]:.6g} {self.unit} is no edge of its axis '{self.name}', which runs from {own[0]:.6g} to "
                f"{own[-1]:.6g} {self.unit} in {self.n_bins} bins: bins are merged whole"
            )
        return np.asarray(at)

    def renamed(self, name: str) -> "Axis":
        """Same bins under another name."""
        return Axis(name, self.edges, self.scale, self.nodes)

    def is_close(self, other: "Axis") -> bool:
        """True if both have the same name, unit dimension and edges to 1e-6."""
        return (
            self.name == other.name
            and self.n_bins == other.n_bins
            and self.unit.is_equivalent(other.unit)
            and bool(np.allclose(self.edges.value, other.edges.to_value(self.unit), rtol=1e-6, atol=1e-12))
        )


def _forward(x: np.ndarray, scale: Scale) -> np.ndarray:
    return np.log(x) if scale == "log" else np.asarray(x, dtype=float)


def _backward(x: np.ndarray, scale: Scale) -> np.ndarray:
    return np.exp(x) if scale == "log" else x


def parse_energy_edges(entry: Any) -> u.Quantity:
    """Edges of an energy axis from ``{min, max, nbin}``, ``{min, max, per_decade}`` or ``{edges: [...]}``.

    Returns
    -------
    edges : Quantity, shape (n + 1,), energy

    Raises
    ------
    ValueError
        If a key is unknown or missing, a limit has no energy unit, or the range is empty.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"expected `{{min: 1 TeV, max: 10 TeV, nbin: 8}}` or `{{edges: [...]}}`, found {entry!r}"
        )
    keys = set(entry)
    if keys == {"edges"}:
        edges = u.Quantity(convert(list(entry["edges"]), list[Annotated[u.Quantity, u.TeV]], "edges"))
        if len(edges) < 2 or not np.all(np.diff(edges.value) > 0) or edges[0].value <= 0:
            raise ValueError(f"`edges` must be positive and increase, found {entry['edges']!r}")
        return edges
    if keys not in ({"min", "max", "nbin"}, {"min", "max", "per_decade"}):
        raise ValueError(
            f"expected the keys `min`, `max` and `nbin` (or `per_decade`), or `edges`, found {sorted(map(str, keys))}"
        )
    low, high = (convert(entry[key], Annotated[u.Quantity, u.TeV], key) for key in ("min", "max"))
    if low.value <= 0:
        raise ValueError(f"`min` must be positive, found '{entry['min']}'")
    if low >= high:
        raise ValueError(f"`min` ({entry['min']}) must be below `max` ({entry['max']})")
    count = "nbin" if "nbin" in keys else "per_decade"
    number = convert(entry[count], int, count)
    if number < 1:
        raise ValueError(f"`{count}` must be at least 1, found {number}")
    if number > 10_000:
        raise ValueError(f"`{count}` must be at most 10000, found {number}")
    if count == "per_decade":
        number = max(1, int(np.ceil(number * np.log10((high / low).to_value("")) - 1e-9)))
    return Axis.from_bounds("energy", low, high, number).edges


def _energy_axis(entry: Any) -> Axis:
    return Axis("energy", parse_energy_edges(entry), "log")


def _energy_true_axis(entry: Any) -> Axis:
    return Axis("energy_true", parse_energy_edges(entry), "log")


def _energy_range(entry: Any) -> Axis:
    if not isinstance(entry, Mapping) or set(entry) != {"min", "max"}:
        raise ValueError(f"expected `{{min: 1 TeV, max: 10 TeV}}`, found {entry!r}")
    return _energy_axis({**entry, "nbin": 1})


EnergyRange = Annotated[Axis, _energy_range]
EnergyAxis = Annotated[Axis, _energy_axis]
EnergyTrueAxis = Annotated[Axis, _energy_true_axis]


def parse_positive_angle(entry: Any) -> u.Quantity:
    """Angle above zero from text such as ``0.5 deg``.

    Raises
    ------
    ValueError
        If it has no angular unit or is not positive.
    """
    angle = convert(entry, Annotated[u.Quantity, u.deg], "value")
    if angle <= 0 * u.deg:
        raise ValueError(f"expected an angle above 0, found '{entry}'")
    return angle


PositiveAngle = Annotated[u.Quantity, parse_positive_angle]
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
