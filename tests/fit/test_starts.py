"""One minimum from many starts; `benchmarks/starts.py` does the same for the Crab."""

from dataclasses import replace

import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.fit.minimise import add_backgrounds, fit
from dl3flow.models.source import Models

from .small_data import LAT, LON, gauss, make_map, point


@pytest.fixture(scope="module")
def maps() -> list[Dataset]:
    return [make_map("a", seed=1), make_map("d", seed=8, width=0.1, n_energy=3, n_true=7, pixels=(20, 26))]


@pytest.mark.parametrize("shape", [point, gauss])
def test_every_start_ends_at_one_minimum(shape: object, maps: list[Dataset]) -> None:
    """From up to 0.4 deg away, amplitude, extension and norms up to a factor of 3 and the index up to 1 off."""
    random = np.random.default_rng(7)
    home = fit(maps, add_backgrounds(maps, Models((shape("s"),)), ["norm", "tilt"]))  # type: ignore[operator]
    assert home.success, home.message
    for _ in range(6):
        distance, angle = 0.4 * np.sqrt(random.uniform()), random.uniform(0, 2 * np.pi)
        at = {
            "lon": LON + distance * np.cos(angle) / np.cos(np.radians(LAT)),
            "lat": LAT + distance * np.sin(angle),
        }
        models = add_backgrounds(maps, Models((shape("s", **at),)), ["norm", "tilt"])  # type: ignore[operator]
        old = models.parameters()
        changed = {"s.index": replace(old["s.index"], value=2.5 + random.uniform(-1, 1))}
        for name in ("s.amplitude", "s.sigma", "a-bkg.norm", "d-bkg.norm"):
            if name in old:
                changed[name] = replace(old[name], value=old[name].value * 3 ** random.uniform(-1, 1))
        models = models.with_parameters(changed)
        found = fit(maps, models)
        start = {name: p.value for name, p in models.parameters().items() if not p.frozen}
        assert found.success, (found.message, start)
        assert found.stat == pytest.approx(home.stat, abs=0.01), start
        for name in home.free:
            p = home.parameter(name)
            assert found.parameter(name).value == pytest.approx(p.value, abs=0.02 * p.error), (name, start)


@pytest.mark.parametrize(("held", "seed"), [("lon_0", 3), ("lat_0", 3), ("lat_0", 10)])
def test_a_weak_point_on_a_line_ends_at_its_lowest(held: str, seed: int) -> None:
    """With one coordinate fixed: no fit of both fixed, within a pixel along the line, is lower."""
    maps = [
        make_map("a", seed=seed, amplitude=4e-12),
        make_map("d", seed=seed + 20, amplitude=4e-12, pixels=(20, 26)),
    ]
    models = add_backgrounds(maps, Models((point("s"),)), ["norm", "tilt"])
    on_line = models.with_parameters({f"s.{held}": replace(models.parameters()[f"s.{held}"], frozen=True)})
    best = fit(maps, on_line)
    assert best.success, best.message
    free = "lat_0" if held == "lon_0" else "lon_0"
    at = best.models.parameters()[f"s.{free}"]
    lowest = np.inf
    for step in np.linspace(-0.05, 0.05, 11):
        fixed = best.models.with_parameters({f"s.{free}": replace(at, value=at.value + step, frozen=True)})
        lowest = min(lowest, fit(maps, fixed).stat)
    assert best.stat <= lowest + 1e-3
