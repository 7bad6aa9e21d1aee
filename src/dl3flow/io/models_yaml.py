"""Models as the field's YAML (``components: ...``), with their covariance beside it as a table of text.

A file leaves out what has its default value; the defaults that are not zero, free and without limits are stated here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from dl3flow import __version__
from dl3flow.errors import InputError, choices
from dl3flow.io.files import read_text, write_product, write_text
from dl3flow.io.provenance import Provenance
from dl3flow.io.yaml import dump_yaml, read_yaml
from dl3flow.models.source import BackgroundModel, Component, Models, Parameter, Source, full_names
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.registry import Plugin, Registry

_TOP = ("components", "covariance", "metadata", "checksum")
_SOURCE_KEYS = ("name", "type", "spectral", "spatial", "datasets_names", "apply_irf", "temporal")
_BACKGROUND_KEYS = ("name", "type", "spectral", "datasets_names")
_PARAMETER_KEYS = ("name", "value", "unit", "error", "min", "max", "frozen", "link", "prior")
# What the peer's minimiser keeps beside a parameter; it has no meaning here.
_IGNORED_KEYS = (
    "interp",
    "scale_method",
    "scale_transform",
    "factor",
    "scale",
    "description",
    "is_norm",
) + tuple(f"scan_{name}" for name in ("min", "max", "n_values", "n_sigma", "values"))
_FRAMES = ("icrs", "galactic")
_FROZEN = {"reference", "tilt", "e", "phi"}
_FROZEN_OF = {"exp_cutoff_power_law": {"reference", "alpha"}}
_LARGEST_SIGMA, _LARGEST_E = 10.0, 0.99
_LIMITS = {"sigma": (0.0, math.nan), "e": (0.0, 1.0), "phi": (-180.0, 180.0)}
# The peer reads a covariance by position, in its own order of parameters: these two come first there.
_FIRST = ("index", "tilt")


def read_models(path: Path) -> Models:
    """Models of a file, their errors those of its covariance if it names one.

    Raises
    ------
    InputError
        Naming file, component and parameter, the value found and what to write.
    """
    content = read_yaml(path)
    models = parse_models(content, str(path))
    if content.get("covariance"):
        names, matrix = _read_matrix(_beside(path, content["covariance"]))
        models = _with_errors(models, names, matrix)
    return models


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
    models = parse_models(content, str(path))
    free = _free_names(models)
    if not content.get("covariance"):
        return free, np.zeros((len(free), len(free)))
    file = _beside(path, content["covariance"])
    names, matrix = _read_matrix(file)
    by_file = {_file_name(models, name): name for name in models.parameters()}
    places = {by_file.get(name): n for n, name in enumerate(names)}
    if missing := [name for name in free if name not in places]:
        raise InputError(
            f"{file}: has no row for the free parameter '{missing[0]}': write models and covariance together"
        )
    index = [places[name] for name in free]
    return free, matrix[np.ix_(index, index)]


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
    file = path.with_name(f"{path.stem}_covariance.dat")
    table = _covariance_table(models, free, covariance)
    write_product(file, lambda temporary: table.write(temporary, format="ascii.fixed_width"))
    metadata: dict[str, Any] = {"creator": f"dl3flow {__version__}"}
    if provenance is not None:
        metadata["provenance"] = provenance.to_mapping()
    write_text(path, dump_yaml({**models_to_mapping(models), "covariance": file.name, "metadata": metadata}))


def models_to_mapping(models: Models) -> dict[str, Any]:
    """``{components: [...]}`` in plain values, as `parse_models` reads it; limits that are none are NaN."""
    components: list[dict[str, Any]] = []
    for model in _in_file(models):
        is_source = isinstance(model, Source)
        entry: dict[str, Any] = {
            "name": model.name,
            "type": "SkyModel" if is_source else "FoVBackgroundModel",
        }
        if model.datasets is not None:
            entry["datasets_names"] = list(model.datasets)
        entry["spectral"] = _component_entry(model.spectral, SPECTRAL_MODELS if is_source else NORM_MODELS)
        if isinstance(model, Source) and model.spatial is not None:
            entry["spatial"] = _component_entry(model.spatial, SPATIAL_MODELS)
        components.append(entry)
    return {"components": components}


def _in_file(models: Models) -> tuple[Source | BackgroundModel, ...]:
    return (*models.sources, *models.backgrounds)


def parse_models(mapping: Any, where: str) -> Models:
    """Models of a mapping ``{components: [...]}``, from a file or inline.

    A parameter that is not given takes the default of its plug-in, and the frozen state and limits usual in the field.

    Parameters
    ----------
    mapping : mapping
    where : str
        File or key that errors name.

    Raises
    ------
    InputError
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where}: expected `components:` with a list of models, found {mapping!r}")
    _check_keys(mapping, _TOP, where)
    components = mapping.get("components")
    if not isinstance(components, list) or not components:
        raise InputError(f"{where}: `components` must list at least one model, found {components!r}")
    found: list[Source | BackgroundModel] = []
    for n, entry in enumerate(components):
        found.append(_parse_model(entry, f"{where}: components[{n}]"))
    names = Counter(model.name for model in found)
    if twice := [name for name, number in names.items() if number > 1]:
        raise InputError(
            f"{where}: {names[twice[0]]} components have the name '{twice[0]}': give each its own"
        )
    sources = tuple(model for model in found if isinstance(model, Source))
    backgrounds = tuple(model for model in found if isinstance(model, BackgroundModel))
    return _resolve_links(Models(sources, backgrounds), where, _given_values(components, found))


