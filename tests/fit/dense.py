"""The likelihood written plainly, bin by bin on whole cubes: what any faster form must equal.

Nothing of `dl3flow.fit` is used. Fluxes are integrated with 24 Gauss-Legendre points in the logarithm of each true bin,
templates are folded by summing over every pixel of the kernel (no transform), the Cash statistic is summed over every bin of the mask
with its expectation cut at 1e-25, and the measured background of wstat is the root of its quadratic equation in long
doubles. Point spread and dispersion are those of the response pixel nearest to the declared position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts, FitData, FluxPointsData, OffCounts
from dl3flow.geometry.region import RegionGeometry
from dl3flow.kernels.convolve import psf_kernels
from dl3flow.models.pixels import PixelGrid, oversampling, pixel_fractions
from dl3flow.models.resolve import ModelFunction, resolve
from dl3flow.models.source import Models, Source

TRUNCATION = 1e-25
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
# pixels around the map in which a template is drawn: it must lie there whole to be normalised
_PAD = 36


def bound(model: object, part: str) -> tuple[ModelFunction, np.ndarray]:
    """Function of a model's part, and its values in internal units."""
    component = model.parts[part]  # type: ignore[attr-defined]
    found = resolve(component, part, model.name)  # type: ignore[attr-defined]
    pairs = zip(component.parameters, found.units, strict=True)
    return found, np.array([p.quantity.to_value(unit) for p, unit in pairs])


def bin_fluxes(source: Source, edges: u.Quantity) -> np.ndarray:
    """Integral of the spectrum over bins of true energy, cm-2 s-1."""
    plugin, values = bound(source, "spectral")
    logs = np.log(edges.to_value(u.TeV))
    half, middle = 0.5 * np.diff(logs)[:, None], 0.5 * (logs[1:] + logs[:-1])[:, None]
    energy = np.exp(middle + half * _NODES)
    return np.asarray((half * _WEIGHTS * energy * plugin.function(energy, *values)).sum(axis=1))


def position_of(source: Source) -> SkyCoord:
    assert source.spatial is not None
    frame = str(source.spatial.options.get("frame", "icrs"))
    return SkyCoord(source.spatial["lon_0"].quantity, source.spatial["lat_0"].quantity, frame=frame)


def nearest_pixel(response: object, position: SkyCoord) -> tuple[int, int]:
    """Response pixel with exposure that is nearest to a position."""
    of = response.exposure  # type: ignore[attr-defined]
    if isinstance(of.geom, RegionGeometry):
        return 0, 0
    x, y = of.geom.pixel(position)
    rows, columns = np.nonzero((of.data > 0).any(axis=0))
    best = int(np.argmin((rows - y) ** 2 + (columns - x) ** 2))
    return int(rows[best]), int(columns[best])


@dataclass(frozen=True, eq=False)
class DenseMap:
    """One source in one map; everything that its declared values fix is computed once."""

    dataset: Dataset
    declared: Source

    @cached_property
    def edisp(self) -> np.ndarray:
        if self.dataset.edisp is None:
            return np.eye(self.dataset.energy.n_bins)
        j, i = nearest_pixel(self.dataset.edisp, position_of(self.declared))
        return np.asarray(self.dataset.edisp.edisp.data[:, :, j, i], dtype=float)

    @cached_property
    def kernels(self) -> np.ndarray:
        psf = self.dataset.psf
        if psf is None:
            return np.ones((self.dataset.energy_true.n_bins, 1, 1))
        j, i = nearest_pixel(psf, position_of(self.declared))
        edges = psf.psf.axis("rad").edges.to_value(u.deg)
        return psf_kernels(
            psf.psf.quantity[:, :, j, i].to_value("sr-1"), edges, self.dataset.counts.sky.binsz
        )

    @cached_property
    def grid(self) -> PixelGrid:
        geom = self.dataset.counts.sky
        assert self.declared.spatial is not None
        plugin, values = bound(self.declared, "spatial")
        factor = oversampling(plugin, values, geom)
        ny, nx = geom.shape
        frame = str(self.declared.spatial.options.get("frame", "icrs"))
        return PixelGrid.create(geom.part((-_PAD, ny + _PAD), (-_PAD, nx + _PAD)), factor, frame)

    @cached_property
    def seen(self) -> Callable[[tuple[float, ...]], np.ndarray]:
        """Share of the flux seen in each pixel (n_true, n_lat, n_lon), as a function of the spatial values."""
        plugin, _ = bound(self.declared, "spatial")
        half = self.kernels.shape[-1] // 2
        inner = slice(_PAD - half, -(_PAD - half))

        # differences step one parameter at a time: most steps leave the place as it was
        @lru_cache(maxsize=2)
        def seen(values: tuple[float, ...]) -> np.ndarray:
            template = pixel_fractions(plugin, np.array(values), self.grid)[inner, inner]
            around = np.lib.stride_tricks.sliding_window_view(template, self.kernels.shape[1:])
            return np.tensordot(self.kernels[:, ::-1, ::-1], around, axes=((1, 2), (2, 3)))

        return seen

    def counts(self, source: Source, stretch: float = 1.0) -> np.ndarray:
        """Expected counts (n_energy, n_lat, n_lon) at the source's values, its energies taken ``stretch`` times too large."""
        dataset = self.dataset
        if not _is_near(dataset, source):
            return np.zeros(dataset.counts.data.shape)
        _, values = bound(source, "spatial")
        flux = bin_fluxes(source, dataset.energy_true.edges / stretch)
        exposure = dataset.exposure.quantity.to_value("cm2 s")
        folded = self.seen(tuple(values)) * exposure * flux[:, None, None]
        return np.tensordot(self.edisp, folded, axes=(0, 0))


