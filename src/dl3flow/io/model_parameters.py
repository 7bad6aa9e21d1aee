"""Parameters of model files, with their units, limits, links and priors: read from plain values and written as such."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import astropy.units as u

from dl3flow.errors import InputError, choices
from dl3flow.models.priors import PRIORS
from dl3flow.models.source import Parameter, Prior
from dl3flow.registry import Plugin

_KEYS = ("name", "value", "unit", "error", "min", "max", "frozen", "link", "prior")
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
# what a flux has and a number of counts has not: sources that are not folded with the exposure are written without
PER_EXPOSURE = u.Unit("cm-2 s-1")


@dataclass(frozen=True)
class Usual:
    """What a parameter is where a file does not say.

    Attributes
    ----------
    unit : unit
        Internal; angles are written in deg.
    value : float
        In ``unit``.
    frozen : bool
    low, high : float
        Limits in ``unit``, angles in deg; NaN is none.
    is_counts : bool
        True for the spectrum of a source that is not folded with the exposure: its unit may lack ``PER_EXPOSURE``.
    """

    unit: u.UnitBase
    value: float
    frozen: bool = False
    low: float = math.nan
    high: float = math.nan
    is_counts: bool = False


def check_keys(entry: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Refuse a key that is not one of those allowed."""
    for key in entry:
        if key not in allowed:
            raise InputError(f"{where}: unknown key '{key}': {choices(str(key), allowed)}")


def given_parameters(entry: Any, names: Iterable[str], kind: str, where: str) -> dict[str, Mapping[str, Any]]:
    """Entries of a list ``parameters:`` by name.

    Raises
    ------
    InputError
        For no such list, and a name that is unknown or given twice.
    """
    names = list(names)
    if not isinstance(entry, list):
        raise InputError(
            f"{where}.parameters: expected a list of `{{name: ..., value: ...}}`, found {entry!r}"
        )
    given: dict[str, Mapping[str, Any]] = {}
    for n, item in enumerate(entry):
        name = item.get("name") if isinstance(item, Mapping) else None
        if not isinstance(name, str) or name not in names:
            raise InputError(
                f"{where}.parameters[{n}]: unknown parameter {name!r} of '{kind}': {choices(str(name), names)}"
            )
        if name in given:
            raise InputError(f"{where}: the parameter '{name}' is given twice: keep one")
        given[name] = item
    return given


def parse_parameter(name: str, entry: Mapping[str, Any], usual: Usual, where: str) -> Parameter:
    """Parameter of a model from its entry, which may be empty.

    Raises
    ------
    InputError
        For an unknown key, a wrong unit, or a value, limit, link or prior that cannot be.
    """
    check_keys(entry, (*_KEYS, *_IGNORED_KEYS), where)
    unit = _parse_unit(entry, usual, where)
    value = number(entry["value"], f"{where}.value") if "value" in entry else math.nan
    if "value" not in entry or (math.isnan(value) and entry.get("frozen", usual.frozen) is True):
        # a template's own position is written as NaN until it is moved
        value = float((usual.value * usual.unit).to_value(unit))
    if not math.isfinite(value):
        raise InputError(f"{where}.value: must be finite, found {value}: give a starting value")
    low = _parse_limit(entry, "min", usual.low, name, unit, where)
    high = _parse_limit(entry, "max", usual.high, name, unit, where)
    prior = None if not entry.get("prior") else _parse_prior(entry["prior"], unit, f"{where}.prior")
    low, high = _with_range(prior, low, high)
    if low > high:
        raise InputError(f"{where}: `min` ({low}) is above `max` ({high}): exchange them")
    if value < low or value > high:
        raise InputError(
            f"{where}: the value {value} lies outside its limits {_limits(low, high)}: change one of them"
        )
    error = number(entry.get("error", 0.0), f"{where}.error")
    if error < 0 or math.isinf(error):
        raise InputError(f"{where}.error: must be a finite number from 0, found {error}")
    frozen = entry.get("frozen", usual.frozen)
    if not isinstance(frozen, bool):
        raise InputError(f"{where}.frozen: expected true or false, found {frozen!r}: write it without quotes")
    link = entry.get("link") or ""
    if not isinstance(link, str):
        raise InputError(f"{where}.link: expected a label (text), found {link!r}")
    error = 0.0 if math.isnan(error) else error
    return Parameter(name, value, unit, error, low, high, frozen, link, prior)


def _limits(low: float, high: float) -> str:
    if math.isnan(high):
        return f"{low} and above"
    return f"{high} and below" if math.isnan(low) else f"{low} to {high}"


def number(value: Any, where: str) -> float:
    """The value, or the text of one, as a number."""
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


def parse_unit(text: Any, example: str, where: str) -> u.UnitBase:
    """Unit of that text."""
    if not isinstance(text, str):
        raise InputError(f"{where}.unit: expected text such as `{example}`, found {text!r}")
    try:
        return u.Unit(text)
    except ValueError:
        raise InputError(f"{where}.unit: '{text}' is not a unit: write one such as `{example}`") from None


def unit_text(unit: u.UnitBase) -> str:
    """Text of a unit as FITS allows it, if it does."""
    try:
        return str(unit.to_string("fits"))
    except ValueError:  # a scaled unit, which FITS does not allow
        return str(unit.to_string())


