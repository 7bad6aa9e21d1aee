"""Every spectral and norm model against gammapy's of the same tag: parameters, units, frozen states and values.

Models are made by tag, ours and theirs, with the same values, and compared at ten energies.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from dl3flow.io.ebl import EBL_FILES, read_ebl
from dl3flow.models.compound import compound
from dl3flow.models.resolve import parameters_of, resolve
from dl3flow.models.source import Component, Parameter
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.registry import Plugin
from dl3flow.units import DNDE

pytestmark = pytest.mark.peer
theirs = pytest.importorskip("gammapy.modeling.models", reason="gammapy is not installed: make peer")

ENERGY = np.geomspace(0.02, 80.0, 10)
# further values, by our names; without them the defaults are compared too
FURTHER: dict[str, list[dict[str, float]]] = {
    "const": [{"const": 3e-12}],
    "pl": [{"amplitude": 3e-11, "index": 2.6, "reference": 0.7}],
    "pl-2": [
        {"amplitude": 3e-11, "index": 2.6, "emin": 0.5, "emax": 20.0},
        {"index": 1.001},
        {"index": -1.0},
    ],
    "bpl": [{"index1": 1.7, "index2": 2.8, "amplitude": 2e-12, "ebreak": 3.0}],
    "sbpl": [
        {"index1": 1.7, "index2": 2.8, "ebreak": 3.0, "reference": 0.5, "beta": 0.4},
        {"index1": 2.8, "index2": 1.7, "ebreak": 3.0, "beta": 2.0},
    ],
    "lp": [{"amplitude": 3e-11, "reference": 0.7, "alpha": 2.5, "beta": 0.1}],
    "lp2": [{"reference": 0.7, "alpha": 2.5, "beta": 0.1, "escale": 3.0}],
    "ecpl": [
        {"amplitude": 3e-11, "index": 2.2, "reference": 0.7, "lambda_": 0.05},
        {"index": 2.2, "lambda_": 0.05, "alpha": 1.7},
    ],
    "ecpl-3fgl": [{"index": 2.2, "reference": 0.7, "ecut": 5.0}],
    "secpl-3fgl": [{"reference": 0.7, "ecut": 5.0, "index_1": 1.9, "index_2": 0.6}],
    "secpl-4fgl": [{"reference": 0.7, "expfactor": 1e-5, "index_1": 1.9, "index_2": 0.7}],
    "secpl-4fgl-dr3": [
        {"reference": 0.7, "expfactor": 0.3, "index_1": 1.9, "index_2": 0.7},
        {"expfactor": 0.3, "index_2": 0.004},
    ],
    "gauss": [{"amplitude": 2e-11, "mean": 3.0, "sigma": 8.0}],
    "pl-norm": [{"norm": 1.3, "tilt": 0.2, "reference": 3.0}],
    "lp-norm": [{"norm": 1.3, "reference": 3.0, "alpha": 0.2, "beta": -0.05}],
    "ecpl-norm": [{"index": 0.3, "norm": 1.3, "reference": 3.0, "lambda_": 0.02, "alpha": 1.4}],
}


def find(tag: str) -> Plugin:
    registry = SPECTRAL_MODELS if tag in SPECTRAL_MODELS.entries() else NORM_MODELS
    return registry.find(tag, tag)


def their_values(tag: str, plugin: Plugin, values: Mapping[str, float], **options: Any) -> np.ndarray:
    units = {name: unit for name, (unit, _) in plugin.parameters.items()}
    given = {name: value * units[name] for name, value in values.items()}
    model = theirs.SPECTRAL_MODEL_REGISTRY.get_cls(tag)(**given, **options)
    found = model(ENERGY * u.TeV)
    unit = DNDE if u.Quantity(found).unit != u.dimensionless_unscaled else u.dimensionless_unscaled
    return np.asarray(u.Quantity(found).to_value(unit))


@pytest.mark.parametrize("tag", FURTHER)
def test_same_parameters(tag: str) -> None:
    plugin, cls = find(tag), theirs.SPECTRAL_MODEL_REGISTRY.get_cls(tag)
    assert set(cls.tag) <= set(plugin.tags)
    expected = list(cls.default_parameters)
    ours = plugin.parameters
    assert list(plugin.companions.get("order", ours)) == [p.name for p in expected]
    for parameter in expected:
        unit, default = ours[parameter.name]
        assert default == pytest.approx(parameter.quantity.to_value(unit), rel=1e-12), parameter.name
        assert (parameter.name in plugin.companions.get("frozen", ())) == parameter.frozen, parameter.name
        assert np.isnan([parameter.min, parameter.max]).all()


def test_all_of_theirs_are_here() -> None:
    """All but wrappers of other programs and tables in several dimensions."""
    absent = {"NaimaSpectralModel", "TemplateNDSpectralModel", "CompoundSpectralModel"}
    known = set(SPECTRAL_MODELS.entries()) | set(NORM_MODELS.entries())
    for cls in theirs.SPECTRAL_MODEL_REGISTRY:
        assert cls.tag[0] in absent or set(cls.tag) - {"scale"} <= known, cls.tag


@pytest.mark.parametrize(
    ("tag", "further"),
    [(tag, f) for tag in FURTHER for f in [{}, *FURTHER[tag]] if f or tag != "sbpl"],
    ids=str,
)
def test_same_values(tag: str, further: dict[str, float]) -> None:
    plugin = find(tag)
    values = {name: float(default) for name, (_, default) in plugin.parameters.items()} | further
    ours = plugin.function(ENERGY, *values.values())
    assert ours == pytest.approx(their_values(tag, plugin, values), rel=1e-6, abs=0)


def test_same_template() -> None:
    energy, values = np.geomspace(0.1, 30, 7), np.array([1e-9, 3e-10, 2e-11, 4e-12, 1e-12, 3e-14, 1e-16])
    model = theirs.TemplateSpectralModel(energy=energy * u.TeV, values=values * DNDE)
    ours = find("template").function(ENERGY, energy=energy, values=values)
    assert ours == pytest.approx(model(ENERGY * u.TeV).to_value(DNDE), rel=1e-6, abs=0)


@pytest.mark.parametrize("interp", ["log", "lin"])
def test_same_piecewise_norm(interp: str) -> None:
    energy, norms = np.geomspace(0.1, 30, 5), np.array([0.7, 1.2, 2.0, 0.3, 1.1])
    model = theirs.PiecewiseNormSpectralModel(energy=energy * u.TeV, norms=norms, interp=interp)
    plugin = find("piecewise-norm")
    ours = plugin.function(ENERGY, *norms, energy=energy, interp=interp)
    assert ours == pytest.approx(np.asarray(model(ENERGY * u.TeV)), rel=1e-6)
    assert list(parameters_of(plugin, {"energy": energy})) == model.parameters.names


def test_same_scale() -> None:
    model = theirs.ScaleSpectralModel(theirs.PowerLawSpectralModel(), norm=1.7)
    ours = find("scale").function(ENERGY, 1.7) * find("pl").function(ENERGY, 1e-12, 2.0, 1.0)
    assert ours == pytest.approx(model(ENERGY * u.TeV).to_value(DNDE), rel=1e-6)


@pytest.mark.parametrize("reference", ["dominguez", "franceschini"])
@pytest.mark.parametrize("redshift", [0.0047, 0.031, 0.116, 0.536, 1.203])
def test_same_absorption(public_data: Path, reference: str, redshift: float) -> None:
    """From the same numbers to 1e-6; the peer's own reading keeps logarithms in 32 bits, good to 2e-5 in optical depth."""
    path = public_data / "ebl" / EBL_FILES[reference]
    if not path.is_file():
        pytest.skip(f"the table is absent: {path}")
    table = read_ebl(path)
    plugin = find("ebl-norm")
    for alpha in (1.0, 0.8):
        ours = plugin.function(ENERGY, redshift, alpha, **table)
        model = theirs.EBLAbsorptionNormSpectralModel(
            energy=table["energy"] * u.TeV,
            param=table["param"] * u.one,
            data=table["values"] * u.one,
            redshift=redshift,
            alpha_norm=alpha,
        )
        their = np.asarray(model(ENERGY * u.TeV))
        # what stands for zero differs
        seen = their > 1e-12
        assert seen.sum() >= 5
        assert ours[seen] == pytest.approx(their[seen], rel=1e-6)
        read = theirs.EBLAbsorptionNormSpectralModel.read(path, redshift=redshift, alpha_norm=alpha)
        assert np.log(ours[seen]) == pytest.approx(
            np.log(np.asarray(read(ENERGY * u.TeV))[seen]), rel=2e-5, abs=1e-6
        )
    assert set(plugin.companions["frozen"]) == {p.name for p in model.parameters if p.frozen}
    assert list(plugin.parameters) == model.parameters.names


