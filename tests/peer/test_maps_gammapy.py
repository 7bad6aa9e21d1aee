"""Maps of the test statistic and adaptive smoothing against gammapy, on the public runs of the Crab Nebula.

As in `test_science_gammapy`, the point-spread kernels of gammapy are made to converge: with its own default of 1 to 4 points
per pixel its statistic moves by up to 4, and by 4 times the tolerance in a tenth of the pixels.
"""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset
from dl3flow.data.products import SkyMap
from dl3flow.estimators import MAPS
from dl3flow.geometry.axis import Axis
from dl3flow.io.fits_datasets import write_fits_dataset
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.provenance import collect_provenance
from dl3flow.io.skymaps import write_sky_map
from dl3flow.reduce.reshape import cutout, downsample, resample_energy
from dl3flow.reduce.stack import stack

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
theirs = pytest.importorskip("gammapy.estimators", reason="gammapy is not installed: make peer")

PROVENANCE = collect_provenance("test", "", {}, {})
RUNS = (23523, 23526, 23559, 23592)
CRAB = SkyCoord(83.63, 22.01, unit="deg")
# points per pixel and direction at which the peer's kernels have converged
POINTS = 8
SECTIONS = {
    "recipe": {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "5 deg",
        "binsz": "0.02 deg",
        "cutout": "6 deg",
        "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 11},
        "energy_true": {"min": "0.3 TeV", "max": "30 TeV", "nbin": 40},
    },
    "safe_mask": [{"name": "aeff_default"}, {"name": "offset_max", "offset_max": "3 deg"}],
    "background": {
        "name": "fov",
        "method": "scale",
        "exclusion": "icrs;circle(83.63, 22.01, 0.2)",
        "exclusion_binsz": "0.05 deg",
    },
}


@pytest.fixture(scope="module")
def runs(hess_dl3: Path) -> list[Dataset]:
    entries = {e.obs_id: e for e in read_index(hess_dl3)}
    chain = parse_chain(SECTIONS, "")
    return [reduce_observation(read_observation(entries[n], hess_dl3), f"run-{n}", chain) for n in RUNS]


@pytest.fixture(scope="module")
def stacked(runs: list[Dataset]) -> Dataset:
    geometries = parse_chain(SECTIONS, "").geometries
    assert geometries is not None
    return stack(runs, "cube", *geometries)


@pytest.fixture(autouse=True)
def converged_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    import gammapy.irf.psf.map as psf_map

    def fine(psf: Any, geom: Any, position: Any, **_: Any) -> np.ndarray:
        return np.full(psf.psf_map.geom.axes["energy_true"].nbin, POINTS)

    monkeypatch.setattr(psf_map, "_psf_upsampling_factor", fine)


def as_peer(datasets: list[Dataset], folder: Path) -> Any:
    from gammapy.datasets import Datasets, MapDataset

    found = []
    for dataset in datasets:
        write_fits_dataset(folder / f"{dataset.name}.fits", dataset, PROVENANCE)
        found.append(MapDataset.read(folder / f"{dataset.name}.fits", name=dataset.name))
    return Datasets(found)


def peer_ts(datasets: Any, *, is_summed: bool, optional: list[str] | None = None) -> Any:
    from gammapy.modeling.models import PointSpatialModel, PowerLawSpectralModel, SkyModel

    model = SkyModel(PowerLawSpectralModel(index=2.5), PointSpatialModel(), name="kernel")
    estimator = theirs.TSMapEstimator(
        model,
        kernel_width="1 deg",
        energy_edges=[1, 10] * u.TeV,
        sum_over_energy_groups=is_summed,
        selection_optional=optional,
        # its default of 0.01 leaves strengths wrong by 2e-3
        rtol=1e-4,
    )
    return estimator.run(datasets)


def our_ts(datasets: list[Dataset], **options: object) -> SkyMap:
    entry = {
        "name": "ts_map",
        "spectral": {"type": "power_law", "index": 2.5},
        "kernel_width": "1 deg",
        **options,
    }
    estimator, bound = MAPS.bind(entry, "map")
    return estimator(datasets, None, **bound)


def assert_same_ts(ours: SkyMap, peer: Any) -> np.ndarray:
    """Per pixel to 1 % or 0.1; pixels of both."""
    ts, expected = ours.maps["ts"].data, peer.ts.data[0]
    both = np.isfinite(ts) & np.isfinite(expected)
    # of ours, those where no energy is safe are left out
    assert np.isfinite(ts).sum() == both.sum() > 0.998 * np.isfinite(expected).sum()
    difference = np.abs(ts - expected)[both]
    assert (difference <= np.maximum(0.01 * expected[both], 0.1)).all()
    assert (difference <= np.maximum(2e-3 * expected[both], 0.05)).all()
    return both


