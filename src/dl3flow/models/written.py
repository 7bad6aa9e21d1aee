"""Parts of a source as options write them: ``{type: power_law, index: 2.5}``, what is left out taking its default."""

from collections.abc import Mapping
from typing import Annotated, Any

import astropy.units as u

from dl3flow.errors import InputError, choices
from dl3flow.models.resolve import find_model, flux_power, parameters_of, resolve
from dl3flow.models.source import Component, Parameter
from dl3flow.registry import Plugin, convert
from dl3flow.units import spoken_powers

_PLACE = ("lon_0", "lat_0")


def parse_spectrum(entry: Any) -> Component:
    """Spectral component of ``{type: power_law, index: 2.5}``.

    Raises
    ------
    ValueError
        If it is no such mapping, names an unknown type or parameter, is no flux, or a value has the wrong unit.
    """
    found = _parse(entry, "spectral", ())
    if flux_power(found, "type") != 1:
        raise ValueError(f"'{found.kind}' is a factor, no spectrum: take a spectral model")
    return found


def parse_shape(entry: Any) -> Component:
    """Spatial component of ``{type: gauss, sigma: 0.1 deg}``, without a place: that is what is looked for.

    Raises
    ------
    ValueError
        As `parse_spectrum`, and for a model that has no place.
    """
    found = _parse(entry, "spatial", _PLACE)
    names = [p.name for p in found.parameters]
    if not set(_PLACE) <= set(names):
        raise ValueError(f"'{found.kind}' cannot be put anywhere: take a model with `lon_0` and `lat_0`")
    return found


WrittenSpectrum = Annotated[Component, parse_spectrum]
WrittenShape = Annotated[Component, parse_shape]


def written(component: Component) -> str:
    """Component in words, such as ``power_law, index 2.5``, without its place."""
    values = []
    for p in component.parameters:
        if p.name not in _PLACE:
            # angles are spoken of in degrees
            at = p.quantity.to(u.deg) if p.unit.is_equivalent(u.deg) else p.quantity
            unit = (name if power == 1 else f"{name}{power}" for name, power in spoken_powers(at.unit))
            values.append(" ".join([p.name, f"{at.value:.4g}", *unit]))
    return ", ".join([component.kind, *values])


def _parse(entry: Any, part: str, refused: tuple[str, ...]) -> Component:
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise ValueError(f"expected a `type` and its parameters, found {entry!r}")
    plugin = find_model(Component(str(entry["type"]), ()), part, "type")
    options = plugin.bind({key: entry[key] for key in entry if key in plugin.options}, plugin.name)
    units = parameters_of(plugin, options)
    allowed = [key for key in (*units, *options) if key not in refused]
    for key in entry:
        if key != "type" and key not in allowed:
            raise ValueError(f"unknown parameter '{key}' of '{plugin.name}': {choices(str(key), allowed)}")
    parameters = tuple(
        Parameter(name, _value(entry, name, unit, default), unit, frozen=True)
        for name, (unit, default) in units.items()
    )
    found = Component(plugin.name, parameters, options)
    _check(found, plugin, part)
    return found


def _value(entry: Mapping[str, Any], name: str, unit: Any, default: Any) -> float:
    if name in entry:
        return float(convert(entry[name], Annotated[float, unit], name))
    return float(default)


def _check(component: Component, plugin: Plugin, part: str) -> None:
    check = resolve(component, part, plugin.name).companions.get("check")
    if check and (words := check(*(p.value for p in component.parameters))):
        raise InputError(f"{words}: correct it")
