"""Fake datasets: counts drawn from what a model predicts, in place of the measured ones."""

from dataclasses import replace

import numpy as np

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.errors import InputError

# negative values of this size beside the largest are rounding of a Fourier transform
_NOISE = 1e-9


def fake(dataset: Dataset, signal: np.ndarray, seed: int, *, background: np.ndarray | None = None) -> Dataset:
    """Dataset with Poisson counts of signal and background, and off counts of the same background.

    Parameters
    ----------
    dataset : Dataset
        Gives geometry, acceptances and, by default, the background.
    signal : array, shape of the counts
        Expected counts of all sources, such as `fit.npred.predict_counts` gives.
    seed : int
        Of the generator (PCG64); equal seeds give equal counts.
    background : array of that shape, optional
        Expected background counts; by default those of the dataset, which for measured off counts are alpha n_off.

    Returns
    -------
    faked : Dataset
        On the same bins, masked or not.

    Raises
    ------
    InputError
        If an expectation is negative or not finite, or the dataset has no background and none is given.
    """
    if dataset.background is None and background is None:
        raise InputError(f"dataset '{dataset.name}': it has no background to draw from: give one")
    mu_bkg = dataset.mu_bkg if background is None else np.asarray(background, dtype=float)
    for what, mu in (("signal", signal), ("background", mu_bkg)):
        noise = _NOISE * np.abs(mu).max(initial=0.0)
        if mu.shape != dataset.counts.data.shape or not np.all(np.isfinite(mu) & (mu >= -noise)):
            raise InputError(
                f"dataset '{dataset.name}': the {what} to draw from must be finite, not negative and of the shape of the counts "
                f"{dataset.counts.data.shape}"
            )
    random = np.random.default_rng(seed)
    signal, mu_bkg = np.maximum(signal, 0.0), np.maximum(mu_bkg, 0.0)
    counts = random.poisson(signal + mu_bkg).astype(float)
    new: ExpectedCounts | OffCounts = ExpectedCounts(dataset.counts.with_data(mu_bkg))
    if isinstance(dataset.background, OffCounts):
        alpha = dataset.background.alpha
        mu_off = np.divide(mu_bkg, alpha, out=np.zeros(alpha.shape), where=alpha > 0)
        off = dataset.background.counts.with_data(random.poisson(mu_off).astype(float))
        new = replace(dataset.background, counts=off)
    return replace(dataset, counts=dataset.counts.with_data(counts), background=new)
