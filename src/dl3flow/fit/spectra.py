"""Spectra with measured background that are alike: one array each for all, so that a fit of a hundred spectra is a few operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dl3flow.data.dataset import Dataset, FitData, OffCounts
from dl3flow.data.products import DatasetStat
from dl3flow.fit.binding import bind, for_dataset
from dl3flow.fit.compact import check_data, parameter_slots
from dl3flow.fit.npred import dispersion_at, is_variable, is_whole, region_share, response_model
from dl3flow.fit.terms import CountsTerm, FluxSpec, Reach
from dl3flow.geometry.region import RegionGeometry
from dl3flow.kernels.statistics import wstat, wstat_background, wstat_ts
from dl3flow.models.source import Models, Source
from dl3flow.units import ENERGY, EXPOSURE


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One spectrum of which nothing but the sources' spectra varies.

    Attributes
    ----------
    dataset : Dataset
    off : OffCounts
    shares : tuple of (str, float)
        Sources that it sees, with the share of their flux that its region holds.
    kind : hashable
        Equal for spectra alike: the same sources on the same bins.
    """

    dataset: Dataset
    off: OffCounts
    shares: tuple[tuple[str, float], ...]
    kind: object


# of a region and a source: the share that it holds; None if that varies in the fit
Shares = dict[tuple[RegionGeometry, str], float | None]


def plain_spectrum(dataset: FitData, models: Models, known: Shares) -> Spectrum | None:
    """A spectrum with measured background of which nothing but the sources' spectra varies; None for all other data.

    ``known`` takes what regions hold of sources, for the spectra that follow.
    """
    if not (isinstance(dataset, Dataset) and isinstance(dataset.background, OffCounts)):
        return None
    region, shares = dataset.geom, []
    if not isinstance(region, RegionGeometry) or response_model(dataset.name, models) is not None:
        return None
    for source in models.sources:
        if not for_dataset(dataset.name, source.datasets):
            continue
        if (region, source.name) not in known:
            known[region, source.name] = _fixed_share(source, region)
        share = known[region, source.name]
        if share is None:
            return None
        if share != 0:
            shares.append((source.name, share))
    axes = tuple((e.unit, e.value.tobytes()) for e in (dataset.energy.edges, dataset.energy_true.edges))
    names = tuple(name for name, _ in shares)
    return Spectrum(dataset, dataset.background, tuple(shares), (axes, dataset.exposure.unit, names))


def _fixed_share(source: Source, region: RegionGeometry) -> float | None:
    """Share of a source that a region holds; None where it varies, or the source has more that a dataset must tell."""
    if is_variable(source) or source.without_irf:
        return None
    if (
        source.spatial is not None
        and not all(p.frozen for p in source.spatial.parameters)
        and not is_whole(region, bind(source, "spatial", {}).plugin)
    ):
        return None
    return region_share(region, source)


def alike(spectra: Sequence[Spectrum]) -> list[list[Spectrum]]:
    """Spectra in groups of one kind, in the order in which the kinds first occur."""
    groups: dict[object, list[Spectrum]] = {}
    for spectrum in spectra:
        groups.setdefault(spectrum.kind, []).append(spectrum)
    return list(groups.values())


@dataclass(frozen=True, eq=False)
class _Stack:
    """Arrays of spectra of one kind.

    Attributes
    ----------
    n_on, n_off, alpha, mask : array, shape (n_spectra, n_energy)
    per_flux : list of array, shape (n_spectra, n_true), cm2 s
        Of each source.
    edisp : array, shape (n_spectra, n_true, n_energy)
    """

    n_on: np.ndarray
    n_off: np.ndarray
    alpha: np.ndarray
    mask: np.ndarray
    per_flux: list[np.ndarray]
    edisp: np.ndarray


