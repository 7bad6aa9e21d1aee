"""What stands in the bins of the datasets of a map: counts, what is expected there, and how many counts a flux would give."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset, FitData, FluxPointsData, OffCounts
from dl3flow.data.products import FitResult
from dl3flow.errors import InputError, choices
from dl3flow.estimators.norms import all_energies, find_source, snapped_edges
from dl3flow.fit.binding import bind
from dl3flow.fit.flux import build_bin_flux
from dl3flow.fit.npred import alpha_scale, dispersion_at, predict_counts
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.units import DNDE, ENERGY, EXPOSURE

_NOTHING = np.zeros(0)


def _slope(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -10 <= value <= 10:
        raise ValueError(f"expected a number from -10 to 10, found {value!r}")
    return float(value)


Slope = Annotated[float, _slope]


@dataclass(frozen=True, eq=False)
class OffBins:
    """Measured background in the bins of a dataset: off counts, acceptance (systematic errors in it) and acceptance_off."""

    counts: np.ndarray
    acceptance: np.ndarray
    acceptance_off: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        """Expected background counts."""
        alpha = np.divide(
            self.acceptance,
            self.acceptance_off,
            out=np.zeros(self.acceptance.shape),
            where=self.acceptance_off > 0,
        )
        return np.asarray(alpha * self.counts)


@dataclass(frozen=True, eq=False)
class PixelBins:
    """The bins of one dataset on the sky; all arrays have the shape (n_energy, n_lat, n_lon).

    Attributes
    ----------
    name : str
    geom : SkyGeometry
    energy : Axis
    mask : bool array
        True for the bins in use; what the other arrays hold elsewhere is not read.
    counts : array
    signal : array or None
        Expected counts of sources that are no excess; None is none.
    background : array or OffBins
        Expected counts, or what was measured.
    per_norm : array or None
        Counts that the reference spectrum would give if all its flux came from the pixel, without point spread.
    """

    name: str
    geom: SkyGeometry
    energy: Axis
    mask: np.ndarray
    counts: np.ndarray
    signal: np.ndarray | None
    background: np.ndarray | OffBins
    per_norm: np.ndarray | None = None

    def within(self, low: u.Quantity, high: u.Quantity) -> "PixelBins":
        """The energy bins that lie whole in [low, high]; there may be none."""
        rows = np.flatnonzero(self.energy.contains_bin(low, high))
        part = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
        off = self.background
        return replace(
            self,
            energy=self.energy.part(part.start, part.stop),
            mask=self.mask[part],
            counts=self.counts[part],
            signal=None if self.signal is None else self.signal[part],
            background=OffBins(off.counts[part], off.acceptance[part], off.acceptance_off[part])
            if isinstance(off, OffBins)
            else off[part],
            per_norm=None if self.per_norm is None else self.per_norm[part],
        )


def maps_only(datasets: Sequence[FitData], where: str) -> list[Dataset]:
    """The datasets, all of which are maps.

    Raises
    ------
    InputError
        If there are flux points or spectra among them, or none at all.
    """
    found = []
    for dataset in datasets:
        if isinstance(dataset, FluxPointsData) or not isinstance(dataset.geom, SkyGeometry):
            raise InputError(
                f"{where}: '{dataset.name}' is no map: take a reduction with the recipe `cube`, or a fit of such alone"
            )
        found.append(dataset)
    if not found:
        raise InputError(
            f"{where}: there is no dataset: take a reduction of which at least one run is usable"
        )
    return found


def doubts_of(datasets: Sequence[Dataset]) -> list[str]:
    """A sentence for the datasets that have no background, and one for those without a bin in use."""
    bare = [d.name for d in datasets if d.background is None]
    unused = [d.name for d in datasets if not d.mask.any()]
    told = [
        f"without a background all counts are taken for excess, whose significance is not known: {', '.join(bare)}; give the "
        "reduction a `background`"
    ] * bool(bare)
    return told + [f"no bin is in use, safe masks leave none: {', '.join(unused)}"] * bool(unused)


def known_models(result: FitResult | None, names: Sequence[str] | None, where: str) -> Models:
    """Models of what is no excess: backgrounds and responses of a fit, and the named sources (None: all).

    Raises
    ------
    InputError
        If a source is not in the fit, or there is no fit.
    """
    if result is None:
        if names:
            raise InputError(
                f"{where}: '{names[0]}' is known from a fit only: give `fit` instead of `reduction`"
            )
        return Models(())
    own = [s.name for s in result.models.sources]
    for name in names or ():
        if name not in own:
            raise InputError(f"{where}: no source '{name}' in the fit {choices(name, own)}")
    kept = own if names is None else names
    return replace(result.models, sources=tuple(s for s in result.models.sources if s.name in kept))


def reference_source(result: FitResult | None, name: str | None, index: float, where: str) -> Source:
    """Source whose spectrum turns counts into fluxes: one of the fit, or a power law.

    Raises
    ------
    InputError
        If the fit has no such source, or there is no fit.
    """
    if name is not None:
        if result is None:
            raise InputError(
                f"{where}: the spectrum of '{name}' is known from a fit only: give `fit`, or `index`"
            )
        return find_source(result, name, where)
    parameters = (
        Parameter("amplitude", 1e-12, DNDE),
        Parameter("index", index),
        Parameter("reference", 1.0, ENERGY),
    )
    return Source("power law", Component("power_law", parameters), None)


def pixel_bins(dataset: Dataset, models: Models, reference: Source | None) -> PixelBins:
    """Bins of a dataset with what ``models`` expect in them, and the counts of a reference spectrum."""
    signal, background = predict_counts(dataset, models)
    measured: np.ndarray | OffBins = background
    if isinstance(dataset.background, OffCounts):
        off, factor = dataset.background, alpha_scale(dataset, models)
        measured = OffBins(off.counts.data, off.acceptance.data * factor, off.acceptance_off.data)
    return PixelBins(
        dataset.name,
        dataset.counts.sky,
        dataset.energy,
        dataset.mask,
        dataset.counts.data,
        signal if models.sources else None,
        measured,
        None if reference is None else counts_per_norm(dataset, reference),
    )


def counts_per_norm(dataset: Dataset, source: Source) -> np.ndarray:
    """Counts in each bin if the flux of a source came from its pixel, without point spread; shape of the counts.

    The dispersion is that in the middle of the map.
    """
    edges = dataset.energy_true.edges.to_value(ENERGY)
    flux = build_bin_flux(bind(source, "spectral", {}), edges)(_NOTHING).value
    flux = flux * float(dataset.exposure.unit.to(EXPOSURE))
    matrix = dispersion_at(dataset, dataset.counts.sky.center).T * flux
    exposure = dataset.exposure.data
    return np.asarray((matrix @ exposure.reshape(len(flux), -1)).reshape(len(matrix), *exposure.shape[1:]))


def chosen_edges(datasets: Sequence[Dataset], wanted: Axis | None) -> u.Quantity:
    """Edges of the wanted energy bands, each moved to the nearest one of the data; the ends of all data by default."""
    return all_energies(datasets) if wanted is None else snapped_edges(datasets[0].energy, wanted.edges)
