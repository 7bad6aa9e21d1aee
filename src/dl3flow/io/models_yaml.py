"""Models as the field's YAML (``components: ...``), with their covariance beside it as a table of text.

A file leaves out what has its default value. What the field's files do not have stands under keys of its own, which
other readers pass over: links between parameters of different names under ``links``, and systematic errors of responses
under ``responses``, with a covariance of their own that holds all parameters.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from dl3flow import __version__
from dl3flow.errors import InputError, choices
from dl3flow.io.files import write_product, write_text
from dl3flow.io.model_components import component_entry, parse_component, reader_of
from dl3flow.io.model_covariance import (
    covariance_of,
    covariance_table,
    file_names,
    free_names,
    with_errors,
)
from dl3flow.io.model_parameters import Usual, check_keys, given_parameters, parameter_entry, parse_parameter
from dl3flow.io.model_tables import find_file, find_source
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_sky_map
from dl3flow.io.yaml import dump_yaml, read_yaml
from dl3flow.models.resolve import flux_power
from dl3flow.models.source import (
    BackgroundModel,
    Component,
    Model,
    Models,
    Parameter,
    ResponseModel,
    Source,
    full_names,
)

_TOP = ("components", "covariance", "metadata", "checksum", "responses", "responses_covariance", "links")
_IRFS = ("exposure", "psf", "edisp")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "SkyModel": ("name", "type", "spectral", "spatial", "temporal", "datasets_names", "apply_irf"),
    "FoVBackgroundModel": ("name", "type", "spectral", "datasets_names"),
    "TemplateNPredModel": ("name", "type", "spectral", "datasets_names", "filename"),
}
_TAGS = {"sky-model": "SkyModel", "fov-bkg": "FoVBackgroundModel"}
_SCALES: Mapping[str, Usual] = {
    "energy_scale": Usual(u.dimensionless_unscaled, 0.0, True, -0.9),
    "exposure_scale": Usual(u.dimensionless_unscaled, 1.0, True, 0.0),
    "background_scale": Usual(u.dimensionless_unscaled, 1.0, True, 0.0),
}
_RESPONSE = "response_scale"


def read_models(path: Path) -> Models:
    """Models of a file, their errors those of its covariance if it names one.

    Raises
    ------
    InputError
        Naming file, component and parameter, the value found and what to write.
    """
    content = read_yaml(path)
    models = parse_models(content, str(path), Path(path).parent)
    file, is_whole = _covariance_file(path, content)
    return models if file is None else with_errors(models, file, is_whole)


def read_covariance(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the free parameters of a model file, and the covariance matrix that it names (zeros without one).

    Returns
    -------
    names : tuple of str
        Full names ``model.parameter``; of linked parameters the first.
    covariance : array, shape (n_free, n_free)
        In the parameters' own units.
    """
    content = read_yaml(path)
    models = parse_models(content, str(path), Path(path).parent)
    file, is_whole = _covariance_file(path, content)
    if file is None:
        free = free_names(models)
        return free, np.zeros((len(free), len(free)))
    return covariance_of(models, file, is_whole)


def write_models(
    path: Path, models: Models, free: Sequence[str], covariance: np.ndarray, provenance: Provenance | None
) -> None:
    """Write models, and their covariance into ``<stem>_covariance.dat`` beside them.

    Parameters
    ----------
    path : Path
    models : Models
    free : sequence of str
        Full names in the order of ``covariance``; parameters linked to one of them share its entry.
    covariance : array, shape (n_free, n_free)
        In the parameters' own units.
    provenance : Provenance or None
    """
    path = Path(path)
    kinds = {"covariance": False, **({"responses_covariance": True} if models.responses else {})}
    files = {}
    for key, is_whole in kinds.items():
        files[key] = path.with_name(f"{path.stem}_{key}.dat")
        table = covariance_table(models, free, covariance, is_whole)
        write_product(files[key], partial(_write_table, table))
    metadata: dict[str, Any] = {"creator": f"dl3flow {__version__}"}
    if provenance is not None:
        metadata["provenance"] = provenance.to_mapping()
    names = {key: file.name for key, file in files.items()}
    write_text(path, dump_yaml({**models_to_mapping(models), **names, "metadata": metadata}))


def _write_table(table: Table, path: Path) -> None:
    table.write(path, format="ascii.fixed_width")


