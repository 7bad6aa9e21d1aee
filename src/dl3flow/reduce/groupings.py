"""What makes observations alike: each way finds the name of a group, in which a fit stacks them.

A plug-in takes one row of an observation index and its options, and returns the group's name; it raises ValueError, with the
reason as part of a sentence, for an observation that belongs to none. One with the companion ``of_datasets`` takes all reduced
observations of a reduction instead, and returns the numbers of the observations with their names.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import astropy.units as u
import numpy as np

from dl3flow.data.dataset import Dataset
from dl3flow.data.index import ObservationEntry, parse_utc
from dl3flow.errors import InputError, choices
from dl3flow.reduce.time_bins import night_date, span_of
from dl3flow.registry import Registry, convert

GROUPINGS = Registry("grouping")

_DAY = 86400.0
_CONTAINED = 0.68


def _increasing(values: list[float], given: Any) -> tuple[float, ...]:
    if len(values) < 2 or any(low >= high for low, high in zip(values, values[1:], strict=False)):
        raise ValueError(f"expected two or more increasing edges, found {given!r}")
    return tuple(values)


def _angle_edges(value: Any) -> tuple[float, ...]:
    return _increasing(convert(value, list[Annotated[float, u.deg]], "edges"), value)


def _number_edges(value: Any) -> tuple[float, ...]:
    return _increasing(convert(value, list[float], "edges"), value)


def _date_edges(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of dates, found {value!r}")
    return _increasing([float(parse_utc(each, "edges").tt.mjd) for each in value], value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a whole number above 0, found {value!r}")
    return value


def _bin(value: float, edges: Sequence[float], name: str, what: str) -> str:
    """Name of the bin that holds a value; the last one holds its upper edge too."""
    n = min(int(np.searchsorted(edges, value, side="right")), len(edges) - 1) if value <= edges[-1] else 0
    if n == 0:
        raise ValueError(
            f"{what} {value:.6g} lies outside the edges, which run from {edges[0]:.6g} to {edges[-1]:.6g}"
        )
    return f"{name}-{edges[n - 1]:.8g}-{edges[n]:.8g}"


@GROUPINGS.register()
def zenith(entry: ObservationEntry, *, edges: Annotated[tuple[float, ...], _angle_edges]) -> str:
    """Bins of the zenith distance (deg) that the index states."""
    if entry.zenith is None:
        raise ValueError("the index states no zenith distance")
    return _bin(entry.zenith, edges, "zenith", "the zenith distance")


@GROUPINGS.register()
def epoch(entry: ObservationEntry, *, edges: Annotated[tuple[float, ...], _date_edges]) -> str:
    """Bins of the middle of the run, MJD (TT)."""
    if entry.reference is None:
        raise ValueError("the index states no reference time")
    from astropy.time import Time  # slow to import: only where times are asked for

    middle = 0.5 * (entry.tstart + entry.tstop) / _DAY
    mjd = float(Time(entry.reference, middle, format="mjd", scale=entry.timesys).tt.mjd)
    return _bin(mjd, edges, "epoch", "MJD")


@GROUPINGS.register()
def night(entry: ObservationEntry) -> str:
    """The night, from noon to noon of the mean sun at the observatory, or of UTC where the index does not tell its place."""
    low, _ = span_of(entry)
    longitude = 0.0 if entry.location is None else entry.location[0]
    return f"night-{night_date(low, longitude)}"


@GROUPINGS.register()
def instrument(entry: ObservationEntry) -> str:
    """The telescope that the index names."""
    if not entry.telescope:
        raise ValueError("the index names no telescope")
    return "".join(c if c.isalnum() else "_" for c in entry.telescope)


@GROUPINGS.register()
def column(
    entry: ObservationEntry,
    *,
    column: str,
    edges: Annotated[tuple[float, ...], _number_edges] | None = None,
) -> str:
    """Bins of any column of numbers of the observation index; without edges one group for each value."""
    if column not in entry.columns:
        raise ValueError(f"the index has no column '{column}': {choices(column, entry.columns)}")
    value = entry.columns[column]
    if edges is None:
        return f"{column}-" + "".join(c if c.isalnum() or c in ".+-" else "_" for c in str(value))
    if isinstance(value, str) or not np.isfinite(value):
        raise ValueError(f"its {column} is {value!r}, no number")
    return _bin(value, edges, column, column)


@GROUPINGS.register(of_datasets=True)
def responses(
    datasets: Iterable[Dataset],
    *,
    n_groups: Annotated[int, _count],
    energy_true: u.Quantity[u.TeV] = 1 * u.TeV,  # type: ignore[type-arg]
) -> list[tuple[int, str]]:
    """At most so many groups of runs whose effective area, dispersion and point spread at one energy are most alike."""
    from dl3flow.reduce.group import group_observations  # slow to import: only where runs are compared

    found = {d.meta["obs_ids"][0]: dataset_features(d, energy_true) for d in datasets}
    groups = group_observations(list(found.values()), n_groups)
    return [(obs_id, f"responses-{n}") for obs_id, n in zip(found, groups, strict=True)]


def dataset_features(dataset: Dataset, energy_true: u.Quantity) -> dict[str, float]:
    """Numbers by which reduced observations resemble one another, at one true energy and where their exposure is largest.

    Returns
    -------
    features : dict of float
        ``log_area`` (log10 of the effective area, m2), and where the responses are there ``bias`` and ``resolution`` (mean
        and standard deviation of energy / energy_true - 1) and ``psf_radius`` (deg, of 68 % containment).

    Raises
    ------
    InputError
        If the energy is not one of the dataset's, or a response is zero there.
    """
    n = int(dataset.energy_true.index(u.Quantity([energy_true]))[0])
    if not 0 <= n < dataset.energy_true.n_bins:
        raise InputError(
            f"dataset '{dataset.name}': {energy_true:g} is no true energy of it: choose another `energy_true`"
        )
    area = float(dataset.exposure.quantity[n].to_value("m2 s").max()) / dataset.meta["livetime"]
    found = {"log_area": area}
    if dataset.edisp is not None:
        axis = dataset.edisp.edisp.axes[1]
        j, i = _best(dataset.edisp.exposure.data[n])
        kernel = dataset.edisp.edisp.data[n, :, j, i]
        weight = kernel if dataset.edisp.is_kernel else kernel * axis.widths.value
        ratio = (
            axis.centers / dataset.energy_true.centers[n] if dataset.edisp.is_kernel else axis.centers
        ).to_value("")
        total = float(weight.sum())
        mean = float(weight @ ratio) / total if total > 0 else np.nan
        spread = float(weight @ (ratio - mean) ** 2) / total if total > 0 else np.nan
        found |= {"bias": mean - 1, "resolution": float(np.sqrt(spread))}
    if dataset.psf is not None:
        j, i = _best(dataset.psf.exposure.data[n])
        rad = dataset.psf.psf.axis("rad")
        edges = rad.edges.to_value(u.deg)
        share = np.cumsum(dataset.psf.psf.data[n, :, j, i] * np.diff(edges**2))
        found["psf_radius"] = (
            float(np.interp(_CONTAINED * share[-1], [0, *share], edges)) if share[-1] > 0 else np.nan
        )
    if area <= 0 or not all(np.isfinite(list(found.values()))):
        raise InputError(
            f"dataset '{dataset.name}': at {energy_true:g} a response is zero: choose another `energy_true`"
        )
    return {**found, "log_area": float(np.log10(area))}


def _best(exposure: np.ndarray) -> tuple[int, int]:
    j, i = np.unravel_index(int(np.argmax(exposure)), exposure.shape)
    return int(j), int(i)


def group_entries(
    grouping: Mapping[str, Any], entries: Sequence[ObservationEntry], where: str
) -> dict[str, list[int]] | None:
    """Observations of each group, by an index; None where the groups are those of reduced observations.

    Parameters
    ----------
    grouping : mapping
        ``name`` in `GROUPINGS`, and its options.
    entries : sequence of ObservationEntry
    where : str

    Returns
    -------
    groups : mapping of list of int
        In the order of their first observation.

    Raises
    ------
    InputError
        For a wrong option, or an observation that belongs to no group.
    """
    plugin, options = GROUPINGS.bind(grouping, where)
    if plugin.companions.get("of_datasets"):
        return None
    groups: dict[str, list[int]] = {}
    reasons: dict[str, list[int]] = {}
    for entry in entries:
        try:
            groups.setdefault(plugin(entry, **options), []).append(entry.obs_id)
        except ValueError as error:
            reasons.setdefault(str(error), []).append(entry.obs_id)
    if reasons:
        told = "; ".join(f"{', '.join(map(str, ids))}: {why}" for why, ids in reasons.items())
        raise InputError(
            f"{where}: observations belong to no group ({told}): leave them out in `select`, change the edges, or group by something "
            "else"
        )
    return groups


def group_datasets(grouping: Mapping[str, Any], datasets: Iterable[Dataset]) -> dict[str, list[int]]:
    """Observations of each group, by the reduced observations themselves; one is held at a time.

    Parameters
    ----------
    grouping : mapping
        Of which `group_entries` gives None.
    datasets : iterable of Dataset
        Those of one reduction.

    Raises
    ------
    InputError
        If a response is zero where they are compared.
    """
    plugin, options = GROUPINGS.bind(grouping, "mode")
    groups: dict[str, list[int]] = {}
    for obs_id, label in plugin(datasets, **options):
        groups.setdefault(label, []).append(obs_id)
    return groups
