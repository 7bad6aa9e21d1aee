"""Predicted counts: a source's flux folded with a dataset's responses.

For one source and dataset, with E a true and k a reconstructed energy bin (gammapy docs, "Predicted counts"):

    s[k, x] = sum_E  edisp[E, k]  exposure[E, x]  flux[E]  (psf[E] * template)(x)

the flux integrated over the true bin, the template the share of flux per pixel, convolved before it is multiplied by
the exposure. Point spread and dispersion are those of the response pixel nearest to the source's *declared* position,
so that the result depends on the parameters alone and never on the path of a fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import scipy
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.errors import InputError
from dl3flow.fit.binding import Binding, bind, for_dataset
from dl3flow.fit.flux import Varied, VariedFunction, build_bin_flux, scaled, vary_function
from dl3flow.fit.template import Window, grid_length, place_window
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.edisp import kernels_from_density
from dl3flow.kernels.convolve import even_transforms, portions, psf_kernels, unfolded
from dl3flow.kernels.interpolate import hat_matrix
from dl3flow.models.pixels import (
    PixelGrid,
    declared_position,
    depends_on_energy,
    oversampling,
    pixel_fractions,
    pixel_integrals,
    radius,
)
from dl3flow.models.resolve import ModelFunction
from dl3flow.models.source import BackgroundModel, Models, ResponseModel, Source, full_names
from dl3flow.models.temporal import mean_factor, mean_factor_gradient
from dl3flow.units import ENERGY, EXPOSURE

_MOST_BYTES = 2 * 2**30
# a source this close to the point of a directional cut is the one that was cut for
_NEAR = 0.1 * u.deg
_NOTHING = np.zeros(0)
ROUNDING = 1e-13
# pixels that a model must span for its density there to be its share
_RESOLVED = 6.0
_ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Response:
    """A dataset's response at one place, in internal units.

    Attributes
    ----------
    kernels : array, shape (n_true, k, k)
    edisp : array, shape (n_true, n_energy)
    """

    kernels: np.ndarray
    edisp: np.ndarray


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
    exposure = dataset.edisp.exposure
    # the one pixel of a spectrum needs no search
    j, i = (
        (0, 0)
        if exposure.data.shape[1:] == (1, 1)
        else response_pixel(exposure.geom, exposure.data, position)
    )
    edisp = dataset.edisp.edisp.data[:, :, j, i]
    if not dataset.edisp.is_kernel:
        edisp = kernels_from_density(
            edisp, dataset.edisp.edisp.axis("migra"), dataset.energy_true, dataset.energy
        )
    return np.asarray(edisp, dtype=float)


def response_at(dataset: Dataset, position: SkyCoord, without: Sequence[str] = ()) -> Response:
    """Point-spread kernels and dispersion of the response pixel nearest to ``position`` that has exposure.

    What ``without`` names, of exposure, psf and edisp, is not applied: flux is counts, stays in its pixel, in its bin.
    """
    n_true = dataset.energy_true.n_bins
    kernels = np.ones((n_true, 1, 1))
    if dataset.psf is not None and "psf" not in without:
        rad = dataset.psf.psf.axis("rad")
        j, i = response_pixel(dataset.psf.exposure.geom, dataset.psf.exposure.data, position)
        profiles = dataset.psf.psf.quantity[:, :, j, i].to_value("sr-1")
        axis = dataset.psf.psf.axis("energy_true")
        if not axis.is_close(dataset.energy_true):
            # files of others keep the point spread on energies of its own
            at = (axis.scaled(axis.centers), axis.scaled(dataset.energy_true.centers))
            profiles = np.maximum(hat_matrix(*at, -np.inf, np.inf) @ profiles, 0.0)
        kernels = psf_kernels(profiles, rad.edges.to_value(u.deg), dataset.counts.sky.binsz)
    edisp = _diagonal(dataset) if "edisp" in without else dispersion_at(dataset, position)
    return Response(kernels, edisp)


def _diagonal(dataset: Dataset) -> np.ndarray:
    """Share of each true bin in each reconstructed one if energies are measured exactly; shape (n_true, n_energy)."""
    true, reco = (np.log(a.edges.to_value(ENERGY)) for a in (dataset.energy_true, dataset.energy))
    low, high = np.maximum(true[:-1, None], reco[:-1]), np.minimum(true[1:, None], reco[1:])
    return np.asarray(np.maximum(high - low, 0.0) / np.diff(true)[:, None])


def exposure_of(
    dataset: Dataset, without: Sequence[str] = (), rows: slice = _ALL, columns: slice = _ALL
) -> np.ndarray:
    """Exposure in some pixels, cm2 s; one everywhere for a source that is not folded with it."""
    stored = dataset.exposure.data[:, rows, columns]
    if "exposure" in without:
        return np.ones(stored.shape)
    return np.asarray(stored * float(dataset.exposure.unit.to(EXPOSURE)), dtype=float)


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


def source_position(source: Source) -> SkyCoord | None:
    """Declared direction of a source; None if it is everywhere.

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
    return declared_position(source.spatial)


