"""The sections of a reduction bind to one chain, and mistakes in them are one sentence."""

from typing import Any

import astropy.units as u
import pytest

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import OffCounts
from dl3flow.errors import InputError

SPECTRUM: dict[str, Any] = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.15)",
        "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 3},
        "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 8},
    },
    "background": {"name": "reflected"},
}
CUBE: dict[str, Any] = {
    "recipe": {
        "name": "cube",
        "center": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
        "width": "2 deg",
        "binsz": "0.1 deg",
        "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 3},
        "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbin": 8},
    },
}
RING = {"name": "ring", "r_in": "0.5 deg", "width": "0.3 deg"}
MODEL = {"energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 4}}


def test_what_a_chain_makes() -> None:
    spectrum = parse_chain(SPECTRUM, "")
    assert spectrum.makes_spectra
    assert spectrum.measures_off
    assert not spectrum.makes_image
    ring = parse_chain({**CUBE, "background": RING}, "")
    assert ring.makes_image
    # a ring sums all energies
    assert ring.energy.edges.to_value(u.TeV) == pytest.approx([1, 10])
    fov = parse_chain({**CUBE, "background": {"name": "fov"}}, "")
    assert not fov.measures_off
    assert fov.energy.n_bins == 3
    around = parse_chain({"recipe": {**CUBE["recipe"], "center": "pointing"}}, "")
    assert around.geometries is None
    assert [p.name for p in parse_chain({**CUBE, "safe_mask": [{"name": "aeff_default"}]}, "").plugins] == [
        "cube",
        "aeff_default",
    ]


def test_a_run_through_the_chain(demo_run: Any) -> None:
    found = reduce_observation(demo_run, "s-1001", parse_chain(SPECTRUM, ""))
    assert found.name == "s-1001"
    assert isinstance(found.background, OffCounts)
    center = parse_chain(SPECTRUM, "").bound["region"].center
    inside = demo_run.events.radec.separation(center) <= 0.15 * u.deg
    energy = demo_run.events.energy[inside]
    assert found.counts.data.sum() == ((energy >= 1 * u.TeV) & (energy <= 10 * u.TeV)).sum()
    ring = reduce_observation(demo_run, "r-1001", parse_chain({**CUBE, "background": RING}, ""))
    assert ring.energy.n_bins == 1
    assert isinstance(ring.background, OffCounts)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({**SPECTRUM, "safe_mask": {"name": "aeff_max"}}, "safe_mask: expected a list"),
        (
            {**SPECTRUM, "background": RING},
            "'ring' measures around every pixel of a map, and the recipe 'spectrum'",
        ),
        ({**SPECTRUM, "background": {"name": "off_runs"}}, "'off_runs' needs further runs: give `runs`"),
        (
            {**SPECTRUM, "background": {"name": "reflected", "runs": {"observations": "x"}}},
            "'reflected' takes no further runs: leave `runs` out",
        ),
        (
            {**SPECTRUM, "background": {"name": "off_runs", "runs": "x"}},
            "background.runs: expected `{observations: GROUP}`, found 'x'",
        ),
        (
            {**SPECTRUM, "background": {"name": "off_runs", "runs": {"observations": "x", "zenit": "1 deg"}}},
            "background.runs: unknown option 'zenit' of 'runs': did you mean 'zenith'",
        ),
        (
            {**SPECTRUM, "background": {"name": "reflected", "model": MODEL}},
            "background.model: the background method 'reflected' builds no model",
        ),
        (
            {**CUBE, "background": {"name": "acceptance", "runs": {"observations": "x"}}},
            "background.model: option 'energy' of 'build_acceptance' is missing",
        ),
        (
            {
                **CUBE,
                "background": {
                    "name": "acceptance",
                    "runs": {"observations": "x"},
                    "model": {**MODEL, "kind": "4d"},
                },
            },
            "background.model.kind: '4d' is not possible",
        ),
    ],
)
def test_a_mistake_is_one_sentence(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_chain(sections, "")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_background_at_all_is_told(demo_run: Any) -> None:
    from dataclasses import replace

    bare = replace(demo_run, bkg=None)
    with pytest.raises(
        InputError, match=r"observation 1001: there is no background: .*`background: \{name: reflected\}`"
    ):
        reduce_observation(bare, "s", parse_chain({"recipe": SPECTRUM["recipe"]}, ""))
