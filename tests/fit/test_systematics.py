"""Systematic errors as models: which parameters vary, for which datasets, with which priors."""

from collections.abc import Callable

import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.fit.systematics import add_responses
from dl3flow.models.source import Models, Prior


def test_scales_are_free_where_a_width_is_given(
    small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    datasets = [small_dataset("a-1"), small_dataset("a-2"), small_dataset("b")]
    asked = [
        {
            "name": "a-response",
            "datasets": ["a-1", "a-2", "a-3"],
            "widths": {"energy_scale": 0.15, "background": 0.02},
        },
        {"name": "c-response", "datasets": ["c"], "widths": {"effective_area": 0.1}},
    ]
    before = point_models()
    models = add_responses(before, datasets, asked)
    assert before.responses == ()
    # no dataset of the fit is called c
    (response,) = models.responses
    assert (response.name, response.datasets) == ("a-response", ("a-1", "a-2"))
    scales = {p.name: p for p in response.scale.parameters}
    assert {n: (p.value, p.frozen) for n, p in scales.items()} == {
        "energy_scale": (0.0, False),
        "exposure_scale": (1.0, True),
        "background_scale": (1.0, False),
    }
    assert scales["energy_scale"].prior == Prior("gaussian", {"mu": 0.0, "sigma": 0.15})
    assert scales["background_scale"].prior == Prior("gaussian", {"mu": 1.0, "sigma": 0.02})
    assert scales["exposure_scale"].prior is None
    assert scales["exposure_scale"].min == pytest.approx(0)
    assert "a-response.energy_scale" in models.parameters()