def response_position(dataset: Dataset, source: Source) -> SkyCoord:
    """Where a dataset's responses to a source are taken: at its declared position, in the middle for one that is everywhere."""
    found = source_position(source)
    return dataset.counts.sky.center if found is None else found


def icrs_positions(models: Models) -> dict[str, list[float]]:
    """Declared right ascension and declination of every source that has a place, deg, by name."""
    found = {s.name: source_position(s) for s in models.sources if s.spatial is not None}
    return {name: [float(p.icrs.ra.deg), float(p.icrs.dec.deg)] for name, p in found.items() if p is not None}


def frame_of(source: Source) -> str:
    """Frame of a source's position."""
    return "icrs" if source.spatial is None else str(source.spatial.options.get("frame", "icrs"))


def sees(region: RegionGeometry, position: SkyCoord) -> bool:
    """True if a point source at ``position`` counts in the region; within 0.1 deg of the point of directional cuts.

    A spectrum from nobody knows where was taken of what it is fitted with.
    """
    if not region.is_known:
        return True
    if region.is_point:
        return bool(region.center.separation(position) < _NEAR)
    return bool(region.contains(position.reshape((1,)))[0])


def background_of(dataset: Dataset, models: Models) -> BackgroundModel | None:
    """Background model of a dataset, the last one in the file that applies to it; none where off counts measure it."""
    if isinstance(dataset.background, OffCounts):
        return None
    found = [b for b in models.backgrounds if b.template is None and for_dataset(dataset.name, b.datasets)]
    return found[-1] if found else None


def response_model(dataset: str, models: Models) -> ResponseModel | None:
    """Systematic errors that apply to a dataset.

    Raises
    ------
    InputError
        If there are two.
    """
    found = [r for r in models.responses if for_dataset(dataset, r.datasets)]
    if len(found) > 1:
        raise InputError(
            f"dataset '{dataset}': the systematic errors '{found[0].name}' and '{found[1].name}' both apply: keep one"
        )
    return found[0] if found else None


def alpha_scale(dataset: Dataset, models: Models) -> float:
    """Factor of the systematic errors on a measured background, at the models' values."""
    model = response_model(dataset.name, models)
    return 1.0 if model is None else float(model.scale["background_scale"].value)


def bind_scale(model: ResponseModel, name: str, position: Mapping[str, int]) -> Binding:
    """Binding of one parameter of a response's scales, a function of which is that number."""
    names = full_names(model)["scale"]
    k = next(n for n, p in enumerate(model.scale.parameters) if p.name == name)
    value = np.array([model.scale.parameters[k].value])
    slots = np.array([position.get(names[k], -1)])
    return Binding(_IDENTITY, value, slots, np.ones(1))


_IDENTITY = ModelFunction("scale", lambda v: np.asarray(v), (u.dimensionless_unscaled,), {})


