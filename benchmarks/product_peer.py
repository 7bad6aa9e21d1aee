"""The peer's side of `products.py`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from product_cases import (
    COLUMNS,
    DATA,
    EVENTS,
    FLARE_AMPLITUDE,
    FLARE_ENERGY,
    FLARE_INDEX,
    FLARE_RUNS,
    IRFS,
    POINT_EDGES,
    POINTING,
    RADIUS,
    TS_INDEX,
    TS_WIDTH,
    Arrays,
    Side,
    flare_times,
)


def divide_kernels(*, is_fine: bool) -> None:
    """Have the peer divide the pixels of its point-spread kernels by 20, or as it does by default."""
    import gammapy.irf.psf.map as psf_map

    DEFAULT.setdefault("factor", psf_map._psf_upsampling_factor)

    def by_20(psf: Any, geom: Any, position: Any, **_: Any) -> np.ndarray:
        return np.full(psf.psf_map.geom.axes["energy_true"].nbin, 20)

    psf_map._psf_upsampling_factor = by_20 if is_fine else DEFAULT["factor"]


DEFAULT: dict[str, Any] = {}


def read_peer(made: Mapping[str, Any]) -> Any:
    """Datasets with their models."""
    from gammapy.datasets import Datasets, MapDataset, SpectrumDatasetOnOff
    from gammapy.modeling.models import Models

    divide_kernels(is_fine=made.get("is_fine", False))
    folder = Path(made["folder"])
    reader = MapDataset if made["is_map"] else SpectrumDatasetOnOff
    datasets = Datasets([reader.read(folder / f"{name}.fits", name=name) for name in made["names"]])
    datasets.models = Models.read(folder / "models.yaml")
    return datasets


def peer_points(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Flux points."""
    import astropy.units as u
    from gammapy.estimators import FluxPointsEstimator

    datasets = read_peer(made)
    estimator = FluxPointsEstimator(
        source="crab", energy_edges=POINT_EDGES * u.TeV, selection_optional=["errn-errp", "ul"]
    )

    def arrays(product: Any) -> Arrays:
        table = product.to_table(sed_type="likelihood")
        found = {name: np.asarray(table[name], dtype=float) for name in COLUMNS}
        counts = np.asarray(table["counts"]).reshape(len(table), -1).sum(axis=1)
        return {**found, "counts": counts}

    return lambda: estimator.run(datasets), arrays


