"""Estimator ``ts_map``: the flux of a source centred on each pixel in turn, with its test statistic, errors and upper limits."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Literal

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.errors import InputError
from dl3flow.estimators.images import common_geometry
from dl3flow.estimators.norms import Sigmas, lost_energies, point_meta, reference_columns, snapped_edges
from dl3flow.estimators.registry import MAPS
from dl3flow.estimators.signals import (
    KernelMean,
    expected_signal,
    known_counts,
    placed_source,
    signal_bins,
    subtracted_sources,
)
from dl3flow.fit.npred import icrs_positions
from dl3flow.geometry.axis import Axis, EnergyAxis, PositiveAngle
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.ts_map import Solver, Wanted, fit_strengths, solve_tiles
from dl3flow.models.source import Models
from dl3flow.models.written import WrittenShape, WrittenSpectrum, written
from dl3flow.reduce.beam import beam_radius

_WHERE = "estimator ts_map"
_FIRST = ("ts", "sqrt_ts", "npred_excess", "norm", "norm_err")


@MAPS.register()
def ts_map(
    datasets: Sequence[Dataset],
    result: FitResult | None,
    *,
    like: str | None = None,
    spectral: WrittenSpectrum | None = None,
    spatial: WrittenShape | None = None,
    subtract: list[str] | None = None,
    energy: EnergyAxis | None = None,
    energies: Literal["each", "summed"] = "each",
    kernel_mean: KernelMean = "counts",
    kernel_width: PositiveAngle | None = None,
    quantity: Literal["flux", "dnde", "eflux", "e2dnde"] = "flux",
    errors: bool = False,
    limits: bool = False,
    n_sigma: Sigmas = 1.0,
    n_sigma_ul: Sigmas = 2.0,
    engine: Literal["numpy", "numba"] = "numpy",
) -> SkyMap:
    """Fit the strength of one source on every pixel, all else fixed, jointly over datasets. Stewart (2009), appendix A.

    Parameters
    ----------
    datasets : sequence of Dataset
        With an expected background, on one pixel grid.
    result : FitResult or None
        None takes the backgrounds as the reduction left them, and no source as known.
    like : str or None
        Source of the fit that is looked for elsewhere: its spectrum and shape are taken, and it is not subtracted.
    spectral, spatial : Component or None
        Such as ``{type: power_law, index: 2.5}`` and ``{type: gauss, sigma: 0.1 deg}``, in place of those of ``like``; by
        default a power law of index 2 and a point.
    subtract : list of str, or None
        Sources of the fit that count as background; None is all but ``like``.
    energy : Axis or None
        A map for each bin, whose edges are moved to the nearest ones of the first dataset; None is one for all energies.
    energies : 'each' or 'summed'
        Whether the counts of each energy bin are fitted, or their sum.
    kernel_mean : 'counts' or 'plain'
        How the point spread of summed energies is averaged: by the expected counts, or all bins alike, as gammapy does.
    kernel_width : Quantity or None
        Beyond half of it the source is cut off; None keeps what holds 99.9 % of the point spread.
    quantity : 'flux', 'dnde', 'eflux' or 'e2dnde'
        What the maps give: integral photon or energy flux, or the differential one at the middle energy.
    errors, limits : bool
        Whether to add errors to both sides and upper limits, where the statistic has risen by the square of n_sigma and
        n_sigma_ul.
    n_sigma, n_sigma_ul : float
    engine : 'numpy' or 'numba'
        With what the fits are made; the results agree to rounding.

    Returns
    -------
    sky : SkyMap
        ts, sqrt_ts (negative for a negative strength), norm, norm_err, npred_excess, and of the quantity, such as flux and
        flux_err; on request errn, errp and ul of both. Errors are NaN
        where the strength is the lowest that predicts no negative counts, as it is where hardly any were seen. With ``energy`` on that axis.

    Raises
    ------
    InputError
        For a measured background, an unknown source, energies off those of the data, or without numba where it is asked for.
    """
    geom = common_geometry([d.counts.sky for d in datasets])
    source = placed_source(geom, result, like, spectral, spatial, _WHERE)
    models = Models(()) if result is None else result.models
    chosen = subtracted_sources(subtract, [s.name for s in models.sources], like, _WHERE)
    signals = [expected_signal(d, source, models, kernel_width) for d in datasets]
    expected = [known_counts(d, result, chosen) for d in datasets]
    axis = datasets[0].energy
    edges = axis.edges[[0, -1]] if energy is None else snapped_edges(axis, energy.edges)
    wanted = Wanted(n_sigma if errors else None, n_sigma_ul if limits else None)
    solve = solver(engine)
    bands = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        # without bands, what lies beyond the first dataset's energies counts too
        band = (None, None) if energy is None else (low, high)
        keeps = [d.mask & d.energy.contains_bin(*band)[:, None, None] for d in datasets]
        bins = signal_bins(datasets, signals, expected, keeps, geom, energies == "summed", kernel_mean)
        is_used = (bins.weight > 0).any(axis=0) & (bins.background.sum(axis=0) > 0)
        bands.append(fit_strengths(bins, is_used, wanted, solve))
    columns = reference_columns(source, edges[:-1], edges[1:])
    axes = () if energy is None else (Axis("energy", edges, "log"),)
    meta = {
        "estimator": "ts_map",
        "source positions": icrs_positions(models),
        "spectral": written(source.spectral),
        "spatial": "" if source.spatial is None else written(source.spatial),
        "subtracted": chosen,
        "quantity": quantity,
        **{name: values.value.tolist() for name, values in columns.items()},
        "n_sigma": n_sigma,
        "n_sigma_ul": n_sigma_ul,
        "engine": engine,
        "beam": beam_radius(datasets),
        "warnings": [
            *_moved(edges, None if energy is None else energy.edges),
            *([] if energy is None else lost_energies(datasets, edges)),
            *_unknown(datasets, expected),
        ],
    }
    return SkyMap(_maps(bands, columns[f"ref_{quantity}"], quantity, geom, axes), meta)


def solver(engine: str) -> Solver:
    """Function that makes the fits.

    Raises
    ------
    InputError
        If numba is asked for and not installed.
    """
    if engine == "numpy":
        return solve_tiles
    # by name, so that jobs that do without it have a digest without it
    try:
        found: Solver = import_module("dl3flow.kernels.ts_map_numba").solve_pixels
    except ImportError:
        raise InputError(
            f"{_WHERE}: `engine: numba` needs the package numba, which is not installed: `pip install dl3flow[fast]`, or take `numpy`"
        ) from None
    return found


def _maps(
    bands: Sequence[Mapping[str, np.ndarray]],
    reference: u.Quantity,
    quantity: str,
    geom: SkyGeometry,
    axes: tuple[Axis, ...],
) -> dict[str, Map]:
    """Maps by name from the fits of each band."""
    found = {name: np.stack([band[name] for band in bands]) for name in bands[0]}
    norm = found["norm"]
    found["sqrt_ts"] = np.sign(norm) * np.sqrt(found["ts"])
    found["npred_excess"] = norm * found.pop("signal")
    images = {name: found[name] for name in (*_FIRST, *(k for k in found if k not in _FIRST))}
    one: u.UnitBase = u.dimensionless_unscaled
    maps = {name: (values, one) for name, values in images.items()}
    for name, values in images.items():
        if name.startswith("norm"):
            maps[name.replace("norm", quantity)] = (values * reference.value[:, None, None], reference.unit)
    shape = (*(axis.n_bins for axis in axes), *geom.shape)
    return {name: Map(geom, axes, values.reshape(shape), unit) for name, (values, unit) in maps.items()}


def _unknown(datasets: Sequence[Dataset], expected: Sequence[np.ndarray]) -> list[str]:
    """A sentence for the datasets in which nothing is expected beside the source, so that they have no fit of their own."""
    names = [d.name for d, known in zip(datasets, expected, strict=True) if not (known[d.mask] > 0).any()]
    return [
        f"strengths are fitted where a background is expected, and there is no such bin in use in {', '.join(names)}: give the "
        "reduction a `background`, and safe masks that leave some"
    ] * bool(names)


def _moved(edges: u.Quantity, asked: u.Quantity | None) -> list[str]:
    meta = point_meta("", 1.0, 2.0, edges, asked)
    return list(meta["warnings"])
