"""Goodness of fit: whether counts scatter around a fit as Poisson counts do.

Three tests, for different cases (docs/statistics.md): `cash` compares the statistic with its own mean and variance, bin by
bin, also where bins hold less than one count; `chi2` groups bins until they expect enough counts; `toys` repeats the fit
on counts drawn from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dl3flow.data.dataset import Dataset, ExpectedCounts, FitData, FluxPointsData, OffCounts
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import alpha_scale, predict_counts
from dl3flow.kernels.goodness import cash_moments, group_starts, p_value_of_moments
from dl3flow.kernels.statistics import cash_ts, wstat, wstat_background
from dl3flow.models.source import Models

_AT_LEAST = 20.0
_MANY_TOYS = 20


@dataclass(frozen=True, eq=False)
class Goodness:
    """A test of how well a fit describes its data.

    Attributes
    ----------
    method : str
    value : float
        The test's statistic.
    expected, deviation : float
        Its mean and standard deviation where the model is right; the free parameters of the fit are taken off.
    n_bins : int
        Bins, or groups of bins, that it sums over.
    n_free : int
        Free parameters of the fit.
    p_value : float
        Probability of a statistic at least as large where the model is right; NaN where there are not more bins than
        free parameters.
    warnings : tuple of str
    """

    method: str
    value: float
    expected: float
    deviation: float
    n_bins: int
    n_free: int
    p_value: float
    warnings: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The result in words."""
        noun = "groups of bins" if self.method == "chi2" else "bins"
        return (
            f"goodness of fit ({self.method}): {self.value:.1f}, expected {self.expected:.1f} +- {self.deviation:.1f} "
            f"for {self.n_bins} {noun} and {self.n_free} free parameters: p = {self.p_value:.3g}"
        )


def goodness(
    datasets: Sequence[FitData],
    result: FitResult,
    method: Literal["cash", "chi2", "toys"] = "cash",
    at_least: float = _AT_LEAST,
    n_toys: int = 100,
    seed: int = 0,
) -> Goodness:
    """Goodness of a fit.

    Parameters
    ----------
    datasets : sequence of Dataset or FluxPointsData
        Those of the fit.
    result : FitResult
    method : 'cash', 'chi2' or 'toys'
        ``cash``: the saturated Cash statistic against its mean and variance (Kaastra 2017, A&A 605, A51), chi2 for groups
        where a background is measured. ``chi2``: squared deviations of groups of neighbouring bins. ``toys``: the
        saturated statistic against those of fits to counts drawn from the best fit.
    at_least : float
        Counts that a group of bins expects.
    n_toys, seed : int

    Raises
    ------
    InputError
        If there are no counts and no flux points to test, or fewer than 20 toys are asked for.
    """
    if method == "toys":
        return _by_toys(datasets, result, n_toys, seed)
    parts, told = [], []
    for dataset in datasets:
        if isinstance(dataset, FluxPointsData):
            # squares of Gaussian deviations
            n = int(dataset.mask.sum())
            stat = next(d.stat for d in result.datasets if d.name == dataset.name)
            parts.append((stat, float(n), 2.0 * n, n))
        elif method == "cash" and isinstance(dataset.background, ExpectedCounts):
            parts.append(_cash_part(dataset, result.models))
        else:
            parts.append(_chi2_part(dataset, result.models, at_least))
            if method == "cash":
                told.append(
                    f"{dataset.name}: its background is measured, and wstat of few counts has no known mean: groups of at least "
                    f"{at_least:g} expected counts are tested by chi2 in its place"
                )
    value, mean, variance = (float(sum(p[k] for p in parts)) for k in range(3))
    return _judged(method, value, mean, variance, sum(p[3] for p in parts), len(result.free), told)


def saturated_stat(dataset: Dataset, models: Models) -> float:
    """Statistic of a dataset less that of a perfect prediction: 2 (mu - n + n ln(n / mu)), or wstat."""
    mask = dataset.mask
    n = dataset.counts.data[mask].astype(float)
    signal, background = predict_counts(dataset, models)
    if isinstance(dataset.background, OffCounts):
        scale = alpha_scale(dataset, models)
        n_off, alpha = (v[mask] for v in (dataset.background.counts.data, dataset.background.alpha * scale))
        return float(wstat(n, n_off, alpha, signal[mask]).sum())
    return float(np.nansum(cash_ts(n, (signal + background)[mask])))


def _cash_part(dataset: Dataset, models: Models) -> tuple[float, float, float, int]:
    signal, background = predict_counts(dataset, models)
    mu = np.maximum((signal + background)[dataset.mask], 0.0)
    mean, variance = cash_moments(mu)
    return saturated_stat(dataset, models), float(mean.sum()), float(variance.sum()), int((mu > 0).sum())