def peer_excess(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Excess map, of the background alone."""
    import astropy.units as u
    from gammapy.estimators import ExcessMapEstimator

    (dataset,) = read_peer(made)
    dataset.models = []
    estimator = ExcessMapEstimator(correlation_radius=RADIUS * u.deg)

    def arrays(product: Any) -> Arrays:
        maps = {"counts": product.counts, "excess": product.npred_excess, "sqrt_ts": product.sqrt_ts}
        return {name: found.data[0] for name, found in maps.items()}

    return lambda: estimator.run(dataset), arrays


def peer_curve(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Light curve."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from astropy.time import Time
    from gammapy.data import DataStore
    from gammapy.datasets import Datasets, SpectrumDataset
    from gammapy.estimators import LightCurveEstimator
    from gammapy.makers import ReflectedRegionsBackgroundMaker, SafeMaskMaker, SpectrumDatasetMaker
    from gammapy.maps import MapAxis, RegionGeom
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel
    from regions import CircleSkyRegion

    spectrum = PowerLawSpectralModel(index=FLARE_INDEX, amplitude=FLARE_AMPLITUDE * u.Unit("cm-2 s-1 TeV-1"))
    region = CircleSkyRegion(SkyCoord(329.71693826, -30.2255890, unit="deg"), 0.11 * u.deg)

    def call() -> Any:
        intervals = [Time(list(pair), scale="utc") for pair in flare_times()]
        runs = DataStore.from_dir(DATA / "hess-dl3-dr1").get_observations(FLARE_RUNS)
        energy = MapAxis.from_energy_bounds("0.4 TeV", "20 TeV", nbin=10)
        true = MapAxis.from_energy_bounds("0.1 TeV", "40 TeV", nbin=20, name="energy_true")
        geom = RegionGeom.create(region, axes=[energy])
        empty = SpectrumDataset.create(geom=geom, energy_axis_true=true)
        makers = (
            SpectrumDatasetMaker(containment_correction=True, selection=["counts", "exposure", "edisp"]),
            ReflectedRegionsBackgroundMaker(),
            SafeMaskMaker(methods=["aeff-max"], aeff_percent=10),
        )
        datasets = Datasets()
        for part in runs.select_time(intervals):
            dataset = makers[0].run(empty.copy(), part)
            for maker in makers[1:]:
                dataset = maker.run(dataset, part)
            datasets.append(dataset)
        datasets.models = [SkyModel(spectrum, name="pks")]
        estimator = LightCurveEstimator(
            energy_edges=FLARE_ENERGY * u.TeV,
            time_intervals=intervals,
            source="pks",
            selection_optional=["errn-errp", "ul"],
        )
        return estimator.run(datasets)

    def arrays(product: Any) -> Arrays:
        table = product.to_table(format="lightcurve", sed_type="likelihood")
        found = {name: np.asarray(table[name], dtype=float)[:, 0] for name in COLUMNS}
        return {
            **found,
            "counts": np.nansum(np.asarray(table["counts"]), axis=(1, 2)),
            "time_min": np.asarray(table["time_min"]),
            "ref_flux": table["ref_flux"].quantity[:, 0].to_value("cm-2 s-1"),
        }

    return call, arrays


def peer_ts(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Map of the test statistic."""
    import astropy.units as u
    from gammapy.estimators import TSMapEstimator
    from gammapy.modeling.models import PointSpatialModel, PowerLawSpectralModel, SkyModel

    (dataset,) = read_peer(made)
    dataset.models = []
    kernel = SkyModel(PowerLawSpectralModel(index=TS_INDEX), PointSpatialModel(), name="kernel")
    energy = dataset.counts.geom.axes["energy"].edges[[0, -1]]
    estimator = TSMapEstimator(kernel, kernel_width=TS_WIDTH * u.deg, energy_edges=energy)

    def arrays(product: Any) -> Arrays:
        return {name: getattr(product, name).data[0] for name in ("ts", "sqrt_ts", "norm", "norm_err")}

    return lambda: estimator.run(dataset), arrays


def peer_events(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Simulated events, from maps that are made before."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from gammapy.data import FixedPointingInfo, Observation, observatory_locations
    from gammapy.datasets import MapDataset, MapDatasetEventSampler
    from gammapy.irf import load_irf_dict_from_file
    from gammapy.makers import MapDatasetMaker
    from gammapy.maps import MapAxis, WcsGeom
    from gammapy.modeling.models import (
        FoVBackgroundModel,
        GaussianSpatialModel,
        PowerLawSpectralModel,
        SkyModel,
    )

    pointing = SkyCoord(*POINTING, unit="deg")
    observation = Observation.create(
        pointing=FixedPointingInfo(fixed_icrs=pointing),
        obs_id=1,
        livetime=1 * u.h,
        irfs=load_irf_dict_from_file(IRFS),
        location=observatory_locations["ctao_south"],
    )
    low, high = EVENTS["energy"]
    energy = MapAxis.from_energy_bounds(low * u.TeV, high * u.TeV, nbin=10, per_decade=True)
    low, high = EVENTS["true"]
    true = MapAxis.from_energy_bounds(low * u.TeV, high * u.TeV, nbin=10, per_decade=True, name="energy_true")
    migra = MapAxis.from_bounds(0.2, 5, nbin=150, node_type="edges", name="migra")
    geom = WcsGeom.create(skydir=pointing, width=(8, 8), binsz=0.02, frame="icrs", axes=[energy])
    empty = MapDataset.create(geom, energy_axis_true=true, migra_axis=migra, name="d")
    dataset = MapDatasetMaker(selection=["exposure", "background", "psf", "edisp"]).run(empty, observation)
    spectral = PowerLawSpectralModel(
        index=EVENTS["index"], amplitude=EVENTS["amplitude"] * u.Unit("cm-2 s-1 TeV-1")
    )
    spatial = GaussianSpatialModel(
        lon_0=EVENTS["lon"] * u.deg, lat_0=EVENTS["lat"] * u.deg, sigma=EVENTS["sigma"] * u.deg
    )
    dataset.models = [SkyModel(spectral, spatial, name="s"), FoVBackgroundModel(dataset_name="d")]
    sampler = MapDatasetEventSampler(random_state=1)

    def arrays(product: Any) -> Arrays:
        position = SkyCoord(EVENTS["lon"], EVENTS["lat"], unit="deg")
        return {
            "energy": product.energy.to_value("TeV"),
            "distance": product.radec.separation(position).deg,
            "time": np.asarray((product.time - observation.gti.time_start[0]).to_value("s")),
            "is_source": np.asarray(product.table["MC_ID"]) == 1,
        }

    return lambda: sampler.run(dataset, observation), arrays


PEER: dict[str, Side] = {
    "points-3d": peer_points,
    "points-joint": peer_points,
    "points-1d": peer_points,
    "light-curve": peer_curve,
    "ts-map": peer_ts,
    "ts-map-compiled": peer_ts,
    "events": peer_events,
    "excess-map": peer_excess,
}
