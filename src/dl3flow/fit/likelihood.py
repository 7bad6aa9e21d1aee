"""The statistic of datasets under models: a pure function of the free vector, with its gradient.

Cash (1979) in gammapy's convention, 2 sum(mu - n ln mu) with mu cut at 1e-25, and wstat with its saturated terms, so that
totals compare; chi2 for flux points. An expected background enters through sums per energy bin; only the window that a source reaches is
evaluated bin by bin.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dl3flow.data.dataset import Dataset, ExpectedCounts, FitData, FluxPointsData, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.binding import free_parameters
from dl3flow.fit.npred import Signal, build_fluxes, build_signals, build_weight, start_vector
from dl3flow.kernels.statistics import TRUNCATION, wstat, wstat_slope, wstat_ts
from dl3flow.models.source import Models
from dl3flow.units import DNDE

# a background's norm below this is taken as this: its logarithm is needed
_SMALLEST_WEIGHT = 1e-10

StatFunction = Callable[[np.ndarray, np.ndarray | None], float]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Statistic of several datasets as a function of one free vector.

    Attributes
    ----------
    names : tuple of str
        Full names of the free parameters.
    start : array, shape (n_free,)
    terms : tuple of functions (x, gradient or None) -> float
        One per dataset; each adds its derivatives to the given gradient.
    """

    names: tuple[str, ...]
    start: np.ndarray
    terms: tuple[StatFunction, ...]

    def stat(self, x: np.ndarray) -> float:
        """Sum of the statistic at ``x``."""
        return float(sum(term(x, None) for term in self.terms))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Derivatives of `stat` by the free vector."""
        gradient = np.zeros(len(x))
        for term in self.terms:
            term(x, gradient)
        return gradient


def build_likelihood(datasets: Sequence[FitData], models: Models) -> Likelihood:
    """Joint likelihood of ``datasets``: the sum of theirs, with parameters shared by name."""
    names, _ = free_parameters(models)
    return Likelihood(names, start_vector(models), tuple(build_stat(dataset, models) for dataset in datasets))


def build_stat(dataset: FitData, models: Models) -> StatFunction:
    """Statistic of one dataset over its fit bins, as a function of the free vector.

    Cash where the background is expected, wstat where it is measured, chi2 for flux points.

    Returns
    -------
    stat : function (x, gradient or None) -> float
        Adds d(stat)/dx to ``gradient`` where one is given.

    Raises
    ------
    InputError
        If the dataset has no background, or data that cannot be.
    """
    if isinstance(dataset, FluxPointsData):
        return _build_chi2(dataset, models)
    _check_data(dataset)
    match dataset.background:
        case ExpectedCounts(counts):
            return _build_cash(dataset, counts.data, models)
        case OffCounts() as off:
            return _build_wstat(dataset, off, models)
        case None:
            raise InputError(
                f"dataset '{dataset.name}': it has no background: name a method such as `reflected` in its `background`"
            )


def _check_data(dataset: Dataset) -> None:
    """Refuse numbers that the statistic would pass over, or spread over all bins: files made elsewhere may hold any."""
    parts = {"counts": dataset.counts.data}
    match dataset.background:
        case ExpectedCounts(counts):
            parts["background"] = counts.data
        case OffCounts(counts, acceptance, acceptance_off):
            parts |= {
                "off counts": counts.data,
                "acceptance": acceptance.data,
                "acceptance_off": acceptance_off.data,
            }
    wrong = {name: int(np.count_nonzero(dataset.mask & ~_is_sane(values))) for name, values in parts.items()}
    wrong["exposure"] = int(np.count_nonzero(~_is_sane(dataset.exposure.data)))
    found = ", ".join(f"{name} in {n} bins" for name, n in wrong.items() if n)
    if found:
        raise InputError(
            f"dataset '{dataset.name}': numbers that are negative or not finite ({found}): make its file again, or take such bins out "
            "of its safe mask"
        )


def _is_sane(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(values) & (values >= 0))


def _build_cash(dataset: Dataset, expected: np.ndarray, models: Models) -> StatFunction:
    mask = dataset.mask
    counts = np.where(mask, dataset.counts.data, 0.0)
    background = np.where(mask & (expected > 0), expected, 0.0)
    has_background = background > 0
    background_sum = background.sum(axis=(1, 2))
    counts_sum = np.where(has_background, counts, 0.0).sum(axis=(1, 2))
    occupied = counts > 0
    log_base = np.log(np.where(has_background, background, TRUNCATION))
    constant = float((counts[occupied] * log_base[occupied]).sum()) - TRUNCATION * np.count_nonzero(
        mask & ~has_background
    )
    signals = build_signals(dataset, models)
    weigh = build_weight(dataset, models)

    def stat(x: np.ndarray, gradient: np.ndarray | None) -> float:
        weight, weight_gradient, binding = weigh(x)
        weight = np.maximum(weight, _SMALLEST_WEIGHT)
        total = float(weight @ background_sum - counts_sum @ np.log(weight)) - constant
        by_weight = background_sum - counts_sum / weight
        reached = _Reached.of(signal(x) for signal in signals)
        if reached is not None:
            m, n, b, has_b, has_n = (
                v[reached.window] for v in (mask, counts, background, has_background, occupied)
            )
            without = weight[:, None, None] * b
            mu = without + reached.counts
            above = m & (mu > TRUNCATION)
            mu = np.where(above, mu, TRUNCATION)
            base = np.where(has_b, without, TRUNCATION)
            total += float((mu - base).sum(where=m) - (n[has_n] * np.log(mu[has_n] / base[has_n])).sum())
            if gradient is not None:
                residual = np.where(above, 1 - n / mu, 0.0)
                by_weight = by_weight + (
                    b * residual - np.where(has_b, b - n / weight[:, None, None], 0.0)
                ).sum(axis=(1, 2))
                reached.pull(2 * residual, gradient)
        if gradient is not None and binding is not None:
            binding.pull(weight_gradient @ (2 * by_weight), gradient)
        return 2 * total

    return stat


def _build_wstat(dataset: Dataset, off: OffCounts, models: Models) -> StatFunction:
    mask = dataset.mask
    n_on, n_off, alpha = (np.where(mask, v, 0.0) for v in (dataset.counts.data, off.counts.data, off.alpha))
    without = wstat_ts(n_on, n_off, alpha)
    constant = float(without.sum())
    signals = build_signals(dataset, models)

    def stat(x: np.ndarray, gradient: np.ndarray | None) -> float:
        reached = _Reached.of(signal(x) for signal in signals)
        if reached is None:
            return constant
        n, m, a = (v[reached.window] for v in (n_on, n_off, alpha))
        if gradient is not None:
            reached.pull(wstat_slope(n, m, a, reached.counts), gradient)
        return constant + float((wstat(n, m, a, reached.counts) - without[reached.window]).sum())

    return stat


def _build_chi2(points: FluxPointsData, models: Models) -> StatFunction:
    """Sum of ((dnde - model) / error)^2, with the error on the model's side of each point."""
    used = points.mask
    measured, below, above = (q.to_value(DNDE)[used] for q in (points.dnde, points.errn, points.errp))
    build = build_fluxes(points.energy_ref[used], points.name, models)

    def stat(x: np.ndarray, gradient: np.ndarray | None) -> float:
        expected, pull = build(x)
        pulls = (measured - expected) / np.where(expected > measured, above, below)
        if gradient is not None:
            pull(-2 * pulls / np.where(expected > measured, above, below), gradient)
        return float((pulls**2).sum())

    return stat


