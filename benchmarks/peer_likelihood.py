"""What the peer's likelihood is changed in where `joint_fit.py` judges whether both sides found one minimum; none of it while a fit is timed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

# parts a pixel of the peer's kernels
KERNEL_PARTS = 20


def fine_kernel(
    psf: Any, geom: Any, position: Any, max_radius: Any, containment: float, factors: Sequence[int]
) -> Any:
    """Point-spread kernel of the peer with pixels divided into ``factors`` parts a side, by energy.

    The peer interpolates its table at every part of a pixel, once per energy. It does so linearly between radii, so that
    the same numbers come from the values at the radii of its table alone, and the distances are those of one grid.
    """
    from gammapy.irf import PSFKernel
    from gammapy.maps import Map

    position = psf._get_nearest_valid_position(position)
    axis, rad_axis = psf.psf_map.geom.axes[psf.energy_name], psf.psf_map.geom.axes["rad"]
    radii = psf.containment_radius(
        fraction=containment, position=position, **{psf.energy_name: axis.center}
    ).ravel()
    if max_radius is None:
        max_radius = radii.max()
    radii = np.minimum(radii, max_radius)
    whole = geom.to_odd_npix(max_radius=max_radius)
    kernel = Map.from_geom(whole)
    n = whole.data_shape[-1]
    distances: dict[int, Any] = {}
    for factor in set(factors):
        grid = whole.to_image().upsample(factor)
        distance = grid.get_coord(sparse=True).skycoord.separation(whole.center_skydir)
        distances[factor] = distance.to_value(rad_axis.unit)
    farthest = max(d.max() for d in distances.values())
    nodes = np.union1d(rad_axis.edges.value, rad_axis.center.value)
    nodes = np.append(nodes, 1.1 * max(farthest, nodes[-1]))
    for k, (energy, radius, factor) in enumerate(zip(axis.center, radii, factors, strict=True)):
        coords = {psf.energy_name: energy, "rad": nodes * rad_axis.unit, "skycoord": position}
        values = psf.psf_map.interp_by_coord(coords, method="linear")
        m = geom.to_odd_npix(max_radius=radius).data_shape[-1]
        edge = (n - m) // 2
        part = slice(edge * factor, (edge + m) * factor)
        fine = np.maximum(np.interp(distances[factor][part, part], nodes, values), 0.0)
        inner = slice(edge, edge + m)
        kernel.data[k, inner, inner] = fine.reshape(m, factor, m, factor).sum(axis=(1, 3))
    return PSFKernel(kernel, normalize=True)


def fine_kernels() -> Any:
    """Context in which the peer's kernels have `KERNEL_PARTS` parts a pixel; the first must be the peer's own with its own division."""
    from gammapy.irf import PSFMap
    from gammapy.irf.psf.map import _psf_upsampling_factor

    original, is_checked = PSFMap.get_psf_kernel, False

    def get_psf_kernel(
        psf: Any, geom: Any, position: Any = None, max_radius: Any = None, containment: float = 0.999
    ) -> Any:
        nonlocal is_checked
        at = (psf, geom, position, max_radius, containment)
        if not is_checked:
            theirs = original(*at).psf_kernel_map.data
            place = psf._get_nearest_valid_position(position)
            ours = fine_kernel(*at, _psf_upsampling_factor(psf, geom, place)).psf_kernel_map.data
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9 * theirs.max())
            is_checked = True
        return fine_kernel(*at, [KERNEL_PARTS] * psf.psf_map.geom.axes[psf.energy_name].nbin)

    return patch.object(PSFMap, "get_psf_kernel", get_psf_kernel)


def use_our_kernels(dataset: Any, path: Path) -> None:
    """Give the peer's evaluators of a dataset our point-spread kernels."""
    from dl3flow.fit.npred import response_at
    from dl3flow.io.fits_datasets import read_fits_dataset

    own = read_fits_dataset(path, dataset.name)
    for evaluator in dataset._evaluators.values():
        kernels = response_at(own, evaluator.model.position).kernels
        # both are centred; the smaller one is zero where the larger one ends
        n, m = evaluator.psf.psf_kernel_map.data.shape[-1], kernels.shape[-1]
        if m > n:
            kernels = kernels[:, (m - n) // 2 : (m + n) // 2, (m - n) // 2 : (m + n) // 2]
        edge = max(n - m, 0) // 2
        evaluator.psf.psf_kernel_map.data = np.pad(kernels, ((0, 0), (edge, edge), (edge, edge)))
        evaluator.reset_cache_properties()


def our_template(sigma: float) -> Any:
    """Context in which the peer's Gaussian has our shares of pixels, with as many points a pixel as ours has at ``sigma`` deg."""
    import astropy.units as u
    from gammapy.maps import Map
    from gammapy.modeling.models import GaussianSpatialModel

    from dl3flow.geometry.sky import SkyGeometry
    from dl3flow.models.pixels import PixelGrid, oversampling, pixel_fractions
    from dl3flow.models.resolve import resolve
    from dl3flow.models.source import Component, Parameter

    names = ("lon_0", "lat_0", "sigma", "e", "phi")
    plugin = resolve(
        Component("gauss", tuple(Parameter(n, 0.0, u.deg) for n in names)), "spatial", "benchmark"
    )
    grids: dict[Any, PixelGrid] = {}

    def integrate_geom(self: Any, geom: Any, oversampling_factor: Any = None) -> Any:
        key = (geom.data_shape, tuple(geom.wcs.wcs.crpix))
        if key not in grids:
            sky = SkyGeometry.from_wcs(geom.wcs, geom.data_shape, "benchmark")
            start = np.array([0.0, 0.0, np.radians(sigma), 0.0, 0.0])
            grids[key] = PixelGrid.create(sky, oversampling(plugin, start, sky), "icrs")
        place = [getattr(self, name).quantity.to_value(u.rad) for name in names[:3]]
        shares = pixel_fractions(plugin, np.array([*place, 0.0, 0.0]), grids[key])
        return Map.from_geom(geom=geom, data=shares, unit="")

    return patch.object(GaussianSpatialModel, "integrate_geom", integrate_geom)
