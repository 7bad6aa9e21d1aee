"""A dataset in the compact form of its likelihood: what its counts need of the responses, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy

from dl3flow.data.dataset import Dataset, ExpectedCounts, FluxPointsData, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.binding import Binding, bind, for_dataset
from dl3flow.fit.flux import Varied, VariedFunction
from dl3flow.fit.npred import (
    Seen,
    bind_scale,
    check_size,
    energies_of_shape,
    exposure_of,
    frame_of,
    good_times,
    is_whole,
    reached_part,
    response_at,
    response_model,
    response_position,
    scale_function,
    seen_template,
    weigh_background,
)
from dl3flow.fit.points import build_points_stat
from dl3flow.fit.template import grid_length, place_window
from dl3flow.fit.terms import CountsTerm, FluxSpec, PointsTerm, Reach, TemplateSpec
from dl3flow.geometry.region import RegionGeometry
from dl3flow.kernels.convolve import even_transforms, portions, unfolded
from dl3flow.kernels.statistics import TRUNCATION, wstat_ts
from dl3flow.models.pixels import oversampling
from dl3flow.models.source import Models, Source, full_names
from dl3flow.units import ENERGY

Slices = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class _Found:
    """One source in one dataset before its bins are chosen: where it reaches, and what it needs there.

    ``fixed`` is counts per flux (n_true, rows, columns) of a template that does not vary; ``response`` is exposure there
    (n_true, rows, columns), ``kernels`` are quadrants of transforms and ``window`` the template's first pixel otherwise.
    """

    reach: Reach
    rows: slice
    columns: slice
    edisp: np.ndarray
    fixed: np.ndarray | None
    response: np.ndarray | None
    kernels: np.ndarray | None
    corner: tuple[int, int]


def compact_points(points: FluxPointsData, models: Models, position: Mapping[str, int]) -> PointsTerm:
    """Flux points as a term of a likelihood."""
    energies = tuple(points.energy_ref[points.mask].to_value(ENERGY).tolist())
    response = response_model(points.name, models)
    named = "" if response is None else response.name
    fluxes = tuple(
        FluxSpec(s.name, energies, True, named)
        for s in models.sources
        if for_dataset(points.name, s.datasets)
    )
    slots: set[int] = set()
    for flux in fluxes:
        slots |= parameter_slots(models, flux.source, {"spectral"}, position)
    if response is not None:
        slots |= {position[n] for n in full_names(response)["scale"] if n in position}
    return PointsTerm(
        (points.name,),
        fluxes,
        len(energies),
        build_points_stat(points),
        np.array(sorted(slots), dtype=int),
        np.zeros(0, dtype=int),
    )


def compact_counts(
    dataset: Dataset,
    models: Models,
    declared: Models,
    position: Mapping[str, int],
    *,
    is_dense: bool = False,
    precision: type = np.float64,
) -> CountsTerm:
    """Counts as a term of a likelihood.

    Parameters
    ----------
    dataset : Dataset
    models : Models
        Where templates lie and how fine their pixels are divided.
    declared : Models
        Where the responses are taken.
    position : mapping
        Entry of the free vector of each free parameter.
    is_dense : bool
        Hold every bin that a source reaches: only so can a negative expectation be cut in bins without counts.
    precision : type
        In which responses are kept.

    Raises
    ------
    InputError
        If the dataset has no background, or numbers that cannot be.
    """
    check_data(dataset)
    found = [
        f
        for s, d in zip(models.sources, declared.sources, strict=True)
        if for_dataset(dataset.name, s.datasets) and (f := _find(dataset, s, d, models, position)) is not None
    ]
    reached = np.zeros(dataset.counts.data.shape[1:], dtype=bool)
    for f in found:
        reached[f.rows, f.columns] = True
    slots: set[int] = set()
    for f in found:
        parts = {"spectral", "temporal"}
        if f.reach.template is not None or f.reach.flux.region:
            parts.add("spatial")
        slots |= parameter_slots(models, f.reach.flux.source, parts, position)
    match dataset.background:
        case ExpectedCounts():
            held, arrays, weights, constant = _expected(dataset, models, position, reached, is_dense)
        case OffCounts() as off:
            held, arrays, weights, constant = _measured(dataset, off, models, position, reached, is_dense)
        case None:
            raise InputError(
                f"dataset '{dataset.name}': it has no background: name a method such as `reflected` in its `background`"
            )
    response = response_model(dataset.name, models)
    if response is not None:
        slots |= {position[n] for n in full_names(response)["scale"] if n in position}
    for model in models.backgrounds:
        if isinstance(dataset.background, ExpectedCounts) and for_dataset(dataset.name, model.datasets):
            slots |= {position[n] for n in full_names(model)["spectral"] if n in position}
    usable = dataset.mask
    if isinstance(dataset.background, OffCounts):
        usable = usable & (dataset.background.alpha > 0)
    for k, f in enumerate(found):
        arrays |= _reach_arrays(k, f, held, usable, is_dense, precision)
    for array in arrays.values():
        array.setflags(write=False)
    return CountsTerm(
        (dataset.name,),
        isinstance(dataset.background, OffCounts),
        is_dense,
        tuple(f.reach for f in found),
        tuple(weights),
        np.array(sorted(slots), dtype=int),
        np.zeros(0, dtype=int),
        constant,
        lambda: arrays,
    )


def check_data(dataset: Dataset) -> None:
    """Refuse numbers that the statistic would pass over, or spread over all bins: files made elsewhere may hold any."""
    parts = {"counts": dataset.counts.data}
    match dataset.background:
        case ExpectedCounts(counts):
            parts["background"] = counts.data
        case OffCounts(counts, acceptance, acceptance_off):
            parts |= {
                "off counts": counts.data,
                "acceptance": acceptance.data,
                "acceptance_off": acceptance_off.data,
            }
    mask = dataset.mask
    wrong = {name: _count_wrong(values, mask) for name, values in parts.items()}
    wrong["exposure"] = _count_wrong(dataset.exposure.data, None)
    found = ", ".join(f"{name} in {n} bins" for name, n in wrong.items() if n)
    if found:
        raise InputError(
            f"dataset '{dataset.name}': numbers that are negative or not finite ({found}): make its file again, or take such bins out "
            "of its safe mask"
        )


def _count_wrong(values: np.ndarray, mask: np.ndarray | None) -> int:
    low, high = values.min(initial=0.0), values.max(initial=0.0)
    if low >= 0 and high < np.inf:
        return 0
    wrong = ~(np.isfinite(values) & (values >= 0))
    return int(np.count_nonzero(wrong if mask is None else wrong & mask))


def parameter_slots(models: Models, source: str, parts: set[str], position: Mapping[str, int]) -> set[int]:
    """Entries of the free vector of some parts of a source."""
    model = next(s for s in models.sources if s.name == source)
    named = full_names(model)
    return {position[n] for part in parts & set(named) for n in named[part] if n in position}


def _find(
    dataset: Dataset, source: Source, declared: Source, models: Models, position: Mapping[str, int]
) -> _Found | None:
    response = response_model(dataset.name, models)
    flux = FluxSpec(
        source.name,
        tuple(dataset.energy_true.edges.to_value(ENERGY).tolist()),
        False,
        "" if response is None else response.name,
        good_times(dataset, source),
    )
    spatial = None if source.spatial is None else bind(source, "spatial", position)
    if spatial is None or not spatial.is_free.any() or isinstance(dataset.geom, RegionGeometry):
        seen = seen_template(dataset, source, declared)
        if seen is not None and spatial is not None and spatial.is_free.any():
            flux, seen = _with_share(dataset, source, flux, seen)
        if seen is None:
            return None
        return _Found(Reach(flux), seen.rows, seen.columns, seen.edisp, seen.per_flux, None, None, (0, 0))
    return _find_varying(dataset, source, declared, flux, spatial)


def _with_share(dataset: Dataset, source: Source, flux: FluxSpec, seen: Seen) -> tuple[FluxSpec, Seen]:
    """Flux of an extended source in a region times its share there, which varies; the same flux for any other source."""
    region = dataset.geom
    assert isinstance(region, RegionGeometry)
    if is_whole(region, bind(source, "spatial", {}).plugin):
        return flux, seen
    return replace(flux, region=region.text), replace(seen, per_flux=exposure_of(dataset, source.without_irf))


def _find_varying(
    dataset: Dataset, source: Source, declared: Source, flux: FluxSpec, spatial: Binding
) -> _Found | None:
    at = response_at(dataset, response_position(dataset, declared), source.without_irf)
    geom, half = dataset.counts.sky, at.kernels.shape[-1] // 2
    energy = energies_of_shape(dataset, spatial.plugin)
    window = place_window(geom, spatial, frame_of(source), energy)
    reached = None if window is None else reached_part(window, half, geom.shape)
    if window is None or reached is None:
        return None
    check_size(dataset, source, window, half)
    template = TemplateSpec(
        source.name,
        window.geom,
        oversampling(spatial.plugin, spatial.start, geom, energy),
        () if energy is None else tuple(energy.tolist()),
    )
    length = grid_length(window, half)
    return _Found(
        Reach(flux, template, length),
        *reached,
        at.edisp,
        None,
        exposure_of(dataset, source.without_irf, *reached),
        even_transforms(at.kernels, length),
        (window.row, window.column),
    )


def _expected(
    dataset: Dataset, models: Models, position: Mapping[str, int], reached: np.ndarray, is_dense: bool
) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray], list[VariedFunction], float]:
    """Held bins (energy, row, column) and what Cash needs of the background there."""
    mask, counts = dataset.mask, dataset.counts.data
    parts = weigh_background(dataset, models, position)
    if len(parts) > 1:
        # what lies outside the sources' reach is no multiple of one background any more
        reached = np.ones_like(reached)
    stored = [
        np.where(mask & (b > 0), b, 0.0) for b in (dataset.mu_bkg if c is None else c for c, _ in parts)
    ]
    held = _by_pixel(mask & reached if is_dense else mask & reached & (counts > 0))
    arrays: dict[str, np.ndarray] = {"n": counts[held].astype(float), "e": held[0]}
    n_energy = len(counts)
    for k, background in enumerate(stored):
        arrays[f"b{k}"] = background[held].astype(float)
        arrays[f"B{k}"] = background.sum(axis=(1, 2), dtype=float)
        if is_dense:
            arrays[f"B{k}"] -= np.bincount(held[0], arrays[f"b{k}"], n_energy)
    left = np.nonzero(mask & ~reached & (counts > 0))
    n, b = counts[left].astype(float), stored[0][left].astype(float)
    known = b > 0
    arrays["N"] = np.bincount(left[0], n, n_energy) + np.bincount(held[0], arrays["n"], n_energy)
    arrays["outside"] = np.bincount(left[0][known], n[known], n_energy)
    constant = float(n @ np.log(np.where(known, b, TRUNCATION))) - TRUNCATION * np.count_nonzero(~known)
    return held, arrays, [factor for _, factor in parts], constant


def _by_pixel(chosen: np.ndarray) -> tuple[np.ndarray, ...]:
    """Energy, row and column of the chosen bins, those of one pixel next to each other."""
    rows, columns, e = np.nonzero(chosen.transpose(1, 2, 0))
    return e, rows, columns


def _measured(
    dataset: Dataset,
    off: OffCounts,
    models: Models,
    position: Mapping[str, int],
    reached: np.ndarray,
    is_dense: bool,
) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray], list[VariedFunction], float]:
    """Held bins (energy, row, column) and what wstat needs of the off counts there."""
    n_on, n_off, alpha = dataset.counts.data, off.counts.data, off.alpha
    usable = dataset.mask & (alpha > 0)
    response = response_model(dataset.name, models)
    scale = None if response is None else bind_scale(response, "background_scale", position)
    if scale is not None and not scale.is_free.any() and scale.start[0] == 1:
        scale = None
    if scale is not None:
        # alpha varies: it counts in every bin
        held = _by_pixel(usable if is_dense else usable & ((n_on > 0) | (n_off > 0)))
    else:
        held = _by_pixel(usable & reached if is_dense else usable & reached & (n_on > 0))
    arrays = {
        "n": n_on[held].astype(float),
        "m": n_off[held].astype(float),
        "alpha": alpha[held].astype(float),
        "e": held[0],
    }
    left = usable.copy()
    left[held] = False
    arrays["rest"] = np.array([n_on[left], n_off[left], alpha[left]], dtype=float)
    weights = [] if scale is None else [_as_array(scale_function(scale))]
    return held, arrays, weights, 0.0


def _as_array(number: VariedFunction) -> VariedFunction:
    """A varying number as an array of one."""

    def varied(x: np.ndarray) -> Varied:
        at = number(x)
        return Varied(at.slots, at.value.reshape(1), at.gradient[:, None], lambda: at.curvature[:, :, None])

    return varied


def _reach_arrays(
    number: int,
    found: _Found,
    held: tuple[np.ndarray, ...],
    usable: np.ndarray,
    is_dense: bool,
    precision: type,
) -> dict[str, np.ndarray]:
    e, rows, columns = held
    inside = (rows >= found.rows.start) & (rows < found.rows.stop)
    inside &= (columns >= found.columns.start) & (columns < found.columns.stop)
    bins = np.flatnonzero(inside)
    e, j, i = e[bins], rows[bins], columns[bins]
    counted = usable[:, found.rows, found.columns]
    n_energy, n_true = counted.shape[0], len(found.edisp)
    if found.fixed is not None:
        y, x = j - found.rows.start, i - found.columns.start
        per_flux = found.edisp[:, e] * found.fixed[:, y, x]
        # sum over reconstructed energies and pixels of what the mask lets through
        accepted = found.edisp @ counted.reshape(n_energy, -1)
        sums = (
            np.zeros(n_true) if is_dense else np.einsum("tp,tp->t", accepted, found.fixed.reshape(n_true, -1))
        )
        return {f"v{number}": bins, f"A{number}": per_flux.astype(precision), f"L{number}": sums}
    assert found.response is not None
    assert found.kernels is not None
    assert found.reach.template is not None
    (n_y, n_x), (row, column) = found.reach.length, found.corner
    pixels = (j - row) % n_y * n_x + (i - column) % n_x
    y, x = j - found.rows.start, i - found.columns.start
    response = found.edisp[:, e] * found.response[:, y, x]
    shape = found.reach.template.geom.shape
    backwards = np.zeros((n_true, *shape))
    if not is_dense:
        counted_flat = counted.reshape(n_energy, -1).astype(float)
        at_y = (np.arange(found.rows.start, found.rows.stop) - row) % n_y
        at_x = (np.arange(found.columns.start, found.columns.stop) - column) % n_x
        for some in portions(n_true, (n_y, n_x)):
            exposed = found.response[some]
            periodic = np.zeros((len(exposed), n_y, n_x))
            periodic[:, at_y[:, None], at_x] = (found.edisp[some] @ counted_flat).reshape(
                exposed.shape
            ) * exposed
            transforms = scipy.fft.rfft2(periodic) * unfolded(found.kernels[some], n_y)
            backwards[some] = scipy.fft.irfft2(transforms, s=(n_y, n_x))[:, : shape[0], : shape[1]]
    first = np.flatnonzero(np.diff(pixels, prepend=-1) != 0)
    return {
        f"v{number}": bins,
        f"p{number}": pixels,
        f"g{number}": first,
        f"M{number}": response.astype(precision),
        f"T{number}": found.kernels.astype(precision),
        f"D{number}": backwards.astype(precision),
    }


def finished(term: CountsTerm) -> CountsTerm:
    """A term whose bins without a source are summed."""
    if not term.is_measured or term.constant:
        return term
    arrays = dict(term.load())
    rest = arrays.pop("rest", None)
    if rest is None:
        return term
    return replace(term, constant=term.constant - 0.5 * float(wstat_ts(*rest).sum()), load=lambda: arrays)