@dataclass(frozen=True, eq=False)
class _Reached:
    """Sum of the signals in the smallest window that holds them all."""

    window: tuple[slice, slice, slice]
    counts: np.ndarray
    parts: tuple[Signal, ...]

    @classmethod
    def of(cls, found: Iterable[Signal | None]) -> "_Reached | None":
        parts = tuple(part for part in found if part is not None)
        if not parts:
            return None
        rows = slice(min(p.rows.start for p in parts), max(p.rows.stop for p in parts))
        columns = slice(min(p.columns.start for p in parts), max(p.columns.stop for p in parts))
        window = (slice(None), rows, columns)
        counts = np.zeros((len(parts[0].counts), rows.stop - rows.start, columns.stop - columns.start))
        reached = cls(window, counts, parts)
        for part in parts:
            counts[:, *reached._inner(part)] += part.counts
        return reached

    def _inner(self, part: Signal) -> tuple[slice, slice]:
        _, rows, columns = self.window
        return (
            slice(part.rows.start - rows.start, part.rows.stop - rows.start),
            slice(part.columns.start - columns.start, part.columns.stop - columns.start),
        )

    def pull(self, by_counts: np.ndarray, gradient: np.ndarray) -> None:
        """Add the derivatives of sum(by_counts x counts) to ``gradient``."""
        for part in self.parts:
            part.pull(by_counts[:, *self._inner(part)], gradient)
