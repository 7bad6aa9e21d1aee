"""Background method ``acceptance``: rates built from the user's own runs, at the observation's zenith."""

from dataclasses import replace

import astropy.units as u
import numpy as np

from dl3flow.background.build_acceptance import build_acceptance
from dl3flow.background.camera import control_field, restrict, zenith_angle
from dl3flow.background.registry import BACKGROUNDS, BackgroundInputs
from dl3flow.data.binning import bin_events, selected_events
from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis, PositiveAngle
from dl3flow.geometry.region import BINSZ, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.rad_max import cut_radius
from dl3flow.irf.table import IrfTable


@BACKGROUNDS.register(expected=True, build=build_acceptance)
def acceptance(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    *,
    normalise: bool = True,
    interpolate: bool = True,
    norm_radius: PositiveAngle = 2 * u.deg,
) -> Dataset:
    """Background rate built from other runs (`build_acceptance`), at the observation's zenith, in place of its own response.

    Between the zeniths of two tables the logarithm of the rate is linear in the cosine of the zenith; beyond the outermost
    the nearest table holds. With ``normalise`` the expectation is scaled to the counts outside the exclusion, as by the
    background `fov`; that of a spectrum in the field within ``norm_radius`` of the pointing, without exclusion and target.

    Parameters
    ----------
    observation : Observation
    dataset : Dataset
    inputs : BackgroundInputs
        ``models``: tables with ``zenith``, ``zenith_min`` and ``zenith_max`` (deg) in ``meta``.

    Returns
    -------
    dataset : Dataset
        With `ExpectedCounts`, and ``norm``, ``norm_err`` in ``meta["background"]``; bins without a rate are not safe.

    Raises
    ------
    InputError
        If there is no table, none has a rate in the dataset, or the counts outside the exclusion give no positive factor.
    """
    where = f"observation {observation.obs_id}: the background `acceptance`"
    if not inputs.models:
        raise InputError(f"{where} is given no background model: build one from your runs first")
    if any(table.meta.get("fov_alignment", "RADEC") == "ALTAZ" for table in inputs.models):
        raise InputError(
            f"{where} takes models aligned with the sky (FOVALIGN = RADEC), and is given one of the horizon"
        )
    if inputs.signal is not None and not normalise:
        raise InputError(
            f"{where} takes known sources off the counts that its norm is made from: set `normalise: true`, or leave `subtract` out"
        )
    chosen, warnings = _choose(observation, inputs.models, where, interpolate=interpolate)
    expected = _expected(observation, dataset, chosen)
    measured = np.ones(dataset.energy.n_bins, dtype=bool)
    for weight, table in chosen:
        if weight > 0:
            measured &= dataset.energy.contains_bin(table.meta.get("lo_thres"), table.meta.get("hi_thres"))
    known = restrict(
        dataset, (expected > 0) & measured[:, None, None], "no background model", is_replaced=True
    )
    if not known.mask_safe.any():
        raise InputError(
            f"{where} has no rate in any safe bin: its energies or offsets do not reach the dataset: build it on a wider axis"
        )
    norm, error = 1.0, 0.0
    if normalise:
        norm, error = _norm(observation, known, inputs, chosen, expected, norm_radius, where)
    facts = {
        "method": "acceptance",
        "norm": norm,
        "norm_err": error,
        "zeniths": [float(table.meta.get("zenith", 0.0)) for _, table in chosen],
        "weights": [weight for weight, _ in chosen],
    }
    meta = {**dataset.meta, "background": facts, "warnings": [*dataset.meta.get("warnings", []), *warnings]}
    return replace(known, background=ExpectedCounts(dataset.counts.with_data(norm * expected)), meta=meta)


_Chosen = list[tuple[float, IrfTable]]


def _choose(
    observation: Observation, models: tuple[IrfTable, ...], where: str, *, interpolate: bool
) -> tuple[_Chosen, list[str]]:
    """Tables with their weights, which sum to one, and what is assumed in choosing them."""
    if len(models) == 1:
        return [(1.0, models[0])], _beyond(observation, models)
    angle = zenith_angle(observation)
    if angle is None:
        raise InputError(
            f"{where} cannot choose among {len(models)} zenith bins: the zenith is unknown, as the events' header lacks GEOLON, "
            "GEOLAT or ALTITUDE"
        )
    tables = sorted(models, key=lambda table: float(table.meta["zenith"]))
    at = float(np.cos(angle.to_value(u.rad)))
    # falling with the zenith
    nodes = np.cos(np.radians([float(table.meta["zenith"]) for table in tables]))
    if not interpolate or at >= nodes[0] or at <= nodes[-1]:
        return [(1.0, tables[int(np.argmin(np.abs(nodes - at)))])], _beyond(observation, models)
    n = int(np.searchsorted(-nodes, -at)) - 1
    fraction = float((nodes[n] - at) / (nodes[n] - nodes[n + 1]))
    return [(1 - fraction, tables[n]), (fraction, tables[n + 1])], []