def build_flux(
    models: Models,
    source: Source,
    position: Mapping[str, int],
    edges: np.ndarray,
    response: ResponseModel | None,
    times: Sequence[tuple[float, float]],
) -> VariedFunction:
    """Flux of a source in true-energy bins as a dataset sees it: with its systematic errors, at its times."""
    spectral = bind(source, "spectral", position)
    energy_scale = None if response is None else bind_scale(response, "energy_scale", position)
    if energy_scale is not None and not energy_scale.is_free.any() and energy_scale.start[0] == 0:
        energy_scale = None
    flux = build_bin_flux(spectral, edges, energy_scale)
    if response is not None:
        exposure = bind_scale(response, "exposure_scale", position)
        if exposure.is_free.any() or exposure.start[0] != 1:
            flux = _times(flux, vary_function(exposure, lambda v: np.asarray(v), lambda v: np.ones(1)))
    if is_variable(source):
        temporal = bind(source, "temporal", position)
        start, stop = np.array(times).reshape(-1, 2).T
        flux = _times(
            flux,
            vary_function(
                temporal,
                lambda *v: np.asarray(mean_factor(temporal.plugin, np.array(v), start, stop)),
                lambda *v: mean_factor_gradient(temporal.plugin, np.array(v), start, stop),
            ),
        )
    return flux


def _times(flux: VariedFunction, factor: VariedFunction) -> VariedFunction:
    def product(x: np.ndarray) -> Varied:
        return scaled(flux(x), factor(x))

    return product


def is_variable(source: Source) -> bool:
    """True for a source with a temporal model that is not constant."""
    return source.temporal is not None and source.temporal.kind != "constant"


def good_times(dataset: Dataset, source: Source) -> tuple[tuple[float, float], ...]:
    """Good time intervals (MJD, TT) over which a source that varies is averaged; none for a steady one.

    Raises
    ------
    InputError
        If the dataset has none.
    """
    if not is_variable(source):
        return ()
    gti = dataset.gti
    if not len(gti.start):
        raise InputError(
            f"dataset '{dataset.name}': it has no good time intervals, which the temporal model of '{source.name}' needs: "
            "restrict the source to other datasets by `datasets_names`, or leave its temporal model out"
        )
    start, stop = ((gti.reference + side).tt.mjd.tolist() for side in (gti.start, gti.stop))
    return tuple(zip(start, stop, strict=True))


@dataclass(frozen=True, eq=False)
class Seen:
    """A template of fixed shape through point spread and exposure, in a window of the dataset's pixels.

    Attributes
    ----------
    rows, columns : slice
    per_flux : array, shape (n_true, n_rows, n_columns), cm2 s
        Counts per flux and true-energy bin.
    edisp : array, shape (n_true, n_energy)
    """

    rows: slice
    columns: slice
    per_flux: np.ndarray
    edisp: np.ndarray


def seen_template(dataset: Dataset, source: Source, declared: Source) -> Seen | None:
    """A source at its values, with the responses at its declared position; None where the dataset does not see it."""
    if isinstance(dataset.geom, RegionGeometry):
        share = region_share(dataset.geom, source)
        if share == 0:
            return None
        exposure = exposure_of(dataset, source.without_irf)
        edisp = (
            _diagonal(dataset)
            if "edisp" in source.without_irf
            else dispersion_at(dataset, dataset.geom.center)
        )
        return Seen(slice(0, 1), slice(0, 1), exposure * share, edisp)
    spatial = bind(source, "spatial", {})
    geom, frame = dataset.counts.sky, frame_of(source)
    response = response_at(dataset, response_position(dataset, declared), source.without_irf)
    half = response.kernels.shape[-1] // 2
    energy = energies_of_shape(dataset, spatial.plugin)
    window = place_window(geom, spatial, frame, energy)
    reached = None if window is None else reached_part(window, half, geom.shape)
    if window is None or reached is None:
        return None
    check_size(dataset, source, window, half)
    rows, columns = reached
    factor = oversampling(spatial.plugin, spatial.start, geom, energy)
    grid = PixelGrid.create(window.geom, factor, frame)
    template = pixel_fractions(spatial.plugin, spatial.start, grid, energy)
    length = grid_length(window, half)
    transforms = even_transforms(response.kernels, length)
    per_flux = _smeared(template, transforms, length, (window.row, window.column), reached)
    per_flux *= exposure_of(dataset, source.without_irf, rows, columns)
    return Seen(rows, columns, per_flux, response.edisp)


