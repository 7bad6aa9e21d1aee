"""What else is asked of the parameters of a fit: MINOS errors, profiles and contours."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from dl3flow.data.dataset import FitData
from dl3flow.data.products import Contour, FitResult
from dl3flow.fit.settings import FitSettings

# points of a line around something
_FEWEST = 4
# parts of a contour's width: a point this near to a limit lies on it
_NEAR = 1e-3


def with_uncertainties(
    datasets: Sequence[FitData],
    result: FitResult,
    asked: Mapping[str, Any],
    settings: FitSettings | None = None,
) -> FitResult:
    """A fit with the errors that are asked for; a fit that failed has none, and its warnings say so.

    Parameters
    ----------
    datasets : sequence of Dataset
    result : FitResult
    asked : mapping
        ``minos``: names of parameters, or ``all`` free ones; ``profiles``: list of ``name`` with ``values``, or ``n`` and
        ``n_sigma``, or neither; ``contours``: list of ``names``, ``n_sigma`` (list) and ``n_points``.
    settings : FitSettings, optional
        Those of the fit.

    Raises
    ------
    InputError
        For a parameter that the fit does not have.
    """
    wanted = [key for key in ("minos", "profiles", "contours") if asked.get(key)]
    if not wanted:
        return result
    if not result.success:
        told = f"{' and '.join(wanted)} are not computed, since the fit did not end at a minimum"
        warnings = [*result.minimiser.get("warnings", []), told]
        return replace(result, minimiser={**result.minimiser, "warnings": warnings})
    asked, frozen = _possible(result, asked)
    # by name, so that the digest of a fit holds this code only where something is asked for
    confidence = import_module("dl3flow.fit.confidence")
    names = asked.get("minos") or []
    found = replace(
        result,
        minos=confidence.minos(datasets, result, result.free if names == "all" else names, settings)
        if names
        else {},
        profiles={
            each["name"]: confidence.profile(datasets, result, each["name"], _values(result, each), settings)
            for each in asked.get("profiles") or []
        },
        contours=tuple(
            confidence.contour(
                datasets,
                result,
                tuple(each["names"]),
                n_sigma=n_sigma,
                n_points=each["n_points"],
                settings=settings,
            )
            for each in asked.get("contours") or []
            for n_sigma in each["n_sigma"]
        ),
    )

    missing = [*frozen, *_one_sided(found), *_open(found, asked)]
    all_told = [*result.minimiser.get("warnings", []), *missing]
    return replace(found, minimiser={**result.minimiser, "warnings": all_told}) if missing else found


def _possible(result: FitResult, asked: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is asked of parameters that were fitted, and a sentence for each that the data do not constrain."""
    minos = asked.get("minos") or []
    names = {
        *(() if minos == "all" else minos),
        *(each["name"] for each in asked.get("profiles") or []),
        *(name for each in asked.get("contours") or [] for name in each["names"]),
    }
    known = result.models.parameters()
    lost = sorted(name for name in names if name in known and name not in result.free and known[name].frozen)
    kept = {
        "minos": minos if minos == "all" else [name for name in minos if name not in lost],
        "profiles": [each for each in asked.get("profiles") or [] if each["name"] not in lost],
        "contours": [each for each in asked.get("contours") or [] if not set(each["names"]) & set(lost)],
    }
    return {**asked, **kept}, [
        f"{name} was kept in the fit, since no data constrain it: there is no MINOS error, profile or contour of it"
        for name in lost
    ]


def _one_sided(result: FitResult) -> list[str]:
    """A sentence for each MINOS error that ends at a limit, or nowhere."""
    sides = {
        name: [
            side for side, error in zip(("downwards", "upwards"), pair, strict=True) if not np.isfinite(error)
        ]
        for name, pair in result.minos.items()
    }
    return [
        f"{name} has no MINOS error {' and '.join(words)}: the statistic does not rise by one before a limit is met"
        for name, words in sides.items()
        if words
    ]


def _open(result: FitResult, asked: Mapping[str, Any]) -> list[str]:
    """A sentence for each contour without a line, or that a limit cuts."""
    n_points = [each["n_points"] for each in asked.get("contours") or [] for _ in each["n_sigma"]]
    told = []
    for line, n in zip(result.contours, n_points, strict=True):
        name = f"the contour of {' and '.join(line.names)} at {line.n_sigma:g} sigma"
        if len(line.x) < _FEWEST:
            told.append(f"{name} was not found: it does not close within the limits")
        elif len(line.x) < n or _meets_limit(result, line):
            told.append(f"{name} is cut by a limit, where it is no line of one height")
    return told


def _meets_limit(result: FitResult, line: Contour) -> bool:
    for name, values in zip(line.names, (line.x, line.y), strict=True):
        p = result.parameter(name)
        if np.fmin(values.min() - p.min, p.max - values.max()) < _NEAR * np.ptp(values):
            return True
    return False


def _values(result: FitResult, each: Mapping[str, Any]) -> np.ndarray | None:
    """Values of a profile in the parameter's unit, within its limits; None leaves them to the profile."""
    if "values" in each:
        return np.array(each["values"], dtype=float)
    if "n" not in each or each["name"] not in result.free:
        return None
    p = result.parameter(each["name"])
    reach = each["n_sigma"] * p.error
    low, high = np.fmax(p.value - reach, p.min), np.fmin(p.value + reach, p.max)
    return np.asarray(np.linspace(low, high, each["n"]))