def _is_near(dataset: Dataset, source: Source) -> bool:
    """False for a source so far away that no pixel of its template lies in the padded map."""
    x, y = dataset.counts.sky.pixel(position_of(source))
    ny, nx = dataset.counts.sky.shape
    return bool(np.isfinite(x) and np.isfinite(y) and -_PAD < x < nx + _PAD and -_PAD < y < ny + _PAD)


def region_counts(dataset: Dataset, source: Source, stretch: float = 1.0) -> np.ndarray:
    """Expected counts (n_energy, 1, 1) of a source that a region holds whole."""
    edisp = np.eye(dataset.energy.n_bins)
    if dataset.edisp is not None:
        edisp = dataset.edisp.edisp.data[:, :, 0, 0]
    flux = bin_fluxes(source, dataset.energy_true.edges / stretch)
    exposure = dataset.exposure.quantity.to_value("cm2 s")[:, 0, 0]
    return np.asarray(edisp.T @ (flux * exposure))[:, None, None]


def factor_of(dataset: Dataset, models: Models) -> np.ndarray:
    """Factor on the background of every energy bin: the last model that applies."""
    applied = [b for b in models.backgrounds if b.datasets is None or dataset.name in b.datasets]
    if not applied:
        return np.ones(dataset.energy.n_bins)
    plugin, values = bound(applied[-1], "spectral")
    return np.asarray(plugin.function(dataset.energy.centers.to_value(u.TeV), *values))


def cash_of(n: np.ndarray, mu: np.ndarray) -> float:
    mu = np.maximum(mu, TRUNCATION)
    return float((2 * (mu - n * np.log(mu))).sum())


def wstat_of(n_on: float, n_off: float, alpha: float, signal: float) -> float:
    """-2 ln of the likelihood of two counts over that of a saturated model, at the best background for the signal."""
    if alpha == 0:
        return 0.0
    n, m, a, s = (np.longdouble(v) for v in (n_on, n_off, alpha, signal))
    c = a * (n + m) - (1 + a) * s
    off = (c + np.sqrt(np.maximum(c**2 + 4 * a * (1 + a) * m * s, 0))) / (2 * a * (1 + a))
    off = max(off, np.longdouble(0))
    on = s + a * off
    value = on + off - n - m
    value += n * np.log(n / max(on, np.longdouble(TRUNCATION))) if n > 0 else 0
    value += m * np.log(m / max(off, np.longdouble(TRUNCATION))) if m > 0 else 0
    return float(2 * value)


def chi2_of(points: FluxPointsData, sources: Sequence[Source]) -> float:
    energy = points.energy_ref.to_value(u.TeV)
    expected = np.zeros(len(energy))
    for source in sources:
        plugin, values = bound(source, "spectral")
        expected = expected + plugin.function(energy, *values)
    unit = u.Unit("cm-2 s-1 TeV-1")
    measured, below, above = (q.to_value(unit) for q in (points.dnde, points.errn, points.errp))
    error = np.where(expected > measured, above, below)
    return float((((measured - expected) / error)[points.mask] ** 2).sum())


