"""Flux points of any origin as data of a fit: tables of dnde, e2dnde or norms, in FITS or ECSV."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import FluxPointsData, NormProfiles
from dl3flow.errors import InputError, choices
from dl3flow.io.products import read_points
from dl3flow.kernels.profiles import with_minimum

_DNDE = u.Unit("cm-2 s-1 TeV-1")
_SED_TYPES = ("dnde", "e2dnde", "likelihood")
STAT_TYPES = ("chi2", "profile", "distrib")
# the field's upper limits are of 95 % confidence where a file does not say
_N_SIGMA_UL = 2.0


def read_flux_points_data(path: Path, name: str, stat_type: str = "chi2") -> FluxPointsData:
    """Read flux points to be fitted.

    Parameters
    ----------
    path : Path
        With ``e_ref`` and, by SED_TYPE: ``dnde`` or ``e2dnde`` with errors ``_err`` or ``_errn`` and ``_errp``, or
        ``likelihood``: ``ref_dnde`` and ``norm`` with its errors. ``is_ul`` marks upper limits. For ``profile``
        ``norm_scan`` and ``stat_scan`` (or ``dloglike_scan``), for ``distrib`` the limits ``_ul`` too.
    name : str
        Of the dataset.
    stat_type : 'chi2', 'profile' or 'distrib'
        As in `FluxPointsData`.

    Returns
    -------
    points : FluxPointsData
        Limits and points without a flux or error do not enter a fit; a sentence in ``meta["warnings"]`` counts them.

    Raises
    ------
    InputError
        If the file is damaged, of another kind, or lacks a column or unit.
    """
    rows, facts = read_points(Path(path))
    kind = str(facts.get("SED_TYPE", "likelihood" if "norm" in rows else "dnde"))
    if kind not in _SED_TYPES:
        raise InputError(
            f"{path}: flux points of the SED_TYPE '{kind}' need a spectrum to be fitted {choices(kind, _SED_TYPES)}: convert them"
        )
    energy = _column(rows, "e_ref", u.TeV, path)
    stem = "norm" if kind == "likelihood" else kind
    unit = {"dnde": _DNDE, "e2dnde": _DNDE * u.TeV**2, "norm": u.one}[stem]
    factor = {
        "dnde": 1 * u.one,
        "e2dnde": energy**-2,
        "norm": _column(rows, "ref_dnde", _DNDE, path) if stem == "norm" else 1 * u.one,
    }[stem]
    sides = ("_errn", "_errp") if f"{stem}_errn" in rows and f"{stem}_errp" in rows else ("_err", "_err")
    dnde, errn, errp = ((_column(rows, stem + end, unit, path) * factor).to(_DNDE) for end in ("", *sides))
    if sides != ("_err", "_err") and f"{stem}_err" in rows:
        # where one side is open, the symmetric error stands in
        both = (_column(rows, f"{stem}_err", unit, path) * factor).to(_DNDE)
        errn, errp = (np.where(np.isfinite(e), e, both) for e in (errn, errp))
    is_ul = np.asarray(rows.get("is_ul", np.zeros(len(energy))), dtype=bool)
    measured = ~is_ul & np.isfinite(dnde.value) & (errn.value > 0) & (errp.value > 0)
    points = FluxPointsData(name, energy, dnde, errn, errp, measured, {"warnings": []}, stat_type)
    if stat_type == "profile":
        points = _with_profiles(points, rows, path)
    if stat_type == "distrib":
        limit = (_column(rows, f"{stem}_ul", unit, path) * factor).to(_DNDE)
        points = _with_limits(points, np.where(is_ul, limit, np.nan), dnde, errp)
    if not points.mask.any():
        raise InputError(f"{path}: no point has {_MISSED[stat_type][0]}: name another file")
    left_out = int((~points.mask).sum())
    told = f"{name}: {left_out} of {len(points.mask)} flux points {_MISSED[stat_type][1]}, and are not fitted"
    return replace(points, meta={"warnings": [*points.meta["warnings"], *[told] * bool(left_out)]})


_MISSED = {
    "chi2": ("a flux with an error", "are limits or have no error"),
    "profile": ("a likelihood profile", "have no likelihood profile"),
    "distrib": ("a flux with an error, or a limit", "have neither an error nor a limit"),
}


def _with_profiles(points: FluxPointsData, rows: dict[str, Any], path: Path) -> FluxPointsData:
    n = len(points.mask)
    norm = _column(rows, "norm_scan", u.one, path).value
    if "stat_scan" not in rows and "dloglike_scan" in rows:
        # of either sign in the field's files, but always from the best fit
        stat = 2 * np.abs(_column(rows, "dloglike_scan", u.one, path).value)
    else:
        stat = _column(rows, "stat_scan", u.one, path).value
    best = [
        np.asarray(u.Quantity(rows.get(key, np.full(n, np.nan))).value)
        if "stat_scan" in rows
        else np.full(n, np.nan)
        for key in ("norm", "stat")
    ]
    ref_dnde = _column(rows, "ref_dnde", _DNDE, path)
    profiles: list[tuple[np.ndarray, np.ndarray]] = []
    for k in range(n):
        try:
            profiles.append(with_minimum(norm[k], stat[k], float(best[0][k]), float(best[1][k])))
        except ValueError:
            profiles.append((np.zeros(0), np.zeros(0)))
    mask = np.array([len(x) > 0 for x, _ in profiles]) & np.isfinite(ref_dnde.value)
    found = NormProfiles(ref_dnde, tuple(x for x, _ in profiles), tuple(y for _, y in profiles))
    return replace(points, mask=mask, profiles=found)


def _with_limits(
    points: FluxPointsData, limit: u.Quantity, dnde: u.Quantity, error: u.Quantity
) -> FluxPointsData:
    """Points with their limits; where the error behind one is not known, it is half the limit."""
    has_limit = np.isfinite(limit.value)
    known = np.isfinite(error.value) & (error.value > 0) & np.isfinite(dnde.value)
    sigma = np.where(known, error, limit / _N_SIGMA_UL)
    usable = has_limit & (sigma.value > 0)
    guessed = int((usable & ~known).sum())
    told = f"{points.name}: the errors behind {guessed} limits are not known, and taken as half of the limits"
    return replace(
        points,
        mask=points.mask | usable,
        limit=limit,
        limit_error=sigma,
        meta={"warnings": [told] * bool(guessed)},
    )


def _column(rows: dict[str, Any], name: str, unit: u.UnitBase, path: Path) -> u.Quantity:
    if name not in rows:
        raise InputError(f"{path}: the column '{name}' is missing: {choices(name, rows)}")
    try:
        return u.Quantity(rows[name], dtype=float).to(unit)
    except (u.UnitConversionError, TypeError, ValueError):
        found = getattr(rows[name], "unit", "none")
        raise InputError(
            f"{path}: the column '{name}' has the unit '{found}', expected one like '{unit}'"
        ) from None
