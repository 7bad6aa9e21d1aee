"""Bias of wstat where counts are few: the strength of a known signal from fake on and off counts.

Counts of many bins are drawn from a signal of ``MU_SIG`` counts per bin and a background measured with 1 / alpha of its exposure:
``mu_off`` off counts per bin. The strength c of the signal (truth 1) is fitted by wstat to all bins at once, to the same
bins joined in groups that expect ten off counts, and by Cash with the background known. Per case: the mean of c over
the fakes, less 1, in per cent and in units of the scatter of c with the background known, and the width of the pulls.

Targets: where groups expect ten off counts, and where the background is known, no bias above 0.2 (four errors of the mean
of 400 fakes); what few off counts per bin do to wstat is a finding (docs/statistics.md).

    python benchmarks/wstat_bias.py [--fakes N]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys

import numpy as np

from dl3flow.kernels.norm import Bins, ExpectedBins, MeasuredBins, fit_norm

MU_SIG = 0.5
N_BINS = 480
MU_OFF = (0.1, 0.3, 1.0, 3.0, 10.0)
ALPHA = (0.1, 0.5, 1.0)
WANTED_OFF = 10.0
TARGET = 0.2


def joined(values: np.ndarray, size: int) -> np.ndarray:
    """Sums of as many neighbours."""
    return np.add.reduceat(values, np.arange(0, len(values), size))


def measure(
    mu_off: float, alpha: float, n_fakes: int, random: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Biases of one case by way of fitting."""
    size = max(1, int(np.ceil(WANTED_OFF / mu_off)))
    signal = np.full(N_BINS, MU_SIG)
    found: dict[str, list[tuple[float, float]]] = {"wstat": [], "grouped": [], "known": []}
    for _ in range(n_fakes):
        n_on = random.poisson(signal + alpha * mu_off).astype(float)
        n_off = random.poisson(mu_off, N_BINS).astype(float)
        none, ratio = np.zeros(N_BINS), np.full(N_BINS, alpha)
        few = tuple(joined(v, size) for v in (n_on, signal, none, n_off))
        bins: dict[str, Bins] = {
            "wstat": MeasuredBins(n_on, signal, none, n_off, ratio),
            "grouped": MeasuredBins(*few, np.full(len(few[0]), alpha)),
            "known": ExpectedBins(n_on, signal, np.full(N_BINS, alpha * mu_off)),
        }
        for way, each in bins.items():
            fitted = fit_norm([each])
            found[way].append((fitted.norm, fitted.err))
    out, scatter = {}, float(np.std([norm for norm, _ in found["known"]], ddof=1))
    for way, rows in found.items():
        norm, error = np.array(rows).T
        out[way] = {
            "bias_percent": 100 * float(norm.mean() - 1),
            "bias_errors": float((norm.mean() - 1) / scatter),
            "width": float(((norm - norm.mean()) / error).std(ddof=1)),
        }
    return out


def main() -> int:
    """Print the table and one line of JSON; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fakes", type=int, default=400)
    n_fakes = parser.parse_args().fakes
    random = np.random.default_rng(20)
    rows, is_good = [], True
    print(
        f"{N_BINS} bins with {MU_SIG} signal counts each, {n_fakes} fakes; bias in %, in errors; width of pulls"
    )
    print(f"{'mu_off':>7} {'alpha':>6} {'wstat':>24} {'grouped':>24} {'background known':>24}")
    for mu_off in MU_OFF:
        for alpha in ALPHA:
            case = measure(mu_off, alpha, n_fakes, random)
            cells = "".join(
                f"{c['bias_percent']:>10.1f} {c['bias_errors']:>6.2f} {c['width']:>6.2f} "
                for c in case.values()
            )
            print(f"{mu_off:>7g} {alpha:>6g} {cells}")
            rows.append({"mu_off": mu_off, "alpha": alpha, **case})
            is_good &= all(abs(case[way]["bias_errors"]) < TARGET for way in ("grouped", "known"))
    print(json.dumps({"benchmark": "wstat_bias", "fakes": n_fakes, "rows": rows, "passed": bool(is_good)}))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