def _chi2_part(dataset: Dataset, models: Models, at_least: float) -> tuple[float, float, float, int]:
    mask = dataset.mask
    signal, background = predict_counts(dataset, models)
    n, expected, variance = dataset.counts.data[mask].astype(float), (signal + background)[mask], None
    if isinstance(dataset.background, OffCounts):
        # alpha n_off, not the profiled background: that one is biased where counts are few
        alpha = dataset.background.alpha[mask] * alpha_scale(dataset, models)
        n_off = dataset.background.counts.data[mask]
        measured = alpha > 0
        n, alpha, n_off = n[measured], alpha[measured], n_off[measured]
        expected = signal[mask][measured] + alpha * n_off
        variance = expected + alpha**2 * n_off
    expected = np.maximum(expected, 0.0)
    starts = group_starts(expected, at_least)
    if not len(starts) or not expected.sum() > 0:
        return 0.0, 0.0, 0.0, 0
    sums = [np.add.reduceat(v, starts) for v in (n, expected, expected if variance is None else variance)]
    value = float(((sums[0] - sums[1]) ** 2 / sums[2]).sum())
    return value, float(len(starts)), 2.0 * len(starts), len(starts)


def _judged(
    method: str, value: float, mean: float, variance: float, n_bins: int, n_free: int, told: Sequence[str]
) -> Goodness:
    if not n_bins:
        raise InputError("no bin of the data expects any counts, so there is no goodness of fit")
    # a fitted parameter takes the place of one bin: mean 1, variance 2
    left, spread = mean - n_free, variance - 2.0 * n_free
    warnings = list(told)
    if left <= 0 or spread <= 0:
        warnings.append(
            "there are not more bins with counts than free parameters: the goodness of fit is not known"
        )
    p_value = p_value_of_moments(value, left, spread) if left > 0 and spread > 0 else float("nan")
    return Goodness(
        method, value, left, float(np.sqrt(max(spread, 0.0))), n_bins, n_free, p_value, tuple(warnings)
    )


def _by_toys(datasets: Sequence[FitData], result: FitResult, n_toys: int, seed: int) -> Goodness:
    if n_toys < _MANY_TOYS:
        raise InputError(f"{n_toys} toys do not tell a probability: ask for at least {_MANY_TOYS}")
    counted = [d for d in datasets if isinstance(d, Dataset)]
    others = [d.name for d in datasets if not isinstance(d, Dataset)]
    told = [f"toys are of counts: {', '.join(others)}, flux points, keep theirs"] * bool(others)
    if not counted:
        raise InputError("the fit has flux points only, and toys are of counts: take the method `chi2`")
    value = sum(saturated_stat(d, result.models) for d in counted)
    random = np.random.default_rng(seed)
    values, n_failed = [], 0
    for _ in range(n_toys):
        toys = [draw_counts(d, result.models, random) for d in counted]
        kept = [d for d in datasets if not isinstance(d, Dataset)]
        refit = fit([*toys, *kept], result.models)
        n_failed += not refit.success
        values.append(sum(saturated_stat(d, refit.models) for d in toys))
    if n_failed:
        told.append(f"{n_failed} of {n_toys} toys have a doubtful fit")
    n_above = int(np.sum(np.array(values) >= value))
    # neither 0 nor more than the toys can tell
    p_value = (n_above + 1) / (n_toys + 1)
    n_bins = sum(int(d.mask.sum()) for d in counted)
    return Goodness(
        "toys",
        float(value),
        float(np.mean(values)),
        float(np.std(values, ddof=1)),
        n_bins,
        len(result.free),
        p_value,
        tuple(told),
    )


def draw_counts(dataset: Dataset, models: Models, random: np.random.Generator) -> Dataset:
    """Dataset with Poisson counts of the models in place of its own, off counts included."""
    signal, background = predict_counts(dataset, models)
    if not isinstance(dataset.background, OffCounts):
        counts = random.poisson(np.maximum(signal + background, 0.0)).astype(float)
        return replace(dataset, counts=replace(dataset.counts, data=counts))
    off = dataset.background
    alpha = np.where(off.alpha > 0, off.alpha * alpha_scale(dataset, models), 1.0)
    mu_off = wstat_background(dataset.counts.data, off.counts.data, alpha, signal)
    mu_on = np.maximum(signal + np.where(off.alpha > 0, alpha * mu_off, 0.0), 0.0)
    drawn = replace(off, counts=replace(off.counts, data=random.poisson(mu_off).astype(float)))
    return replace(
        dataset,
        counts=replace(dataset.counts, data=random.poisson(mu_on).astype(float)),
        background=drawn,
    )
