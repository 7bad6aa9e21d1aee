"""Where the data of a configuration lie, and the slices of it that jobs are given."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u

from dl3flow.checks import as_mapping, as_text, check_keys, check_name
from dl3flow.data.index import ObservationEntry
from dl3flow.digest import digest
from dl3flow.errors import InputError, choices
from dl3flow.io.files import read_text
from dl3flow.io.gadf_index import read_index
from dl3flow.io.gadf_irf import response_kinds
from dl3flow.io.model_parameters import unit_text
from dl3flow.io.models_yaml import model_files, parse_models, with_folder
from dl3flow.io.pointings import read_pointings
from dl3flow.io.provenance import canonical_json
from dl3flow.io.region_files import read_region_file
from dl3flow.io.yaml import read_yaml
from dl3flow.models.source import Models
from dl3flow.plan import DataSource, Job
from dl3flow.registry import Plugin
from dl3flow.simulate.plan import observation_entries, parse_simulation

DATA_VARIABLE = "DL3FLOW_DATA"


@dataclass(frozen=True, eq=False)
class Group:
    """Selected observations of one source.

    Attributes
    ----------
    source : DataSource
    selected : tuple of int
    options : mapping
        What the list of observations says of the group.
    events : mapping
        Criteria of the events that are used.
    """

    source: DataSource
    selected: tuple[int, ...]
    options: Mapping[str, Any]
    events: Mapping[str, Any]

    def run(self, obs_id: int) -> dict[str, Any]:
        """What a step needs to read one observation."""
        return {"entry": self.source.entries[obs_id].to_json(), "events": dict(self.events)}


class Sources:
    """The data sources of a configuration; each is read when an analysis first asks for it."""

    def __init__(self, entries: Any, results: str, where: str) -> None:
        self._entries = as_mapping(entries, where)
        self._results, self._where = results, where
        self.loaded: dict[str, DataSource] = {}
        for name, entry in self._entries.items():
            check_name(name, where)
            if not isinstance(entry, str):
                check_keys(entry, ("path", "simulate"), f"{where}.{name}")
                if len(entry) != 1:
                    raise InputError(f"{where}.{name}: give either `path` (a folder) or `simulate` (a file)")

    def find(self, name: Any, where: str) -> DataSource:
        """Source of that name, read now if no analysis asked for it before."""
        if not isinstance(name, str) or name not in self._entries:
            raise InputError(f"{where}: unknown data source '{name}': {choices(str(name), self._entries)}")
        if name not in self.loaded:
            entry = self._entries[name]
            entry = {"path": entry} if isinstance(entry, str) else entry
            place = f"{self._where}.{name}"
            self.loaded[name] = (
                self._simulated(name, entry) if "simulate" in entry else self._existing(name, entry, place)
            )
        return self.loaded[name]

    def _existing(self, name: str, entry: Mapping[str, Any], where: str) -> DataSource:
        root = _data_folder(as_text(entry["path"], f"{where}.path"), f"{where}.path")
        found = sorted(read_index(root), key=lambda e: e.obs_id)
        return DataSource(name, str(root), {e.obs_id: e for e in found})

    def _simulated(self, name: str, entry: Mapping[str, Any]) -> DataSource:
        path = Path(as_text(entry["simulate"], f"{self._where}.{name}.simulate"))
        content, found = _resolved(read_yaml(path), str(path))
        simulation = parse_simulation(content, str(path), found.models, found.kinds)
        entries = {e.obs_id: e for e in sorted(observation_entries(simulation), key=lambda e: e.obs_id)}
        runs = {run["obs_id"]: {**content, "observations": [run]} for run in content["observations"]}
        # of a survey there are thousands, of the same code
        code = digest("simulate_dl3", *found.code)
        jobs = {obs_id: Job(canonical(runs[obs_id], str(path)), code) for obs_id in entries}
        index = new_job("index_dl3", {"entries": [e.to_json() for e in entries.values()]})
        truth = [*content.get("sources", ()), *_truth(found.models)]
        root = f"{self._results}/dl3/{name}"
        return DataSource(name, root, entries, jobs, index, truth, found.inputs)


@dataclass(frozen=True, eq=False)
class _Found:
    """What the file of a simulation names.

    Attributes
    ----------
    models : Models or None
    kinds : mapping of str
        HDU_CLASS by HDU_TYPE of the responses.
    inputs : mapping of tuple of str
        Files that a job of it reads, by role.
    code : tuple of str
        Modules that read them.
    """

    models: Models | None
    kinds: Mapping[str, str]
    inputs: Mapping[str, tuple[str, ...]]
    code: tuple[str, ...]


def _resolved(content: Any, where: str) -> tuple[Any, _Found]:
    """Content of a simulation file with its models and table of pointings as plain values, and what its files hold."""
    if not isinstance(content, Mapping):
        return content, _Found(None, {}, {}, ())
    plain, models = dict(content), None
    kinds: Mapping[str, str] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    code: list[str] = []
    if "plugins" in plain:
        # which finds its files by this module
        from dl3flow.plugins import load_plugins, plugin_files

        plugins = plugin_files(plain.pop("plugins"), f"{where}: plugins")
        load_plugins(plugins)
        inputs["plugins"] = tuple(map(str, plugins))
    if "pointings" in plain:
        table = existing_file(as_text(plain.pop("pointings"), f"{where}: pointings"), f"{where}: pointings")
        given = plain.get("observations") or []
        plain["observations"] = [*(given if isinstance(given, list) else [given]), *read_pointings(table)]
    if "models" in plain:
        plain["models"], models, files = named_models(plain["models"], f"{where}: models")
        inputs["model_files"] = files
        code.append("dl3flow.io.models_yaml")
    instrument = plain.get("instrument")
    if isinstance(instrument, Mapping) and "irf" in instrument:
        key = f"{where}: instrument.irf"
        file = existing_file(as_text(instrument["irf"], key), key)
        kinds, telescope = response_kinds(file)
        plain["instrument"] = {**({"telescope": telescope} if telescope else {}), **instrument}
        inputs["responses"] = (str(file),)
        code.append("dl3flow.io.gadf_irf")
    return plain, _Found(models, kinds, inputs, tuple(code))


def _truth(models: Models | None) -> list[dict[str, Any]]:
    """Sources of a model file in the form of the list ``sources``; those of several spectra have no name for their values."""
    found = []
    for source in models.sources if models else ():
        values = {
            p.name: f"{float(p.value)!r} {unit_text(p.unit)}".strip() for p in source.spectral.parameters
        }
        place = {} if source.spatial is None else {p.name: p for p in source.spatial.parameters}
        if source.spectral.kind == "compound" or source.spatial is None or "lon_0" not in place:
            continue
        at = {axis: f"{float(place[f'{axis}_0'].quantity.to_value(u.deg))!r} deg" for axis in ("lon", "lat")}
        frame = source.spatial.options.get("frame", "icrs")
        spectral = {"type": source.spectral.kind, **values}
        found.append({"name": source.name, "spectral": spectral, "frame": frame, **at})
    return found


def missing_files(source: DataSource, entry: ObservationEntry) -> str:
    """What is wrong with the files of an observation, as part of a sentence; empty if nothing is."""
    if "events" not in entry.hdus:
        return "the HDU index names no EVENTS for it"
    files = {path: Path(source.root, path) for path in entry.paths}
    missing = [path for path, file in files.items() if not file.is_file()]
    if missing:
        return f"{', '.join(missing)} is missing in {source.root}"
    empty = [path for path, file in files.items() if file.stat().st_size == 0]
    return f"{', '.join(empty)} in {source.root} is an empty file" if empty else ""


def _data_folder(path: str, where: str) -> Path:
    """Folder of DL3 data: below $DL3FLOW_DATA if it is there, else below the working directory."""
    base = os.environ.get(DATA_VARIABLE, "")
    places = [*([Path(base, path)] if base else []), Path(path)]
    for place in places:
        if place.is_dir():
            return place
    hint = "" if base else f"; the environment variable {DATA_VARIABLE} is not set"
    looked = " nor ".join(f"'{place}'" for place in dict.fromkeys(places))
    raise InputError(
        f"{where}: there is no folder {looked}{hint}: download the data or set {DATA_VARIABLE} to the folder that holds '{path}'"
    )


def existing_path(path: str, where: str) -> Path:
    """File or folder at ``path`` as given, or below $DL3FLOW_DATA."""
    base = os.environ.get(DATA_VARIABLE, "")
    for place in [Path(path), *([Path(base, path)] if base else [])]:
        if place.exists():
            return place
    raise InputError(f"{where}: there is no file '{path}'")


def existing_file(path: str, where: str) -> Path:
    """File at ``path`` as given, or below $DL3FLOW_DATA."""
    found = existing_path(path, where)
    if not found.is_file():
        raise InputError(f"{where}: there is no file '{path}'")
    return found


def new_job(step: str, options: Any, *plugins: Plugin | str, where: str = "configuration") -> Job:
    """Job of a step: its options as canonical JSON, and the digest of the code that it and the plug-ins run."""
    return Job(canonical(options, where), digest(step, *plugins))


def canonical(options: Any, where: str) -> str:
    """Canonical JSON of options."""
    return canonical_json(_plain(options, where))


def _plain(value: Any, where: str) -> Any:
    """JSON value in which equal numbers are written alike; dates and other YAML types are refused."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{n}]") for n, item in enumerate(value)]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputError(
        f"{where}: expected text, a number, a list or a mapping, found {value!r}: put it in quotes"
    )