def _covariance_file(path: Path, content: Mapping[str, Any]) -> tuple[Path | None, bool]:
    """File with the covariance, if there is one, and whether it holds the responses too."""
    key = next((k for k in ("responses_covariance", "covariance") if content.get(k)), None)
    if key is None:
        return None, False
    name = content[key]
    if not isinstance(name, str) or Path(name).name != name:
        raise InputError(
            f"{path}: {key}: expected the name of a file beside it, found {name!r}: move the file there"
        )
    return Path(path).with_name(name), key != "covariance"


def models_to_mapping(models: Models) -> dict[str, Any]:
    """``{components: [...]}`` in plain values, as `parse_models` reads it; limits that are none are NaN.

    Responses, if there are any, are under ``responses``, which other readers of such files pass over.
    """
    links = _mixed_links(models)
    plain = {name: replace(models.parameters()[name], link="") for names in links.values() for name in names}
    models = models.with_parameters(plain)
    components = [_source_entry(model) for model in models.sources]
    components += [_background_entry(model) for model in models.backgrounds]
    found: dict[str, Any] = {"components": components}
    if models.responses:
        found["responses"] = [_response_entry(model) for model in models.responses]
    return {**found, "links": links} if links else found


def _mixed_links(models: Models) -> dict[str, list[str]]:
    """Full names by label of linked parameters that have different names, which others cannot link."""
    groups: dict[str, list[str]] = {}
    parameters = models.parameters()
    for name, parameter in parameters.items():
        if parameter.link:
            groups.setdefault(parameter.link, []).append(name)
    # the second `reference` of a compound has another name here, but not in a file
    own = {name: text.rsplit(".", 1)[-1] for name, text in file_names(models, with_responses=True).items()}
    return {label: names for label, names in groups.items() if len({own[name] for name in names}) > 1}


