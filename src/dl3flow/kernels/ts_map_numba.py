"""The fits of `kernels.ts_map` compiled by numba, pixel by pixel: an option where that package is installed (extra ``fast``)."""

import numba
import numpy as np

from dl3flow.kernels.ts_map import CLOSE, MAX_ITERATIONS, NEAR_POLE, Occupied, Wanted, quantities

_compiled = numba.njit(cache=True)

# rows of the table that the compiled loop fills
_EVERY = ("norm", "norm_err", "ts", "norm_errn", "norm_errp", "norm_ul")


def solve_pixels(
    occupied: Occupied,
    kernels: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    signal: np.ndarray,
    lowest: np.ndarray,
    wanted: Wanted,
) -> dict[str, np.ndarray]:
    """As `ts_map.solve_tiles`, to rounding; the first call compiles, and keeps what it made for later processes."""
    # bins of a row, in the order of their columns
    n_rows = int(rows.max(initial=0)) + kernels.shape[-1] // 2 + 2
    first = np.searchsorted(occupied.row, np.arange(n_rows + 1))
    table = np.full((len(_EVERY), len(rows)), np.nan)
    _fit_all(
        (occupied.column, occupied.kernel.astype(np.int64), occupied.n, occupied.ratio, first),
        np.ascontiguousarray(kernels, dtype=float),
        (rows, columns, signal, lowest),
        float(wanted.n_sigma or 0),
        float(wanted.n_sigma_ul or 0),
        table,
    )
    return {name: table[_EVERY.index(name)] for name in quantities(wanted)}


@_compiled
def _sums(n: np.ndarray, r: np.ndarray, m: int, c: float) -> tuple[float, float]:
    """Sums over m bins of n r / (1 + c r) and of n (r / (1 + c r))^2."""
    first, second = 0.0, 0.0
    for v in range(m):
        q = r[v] / (1.0 + c * r[v])
        first += n[v] * q
        second += n[v] * q * q
    return first, second


@_compiled
def _stat(n: np.ndarray, r: np.ndarray, m: int, total: float, c: float) -> float:
    """Statistic against no signal."""
    logs = 0.0
    for v in range(m):
        logs += n[v] * np.log(1.0 + c * r[v])
    return float(2 * (c * total - logs))


@_compiled
def _best(n: np.ndarray, r: np.ndarray, m: int, total: float, low: float, pole: float) -> float:
    """Strength where the derivative vanishes, or the lowest one."""
    bottom = max(pole * NEAR_POLE, pole + 1 / total, low)
    c = 0.0
    for _ in range(MAX_ITERATIONS):
        first, second = _sums(n, r, m, c)
        moved = max(c + (first - total) / second * (first / total), bottom)
        change = abs(moved - c)
        c = moved
        if not change * np.sqrt(second) > CLOSE:
            break
    return max(c, low)


@_compiled
def _crossing(
    n: np.ndarray,
    r: np.ndarray,
    m: int,
    total: float,
    start: float,
    at_start: float,
    n_sigma: float,
    side: float,
    room: float,
) -> float:
    """Strength on one side of ``start``, at most ``room`` away, where the statistic has risen by n_sigma^2."""
    first, second = _sums(n, r, m, start)
    slope = max(side * (total - first), 0.0)
    distance = min(n_sigma**2 / (slope + np.sqrt(slope**2 + second * n_sigma**2)), 0.5 * room)
    for _ in range(MAX_ITERATIONS):
        c = start + side * distance
        rise = _stat(n, r, m, total, c) - at_start
        root = np.sqrt(max(rise, 0.0))
        slope = side * 2 * (total - _sums(n, r, m, c)[0])
        moved = distance - (root - n_sigma) * 2 * root / slope if slope != 0 else np.nan
        if not (moved > 0 and np.isfinite(moved)):
            moved = distance * (2.0 if rise < n_sigma**2 else 0.5)
        if moved > room:
            moved = 0.5 * (distance + room)
        change = abs(moved - distance)
        distance = moved
        if not change > CLOSE * moved:
            break
    return float(start + side * distance)


@_compiled
def _fit_all(
    bins: tuple[np.ndarray, ...],
    kernels: np.ndarray,
    targets: tuple[np.ndarray, ...],
    n_sigma: float,
    n_sigma_ul: float,
    table: np.ndarray,
) -> None:
    """Fill the columns of a table, one per pixel."""
    column, which, counts, ratio, first = bins
    rows, columns, signal, lowest = targets
    half = kernels.shape[1] // 2
    n, r = np.empty(len(column)), np.empty(len(column))
    for t in range(len(rows)):
        m, largest = 0, 0.0
        for row in range(max(rows[t] - half, 0), min(rows[t] + half + 1, len(first) - 1)):
            start, stop = first[row], first[row + 1]
            start += np.searchsorted(column[start:stop], columns[t] - half)
            for v in range(start, stop):
                if column[v] > columns[t] + half:
                    break
                share = kernels[which[v], row - rows[t] + half, column[v] - columns[t] + half]
                if share > 0:
                    n[m], r[m] = counts[v], share * ratio[v]
                    largest = max(largest, r[m])
                    m += 1
        total, low = signal[t], lowest[t]
        if m == 0:
            pole = -np.inf
            norm = low
        else:
            pole = -1 / largest
            norm = _best(n, r, m, total, low, pole)
        if not np.isfinite(norm):
            continue
        at_best = _stat(n, r, m, total, norm)
        table[0, t] = norm
        if m > 0 and norm > low:
            table[1, t] = 1 / np.sqrt(_sums(n, r, m, norm)[1])
        table[2, t] = max(-at_best, 0.0)
        if n_sigma > 0:
            end = max(low, pole * NEAR_POLE)
            if end < norm and np.isfinite(end) and _stat(n, r, m, total, end) - at_best >= n_sigma**2:
                found = _crossing(n, r, m, total, norm, at_best, n_sigma, -1.0, norm - end)
                table[3, t] = norm - found
            table[4, t] = _crossing(n, r, m, total, norm, at_best, n_sigma, 1.0, np.inf) - norm
        if n_sigma_ul > 0:
            start_at, stat_at = (norm, at_best) if norm > 0 else (0.0, 0.0)
            table[5, t] = _crossing(n, r, m, total, start_at, stat_at, n_sigma_ul, 1.0, np.inf)
