"""The digest changes with the code that a step runs, and with nothing else."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dl3flow import digest as module
from dl3flow.digest import digest

TREE = {
    "__init__.py": "",
    "steps/__init__.py": "",
    "steps/estimate.py": "from dl3flow.estimators import TABLES\nfrom dl3flow.io import products\n\n\ndef run():\n    return TABLES, products\n",
    "steps/reduce.py": "from ..kernels.sums import total\n\n\ndef run():\n    return total([1])\n",
    "estimators/__init__.py": "from dl3flow.estimators import flux_points, light_curve\nfrom dl3flow.estimators.registry import TABLES\n",
    "estimators/registry.py": "TABLES = {}\n",
    "estimators/flux_points.py": "import dl3flow.kernels.sums\n\n\ndef flux_points(n):\n    return n + 1\n",
    "estimators/light_curve.py": "def light_curve(n):\n    return n\n",
    "io/__init__.py": "",
    "io/products.py": "from . import yaml\n\nFORMAT = 1\n",
    "io/yaml.py": "CAP = 10\n",
    "kernels/__init__.py": "",
    "kernels/sums.py": "def total(x):\n    return sum(x)\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def edited(root: Path, name: str, change: Callable[[str], str]) -> dict[str, bool]:
    """Which digests an edit changes."""

    def digests() -> dict[str, str]:
        module._tree.cache_clear()
        return {
            "flux": digest("estimate", "dl3flow.estimators.flux_points", root=root),
            "curve": digest("estimate", "dl3flow.estimators.light_curve", root=root),
            "reduce": digest("reduce", root=root),
        }

    before = digests()
    path = root / name
    path.write_text(change(path.read_text()))
    after = digests()
    return {key: before[key] != after[key] for key in before}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("estimators/flux_points.py", {"flux"}),
        ("estimators/light_curve.py", {"curve"}),
        ("estimators/registry.py", {"flux", "curve"}),
        ("steps/estimate.py", {"flux", "curve"}),
        ("steps/reduce.py", {"reduce"}),
        ("io/products.py", {"flux", "curve"}),
        ("io/yaml.py", {"flux", "curve"}),
        ("kernels/sums.py", {"flux", "reduce"}),
    ],
)
def test_an_edit_changes_the_digests_of_what_imports_it(root: Path, name: str, changed: set[str]) -> None:
    found = edited(root, name, lambda text: text + "\nEXTRA = 1\n")
    assert {key for key, value in found.items() if value} == changed


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment\n" + text,
        lambda text: '"""A docstring."""\n' + text,
        lambda text: text.replace("return n + 1", '"""Another docstring."""\n    return (n  +  1)  # why'),
        lambda text: text.replace("\n\n\n", "\n\n\n\n\n"),
    ],
)
def test_comments_docstrings_and_formatting_change_nothing(root: Path, change: Callable[[str], str]) -> None:
    assert not any(edited(root, "estimators/flux_points.py", change).values())


def test_a_new_plugin_in_the_list_of_a_package_changes_nothing(root: Path) -> None:
    (root / "estimators/profile.py").write_text("X = 1\n")
    found = edited(
        root, "estimators/__init__.py", lambda text: text + "from dl3flow.estimators import profile\n"
    )
    assert not any(found.values())


def test_a_changed_number_changes_the_digest(root: Path) -> None:
    assert edited(root, "estimators/flux_points.py", lambda text: text.replace("n + 1", "n + 2"))["flux"]


def test_plugins_of_other_packages_are_left_to_their_version(root: Path) -> None:
    assert digest("reduce", "elsewhere.plugin", root=root) == digest("reduce", root=root)


def test_relative_imports_reach_what_they_name(root: Path) -> None:
    tree = module._Tree(root)
    assert tree.imports("dl3flow.steps.reduce") == {"dl3flow.kernels.sums"}
    assert tree.imports("dl3flow.io.products") == {"dl3flow.io.yaml"}


def test_an_edit_that_keeps_size_and_time_is_seen_by_the_next_process(root: Path) -> None:
    path = root / "kernels/sums.py"
    status = path.stat()
    before = digest("reduce", root=root)
    path.write_text(path.read_text().replace("sum(x)", "max(x)"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    module._tree.cache_clear()
    assert digest("reduce", root=root) != before


def test_a_damaged_cache_is_made_anew(root: Path) -> None:
    before = digest("reduce", root=root)
    (root / "__pycache__/digest-1.json").write_text("{")
    module._tree.cache_clear()
    assert digest("reduce", root=root) == before


def test_plugins_are_found_without_importing_them(root: Path) -> None:
    (root / "estimators/flux_points.py").write_text(
        "import no_such_module\n\n\n@TABLES.register('sed')\ndef flux_points(n):\n    return n\n"
    )
    found = module.registered("dl3flow.estimators", "TABLES", root=root)
    assert found == dict.fromkeys(["flux_points", "sed"], "dl3flow.estimators.flux_points")
    assert module.registered("dl3flow.estimators", "MAPS", root=root) == {}


def test_all_steps_take_a_moment() -> None:
    steps = [path.stem for path in (Path(module.__file__).parent / "steps").glob("[a-z]*.py")]
    digests = [digest(step) for step in steps]
    assert len(set(digests)) == len(steps)
    module._tree.cache_clear()
    start = time.process_time()
    assert [digest(step) for step in steps] == digests
    assert time.process_time() - start < 0.5  # 20 ms on a quiet machine


def test_a_template_beside_a_module_counts(root: Path) -> None:
    (root / "io/page.html").write_text("<p>one</p>")
    assert edited(root, "io/page.html", lambda text: text.replace("one", "two")) == {
        "flux": True,
        "curve": True,
        "reduce": False,
    }


def test_the_version_of_an_imported_package_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "kernels/sums.py").write_text("import numpy\n\n\ndef total(x):\n    return numpy.sum(x)\n")
    monkeypatch.setattr(module, "_version", lambda source: "1.0")
    module._tree.cache_clear()
    before = digest("reduce", root=root), digest("estimate", "dl3flow.estimators.light_curve", root=root)
    monkeypatch.setattr(module, "_version", lambda source: "1.1")
    after = digest("reduce", root=root), digest("estimate", "dl3flow.estimators.light_curve", root=root)
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_the_report_depends_on_its_template() -> None:
    module._tree.cache_clear()
    assert set(module._tree(module._ROOT).beside("dl3flow.report.build")) == {
        "dl3flow.report/report.css",
        "dl3flow.report/report.html",
    }
