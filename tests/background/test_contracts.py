"""What every background method promises: nothing written into, a background where safe, no excess on an empty sky."""

import copy
from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.background import BACKGROUNDS
from dl3flow.background.registry import BackgroundInputs
from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.observation import Observation
from dl3flow.geometry.axis import Axis
from dl3flow.reduce import RECIPES
from dl3flow.reduce.reshape import to_image
from dl3flow.reduce.safe_mask import apply_safe_masks
from dl3flow.simulate.events import simulate_observation
from dl3flow.simulate.plan import parse_simulation

MAP, SPECTRUM = "cube", "spectrum"
METHODS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "fov": [(MAP, {}), (MAP, {"method": "fit"})],
    "ring": [(MAP, {"r_in": "0.5 deg", "width": "0.3 deg"})],
    "adaptive_ring": [(MAP, {"r_in": "0.5 deg", "r_out_max": "1.2 deg", "width": "0.3 deg"})],
    "reflected": [(SPECTRUM, {})],
    "wobble": [(SPECTRUM, {"n_off": 3})],
    "phase": [(kind, {"on_phase": [0.0, 0.2], "off_phase": [0.3, 0.9]}) for kind in (MAP, SPECTRUM)],
    "off_runs": [(kind, {"norm": norm}) for kind in (MAP, SPECTRUM) for norm in ("ontime", "counts")],
    "acceptance": [(kind, {"normalise": on}) for kind in (MAP, SPECTRUM) for on in (True, False)],
}
CASES = [(name, kind, options) for name, cases in METHODS.items() for kind, options in cases]
ENERGY = {"min": "1 TeV", "max": "20 TeV", "nbin": 3}


def everywhere(geom: Any) -> np.ndarray:
    return np.ones(geom.shape, dtype=bool)


@pytest.fixture(scope="module")
def runs(demo_config: dict) -> list[Observation]:
    """Five runs on an empty sky with phases; all arrays are read-only."""
    entries = [
        {
            "obs_id": n,
            "target": "nothing",
            "pointing": {"lon": f"{60 * n} deg", "lat": f"{-10 * n} deg"},
            "start": f"2024-01-1{n} 20:00:00",
            "duration": "56 min",
        }
        for n in (1, 2, 3, 4, 5)
    ]
    simulation = parse_simulation({**demo_config, "sources": [], "observations": entries}, "empty")
    found = []
    for n in (1, 2, 3, 4, 5):
        run = simulate_observation(simulation, n)
        phase = np.random.default_rng(n).random(len(run.events))
        energy = run.events.energy.copy()
        time = run.events.time.copy()
        for values in (phase, energy, time):
            values.setflags(write=False)
        found.append(replace(run, events=replace(run.events, phase=phase, energy=energy, time=time)))
    return found


@pytest.fixture(scope="module")
def inputs(runs: list[Observation]) -> BackgroundInputs:
    table = Axis.from_bounds("energy", 0.5 * u.TeV, 50 * u.TeV, 10)
    build = BACKGROUNDS.find("acceptance", "here").companions["build"]
    return BackgroundInputs(everywhere, off=tuple(runs[1:]), models=build(runs[1:], energy=table))


def reduced(run: Observation, kind: str, *, is_image: bool) -> Dataset:
    """A dataset around 0.5 deg from the pointing whose arrays cannot be written into."""
    at = {"frame": "icrs", "lon": "60 deg", "lat": "-10 deg"}
    entry = {
        MAP: {"name": "cube", "center": at, "width": "3 deg", "binsz": "0.1 deg", "energy": ENERGY},
        SPECTRUM: {"name": "spectrum", "region": "icrs;circle(60, -9.5, 0.25)", "energy": ENERGY},
    }[kind]
    recipe, options = RECIPES.bind(entry, "recipe")
    dataset = apply_safe_masks(run, recipe(run, "run", **options), [])
    dataset = to_image(dataset) if is_image else dataset
    assert isinstance(dataset.background, ExpectedCounts)
    assert dataset.reasons is not None
    for values in (
        dataset.counts.data,
        dataset.exposure.data,
        dataset.background.counts.data,
        dataset.mask_safe,
        dataset.reasons.bits,
    ):
        values.setflags(write=False)
    return dataset


def test_every_method_is_held_to_the_contract() -> None:
    assert sorted(METHODS) == BACKGROUNDS.names()


@pytest.mark.parametrize(("name", "kind", "options"), CASES)
def test_contract(
    name: str, kind: str, options: dict[str, Any], runs: list[Observation], inputs: BackgroundInputs
) -> None:
    method = BACKGROUNDS.find(name, "here")
    dataset = reduced(runs[0], kind, is_image=bool(method.companions.get("image")))
    before = copy.deepcopy(dict(dataset.meta))
    result = method(runs[0], dataset, inputs, **method.bind(options, "here"))
    assert dict(dataset.meta) == before
    assert result.meta["background"]["method"].startswith(name.split("_")[0])
    match result.background:
        case OffCounts() as off:
            assert not method.companions.get("expected")
            assert np.all(off.alpha[result.mask_safe] > 0)
            error = np.sqrt(off.alpha**2 * off.counts.data)
        case ExpectedCounts(counts):
            assert method.companions.get("expected")
            assert np.all(counts.data[result.mask_safe] > 0)
            error = np.zeros(counts.data.shape)
    assert result.mask_safe.any()
    # rings around neighbouring pixels share their counts: one pixel is independent, and the mean is unbiased
    safe = result.mask_safe
    n_on, mu = result.counts.data[safe].sum(), result.mu_bkg[safe].sum()
    shared = 20.0 if "ring" in name else 1.0
    assert mu > 5
    assert abs(n_on - mu) < 4 * np.sqrt(mu + shared * (error[safe] ** 2).sum() + (0.02 * mu) ** 2)
