"""What each dataset says of a fit: its part of the statistic, and counts against expectation per energy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData, OffCounts
from dl3flow.data.products import DatasetStat
from dl3flow.fit.binding import for_dataset
from dl3flow.fit.minimum import Minimum
from dl3flow.fit.npred import (
    Seen,
    alpha_scale,
    build_flux,
    good_times,
    response_model,
    seen_again,
    seen_template,
)
from dl3flow.fit.spectra import Shares, Spectrum, alike, plain_spectrum, spectra_stats
from dl3flow.fit.terms import CountsTerm, PointsTerm, Reach
from dl3flow.kernels.statistics import wstat, wstat_background
from dl3flow.models.source import Models, Source
from dl3flow.units import ENERGY

_NOTHING = np.zeros(0)


@dataclass(frozen=True, eq=False)
class _Known:
    """What the terms of a fit know of one dataset at the minimum.

    Attributes
    ----------
    stat : float or None
        Its part of the statistic, where it is a term by itself.
    fluxes : mapping of array
        Flux per true-energy bin, by source.
    seen : mapping of function (dataset, source, declared source) -> Seen or None
        Templates through the point spread, by source.
    counts, background : array, shape (n_energy,), or None
        In the mask, where the background is expected.
    """

    stat: float | None
    fluxes: Mapping[str, np.ndarray]
    seen: Mapping[str, Callable[[Dataset, Source, Source], Seen | None]]
    counts: np.ndarray | None = None
    background: np.ndarray | None = None


def dataset_stats(datasets: Sequence[FitData], found: Minimum) -> tuple[DatasetStat, ...]:
    """One summary per dataset, at the minimum."""
    problem, at = found.problem, found.evaluation
    fluxes = {spec: flux(at.x).value for spec, flux in problem.fluxes.items()}
    templates = {spec: template(at.x, False, 0).value for spec, template in problem.templates.items()}
    known: dict[str, _Known] = {}
    for term, stat in zip(problem.terms, at.stats, strict=True):
        own = sum(problem.penalties[k](float(at.x[k]))[0] for k in term.local if k in problem.penalties)
        alone = float(stat) - own if len(term.names) == 1 else None
        here, seen = {}, {}
        for k, reach in enumerate(term.reaches if isinstance(term, CountsTerm) else ()):
            # the share of a region that a source fills is in its template here
            if not reach.flux.region:
                here[reach.flux.source] = fluxes[reach.flux]
            if reach.template is not None:
                seen[reach.flux.source] = _seen(term, k, reach, templates[reach.template])
        expected: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
        if isinstance(term, CountsTerm) and not term.is_measured:
            arrays = term.load()
            parts = (weight(at.x).value * arrays[f"B{k}"] for k, weight in enumerate(term.weights))
            expected = (arrays["N"], np.sum(list(parts), axis=0))
        known |= dict.fromkeys(term.names, _Known(alone, here, seen, *expected))
    summaries: dict[str, DatasetStat] = {}
    spectra: list[Spectrum] = []
    shares: Shares = {}
    names = []
    for dataset in datasets:
        names.append(dataset.name)
        if (spectrum := plain_spectrum(dataset, found.models, shares)) is not None:
            spectra.append(spectrum)
        else:
            summaries[dataset.name] = _dataset_stat(dataset, found, known[dataset.name])
    for group in alike(spectra):
        told = spectra_stats(group, known[group[0].dataset.name].fluxes)
        summaries |= {each.name: each for each in told}
    return tuple(summaries[name] for name in names)


def _seen(
    term: CountsTerm | PointsTerm, number: int, reach: Reach, template: np.ndarray
) -> Callable[[Dataset, Source, Source], Seen | None]:
    def again(dataset: Dataset, source: Source, declared: Source) -> Seen | None:
        assert isinstance(term, CountsTerm)
        assert reach.template is not None
        transforms = term.load()[f"T{number}"]
        return seen_again(dataset, source, declared, template, reach.template.geom, transforms, reach.length)

    return again


def _dataset_stat(dataset: FitData, found: Minimum, known: _Known) -> DatasetStat:
    models = found.models
    if isinstance(dataset, FluxPointsData):
        # no counts: an axis without bins
        none = np.zeros(0)
        n = int(dataset.mask.sum())
        stat = known.stat or 0.0
        return DatasetStat(dataset.name, stat, n, dataset.energy_ref[:1], none, none, none)
    mask, stat_here = dataset.mask, known.stat
    signal, per_energy = _predicted_signal(dataset, models, found.declared, known)
    if isinstance(dataset.background, OffCounts):
        factor = alpha_scale(dataset, models)
        off = dataset.background
        # what is masked has no part, and an array of all bins takes its time
        n_on, n_off, alpha, expected = (
            v[mask] for v in (dataset.counts.data, off.counts.data, off.alpha * factor, signal)
        )
        mu_off = wstat_background(n_on, n_off, np.where(alpha > 0, alpha, 1.0), expected)
        energy = np.nonzero(mask)[0]
        counts = np.bincount(energy, n_on, len(mask))
        by_energy = np.bincount(energy, alpha * mu_off, len(mask))
        if stat_here is None:
            stat_here = float(wstat(n_on, n_off, alpha, expected).sum())
    else:
        assert known.counts is not None
        assert known.background is not None
        counts, by_energy = known.counts, known.background
    assert stat_here is not None
    ids = tuple(dataset.meta.get("obs_ids", ()))
    n = int(mask.sum())
    return DatasetStat(dataset.name, stat_here, n, dataset.energy.edges, counts, per_energy, by_energy, ids)


def _predicted_signal(
    dataset: Dataset, models: Models, declared: Models, known: _Known
) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts of all sources: in every bin where the background is measured (else an empty array), and per energy.

    Responses are those at the declared positions, as in the fit.
    """
    mask, response = dataset.mask, response_model(dataset.name, models)
    is_measured = isinstance(dataset.background, OffCounts)
    signal = np.zeros(mask.shape if is_measured else (0,))
    per_energy = np.zeros(len(mask))
    for source, place in zip(models.sources, declared.sources, strict=True):
        if not for_dataset(dataset.name, source.datasets):
            continue
        seen = known.seen.get(source.name, seen_template)(dataset, source, place)
        if seen is None:
            continue
        flux = known.fluxes.get(source.name)
        if flux is None:
            edges, times = dataset.energy_true.edges.to_value(ENERGY), good_times(dataset, source)
            flux = build_flux(models, source, {}, edges, response, times)(_NOTHING).value
        folded = ((seen.edisp.T * flux) @ seen.per_flux.reshape(len(flux), -1)).reshape(
            len(mask), *seen.per_flux.shape[1:]
        )
        if is_measured:
            signal[:, seen.rows, seen.columns] += folded
        inside = mask[:, seen.rows, seen.columns]
        per_energy += np.where(inside, folded, 0.0).sum(axis=(1, 2), dtype=float)
    return signal, per_energy
