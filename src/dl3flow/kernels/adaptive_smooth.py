"""Smoothing of an image with kernels that grow until what they hold is significant. Ebeling et al. (2006)."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy

from dl3flow.kernels.convolve import convolve_same
from dl3flow.kernels.statistics import cash_ts

# widths of a Gaussian that a kernel reaches
_REACH = 4.0


def gauss_kernel(sigma: float) -> np.ndarray:
    """Gaussian of width ``sigma`` pixels integrated over pixels, one in the middle; shape (k, k) with odd k."""
    half = max(int(np.ceil(_REACH * sigma)), 1)
    edges = (np.arange(2 * half + 2) - half - 0.5) / (np.sqrt(2) * sigma)
    line = np.diff(scipy.special.erf(edges))
    return np.asarray(np.outer(line, line) / line[half] ** 2)


def significance(counts: np.ndarray, background: np.ndarray, method: str) -> np.ndarray:
    """Significance of counts above a background that are both sums over a kernel.

    Parameters
    ----------
    counts, background : array
    method : 'lima' or 'asmooth'
        Signed root of the test statistic of an excess over a known background; or excess over the root of the sum of both,
        Ebeling et al. (2006), equation 5.
    """
    excess = counts - background
    if method == "lima":
        return np.asarray(np.sign(excess) * np.sqrt(np.maximum(cash_ts(counts, background), 0.0)))
    total = counts + background
    return np.asarray(np.divide(excess, np.sqrt(total), out=np.full(total.shape, np.nan), where=total > 0))


def smooth_adaptively(
    counts: np.ndarray,
    background: np.ndarray,
    others: Mapping[str, np.ndarray],
    kernels: Sequence[np.ndarray],
    threshold: float,
    method: str,
    covered: np.ndarray,
) -> dict[str, np.ndarray]:
    """Images smoothed, in each pixel, with the first kernel that holds a significance above the threshold.

    Parameters
    ----------
    counts, background : array, shape (n_lat, n_lon)
    others : mapping of array of that shape
        Images that are smoothed alike.
    kernels : sequence of array
        With one in the middle, in the order in which they are tried.
    threshold : float
    method : 'lima' or 'asmooth'
    covered : bool array, shape (n_lat, n_lon)
        Pixels that have data.

    Returns
    -------
    found : dict of array, shape (n_lat, n_lon)
        counts, background and the others, as means over the covered pixels under the kernel; sqrt_ts; and kernel, the number of the kernel. Where
        none suffices the mean over all such pixels, sqrt_ts NaN, and kernel -1; NaN where nothing is covered.
    """
    images = {"counts": counts, "background": background, **others}
    found = {name: np.full(counts.shape, np.nan) for name in (*images, "sqrt_ts")}
    which, left = np.full(counts.shape, -1), covered.copy()
    for k, kernel in enumerate(kernels):
        sums = {name: convolve_same(image, kernel) for name, image in images.items()}
        pixels = convolve_same(covered.astype(float), kernel)
        # the transform leaves noise where nothing is
        n, b = (np.maximum(sums[name], 0.0) for name in ("counts", "background"))
        sqrt_ts = significance(n, b, method)
        chosen = left & (sqrt_ts > threshold)
        left &= ~chosen
        which[chosen] = k
        found["sqrt_ts"][chosen] = sqrt_ts[chosen]
        for name in images:
            found[name][chosen] = sums[name][chosen] / pixels[chosen]
    for name, image in images.items() if left.any() else ():
        found[name][left] = image[left].mean()
    return {**found, "kernel": which}
