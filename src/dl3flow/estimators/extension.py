"""Estimator ``extension``: is a source larger than a point, how large is it, and how large at most."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import astropy.units as u
import numpy as np
import scipy
from astropy.table import QTable
from scipy.special import chdtr

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.data.products import FitResult, ProductTable
from dl3flow.errors import InputError, choices
from dl3flow.estimators.norms import Sigmas, find_source
from dl3flow.estimators.registry import TABLES
from dl3flow.fit.compare import compare
from dl3flow.fit.confidence import minos
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import icrs_positions
from dl3flow.geometry.axis import PositiveAngle
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.source import Component, Models, Parameter, Source

_WHERE = "estimator extension"
_KINDS = ("point", "gauss", "disk")
# a test statistic that rounding leaves of none
_ROUNDING = 1e-6
_SIZES = {"gauss": "sigma", "disk": "r_0"}
_FIXED = {
    "gauss": (Parameter("e", 0.0, frozen=True), Parameter("phi", 0.0, u.deg, frozen=True)),
    "disk": (
        Parameter("e", 0.0, frozen=True),
        Parameter("phi", 0.0, u.deg, frozen=True),
        Parameter("edge_width", 0.01, frozen=True),
    ),
}
# part of a pixel that stands for no size at all
_NOTHING = 1e-4
# pixels from which a size is looked for: one may end where nothing is extended, and pass by a large source
_STARTS = (1.0, 6.0)
# part of a pixel below which a size is none
_RESOLVED = 1 / 3
_TOLERANCE = 1e-3
_GROW = 1.6
_BEYOND = 1.25


def _number_of_points(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 3 <= value <= 200:
        raise ValueError(f"expected a whole number from 3 to 200, found {value!r}")
    return value


@TABLES.register()
def extension(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    shape: Literal["gauss", "disk"] = "gauss",
    max_size: PositiveAngle = 1 * u.deg,
    n_points: Annotated[int, _number_of_points] = 9,
    n_sigma_ul: Sigmas = 2.0,
) -> ProductTable:
    """Fit a source as a Gaussian or disk of a free size and of none, all else of the fit as free as it was.

    Of no size is the same shape, not the model ``point``: that one is shared out among four pixels by its place in them, which
    is a little wider, and the difference would be taken for an extension.

    Parameters
    ----------
    datasets : sequence of Dataset
        Those of the fit, a map among them.
    result : FitResult
        Its source is a point, or of either shape.
    source : str
    shape : 'gauss' or 'disk'
        ``sigma`` of the Gaussian or radius ``r_0`` of the disk is the size.
    max_size : Quantity
        Beyond which none is looked for.
    n_points : int
        Of the profile.
    n_sigma_ul : float
        Of the upper limit.

    Returns
    -------
    extension : ProductTable
        The profile of the likelihood: size, stat (less its value at the best size; the first row is no size). ``meta``:
        ``ts`` (stat of no size less that of the best one), ``sigma`` and ``p_value`` with the point at the edge of the
        sizes (Chernoff 1954), ``size``, ``size_err``, ``size_errn``, ``size_errp``, ``size_ul`` (deg; the size at which the
        profile has risen by n_sigma_ul^2), ``comparison`` in words, and ``ul_conf``.

    Raises
    ------
    InputError
        If the fit has no such source, it has another shape, or no dataset is a map.
    """
    found = find_source(result, source, _WHERE)
    pixel = _pixel(datasets)
    if found.spatial is None or found.spatial.kind not in _KINDS:
        kind = "none" if found.spatial is None else found.spatial.kind
        raise InputError(
            f"{_WHERE}: the source '{source}' has the spatial model '{kind}': give it one that a point can be compared with "
            f"{choices(kind, _KINDS)}"
        )
    most = float(max_size.to_value(u.deg))
    if most <= pixel:
        raise InputError(
            f"{_WHERE}: max_size ({max_size}) is below the size of the pixels, {pixel:g} deg: make it larger"
        )
    name = f"{source}.{_SIZES[shape]}"
    wide = _best_of(datasets, result.models, found, shape, pixel, most)
    size = wide.parameter(name)
    null = fit(datasets, _with_size(wide, name, size.min))
    told = [
        f"the fit of the {which} is doubtful: {each.message}"
        for which, each in (("source of no size", null), (shape, wide))
        if not each.success
    ]
    is_resolved = size.value >= _RESOLVED * pixel
    if not is_resolved:
        told.append(
            f"{source} is no larger than a point: its size is below a third of a pixel of {pixel:g} deg, and has no error"
        )
    if name in wide.minimiser["at_limit"] and is_resolved:
        told.append(f"the size ends at max_size ({max_size}): make it larger")
    profile = _profiled(datasets, wide, name)
    start = size.value if is_resolved else 0.0
    # a size at its end, or one that no data see, has no error
    error = size.error if is_resolved and size.error > 0 else np.nan
    limit = _upper_limit(profile, start, error if error > 0 else pixel, n_sigma_ul, most)
    if not np.isfinite(limit):
        told.append(
            f"the likelihood does not exclude any size up to max_size ({max_size}): there is no upper limit"
        )
    end = min(_BEYOND * limit if np.isfinite(limit) else most, most)
    sizes = np.linspace(0.0, end, n_points)
    stat = [null.stat - wide.stat, *(profile(float(s)) for s in sizes[1:])]
    errn, errp = _errors(datasets, wide, name) if is_resolved else (np.nan, np.nan)
    compared = compare(null, wide)
    confidence = round(float(chdtr(1, n_sigma_ul**2)), 6)
    return ProductTable(
        "extension",
        QTable({"size": sizes * u.deg, "stat": np.array(stat)}),
        {
            "source": source,
            "shape": shape,
            "source positions": {source: icrs_positions(wide.models)[source]},
            "ts": compared.ts,
            "sigma": compared.sigma,
            "p_value": compared.p_value,
            "delta_aic": compared.delta_aic,
            "comparison": compared.sentence,
            "size": size.value,
            "size_err": error,
            "size_errn": errn,
            "size_errp": errp,
            "size_ul": limit,
            "n_sigma_ul": n_sigma_ul,
            "ul_conf": confidence,
            "warnings": told,
            "summary": [
                ["test statistic of the extension", compared.ts if abs(compared.ts) > _ROUNDING else 0.0],
                ["as deviations of a Gaussian variable", compared.sigma],
                [f"{_SIZES[shape]} (deg)", size.value],
                ["its error (deg)", error],
                [f"upper limit (deg, {100 * confidence:.4g} %)", limit],
            ],
        },
    )


def _pixel(datasets: Sequence[FitData]) -> float:
    """Size of the smallest pixels, deg."""
    sizes = [d.geom.binsz for d in datasets if isinstance(d, Dataset) and isinstance(d.geom, SkyGeometry)]
    if not sizes:
        raise InputError(
            f"{_WHERE}: none of the fit's data is a map, and nothing else shows an extension: take a fit with one"
        )
    return min(sizes)


def _with(models: Models, source: Source) -> Models:
    return replace(models, sources=tuple(source if s.name == source.name else s for s in models.sources))


def _as_shape(source: Source, shape: str, size: float, least: float, most: float) -> Source:
    """The source with that extension, deg, free between ``least`` and ``most``."""
    spatial = source.spatial
    assert spatial is not None
    free = Parameter(_SIZES[shape], size, u.deg, min=least, max=most)
    if spatial.kind == shape:
        kept = tuple(free if p.name == free.name else p for p in spatial.parameters)
        return replace(source, spatial=replace(spatial, parameters=kept))
    frame = {key: value for key, value in spatial.options.items() if key == "frame"}
    parameters = (spatial["lon_0"], spatial["lat_0"], free, *_FIXED[shape])
    return replace(source, spatial=Component(shape, parameters, frame))


def _best_of(
    datasets: Sequence[FitData], models: Models, source: Source, shape: str, pixel: float, most: float
) -> FitResult:
    """The best of the fits from several sizes."""
    assert source.spatial is not None
    starts = [min(k * pixel, 0.5 * most) for k in _STARTS]
    if source.spatial.kind == shape:
        own = float(source.spatial[_SIZES[shape]].quantity.to_value(u.deg))
        starts = [own] if _RESOLVED * pixel < own < most else starts
    shapes = [_as_shape(source, shape, size, _NOTHING * pixel, most) for size in starts]
    fits = [fit(datasets, _with(models, each)) for each in shapes]
    return min(fits, key=lambda each: each.stat)


def _profiled(datasets: Sequence[FitData], wide: FitResult, name: str) -> Callable[[float], float]:
    """Statistic at a size, all else at its best, less that at the best size."""

    def stat(size: float) -> float:
        return fit(datasets, _with_size(wide, name, size)).stat - wide.stat

    return stat


def _with_size(wide: FitResult, name: str, size: float) -> Models:
    """Models of a fit with the size fixed there."""
    return wide.models.with_parameters(
        {name: replace(wide.parameter(name), value=size, error=0.0, frozen=True)}
    )


def _upper_limit(
    profile: Callable[[float], float], start: float, step: float, n_sigma: float, most: float
) -> float:
    """Size above ``start`` at which the profile has risen by n_sigma^2; NaN where it does not up to ``most``."""

    def above(size: float) -> float:
        # of the root, which is nearly straight
        rise = profile(size)
        return float(np.sign(rise) * np.sqrt(abs(rise))) - n_sigma

    low, value_low = start, -n_sigma
    high = min(start + n_sigma * step, most)
    while True:
        value = above(high)
        if value >= 0:
            break
        if high >= most:
            return np.nan
        low, value_low = high, value
        high = min(start + _GROW * (high - start), most)
    if value == 0:
        return high
    known = {low: value_low, high: value}
    found = scipy.optimize.brentq(
        lambda s: known[s] if s in known else above(s), low, high, xtol=_TOLERANCE * high, rtol=_TOLERANCE
    )
    return float(found)


def _errors(datasets: Sequence[FitData], wide: FitResult, name: str) -> tuple[float, float]:
    return minos(datasets, wide, [name])[name]