@pytest.mark.parametrize("reference", ["meyer", "hegra", "hess_pl", "hess_ecpl", "magic_lp", "magic_ecpl"])
def test_same_crab(reference: str) -> None:
    model = theirs.create_crab_spectral_model(reference)
    found = find("crab").companions["component"](reference=reference)
    ours = resolve(found, "spectral", "").function(ENERGY, *(p.value for p in found.parameters))
    assert ours == pytest.approx(model(ENERGY * u.TeV).to_value(DNDE), rel=1e-6)
    assert {p.name for p in found.parameters if p.frozen} == {p.name for p in model.parameters if p.frozen}


@pytest.mark.parametrize("particle", ["proton", "Si", "Fe", "electron"])
def test_same_cosmic_rays(particle: str) -> None:
    model = theirs.create_cosmic_ray_spectral_model(particle)
    found = find("cosmic_ray").companions["component"](particle=particle)
    ours = resolve(found, "spectral", "").function(ENERGY, *(p.value for p in found.parameters))
    assert ours == pytest.approx(model(ENERGY * u.TeV).to_value(DNDE), rel=1e-6)


def test_same_compound() -> None:
    def component(tag: str, **values: float) -> Component:
        plugin = find(tag)
        return Component(
            plugin.name,
            tuple(Parameter(n, values.get(n, float(d)), unit) for n, (unit, d) in plugin.parameters.items()),
        )

    ours = compound(
        "mul",
        compound("add", component("pl", index=2.4), component("gauss", amplitude=3e-12)),
        component("ecpl-norm", lambda_=0.03),
    )
    model = (
        theirs.PowerLawSpectralModel(index=2.4)
        + theirs.GaussianSpectralModel(amplitude=3e-12 * u.Unit("cm-2 s-1"))
    ) * theirs.ExpCutoffPowerLawNormSpectralModel(lambda_=0.03 / u.TeV)
    found = resolve(ours, "spectral", "").function(ENERGY, *(p.value for p in ours.parameters))
    assert found == pytest.approx(model(ENERGY * u.TeV).to_value(DNDE), rel=1e-6)
