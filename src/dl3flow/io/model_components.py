"""Spectral, spatial and temporal parts of model files: their options, nodes and tables, and spectra that are compounds."""

import math
from collections.abc import Mapping
from dataclasses import replace
from inspect import Parameter as Argument
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import astropy.units as u
import numpy as np

from dl3flow.errors import InputError, choices
from dl3flow.io.model_parameters import (
    PER_EXPOSURE,
    Usual,
    check_keys,
    given_parameters,
    parameter_entry,
    parse_parameter,
    parse_unit,
    type_name,
    unit_text,
    written_unit,
)
from dl3flow.io.model_tables import find_source, read_options
from dl3flow.models.compound import OPERATORS, compound, own_parts
from dl3flow.models.resolve import find_model, flux_power, parameters_of
from dl3flow.models.source import Component
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.models.temporal import TEMPORAL_MODELS
from dl3flow.registry import Plugin, Registry, convert

_COMPOUND = ("CompoundSpectralModel", "compound")
_FRAMES = ("icrs", "galactic")
# what describes a file, not the model: kept as it is for the next writer of the file
_FILE_KEYS = ("filename", "format", "unit")
_REGISTRIES: Mapping[str, Registry] = {
    "spectral": SPECTRAL_MODELS,
    "norm": NORM_MODELS,
    "spatial": SPATIAL_MODELS,
    "temporal": TEMPORAL_MODELS,
}
_LARGEST_ANGLE, _LARGEST_E = 180.0, 0.99


def parse_component(
    entry: Mapping[str, Any], part: str, where: str, folder: Path, is_counts: bool = False
) -> Component:
    """Part of a model from plain values.

    Parameters
    ----------
    entry : mapping
    part : str
        spectral (a spectrum, or a factor on a template), norm (a factor), spatial or temporal.
    where : str
        What an error names.
    folder : Path
        Where files that it names are looked for first.
    is_counts : bool
        True for the spectrum of a source that is not folded with the exposure.

    Raises
    ------
    InputError
    """
    found = _parse(entry, part, where, folder, is_counts)
    if part == "norm" and flux_power(found, where) != 0:
        raise InputError(f"{where}: a spectrum is no factor on a background: use a norm model")
    return found


def _parse(entry: Mapping[str, Any], part: str, where: str, folder: Path, is_counts: bool) -> Component:
    if not isinstance(entry, Mapping) or "type" not in entry:
        names = ", ".join(_REGISTRIES[part].names())
        raise InputError(f"{where}: `type` is missing: name one of {names}")
    if part in ("spectral", "norm") and entry["type"] in _COMPOUND:
        return _parse_compound(entry, part, where, folder, is_counts)
    plugin = _find(entry, part, where)
    options = _parse_options(entry, plugin, part, where, folder, is_counts)
    alias = plugin.companions.get("component")
    model = alias(**options) if alias else None
    if model is not None:
        usual = {p.name: Usual(p.unit, p.value, p.frozen, p.min, p.max, is_counts) for p in model.parameters}
    else:
        usual = _usual(plugin, options, is_counts)
    given = given_parameters(entry.get("parameters") or [], usual, plugin.name, where)
    parameters = tuple(
        parse_parameter(name, given.get(name, {}), state, f"{where}.{name}") for name, state in usual.items()
    )
    options.pop("defaults", None)
    found = replace(model, parameters=parameters) if model else Component(plugin.name, parameters, options)
    _check(found, plugin, part, where)
    return found


def _find(entry: Mapping[str, Any], part: str, where: str) -> Plugin:
    """Registered model; a factor may stand where a spectrum does, on a template that is a flux."""
    kind = entry["type"]
    first = _REGISTRIES[part]
    for registry in (first, NORM_MODELS) if part == "spectral" else (first,):
        if isinstance(kind, str) and kind in registry.entries():
            plugin = registry.find(kind, where)
            return _as_factor(plugin, entry) if registry is SPECTRAL_MODELS else plugin
    if part == "norm" and isinstance(kind, str) and kind in SPECTRAL_MODELS.entries():
        plugin = SPECTRAL_MODELS.find(kind, where)
        if (factor := _as_factor(plugin, entry)) is not plugin:
            return factor
    return first.find(kind, f"{where}.type")