def _smeared(
    template: np.ndarray,
    transforms: np.ndarray,
    length: tuple[int, int],
    corner: tuple[int, int],
    reached: tuple[slice, slice],
) -> np.ndarray:
    """A template through point spread, at the pixels that it reaches; shape (n_true, n_rows, n_columns).

    ``transforms`` are quadrants of those of the kernels, ``corner`` is the template's first pixel in the map.
    """
    # pixels before the window are at the end of the periodic grid
    j, i = (
        (np.arange(s.start, s.stop) - first) % n for s, first, n in zip(reached, corner, length, strict=True)
    )
    whole = scipy.fft.rfft2(template, s=length)
    smeared = np.empty((len(transforms), len(j), len(i)), dtype=template.dtype)
    for some in portions(len(transforms), length):
        kernels = unfolded(transforms[some], length[0]).astype(template.dtype)
        seen = scipy.fft.irfft2((whole if whole.ndim == 2 else whole[some]) * kernels, s=length)
        # beyond a kernel's edge the transform leaves rounding, which is no signal
        seen[np.abs(seen) < ROUNDING * seen.max(axis=(1, 2), keepdims=True)] = 0.0
        smeared[some] = seen[:, j[:, None], i]
    return smeared


def seen_again(
    dataset: Dataset,
    source: Source,
    declared: Source,
    template: np.ndarray,
    geom: SkyGeometry,
    transforms: np.ndarray,
    length: tuple[int, int],
) -> Seen | None:
    """As `seen_template` in single precision, of a template on the window ``geom`` and with transforms that are there already."""
    corner = geom.offset_in(dataset.counts.sky)
    window = Window(corner[0], corner[1], geom.shape, geom)
    half = min(n - m for n, m in zip(length, geom.shape, strict=True)) // 2
    reached = reached_part(window, half, dataset.counts.sky.shape)
    if reached is None:
        return None
    per_flux = _smeared(template.astype(np.float32), transforms, length, corner, reached)
    per_flux = per_flux * exposure_of(dataset, source.without_irf, *reached)
    position = response_position(dataset, declared)
    edisp = _diagonal(dataset) if "edisp" in source.without_irf else dispersion_at(dataset, position)
    return Seen(*reached, per_flux, edisp)


def energies_of_shape(dataset: Dataset, model: ModelFunction) -> np.ndarray | None:
    """True energies (TeV) at which a model whose shape depends on it is evaluated."""
    return dataset.energy_true.centers.to_value(ENERGY) if depends_on_energy(model) else None


