"""Predicted counts: a source's flux folded with a dataset's responses, as a pure function of the parameters.

For one source and dataset, with E a true and k a reconstructed energy bin (gammapy docs, "Predicted counts"):

    s[k, x] = sum_E  edisp[E, k]  exposure[E, x]  flux[E]  (psf[E] * template)(x)

the flux integrated over the true bin, the template the share of flux per pixel, convolved before it is multiplied by
the exposure. Point spread and dispersion are those of the response pixel nearest to the source's *declared* position,
so that the result depends on the parameters alone and never on the path of a fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.binding import Binding, bind, for_dataset, free_parameters
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.irf.edisp import kernels_from_density
from dl3flow.kernels.convolve import build_convolution, convolve, correlate, psf_kernels
from dl3flow.kernels.integrate import gauss_legendre_bins
from dl3flow.kernels.interpolate import hat_matrix
from dl3flow.models.pixels import PixelGrid, oversampling, pixel_fractions
from dl3flow.models.source import BackgroundModel, Models, Source
from dl3flow.units import ENERGY, EXPOSURE

# relative step of the central differences that give a template's derivatives
_STEP = 1e-4
# pixels around a template that its centring may fill
_MARGIN = 3
_MOST_BYTES = 2 * 2**30
# a source this close to the point of a directional cut is the one that was cut for
_NEAR = 0.1 * u.deg


@dataclass(frozen=True, eq=False)
class Signal:
    """Counts of one source in a window of a dataset.

    Attributes
    ----------
    rows, columns : slice
        Window in the dataset's pixels.
    counts : array, shape (n_energy, n_rows, n_columns)
    pull : function (weights, gradient) -> None
        Adds d(sum(weights x counts))/dx to ``gradient``; weights have the shape of ``counts``.
    """

    rows: slice
    columns: slice
    counts: np.ndarray
    pull: Callable[[np.ndarray, np.ndarray], None]


@dataclass(frozen=True, eq=False)
class Response:
    """A dataset's response at one place, in internal units.

    Attributes
    ----------
    kernels : array, shape (n_true, k, k)
    edisp : array, shape (n_true, n_energy)
    exposure : array, shape (n_true, n_lat, n_lon), cm2 s
    """

    kernels: np.ndarray
    edisp: np.ndarray
    exposure: np.ndarray


def dispersion_at(dataset: Dataset, position: SkyCoord) -> np.ndarray:
    """Dispersion matrix (n_true, n_energy) of the response pixel nearest to ``position`` that has exposure.

    Raises
    ------
    InputError
        If there is no dispersion and the energy axes differ.
    """
    if dataset.edisp is None:
        if not dataset.energy_true.is_close(dataset.energy.renamed("energy_true")):
            raise InputError(
                f"dataset '{dataset.name}': it has no energy dispersion, and its axes of energy and energy_true differ: add one of the two"
            )
        return np.eye(dataset.energy_true.n_bins)
    j, i = response_pixel(dataset.edisp.exposure.geom, dataset.edisp.exposure.data, position)
    edisp = dataset.edisp.edisp.data[:, :, j, i]
    if not dataset.edisp.is_kernel:
        edisp = kernels_from_density(
            edisp, dataset.edisp.edisp.axis("migra"), dataset.energy_true, dataset.energy
        )
    return np.asarray(edisp, dtype=float)


def response_at(dataset: Dataset, position: SkyCoord) -> Response:
    """Point-spread kernels and dispersion of the response pixel nearest to ``position`` that has exposure."""
    n_true = dataset.energy_true.n_bins
    kernels = np.ones((n_true, 1, 1))
    if dataset.psf is not None:
        rad = dataset.psf.psf.axis("rad")
        j, i = response_pixel(dataset.psf.exposure.geom, dataset.psf.exposure.data, position)
        profiles = dataset.psf.psf.quantity[:, :, j, i].to_value("sr-1")
        axis = dataset.psf.psf.axis("energy_true")
        if not axis.is_close(dataset.energy_true):
            # files of others keep the point spread on energies of its own
            at = (axis.scaled(axis.centers), axis.scaled(dataset.energy_true.centers))
            profiles = np.maximum(hat_matrix(*at, -np.inf, np.inf) @ profiles, 0.0)
        kernels = psf_kernels(profiles, rad.edges.to_value(u.deg), dataset.counts.sky.binsz)
    return Response(
        kernels, dispersion_at(dataset, position), dataset.exposure.quantity.to_value(EXPOSURE).astype(float)
    )


def response_pixel(geom: Geometry, exposure: np.ndarray, position: SkyCoord) -> tuple[int, int]:
    """Pixel (j, i) nearest to ``position`` among those with exposure; the nearest of all if none has any."""
    j, i = geom.nearest(position)
    valid = np.asarray(np.any(exposure > 0, axis=0))
    if valid[j, i] or not valid.any() or isinstance(geom, RegionGeometry):
        return j, i
    x, y = geom.pixel(position)
    rows, columns = np.nonzero(valid)
    best = int(np.argmin((rows - y) ** 2 + (columns - x) ** 2))
    return int(rows[best]), int(columns[best])


def source_position(source: Source) -> SkyCoord:
    """Declared direction of a source.

    Raises
    ------
    InputError
        If it has no spatial part.
    """
    if source.spatial is None:
        raise InputError(
            f"source '{source.name}' has no spatial model, which a map needs: add one, or restrict the source to spectra by "
            "`datasets_names`"
        )
    return SkyCoord(
        source.spatial["lon_0"].quantity, source.spatial["lat_0"].quantity, frame=frame_of(source)
    )


def icrs_positions(models: Models) -> dict[str, list[float]]:
    """Declared right ascension and declination of every source that has a place, deg, by name."""
    at = {s.name: source_position(s).icrs for s in models.sources if s.spatial is not None}
    return {name: [float(p.ra.deg), float(p.dec.deg)] for name, p in at.items()}


def frame_of(source: Source) -> str:
    """Frame of a source's position."""
    return "icrs" if source.spatial is None else str(source.spatial.options.get("frame", "icrs"))


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Flux of a source in the true-energy bins of a dataset, and its derivatives, as functions of the free vector."""

    binding: Binding
    points: np.ndarray
    weights: np.ndarray

    @classmethod
    def create(cls, binding: Binding, energy_true: Axis) -> "Spectrum":
        """Spectrum of a bound model on true-energy bins."""
        return cls(binding, *gauss_legendre_bins(energy_true.edges.to_value(ENERGY)))

    def flux(self, x: np.ndarray) -> np.ndarray:
        """Integral over each bin, cm-2 s-1; shape (n_true,)."""
        values = self.binding.plugin.function(self.points, *self.binding.values(x))
        return np.asarray((self.weights * values).sum(axis=1))

    def pull(self, x: np.ndarray, by_flux: np.ndarray, gradient: np.ndarray) -> None:
        """Add the derivatives of sum(by_flux x flux) to ``gradient``."""
        if not self.binding.is_free.any():
            return
        values, plugin = self.binding.values(x), self.binding.plugin
        analytic = plugin.companions.get("gradient")
        if analytic is not None:
            by_parameter = (self.weights * analytic(self.points, *values)).sum(axis=2)
        else:
            by_parameter = _differences(
                lambda v: (self.weights * plugin.function(self.points, *v)).sum(axis=1),
                values,
                _STEP * np.abs(values) + 1e-12,
            )
        self.binding.pull(by_parameter @ by_flux, gradient)


def build_signal(
    dataset: Dataset, source: Source, spectral: Binding, spatial: Binding | None
) -> Callable[[np.ndarray], Signal | None]:
    """Counts of one source in one dataset, as a function of the free vector; None where it does not reach the data.

    What depends on frozen parameters alone is computed here, once.

    Raises
    ------
    InputError
        If a map is asked for a source without a spatial part.
    """
    if isinstance(dataset.geom, RegionGeometry):
        return _build_region_signal(dataset, dataset.geom, source, spectral, spatial)
    position = source_position(source)
    assert spatial is not None  # a source with a position has a spatial part
    return _build_map_signal(dataset, position, source, spectral, spatial)


def _build_region_signal(
    dataset: Dataset, region: RegionGeometry, source: Source, spectral: Binding, spatial: Binding | None
) -> Callable[[np.ndarray], Signal | None]:
    """Counts of a source in a region, whose exposure holds what of a point at its centre is contained.

    A source without a spatial part, and a point declared in the region, count whole; of an extended one counts the share
    of its template in the region, not smeared by the point spread.
    """
    position = None if source.spatial is None else source_position(source)
    edisp = dispersion_at(dataset, region.center)
    exposure = dataset.exposure.quantity.to_value(EXPOSURE).astype(float)[:, 0, 0]
    spectrum = Spectrum.create(spectral, dataset.energy_true)
    whole = slice(0, 1)
    is_whole = spatial is None or "resolution" not in spatial.plugin.companions or region.is_point
    if is_whole and position is not None and not sees(region, position):
        return lambda x: None
    frame = frame_of(source)

    def share_at(values: np.ndarray, factor: int) -> float:
        grid = PixelGrid.create(region.grid, factor, frame)
        return float((pixel_fractions(spatial.plugin, values, grid) * region.cover).sum())  # type: ignore[union-attr]

    def share(x: np.ndarray) -> tuple[float, np.ndarray | None]:
        """Share of the source in the region, and its derivatives where a spatial parameter is free."""
        if is_whole or spatial is None:
            return 1.0, None
        values = spatial.values(x)
        factor = oversampling(spatial.plugin, spatial.start, region.grid)
        at = share_at(values, factor)
        if not spatial.is_free.any():
            return at, None
        scale = spatial.plugin.companions["resolution"](*values) * 3
        steps = _STEP * np.where(np.arange(len(values)) < 2, scale, np.maximum(np.abs(values), 0.1 * scale))
        gradient = _differences(lambda v: np.array(share_at(v, factor)), values, steps, spatial.is_free)
        return at, gradient

    frozen_share = None if spatial is not None and spatial.is_free.any() else share(np.zeros(0))

    def signal(x: np.ndarray) -> Signal | None:
        fraction, by_spatial = share(x) if frozen_share is None else frozen_share
        flux = spectrum.flux(x)
        counts = edisp.T @ (exposure * flux) * fraction

        def pull(by_counts: np.ndarray, gradient: np.ndarray) -> None:
            back = (edisp @ by_counts[:, 0, 0]) * exposure
            spectrum.pull(x, back * fraction, gradient)
            if by_spatial is not None and spatial is not None:
                spatial.pull(by_spatial * float(back @ flux), gradient)

        return Signal(whole, whole, counts[:, None, None], pull)

    return signal


def sees(region: RegionGeometry, position: SkyCoord) -> bool:
    """True if a point source at ``position`` counts in the region; within 0.1 deg of the point of directional cuts.

    A spectrum from nobody knows where was taken of what it is fitted with.
    """
    if not region.is_known:
        return True
    if region.is_point:
        return bool(region.center.separation(position) < _NEAR)
    return bool(region.contains(position.reshape((1,)))[0])


def _build_map_signal(
    dataset: Dataset, position: SkyCoord, source: Source, spectral: Binding, spatial: Binding
) -> Callable[[np.ndarray], Signal | None]:
    response = response_at(dataset, position)
    transforms = build_convolution(response.kernels)
    geom, kernel_half = dataset.counts.sky, response.kernels.shape[-1] // 2
    frame = frame_of(source)
    factor = oversampling(spatial.plugin, spatial.start, geom)
    _check_size(dataset, source, spatial, kernel_half)
    spectrum = Spectrum.create(spectral, dataset.energy_true)

    @lru_cache(maxsize=8)
    def grid_at(j: int, i: int, half: int) -> PixelGrid:
        return PixelGrid.create(geom.part((j - half, j + half + 1), (i - half, i + half + 1)), factor, frame)

    def shape(x: np.ndarray) -> "_Shape | None":
        values = spatial.values(x)
        radius = np.degrees(spatial.plugin.companions["radius"](*values)) / geom.binsz
        half = int(np.ceil(radius)) + _MARGIN
        px, py = geom.pixel_at(values[0], values[1], frame)
        if not (np.isfinite(px) and np.isfinite(py)):
            return None
        j, i = int(np.round(py)), int(np.round(px))
        reach = half + kernel_half
        rows = slice(max(j - reach, 0), min(j + reach + 1, geom.shape[0]))
        columns = slice(max(i - reach, 0), min(i + reach + 1, geom.shape[1]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        grid = grid_at(j, i, half)
        inner = (
            slice(rows.start - (j - reach), rows.stop - (j - reach)),
            slice(columns.start - (i - reach), columns.stop - (i - reach)),
        )
        template = pixel_fractions(spatial.plugin, values, grid)
        length, transformed = transforms(2 * half + 1)
        full = convolve(template, length, transformed, 2 * reach + 1)
        seen = full[:, *inner] * response.exposure[:, rows, columns]
        return _Shape(values, grid, rows, columns, inner, length, transformed, seen)

    def template_gradient(at: "_Shape") -> np.ndarray:
        resolution = spatial.plugin.companions.get("resolution")
        scale = resolution(*at.values) * 3 if resolution else np.radians(geom.binsz)
        steps = np.where(
            np.arange(len(at.values)) < 2, _STEP * scale, _STEP * np.maximum(np.abs(at.values), 0.1 * scale)
        )
        return _differences(
            lambda v: pixel_fractions(spatial.plugin, v, at.grid),
            at.values,
            steps,
            spatial.is_free,
        )

    nowhere = np.zeros(0)
    frozen_shape = None if spatial.is_free.any() else shape(nowhere)
    frozen_flux = None if spectral.is_free.any() else spectrum.flux(nowhere)

    def signal(x: np.ndarray) -> Signal | None:
        at = shape(x) if spatial.is_free.any() else frozen_shape
        if at is None:
            return None
        in_bin = spectrum.flux(x) if frozen_flux is None else frozen_flux
        n_true = len(in_bin)
        counts = ((response.edisp.T * in_bin) @ at.seen.reshape(n_true, -1)).reshape(-1, *at.seen.shape[1:])

        def pull(by_counts: np.ndarray, gradient: np.ndarray) -> None:
            back = (response.edisp @ by_counts.reshape(len(by_counts), -1)).reshape(at.seen.shape)
            if spectral.is_free.any():
                spectrum.pull(x, np.einsum("txy,txy->t", at.seen, back), gradient)
            if spatial.is_free.any():
                reach = at.grid.geom.shape[0] + 2 * kernel_half
                padded = np.zeros((n_true, reach, reach))
                padded[:, *at.inner] = (
                    back * response.exposure[:, at.rows, at.columns] * in_bin[:, None, None]
                )
                by_template = correlate(padded, at.length, at.transforms, at.grid.geom.shape[0])
                spatial.pull(np.einsum("qyx,yx->q", template_gradient(at), by_template), gradient)

        return Signal(at.rows, at.columns, counts, pull)

    return signal


def _check_size(dataset: Dataset, source: Source, spatial: Binding, kernel_half: int) -> None:
    radius = np.degrees(spatial.plugin.companions["radius"](*spatial.start)) / dataset.counts.sky.binsz
    pixels = (2 * (radius + _MARGIN + kernel_half) + 1) ** 2
    need = 16 * dataset.energy_true.n_bins * pixels
    if need > _MOST_BYTES:
        raise InputError(
            f"source '{source.name}': its extension covers {pixels:.3g} pixels of dataset '{dataset.name}', which needs "
            f"{need / 2**30:.1f} GiB (at most {_MOST_BYTES / 2**30:g}): make it smaller, or the pixels larger"
        )


@dataclass(frozen=True, eq=False)
class _Shape:
    """A source's template seen through point spread and exposure, in a window of the dataset."""

    values: np.ndarray
    grid: PixelGrid
    rows: slice
    columns: slice
    inner: tuple[slice, slice]
    length: int
    transforms: np.ndarray
    seen: np.ndarray


