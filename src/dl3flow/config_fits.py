"""The section ``fits`` of an analysis: each fit checked and cut into its job, before any job starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import astropy.units as u
import numpy as np

from dl3flow.chain import Chain
from dl3flow.checks import as_choice, as_mapping, as_text, check_keys, find_entry
from dl3flow.errors import InputError, choices
from dl3flow.fit.binding import for_dataset, free_parameters
from dl3flow.fit.npred import icrs_positions
from dl3flow.fit.systematics import SCALES, response_model
from dl3flow.geometry import fov
from dl3flow.geometry.regions import parse_regions
from dl3flow.models.source import Models
from dl3flow.plan import External, Fit, Job, Reduction
from dl3flow.reduce.groupings import GROUPINGS, group_entries
from dl3flow.registry import convert
from dl3flow.sources import new_job, region_text

MODES = ("joint", "stacked", "grouped")
BACKGROUND_PARAMETERS = ("norm", "tilt")
KEYS = (
    "datasets",
    "mode",
    "background",
    "energy",
    "region",
    "systematics",
    "minos",
    "profiles",
    "contours",
    "precision",
    "stream",
)
PRECISIONS = ("float64", "float32")
PROFILE_KEYS = ("name", "values", "n", "n_sigma")
CONTOUR_KEYS = ("names", "n_sigma", "n_points")
# the probability of more is one in floating point, which no height of the statistic stands for
_MAX_N_SIGMA = 7
SYSTEMATICS_KEYS = (*SCALES, "per")
REFERENCE_KEYS = ("fit", "source", "label", "note", "parameters")
_PER = ("dataset", "observation")
_FIELD = 10.0  # deg


@dataclass(frozen=True, eq=False)
class FitSection:
    """What the fits of one analysis can be made from.

    Attributes
    ----------
    path : str
        Of the analysis file, for errors.
    reductions : mapping of (Reduction, Chain)
    inputs : mapping of External
    models_text : object
        The section ``models`` as plain values.
    models : Models or None
    """

    path: str
    reductions: Mapping[str, tuple[Reduction, Chain]]
    inputs: Mapping[str, External]
    models_text: Any
    models: Models | None

    def parse(self, name: str, entry: Any, plot: Job) -> Fit:
        """One fit.

        Raises
        ------
        InputError
        """
        where = f"{self.path}: fits.{name}"
        check_keys(entry, KEYS, where, required=("datasets", "mode"))
        datasets = self.datasets(entry["datasets"], f"{where}.datasets")
        reductions = [name for name in datasets if name in self.reductions]
        mode, grouping, grouped = _mode(entry["mode"], reductions, f"{where}.mode")
        # in the order that canonical JSON gives them: a step finds their files by it
        inputs = {name: self.inputs[name] for name in sorted(datasets) if name in self.inputs}
        if mode != "joint":
            self.check_stacked(grouped, f"{where}.mode")
        groups = {key: self.groups(key, grouping, f"{where}.mode") for key in grouped if grouping}
        names = {key: self.dataset_names(key, mode, groups.get(key)) for key in datasets}
        background = entry.get("background", {})
        check_keys(background, ("free",), f"{where}.background")
        free = convert(background.get("free", ["norm"]), list[str], f"{where}.background.free")
        for parameter in free:
            as_choice(parameter, BACKGROUND_PARAMETERS, f"{where}.background.free")
        systematics = self.systematics(entry.get("systematics"), names, f"{where}.systematics")
        data = {
            "energy": self.energies(entry.get("energy", {}), datasets, f"{where}.energy"),
            "region": self.regions(entry.get("region", {}), datasets, f"{where}.region"),
            "inputs": {key: given.counts for key, given in inputs.items()},
            "groups": groups,
        }
        self.check_model_datasets(names, where)
        self.check_positions(reductions, where)
        self.check_places(reductions, names, where)
        asked = _Asked(*self.free_names(names, free, systematics))
        options = {
            "models": self.models_text,
            "free": free,
            "systematics": systematics,
            "minos": asked.minos(entry.get("minos", []), f"{where}.minos"),
            "profiles": asked.profiles(entry.get("profiles", []), f"{where}.profiles"),
            "contours": asked.contours(entry.get("contours", []), f"{where}.contours"),
            "precision": as_choice(entry.get("precision", "float64"), PRECISIONS, f"{where}.precision"),
            **({"stream": True} if convert(entry.get("stream", False), bool, f"{where}.stream") else {}),
        }
        is_asked = any(options[key] for key in ("minos", "profiles", "contours"))
        further = [*grouping_code(groups), *(["dl3flow.fit.confidence"] if is_asked else [])]
        return Fit(
            name,
            mode,
            tuple(reductions),
            tuple(file for given in inputs.values() for file in given.files),
            data,
            new_job("fit_datasets", {**options, **data}, *further, where=where),
            plot,
            (*asked.own, *asked.backgrounds),
            tuple(datasets),
        )

    def references(self, entries: Any, fits: Mapping[str, Fit]) -> list[dict[str, Any]]:
        """Published values that the report sets beside those of a fit, as numbers in the parameters' units."""
        where = f"{self.path}: references"
        found = []
        for n, entry in enumerate(convert(entries, list[Any], where)):
            place = f"{where}[{n}]"
            check_keys(entry, REFERENCE_KEYS, place, required=("fit", "label", "parameters"))
            fit = find_entry(entry["fit"], fits, "fit", f"{place}.fit")
            prefix = f"{as_text(entry['source'], f'{place}.source')}." if "source" in entry else ""
            if not any(key.startswith(prefix) for key in fit.free):
                models = dict.fromkeys(key.rpartition(".")[0] for key in fit.free)
                find_entry(entry["source"], list(models), "model of that fit", f"{place}.source")
            values = {}
            for name, given in as_mapping(entry["parameters"], f"{place}.parameters").items():
                spot = f"{place}.parameters.{name}"
                known = [key.removeprefix(prefix) for key in fit.free if key.startswith(prefix)]
                find_entry(name, known, "free parameter of that fit", spot)
                check_keys(given, ("value", "error"), spot, required=("value",))
                full = f"{prefix}{name}"
                own = {} if self.models is None else self.models.parameters()
                unit = own[full].unit if full in own else u.dimensionless_unscaled
                values[full] = [
                    convert(given[key], Annotated[float, unit], f"{spot}.{key}") if key in given else None
                    for key in ("value", "error")
                ]
                error = values[full][1]
                if error is not None and error <= 0:
                    raise InputError(
                        f"{spot}.error: expected an error above 0, found {given['error']!r}: leave it out if there is none"
                    )
            texts = {
                key: as_text(entry[key], f"{place}.{key}") for key in ("fit", "label", "note") if key in entry
            }
            found.append({**texts, "parameters": values})
        return found

    def datasets(self, value: Any, where: str) -> list[str]:
        """Names of the reductions and inputs that are fitted."""
        found: list[str] = convert(value, list[str], where)
        known = [*self.reductions, *self.inputs]
        for dataset in found:
            find_entry(dataset, known, "reduction or input", where)
        if not found or len(set(found)) != len(found):
            raise InputError(f"{where}: name each reduction once, found {found!r} {choices('', known)}")
        return found

    def groups(self, reduction: str, grouping: Mapping[str, Any], where: str) -> dict[str, Any]:
        """How the observations of a reduction are grouped, and what a step needs to stack them."""
        found, chain = self.reductions[reduction]
        entries = [found.source.entries[obs_id] for obs_id in found.jobs]
        groups = group_entries(grouping, entries, f"{where}: '{reduction}'")
        telescopes = {entry.obs_id: entry.telescope for entry in entries}
        for label, ids in (groups or {}).items():
            if len({telescopes[obs_id] for obs_id in ids}) > 1:
                raise InputError(
                    f"{where}: the group '{label}' of '{reduction}' would stack runs of "
                    f"{' and '.join(sorted({telescopes[obs_id] for obs_id in ids}))}: give each telescope a reduction of its own, or "
                    "group by instrument"
                )
        return {"by": grouping, "runs": groups, "recipe": chain.section}

    def energies(self, value: Any, datasets: Sequence[str], where: str) -> Mapping[str, Any]:
        """Limits in energy by dataset."""
        energy = as_mapping(value, where)
        for dataset, limits in energy.items():
            find_entry(dataset, datasets, "dataset of this fit", where)
            self.check_energy(dataset, limits, f"{where}.{dataset}")
        return energy

    def regions(self, value: Any, datasets: Sequence[str], where: str) -> dict[str, str]:
        """Limits on the sky by dataset, as DS9 text."""
        regions = {}
        for dataset, text in as_mapping(value, where).items():
            find_entry(dataset, datasets, "dataset of this fit", where)
            place = f"{where}.{dataset}"
            regions[dataset] = region_text(as_text(text, place), place)
            parse_regions(regions[dataset], place)
            if dataset in self.reductions and self.reductions[dataset][1].makes_spectra:
                raise InputError(
                    f"{place}: '{dataset}' is a spectrum, which has one pixel: leave its region out"
                )
        return regions

    def systematics(self, entry: Any, names: Mapping[str, Sequence[str]], where: str) -> list[dict[str, Any]]:
        """Models of systematic errors: their names, the datasets that share each, and the widths of the priors."""
        if entry is None:
            return []
        check_keys(entry, SYSTEMATICS_KEYS, where)
        per = as_choice(entry.get("per", "dataset"), _PER, f"{where}.per")
        widths: dict[str, dict[str, float]] = {}
        for scale in SCALES:
            for key, value in as_mapping(entry.get(scale, {}), f"{where}.{scale}").items():
                find_entry(key, names, "dataset of this fit", f"{where}.{scale}")
                width = convert(value, float, f"{where}.{scale}.{key}")
                if not 0 < width < 1:
                    raise InputError(
                        f"{where}.{scale}.{key}: expected the width of the prior as a share, between 0 and 1, found {value!r}"
                    )
                if key in self.inputs and self.inputs[key].reader == "flux_points":
                    raise InputError(
                        f"{where}.{scale}.{key}: flux points have no responses left whose errors could be fitted: leave it out"
                    )
                widths.setdefault(key, {})[scale] = width
        if not widths:
            raise InputError(
                f"{where}: nothing varies: give the width of a prior such as `energy_scale: {{{next(iter(names))}: 0.15}}`"
            )
        return [
            {"name": f"{name}-response", "datasets": members, "widths": widths[key]}
            for key in names
            if key in widths
            for name, members in (
                [(key, list(names[key]))] if per == "dataset" else [(n, [n]) for n in names[key]]
            )
        ]

    def free_names(
        self,
        names: Mapping[str, Sequence[str]],
        free: Sequence[str],
        systematics: Sequence[Mapping[str, Any]],
    ) -> tuple[list[str], list[str]]:
        """Free parameters of the models and systematics, and those of the backgrounds that each dataset gets."""
        if self.models is None:
            return [], []
        added = tuple(response_model(s["name"], s["datasets"], s["widths"]) for s in systematics)
        models = replace(self.models, responses=(*self.models.responses, *added))
        with_background = [
            dataset
            for key, own in names.items()
            if self.may_be_expected(key)
            for dataset in own
            if not any(for_dataset(dataset, b.datasets) for b in self.models.backgrounds)
        ]
        return list(free_parameters(models)[0]), [f"{d}-bkg.{p}" for d in with_background for p in free]

    def may_be_expected(self, name: str) -> bool:
        """Whether a dataset's background can be an expectation; that of an input is not known before it is read."""
        if name in self.inputs:
            return self.inputs[name].reader == "dataset"
        return not self.reductions[name][1].measures_off

    def dataset_names(self, name: str, mode: str, groups: Mapping[str, Any] | None) -> list[str]:
        """Names of the datasets that a fit takes from a reduction or an input."""
        if name in self.inputs:
            n = len(self.inputs[name].main)
            return [name] if n == 1 else [f"{name}-{k}" for k in range(n)]
        if groups is not None:
            labels = groups["runs"] or [f"responses-{k}" for k in range(groups["by"]["n_groups"])]
            return [f"{name}-{label}" for label in labels]
        jobs = self.reductions[name][0].jobs
        return [name] if mode == "stacked" else [f"{name}-{obs_id}" for obs_id in jobs]

    def check_energy(self, dataset: str, limits: Any, where: str) -> None:
        """Raise unless the limits hold at least one whole bin of the reduction; the bins of an input are not known yet."""
        bounds = convert(limits, list[u.Quantity[u.TeV]], where)
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise InputError(f"{where}: expected `[low, high]` with low below high, found {limits!r}")
        if dataset in self.inputs:
            return
        axis = self.reductions[dataset][1].energy
        if not axis.contains_bin(*bounds).any():
            raise InputError(
                f"{where}: {limits!r} holds no whole energy bin of '{dataset}', which runs from {axis.edges[0]:.4g} to {axis.edges[-1]:.4g}"
            )

    def check_model_datasets(self, names: Mapping[str, Sequence[str]], where: str) -> None:
        """Raise if a model is restricted to datasets that this fit does not have."""
        known = [name for own in names.values() for name in own]
        for model in () if self.models is None else self.models.all:
            if model.datasets is not None and not set(model.datasets) & set(known):
                raise InputError(
                    f"{where}: the model '{model.name}' is for the datasets {', '.join(model.datasets)} only, of which this fit has none: "
                    f"{choices(model.datasets[0] if model.datasets else '', known)}"
                )

    def check_positions(self, reductions: Sequence[str], where: str) -> None:
        """Raise if a source is further from every pointing than any field of view reaches."""
        found = [self.reductions[key][0] for key in reductions]
        entries = [r.source.entries[obs_id] for r in found for obs_id in r.jobs]
        if not entries:
            return
        ra, dec = np.radians([e.ra for e in entries]), np.radians([e.dec for e in entries])
        places = {} if self.models is None else icrs_positions(self.models)
        for name, at in places.items():
            nearest = float(np.degrees(fov.separation(ra, dec, *np.radians(at))).min())
            if nearest > _FIELD:
                raise InputError(
                    f"{where}: the source '{name}' at ({at[0]:.4f}, {at[1]:.4f}) deg (icrs) is {nearest:.1f} deg from the "
                    "nearest pointing, outside every field of view: correct its `lon_0` and `lat_0`, or select other observations"
                )

    def check_stacked(self, reductions: Sequence[str], where: str) -> None:
        """Raise if the observations of one of the reductions cannot be stacked."""
        for name in reductions:
            if self.reductions[name][0].stack is None:
                raise InputError(
                    f"{where}: '{name}' is not stacked, since each of its maps has another centre: give its recipe a `center`, or "
                    "fit with `mode: joint`"
                )

    def check_places(self, reductions: Sequence[str], names: Mapping[str, Sequence[str]], where: str) -> None:
        """Raise if a map would be fitted with a source that has no place."""
        for source in () if self.models is None else self.models.sources:
            for name in reductions if source.spatial is None else ():
                seen = source.datasets is None or set(source.datasets) & set(names[name])
                if seen and not self.reductions[name][1].makes_spectra:
                    raise InputError(
                        f"{where}: the source '{source.name}' has no spatial model, which the map '{name}' needs: add one, or restrict "
                        "the source to spectra by `datasets_names`"
                    )


