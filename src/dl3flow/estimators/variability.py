"""What a light curve says about the variability of its source."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from scipy.special import chdtrc

from dl3flow.data.slices import Slice
from dl3flow.estimators.norms import norm_row
from dl3flow.kernels.variability import (
    constant_chi2,
    excess_variance,
    fastest_changes,
    fraction,
    point_to_point_variance,
)
from dl3flow.units import FLUX

_TIMES = ("doubling", "halving")


def describe_variability(
    slices: Sequence[Slice], rows: Sequence[Mapping[str, Any]], *, is_timed: bool = True
) -> tuple[list[dict[str, Any]], list[list[Any]], list[str]]:
    """Measures of variability per energy band, what a report says of them, and warnings.

    All bins with a flux and an error count, also those below the threshold of a detection: leaving these out would bias the
    mean. `ts_constant` compares the likelihood of one common flux with that of a flux per bin, which is right at low counts
    too, where the errors that chi2 takes are not.

    Parameters
    ----------
    slices : sequence of Slice
        In order of time.
    rows : sequence of mapping
        Of `slice_rows`.
    is_timed : bool
        False for bins that are no times, between which nothing doubles or halves.

    Returns
    -------
    measures : list of dict
        Per band: e_min, e_max (TeV), n_bins, mean_flux and mean_flux_err (cm-2 s-1), chi2, n_dof, p_constant, ts_constant,
        p_ts_constant, excess_variance, fvar, fpp with their errors, doubling_time and halving_time (d) with theirs and the
        times (MJD, TT) where they begin.
    summary : list of [label, text or number]
    warnings : list of str
    """
    n_bands = len(rows) // len(slices)
    measures, told = [], []
    for band in range(n_bands):
        own = list(rows[band::n_bands])
        found = _measure(own, slices, band)
        measures.append(found if is_timed else {k: v for k, v in found.items() if not k.startswith(_TIMES)})
    if measures[0]["n_bins"] < 2:
        told.append("fewer than two bins have a flux with an error, so nothing is known of variability")
    names = [f", {m['e_min']:.3g} to {m['e_max']:.3g} TeV" if n_bands > 1 else "" for m in measures]
    summary = [entry for m, name in zip(measures, names, strict=True) for entry in _spoken(m, name)]
    return measures, summary, told


def _measure(rows: Sequence[Mapping[str, Any]], slices: Sequence[Slice], band: int) -> dict[str, Any]:
    reference = np.array([row["ref_flux"].to_value(FLUX) for row in rows])
    flux = np.array([row["norm"] for row in rows]) * reference
    error = np.array([row["norm_err"] for row in rows]) * reference
    time = np.array([0.5 * (row["low"] + row["high"]) for row in rows])
    good = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    flux, error, time = flux[good], error[good], time[good]
    chi2, n_dof, p_chi2 = constant_chi2(flux, error)
    ts, n_ts = _constant_ts(slices, rows, band)
    excess = excess_variance(flux, error)
    neighbours = point_to_point_variance(flux, error)
    rise, fall = fastest_changes(time, flux, error)
    weight = error**-2.0
    return {
        "e_min": float(rows[0]["e_min"].to_value(u.TeV)),
        "e_max": float(rows[0]["e_max"].to_value(u.TeV)),
        "n_bins": len(flux),
        "mean_flux": float(np.average(flux, weights=weight)) if len(flux) else np.nan,
        "mean_flux_err": float(weight.sum() ** -0.5) if len(flux) else np.nan,
        "chi2": chi2,
        "n_dof": n_dof,
        "p_constant": p_chi2,
        "ts_constant": ts,
        "p_ts_constant": float(chdtrc(n_ts, ts)) if n_ts > 0 else np.nan,
        "excess_variance": excess[0],
        "excess_variance_err": excess[1],
        **dict(zip(("fvar", "fvar_err"), fraction(*excess), strict=True)),
        **dict(zip(("fpp", "fpp_err"), fraction(*neighbours), strict=True)),
        "doubling_time": rise.time,
        "doubling_time_err": rise.error,
        "doubling_at": rise.at,
        "halving_time": fall.time,
        "halving_time_err": fall.error,
        "halving_at": fall.at,
    }


def _constant_ts(slices: Sequence[Slice], rows: Sequence[Mapping[str, Any]], band: int) -> tuple[float, int]:
    """Statistic of one common strength above that of one per bin, and the degrees of freedom."""
    pairs = [(s.bands[band], row) for s, row in zip(slices, rows, strict=True) if row["success"]]
    parts = [part for each, _ in pairs for part in each.parts if len(part.n)]
    if len(pairs) < 2 or not parts:
        return np.nan, 0
    common = norm_row(parts, 1.0, 2.0)["stat"] + sum(each.stat for each, _ in pairs)
    return max(float(common - sum(row["stat"] for _, row in pairs)), 0.0), len(pairs) - 1


def _spoken(measure: Mapping[str, Any], name: str) -> list[list[Any]]:
    if measure["n_bins"] < 2:
        return []
    told: list[list[Any]] = [
        [
            f"probability of a constant flux{name}",
            f"{measure['p_ts_constant']:.2g} (TS {measure['ts_constant']:.1f}; chi2 {measure['chi2']:.1f} for {measure['n_dof']} "
            "degrees of freedom)",
        ]
    ]
    if np.isfinite(measure["fvar"]):
        told.append([f"fractional variability{name}", f"{measure['fvar']:.3f} ± {measure['fvar_err']:.3f}"])
    else:
        told.append(
            [
                f"normalised excess variance{name}",
                f"{measure['excess_variance']:.3f} ± {measure['excess_variance_err']:.3f}, no more than the errors",
            ]
        )
    if np.isfinite(measure.get("doubling_time", np.nan)):
        hours = 24 * measure["doubling_time"], 24 * measure["doubling_time_err"]
        told.append([f"fastest doubling{name}", f"{_with_error(*hours)} h"])
    return told


def _with_error(value: float, error: float) -> str:
    """Both to two significant digits of the error: 320 ± 200, 0.32 ± 0.29."""
    if not error > 0:
        return f"{value:.3g} ± {error:.2g}"
    digits = 1 - math.floor(math.log10(error))
    return " ± ".join(f"{round(number, digits):.{max(digits, 0)}f}" for number in (value, error))
