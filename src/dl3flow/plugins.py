"""Models of the user's own: files named in an analysis, whose functions register themselves, checked before any is used.

A file's functions are code that runs; it is the user's own, like the analysis that names it.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl3flow.errors import InputError
from dl3flow.models.priors import PRIORS
from dl3flow.models.soundness import find_fault
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.models.temporal import TEMPORAL_MODELS
from dl3flow.registry import Plugin, Registry
from dl3flow.sources import existing_file

REGISTRIES: Mapping[str, Registry] = {
    "spectral": SPECTRAL_MODELS,
    "norm": NORM_MODELS,
    "spatial": SPATIAL_MODELS,
    "temporal": TEMPORAL_MODELS,
    "prior": PRIORS,
}
_HOW = "write `@SPECTRAL_MODELS.register()` (with its brackets) above the function"


@dataclass(frozen=True, eq=False)
class _Loaded:
    """What a file registered: names and tags by kind of model, and the hash of its text."""

    models: Mapping[str, Mapping[str, Plugin]]
    text: str


_files: dict[Path, _Loaded] = {}


def plugin_files(entry: Any, where: str) -> list[Path]:
    """Files of the key ``plugins`` of an analysis, a list of names of Python files.

    Raises
    ------
    InputError
        If it is no such list, or a file is missing.
    """
    if not isinstance(entry, list):
        raise InputError(
            f"{where}: expected a list of Python files such as `[config/plugins/my_model.py]`, found {entry!r}"
        )
    found = []
    for n, name in enumerate(entry):
        if not isinstance(name, str) or not name.endswith(".py"):
            raise InputError(f"{where}[{n}]: expected the name of a Python file (.py), found {name!r}")
        found.append(existing_file(name, f"{where}[{n}]"))
    if len({path.resolve() for path in found}) < len(found):
        raise InputError(f"{where}: a file is named twice in {entry}: keep one")
    return found


def load_plugins(paths: Sequence[Path]) -> None:
    """Make the models of these files known, and those of no other file of the user's.

    Each file is imported once in a process, or again if it has changed.

    Raises
    ------
    InputError
        If a file is missing, cannot be imported, registers nothing or a name that is taken, or holds a model that is not
        finite, does not take arrays, or has a wrong gradient at its defaults.
    """
    _forget_user_models()
    for path in paths:
        _load(Path(path))


def _forget_user_models() -> None:
    for part, registry in REGISTRIES.items():
        own = {name for loaded in _files.values() for name in loaded.models.get(part, {})}
        registry.restore({name: plugin for name, plugin in registry.entries().items() if name not in own})


def _load(path: Path) -> None:
    place = path.resolve()
    try:
        text = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: the plug-in cannot be read ({error.strerror}): check `plugins`") from None
    known = {part: registry.entries() for part, registry in REGISTRIES.items()}
    if place in _files and _files[place].text == text:
        _register_again(path, _files[place], known)
        return
    _files.pop(place, None)
    try:
        _import(path, f"dl3flow_plugin_{hashlib.sha256(str(place).encode()).hexdigest()[:12]}")
        added = {
            part: {name: plugin for name, plugin in registry.entries().items() if name not in known[part]}
            for part, registry in REGISTRIES.items()
        }
        _check(path, added)
    except InputError:
        for part, registry in REGISTRIES.items():
            registry.restore(known[part])
        raise
    _files[place] = _Loaded(added, text)


def _register_again(path: Path, loaded: _Loaded, known: Mapping[str, Mapping[str, Plugin]]) -> None:
    for part, models in loaded.models.items():
        for name in models:
            if name in known[part]:
                raise InputError(
                    f"{path}: the {REGISTRIES[part].kind} '{name}' is registered twice: rename one"
                )
        REGISTRIES[part].restore({**known[part], **models})


def _import(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: is no Python file: name one that ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        sys.modules.pop(name, None)
        raise InputError(f"{path}{_line(error, path)}: {_reason(error)}") from None


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f", line {frames[-1].lineno}" if frames else ""


def _reason(error: BaseException) -> str:
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, KeyError) and said.endswith("is registered twice"):
        return f"the {said}: give yours a name and tags of its own"
    if isinstance(error, SyntaxError):
        said = error.msg
    return f"the plug-in cannot be imported ({type(error).__name__}: {' '.join(said.split())}): correct it"


def _check(path: Path, added: Mapping[str, Mapping[str, Plugin]]) -> None:
    if not any(added.values()):
        raise InputError(f"{path}: the plug-in registers no model: {_HOW}")
    for part, models in added.items():
        for plugin in dict.fromkeys(models.values()):
            if fault := find_fault(plugin, part):
                raise InputError(f"{path}: the {REGISTRIES[part].kind} '{plugin.name}': {fault}")
