"""What each dataset says of a fit: its part of the statistic, and counts against expectation per energy."""

from collections.abc import Mapping, Sequence

import numpy as np

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData, OffCounts
from dl3flow.data.products import DatasetStat
from dl3flow.fit.binding import for_dataset
from dl3flow.fit.minimum import Minimum
from dl3flow.fit.npred import (
    build_flux,
    good_times,
    response_model,
    seen_template,
    weigh_background,
)
from dl3flow.fit.terms import CountsTerm
from dl3flow.kernels.statistics import wstat, wstat_background
from dl3flow.models.source import Models
from dl3flow.units import ENERGY

_NOTHING = np.zeros(0)


def dataset_stats(datasets: Sequence[FitData], found: Minimum) -> tuple[DatasetStat, ...]:
    """One summary per dataset, at the minimum."""
    problem, at = found.problem, found.evaluation
    values = {spec: flux(at.x).value for spec, flux in problem.fluxes.items()}
    stats: dict[str, float] = {}
    fluxes: dict[str, dict[str, np.ndarray]] = {}
    for term, stat in zip(problem.terms, at.stats, strict=True):
        own = sum(problem.penalties[k](float(at.x[k]))[0] for k in term.local if k in problem.penalties)
        if len(term.names) == 1:
            stats[term.names[0]] = float(stat) - own
        if isinstance(term, CountsTerm):
            # the share of a region that a source fills is in its template here
            seen = {r.flux.source: values[r.flux] for r in term.reaches if not r.flux.region}
            fluxes |= dict.fromkeys(term.names, seen)
    return tuple(_dataset_stat(d, found, stats.get(d.name), fluxes.get(d.name, {})) for d in datasets)


def _dataset_stat(
    dataset: FitData, found: Minimum, stat: float | None, fluxes: Mapping[str, np.ndarray]
) -> DatasetStat:
    models = found.models
    if isinstance(dataset, FluxPointsData):
        # no counts: an axis without bins
        none = np.zeros(0)
        return DatasetStat(
            dataset.name,
            float(stat or 0.0),
            int(dataset.mask.sum()),
            dataset.energy_ref[:1],
            none,
            none,
            none,
        )
    mask = dataset.mask
    counts = np.where(mask, dataset.counts.data, 0.0).sum(axis=(1, 2), dtype=float)
    signal, per_energy = predicted_signal(dataset, models, found.declared, fluxes)
    if isinstance(dataset.background, OffCounts):
        response = response_model(dataset.name, models)
        factor = 1.0 if response is None else response.scale["background_scale"].value
        background = measured_background(dataset, dataset.background, signal, factor)
        if stat is None:
            n, m, alpha = (
                dataset.counts.data[mask],
                dataset.background.counts.data[mask],
                dataset.background.alpha[mask],
            )
            stat = float(wstat(n, m, alpha * factor, signal[mask]).sum())
        by_energy = np.where(mask, background, 0.0).sum(axis=(1, 2))
    else:
        by_energy = np.zeros(len(counts))
        for part, weight in weigh_background(dataset, models, {}):
            values = dataset.mu_bkg if part is None else part
            summed = np.where(mask, values, 0.0).sum(axis=(1, 2), dtype=float)
            by_energy += summed * weight(_NOTHING).value
    assert stat is not None
    obs_ids = tuple(dataset.meta.get("obs_ids", ()))
    return DatasetStat(
        dataset.name, stat, int(mask.sum()), dataset.energy.edges, counts, per_energy, by_energy, obs_ids
    )


def predicted_signal(
    dataset: Dataset, models: Models, declared: Models, fluxes: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts of all sources: in every bin where the background is measured (else an empty array), and per energy.

    Responses are those at the declared positions, as in the fit. ``fluxes`` per true-energy bin by source, as far as known.
    """
    mask, response = dataset.mask, response_model(dataset.name, models)
    is_measured = isinstance(dataset.background, OffCounts)
    signal = np.zeros(mask.shape if is_measured else (0,))
    per_energy = np.zeros(len(mask))
    edges = dataset.energy_true.edges.to_value(ENERGY)
    for source, place in zip(models.sources, declared.sources, strict=True):
        if not for_dataset(dataset.name, source.datasets):
            continue
        seen = seen_template(dataset, source, place)
        if seen is None:
            continue
        flux = fluxes.get(source.name)
        if flux is None:
            flux = build_flux(models, source, {}, edges, response, good_times(dataset, source))(
                _NOTHING
            ).value
        folded = ((seen.edisp.T * flux) @ seen.per_flux.reshape(len(flux), -1)).reshape(
            len(mask), *seen.per_flux.shape[1:]
        )
        if is_measured:
            signal[:, seen.rows, seen.columns] += folded
        per_energy += np.einsum("eyx,eyx->e", folded, mask[:, seen.rows, seen.columns])
    return signal, per_energy


def measured_background(
    dataset: Dataset, off: OffCounts, signal: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """Expected background counts per bin that suit on and off counts best at a given signal; 0 where none was measured."""
    alpha = off.alpha * factor
    mu_off = wstat_background(dataset.counts.data, off.counts.data, np.where(alpha > 0, alpha, 1.0), signal)
    return np.asarray(alpha * mu_off)