def written_unit(unit: u.UnitBase, is_counts: bool) -> u.UnitBase:
    """Unit in a model file: that of counts for a flux that no exposure multiplies."""
    bare = unit / PER_EXPOSURE
    return bare if is_counts and unit_text(bare).count("cm") < unit_text(unit).count("cm") else unit


def parameter_entry(parameter: Parameter, limited: bool, is_counts: bool = False) -> dict[str, Any]:
    """Plain values of a parameter, as `parse_parameter` reads them; ``limited`` writes limits that are none too."""
    entry: dict[str, Any] = {"name": parameter.name, "value": float(parameter.value)}
    unit = written_unit(parameter.unit, is_counts)
    if unit != u.dimensionless_unscaled:
        entry["unit"] = unit_text(unit)
    entry["error"] = float(parameter.error)
    for key, limit in (("min", parameter.min), ("max", parameter.max)):
        # a latitude without limits is the field's usual one, which ends at the poles
        if math.isfinite(limit) or (limited and parameter.name != "lat_0"):
            entry[key] = float(limit)
    entry["frozen"] = bool(parameter.frozen)
    if parameter.link:
        entry["link"] = parameter.link
    if parameter.prior is not None:
        entry["prior"] = _prior_entry(parameter.prior, parameter.unit)
    return entry


def _parse_unit(entry: Mapping[str, Any], usual: Usual, where: str) -> u.UnitBase:
    spoken = u.deg if usual.unit == u.rad else usual.unit
    text = entry.get("unit")
    if text is None or text == "":
        if usual.unit != u.dimensionless_unscaled and "value" in entry:
            raise InputError(f"{where}: the unit is missing: write `unit: {unit_text(spoken)}`")
        return spoken
    unit = parse_unit(text, unit_text(spoken), where)
    if usual.is_counts and (unit * PER_EXPOSURE).is_equivalent(usual.unit):
        return unit * PER_EXPOSURE
    if not unit.is_equivalent(usual.unit):
        wanted = unit_text(spoken) or "no unit"
        raise InputError(f"{where}.unit: '{text}' has the wrong dimension: expected one such as `{wanted}`")
    return unit


def _parse_limit(
    entry: Mapping[str, Any], key: str, usual: float, name: str, unit: u.UnitBase, where: str
) -> float:
    if key not in entry:
        is_angle = unit.is_equivalent(u.deg) and unit != u.dimensionless_unscaled
        limit = float((usual * u.deg).to_value(unit)) if is_angle else usual
    else:
        limit = math.nan if entry[key] is None else number(entry[key], f"{where}.{key}")
    # the poles are where a latitude ends, no limit to search within
    is_pole = name == "lat_0" and abs((limit * unit).to_value(u.deg)) >= 90
    return math.nan if math.isinf(limit) or is_pole else limit


def _with_range(prior: Prior | None, low: float, high: float) -> tuple[float, float]:
    """Limits within which a prior is not zero: the fit must not step outside."""
    limits = PRIORS.find(prior.kind, prior.kind).companions.get("limits") if prior else None
    if prior is None or limits is None:
        return low, high
    least, most = limits(**prior.values)
    return (
        least if math.isnan(low) else max(low, least),
        most if math.isnan(high) else min(high, most),
    )


def _parse_prior(entry: Any, unit: u.UnitBase, where: str) -> Prior:
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise InputError(f"{where}: expected a `type` and its `parameters`, found {entry!r}")
    check_keys(entry, ("type", "parameters", "weight"), where)
    plugin = PRIORS.find(entry["type"], f"{where}.type")
    given = given_parameters(entry.get("parameters") or [], plugin.options, plugin.name, where)
    values = {name: float(default) for name, (_, default) in plugin.options.items()}
    for name, item in given.items():
        values[name] = _prior_value(item, unit, f"{where}.{name}", float(values[name]))
    weight = number(entry.get("weight", 1.0), f"{where}.weight")
    if not 0 <= weight < math.inf:
        raise InputError(f"{where}.weight: must be a finite number from 0, found {weight}")
    problem = plugin.companions.get("problem")
    if problem and (words := problem(**values)):
        raise InputError(f"{where}: {words}: correct it")
    return Prior(plugin.name, values, weight)


def _prior_value(entry: Mapping[str, Any], unit: u.UnitBase, where: str, default: float) -> float:
    check_keys(entry, ("name", "value", "unit", "error", "min", "max"), where)
    if (text := entry.get("unit")) and parse_unit(text, unit_text(unit) or "TeV", where) != unit:
        raise InputError(
            f"{where}.unit: '{text}' is not the parameter's unit '{unit_text(unit)}': priors are in that of the parameter"
        )
    value = number(entry.get("value", default), f"{where}.value")
    if not math.isfinite(value):
        raise InputError(f"{where}.value: must be finite, found {value}: correct it")
    return value


def _prior_entry(prior: Prior, unit: u.UnitBase) -> dict[str, Any]:
    plugin: Plugin = PRIORS.find(prior.kind, prior.kind)
    return {
        "type": type_name(plugin),
        "parameters": [
            {"name": name, "value": float(value), "unit": ""} for name, value in prior.values.items()
        ],
        "weight": float(prior.weight),
    }


def type_name(plugin: Plugin) -> str:
    """Name of a plug-in's kind in a model file: the field's name of the class, or its own."""
    return next((tag for tag in plugin.tags if tag.endswith(("Model", "Prior"))), plugin.name)
