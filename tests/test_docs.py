"""The documents say what the code does: every option with its default, every seed's feature with a test that exists."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import astropy.units as u
import pytest

from dl3flow.background import BACKGROUNDS
from dl3flow.background.section import MATCH, SHARED
from dl3flow.chain import FILTER
from dl3flow.config import SECTIONS as SECTIONS_OF_AN_ANALYSIS
from dl3flow.config_fits import KEYS, REFERENCE_KEYS, SYSTEMATICS_KEYS
from dl3flow.estimators import EVENT_TABLES, MAPS, TABLES
from dl3flow.io.datasets import READERS
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.groupings import GROUPINGS
from dl3flow.reduce.select import _CRITERIA
from dl3flow.registry import Plugin, Registry

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "config/README.md"
FEATURES = ROOT / "docs/features.md"
BUILDERS = [Plugin(p.name, p.companions["build"]) for p in BACKGROUNDS if "build" in p.companions]
# first cell of a table's head, and what its rows tell of
SECTIONS: dict[str, list[Registry]] = {
    "recipe": [RECIPES],
    "safe mask": [SAFE_MASKS],
    "background": [BACKGROUNDS],
    "estimator": [TABLES, MAPS, EVENT_TABLES],
    "grouping": [GROUPINGS],
}
SINGLE = {"events": FILTER, "runs": MATCH, "model": BUILDERS[0]}

# rows of the features that the founding documents name
SEEDED = {
    "A": [1, 3, 5, 6, 7, 8, 9, 11, 12],
    "B": [1, 2, 3, 6, 9, 10, 12, 13],
    "C": [1, 3, *range(5, 15), 17, 18, 19],
    "D": [*range(1, 18), 19, 20],
    "E": [*range(1, 8), 12],
    "F": list(range(1, 9)),
    "G": [*range(1, 14), 17],
    "H": list(range(1, 15)),
    "I": [1, 2, 11, 18, 19, 22],
    "J": [1, 2, 4],
    "M": [1, 2, 3, 4, 6, 7],
}


def tables(path: Path) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Head and rows of every table; an empty first cell repeats the one above."""
    block: list[list[str]] = []
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif block:
            head, _, *rows = block
            for above, row in zip(rows, rows[1:], strict=False):
                row[0] = row[0] or above[0]
            yield head, rows
            block = []


def plain(cell: str) -> str:
    return cell.strip("`")


def told(head: str, n_names: int) -> dict[tuple[str, ...], str]:
    """Default of every option, by (plug-in, option) or (option,), in the tables with that head."""
    return {
        tuple(plain(cell) for cell in row[:n_names]): plain(row[-1])
        for names, rows in tables(CONFIGURATION)
        if names[0] == head and names[-1] == "default"
        for row in rows
    }


def is_told(default: Any, text: str) -> bool:
    """True if a default of the code is what the text says."""
    if default is inspect.Parameter.empty:
        return text == "required"
    if isinstance(default, bool):
        return text == str(default).lower()
    if isinstance(default, u.Quantity):
        return bool(u.Quantity(text) == default)
    if isinstance(default, int | float):
        return float(text) == default
    if isinstance(default, str):
        return text == default
    # none, or a list of all choices: said in words
    return text not in ("", "required")


@pytest.mark.parametrize("head", SECTIONS)
def test_every_option_of_every_plugin_is_documented_with_its_default(head: str) -> None:
    found = {key: value for key, value in told(head, 2).items() if key[1]}
    plugins = [plugin for registry in SECTIONS[head] for plugin in registry]
    expected = {(p.name, name): default for p in plugins for name, (_, default) in p.options.items()}
    assert sorted(found) == sorted(expected)
    wrong = {key: text for key, text in found.items() if not is_told(expected[key], text)}
    assert wrong == {}
    text = CONFIGURATION.read_text()
    assert [p.name for p in plugins if f"| `{p.name}` |" not in text] == []


@pytest.mark.parametrize("head", SINGLE)
def test_every_option_of_a_section_is_documented_with_its_default(head: str) -> None:
    found = {key[0]: value for key, value in told(head, 1).items()}
    expected = {name: default for name, (_, default) in SINGLE[head].options.items()}
    if head == "runs":
        assert found.pop("observations") == "required"
    assert sorted(found) == sorted(expected)
    assert {key: text for key, text in found.items() if not is_told(expected[key], text)} == {}


def test_criteria_shared_keys_and_readers_are_documented() -> None:
    assert {key[0] for key in told("select", 1)} == set(_CRITERIA)
    assert {key[0] for key in told("key of every background", 1)} == set(SHARED)
    reader = next(row for head, rows in tables(CONFIGURATION) for row in rows if row[0] == "`reader`")
    assert [name for name in READERS if f"`{name}`" not in reader[1]] == []


@pytest.mark.parametrize(
    ("head", "keys"),
    [
        ("key of a fit", KEYS),
        ("key of systematics", SYSTEMATICS_KEYS),
        ("key of a reference", REFERENCE_KEYS),
    ],
)
def test_every_key_of_a_fit_is_documented(head: str, keys: tuple[str, ...]) -> None:
    assert [key[0] for key in told(head, 1)] == list(keys)


def test_every_section_of_an_analysis_is_documented() -> None:
    assert {key[0] for key in told("section", 1)} == set(SECTIONS_OF_AN_ANALYSIS)


def test_every_example_is_documented() -> None:
    text = CONFIGURATION.read_text()
    names = [path.name for path in sorted((ROOT / "config/analyses").glob("*.yaml"))]
    assert len(names) > 3
    assert [name for name in names if f"`{name}`" not in text] == []


@cache
def names_in(path: str) -> frozenset[str]:
    """Names of the tests in a file."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_test_that_the_features_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", FEATURES.read_text())
    assert len(named) > 100
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or name not in names_in(path) or not name.startswith("test_")
    ]
    assert missing == []
    # nothing is named in another form, which this test would overlook
    assert FEATURES.read_text().count("::") == len(named)


def test_every_feature_of_the_founding_documents_has_a_row_with_a_test() -> None:
    ids = [f"{letter}{number}" for letter, numbers in SEEDED.items() for number in numbers]
    assert len(ids) == 110
    rows = {row[0]: row for head, rows in tables(FEATURES) for row in rows if head[0] == "id"}
    assert [name for name in ids if name not in rows] == []
    # a row without a test says in so many words that the feature is missing
    without = [name for name in ids if "::" not in rows[name][-1] and "**Missing" not in rows[name][1]]
    assert without == []