def _check_keys(entry: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in entry:
        if key not in allowed:
            raise InputError(f"{where}: unknown key '{key}': {choices(str(key), allowed)}")


def _parse_model(entry: Any, where: str) -> Source | BackgroundModel:
    if not isinstance(entry, Mapping):
        raise InputError(
            f"{where}: expected a model with `name`, `type`, `spectral` and `spatial`, found {entry!r}"
        )
    kinds = ("SkyModel", "FoVBackgroundModel")
    kind = entry.get("type", "SkyModel")
    if kind not in kinds:
        raise InputError(f"{where}.type: unknown model type '{kind}': {choices(str(kind), kinds)}")
    datasets = _parse_datasets(entry.get("datasets_names"), where)
    is_source = kind == "SkyModel"
    name = entry.get("name", None if is_source else f"{datasets[0]}-bkg" if datasets else "bkg")
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InputError(f"{where}.name: expected text that names the model, found {name!r}")
    where = f"{where} '{name}'"
    _check_keys(entry, _SOURCE_KEYS if is_source else _BACKGROUND_KEYS, where)
    for key in ("spectral", "spatial") if entry.get("spatial") is not None else ("spectral",):
        if not isinstance(entry.get(key), Mapping):
            raise InputError(
                f"{where}: needs `{key}:` with a `type` and its `parameters`, found {entry.get(key)!r}"
            )
    if not is_source:
        return BackgroundModel(
            name, _parse_component(entry["spectral"], NORM_MODELS, f"{where}.spectral"), datasets
        )
    if entry.get("temporal") is not None:
        raise InputError(f"{where}.temporal: time-dependent models are not supported: leave it out")
    irfs = entry.get("apply_irf") or {}
    if not isinstance(irfs, Mapping) or not all(value is True for value in irfs.values()):
        raise InputError(f"{where}.apply_irf: all responses are always applied, found {irfs!r}: leave it out")
    spectral = _parse_component(entry["spectral"], SPECTRAL_MODELS, f"{where}.spectral")
    if entry.get("spatial") is None:
        return Source(name, spectral, None, datasets)
    return Source(
        name, spectral, _parse_component(entry["spatial"], SPATIAL_MODELS, f"{where}.spatial"), datasets
    )


def _parse_datasets(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}.datasets_names: expected a list of datasets' names, found {value!r}")
    return tuple(names)


def _parse_component(entry: Mapping[str, Any], registry: Registry, where: str) -> Component:
    if "type" not in entry:
        raise InputError(f"{where}: `type` is missing: name one of {', '.join(registry.names())}")
    plugin = registry.find(entry["type"], f"{where}.type")
    is_spatial = registry is SPATIAL_MODELS
    _check_keys(entry, ("type", "parameters", *(("frame",) if is_spatial else ())), where)
    given: dict[str, Mapping[str, Any]] = {}
    parameters = entry.get("parameters") or []
    if not isinstance(parameters, list):
        raise InputError(
            f"{where}.parameters: expected a list of `{{name: ..., value: ...}}`, found {parameters!r}"
        )
    for n, item in enumerate(parameters):
        name = item.get("name") if isinstance(item, Mapping) else None
        if not isinstance(name, str) or name not in plugin.parameters:
            place = f"{where}.parameters[{n}]"
            raise InputError(
                f"{place}: unknown parameter {name!r} of '{plugin.name}': {choices(str(name), plugin.parameters)}"
            )
        if name in given:
            raise InputError(f"{where}: the parameter '{name}' is given twice: keep one")
        given[str(name)] = item
    found = tuple(
        _parse_parameter(name, given.get(name, {}), plugin, f"{where}.{name}") for name in plugin.parameters
    )
    if not is_spatial:
        return Component(plugin.name, found)
    frame = entry.get("frame", "icrs")
    if frame not in _FRAMES:
        raise InputError(f"{where}.frame: unknown frame '{frame}': {choices(str(frame), _FRAMES)}")
    return Component(plugin.name, found, {"frame": frame})


def _parse_parameter(name: str, entry: Mapping[str, Any], plugin: Plugin, where: str) -> Parameter:
    _check_keys(entry, (*_PARAMETER_KEYS, *_IGNORED_KEYS), where)
    if entry.get("prior") is not None:
        raise InputError(f"{where}.prior: priors are not supported: leave it out")
    internal, default = plugin.parameters[name]
    usual = u.deg if internal == u.rad else internal
    unit = _parse_unit(entry, internal, usual, where)
    value = (
        _number(entry["value"], f"{where}.value")
        if "value" in entry
        else float((default * internal).to_value(unit))
    )
    if not math.isfinite(value):
        raise InputError(f"{where}.value: must be finite, found {value}: give a starting value")
    low, high = (_parse_limit(entry, key, side, name, unit, where) for side, key in enumerate(("min", "max")))
    if low > high:
        raise InputError(f"{where}: `min` ({low}) is above `max` ({high}): exchange them")
    if value < low or value > high:
        raise InputError(
            f"{where}: the value {value} lies outside its limits {low} to {high}: change one of them"
        )
    _check_possible(name, value * unit, where)
    error = _number(entry.get("error", 0.0), f"{where}.error")
    if error < 0 or math.isinf(error):
        raise InputError(f"{where}.error: must be a finite number from 0, found {error}")
    frozen = entry.get("frozen", name in _frozen(plugin))
    if not isinstance(frozen, bool):
        raise InputError(f"{where}.frozen: expected true or false, found {frozen!r}: write it without quotes")
    link = entry.get("link") or ""
    if not isinstance(link, str):
        raise InputError(f"{where}.link: expected a label (text), found {link!r}")
    return Parameter(name, value, unit, 0.0 if math.isnan(error) else error, low, high, frozen, link)


def _check_possible(name: str, value: u.Quantity, where: str) -> None:
    """Refuse a value that no source can have, whatever its limits say."""
    possible, words = True, ""
    if name == "reference":
        possible, words = value.value > 0, "an energy above 0"
    elif name == "sigma":
        possible, words = (
            0 <= value.to_value(u.deg) <= _LARGEST_SIGMA,
            f"an angle from 0 to {_LARGEST_SIGMA} deg",
        )
    elif name == "e":
        possible, words = 0 <= value.value <= _LARGEST_E, f"an eccentricity from 0 to {_LARGEST_E}"
    elif name == "lat_0":
        possible, words = abs(value.to_value(u.deg)) <= 90, "an angle from -90 to 90 deg"
    if not possible:
        raise InputError(f"{where}.value: expected {words}, found {value}: correct it")


def _parse_unit(entry: Mapping[str, Any], internal: u.UnitBase, usual: u.UnitBase, where: str) -> u.UnitBase:
    text = entry.get("unit")
    if text is None or text == "":
        if internal != u.dimensionless_unscaled and "value" in entry:
            raise InputError(f"{where}: the unit is missing: write `unit: {_unit_text(usual)}`")
        return usual
    if not isinstance(text, str):
        raise InputError(f"{where}.unit: expected text such as `{_unit_text(usual)}`, found {text!r}")
    try:
        unit = u.Unit(text)
    except ValueError:
        raise InputError(
            f"{where}.unit: '{text}' is not a unit: write one such as `{_unit_text(usual)}`"
        ) from None
    if not unit.is_equivalent(internal):
        wanted = _unit_text(usual) or "no unit"
        raise InputError(f"{where}.unit: '{text}' has the wrong dimension: expected one such as `{wanted}`")
    return unit


def _parse_limit(
    entry: Mapping[str, Any], key: str, side: int, name: str, unit: u.UnitBase, where: str
) -> float:
    if key not in entry:
        limit = _LIMITS.get(name, (math.nan, math.nan))[side]
        is_angle = unit.is_equivalent(u.deg) and unit != u.dimensionless_unscaled
        return float((limit * u.deg).to_value(unit)) if is_angle else limit
    limit = math.nan if entry[key] is None else _number(entry[key], f"{where}.{key}")
    is_pole = name == "lat_0" and abs((limit * unit).to_value(u.deg)) >= 90
    return math.nan if math.isinf(limit) or is_pole else limit


def _number(value: Any, where: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise InputError(
                f"{where}: expected a number, found the text '{value}': write one such as `1.0e-12`"
            ) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: expected a number, found {value!r}: write one such as `1.0e-12`")
    return float(value)


def _frozen(plugin: Plugin) -> Iterable[str]:
    usual: Iterable[str] = plugin.companions.get("frozen", _FROZEN_OF.get(plugin.name, _FROZEN))
    return usual


def _given_values(components: list[Any], models: list[Source | BackgroundModel]) -> set[str]:
    """Full names of the parameters whose value the file states."""
    return {
        f"{model.name}.{item['name']}"
        for entry, model in zip(components, models, strict=True)
        for part in ("spectral", "spatial")
        for item in (entry.get(part) or {}).get("parameters") or []
        if "value" in item
    }


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


def _component_entry(component: Component, registry: Registry) -> dict[str, Any]:
    plugin = registry.find(component.kind, component.kind)
    entry: dict[str, Any] = {"type": next((tag for tag in plugin.tags if tag.endswith("Model")), plugin.name)}
    entry.update(component.options)
    entry["parameters"] = [_parameter_entry(parameter) for parameter in _in_file_order(component)]
    return entry


def _in_file_order(component: Component) -> list[Parameter]:
    return sorted(component.parameters, key=lambda parameter: parameter.name not in _FIRST)


def _names_in_file_order(names: Sequence[str], component: Component) -> list[str]:
    pairs = zip(names, component.parameters, strict=True)
    return [name for name, parameter in sorted(pairs, key=lambda pair: pair[1].name not in _FIRST)]


def _parameter_entry(parameter: Parameter) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": parameter.name, "value": float(parameter.value)}
    if unit := _unit_text(parameter.unit):
        entry["unit"] = unit
    entry["error"] = float(parameter.error)
    for key, limit in (("min", parameter.min), ("max", parameter.max)):
        if math.isfinite(limit) or parameter.name in _LIMITS:
            entry[key] = float(limit)
    entry["frozen"] = bool(parameter.frozen)
    if parameter.link:
        entry["link"] = parameter.link
    return entry


def _unit_text(unit: u.UnitBase) -> str:
    try:
        return str(unit.to_string("fits"))
    except ValueError:  # a scaled unit, which FITS does not allow
        return str(unit.to_string())


def _free_names(models: Models) -> tuple[str, ...]:
    labels: set[str] = set()
    names = []
    for name, parameter in models.parameters().items():
        if not parameter.frozen and parameter.link not in labels:
            names.append(name)
        if parameter.link:
            labels.add(parameter.link)
    return tuple(names)


def _file_name(models: Models, name: str) -> str:
    """Name in a covariance file: ``crab.spectral.index`` of ``crab.index``."""
    for model in models.all:
        for part, names in full_names(model).items():
            for full, parameter in zip(names, model.parts[part].parameters, strict=True):
                if full == name:
                    return f"{model.name}.{part}.{parameter.name}"
    raise KeyError(name)


def _covariance_table(models: Models, free: Sequence[str], covariance: np.ndarray) -> Table:
    parameters = models.parameters()
    ordered = [
        full
        for m in _in_file(models)
        for part, component in m.parts.items()
        for full in _names_in_file_order(full_names(m)[part], component)
    ]
    places = {name: n for n, name in enumerate(free)}
    by_label = {parameters[name].link: n for name, n in places.items() if parameters[name].link}
    slots = np.array([places.get(name, by_label.get(parameters[name].link, -1)) for name in ordered])
    used = slots >= 0
    matrix = np.zeros((len(ordered), len(ordered)))
    matrix[np.ix_(used, used)] = np.asarray(covariance, dtype=float)[np.ix_(slots[used], slots[used])]
    rows: dict[str, Any] = {"Parameters": [_file_name(models, name) for name in ordered]}
    rows.update({str(n): [float(v) for v in matrix[:, n]] for n in range(len(ordered))})
    return Table(rows)


def _beside(path: Path, name: Any) -> Path:
    if not isinstance(name, str) or Path(name).name != name:
        raise InputError(
            f"{path}: covariance: expected the name of a file beside it, found {name!r}: move the file there"
        )
    return Path(path).with_name(name)


def _read_matrix(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and matrix of a covariance file: a table of text with ``|`` between its columns."""
    lines = [line.strip().strip("|") for line in read_text(path).splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    try:
        header, body = rows[0], rows[1:]
        places = [header.index(str(n)) for n in range(len(body))]
        first = header.index("Parameters")
        names = [row[first] for row in body]
        matrix = np.array([[float(row[place]) for place in places] for row in body]).reshape(
            len(body), len(body)
        )
    except (ValueError, IndexError):
        raise InputError(
            f"{path}: is not a table of `Parameters` and one column per parameter: write it again"
        ) from None
    if (
        not np.isfinite(matrix).all()
        or not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0)
        or (np.diag(matrix) < 0).any()
    ):
        raise InputError(
            f"{path}: is not a covariance (finite, symmetric, with positive variances): write it again"
        )
    return names, matrix


def _with_errors(models: Models, names: Sequence[str], matrix: np.ndarray) -> Models:
    errors = dict(zip(names, np.sqrt(np.diag(matrix)).tolist(), strict=True))
    changed = {}
    for name, parameter in models.parameters().items():
        error = errors.get(_file_name(models, name))
        # the same number, up to the rounding of a square root: keep the digits of the model file
        if error is not None and not math.isclose(error, parameter.error, rel_tol=1e-9):
            changed[name] = replace(parameter, error=error)
    return models.with_parameters(changed)