def errors_of(name: str, models: Models) -> tuple[float, float, float]:
    """Stretch of energies, factor on the exposure and factor on the background of a dataset."""
    for response in models.responses:
        if response.datasets is None or name in response.datasets:
            values = {p.name: p.value for p in response.scale.parameters}
            return 1 + values["energy_scale"], values["exposure_scale"], values["background_scale"]
    return 1.0, 1.0, 1.0


def penalty_of(models: Models) -> float:
    """-2 ln of the densities of Gaussian priors; parameters of one label count once."""
    total, seen = 0.0, set()
    for p in models.parameters().values():
        if p.prior is None or p.frozen or (p.link and p.link in seen):
            continue
        seen.add(p.link)
        mu, sigma = p.prior.values["mu"], p.prior.values["sigma"]
        total += p.prior.weight * (((p.value - mu) / sigma) ** 2 + np.log(2 * np.pi * sigma**2))
    return total


class Dense:
    """Joint statistic of datasets as a function of the free vector, in the interface of `build_likelihood`."""

    def __init__(self, datasets: Sequence[FitData], models: Models) -> None:
        self.datasets, self.models = datasets, models
        self.entries: dict[str, list[str]] = {}
        leaders: dict[str, str] = {}
        for name, p in models.parameters().items():
            if not p.frozen:
                leader = leaders.setdefault(p.link, name) if p.link else name
                self.entries.setdefault(leader, []).append(name)
        self.names = tuple(self.entries)
        self.start = np.array([models.parameters()[name].value for name in self.names])
        self.maps = {
            (d.name, s.name): DenseMap(d, s)
            for d in datasets
            for s in models.sources
            if isinstance(d, Dataset) and not isinstance(d.geom, RegionGeometry)
        }

    def at(self, x: np.ndarray) -> Models:
        """Models at a free vector."""
        old = self.models.parameters()
        pairs = zip(self.entries.values(), x, strict=True)
        return self.models.with_parameters(
            {name: replace(old[name], value=float(v)) for names, v in pairs for name in names}
        )

    def signal(self, dataset: Dataset, models: Models) -> np.ndarray:
        """Expected counts of all sources that a dataset sees."""
        total = np.zeros(dataset.counts.data.shape)
        stretch, exposure, _ = errors_of(dataset.name, models)
        for source in models.sources:
            if source.datasets is not None and dataset.name not in source.datasets:
                continue
            folded = self.maps.get((dataset.name, source.name))
            total = total + (
                region_counts(dataset, source, stretch) if folded is None else folded.counts(source, stretch)
            )
        return exposure * total

    def stat_of(self, dataset: FitData, models: Models) -> float:
        """Statistic of one dataset."""
        if isinstance(dataset, FluxPointsData):
            return chi2_of(
                dataset, [s for s in models.sources if s.datasets is None or dataset.name in s.datasets]
            )
        mask, n = dataset.mask, dataset.counts.data
        signal = self.signal(dataset, models)
        _, _, scale = errors_of(dataset.name, models)
        match dataset.background:
            case ExpectedCounts(counts):
                mu = signal + scale * factor_of(dataset, models)[:, None, None] * counts.data
                return cash_of(n[mask], mu[mask])
            case OffCounts() as off:
                rows = (n[mask], off.counts.data[mask], scale * off.alpha[mask], signal[mask])
                return sum(wstat_of(*row) for row in zip(*rows, strict=True))
            case None:
                raise AssertionError(dataset.name)

    def stat(self, x: np.ndarray) -> float:
        """Sum over the datasets and priors."""
        models = self.at(x)
        return float(sum(self.stat_of(d, models) for d in self.datasets) + penalty_of(models))

    def gradient(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Central differences of fourth order, over a two-thousandth of ``scale``, in units of it."""
        rows = []
        for k in range(len(x)):
            step = np.zeros(len(x))
            step[k] = 5e-4 * scale[k]
            near = self.stat(x + step) - self.stat(x - step)
            far = self.stat(x + 2 * step) - self.stat(x - 2 * step)
            rows.append((8 * near - far) / (12 * 5e-4))
        return np.array(rows)
