"""When the photons of a source arrive: drawn from its temporal model within the good time intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dl3flow.data.events import Gti
from dl3flow.errors import InputError
from dl3flow.kernels.sampling import invert_mixture, nearest_nodes
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Source
from dl3flow.simulate.sky import internal_values

_DAY = 86400.0
# a bisection ends at a millionth of a second of a day
_HALVINGS = 40
# steps in time of a model without an integral, and of the search for negative values
_STEPS = 8192
_NODES = 48


@dataclass(frozen=True, eq=False)
class Steady:
    """A source, or a background, that does not change.

    Attributes
    ----------
    start, stop : array, shape (n,)
        Good time intervals, s after the reference.
    """

    start: np.ndarray
    stop: np.ndarray

    def mean(self, energy: np.ndarray) -> np.ndarray:
        """Mean of the factor on the flux: 1."""
        return np.ones(len(energy))

    def draw(self, uniform: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Time of each photon, s after the reference."""
        reached = np.concatenate([[0.0], np.cumsum(self.stop - self.start)])
        elapsed = uniform * reached[-1]
        k = np.clip(np.searchsorted(reached, elapsed, side="right") - 1, 0, len(self.start) - 1)
        return np.asarray(self.start[k] + (elapsed - reached[k]))


@dataclass(frozen=True, eq=False)
class Changing:
    """A source with a temporal model that has its integral in closed form.

    Attributes
    ----------
    start, stop : array, shape (n,)
        Good time intervals, s after the reference.
    origin : float
        MJD (TT) of the reference.
    integral : function (start, stop, energy) -> array
        In days, of days as MJD (TT), at energies in TeV.
    """

    start: np.ndarray
    stop: np.ndarray
    origin: float
    integral: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

    def mean(self, energy: np.ndarray) -> np.ndarray:
        """Mean of the factor on the flux at each energy (TeV)."""
        return np.asarray(self._reached(energy)[-1] / (np.sum(self.stop - self.start) / _DAY))

    def draw(self, uniform: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Time of each photon, s after the reference, by bisection of the integral."""
        reached = self._reached(energy)
        target = uniform * reached[-1]
        k = np.minimum((reached[1:] <= target).sum(axis=0), len(self.start) - 1)
        rest = target - reached[k, np.arange(len(target))]
        first = self._day(self.start[k])
        low, high = np.zeros(len(target)), self.stop[k] - self.start[k]
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            is_later = self.integral(first, first + middle / _DAY, energy) < rest
            low, high = np.where(is_later, middle, low), np.where(is_later, high, middle)
        return np.asarray(self.start[k] + 0.5 * (low + high))

    def _day(self, seconds: np.ndarray) -> np.ndarray:
        return np.asarray(self.origin + seconds / _DAY)

    def _reached(self, energy: np.ndarray) -> np.ndarray:
        """Integral until the end of each interval, from 0, shape (n + 1, n_energy)."""
        first, last = self._day(self.start)[:, None], self._day(self.stop)[:, None]
        parts = self.integral(first, last, energy[None]) + np.zeros(len(energy))
        return np.concatenate([np.zeros((1, len(energy))), np.cumsum(parts, axis=0)])


@dataclass(frozen=True, eq=False)
class Stepped:
    """A source with a temporal model that has no integral: the factor is even within small steps.

    Attributes
    ----------
    edges, widths : array, shape (n_steps,)
        Begin and length of each step, s.
    nodes : array, shape (k,)
        Logarithms of energies; one where they make no difference.
    cumulative : array, shape (k, n_steps + 1)
        Integral over time, s.
    """

    edges: np.ndarray
    widths: np.ndarray
    nodes: np.ndarray
    cumulative: np.ndarray

    def mean(self, energy: np.ndarray) -> np.ndarray:
        """Mean of the factor on the flux at each energy (TeV)."""
        rows, weights = self._between(energy)
        return np.asarray((weights * self.cumulative[rows, -1]).sum(axis=0) / self.widths.sum())

    def draw(self, uniform: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Time of each photon, s after the reference."""
        step, part = invert_mixture(self.cumulative, *self._between(energy), uniform)
        return np.asarray(self.edges[step] + part * self.widths[step])

    def _between(self, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.nodes[0], self.nodes[-1]
        return nearest_nodes(self.nodes, np.clip(np.log(energy), low, high), low, high)


Arrival = Steady | Changing | Stepped


def build_arrival(source: Source, gti: Gti, energy: tuple[float, float]) -> Arrival:
    """Arrival times of a source's photons in good time intervals.

    Parameters
    ----------
    source : Source
    gti : Gti
    energy : (float, float)
        Range of true energies, TeV.

    Raises
    ------
    InputError
        If the temporal model is negative within the intervals.
    """
    start, stop = gti.start.to_value("s"), gti.stop.to_value("s")
    if source.temporal is None or source.temporal.kind == "constant":
        return Steady(start, stop)
    where = f"source '{source.name}'"
    model = resolve(source.temporal, "temporal", where)
    values = internal_values(source.temporal, model)
    reference = gti.reference.tt
    origin = float(reference.jd1 - 2400000.5 + reference.jd2)
    is_by_energy = bool(model.companions.get("by_energy"))
    stepped = _on_steps(model, values, start, stop, origin, energy if is_by_energy else None, where)
    integral = model.companions.get("integral")
    if integral is None:
        return stepped

    def over(first: np.ndarray, last: np.ndarray, energy: np.ndarray) -> np.ndarray:
        at = [energy] if is_by_energy else []
        with np.errstate(all="ignore"):  # an interval of no length has no mean
            return np.asarray(integral(first, last, *at, *values))

    return Changing(start, stop, origin, over)


def _on_steps(
    model: ModelFunction,
    values: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    origin: float,
    energy: tuple[float, float] | None,
    where: str,
) -> Stepped:
    n = np.maximum(np.ceil(_STEPS * (stop - start) / np.sum(stop - start)).astype(int), 1)
    edges = np.concatenate(
        [np.linspace(a, b, k, endpoint=False) for a, b, k in zip(start, stop, n, strict=True)]
    )
    widths = np.concatenate([np.full(k, (b - a) / k) for a, b, k in zip(start, stop, n, strict=True)])
    days = origin + (edges + 0.5 * widths) / _DAY
    nodes = np.zeros(1) if energy is None else np.linspace(np.log(energy[0]), np.log(energy[1]), _NODES)
    at = [] if energy is None else [np.exp(nodes)[:, None]]
    factor = np.asarray(model.function(days[None], *at, *values), dtype=float).reshape(len(nodes), -1)
    if not np.all(factor >= 0):
        raise InputError(
            f"{where}: its temporal model '{model.name}' falls to {np.nanmin(factor):.3g} within the run, and a flux cannot be "
            "negative: change its parameters"
        )
    sums = np.cumsum(factor * widths, axis=1)
    return Stepped(edges, widths, nodes, np.concatenate([np.zeros((len(nodes), 1)), sums], axis=1))
