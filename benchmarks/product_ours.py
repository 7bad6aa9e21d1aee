"""Our side of `products.py`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from product_cases import (
    COLUMNS,
    DATA,
    EVENTS,
    FLARE,
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


def read_ours(made: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """Datasets and fit."""
    from dl3flow.io.fits_datasets import read_fits_dataset
    from dl3flow.io.products import read_fit

    folder = Path(made["folder"])
    datasets = [read_fits_dataset(folder / f"{name}.fits", name) for name in made["names"]]
    return datasets, read_fit(folder / "fit.json")


def our_points(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Flux points."""
    from dl3flow.estimators import TABLES

    datasets, result = read_ours(made)
    energy = {"edges": [f"{edge!r} TeV" for edge in POINT_EDGES.tolist()]}
    entry = {"name": "flux_points", "source": "crab", "energy": energy}
    estimate, options = TABLES.bind(entry, "benchmark")

    def arrays(product: Any) -> Arrays:
        table = product.table
        assert np.allclose(np.asarray(table["e_min"]), POINT_EDGES[:-1])
        found = {name: np.asarray(table[name], dtype=float) for name in COLUMNS}
        return {**found, "counts": np.asarray(table["counts"])}

    return lambda: estimate(datasets, result, **options), arrays


def our_excess(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Excess map."""
    from dl3flow.estimators import MAPS

    datasets, _ = read_ours(made)
    entry = {"name": "excess_map", "correlation_radius": f"{RADIUS} deg"}
    estimate, options = MAPS.bind(entry, "benchmark")

    def arrays(product: Any) -> Arrays:
        return {name: product.maps[name].data for name in ("counts", "excess", "sqrt_ts")}

    return lambda: estimate(datasets, None, **options), arrays


def our_curve(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Light curve."""
    from dl3flow.chain import parse_chain, reduce_observation
    from dl3flow.estimators import TABLES
    from dl3flow.estimators.slices import measure_slice
    from dl3flow.io.gadf import read_observation
    from dl3flow.io.gadf_index import read_index
    from dl3flow.io.models_yaml import parse_models
    from dl3flow.reduce.filter import parse_times, split_observation

    root, chain, times = DATA / "hess-dl3-dr1", parse_chain(FLARE, "benchmark"), flare_times()
    spectrum = {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "index", "value": FLARE_INDEX, "frozen": True},
            {"name": "amplitude", "value": FLARE_AMPLITUDE, "unit": "cm-2 s-1 TeV-1", "frozen": True},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
        ],
    }
    models = parse_models({"components": [{"name": "pks", "type": "SkyModel", "spectral": spectrum}]}, "")
    energy = {"min": f"{FLARE_ENERGY[0]} TeV", "max": f"{FLARE_ENERGY[1]} TeV"}
    entry = {
        "name": "light_curve",
        "source": "pks",
        "energy": energy,
        "time": {"intervals": [list(pair) for pair in times]},
    }
    plugin, options = TABLES.bind(entry, "benchmark")

    def call() -> Any:
        """As the workflow: parts of runs, the bin that each lies in, the table of all bins."""
        intervals = parse_times([list(pair) for pair in times])
        bins: dict[str, list[Any]] = {}
        for found in read_index(root):
            if found.obs_id in FLARE_RUNS:
                for part in split_observation(read_observation(found, root), intervals):
                    start = float(part.meta["tstart"])
                    dataset = reduce_observation(part, f"{found.obs_id}-{start:.0f}", chain)
                    middle = (
                        part.gti.reference + part.gti.start[0] + 0.5 * (part.gti.stop[-1] - part.gti.start[0])
                    )
                    k = int(np.searchsorted(intervals.start.tt.mjd, middle.tt.mjd)) - 1
                    bins.setdefault(times[k][0], []).append(dataset)
        ends = dict(zip((low for low, _ in times), intervals, strict=True))
        slices = [
            measure_slice(
                low, own, models, "pks", options["energy"], tuple(float(t.tt.mjd) for t in ends[low])
            )
            for low, own in bins.items()
        ]
        return plugin.companions["join"](slices, models, **options)

    def arrays(product: Any) -> Arrays:
        table = product.table
        found = {name: np.asarray(table[name], dtype=float) for name in COLUMNS}
        return {
            **found,
            "counts": np.asarray(table["counts"]),
            "time_min": np.asarray(table["time_min"]),
            "ref_flux": table["ref_flux"].to_value("cm-2 s-1"),
        }

    return call, arrays


def our_ts(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Map of the test statistic."""
    from dl3flow.estimators import MAPS

    datasets, _ = read_ours(made)
    entry = {
        "name": "ts_map",
        "spectral": {"type": "power_law", "index": TS_INDEX},
        "kernel_width": f"{TS_WIDTH} deg",
        "energies": "summed",
        "kernel_mean": "plain",
        "engine": "numba" if made["case"].endswith("compiled") else "numpy",
    }
    estimate, options = MAPS.bind(entry, "benchmark")

    def arrays(product: Any) -> Arrays:
        return {name: product.maps[name].data for name in ("ts", "sqrt_ts", "norm", "norm_err")}

    return lambda: estimate(datasets, None, **options), arrays


def our_events(made: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Arrays]]:
    """Simulated events."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from astropy.time import Time

    from dl3flow.data.events import Gti
    from dl3flow.io.gadf_irf import read_irfs
    from dl3flow.io.models_yaml import parse_models
    from dl3flow.simulate.events import observe

    irfs = read_irfs(IRFS)
    spectral = {
        "type": "PowerLawSpectralModel",
        "parameters": [
            {"name": "index", "value": EVENTS["index"]},
            {"name": "amplitude", "value": EVENTS["amplitude"], "unit": "cm-2 s-1 TeV-1"},
            {"name": "reference", "value": 1.0, "unit": "TeV", "frozen": True},
        ],
    }
    spatial = {
        "type": "GaussianSpatialModel",
        "frame": "icrs",
        "parameters": [
            {"name": "lon_0", "value": EVENTS["lon"], "unit": "deg"},
            {"name": "lat_0", "value": EVENTS["lat"], "unit": "deg"},
            {"name": "sigma", "value": EVENTS["sigma"], "unit": "deg"},
        ],
    }
    source = {"name": "s", "type": "SkyModel", "spectral": spectral, "spatial": spatial}
    models = parse_models({"components": [source]}, "benchmark")
    gti = Gti([0.0] * u.s, [3600.0] * u.s, Time(60000, format="mjd", scale="tt"))
    pointing = SkyCoord(*POINTING, unit="deg")

    def arrays(product: Any) -> Arrays:
        events = product.events
        position = SkyCoord(EVENTS["lon"], EVENTS["lat"], unit="deg")
        return {
            "energy": events.energy.to_value("TeV"),
            "distance": events.radec.separation(position).deg,
            "time": events.time.to_value("s"),
            "is_source": np.asarray(events.mc_id == 1),
        }

    return lambda: observe(1, models, irfs, pointing, gti, seed=1, energy=EVENTS["true"] * u.TeV), arrays


OURS: dict[str, Side] = {
    "points-3d": our_points,
    "points-joint": our_points,
    "points-1d": our_points,
    "light-curve": our_curve,
    "ts-map": our_ts,
    "ts-map-compiled": our_ts,
    "events": our_events,
    "excess-map": our_excess,
}
