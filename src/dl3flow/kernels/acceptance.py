"""Maximum-likelihood background rates of a camera: a spectrum times a shape times one factor per run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]

_MAX_ITERATIONS = 200
_PRECISION = 1e-9
# counts by which a smoothed ratio is drawn to one
_PRIOR = 4.0
# an energy bin with fewer counts takes its rate from the power law of the bins below
_FEW = 25
_TAIL_BINS = 5
# no group of rings is empty
_SOME = 1e-9
_INDEX_RANGE = (-2.0, 10.0)


@dataclass(frozen=True, eq=False)
class Separable:
    """Rates spectrum x shape, and what they were measured with.

    Attributes
    ----------
    spectrum : array, shape (n_energy,)
        Counts per bin of energy, time and solid angle; 0 where there is no exposure.
    shape : array, shape (n_energy, n_cells)
        With the mean 1 over the cells' areas.
    norms : array, shape (n_runs,)
    exposure : array, shape (n_energy,)
        Time x solid angle x shape x norm.
    """

    spectrum: np.ndarray
    shape: np.ndarray
    norms: np.ndarray
    exposure: np.ndarray


def fit_separable(
    counts: np.ndarray,
    totals: np.ndarray,
    ontime: np.ndarray,
    energies: np.ndarray,
    area: np.ndarray,
    min_counts: int,
    shape_of: Shape,
) -> Separable:
    """Alternate the maximum-likelihood solutions for shape, spectrum and run factors until they stay.

    The mean of the counts of run r in energy k and cell c is f_r t_r m_rk A_rc a_k s_kc.

    Parameters
    ----------
    counts : array, shape (n_energy, n_cells)
        Sum over the runs.
    totals : array, shape (n_runs,)
        Sum over energies and cells.
    ontime : array, shape (n_runs,)
    energies : bool array, shape (n_runs, n_energy)
        m: bins that a run takes part in.
    area : array, shape (n_runs, n_cells)
        A: usable solid angle.
    min_counts : int
        Neighbouring energies have one shape until they hold so many counts.
    shape_of : function
        Of counts and expectation for a flat shape, (n_groups, n_cells) each.
    """
    group = joined_bins(counts.sum(axis=1), min_counts)
    member = np.equal.outer(np.arange(group.max() + 1), group).astype(float)
    weight = area.sum(axis=0) / area.sum()
    per_energy = counts.sum(axis=1)
    norms = np.ones(len(ontime))
    shape = np.ones(counts.shape)
    spectrum = np.zeros(len(counts))
    exposure = np.zeros(len(counts))
    for _ in range(_MAX_ITERATIONS):
        before = np.concatenate([norms, spectrum])
        time = (energies * (norms * ontime)[:, None]).T @ area
        exposure = (time * shape).sum(axis=1)
        spectrum = _ratio(per_energy, exposure)
        of_group = shape_of(member @ counts, member @ (spectrum[:, None] * time))
        mean = of_group @ weight
        of_group = of_group / np.where(mean > 0, mean, 1.0)[:, None]
        shape = of_group[group]
        exposure = (time * shape).sum(axis=1)
        spectrum = _ratio(per_energy, exposure)
        expected = ontime * np.einsum(
            "rk,kr->r", energies.astype(float), (spectrum[:, None] * shape) @ area.T
        )
        # a run without a count tells nothing of its factor
        norms = np.where(totals > 0, _ratio(totals, expected), 1.0)
        norms = norms * ontime.sum() / (norms * ontime).sum()
        after = np.concatenate([norms, spectrum])
        if np.all(np.abs(after - before) <= _PRECISION * np.abs(after)):
            break
    return Separable(spectrum, shape, norms, exposure)


def joined_bins(counts: np.ndarray, min_counts: float) -> np.ndarray:
    """Group of each bin: neighbours join, from the first, until they hold ``min_counts``; what is left joins the last group."""
    groups = np.zeros(len(counts), dtype=int)
    group, start = 0, 0
    for k in range(len(counts)):
        groups[k] = group
        if counts[start : k + 1].sum() >= min_counts:
            group, start = group + 1, k + 1
    return np.minimum(groups, max(group - 1, 0))


def radial_shape(offset: np.ndarray, ring_counts: float = 200.0) -> Shape:
    """Shape that depends on the offset alone; its logarithm is linear between rings.

    From the centre outwards, rings join until they hold ``ring_counts``, or an eighth of all counts where that is less.

    Parameters
    ----------
    offset : array, shape (n_cells,)
        In widths of a ring.
    ring_counts : float
    """
    ring = offset.astype(int)
    number = int(ring.max()) + 1

    def shape(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
        total = np.bincount(ring, counts.sum(axis=0), number)
        found = np.zeros(counts.shape)
        for row, per_cell, of_flat in zip(found, counts, expected, strict=True):
            n, mu = (np.bincount(ring, values, number) for values in (per_cell, of_flat))
            # a ring that is empty at all energies lies beyond the camera
            filled = np.nonzero((total > 0) & (mu > 0))[0]
            if n[filled].sum() == 0:
                continue
            joined = joined_bins(n[filled], max(min(ring_counts, n.sum() / 8), _SOME))
            n, mu, at = (
                np.bincount(joined, values[filled])
                for values in (n, mu, np.bincount(ring, of_flat * offset, number))
            )
            logarithm = np.interp(offset, at / mu, np.log(n / mu))
            row[:] = np.where(np.isin(ring, filled), np.exp(logarithm), 0.0)
        return found

    return shape


def smoothed_shape(offset: np.ndarray, size: tuple[int, int], sigma: float) -> Shape:
    """Radial shape times the ratio of counts to it, both smoothed with a Gaussian, on a grid of squares.

    Parameters
    ----------
    offset : array, shape (n_cells,)
        As in `radial_shape`.
    size : (n_lon, n_lat)
    sigma : float
        In squares.
    """
    radial = radial_shape(offset)
    # a kernel of height one sums the counts about a square
    area = 2 * np.pi * sigma**2

    def summed(values: np.ndarray) -> np.ndarray:
        grid = values.reshape(len(values), *size)
        return np.asarray(
            area * scipy.ndimage.gaussian_filter(grid, (0, sigma, sigma), mode="constant")
        ).reshape(values.shape)

    def shape(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
        base = radial(counts, expected)
        return np.asarray(base * (summed(counts) + _PRIOR) / (summed(base * expected) + _PRIOR))

    return shape


def local_index(energy: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Negative slope of ln spectrum by ln energy at each point, from its neighbours above zero; 0 where there are none."""
    good = np.nonzero(spectrum > 0)[0]
    found = np.zeros(len(energy))
    if len(good) > 1:
        found[good] = -np.gradient(np.log(spectrum[good]), np.log(energy[good]))
    return found