def grouping_code(groups: Mapping[str, Any]) -> list[str]:
    """Modules that a step needs to stack groups: no part of the digest of one that stacks none."""
    return [f"dl3flow.reduce.{name}" for name in ("groupings", "group", "cube", "spectrum")] if groups else []


def _mode(
    value: Any, reductions: Sequence[str], where: str
) -> tuple[str, dict[str, Any] | None, Sequence[str]]:
    """Name of the mode, of a grouped fit its grouping, and the reductions whose observations are stacked."""
    options: dict[str, Any] = {}
    if isinstance(value, Mapping):
        # both `{name: grouped, by: zenith}` and `{grouped: {by: zenith}}`
        is_nested = set(value) == {"grouped"}
        options = dict(as_mapping(value["grouped"], f"{where}.grouped")) if is_nested else dict(value)
        value = "grouped" if is_nested else options.pop("name", None)
    mode = as_choice(value, MODES, where)
    if mode != "grouped":
        check_keys(options, (), where)
        return mode, None, reductions
    if "by" not in options:
        raise InputError(
            f"{where}: a grouped fit needs `by`, such as `{{name: grouped, by: instrument}}` {choices('', GROUPINGS.names())}"
        )
    grouped: list[str] = convert(options.pop("datasets", list(reductions)), list[str], f"{where}.datasets")
    for name in grouped:
        find_entry(name, reductions, "reduction of this fit", f"{where}.datasets")
    if not grouped:
        raise InputError(
            f"{where}: there is no reduction whose observations could be grouped: fit with `mode: joint`"
        )
    grouping = {"name": options.pop("by"), **options}
    plugin, _ = GROUPINGS.bind(grouping, where)
    return mode, {**grouping, "name": plugin.name}, grouped


