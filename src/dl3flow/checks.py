"""Checks of single configuration values, each an error of one sentence that names the place."""

from collections.abc import Mapping, Sequence
from typing import Any

from dl3flow.errors import InputError, choices
from dl3flow.geometry.axis import NAME_PATTERN
from dl3flow.registry import convert


def as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value, if it is a mapping."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected names with values, found {value!r}")
    return value


def check_keys(entry: Any, allowed: Sequence[str] | None, where: str, required: Sequence[str] = ()) -> None:
    """Raise unless ``entry`` is a mapping with known keys and all required ones; ``allowed`` None checks no key."""
    for key in as_mapping(entry, where):
        if allowed is not None and key not in allowed:
            raise InputError(f"{where}: unknown key '{key}': {choices(str(key), allowed)}")
    for key in required:
        if key not in entry:
            raise InputError(f"{where}: the key '{key}' is missing")


def as_text(value: Any, where: str) -> str:
    """The value, if it is text."""
    return str(convert(value, str, where))


def check_name(name: Any, where: str) -> None:
    """Raise unless the value can name a product."""
    if isinstance(name, bool):
        raise InputError(
            f"{where}: the name {name!r} is not possible: YAML reads off, on, no and yes as true or false; choose another name or "
            "put it in quotes"
        )
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise InputError(
            f"{where}: the name {name!r} is not possible: use letters, digits and . _ + -, beginning with a letter or digit"
        )


def as_choice(value: Any, allowed: Sequence[str], where: str) -> str:
    """The value, if it is one of those allowed."""
    if value not in allowed:
        raise InputError(f"{where}: '{value}' is not possible: {choices(str(value), allowed)}")
    return str(value)


def find_entry(name: Any, among: Any, kind: str, where: str) -> Any:
    """Entry of a mapping (or the name itself of a sequence), or an error that lists the choices."""
    if not isinstance(name, str) or name not in among:
        raise InputError(f"{where}: unknown {kind} '{name}': {choices(str(name), among)}")
    return among[name] if isinstance(among, Mapping) else name