def _named(model: Model, kind: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": model.name, **({"type": kind} if kind else {})}
    if model.datasets is not None:
        entry["datasets_names"] = list(model.datasets)
    return entry


def _source_entry(model: Source) -> dict[str, Any]:
    entry = _named(model, "SkyModel")
    if model.without_irf:
        entry["apply_irf"] = {name: name not in model.without_irf for name in _IRFS}
    for part, component in model.parts.items():
        is_counts = part == "spectral" and "exposure" in model.without_irf
        entry[part] = component_entry(component, part, is_counts)
    return entry


def _background_entry(model: BackgroundModel) -> dict[str, Any]:
    entry = _named(model, "FoVBackgroundModel" if model.template is None else "TemplateNPredModel")
    if model.template is not None:
        entry["filename"] = model.template_file
    return {**entry, "spectral": component_entry(model.spectral, "spectral")}


def _response_entry(model: ResponseModel) -> dict[str, Any]:
    return {
        **_named(model, None),
        "parameters": [parameter_entry(p, limited=True) for p in model.scale.parameters],
    }


def parse_models(mapping: Any, where: str, folder: Path = Path()) -> Models:
    """Models of a mapping ``{components: [...]}``, from a file or inline.

    A parameter that is not given takes the default of its plug-in, and the frozen state and limits usual in the field.

    Parameters
    ----------
    mapping : mapping
    where : str
        File or key that errors name.
    folder : Path
        Where files that the models name (templates, tables) are looked for before the working directory.

    Raises
    ------
    InputError
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where}: expected `components:` with a list of models, found {mapping!r}")
    check_keys(mapping, _TOP, where)
    components, responses = mapping.get("components"), mapping.get("responses") or []
    if not isinstance(components, list) or not components:
        raise InputError(f"{where}: `components` must list at least one model, found {components!r}")
    if not isinstance(responses, list):
        raise InputError(f"{where}: `responses` must be a list, found {responses!r}")
    found: list[Model] = []
    for n, entry in enumerate(components):
        found.append(_parse_model(entry, f"{where}: components[{n}]", folder))
    for n, entry in enumerate(responses):
        found.append(_parse_response(entry, f"{where}: responses[{n}]"))
    names = Counter(model.name for model in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(
            f"{where}: {names[twice[0]]} components have the name '{twice[0]}': give each its own"
        )
    models = Models(
        tuple(model for model in found if isinstance(model, Source)),
        tuple(model for model in found if isinstance(model, BackgroundModel)),
        tuple(model for model in found if isinstance(model, ResponseModel)),
    )
    given = {
        name
        for entry, model in zip([*components, *responses], found, strict=True)
        for name in _given(entry, model)
    }
    return _resolve_links(_with_links(models, mapping.get("links") or {}, f"{where}: links"), where, given)


def _with_links(models: Models, links: Any, where: str) -> Models:
    """Models whose parameters carry the labels under which a file lists their full names."""
    if not isinstance(links, Mapping) or not all(isinstance(names, list) for names in links.values()):
        raise InputError(f"{where}: expected labels with lists of parameters, found {links!r}")
    parameters = models.parameters()
    changed: dict[str, Parameter] = {}
    for label, names in links.items():
        for name in names:
            if not isinstance(name, str) or name not in parameters:
                raise InputError(
                    f"{where}.{label}: unknown parameter '{name}': {choices(str(name), parameters)}"
                )
            changed[name] = replace(parameters[name], link=str(label))
    return models.with_parameters(changed)


def model_files(mapping: Any, where: str, folder: Path = Path()) -> list[Path]:
    """Files that models are read from (templates, tables of absorption, light curves), each once, in their order.

    Parameters
    ----------
    mapping : mapping
        ``{components: [...]}``.
    where : str
        What errors name.
    folder : Path
        Of the model file.

    Raises
    ------
    InputError
        If one is missing.
    """
    found: list[Path] = []

    def search(value: Any, place: str) -> None:
        if isinstance(value, Mapping) and (source := find_source(reader_of(value), value, folder, place)):
            found.append(source[0])
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            if isinstance(item, Mapping | list):
                search(item, f"{place}.{key}")

    if isinstance(mapping, Mapping) and isinstance(mapping.get("components"), list):
        search(mapping["components"], f"{where}: components")
    return list(dict.fromkeys(found))


def with_folder(mapping: Any, folder: Path) -> Any:
    """Same mapping with the names of files that lie in ``folder`` as seen from the working directory."""
    if isinstance(mapping, list):
        return [with_folder(item, folder) for item in mapping]
    if not isinstance(mapping, Mapping):
        return mapping
    return {
        key: (folder / item).as_posix()
        if key == "filename" and isinstance(item, str) and (folder / item).is_file()
        else with_folder(item, folder)
        for key, item in mapping.items()
    }


def _parse_model(entry: Any, where: str, folder: Path) -> Source | BackgroundModel:
    if not isinstance(entry, Mapping):
        raise InputError(
            f"{where}: expected a model with `name`, `type`, `spectral` and `spatial`, found {entry!r}"
        )
    kind = entry.get("type", "SkyModel")
    kind = _TAGS.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in _KEYS:
        raise InputError(f"{where}.type: unknown model type '{kind}': {choices(str(kind), _KEYS)}")
    datasets = _parse_datasets(entry.get("datasets_names"), where)
    fallback = None if kind == "SkyModel" else f"{datasets[0]}-bkg" if datasets else "bkg"
    name = _parse_name(entry, fallback, where)
    where = f"{where} '{name}'"
    extra = ("spatial",) if kind != "SkyModel" and entry.get("spatial") is not None else ()
    if extra:
        raise InputError(f"{where}.spatial: the factor on a background is the same everywhere: leave it out")
    check_keys(entry, _KEYS[kind], where)
    for key in ("spectral", *(part for part in ("spatial", "temporal") if entry.get(part) is not None)):
        if not isinstance(entry.get(key), Mapping):
            raise InputError(
                f"{where}: needs `{key}:` with a `type` and its `parameters`, found {entry.get(key)!r}"
            )
    if kind == "SkyModel":
        return _parse_source(entry, name, datasets, where, folder)
    spectral = parse_component(entry["spectral"], "norm", f"{where}.spectral", folder)
    if kind == "FoVBackgroundModel":
        return BackgroundModel(name, spectral, datasets)
    file = find_file(entry.get("filename"), folder, f"{where}.filename")
    template = next(iter(read_sky_map(file).maps.values()))
    if [axis.name for axis in template.axes] != ["energy"]:
        raise InputError(
            f"{where}.filename: the map in {file} has the axes {[a.name for a in template.axes]}, expected counts on 'energy'"
        )
    return BackgroundModel(name, spectral, datasets, template, str(entry["filename"]))


def _parse_source(
    entry: Mapping[str, Any], name: str, datasets: tuple[str, ...] | None, where: str, folder: Path
) -> Source:
    irfs = entry.get("apply_irf") or {}
    if not isinstance(irfs, Mapping) or not all(isinstance(value, bool) for value in irfs.values()):
        raise InputError(f"{where}.apply_irf: expected responses with true or false, found {irfs!r}")
    check_keys(irfs, _IRFS, f"{where}.apply_irf")
    without = tuple(irf for irf in _IRFS if irfs.get(irf) is False)
    parts: dict[str, Component | None] = {}
    for part in ("spectral", "spatial", "temporal"):
        is_counts = part == "spectral" and "exposure" in without
        parts[part] = (
            None
            if entry.get(part) is None
            else parse_component(entry[part], part, f"{where}.{part}", folder, is_counts)
        )
    spectral, spatial = parts["spectral"], parts["spatial"]
    assert spectral is not None
    is_template = spatial is not None and "filename" in spatial.options
    if flux_power(spectral, f"{where}.spectral") != 1 and not is_template:
        raise InputError(
            f"{where}.spectral: '{spectral.kind}' is a factor, no spectrum: multiply a spectrum by it in a compound"
        )
    return Source(name, spectral, spatial, datasets, parts["temporal"], without)


def _parse_name(entry: Mapping[str, Any], fallback: str | None, where: str) -> str:
    name = entry.get("name", fallback)
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InputError(f"{where}.name: expected text that names the model, found {name!r}")
    return name


def _parse_datasets(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}.datasets_names: expected a list of datasets' names, found {value!r}")
    return tuple(names)


def _parse_response(entry: Any, where: str) -> ResponseModel:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: expected a `name` and `parameters`, found {entry!r}")
    check_keys(entry, ("name", "datasets_names", "parameters"), where)
    name = _parse_name(entry, None, where)
    datasets = _parse_datasets(entry.get("datasets_names"), where)
    given = given_parameters(entry.get("parameters") or [], _SCALES, _RESPONSE, where)
    parameters = tuple(
        parse_parameter(key, given.get(key, {}), usual, f"{where} '{name}'.{key}")
        for key, usual in _SCALES.items()
    )
    return ResponseModel(name, Component(_RESPONSE, parameters), datasets)


def _given(entry: Mapping[str, Any], model: Model) -> set[str]:
    """Full names of the parameters whose value an entry states."""
    names = full_names(model)
    found: set[str] = set()
    for part, component in model.parts.items():
        stated = _stated(entry if part == "scale" else entry.get(part) or {}, component)
        found |= {names[part][n] for n in stated}
    return found


def _stated(entry: Mapping[str, Any], component: Component) -> set[int]:
    """Places of the parameters of a component whose value its entry states."""
    if "model1" in entry and "model2" in entry:
        first, second = component.parts
        later = {n + len(first.parameters) for n in _stated(entry["model2"], second)}
        return _stated(entry["model1"], first) | later
    stated = {item["name"] for item in entry.get("parameters") or [] if "value" in item}
    return {n for n, parameter in enumerate(component.parameters) if parameter.name in stated}


def _resolve_links(models: Models, where: str, given: set[str]) -> Models:
    """Give all parameters of one label the value, limits and state of the first whose value is stated."""
    groups: dict[str, list[str]] = {}
    parameters = models.parameters()
    for name, parameter in parameters.items():
        if parameter.link:
            groups.setdefault(parameter.link, []).append(name)
    changed: dict[str, Parameter] = {}
    for label, names in groups.items():
        if len(names) == 1:
            others = [other for other in groups if other != label]
            raise InputError(
                f"{where}: {names[0]}.link: no other parameter has the label '{label}': {choices(label, others)}"
            )
        leader = next((name for name in names if name in given), names[0])
        first = parameters[leader]
        if first.prior is None:
            priors = (parameters[name].prior for name in names if parameters[name].unit == first.unit)
            first = replace(first, prior=next((prior for prior in priors if prior), None))
        for name in names:
            other = parameters[name]
            if not other.unit.is_equivalent(first.unit):
                raise InputError(
                    f"{where}: {name} cannot be linked to {leader}: '{other.unit}' is no '{first.unit}'"
                )
            value = first.quantity.to_value(other.unit)
            if name in given and not math.isclose(other.value, value, rel_tol=1e-9, abs_tol=1e-300):
                raise InputError(
                    f"{where}: {name} is linked to {leader} but has another value ({other.value}): leave one out"
                )
            # one entry of the fit's vector feeds them all: they share its unit
            changed[name] = replace(first, name=other.name)
    return models.with_parameters(changed)