def _differences(
    function: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    steps: np.ndarray,
    wanted: np.ndarray | None = None,
) -> np.ndarray:
    """Central differences of ``function`` by each wanted value; zero for the others."""
    rows = []
    at = function(values)
    for n, step in enumerate(steps):
        if wanted is not None and not wanted[n]:
            rows.append(np.zeros_like(at))
            continue
        shift = np.zeros_like(values)
        shift[n] = step
        rows.append((function(values + shift) - function(values - shift)) / (2 * step))
    return np.array(rows)


def background_of(dataset: Dataset, models: Models) -> BackgroundModel | None:
    """Background model of a dataset, the last one in the file that applies to it; none where off counts measure it."""
    if isinstance(dataset.background, OffCounts):
        return None
    found = [b for b in models.backgrounds if for_dataset(dataset.name, b.datasets)]
    return found[-1] if found else None


def build_weight(
    dataset: Dataset, models: Models
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, Binding | None]]:
    """Factor on the background per energy bin, its derivatives by the model's parameters, and their binding."""
    energy = dataset.energy.centers.to_value(ENERGY)
    model = background_of(dataset, models)
    if model is None:
        ones, none = np.ones(len(energy)), np.zeros((0, len(energy)))
        return lambda x: (ones, none, None)
    binding = bind(model, "spectral", free_parameters(models)[1])

    def weight(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Binding | None]:
        values = binding.values(x)
        gradient = binding.plugin.companions["gradient"](energy, *values)
        return binding.plugin.function(energy, *values), gradient, binding

    return weight