def region_text(text: str, where: str) -> str:
    """DS9 text as given, or that of a region file."""
    return text if ";" in text or "(" in text else read_region_file(existing_file(text, where))


def read_style(entry: Any, where: str) -> dict[str, str]:
    """Settings of a matplotlib style file as text, by their names; the jobs are given these, not the file's name."""
    from dl3flow.plots.style_file import parse_style, split_style  # slow to import, and seldom wanted

    path = existing_file(as_text(entry, where), where)
    settings = split_style(read_text(path), str(path))
    parse_style(settings, str(path))
    return settings


def named_models(entry: Any, where: str) -> tuple[Any, Models, tuple[str, ...]]:
    """Models of a file, or written in place: their text as plain values, checked, and the files that they are read from."""
    if isinstance(entry, str):
        path = existing_file(entry, where)
        # a job reads the text alone: names of files in it must not depend on the file's folder
        entry, where = with_folder(read_yaml(path), path.parent), str(path)
    models = parse_models(entry, where)
    return entry, models, tuple(map(str, model_files(entry, where)))


def index_row(entry: ObservationEntry) -> dict[str, Any]:
    """What the list of observations takes from the index."""
    keys = ("obs_id", "target", "telescope", "ra", "dec", "tstart", "tstop", "livetime", "quality")
    return {key: getattr(entry, key) for key in keys}
