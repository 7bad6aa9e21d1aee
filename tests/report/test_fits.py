"""Tables of a fit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dl3flow.data.products import FitResult
from dl3flow.models.source import Models
from dl3flow.report.fits import parameter_table


def test_a_linked_parameter_is_not_fixed(point_models: Callable[..., Models]) -> None:
    """It has the error of the first of its label, which its row names; a frozen one is fixed whatever its label."""
    one, two = point_models().sources[0], replace(point_models().sources[0], name="t")
    models = Models((one, two))
    linked = {
        name: replace(p, link=p.name, error=0.25, frozen=p.name == "reference")
        for name, p in models.parameters().items()
        if p.name in ("index", "reference")
    }
    fit = FitResult(
        True, "", 0.0, models.with_parameters(linked), ("s.index",), np.array([[0.0625]]), (), {"name": "x"}
    )
    rows = {row[0]: [str(cell) for cell in row[1:]] for row in parameter_table("f", fit).rows}
    assert rows["s.index"] == ["2.50 ± 0.25", "", "free"]
    assert rows["t.index"] == ["2.50 ± 0.25", "", "that of s.index"]
    assert rows["t.reference"][-1] == rows["s.reference"][-1] == "fixed"