def _stacked(group: Sequence[Spectrum]) -> _Stack:
    """Arrays of spectra of one kind.

    Raises
    ------
    InputError
        If there are numbers that cannot be.
    """
    datasets, offs = [s.dataset for s in group], [s.off for s in group]
    n_on = np.array([d.counts.data[:, 0, 0] for d in datasets], dtype=float)
    n_off, acceptance, acceptance_off = (
        np.array([getattr(off, name).data[:, 0, 0] for off in offs], dtype=float)
        for name in ("counts", "acceptance", "acceptance_off")
    )
    exposure = np.array([d.exposure.data[:, 0, 0] for d in datasets], dtype=float)
    exposure *= datasets[0].exposure.unit.to(EXPOSURE)
    for numbers in (n_on, n_off, acceptance, acceptance_off, exposure):
        if not (numbers.min(initial=0.0) >= 0 and numbers.max(initial=0.0) < np.inf):
            for dataset in datasets:
                check_data(dataset)
    measured = acceptance_off > 0
    alpha = np.divide(acceptance, acceptance_off, out=np.zeros(acceptance.shape), where=measured)
    mask = np.array([d.mask[:, 0, 0] for d in datasets])
    per_flux = [exposure * np.array([[s.shares[k][1]] for s in group]) for k in range(len(group[0].shares))]
    edisp = np.array([dispersion_at(d, d.geom.center) for d in datasets])
    return _Stack(n_on, n_off, alpha, mask, per_flux, edisp)


def compact_spectra(
    group: Sequence[Spectrum],
    models: Models,
    position: Mapping[str, int],
    *,
    is_dense: bool = False,
    precision: type = np.float64,
) -> CountsTerm:
    """Spectra of one kind as one term of a likelihood.

    Parameters
    ----------
    group : sequence of Spectrum
    models : Models
    position : mapping
        Entry of the free vector of each free parameter.
    is_dense : bool
        Hold every bin: only so can a negative expectation be cut in bins without counts.
    precision : type
        In which responses are kept.
    """
    first, stack = group[0], _stacked(group)
    n_on, n_off, alpha, edisp = stack.n_on, stack.n_off, stack.alpha, stack.edisp
    usable = stack.mask & (alpha > 0)
    held = usable & bool(first.shares)
    held = held if is_dense else held & (n_on > 0)
    d, e = np.nonzero(held)
    left = usable & ~held
    arrays = {
        "n": n_on[held],
        "m": n_off[held],
        "alpha": alpha[held],
        "e": e,
    }
    energies = tuple(first.dataset.energy_true.edges.to_value(ENERGY).tolist())
    accepted = np.einsum("dte,de->dt", edisp, usable.astype(float))
    slots: set[int] = set()
    for k, per_flux in enumerate(stack.per_flux):
        arrays[f"v{k}"] = np.arange(len(d))
        arrays[f"A{k}"] = (edisp[d, :, e] * per_flux[d]).T.astype(precision)
        sums = np.einsum("dt,dt->t", accepted, per_flux)
        arrays[f"L{k}"] = np.zeros_like(sums) if is_dense else sums
        slots |= parameter_slots(models, first.shares[k][0], {"spectral", "temporal"}, position)
    for array in arrays.values():
        array.setflags(write=False)
    return CountsTerm(
        tuple(s.dataset.name for s in group),
        True,
        is_dense,
        tuple(Reach(FluxSpec(name, energies)) for name, _ in first.shares),
        (),
        np.array(sorted(slots), dtype=int),
        np.zeros(0, dtype=int),
        -0.5 * float(wstat_ts(n_on[left], n_off[left], alpha[left]).sum()),
        lambda: arrays,
    )


def spectra_stats(group: Sequence[Spectrum], fluxes: Mapping[str, np.ndarray]) -> list[DatasetStat]:
    """Summaries of spectra of one kind, from the flux per true-energy bin of each source."""
    stack = _stacked(group)
    n_on, n_off, alpha, mask = stack.n_on, stack.n_off, stack.alpha, stack.mask
    signal = np.zeros(n_on.shape)
    for (name, _), per_flux in zip(group[0].shares, stack.per_flux, strict=True):
        signal += np.einsum("dt,dte->de", per_flux * fluxes[name], stack.edisp)
    mu_off = wstat_background(n_on, n_off, np.where(alpha > 0, alpha, 1.0), signal)
    counts, expected, background = (np.where(mask, v, 0.0) for v in (n_on, signal, alpha * mu_off))
    stats = np.where(mask, wstat(n_on, n_off, alpha, signal), 0.0).sum(axis=1)
    return [
        DatasetStat(
            s.dataset.name,
            float(stats[k]),
            int(np.count_nonzero(mask[k])),
            s.dataset.energy.edges,
            counts[k],
            expected[k],
            background[k],
            tuple(s.dataset.meta.get("obs_ids", ())),
        )
        for k, s in enumerate(group)
    ]
