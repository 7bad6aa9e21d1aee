"""The step that draws counts of models: from a file to a file that an analysis reads."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dl3flow.cli import main
from dl3flow.data.dataset import Dataset
from dl3flow.fit.npred import predict_counts
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.models_yaml import models_to_mapping
from dl3flow.io.provenance import collect_provenance
from dl3flow.models.source import Models
from dl3flow.simulate.fake import fake


def call(folder: Path, options: dict, files: list[str]) -> int:
    words = ["fake_datasets", "--input", "datasets", *files, "--output", "dataset", str(folder / "fake.fits")]
    return main([*words, "--options", json.dumps(options)])


@pytest.fixture
def stack(small_dataset: Callable[..., Dataset], tmp_path: Path) -> Path:
    path = tmp_path / "cube" / "stacked.fits"
    path.parent.mkdir()
    write_fits_dataset(path, small_dataset(), collect_provenance("test", "", {}, {}))
    return path


def test_counts_are_those_of_the_library(
    stack: Path, tmp_path: Path, small_dataset: Callable[..., Dataset], point_models: Callable[..., Models]
) -> None:
    models = point_models(1e-9)
    options = {"models": models_to_mapping(models), "seed": 4, "name": "mine"}
    assert call(tmp_path, options, [str(stack)]) == 0
    found = read_fits_dataset(tmp_path / "fake.fits", "mine")
    given = read_fits_dataset(stack, "mine")
    signal, background = predict_counts(given, models)
    assert np.array_equal(found.counts.data, fake(given, signal, 4, background=background).counts.data)
    total = float((signal + background).sum())
    assert found.counts.data.sum() == pytest.approx(total, abs=4 * np.sqrt(total))
    assert found.mu_bkg == pytest.approx(background, rel=1e-6)


def test_what_is_wrong_is_a_sentence(
    stack: Path, tmp_path: Path, point_models: Callable[..., Models], capsys: pytest.CaptureFixture[str]
) -> None:
    models = models_to_mapping(point_models())
    assert call(tmp_path, {"models": models, "seed": 4}, [str(stack), str(stack)]) == 1
    assert "expected one reduced observation or stack, found 2" in capsys.readouterr().err
    assert call(tmp_path, {"models": models, "seed": "x"}, [str(stack)]) == 1
    assert "seed: expected a whole number, found 'x'" in capsys.readouterr().err
    assert call(tmp_path, {"models": models, "seed": -1}, [str(stack)]) == 1
    assert "seed: must not be negative, found -1" in capsys.readouterr().err
    assert call(tmp_path, {"models": models}, [str(stack)]) == 1
    assert "the step needs the option 'seed'" in capsys.readouterr().err
