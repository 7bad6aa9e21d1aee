"""Point-spread kernels on pixels, and convolution by FFT."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import scipy

CONTAINMENT = 0.999
_OVERSAMPLING = 20
# radii that are whole numbers of pixels must not miss the pixels on their edge by rounding
_EDGE = 1e-9
# pixels of the grids that are transformed at once
_PORTION = 2**16


@lru_cache(maxsize=32)
def _radial_weights(binsz: float, rad_edges: tuple[float, ...], half: int) -> np.ndarray:
    """Matrix that turns a radial profile into means over pixels; shape (half + 1, half + 1, n_rad), one quadrant.

    The profile is linear between the centres of its bins, and extrapolated linearly to zero distance and into the
    corners beyond its last edge (the peer's convention: the wings do not end abruptly inside a square kernel).
    """
    edges = np.array(rad_edges)
    nodes = 0.5 * (edges[1:] + edges[:-1])
    steps = ((np.arange(_OVERSAMPLING) + 0.5) / _OVERSAMPLING - 0.5) * binsz
    x = (np.arange(half + 1)[:, None] * binsz + steps).ravel()
    r = np.hypot(x[:, None], x[None, :])
    left = np.clip(np.searchsorted(nodes, r, side="right") - 1, 0, len(nodes) - 2)
    fraction = (r - nodes[left]) / (nodes[left + 1] - nodes[left])
    share = 1 / _OVERSAMPLING**2
    row = np.repeat(np.arange(half + 1), _OVERSAMPLING)
    pixel = (row[:, None] * (half + 1) + row[None, :]) * len(nodes)
    size = (half + 1) ** 2 * len(nodes)
    weights = np.bincount((pixel + left).ravel(), (share * (1 - fraction)).ravel(), size)
    weights += np.bincount((pixel + left + 1).ravel(), (share * fraction).ravel(), size)
    return weights.reshape(half + 1, half + 1, len(nodes))


def psf_kernels(profiles: np.ndarray, rad_edges: np.ndarray, binsz: float) -> np.ndarray:
    """Pixel kernels of radial profiles.

    Each is the mean of the profile over every pixel (20 x 20 points each), cut to the square that holds the circle of
    99.9 % containment, and normalised to one.

    Parameters
    ----------
    profiles : array, shape (n, n_rad)
        Density per solid angle at the centres of the rad bins.
    rad_edges : array, shape (n_rad + 1,)
    binsz : float
        Pixel size in the unit of ``rad_edges``.

    Returns
    -------
    kernels : array, shape (n, k, k)
        With odd k; zero where the profile is zero.
    """
    radii = containment_radii(profiles, rad_edges, CONTAINMENT)
    half = np.array([int(np.ceil(round(2 * r / binsz, 9))) // 2 if r > 0 else 0 for r in radii], dtype=int)
    size = int(half.max(initial=0))
    weights = _radial_weights(float(binsz), tuple(float(e) for e in rad_edges), size)
    quadrant = np.maximum(np.tensordot(profiles, weights, (1, 2)), 0.0)
    index = np.arange(size + 1)
    quadrant[np.maximum(index[:, None], index)[None] > half[:, None, None]] = 0.0
    # of a row or column, all but the middle one count twice
    twice = np.where(index > 0, 2.0, 1.0)
    total = np.einsum("nyx,y,x->n", quadrant, twice, twice)[:, None, None]
    quadrant = np.divide(quadrant, total, out=np.zeros_like(quadrant), where=total > 0)
    around = np.abs(np.arange(-size, size + 1))
    return np.asarray(quadrant[:, around[:, None], around])


def containment_radii(profiles: np.ndarray, rad_edges: np.ndarray, fraction: float) -> np.ndarray:
    """Radii that hold a fraction of radial profiles, to a 20th of a bin; zero for a profile of zeros.

    A profile is linear between the centres of its bins.

    Parameters
    ----------
    profiles : array, shape (n, n_rad)
    rad_edges : array, shape (n_rad + 1,)
    fraction : float

    Returns
    -------
    radii : array, shape (n,), in the unit of ``rad_edges``
    """
    profile = np.asarray(profiles, dtype=float).T
    fine = np.interp(np.arange(20 * len(profile) + 1) / 20, np.arange(len(profile) + 1), rad_edges)
    centers = 0.5 * (rad_edges[1:] + rad_edges[:-1])
    r = 0.5 * (fine[1:] + fine[:-1])
    left = np.clip(np.searchsorted(centers, r, side="right") - 1, 0, len(centers) - 2)
    f = ((r - centers[left]) / (centers[left + 1] - centers[left]))[:, None]
    density = np.maximum((1 - f) * profile[left] + f * profile[left + 1], 0.0)
    rings = density * (r * np.diff(fine))[:, None]
    held = np.cumsum(rings, axis=0) - 0.5 * rings
    total = rings.sum(axis=0)
    nearest = np.argmin(np.abs(held - fraction * total), axis=0)
    return np.asarray(np.where(total > 0, r[nearest], 0.0))


def convolve_same(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution of images (..., n_lat, n_lon) with a kernel of odd size, zero outside them; shape of the images."""
    half = [n // 2 for n in kernel.shape]
    shape = images.shape[-2:]
    length = [
        int(scipy.fft.next_fast_len(m + k - 1, real=True)) for m, k in zip(shape, kernel.shape, strict=True)
    ]
    product = scipy.fft.rfft2(images, s=length) * scipy.fft.rfft2(kernel, s=length)
    full = scipy.fft.irfft2(product, s=length)
    return np.asarray(full[..., half[0] : half[0] + shape[0], half[1] : half[1] + shape[1]])


def circle_kernel(radius: float) -> np.ndarray:
    """One for the pixels whose centre is at most ``radius`` pixels from the middle one; shape (k, k) with odd k."""
    return ring_kernel(0.0, radius)


def ring_kernel(r_in: float, r_out: float) -> np.ndarray:
    """One for the pixels whose centre is ``r_in`` to ``r_out`` pixels from the middle one, both edges included."""
    half = int(np.floor(r_out + _EDGE))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    r = np.hypot(x, y)
    return np.asarray((r >= r_in - _EDGE) & (r <= r_out + _EDGE), dtype=float)


def portions(n: int, shape: tuple[int, int]) -> Iterator[slice]:
    """Slices of ``n`` grids, so that those transformed at once stay in a processor's own memory."""
    step = max(_PORTION // (shape[0] * shape[1]), 1)
    return (slice(first, first + step) for first in range(0, n, step))


def even_transforms(kernels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fourier transforms of kernels that are even in both directions, centred on the first pixel: real, one quadrant.

    Parameters
    ----------
    kernels : array, shape (n, k, k)
        With odd k.
    shape : (n_y, n_x)
        Of the periodic grid, at least k each.

    Returns
    -------
    quadrants : array, shape (n, n_y // 2 + 1, n_x // 2 + 1)
        `unfolded` makes all rows of it.
    """
    half = kernels.shape[-1] // 2
    rows, columns = (np.arange(-half, half + 1) % size for size in shape)
    n_rows = shape[0] // 2 + 1
    quadrants = np.empty((len(kernels), n_rows, shape[1] // 2 + 1))
    for some in portions(len(kernels), shape):
        padded = np.zeros((len(kernels[some]), *shape))
        padded[:, rows[:, None], columns] = kernels[some]
        quadrants[some] = scipy.fft.rfft2(padded).real[:, :n_rows]
    return quadrants


def unfolded(quadrants: np.ndarray, n_y: int) -> np.ndarray:
    """All rows of the transforms of which `even_transforms` keeps one quadrant; shape (n, n_y, n_x // 2 + 1), float64."""
    rows = np.minimum(np.arange(n_y), n_y - np.arange(n_y))
    return np.asarray(quadrants[:, rows], dtype=float)
