"""Settings of a matplotlib style file, each checked before a picture is drawn with it."""

import difflib
from collections.abc import Mapping
from typing import Any

from matplotlib import RcParams, rcParams

from dl3flow.errors import InputError

_SHAPES = (
    "axes",
    "contour",
    "errorbar",
    "figure",
    "font",
    "grid",
    "hatch",
    "hist",
    "image",
    "legend",
    "lines",
    "markers",
)
_TEXTS = (
    "mathtext",
    "patch",
    "path",
    "savefig",
    "scatter",
    "svg",
    "text",
    "xaxis",
    "xtick",
    "yaxis",
    "ytick",
)
# what would run code, need other programs, name other files, or make two equal pictures differ
_REFUSED = frozenset(
    {
        "figure.hooks",
        "figure.max_open_warning",
        "figure.raise_window",
        "savefig.directory",
        "savefig.format",
        "svg.hashsalt",
        "svg.id",
        "text.usetex",
    }
)


def split_style(text: str, where: str) -> dict[str, str]:
    """Settings of a style file, as text by their names, without the comments.

    Parameters
    ----------
    text : str
        Lines ``name: value``; what follows ``#`` outside of double quotes is a comment.
    where : str
        The file, for messages.

    Raises
    ------
    InputError
        Naming the line without a name or a value, or that sets a name again.
    """
    found: dict[str, str] = {}
    for n, line in enumerate(text.splitlines(), 1):
        # every other part stands between quotes, where `#` begins a colour
        parts = line.split('"')
        kept = []
        for k, part in enumerate(parts):
            bare, mark, _ = part.partition("#") if k % 2 == 0 else (part, "", "")
            kept.append(bare)
            if mark:
                break
        setting = '"'.join(kept).strip()
        if not setting:
            continue
        name, colon, value = (word.strip() for word in setting.partition(":"))
        if not colon or not name or not value:
            raise InputError(f"{where}: line {n}: expected `name: value`, found '{line.strip()}'")
        if name in found:
            raise InputError(f"{where}: line {n}: '{name}' is set twice: remove one of the two lines")
        found[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return found


def parse_style(settings: Mapping[str, str], where: str) -> dict[str, Any]:
    """Values of settings by their names, as matplotlib understands them.

    Parameters
    ----------
    settings : mapping of str
        Such as `split_style` gives.
    where : str
        The file, for messages.

    Raises
    ------
    InputError
        For a name that matplotlib does not know or that no picture may set, or a value that it refuses.
    """
    found: Any = RcParams()
    for name, value in settings.items():
        if name not in rcParams:
            near = difflib.get_close_matches(name, rcParams, n=1)
            remedy = f"did you mean '{near[0]}'?" if near else "remove the line"
            raise InputError(f"{where}: '{name}' is no setting of a matplotlib style file: {remedy}")
        if name.partition(".")[0] not in (*_SHAPES, *_TEXTS) or name in _REFUSED:
            raise InputError(f"{where}: '{name}' cannot be set for pictures: remove the line")
        try:
            found[name] = value
        except ValueError as error:
            why = " ".join(str(error).removeprefix(f"Key {name}: ").split())
            raise InputError(f"{where}: {name}: {why}: correct the value '{value}'") from None
    return {name: found[name] for name in settings}