def _as_factor(plugin: Plugin, entry: Mapping[str, Any]) -> Plugin:
    """The norm model that has the field's name of a spectrum, where the entry's values have no unit."""
    values = entry.get("values")
    if not isinstance(values, Mapping) or values.get("unit") not in ("", None):
        return plugin
    factors = (n for n in NORM_MODELS if n.companions.get("stands_for") == plugin.name)
    return next(factors, plugin)


def _parse_compound(
    entry: Mapping[str, Any], part: str, where: str, folder: Path, is_counts: bool
) -> Component:
    check_keys(entry, ("type", "model1", "model2", "operator", "parameters"), where)
    parts = []
    for key in ("model1", "model2"):
        if not isinstance(entry.get(key), Mapping):
            raise InputError(f"{where}: a compound needs `{key}:` with a `type`, found {entry.get(key)!r}")
        parts.append(_parse(entry[key], "spectral", f"{where}.{key}", folder, is_counts))
    operator = entry.get("operator")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise InputError(
            f"{where}.operator: unknown operator '{operator}': {choices(str(operator), OPERATORS)}"
        )
    found = compound(operator, parts[0], parts[1])
    flux_power(found, where)
    return found


def _parse_options(
    entry: Mapping[str, Any], plugin: Plugin, part: str, where: str, folder: Path, is_counts: bool
) -> dict[str, Any]:
    """What is not a parameter: read from the file that the entry names, or given; ``frame`` of a spatial model."""
    reader = plugin.companions.get("reads")
    own = [name for name in plugin.options if name not in _FILE_KEYS]
    extra = (
        *(("frame",) if part == "spatial" else ()),
        *(_FILE_KEYS if reader else ()),
        *(("reference",) if reader == "ebl" else ()),
    )
    check_keys(entry, ("type", "parameters", *own, *extra), where)
    given = {
        name: _parse_option(entry[name], plugin.options[name][0], f"{where}.{name}", is_counts)
        for name in own
        if name in entry
    }
    options: dict[str, Any] = {}
    source = find_source(str(reader), entry, folder, where) if reader else None
    if source is not None:
        options = {**read_options(str(reader), source[0], entry, where), "filename": source[1]}
        options |= {key: str(entry[key]) for key in ("format", "unit") if entry.get(key) is not None}
    options |= given
    for name in own:
        if name not in options and plugin.options[name][1] is Argument.empty:
            advice = f"`filename` or `{name}`" if reader else f"`{name}`"
            raise InputError(f"{where}: '{plugin.name}' needs {advice}: give it")
    if part == "spatial":
        frame = entry.get("frame", "icrs") if "frame" not in options else options["frame"]
        if frame not in _FRAMES:
            raise InputError(f"{where}.frame: unknown frame '{frame}': {choices(str(frame), _FRAMES)}")
        options["frame"] = frame
    return options


def reader_of(entry: Mapping[str, Any]) -> str:
    """Kind of file that the model of an entry can be read from, empty if none."""
    for registry in _REGISTRIES.values():
        plugin = registry.entries().get(str(entry.get("type")))
        if plugin is not None and plugin.companions.get("reads"):
            return str(plugin.companions["reads"])
    return ""


def _parse_option(value: Any, hint: Any, where: str, is_counts: bool) -> Any:
    if get_origin(hint) is Annotated and get_args(hint)[0] is np.ndarray:
        return _parse_array(value, get_args(hint)[1], where, is_counts)
    return convert(value, hint, where)


def _parse_array(value: Any, unit: u.UnitBase, where: str, is_counts: bool) -> np.ndarray:
    """Array in ``unit`` from ``{data: [...], unit: ...}``, or from a list alone if it has none."""
    entry = value if isinstance(value, Mapping) else {"data": value}
    check_keys(entry, ("data", "unit"), where)
    text = entry.get("unit") or ""
    given = parse_unit(text, unit_text(unit), where)
    if is_counts and (given * PER_EXPOSURE).is_equivalent(unit):
        given = given * PER_EXPOSURE
    if not given.is_equivalent(unit):
        said = f"'{text}' has the wrong dimension" if text else "the unit is missing"
        raise InputError(f"{where}.unit: {said}: write one such as `{unit_text(unit) or 'none'}`")
    try:
        found = np.array(entry.get("data"), dtype=float)
    except (TypeError, ValueError):
        found = np.array(math.nan)
    if not found.ndim or not found.size:
        raise InputError(f"{where}: expected `{{data: [...], unit: ...}}` with numbers, found {value!r}")
    return found * float(given.to(unit))


