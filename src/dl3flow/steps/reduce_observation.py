"""DL3 to DL4: bin one observation, with responses, safe mask and background; a record of why, where that fails."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dl3flow.background import BACKGROUNDS
from dl3flow.data.dataset import Dataset
from dl3flow.data.index import ObservationEntry
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import parse_positive_angle
from dl3flow.geometry.regions import exclusion_mask, parse_regions, sample_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.gadf import read_observation
from dl3flow.io.hdf5 import write_dataset, write_failure
from dl3flow.io.models_yaml import parse_models
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_sky_map
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.safe_mask import apply_safe_masks


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Reduce one observation; what is wrong with its data is recorded in place of the dataset."""
    entry = ObservationEntry.from_json(options["entry"])
    root = Path(str(inputs["events"][0]).removesuffix(entry.hdus["events"].path))
    try:
        observation = read_observation(entry, root)
        recipe, bound = RECIPES.bind(options["recipe"], "recipe")
        masks = [SAFE_MASKS.bind(mask, "safe_mask") for mask in options["safe_mask"]]
        dataset = apply_safe_masks(observation, recipe(observation, options["name"], **bound), masks)
        whole, _ = recipe.companions["geometry"](**bound)
        dataset = with_background(observation, dataset, whole, options["background"], inputs["mask"])
    except InputError as error:
        write_failure(outputs["dataset"], options["name"], entry.obs_id, str(error), provenance)
    else:
        write_dataset(outputs["dataset"], dataset, provenance)


def with_background(
    observation: Observation,
    dataset: Dataset,
    whole: SkyGeometry,
    entry: Mapping[str, Any] | None,
    mask_files: Sequence[Path],
) -> Dataset:
    """Dataset after its background method; itself where none is asked for."""
    if entry is None:
        return dataset
    shared = {key: entry[key] for key in ("exclusion", "exclusion_binsz", "subtract") if key in entry}
    method, bound = BACKGROUNDS.bind(
        {key: value for key, value in entry.items() if key not in shared}, "background"
    )
    exclusion, signal = np.ones(dataset.geom.shape, dtype=bool), None
    if mask_files:
        drawn = next(iter(read_sky_map(mask_files[0]).maps.values()))
        usable = np.asarray((drawn.data > 0).reshape(-1, *drawn.geom.shape).all(axis=0))
        exclusion = sample_mask(drawn.geom, usable, dataset.geom)
    elif "exclusion" in shared:
        binsz = parse_positive_angle(shared["exclusion_binsz"]) if "exclusion_binsz" in shared else None
        exclusion = exclusion_mask(
            dataset.geom, parse_regions(shared["exclusion"], "exclusion"), whole, binsz
        )
    if "subtract" in shared:
        # by name, so that the digest of a reduction holds the likelihood's code only where a model is subtracted
        predict_counts = import_module("dl3flow.fit.npred").predict_counts
        signal, _ = predict_counts(dataset, parse_models(shared["subtract"], "subtract"))
    result: Dataset = method(observation, dataset, exclusion, signal, **bound)
    return result
