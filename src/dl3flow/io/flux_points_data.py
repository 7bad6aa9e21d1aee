"""Flux points of any origin as data of a fit: tables of dnde, e2dnde or norms, in FITS or ECSV."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import FluxPointsData
from dl3flow.errors import InputError, choices
from dl3flow.io.products import read_points

_DNDE = u.Unit("cm-2 s-1 TeV-1")
_SED_TYPES = ("dnde", "e2dnde", "likelihood")


def read_flux_points_data(path: Path, name: str) -> FluxPointsData:
    """Read flux points to be fitted.

    Parameters
    ----------
    path : Path
        With ``e_ref`` and, by SED_TYPE: ``dnde`` or ``e2dnde`` with errors ``_err`` or ``_errn`` and ``_errp``, or
        ``likelihood``: ``ref_dnde`` and ``norm`` with its errors. ``is_ul`` marks upper limits.
    name : str
        Of the dataset.

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
    mask = ~is_ul & np.isfinite(dnde.value) & (errn.value > 0) & (errp.value > 0)
    if not mask.any():
        raise InputError(f"{path}: no point has a flux with an error: name another file")
    left_out = int((~mask).sum())
    warnings = [
        f"{name}: {left_out} of {len(mask)} flux points are limits or have no error, and are not fitted"
    ]
    return FluxPointsData(name, energy, dnde, errn, errp, mask, {"warnings": warnings * bool(left_out)})


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