@pytest.mark.slow
def test_ts_map_of_the_stack(stacked: Dataset, tmp_path: Path) -> None:
    """Energies summed and kernels averaged as the peer does by default; 250 x 250 pixels."""
    peer = peer_ts(as_peer([stacked], tmp_path), is_summed=True)
    ours = our_ts([stacked], energies="summed", kernel_mean="plain")
    both = assert_same_ts(ours, peer)
    assert both.sum() > 62000
    error = peer.norm_err.data[0][both]
    assert (np.abs(ours.maps["norm"].data - peer.norm.data[0])[both] < 0.06 * error).all()
    j, i = ours.maps["ts"].sky.nearest(CRAB)
    assert ours.maps["ts"].data[j, i] == pytest.approx(peer.ts.data[0, j, i], rel=1e-3)
    assert ours.maps["npred_excess"].data[j, i] == pytest.approx(peer.npred_excess.data[0, j, i], rel=1e-3)
    assert ours.meta["ref_flux"] == pytest.approx([peer.flux_ref.to_value("cm-2 s-1").ravel()[0]])


def test_joint_ts_map_of_cubes_with_errors_and_limits(runs: list[Dataset], tmp_path: Path) -> None:
    # 32 x 32 pixels and three energies: the peer takes as long for them as for the image of the stack
    axis = Axis("energy", runs[0].energy.edges[[0, 3, 6, 11]], "log")
    datasets = [downsample(resample_energy(cutout(run, CRAB, 1.28 * u.deg), axis), 2) for run in runs[:2]]
    peer = peer_ts(as_peer(datasets, tmp_path), is_summed=False, optional=["ul", "errn-errp"])
    ours = our_ts(datasets, errors=True, limits=True)
    both = assert_same_ts(ours, peer)
    found = {name: values.data for name, values in ours.maps.items()}
    error = found["norm_err"]
    # at the lowest strength the peer gives the width of a minimum that is not there
    free = both & np.isfinite(error)
    assert free.sum() > 0.5 * both.sum()
    for name in ("norm", "norm_err", "norm_errp"):
        difference = np.abs(found[name] - getattr(peer, name).data[0])
        assert (difference[free] < 0.06 * error[free]).all()
    # ours are above the best strength that is not negative, the peer's above the best
    positive = free & (found["norm"] > 0)
    assert positive.sum() > 300
    assert (np.abs(found["norm_ul"] - peer.norm_ul.data[0])[positive] < 0.06 * error[positive]).all()
    assert (found["norm_ul"] >= peer.norm_ul.data[0] - 0.06 * error)[free].all()
    errn = free & np.isfinite(found["norm_errn"])
    assert errn.sum() > 200
    assert (np.abs(found["norm_errn"] - peer.norm_errn.data[0])[errn] < 0.06 * error[errn]).all()


def test_gammapy_opens_our_maps(runs: list[Dataset], tmp_path: Path) -> None:
    from gammapy.estimators import FluxMaps
    from gammapy.maps import Map, Maps
    from gammapy.modeling.models import PointSpatialModel, PowerLawSpectralModel, SkyModel

    dataset = cutout(runs[0], CRAB, 1 * u.deg)
    ours = our_ts([dataset], energy={"edges": ["1 TeV", "10 TeV"]}, limits=True)
    write_sky_map(tmp_path / "ours.fits", ours, PROVENANCE)
    names = ("norm", "norm_err", "norm_ul", "ts", "sqrt_ts")
    maps = Maps(**{name: Map.read(tmp_path / "ours.fits", hdu=name.upper()) for name in names})
    model = SkyModel(PowerLawSpectralModel(index=2.5), PointSpatialModel(), name="kernel")
    opened = FluxMaps.from_maps(maps, sed_type="likelihood", reference_model=model)
    for name in ("flux", "flux_err", "flux_ul"):
        expected = getattr(opened, name).quantity.to_value("cm-2 s-1")
        scale = np.nanmax(np.abs(expected))
        assert ours.maps[name].data == pytest.approx(expected, rel=1e-5, abs=1e-6 * scale, nan_ok=True)


def test_adaptive_smoothing(stacked: Dataset, tmp_path: Path) -> None:
    small = cutout(stacked, CRAB, 2.5 * u.deg)
    scales = [0.05, 0.1, 0.2, 0.3]
    peer = theirs.ASmoothMapEstimator(scales=scales * u.deg, threshold=4, energy_edges=[1, 10] * u.TeV).run(
        as_peer([small], tmp_path)[0]
    )
    estimator, bound = MAPS.bind(
        {"name": "adaptive_smooth", "scales": [f"{s} deg" for s in scales], "threshold": 4}, "map"
    )
    ours = {name: values.data for name, values in estimator([small], None, **bound).maps.items()}
    expected = {name: peer[name].data[0] for name in ("counts", "background", "scale", "sqrt_ts", "flux")}
    # the peer smooths with the Gaussian at pixel centres and scales to the sum of its means over pixels; ours are those means
    seen = np.isfinite(ours["scale"]) & np.isfinite(expected["scale"])
    assert seen.sum() > 1000
    assert (np.isfinite(ours["scale"]) != np.isfinite(expected["scale"])).mean() < 0.003
    assert (ours["scale"] != expected["scale"])[seen].mean() < 0.01
    same = seen & (ours["scale"] == expected["scale"])
    assert ours["sqrt_ts"][same] == pytest.approx(expected["sqrt_ts"][same], rel=0.02)
    for name in ("counts", "background", "flux"):
        scale = np.nanmax(np.abs(expected[name]))
        assert ours[name][same] == pytest.approx(expected[name][same], rel=0.02, abs=0.01 * scale)
