"""The configuration: read, checked and cut into the slice that each job reads, before any job starts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.background.match import match_off_runs
from dl3flow.background.section import SHARED, parse_background
from dl3flow.chain import FILTER, Chain, parse_chain
from dl3flow.checks import as_choice, as_mapping, as_text, check_keys, check_name, find_entry
from dl3flow.config_estimators import EstimatorSection
from dl3flow.config_fits import FitSection
from dl3flow.digest import digest, registered
from dl3flow.errors import InputError, choices
from dl3flow.fit.npred import frame_of
from dl3flow.geometry import fov
from dl3flow.geometry.axis import NAME_PATTERN
from dl3flow.geometry.region import Geometry
from dl3flow.io.datasets import READERS, input_files
from dl3flow.io.yaml import read_yaml
from dl3flow.models.source import Component, Models
from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.plan import Analysis, External, Further, Job, Plan, Reduction
from dl3flow.plugins import load_plugins, plugin_files
from dl3flow.reduce.select import select_observations
from dl3flow.registry import Plugin, convert
from dl3flow.sources import (
    Group,
    Sources,
    canonical,
    existing_file,
    existing_path,
    index_row,
    missing_files,
    named_models,
    new_job,
    read_style,
    region_text,
)

SECTIONS = (
    "name",
    "observations",
    "reductions",
    "inputs",
    "models",
    "fits",
    "estimators",
    "references",
    "plugins",
    "style",
    "on_error",
)
ON_ERROR = ("stop", "skip")
_RESERVED = ("dl3", "logs", "benchmarks", "peeks")
_MOST_BYTES = 8 * 2**30
_FIELD = 10.0  # deg
_MASK_SUFFIXES = (".fits", ".fits.gz", ".fit")


def load_config(config: Mapping[str, Any], where: str = "configuration") -> Plan:
    """Check a whole configuration, with the analyses that it names.

    Parameters
    ----------
    config : mapping
        ``analyses``, ``results``, ``data``.
    where : str
        What an error calls it.

    Raises
    ------
    InputError
        One sentence that names the file and the key, with the choices.
    """
    check_keys(config, ("analyses", "results", "data"), where, required=("analyses",))
    results = as_text(config.get("results", "results"), f"{where}: results").rstrip("/")
    if not results:
        raise InputError(
            f"{where}: results: expected the name of a folder such as `results`, found {config['results']!r}"
        )
    paths = convert(config["analyses"], list[str], f"{where}: analyses")
    if not paths:
        raise InputError(f"{where}: analyses: the list is empty: name at least one analysis file")
    sources = Sources(config.get("data", {}), results, f"{where}: data")
    analyses: dict[str, Analysis] = {}
    for path in paths:
        analysis = load_analysis(Path(path), sources)
        if analysis.name in analyses:
            raise InputError(
                f"{path}: name: there are two analyses called '{analysis.name}': give one another `name`"
            )
        analyses[analysis.name] = analysis
    return Plan(results, sources.loaded, analyses)


def load_analysis(path: Path, sources: "Sources") -> Analysis:
    """Check one analysis file and cut it into jobs.

    Raises
    ------
    InputError
    """
    content = as_mapping(read_yaml(path), str(path))
    check_keys(
        content, SECTIONS, str(path), required=() if content.get("inputs") else ("observations", "reductions")
    )
    name = as_text(content.get("name", path.stem), f"{path}: name")
    if not NAME_PATTERN.fullmatch(name) or name in _RESERVED:
        raise InputError(
            f"{path}: name: '{name}' is not possible: use letters, digits and . _ + -, and none of {', '.join(_RESERVED)}"
        )
    on_error = as_choice(content.get("on_error", "stop"), ON_ERROR, f"{path}: on_error")
    plugins = plugin_files(content.get("plugins", []), f"{path}: plugins")
    load_plugins(plugins)
    reader = _Reader(name, str(path), content, sources, on_error, plugins)
    section = EstimatorSection(
        str(path),
        reader.groups,
        reader.reductions,
        reader.fits,
        reader.fit_section,
        reader.models,
        reader.plot,
        reader.models_text,
    )
    estimators = {key: section.parse(key, entry) for key, entry in reader.section("estimators")}
    told = {
        "analysis": reader.told(),
        "truth": reader.truth(),
        "references": reader.fit_section.references(content.get("references", []), reader.fits),
    }
    return Analysis(
        name,
        on_error,
        new_job("select_observations", {"groups": reader.group_options()}),
        new_job("summarise", told, where=str(path)),
        reader.inputs,
        {key: reduction for key, (reduction, _) in reader.reductions.items()},
        reader.fits,
        estimators,
        reader.model_inputs,
    )


class _Reader:
    """One analysis file while it is being checked."""

    def __init__(
        self,
        name: str,
        path: str,
        content: Mapping[str, Any],
        sources: Sources,
        on_error: str,
        plugins: Sequence[Path],
    ) -> None:
        self.name, self.path, self.content, self.sources, self.on_error = (
            name,
            path,
            content,
            sources,
            on_error,
        )
        self.plugins = plugins
        self.plots = registered("dl3flow.plots", "PLOTS")
        self.style = read_style(content["style"], f"{path}: style") if "style" in content else {}
        self._check_names()
        is_whole = not content.get("inputs")
        self.groups = {
            name: self.group(name, entry) for name, entry in self.section("observations", required=is_whole)
        }
        self.reductions = {
            name: self.reduction(name, entry) for name, entry in self.section("reductions", required=is_whole)
        }
        self.inputs = {name: self.input(name, entry) for name, entry in self.section("inputs")}
        self.models_text, self.models, self.model_inputs = self.read_models()
        self.fit_section = FitSection(path, self.reductions, self.inputs, self.models_text, self.models)
        self.fits = {
            name: self.fit_section.parse(name, entry, self.plot("fit", f"{path}: fits.{name}"))
            for name, entry in self.section("fits")
        }

    def section(self, key: str, *, required: bool = False) -> Iterable[tuple[str, Any]]:
        """Named entries of a section."""
        where = f"{self.path}: {key}"
        entries = as_mapping(self.content.get(key, {}), where)
        if required and not entries:
            raise InputError(f"{where}: the section is empty: name at least one")
        for name in entries:
            check_name(name, where)
        return entries.items()

    def _check_names(self) -> None:
        seen: dict[str, str] = {}
        for section in ("reductions", "inputs", "fits", "estimators"):
            for name, _ in self.section(section):
                if name in seen:
                    raise InputError(
                        f"{self.path}: {section}.{name}: `{seen[name]}` has a product of that name too: give one of them another name"
                    )
                seen[name] = section

    def group(self, name: str, entry: Any) -> Group:
        where = f"{self.path}: observations.{name}"
        check_keys(entry, ("data", "select", "events"), where, required=("data",))
        source = self.sources.find(entry["data"], f"{where}.data")
        select = as_mapping(entry.get("select", {}), f"{where}.select")
        found = select_observations(list(source.entries.values()), select, f"{where}.select")
        chosen = [selection.entry for selection in found if selection.reason is None]
        left_out = {
            selection.entry.obs_id: selection.reason for selection in found if selection.reason is not None
        }
        problems = (
            {} if source.simulations else {e.obs_id: why for e in chosen if (why := missing_files(source, e))}
        )
        if problems and self.on_error == "stop":
            raise InputError(
                f"{where}: {len(problems)} of {len(chosen)} selected observations cannot be read: "
                + "; ".join(f"{obs_id}: {why}" for obs_id, why in problems.items())
                + ": restore the files, leave the observations out in `select`, or set `on_error: skip`"
            )
        events = dict(as_mapping(entry.get("events", {}), f"{where}.events"))
        FILTER.bind(events, f"{where}.events")
        reasons = {obs_id: str(why) for obs_id, why in {**left_out, **problems}.items()}
        selected = tuple(sorted(e.obs_id for e in chosen if e.obs_id not in problems))
        if not selected:
            first = next(iter({**problems, **reasons}.items()), None)
            why = f" (such as {first[0]}: {first[1]})" if first else ""
            raise InputError(
                f"{where}: no observation of '{source.name}' is left of {len(source.entries)}{why}: widen `select`"
            )
        options = {
            "data": source.name,
            "entries": [index_row(source.entries[i]) for i in sorted({*selected, *reasons})],
            "left_out": {str(i): str(left_out[i]) for i in sorted(left_out)},
            "failed": {str(i): problems[i] for i in sorted(problems)},
        }
        return Group(source, selected, options, events)

    def group_options(self) -> dict[str, Any]:
        """What the list of observations says of each group, and which reductions use it."""
        used = {name: entry["observations"] for name, entry in self.section("reductions")}
        serves = {name: r.further.group for name, (r, _) in self.reductions.items() if r.further}
        return {
            name: {
                **group.options,
                **{
                    role: sorted(key for key, value in named.items() if value == name)
                    for role, named in (("reductions", used), ("serves", serves))
                },
            }
            for name, group in self.groups.items()
        }

    def reduction(self, name: str, entry: Any) -> tuple[Reduction, Chain]:
        """The reduction, and the chain that its jobs run."""
        where = f"{self.path}: reductions.{name}"
        keys = ("observations", "recipe", "safe_mask", "background", "ogip")
        check_keys(entry, keys, where, required=("observations", "recipe"))
        group = find_entry(
            entry["observations"], self.groups, "group of observations", f"{where}.observations"
        )
        background, needs, used = self.background(entry.get("background"), f"{where}.background")
        recipe = entry["recipe"]
        if isinstance(recipe, Mapping) and isinstance(recipe.get("region"), str):
            recipe = {**recipe, "region": region_text(recipe["region"], f"{where}.recipe.region")}
        sections = {
            "recipe": recipe,
            "safe_mask": entry.get("safe_mask", []),
            "background": background,
        }
        chain = parse_chain(sections, f"{where}.")
        try:
            geometries = chain.geometries
        except InputError as error:
            raise InputError(f"{where}.recipe: {error}") from None
        if geometries is not None:
            self.check_axes(chain.bound, geometries[0], f"{where}.recipe")
            self.check_overlap(geometries[0], group, f"{where}.recipe")
        further = self.further(chain, group, sections, f"{where}.background.runs")
        if further is not None:
            # each job is given the runs that were found, not how: another limit that finds the same runs changes nothing
            sections["background"] = {**(background or {}), "runs": {"observations": further.group}}
        code = digest("reduce_observation", *chain.plugins, *used)
        told = {}
        for obs_id in group.selected:
            matched = () if further is None else further.matched.get(obs_id, ())
            runs = [] if further is None else [self.groups[further.group].run(k) for k in matched]
            told[obs_id] = {**sections, "name": f"{name}-{obs_id}", "run": group.run(obs_id), "off": runs}
        jobs = {obs_id: Job(canonical(options, where), code) for obs_id, options in told.items()}
        stack = plot = None
        if geometries is not None:
            stack = new_job("stack_observations", {"name": name, "recipe": recipe}, chain.recipe, where=where)
            plot = self.plot("dataset", where)
        ogip = self.ogip(name, entry.get("ogip", False), chain, f"{where}.ogip")
        mask_file = needs.pop("mask")
        return Reduction(name, group.source, jobs, mask_file, stack, plot, further, ogip, needs, told), chain

    def further(self, chain: Chain, group: Group, sections: Mapping[str, Any], where: str) -> Further | None:
        """Further runs that a background method asks for, matched to each run or all for its models."""
        section = chain.background
        if section is None or not section.runs:
            return None
        name = section.runs["observations"]
        off = find_entry(name, self.groups, "group of observations", f"{where}.observations")
        types = [sorted(each.events.get("event_types") or []) for each in (group, off)]
        if types[0] != types[1]:
            raise InputError(
                f"{where}.observations: the runs of '{name}' are used with events of the types {types[1] or 'all'}, and those that "
                f"they serve with {types[0] or 'all'}: give both groups the same `event_types` in `events`"
            )
        if section.build is not None:
            runs = [off.run(obs_id) for obs_id in off.selected]
            # of all energies and places: no bin of the reduction plays a part, and no option of the method itself
            own = {k: v for k, v in sections["background"].items() if k in ("name", *SHARED)}
            told = {"background": own, "off": runs}
            model = new_job("model_background", told, section.method, where=where)
            return Further(name, off.source, off.selected, {}, model)
        candidates = [off.source.entries[k] for k in off.selected]
        matched = {}
        for obs_id in group.selected:
            try:
                found = match_off_runs(group.source.entries[obs_id], candidates, **section.match)
            except InputError as error:
                if self.on_error == "stop":
                    raise InputError(f"{where}: {error}") from None
                found = []
            matched[obs_id] = tuple(found)
        return Further(name, off.source, off.selected, matched, None)

    def ogip(self, name: str, wanted: Any, chain: Chain, where: str) -> Job | None:
        """Job that writes the spectra of a reduction as OGIP files, where they are wanted."""
        if not convert(wanted, bool, where):
            return None
        if not chain.makes_spectra or not chain.measures_off:
            raise InputError(
                f"{where}: OGIP files hold spectra with measured off counts: take the recipe `spectrum` with a background such as "
                "`reflected`, or leave `ogip` out"
            )
        return new_job("export_ogip", {"name": name}, where=where)

    def background(
        self, entry: Any, where: str
    ) -> tuple[dict[str, Any] | None, dict[str, tuple[str, ...]], list[Plugin | str]]:
        """Options of a background method with region and models as text, files that it needs by role, and the code that it uses."""
        needs: dict[str, tuple[str, ...]] = {"mask": (), "plugins": (), "model_files": ()}
        if entry is None:
            return None, needs, []
        options = dict(as_mapping(entry, where))
        if "exclusion" in options:
            text = as_text(options["exclusion"], f"{where}.exclusion")
            if text.endswith(_MASK_SUFFIXES):
                needs["mask"] = (str(existing_file(text, f"{where}.exclusion")),)
                del options["exclusion"]
            else:
                options["exclusion"] = region_text(text, f"{where}.exclusion")
        section = parse_background(options, where)
        used: list[Plugin | str] = []
        if section.subtract is not None:
            options["subtract"], _, files = named_models(section.subtract, f"{where}.subtract")
            needs |= {"plugins": tuple(map(str, self.plugins)), "model_files": files}
            used += ["dl3flow.fit.npred", "dl3flow.io.models_yaml"]
        return options, needs, used

    def read_models(self) -> tuple[Any, Models | None, dict[str, tuple[str, ...]]]:
        """Models as text and checked, and the files that whoever reads them needs, by role."""
        where = f"{self.path}: models"
        if "models" in self.content:
            text, models, files = named_models(self.content["models"], where)
            return text, models, {"plugins": tuple(map(str, self.plugins)), "model_files": files}
        if self.content.get("fits"):
            raise InputError(
                f"{where}: the section is missing: name a model file, or write `components:` here"
            )
        return None, None, {}

    def input(self, name: str, entry: Any) -> External:
        """Data reduced elsewhere: the files that exist now."""
        where = f"{self.path}: inputs.{name}"
        check_keys(entry, ("reader", "path"), where, required=("reader", "path"))
        reader = as_choice(entry["reader"], list(READERS), f"{where}.reader")
        path = existing_path(as_text(entry["path"], f"{where}.path"), f"{where}.path")
        try:
            main, named = input_files(reader, path)
        except InputError as error:
            raise InputError(f"{where}.path: {error}") from None
        return External(reader, tuple(map(str, main)), tuple(map(str, named)))

    def told(self) -> dict[str, Any]:
        """What the report says of the configuration: all that can change a product."""
        content = {key: value for key, value in self.content.items() if key != "on_error"}
        return {**content, "name": self.name, **({"models": self.models_text} if self.models else {})}

    def truth(self) -> dict[str, Any]:
        """Simulated values of the models' parameters, where a simulated source has the name of a model."""
        simulated = {s["name"].casefold(): s for group in self.groups.values() for s in group.source.truth}
        found = {}
        for model in () if self.models is None else self.models.sources:
            source = simulated.get(model.name.casefold())
            if source is not None:
                # a parameter means the same only in the same function at the same reference
                values = (
                    dict(source["spectral"]) if _is_same_spectrum(source["spectral"], model.spectral) else {}
                )
                if source.get("frame", "icrs") == frame_of(model):
                    values |= {"lon_0": source["lon"], "lat_0": source["lat"]}
                known = {p.name for component in model.parts.values() for p in component.parameters}
                found.update({f"{model.name}.{key}": value for key, value in values.items() if key in known})
        return found

    def check_axes(self, bound: Mapping[str, Any], geom: Geometry, where: str) -> None:
        """Raise if no true energy can be reconstructed within the energies, or the maps would not fit into memory."""
        energy, true = bound["energy"].edges, bound.get("energy_true")
        need = (
            8
            * geom.shape[0]
            * geom.shape[1]
            * (3 * len(energy) + len(energy if true is None else true.edges))
        )
        if need > _MOST_BYTES:
            raise InputError(
                f"{where}: maps of {geom.shape[1]} x {geom.shape[0]} pixels with these energies need {need / 2**30:.1f} GiB "
                f"(at most {_MOST_BYTES / 2**30:g}): make `width` smaller, `binsz` larger, or take fewer energies"
            )
        if true is not None and (true.edges[0] >= energy[-1] or true.edges[-1] <= energy[0]):
            raise InputError(
                f"{where}.energy_true: {true.edges[0]:.4g} to {true.edges[-1]:.4g} does not overlap `energy`, "
                f"{energy[0]:.4g} to {energy[-1]:.4g}: make it reach beyond it at both ends"
            )

    def check_overlap(self, geom: Geometry, group: Group, where: str) -> None:
        """Raise if no pointing comes near the map."""
        entries = [group.source.entries[obs_id] for obs_id in group.selected]
        at = geom.center.icrs
        ra, dec = np.radians([e.ra for e in entries]), np.radians([e.dec for e in entries])
        nearest = float(np.degrees(fov.separation(ra, dec, at.ra.rad, at.dec.rad)).min())
        if nearest > _FIELD + 0.5 * geom.binsz * float(np.hypot(*geom.shape)):
            raise InputError(
                f"{where}.center: the map centred on ({at.ra.deg:.4f}, {at.dec.deg:.4f}) deg (icrs) is {nearest:.1f} deg from the "
                "nearest pointing, outside every field of view: correct `center`, or select other observations"
            )

    def plot(self, kind: str, where: str, sources: Mapping[str, Any] | None = None) -> Job:
        """Job that draws a product of that kind; ``sources`` are marked on a map that comes without a fit."""
        if kind not in self.plots:
            raise InputError(f"{where}: there is no plot for '{kind}': {choices(kind, self.plots)}")
        told = {"plot": kind, "analysis": self.name, "sources": sources or {}, "style": self.style}
        return new_job("plot_product", told, self.plots[kind])


def _is_same_spectrum(simulated: Mapping[str, Any], spectral: Component) -> bool:
    if SPECTRAL_MODELS.find(simulated["type"], "spectral").name != spectral.kind:
        return False
    fixed = {p.name: p for p in spectral.parameters}.get("reference")
    return fixed is None or bool(
        u.isclose(u.Quantity(simulated.get("reference", fixed.quantity)), fixed.quantity)
    )
