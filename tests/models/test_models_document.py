"""docs/models.md names every registered model with its tags, parameters, units, defaults and frozen states."""

import math
import re
from pathlib import Path

import astropy.units as u
import pytest

from dl3flow.io.ebl import EBL_FILES
from dl3flow.models.compound import OPERATORS
from dl3flow.models.priors import PRIORS
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.models.temporal import TEMPORAL_MODELS
from dl3flow.registry import Plugin
from dl3flow.units import spoken_powers

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
SECTIONS = {
    "Spectra": SPECTRAL_MODELS,
    "Factors": NORM_MODELS,
    "Shapes": SPATIAL_MODELS,
    "In time": TEMPORAL_MODELS,
    "Priors": PRIORS,
}


def rows(section: str) -> dict[str, list[str]]:
    """Cells of the tables of a section by that of the first column."""
    text = DOCUMENT.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    cells = [
        [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("section", SECTIONS)
def test_no_model_is_absent_or_invented(section: str) -> None:
    found = set(rows(section)) - {"model", "prior", "---", "name", *EBL_FILES}
    assert found == set(SECTIONS[section].names()), "add or remove a row of docs/models.md"


@pytest.mark.parametrize(
    ("section", "plugin"),
    [pytest.param(s, p, id=f"{s}-{p.name}") for s, registry in SECTIONS.items() for p in registry],
)
def test_a_row_says_what_the_code_does(section: str, plugin: Plugin) -> None:
    tags, value, parameters = rows(section)[plugin.name]
    assert tags == (", ".join(f"`{tag}`" for tag in plugin.tags) or "none")
    known = plugin.parameters
    if section == "Priors":
        known = {name: (u.dimensionless_unscaled, default) for name, (_, default) in plugin.options.items()}
    frozen = plugin.companions.get("frozen") or ()
    if known:
        expected = [_spoken(name, *known[name]) + " (frozen)" * (name in frozen) for name in known]
        assert parameters == ", ".join(expected)
    if section in ("Spectra", "Factors"):
        named = set(re.findall(r"`(\w+)(?:: \w+)?`", value))
        assert named >= set(known or plugin.options) - {"energy", "param", "values"}


def _spoken(name: str, unit: u.UnitBase, default: float) -> str:
    if unit == u.rad:
        unit, default = u.deg, math.degrees(default)
    powers = [base if power == 1 else f"{base}{int(power)}" for base, power in spoken_powers(unit)]
    words = ["from the file"] if math.isnan(default) else [f"{default:.8g}", *powers]
    return " ".join([f"`{name}`", *words])


def test_operators_and_tables_are_those_of_the_code() -> None:
    operators = rows("Compounds")
    assert {name: cells[1] for name, cells in operators.items() if name in OPERATORS} == {
        name: operator.rule for name, operator in OPERATORS.items()
    }
    tables = rows("Factors")
    assert {name: tables[name] for name in EBL_FILES} == {n: [f"`{f}`"] for n, f in EBL_FILES.items()}
