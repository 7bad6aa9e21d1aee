"""Digest of the code behind a step, so that an edit of the library reruns what depends on it and nothing else."""

import ast
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from dl3flow.errors import InputError
from dl3flow.io.files import write_text
from dl3flow.registry import Plugin

_PACKAGE = "dl3flow"
_ROOT = Path(__file__).parent
_CODE = (".py", ".pyc", ".typed")
_CACHE = "__pycache__/digest-1.json"


def digest(step: str, *plugins: Plugin | str, root: Path = _ROOT) -> str:
    """Hash of the meaning of every module that a step and the plug-ins of one job import, at any depth.

    Comments, docstrings, formatting and the order of files play no part. Other files beside a module (the templates of
    the report) count with their content, and other packages that the modules import with their version. A package's ``__init__`` only lists its
    plug-ins, so it is looked through, not followed: a name imported from it leads to the module that defines the
    name, and the plug-ins that a job uses are added by the caller.

    Parameters
    ----------
    step : str
        Name of a module in ``steps``.
    *plugins : Plugin or str
        Plug-ins that the job calls, or dotted names of modules.
    root : Path
        Folder of the package.

    Returns
    -------
    digest : str, 16 hexadecimal digits
    """
    tree = _tree(root)
    named = (plugin if isinstance(plugin, str) else plugin.module for plugin in plugins)
    waiting = [f"{_PACKAGE}.steps.{step}", *(name for name in named if name.startswith(f"{_PACKAGE}."))]
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = tree.facts(name).meaning
            found |= tree.beside(name)
            found |= {
                source: _version(source) for source, _ in tree.facts(name).imports if _is_foreign(source)
            }
            waiting.extend(tree.imports(name))
    tree.store()
    text = "\n".join(f"{name} {found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_foreign(source: str) -> bool:
    return source.split(".")[0] not in (_PACKAGE, *sys.stdlib_module_names)


@cache
def _version(source: str) -> str:
    """Version of the distribution that bears a module's name; empty for one that bears another."""
    try:
        return version(source.split(".")[0])
    except PackageNotFoundError:
        return ""


def registered(package: str, registry: str, root: Path = _ROOT) -> dict[str, str]:
    """Module that registers each name, found without importing it (drawing libraries are slow to import).

    Parameters
    ----------
    package : str
        Dotted name of a package that lists its plug-in modules.
    registry : str
        Name of the registry, such as ``PLOTS``.

    Returns
    -------
    modules : dict
        Dotted module name by plug-in name or tag.
    """
    tree = _tree(root)
    listed = [f"{source}.{name}" for source, name in tree.facts(package).imports if source == package]
    return {
        name: module for module in listed for kind, name in tree.facts(module).registers if kind == registry
    }


class _Facts(NamedTuple):
    """What is kept of one module.

    Attributes
    ----------
    meaning : str
        Hash of its syntax tree without docstrings.
    imports : list of (module, name or None)
        From ``from module import name`` and ``import module``.
    registers : list of (registry, name)
        Plug-ins, with their tags.
    """

    meaning: str
    imports: list[tuple[str, str | None]]
    registers: list[tuple[str, str]]


class _Tree:
    """Facts on the modules below one folder, kept between processes for files that have not changed since."""

    def __init__(self, root: Path) -> None:
        self.root, self.known, self.is_new = root, dict[str, _Facts](), False
        # what of the folder was looked at: it does not change under a process
        self.packages: dict[str, bool] = {}
        self.followed: dict[str, set[str]] = {}
        self.others: dict[str, dict[str, str]] = {}
        self.kept: dict[str, list[object]] = {}
        with contextlib.suppress(OSError, ValueError):
            self.kept = json.loads((root / _CACHE).read_text())

    def facts(self, name: str) -> _Facts:
        """Facts on one module, or on a package's ``__init__``."""
        if name not in self.known:
            path = self.path(name)
            status = path.stat()
            # like git's index: no edit leaves all four as they were
            key = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            entry = self.kept.get(name, [None])
            if entry[0] != key:
                entry = self.kept[name] = [key, *_read_facts(path, name, self.is_package(name))]
                self.is_new = True
            self.known[name] = _Facts(*entry[1:])  # type: ignore[arg-type]
        return self.known[name]

    def store(self) -> None:
        """Keep the facts for the next process, where the folder can be written."""
        if self.is_new:
            self.is_new = False
            with contextlib.suppress(InputError):
                write_text(self.root / _CACHE, json.dumps(self.kept))

    def imports(self, name: str) -> set[str]:
        """Modules (never packages) of the project that one module imports itself."""
        if name not in self.followed:
            targets = (self.resolve(source, attribute) for source, attribute in self.facts(name).imports)
            self.followed[name] = {target for target in targets if target is not None}
        return self.followed[name]

    def beside(self, name: str) -> dict[str, str]:
        """Content hashes of the files beside a module that are no Python."""
        package = name.rpartition(".")[0]
        if package not in self.others:
            files = (f for f in self.path(name).parent.iterdir() if f.suffix not in _CODE and f.is_file())
            self.others[package] = {
                f"{package}/{f.name}": hashlib.sha256(f.read_bytes()).hexdigest() for f in files
            }
        return self.others[package]

    def resolve(self, source: str, attribute: str | None) -> str | None:
        """Module behind ``from source import attribute``, or behind ``import source``; None outside the project."""
        if source != _PACKAGE and not source.startswith(f"{_PACKAGE}."):
            return None
        if attribute is not None and self.exists(f"{source}.{attribute}"):
            return self.resolve(f"{source}.{attribute}", None)
        if not self.is_package(source):
            return source
        for origin, name in self.facts(source).imports if attribute is not None else ():
            if name == attribute:
                return self.resolve(origin, name)
        return None

    def exists(self, name: str) -> bool:
        return self.is_package(name) or self.path(name).exists()

    def is_package(self, name: str) -> bool:
        if name not in self.packages:
            self.packages[name] = self.root.joinpath(*name.split(".")[1:], "__init__.py").exists()
        return self.packages[name]

    def path(self, name: str) -> Path:
        """File of a module or package."""
        base = self.root.joinpath(*name.split(".")[1:])
        return base / "__init__.py" if self.is_package(name) else base.with_name(f"{base.name}.py")


_tree = cache(_Tree)


def _read_facts(path: Path, name: str, is_package: bool) -> _Facts:
    tree = ast.parse(path.read_bytes())
    parts = (name if is_package else name.rpartition(".")[0]).split(".")
    imports: list[tuple[str, str | None]] = []
    registers: list[tuple[str, str]] = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            imports += [(source, alias.name) for alias in node.names]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            if isinstance(node, ast.FunctionDef):
                registers += _registrations(node)
    return _Facts(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports, registers)


def _registrations(node: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    for call in node.decorator_list:
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "register"
        ):
            tags = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
            yield from ((ast.unparse(call.func.value), str(name)) for name in (node.name, *tags))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """A module and its statements at any depth; expressions hold none."""
    yield node
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        children = getattr(node, field, ())
        for child in children if isinstance(children, list) else ():
            yield from _statements(child)
