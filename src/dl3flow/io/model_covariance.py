"""Covariance of models as a table of text beside their file, one row and column per parameter in the order of the file."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dl3flow.errors import InputError
from dl3flow.io.files import read_text
from dl3flow.io.model_components import file_places
from dl3flow.models.source import Model, Models, ResponseModel, full_names


def file_names(models: Models, with_responses: bool) -> dict[str, str]:
    """Name of every parameter in a covariance file (``crab.spectral.index`` of ``crab.index``), in the order of the file.

    The peer reads by position and in its own order; of what it does not know, the responses, it must find nothing.
    """
    found: dict[str, str] = {}
    for model in models.all:
        if isinstance(model, ResponseModel) and not with_responses:
            continue
        names = full_names(model)
        for part in names:
            for n, name in _places(model, part):
                found[names[part][n]] = f"{model.name}.{part}.{name}"
    return found


def _places(model: Model, part: str) -> list[tuple[int, str]]:
    component = model.parts[part]
    if isinstance(model, ResponseModel):
        return [(n, p.name) for n, p in enumerate(component.parameters)]
    return file_places(component, part)


def covariance_table(
    models: Models, free: Sequence[str], covariance: np.ndarray, with_responses: bool
) -> Table:
    """Table of the covariance with zeros for frozen parameters; linked ones share the entry of the first."""
    parameters = models.parameters()
    names = file_names(models, with_responses)
    places = {name: n for n, name in enumerate(free)}
    by_label = {parameters[name].link: n for name, n in places.items() if parameters[name].link}
    slots = np.array([places.get(name, by_label.get(parameters[name].link, -1)) for name in names], dtype=int)
    used = slots >= 0
    matrix = np.zeros((len(names), len(names)))
    matrix[np.ix_(used, used)] = np.asarray(covariance, dtype=float)[np.ix_(slots[used], slots[used])]
    rows: dict[str, Any] = {"Parameters": list(names.values())}
    rows.update({str(n): [float(v) for v in matrix[:, n]] for n in range(len(names))})
    return Table(rows)


def free_names(models: Models) -> tuple[str, ...]:
    """Full names of the free parameters; of linked ones the first."""
    labels: set[str] = set()
    names = []
    for name, parameter in models.parameters().items():
        if not parameter.frozen and parameter.link not in labels:
            names.append(name)
        if parameter.link:
            labels.add(parameter.link)
    return tuple(names)


def covariance_of(models: Models, file: Path, with_responses: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the free parameters, and their covariance from a file, shape (n_free, n_free).

    Raises
    ------
    InputError
        If the file is no covariance, or has no row for a free parameter.
    """
    free = free_names(models)
    rows, matrix = _read_matrix(file)
    places = _rows(models, rows, with_responses)
    if missing := [name for name in free if name not in places]:
        raise InputError(
            f"{file}: has no row for the free parameter '{missing[0]}': write models and covariance together"
        )
    index = [places[name] for name in free]
    return free, matrix[np.ix_(index, index)]


def with_errors(models: Models, file: Path, with_responses: bool) -> Models:
    """Models with the errors of a covariance file."""
    rows, matrix = _read_matrix(file)
    errors = np.sqrt(np.diag(matrix)).tolist()
    changed = {}
    for name, row in _rows(models, rows, with_responses).items():
        parameter = models.parameters()[name]
        # the same number, up to the rounding of a square root: keep the digits of the model file
        if not math.isclose(errors[row], parameter.error, rel_tol=1e-9):
            changed[name] = replace(parameter, error=errors[row])
    return models.with_parameters(changed)


def _rows(models: Models, rows: Sequence[str], with_responses: bool) -> Mapping[str, int]:
    """Row of each parameter: the n-th row of a name is that of its n-th parameter."""
    places: dict[tuple[str, int], int] = {}
    seen: Counter[str] = Counter()
    for n, row in enumerate(rows):
        places[row, seen[row]] = n
        seen[row] += 1
    found: dict[str, int] = {}
    seen.clear()
    for full, row in file_names(models, with_responses).items():
        if (row, seen[row]) in places:
            found[full] = places[row, seen[row]]
        seen[row] += 1
    return found


def _read_matrix(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and matrix of a covariance file: a table of text with ``|`` between its columns."""
    lines = [line.strip().strip("|") for line in read_text(path).splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    try:
        header, body = rows[0], rows[1:]
        places = [header.index(str(n)) for n in range(len(body))]
        first = header.index("Parameters")
        names = [row[first] for row in body]
        matrix = np.array([[float(row[place]) for place in places] for row in body]).reshape(
            len(body), len(body)
        )
    except (ValueError, IndexError):
        raise InputError(
            f"{path}: is not a table of `Parameters` and one column per parameter: write it again"
        ) from None
    if (
        not np.isfinite(matrix).all()
        or not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0)
        or (np.diag(matrix) < 0).any()
    ):
        raise InputError(
            f"{path}: is not a covariance (finite, symmetric, with positive variances): write it again"
        )
    return names, matrix
