"""Imports point down, siblings never import each other, and each outside dependency comes in by one door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "dl3flow"

LEVELS = {
    "errors": 0,
    "kernels": 0,
    "units": 0,
    "registry": 0,
    "geometry": 1,
    "irf": 2,
    "models": 2,
    "data": 3,
    "background": 4,
    "reduce": 4,
    "simulate": 4,
    "fit": 4,
    "io": 4,
    "estimators": 5,
    "plots": 5,
    "report": 5,
    "archive": 5,
    "steps": 6,
    "config": 6,
    "config_curves": 6,
    "config_estimators": 6,
    "config_fits": 6,
    "chain": 5,
    "plan": 6,
    "sources": 6,
    "plugins": 6,
    "checks": 6,
    "findings": 6,
    "pictures": 6,
    "digest": 6,
    "cli": 6,
    "__main__": 6,
    "__init__": 0,
}
# modules of level 0 that others of that level build on
BELOW = {("registry", "errors"), ("kernels", "errors")}
# who may import what from outside; a trailing dot means everything below a package
DOORS = {
    "h5py": ("io.",),
    "json": ("io.", "cli", "digest"),
    "yaml": ("io.",),
    "astropy.io": ("io.",),
    "gzip": ("io.",),
    "iminuit": (),
    "matplotlib": ("plots.",),
    "numba": ("kernels.ts_map_numba",),
    "pandas": ("io.",),
    "jinja2": ("report.",),
    "regions": ("geometry.", "background."),
    "snakemake": (),
    "gammapy": (),
    "multiprocessing": (),
    "threading": ("io.term_store",),
    "concurrent": ("fit.engine",),
}
# the kernels are arithmetic on arrays
KERNEL_IMPORTS = {"numpy", "scipy", "math", "collections", "typing", "functools", "dataclasses", "dl3flow"}


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, submodules resolved as far as the import says."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Dotted name below dl3flow (packages end with a dot) and path of each module."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield (
            ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
            + ("." if parts[-1] == "__init__" and len(parts) > 1 else ""),
            path,
        )


def violations(root: Path) -> list[str]:
    """Each import that breaks a rule, in words."""
    found = []
    for name, path in modules(root):
        unit = name.split(".")[0]
        for target in imports(path):
            top, *rest = target.split(".")
            if top == "dl3flow":
                other = rest[0] if rest and rest[0] in LEVELS else "__init__"
                if other != unit and not _allowed(unit, other):
                    found.append(f"{name} (level {LEVELS[unit]}) imports {other} (level {LEVELS[other]})")
            elif unit == "kernels" and top not in KERNEL_IMPORTS and name not in DOORS.get(top, ()):
                found.append(f"{name} imports {top}: kernels know only numpy and scipy")
            for package, doors in DOORS.items():
                if (target == package or target.startswith(f"{package}.")) and not any(
                    f"{name}.".startswith(door if door.endswith(".") else f"{door}.") for door in doors
                ):
                    found.append(f"{name} imports {package}, whose door is {', '.join(doors) or 'none'}")
    return found


def _allowed(unit: str, other: str) -> bool:
    level, below = LEVELS[unit], LEVELS[other]
    return other == "__init__" or below < level or level == 6 or (unit, other) in BELOW


def test_every_package_has_a_level() -> None:
    assert {name.split(".")[0] for name, _ in modules(SRC)} <= set(LEVELS)


def test_imports_point_down() -> None:
    assert violations(SRC) == []


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        (
            "data/planted.py",
            "from dl3flow.fit.minimise import fit",
            "data.planted (level 3) imports fit (level 4)",
        ),
        ("reduce/planted.py", "from dl3flow.io import hdf5", "reduce.planted (level 4) imports io (level 4)"),
        (
            "plots/planted.py",
            "import dl3flow.estimators.registry",
            "plots.planted (level 5) imports estimators (level 5)",
        ),
        (
            "kernels/planted.py",
            "import astropy.units as u",
            "kernels.planted imports astropy: kernels know only numpy and scipy",
        ),
        ("fit/planted.py", "import iminuit", "fit.planted imports iminuit, whose door is none"),
        ("config.py", "import yaml", "config imports yaml, whose door is io."),
        (
            "reduce/planted.py",
            "from astropy.io import fits",
            "reduce.planted imports astropy.io, whose door is io.",
        ),
        (
            "steps/planted.py",
            "def late():\n    import snakemake.utils",
            "steps.planted imports snakemake, whose door is none",
        ),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, module: str, line: str, complaint: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    assert violations(tmp_path) == [complaint]


def test_the_ways_that_are_allowed_pass(tmp_path: Path) -> None:
    for module, line in {
        "io/hdf5.py": "import h5py\nfrom astropy.io import fits\nfrom dl3flow.data.dataset import Dataset",
        "fit/confidence.py": "import scipy\nfrom dl3flow import __version__",
        "estimators/flux_points.py": "from dl3flow.fit import fit",
        "steps/fit_datasets.py": "from dl3flow.io.hdf5 import read_dataset\nfrom dl3flow.fit.minimise import fit",
    }.items():
        path = tmp_path / module
        path.parent.mkdir(exist_ok=True)
        path.write_text(line + "\n")
    assert violations(tmp_path) == []