@dataclass(frozen=True)
class _Asked:
    """Checks of what is asked of the free parameters of one fit.

    Attributes
    ----------
    own : list of str
        Of models and systematics.
    backgrounds : list of str
        Of the backgrounds that each dataset gets.
    """

    own: list[str]
    backgrounds: list[str]

    def name(self, value: Any, where: str) -> str:
        """A free parameter."""
        if value not in self.own and value not in self.backgrounds:
            kinds = dict.fromkeys(f"DATASET-bkg.{name.rpartition('.')[2]}" for name in self.backgrounds)
            raise InputError(
                f"{where}: '{value}' is no free parameter of this fit: {choices(str(value), [*self.own, *kinds])}"
            )
        return str(value)

    def minos(self, value: Any, where: str) -> Any:
        if value == "all":
            if not self.own and not self.backgrounds:
                raise InputError(f"{where}: no parameter of this fit is free: leave it out")
            return "all"
        if not isinstance(value, list | tuple):
            raise InputError(f"{where}: expected `all` or a list such as `[crab.index]`, found {value!r}")
        return [self.name(name, f"{where}[{n}]") for n, name in enumerate(value)]

    def profiles(self, value: Any, where: str) -> list[dict[str, Any]]:
        found = []
        for n, each in enumerate(convert(value, list[Any], where)):
            place = f"{where}[{n}]"
            entry = each if isinstance(each, Mapping) else {"name": each}
            check_keys(entry, PROFILE_KEYS, place, required=("name",))
            told: dict[str, Any] = {"name": self.name(entry["name"], f"{place}.name")}
            if "values" in entry:
                if {"n", "n_sigma"} & set(entry):
                    raise InputError(f"{place}: give either `values`, or `n` and `n_sigma`")
                told["values"] = _increasing(entry["values"], f"{place}.values")
            elif {"n", "n_sigma"} & set(entry):
                told["n"] = _at_least(3, entry.get("n", 11), f"{place}.n")
                told["n_sigma"] = _positive(entry.get("n_sigma", 2), f"{place}.n_sigma")
            found.append(told)
        return _distinct(found, "name", where)

    def contours(self, value: Any, where: str) -> list[dict[str, Any]]:
        found = []
        for n, each in enumerate(convert(value, list[Any], where)):
            place = f"{where}[{n}]"
            entry = each if isinstance(each, Mapping) else {"names": each}
            check_keys(entry, CONTOUR_KEYS, place, required=("names",))
            names = entry["names"]
            if not isinstance(names, list | tuple) or len(names) != 2 or names[0] == names[1]:
                raise InputError(
                    f"{place}: expected two parameters such as `[crab.index, crab.amplitude]`, found {names!r}"
                )
            sigmas = entry.get("n_sigma", 1)
            sigmas = sigmas if isinstance(sigmas, list) else [sigmas]
            found.append(
                {
                    "names": [self.name(name, place) for name in names],
                    "n_sigma": [_contour_height(s, f"{place}.n_sigma") for s in sigmas],
                    "n_points": _at_least(8, entry.get("n_points", 40), f"{place}.n_points"),
                }
            )
        return _distinct(found, "names", where)


def _distinct(found: list[dict[str, Any]], key: str, where: str) -> list[dict[str, Any]]:
    for n, each in enumerate(found):
        if each[key] in [other[key] for other in found[:n]]:
            raise InputError(f"{where}: {each[key]} is asked for twice: name it once")
    return found


def _positive(value: Any, where: str) -> float:
    found: float = convert(value, float, where)
    if not 0 < found < np.inf:
        raise InputError(f"{where}: expected a number above 0, found {value!r}")
    return found


def _contour_height(value: Any, where: str) -> float:
    found = _positive(value, where)
    if found > _MAX_N_SIGMA:
        raise InputError(f"{where}: expected at most {_MAX_N_SIGMA}, found {value!r}")
    return found


def _at_least(least: int, value: Any, where: str) -> int:
    found: int = convert(value, int, where)
    if found < least:
        raise InputError(f"{where}: expected {least} or more, found {value!r}")
    return found


def _increasing(value: Any, where: str) -> list[float]:
    found: list[float] = convert(value, list[float], where)
    if len(found) < 2 or not all(np.diff(found) > 0):
        raise InputError(f"{where}: expected two or more increasing numbers, found {value!r}")
    return found