def reached_part(window: Window, half: int, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of a map that a window smeared by kernels of 2 half + 1 pixels reaches; None if there are none."""
    slices = []
    for first, size, n in zip((window.row, window.column), window.shape, shape, strict=True):
        start, stop = max(first - half, 0), min(first + size + half, n)
        if start >= stop:
            return None
        slices.append(slice(start, stop))
    return slices[0], slices[1]


def check_size(dataset: Dataset, source: Source, window: Window, half: int) -> None:
    """Refuse a source whose window does not fit into memory.

    Raises
    ------
    InputError
    """
    pixels = float(np.prod([n + 2 * half for n in window.shape]))
    need = 16 * dataset.energy_true.n_bins * pixels
    if need > _MOST_BYTES:
        raise InputError(
            f"source '{source.name}': its extension covers {pixels:.3g} pixels of dataset '{dataset.name}', which needs "
            f"{need / 2**30:.1f} GiB (at most {_MOST_BYTES / 2**30:g}): make it smaller, or the pixels larger"
        )


def region_share(region: RegionGeometry, source: Source) -> float:
    """Share of a source that counts in a region, whose exposure holds what of a point at its centre is contained.

    A source without a spatial part, and a point declared in the region, count whole; of an extended one counts the share
    of its template in the region, not smeared by the point spread.
    """
    if source.spatial is None:
        return 1.0
    spatial = bind(source, "spatial", {})
    if is_whole(region, spatial.plugin):
        at = source_position(source)
        return 1.0 if at is None or sees(region, at) else 0.0
    return share_at(
        region,
        spatial.plugin,
        spatial.start,
        frame_of(source),
        oversampling(spatial.plugin, spatial.start, region.grid),
    )


def is_whole(region: RegionGeometry, spatial: ModelFunction) -> bool:
    """True if a source counts in a region whole or not at all."""
    return "resolution" not in spatial.companions or region.is_point or not region.is_known


def share_at(
    region: RegionGeometry, spatial: ModelFunction, values: np.ndarray, frame: str, factor: int
) -> float:
    """Share of an extended model in a region."""
    grid = PixelGrid.create(region.grid, factor, frame)
    if radius(spatial, values) < _RESOLVED * np.radians(region.grid.binsz):
        # too small for the pixels: its place counts, and its sum is one
        return float((pixel_fractions(spatial, values, grid) * region.cover).sum())
    return float((pixel_integrals(spatial, values, grid) * region.cover).sum())


def weigh_background(
    dataset: Dataset, models: Models, position: Mapping[str, int]
) -> list[tuple[np.ndarray | None, VariedFunction]]:
    """Parts of a dataset's expected background, each with its factor per energy bin.

    Returns
    -------
    parts : list of (counts, factor)
        Counts of a template, shape (n_energy, n_lat, n_lon); None for the dataset's own background, which comes first.
    """
    energy = dataset.energy.centers.to_value(ENERGY)
    own = background_of(dataset, models)
    factor = _constant(np.ones(len(energy))) if own is None else _norm_function(own, energy, position)
    response = response_model(dataset.name, models)
    if response is not None:
        factor = _times(factor, scale_function(bind_scale(response, "background_scale", position)))
    parts: list[tuple[np.ndarray | None, VariedFunction]] = [(None, factor)]
    for model in models.backgrounds:
        if model.template is not None and for_dataset(dataset.name, model.datasets):
            parts.append((template_counts(dataset, model), _norm_function(model, energy, position)))
    return parts


def scale_function(binding: Binding) -> VariedFunction:
    """The number of a binding of one parameter, as a function of the free vector."""
    return vary_function(binding, lambda v: np.asarray(v), lambda v: np.ones(1))


def _norm_function(model: BackgroundModel, energy: np.ndarray, position: Mapping[str, int]) -> VariedFunction:
    binding = bind(model, "spectral", position)
    gradient = binding.plugin.companions.get("gradient")
    return vary_function(
        binding,
        lambda *v: binding.plugin.function(energy, *v),
        None if gradient is None else lambda *v: gradient(energy, *v),
    )


def _constant(value: np.ndarray) -> VariedFunction:
    none = np.zeros(0, dtype=int)
    fixed = Varied(none, value, np.zeros((0, *value.shape)), lambda: np.zeros((0, 0, *value.shape)))
    return lambda x: fixed


def template_counts(dataset: Dataset, model: BackgroundModel) -> np.ndarray:
    """Expected counts of a background template, which must be on the bins of the dataset.

    Raises
    ------
    InputError
    """
    template = model.template
    assert template is not None
    if template.data.shape != dataset.counts.data.shape:
        raise InputError(
            f"background '{model.name}': its template has {template.data.shape} bins and dataset '{dataset.name}' "
            f"{dataset.counts.data.shape}: give a template on the bins of the dataset"
        )
    if isinstance(template.geom, type(dataset.geom)) and template.geom.offset_in(dataset.geom) != (0, 0):
        raise InputError(
            f"background '{model.name}': its template is not on the pixels of dataset '{dataset.name}': cut it out there"
        )
    return np.asarray(template.data, dtype=float)


def predict_counts(dataset: Dataset, models: Models) -> tuple[np.ndarray, np.ndarray]:
    """Expected signal and background counts of a dataset at the models' values; shape (n_energy, n_lat, n_lon) each."""
    signal = np.zeros(dataset.counts.data.shape)
    response = response_model(dataset.name, models)
    edges = dataset.energy_true.edges.to_value(ENERGY)
    for source in models.sources:
        seen = seen_template(dataset, source, source) if for_dataset(dataset.name, source.datasets) else None
        if seen is None:
            continue
        flux = build_flux(models, source, {}, edges, response, good_times(dataset, source))(_NOTHING).value
        n_true = len(flux)
        folded = (seen.edisp.T * flux) @ seen.per_flux.reshape(n_true, -1)
        signal[:, seen.rows, seen.columns] += folded.reshape(-1, *seen.per_flux.shape[1:])
    if isinstance(dataset.background, OffCounts):
        return signal, dataset.mu_bkg * alpha_scale(dataset, models)
    background = np.zeros(signal.shape)
    for counts, factor in weigh_background(dataset, models, {}):
        background += (dataset.mu_bkg if counts is None else counts) * factor(_NOTHING).value[:, None, None]
    return signal, background