def mean_over_center(edges: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Mean of a power law over each bin, divided by its value at the bin's geometric centre."""
    half = 0.5 * np.diff(np.log(edges))
    x = (1 - index) * half
    near = np.abs(x) < 1e-6
    top = np.where(near, 1.0, np.sinh(x) / np.where(near, 1.0, x))
    return np.asarray(top / (np.sinh(half) / half))


def power_law_tail(
    edges: np.ndarray, spectrum: np.ndarray, counts: np.ndarray, exposure: np.ndarray
) -> np.ndarray:
    """Spectrum whose end, from the first bin of few counts beyond the fullest, is a power law fitted to it.

    The fit (Poisson maximum likelihood, empty bins included) begins up to five bins lower.

    Parameters
    ----------
    edges : array, shape (n + 1,)
    spectrum : array, shape (n,)
        At the bins' geometric centres, per unit of energy and exposure.
    counts, exposure : array, shape (n,)
    """
    fullest = int(np.argmax(counts))
    few = np.nonzero((counts < _FEW) & (np.arange(len(counts)) > fullest) & (exposure > 0))[0]
    if not len(few):
        return spectrum
    first = max(fullest, int(few[0]) - _TAIL_BINS)
    used = (np.arange(len(counts)) >= first) & (exposure > 0)
    if np.count_nonzero(counts[used]) < 2:
        return spectrum
    center = np.sqrt(edges[1:] * edges[:-1])
    reference = center[first]

    def per_amplitude(index: float) -> np.ndarray:
        at_center = (center / reference) ** -index
        return np.asarray(
            at_center * mean_over_center(edges, np.full(len(center), index)) * np.diff(edges) * exposure
        )

    def loss(index: float) -> float:
        mu = per_amplitude(index)[used]
        return float(counts[used].sum() * np.log(mu.sum()) - (counts[used] * np.log(mu)).sum())

    index = float(scipy.optimize.minimize_scalar(loss, bounds=_INDEX_RANGE, method="bounded").x)
    amplitude = counts[used].sum() / per_amplitude(index)[used].sum()
    tail = (np.arange(len(counts)) >= few[0]) & (exposure > 0)
    return np.where(tail, amplitude * (center / reference) ** -index, spectrum)


def extended(edges: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Spectrum with one more bin above zero at each end, on the power law of the two bins next to it.

    Who interpolates between the centres of the bins needs it to reach the outer edges.
    """
    good = np.nonzero(spectrum > 0)[0]
    if len(good) < 2:
        return spectrum
    logarithm = np.log(np.sqrt(edges[1:] * edges[:-1]))
    found = spectrum.copy()
    for new, near, far in ((good[0] - 1, good[0], good[1]), (good[-1] + 1, good[-1], good[-2])):
        if 0 <= new < len(spectrum):
            slope = np.log(spectrum[near] / spectrum[far]) / (logarithm[near] - logarithm[far])
            found[new] = spectrum[near] * np.exp(slope * (logarithm[new] - logarithm[near]))
    return found


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    zero = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    return np.asarray(np.divide(numerator, denominator, out=zero, where=denominator > 0))
