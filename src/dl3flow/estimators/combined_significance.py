"""Estimator ``combined_significance``: the significance around each pixel in all datasets and energy bands together."""

from collections.abc import Sequence

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult, SkyMap
from dl3flow.estimators.images import (
    Circle,
    common_geometry,
    excess_meta,
    lost_bins,
    map_meta,
    significance_maps,
)
from dl3flow.estimators.pixels import chosen_edges, doubts_of, known_models, maps_only, pixel_bins
from dl3flow.estimators.registry import MAPS
from dl3flow.geometry.axis import EnergyAxis, PositiveAngle
from dl3flow.geometry.region import Region
from dl3flow.kernels.significance import chi2_sigma

_WHERE = "estimator combined_significance"


@MAPS.register()
def combined_significance(
    datasets: Sequence[Dataset],
    result: FitResult | None,
    *,
    correlation_radius: PositiveAngle = 0.1 * u.deg,
    correlate_off: bool = False,
    exclusion: Region | None = None,
    energy: EnergyAxis | None = None,
    subtract: list[str] | None = None,
) -> SkyMap:
    """Significance of an excess of any size in each dataset and band: their test statistics add up.

    The sum is chi2 of as many degrees of freedom as datasets and bands say something of the pixel (Lancaster 1961), which
    holds whatever the spectrum, and for known and measured backgrounds together. Where one spectrum is expected in all,
    `excess_map` of them all is more sensitive.

    Parameters
    ----------
    datasets : sequence of Dataset
    result : FitResult or None
    correlation_radius, correlate_off, exclusion, subtract
        As in `excess_map`.
    energy : Axis or None
        Bands, moved to the nearest edges of the data; by default each dataset is one.

    Returns
    -------
    sky : SkyMap
        counts, background, excess (sums), ts (sum), n_dof, and sqrt_ts: deviations of a Gaussian variable, to two sides, that
        are as rare, with the sign of the sum of the signed test statistics.

    Raises
    ------
    InputError
        If a source is not in the fit, or the bands do not overlap the data.
    """
    maps = maps_only(datasets, _WHERE)
    models = known_models(result, subtract or [], f"{_WHERE}: subtract")
    asked = Circle(correlation_radius, correlate_off)
    edges = chosen_edges(maps, energy)
    bins = [pixel_bins(d, models, None) for d in maps]
    geom = common_geometry([own.geom for own in bins])
    sums = {key: np.zeros(geom.shape) for key in ("counts", "background", "excess", "ts", "n_dof")}
    signed, covered = np.zeros(geom.shape), np.zeros(geom.shape, dtype=bool)
    for own in bins:
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            part = own.within(low, high)
            if not part.mask.any():
                continue
            found = significance_maps([part], asked, "background")
            here, there = geom.overlap(part.geom)
            sqrt_ts = found["sqrt_ts"].data[there]
            known = np.isfinite(sqrt_ts)
            ts = np.where(known, sqrt_ts, 0.0) ** 2
            covered[here] |= known
            for key in ("counts", "background", "excess"):
                sums[key][here] += np.where(known, found[key].data[there], 0.0)
            sums["ts"][here] += ts
            # without counts and background there is nothing to vary
            sums["n_dof"][here] += ts > 0
            signed[here] += np.where(known, np.sign(sqrt_ts), 0.0) * ts
    sums["sqrt_ts"] = np.sign(signed) * chi2_sigma(sums["ts"], sums["n_dof"])
    sky = {key: Map(geom, (), np.where(covered, values, np.nan)) for key, values in sums.items()}
    meta = map_meta("combined_significance", result, correlation_radius, sky["sqrt_ts"], exclusion)
    meta |= {
        **excess_meta(asked, edges, None),
        "subtracted": subtract or [],
        "warnings": [*doubts_of(maps), *lost_bins(bins, edges)],
    }
    return SkyMap(sky, meta)
