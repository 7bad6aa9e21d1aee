"""The one exception that a user's wrong input ends in: a sentence, never a traceback."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A wrong file, key or value: names the place, the value found and the remedy in one sentence."""


def choices(wrong: str, names: Iterable[str]) -> str:
    """Text that lists the allowed names and suggests the nearest one: ``did you mean 'x'? (choices: x, y)``."""
    allowed = sorted(names)
    near = difflib.get_close_matches(wrong, allowed, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}(choices: {', '.join(allowed) or 'none'})"