def _usual(plugin: Plugin, options: Mapping[str, Any], is_counts: bool) -> dict[str, Usual]:
    frozen = plugin.companions.get("frozen", ())
    limits = plugin.companions.get("limits", {})
    values = options.get("defaults", {})
    found = {}
    for name, (unit, default) in parameters_of(plugin, options).items():
        low, high = limits.get(name, (math.nan, math.nan))
        value = float(values.get(name, default))
        found[name] = Usual(unit, value, name in frozen, low, high, is_counts)
    return found


def _check(component: Component, plugin: Plugin, part: str, where: str) -> None:
    """Refuse values that no source can have, whatever their limits say."""
    check = plugin.companions.get("check")
    if check and component.kind == plugin.name:
        units = [unit for unit, _ in parameters_of(plugin, component.options).values()]
        values = [p.quantity.to_value(unit) for p, unit in zip(component.parameters, units, strict=True)]
        own = {key: value for key, value in component.options.items() if key in plugin.options}
        if words := check(*values, **own):
            raise InputError(f"{where}: {words}: correct it")
    for parameter in component.parameters if part == "spatial" else ():
        _check_place(parameter.name, parameter.quantity, f"{where}.{parameter.name}", plugin)


def _check_place(name: str, value: u.Quantity, where: str, plugin: Plugin) -> None:
    words = ""
    if name == plugin.companions.get("size") and not 0 <= value.to_value(u.deg) <= _LARGEST_ANGLE:
        words = f"an angle from 0 to {_LARGEST_ANGLE:g} deg"
    elif name == "e" and not 0 <= value.value <= _LARGEST_E:
        words = f"an eccentricity from 0 to {_LARGEST_E}"
    elif name == "lat_0" and abs(value.to_value(u.deg)) > 90:
        words = "an angle from -90 to 90 deg"
    if words:
        raise InputError(f"{where}.value: expected {words}, found {value}: correct it")


def component_entry(component: Component, part: str, is_counts: bool = False) -> dict[str, Any]:
    """Plain values of a part (spectral, spatial or temporal) of a model, as `parse_component` reads them."""
    if component.kind == "compound":
        first, second = own_parts(component)
        return {
            "type": _COMPOUND[0],
            "model1": component_entry(first, part, is_counts),
            "model2": component_entry(second, part, is_counts),
            "operator": str(component.options["operator"]),
        }
    plugin = find_model(component, part, component.kind)
    other = plugin.companions.get("stands_for")
    limited = plugin.companions.get("limits", {})
    return {
        "type": type_name(SPECTRAL_MODELS.find(other, other) if other else plugin),
        **_options_entry(component, plugin, is_counts),
        "parameters": [
            parameter_entry(component.parameters[n], component.parameters[n].name in limited, is_counts)
            for n, _ in file_places(component, part)
        ],
    }


def _options_entry(component: Component, plugin: Plugin, is_counts: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    is_in_file = bool(component.options.get("filename"))
    for key, value in component.options.items():
        if isinstance(value, np.ndarray):
            if not is_in_file:
                unit = written_unit(get_args(plugin.options[key][0])[1], is_counts)
                entry[key] = {"data": value.tolist(), "unit": unit_text(unit)}
        elif isinstance(value, str | bool | int | float) and value != "":
            entry[key] = value
    return entry


def file_places(component: Component, part: str) -> list[tuple[int, str]]:
    """Place among a component's parameters, and name in a covariance, of each in the order of the field's files."""
    if component.kind == "compound":
        found, start = [], 0
        for n, own in enumerate(component.parts):
            found += [(start + k, f"model{n + 1}.{name}") for k, name in file_places(own, part)]
            start += len(own.parameters)
        return found
    order = find_model(component, part, component.kind).companions.get("order", ())
    places = [(n, p.name) for n, p in enumerate(component.parameters)]
    return sorted(places, key=lambda place: order.index(place[1]) if place[1] in order else len(order))