def _beyond(observation: Observation, models: tuple[IrfTable, ...]) -> list[str]:
    """A sentence where the observation's zenith lies outside all bins."""
    angle = zenith_angle(observation)
    if angle is None or not all({"zenith_min", "zenith_max"} <= set(table.meta) for table in models):
        return []
    zenith = float(angle.to_value(u.deg))
    low, high = (
        f(float(t.meta[key]) for t in models) for f, key in ((min, "zenith_min"), (max, "zenith_max"))
    )
    if low <= zenith <= high:
        return []
    return [
        f"the zenith, {zenith:.1f} deg, lies outside the background models' {low:g} to {high:g} deg: the nearest is taken"
    ]


def _rates(chosen: _Chosen, energy: Axis, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Rate in bins of energy, s-1 sr-1, (n_energy, n); zero where one of two tables has none."""
    log_rate = np.zeros((energy.n_bins, len(lon)))
    with np.errstate(divide="ignore"):
        for weight, table in chosen:
            if weight > 0:
                log_rate += weight * np.log(background_rate(table, energy, lon, lat).to_value("s-1 sr-1"))
    return np.exp(log_rate)


def _on_pixels(observation: Observation, geom: SkyGeometry, energy: Axis, chosen: _Chosen) -> np.ndarray:
    """Expected counts of each pixel, (n_energy, n_lat, n_lon)."""
    lon, lat = geom.fov_lonlat(observation.pointing)
    rate = _rates(chosen, energy, lon.ravel(), lat.ravel()).reshape(energy.n_bins, *geom.shape)
    return np.asarray(
        np.nan_to_num(rate) * geom.solid_angle.to_value(u.sr) * observation.kept_ontime.to_value(u.s)
    )


def _expected(observation: Observation, dataset: Dataset, chosen: _Chosen) -> np.ndarray:
    """Expected counts in the dataset's bins."""
    geom, energy = dataset.geom, dataset.energy
    if not isinstance(geom, RegionGeometry):
        return _on_pixels(observation, geom, energy, chosen)
    if not geom.is_point:
        pixels = _on_pixels(observation, geom.grid, energy, chosen) * geom.cover
        return np.asarray(pixels.sum(axis=(1, 2), keepdims=True))
    if observation.rad_max is None:
        raise InputError(
            f"observation {observation.obs_id}: the region '{geom.text}' is a point, which takes events within RAD_MAX, and the "
            "observation has none: write a circle"
        )
    offset = geom.separation(observation.pointing)[0, 0] * u.rad
    radius = cut_radius(observation.rad_max, energy.centers, offset).to_value(u.rad)
    grid = SkyGeometry.create(geom.center, 2 * radius.max() * u.rad + 4 * BINSZ, BINSZ, "TAN")
    inside = grid.separation(geom.center) <= radius[:, None, None]
    return np.asarray(
        (_on_pixels(observation, grid, energy, chosen) * inside).sum(axis=(1, 2), keepdims=True)
    )


def _norm(
    observation: Observation,
    dataset: Dataset,
    inputs: BackgroundInputs,
    chosen: _Chosen,
    expected: np.ndarray,
    radius: u.Quantity,
    where: str,
) -> tuple[float, float]:
    """Counts, less those of known sources, over expectation outside the exclusion, and its error."""
    known = 0.0
    if isinstance(dataset.geom, RegionGeometry):
        geom, usable = control_field(observation, dataset, inputs, radius)
        expected = _on_pixels(observation, geom, dataset.energy, chosen)
        mask = dataset.mask & usable & (expected > 0)
        found = bin_events(observation.events, selected_events(observation, geom), geom, dataset.energy)
        counts = float(found.data[mask].sum())
    else:
        mask = dataset.mask & inputs.usable(dataset.geom)
        counts = float(dataset.counts.data[mask].sum())
        known = 0.0 if inputs.signal is None else float(inputs.signal[mask].sum())
    total = float(expected[mask].sum())
    if total <= 0 or counts - known <= 0:
        raise InputError(
            f"{where} finds {counts:.0f} counts outside the exclusion, {known:.1f} of them of subtracted sources, and expects "
            f"{total:.1f}: no positive norm; make the exclusion smaller or the safe mask wider"
        )
    return (counts - known) / total, float(np.sqrt(counts - known)) / total
