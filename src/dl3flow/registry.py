"""Plug-ins by name: a name in the configuration finds a function, whose signature is the schema of its options."""

import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import astropy.units as u

from dl3flow.errors import InputError, choices


def convert(value: Any, hint: Any, where: str) -> Any:
    """Turn a configuration value into what the annotation ``hint`` asks for.

    ``Annotated[float, unit]`` gives a float in that unit, ``Annotated[Quantity, unit]`` a Quantity,
    ``Annotated[T, function]`` the function's result; ``Literal``, ``X | None``, lists and plain types are checked.

    Raises
    ------
    InputError
        Naming ``where``, the value and what was expected.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, marker = args[0], args[1]
        if isinstance(marker, u.UnitBase):
            return _convert_quantity(value, marker, where, as_float=kind is float)
        if isinstance(marker, u.PhysicalType):
            return _convert_quantity(value, marker._unit, where, as_float=False)
        try:
            return marker(value)
        except (ValueError, TypeError, KeyError) as error:
            # parsers do not know what they read and call it `value`
            raise InputError(f"{where}: {str(error).removeprefix('value: ')}") from None
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return convert(value, next(arg for arg in args if arg is not type(None)), where)
    if origin is Literal:
        if value not in args:
            raise InputError(f"{where}: '{value}' is not possible: {choices(str(value), map(str, args))}")
        return value
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise InputError(f"{where}: expected a list, found {value!r}")
        return origin(convert(item, args[0], f"{where}[{n}]") for n, item in enumerate(value))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and (
        not isinstance(value, hint) or (hint is int and isinstance(value, bool))
    ):
        raise InputError(f"{where}: expected {_SPOKEN[hint]}, found {value!r}")
    if hint is float:
        raise InputError(f"{where}: expected a number, found {value!r}")
    return value


_SPOKEN = {int: "a whole number", str: "text", bool: "true or false"}


def _in_a_file(unit: u.UnitBase) -> str:
    return " ".join(
        f"{base}{'' if power == 1 else power}" for base, power in zip(unit.bases, unit.powers, strict=True)
    )


def _convert_quantity(value: Any, unit: u.UnitBase, where: str, *, as_float: bool) -> Any:
    expected = f"expected {'a number' if unit == u.dimensionless_unscaled else f'a value with a unit such as `1 {_in_a_file(unit)}`'}"
    if isinstance(value, bool) or not isinstance(value, str | int | float | u.Quantity):
        raise InputError(f"{where}: {expected}, found {value!r}")
    try:
        quantity = u.Quantity(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: {expected}, found {value!r}") from None
    if quantity.unit == u.dimensionless_unscaled and unit != u.dimensionless_unscaled:
        raise InputError(f"{where}: {expected}, found the bare number {value!r}")
    if not quantity.unit.is_equivalent(unit):
        raise InputError(f"{where}: {expected}, found '{value}' with unit '{quantity.unit}'")
    if not quantity.isscalar or not math.isfinite(quantity.value):
        raise InputError(f"{where}: expected one finite value, found {value!r}")
    return float(quantity.to_value(unit)) if as_float else quantity


@dataclass(frozen=True, eq=False)
class Plugin:
    """A registered function with its names and companions (such as ``gradient``)."""

    name: str
    function: Callable[..., Any]
    tags: tuple[str, ...] = ()
    companions: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    @property
    def module(self) -> str:
        """Dotted name of the module that defines the function."""
        return self.function.__module__

    @cached_property
    def options(self) -> dict[str, tuple[Any, Any]]:
        """Annotation and default of each keyword-only option; ``inspect.Parameter.empty`` where required."""
        hints = get_type_hints(self.function, include_extras=True)
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: (hints.get(p.name, Any), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def parameters(self) -> dict[str, tuple[u.UnitBase, Any]]:
        """Internal unit and default of each model parameter (annotated with a unit alias), in the order of the signature."""
        hints = get_type_hints(self.function, include_extras=True)
        found = inspect.signature(self.function).parameters.values()
        return {
            p.name: (get_args(hints[p.name])[1], p.default)
            for p in found
            if get_origin(hints.get(p.name)) is Annotated and p.kind is not p.KEYWORD_ONLY
        }

    def bind(self, options: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Check configuration options against the signature and convert them to keyword arguments.

        Raises
        ------
        InputError
            For an unknown or missing option, or a value of the wrong type or unit.
        """
        for key in options:
            if key not in self.options:
                raise InputError(
                    f"{where}: unknown option '{key}' of '{self.name}': {choices(str(key), self.options)}"
                )
        bound = {}
        for key, (hint, default) in self.options.items():
            if key in options:
                bound[key] = convert(options[key], hint, f"{where}.{key}")
            elif default is inspect.Parameter.empty:
                raise InputError(f"{where}: option '{key}' of '{self.name}' is missing")
            else:
                bound[key] = default
        return bound


class Registry:
    """Plug-ins of one kind, found by name or tag."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._plugins: dict[str, Plugin] = {}

    def register(self, *tags: str, **companions: Any) -> Callable[[Callable[..., Any]], Plugin]:
        """Decorate a function to make it a plug-in under its own name and further ``tags``."""

        def add(function: Callable[..., Any]) -> Plugin:
            plugin = Plugin(function.__name__, function, tags, companions)
            for name in dict.fromkeys((plugin.name, *tags)):
                if name in self._plugins:
                    raise KeyError(f"{self.kind} '{name}' is registered twice")
                self._plugins[name] = plugin
            return plugin

        return add

    def find(self, name: Any, where: str) -> Plugin:
        """Plug-in of that name or tag.

        Raises
        ------
        InputError
            Listing the choices if there is none.
        """
        if not isinstance(name, str) or name not in self._plugins:
            raise InputError(f"{where}: unknown {self.kind} '{name}': {self._choices(str(name))}")
        return self._plugins[name]

    def bind(self, entry: Any, where: str) -> tuple[Plugin, dict[str, Any]]:
        """Plug-in and keyword arguments of a configuration entry ``{name: ..., option: ...}``."""
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise InputError(
                f"{where}: expected an entry with a `name`, found {entry!r} (names: {', '.join(self.names())})"
            )
        plugin = self.find(entry["name"], f"{where}.name")
        return plugin, plugin.bind({key: value for key, value in entry.items() if key != "name"}, where)

    def _choices(self, wrong: str) -> str:
        """The names to choose from; what is near a tag is taken for that tag."""
        names = self.names()
        tags = [name for name in self._plugins if name not in names]
        near = difflib.get_close_matches(wrong, [*names, *tags], n=1)
        listed = choices(wrong, names)
        return f"did you mean '{near[0]}'? {listed[listed.index('(choices') :]}" if near else listed

    def names(self) -> list[str]:
        """Names of all plug-ins, without their further tags."""
        return sorted({plugin.name for plugin in self._plugins.values()})

    def entries(self) -> dict[str, Plugin]:
        """Every name and tag with its plug-in, as they are now."""
        return dict(self._plugins)

    def restore(self, entries: Mapping[str, Plugin]) -> None:
        """Hold exactly these names and tags."""
        self._plugins = dict(entries)

    def __contains__(self, name: object) -> bool:
        return name in self._plugins

    def __iter__(self) -> Iterator[Plugin]:
        return iter([self._plugins[name] for name in self.names()])
