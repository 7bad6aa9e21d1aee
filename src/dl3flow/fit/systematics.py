"""Systematic errors of responses as parameters of a fit: which scales vary, for which datasets, with which priors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dl3flow.data.dataset import FitData
from dl3flow.models.source import Component, Models, Parameter, Prior, ResponseModel


class Scale(NamedTuple):
    """A parameter of `ResponseModel`: its name, what a right response has, and the least that can be."""

    name: str
    right: float
    least: float


# by the key of the configuration
SCALES: Mapping[str, Scale] = {
    "energy_scale": Scale("energy_scale", 0.0, -0.9),
    "effective_area": Scale("exposure_scale", 1.0, 0.0),
    "background": Scale("background_scale", 1.0, 0.0),
}


def response_model(name: str, datasets: Iterable[str], widths: Mapping[str, float]) -> ResponseModel:
    """Scales of the responses of some datasets, free where a width is given, with a Gaussian prior of that width.

    Parameters
    ----------
    name : str
    datasets : iterable of str
        Names of those that share the scales.
    widths : mapping
        Relative standard deviation by a key of `SCALES`.
    """
    parameters = tuple(
        Parameter(
            scale.name,
            scale.right,
            min=scale.least,
            frozen=key not in widths,
            prior=Prior("gaussian", {"mu": scale.right, "sigma": widths[key]}) if key in widths else None,
        )
        for key, scale in SCALES.items()
    )
    return ResponseModel(name, Component("response_scale", parameters), tuple(datasets))


def add_responses(
    models: Models, datasets: Sequence[FitData], systematics: Sequence[Mapping[str, Any]]
) -> Models:
    """Models with the systematic errors of the responses of a fit's datasets.

    Parameters
    ----------
    models : Models
    datasets : sequence of Dataset
        Those of the fit.
    systematics : sequence of mapping
        ``name`` of the model, names of the ``datasets`` that share its scales, and ``widths`` of the priors by a key of
        `SCALES`; what no dataset of the fit has is left out.
    """
    known = {dataset.name for dataset in datasets}
    added = []
    for entry in systematics:
        names = [name for name in entry["datasets"] if name in known]
        if names:
            added.append(response_model(entry["name"], names, entry["widths"]))
    return replace(models, responses=(*models.responses, *added))
