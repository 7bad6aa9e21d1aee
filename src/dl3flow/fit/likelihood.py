"""The statistic of datasets under models: a pure function of the free vector, with its gradient.

Cash (1979) in gammapy's convention, 2 sum(mu - n ln mu) with mu cut at 1e-25, so that totals compare. The background of
a dataset enters through sums per energy bin; only the window that a source reaches is evaluated bin by bin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.fit.binding import free_parameters
from dl3flow.fit.npred import build_signals, build_weight, start_vector
from dl3flow.kernels.statistics import TRUNCATION
from dl3flow.models.source import Models

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


def build_likelihood(datasets: Sequence[Dataset], models: Models) -> Likelihood:
    """Joint likelihood of ``datasets``: the sum of theirs, with parameters shared by name."""
    names, _ = free_parameters(models)
    return Likelihood(names, start_vector(models), tuple(build_stat(dataset, models) for dataset in datasets))


def build_stat(dataset: Dataset, models: Models) -> StatFunction:
    """Cash statistic of one dataset over its fit bins, as a function of the free vector.

    Returns
    -------
    stat : function (x, gradient or None) -> float
        Adds d(stat)/dx to ``gradient`` where one is given.
    """
    mask = dataset.mask
    counts = np.where(mask, dataset.counts.data, 0.0)
    background = np.where(mask & (dataset.background.counts.data > 0), dataset.background.counts.data, 0.0)
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
        parts = [part for signal in signals if (part := signal(x)) is not None]
        if parts:
            rows = slice(min(p.rows.start for p in parts), max(p.rows.stop for p in parts))
            columns = slice(min(p.columns.start for p in parts), max(p.columns.stop for p in parts))
            seen = (slice(None), rows, columns)
            m, n, b, has_b, has_n = (v[seen] for v in (mask, counts, background, has_background, occupied))
            without = weight[:, None, None] * b
            mu = without.copy()
            for p in parts:
                mu[
                    :,
                    p.rows.start - rows.start : p.rows.stop - rows.start,
                    p.columns.start - columns.start : p.columns.stop - columns.start,
                ] += p.counts
            above = m & (mu > TRUNCATION)
            mu = np.where(above, mu, TRUNCATION)
            base = np.where(has_b, without, TRUNCATION)
            total += float((mu - base).sum(where=m) - (n[has_n] * np.log(mu[has_n] / base[has_n])).sum())
            if gradient is not None:
                residual = np.where(above, 1 - n / mu, 0.0)
                by_weight = by_weight + (
                    b * residual - np.where(has_b, b - n / weight[:, None, None], 0.0)
                ).sum(axis=(1, 2))
                for p in parts:
                    inner = (
                        slice(p.rows.start - rows.start, p.rows.stop - rows.start),
                        slice(p.columns.start - columns.start, p.columns.stop - columns.start),
                    )
                    p.pull(2 * residual[:, *inner], gradient)
        if gradient is not None and binding is not None:
            binding.pull(weight_gradient @ (2 * by_weight), gradient)
        return 2 * total

    return stat
