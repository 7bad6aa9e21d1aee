"""Digest of the code behind a step, so that an edit of the library reruns what depends on it and nothing else."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dl3flow.registry import Plugin

_PACKAGE = "dl3flow"
_ROOT = Path(__file__).parent


def digest(step: str, *plugins: Plugin | str, root: Path = _ROOT) -> str:
    """Hash of the meaning of every module that a step and the plug-ins of one job import, at any depth.

    Comments, docstrings, formatting and the order of files play no part. A package's ``__init__`` only lists its
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
    named = (plugin if isinstance(plugin, str) else plugin.module for plugin in plugins)
    inside = (name for name in named if name.startswith(f"{_PACKAGE}."))
    modules = _closure((f"{_PACKAGE}.steps.{step}", *inside), root)
    text = "\n".join(f"{name} {_meaning(_path(name, root))}" for name in sorted(modules))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    found = {}
    listed = (f"{source}.{name}" for source, name in _import_statements(package, root) if source == package)
    for module in listed:
        for node in _tree(_path(module, root)).body:
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{registry}.register":
                    tags = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
                    found.update(dict.fromkeys([node.name, *tags], module))
    return found


def _closure(names: tuple[str, ...], root: Path) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imports(name, root))
    return found


@cache
def _imports(name: str, root: Path) -> frozenset[str]:
    """Modules (never packages) of the project that one module imports itself."""
    found = set()
    for imported, attribute in _import_statements(name, root):
        target = _resolve(imported, attribute, root)
        if target is not None:
            found.add(target)
    return frozenset(found)


def _resolve(imported: str, attribute: str | None, root: Path) -> str | None:
    """Module behind ``from imported import attribute``, or behind ``import imported``; None outside the project."""
    if imported != _PACKAGE and not imported.startswith(f"{_PACKAGE}."):
        return None
    if attribute is not None and _exists(f"{imported}.{attribute}", root):
        return _resolve(f"{imported}.{attribute}", None, root)
    if not _is_package(imported, root):
        return imported
    if attribute is None or not _path(imported, root).exists():
        return None
    for source, name in _import_statements(imported, root):
        if name == attribute:
            return _resolve(source, name, root)
    return None


@cache
def _import_statements(name: str, root: Path) -> tuple[tuple[str, str | None], ...]:
    return tuple(_walk_imports(name, root))


def _walk_imports(name: str, root: Path) -> Iterator[tuple[str, str | None]]:
    package = name if _is_package(name, root) else name.rpartition(".")[0]
    for node in ast.walk(_tree(_path(name, root))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((source, alias.name) for alias in node.names)


def _exists(name: str, root: Path) -> bool:
    return _is_package(name, root) or _path(name, root).exists()


@cache
def _is_package(name: str, root: Path) -> bool:
    return root.joinpath(*name.split(".")[1:]).is_dir()


def _path(name: str, root: Path) -> Path:
    base = root.joinpath(*name.split(".")[1:])
    return base / "__init__.py" if _is_package(name, root) else base.with_name(f"{base.name}.py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@cache
def _meaning(path: Path) -> str:
    """Hash of a module's syntax tree without its docstrings."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