def build_signals(dataset: Dataset, models: Models) -> tuple[Callable[[np.ndarray], Signal | None], ...]:
    """`build_signal` of every source that the dataset sees."""
    position = free_parameters(models)[1]
    return tuple(
        build_signal(
            dataset,
            s,
            bind(s, "spectral", position),
            None if s.spatial is None else bind(s, "spatial", position),
        )
        for s in models.sources
        if for_dataset(dataset.name, s.datasets)
    )


def build_fluxes(
    energy: u.Quantity, name: str, models: Models
) -> Callable[[np.ndarray], tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], None]]]:
    """Differential flux of all sources that apply to flux points of that name, as a function of the free vector.

    Returns
    -------
    fluxes : function (x) -> (dnde, pull)
        dnde in cm-2 s-1 TeV-1, shape (n,); ``pull(weights, gradient)`` adds d(sum(weights x dnde))/dx to ``gradient``.
    """
    position = free_parameters(models)[1]
    at = energy.to_value(ENERGY)[:, None]
    # a bin of one point with the weight one is that point
    spectra = [
        Spectrum(bind(s, "spectral", position), at, np.ones(at.shape))
        for s in models.sources
        if for_dataset(name, s.datasets)
    ]

    def fluxes(x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], None]]:
        def pull(weights: np.ndarray, gradient: np.ndarray) -> None:
            for spectrum in spectra:
                spectrum.pull(x, weights, gradient)

        return sum((s.flux(x) for s in spectra), np.zeros(len(at))), pull

    return fluxes


def predict_counts(dataset: Dataset, models: Models) -> tuple[np.ndarray, np.ndarray]:
    """Expected signal and background counts of a dataset at the models' values; shape (n_energy, n_lat, n_lon) each."""
    x = start_vector(models)
    signal = np.zeros(dataset.counts.data.shape)
    for build in build_signals(dataset, models):
        part = build(x)
        if part is not None:
            signal[:, part.rows, part.columns] += part.counts
    weight, _, _ = build_weight(dataset, models)(x)
    return signal, dataset.mu_bkg * weight[:, None, None]


def start_vector(models: Models) -> np.ndarray:
    """Free vector at the models' values, in the parameters' own units."""
    parameters = models.parameters()
    return np.array([parameters[name].value for name in free_parameters(models)[0]])
