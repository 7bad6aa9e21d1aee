"""Contracts that every registered spectral and norm model inherits, values by hand, and compounds."""

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from dl3flow.errors import InputError
from dl3flow.models.compound import OPERATORS, compound
from dl3flow.models.resolve import ModelFunction, flux_power, parameters_of, resolve
from dl3flow.models.source import Component, Parameter
from dl3flow.models.spectral import NORM_MODELS, SPECTRAL_MODELS
from dl3flow.registry import Plugin

ALL = [*SPECTRAL_MODELS, *NORM_MODELS]
ENERGY = np.geomspace(0.0313, 47.0, 40)
ENERGY.setflags(write=False)


def _read_only(*values: Any) -> np.ndarray:
    array = np.array(values, dtype=float)
    array.setflags(write=False)
    return array


NODES = _read_only(0.05, 0.2, 1.0, 7.0, 30.0)
TABLE = {
    "energy": NODES,
    "param": _read_only(0.01, 0.11, 0.25, 0.5),
    "values": _read_only(
        [0.999, 0.98, 0.9, 0.6, 0.1],
        [0.99, 0.9, 0.5, 0.08, 1e-4],
        [0.98, 0.8, 0.2, 1e-3, 1e-9],
        [0.95, 0.6, 0.03, 1e-6, 1e-20],
    ),
}
# options that have no default
OPTIONS: dict[str, dict[str, Any]] = {
    "template": {"energy": NODES, "values": _read_only(1e-9, 1e-10, 4e-12, 2e-14, 1e-16)},
    "template_norm": {"energy": NODES, "values": _read_only(0.5, 1.0, 2.0, 1.5, 0.3)},
    "piecewise_norm": {"energy": NODES},
    "ebl_absorption": TABLE,
}
# values beside the defaults, where derivatives have their limits or do not vanish by chance
VALUES: dict[str, list[tuple[float, ...]]] = {
    "constant": [(3e-13,)],
    "power_law": [(3e-12, 2.7, 0.4), (3e-12, 0.0, 5.0), (-1e-13, 2.0, 1.0)],
    "power_law_2": [
        (2e-12, 1.0, 0.1, 100.0),
        (2e-12, 1.003, 0.2, 30.0),
        (2e-12, 0.997, 0.2, 30.0),
        (2e-12, 1.0 + 1e-9, 0.2, 30.0),
        (1e-12, 4.3, 0.3, 2.0),
        (1e-12, -1.5, 0.3, 2.0),
        (1e-12, 7.0, 0.5, 2.0),
    ],
    "broken_power_law": [(1.6, 2.9, 2e-12, 0.7), (2.9, 1.6, 2e-12, 3.3), (2.9, 1.6, 2e-12, -3.3)],
    "smooth_broken_power_law": [
        (1.6, 2.9, 2e-12, 0.7, 1.3, 1.0),
        (2.9, 1.6, 2e-12, 3.3, 0.5, 0.3),
        (1.5, 2.5, 1e-12, 1.1, 1.0, 0.01),
        (1.5, 2.5, 1e-12, 1.1, 1.0, 4.0),
        (1.5, 2.5, 1e-12, -1.1, 1.0, 1.0),
    ],
    "log_parabola": [(3e-11, 1.0, 2.4, 0.2), (3e-11, 1.0, 2.4, 0.0), (3e-11, 2.0, 2.4, -0.1)],
    "log_parabola_2": [(3e-11, 1.0, 2.4, 0.2, 0.3), (3e-11, 2.0, 2.4, -0.1, 4.0)],
    "gauss": [(1e-12, 3.0, 0.4), (2e-12, 0.3, 12.0)],
    "log_gauss": [(1e-12, 3.0, 0.4)],
    "exp_cutoff_power_law": [
        (2e-11, 2.2, 0.8, 0.07, 1.0),
        (2e-11, 2.2, 0.8, 0.07, 0.5),
        (2e-11, 2.2, 0.8, 0.07, 2.0),
        (2e-11, 2.2, 0.8, 0.0, 1.0),
        (2e-11, 2.2, 0.8, -0.02, 1.0),
        (2e-11, 2.2, 0.8, -0.02, 1.5),
    ],
    "exp_cutoff_power_law_3fgl": [(2.2, 2e-11, 0.8, 4.0)],
    "super_exp_cutoff_power_law_3fgl": [
        (2e-11, 0.8, 4.0, 1.1, 0.6),
        (2e-11, 0.8, 4.0, 1.1, 1.0),
        (2e-11, 0.8, -4.0, 1.1, 0.6),
    ],
    "super_exp_cutoff_power_law_4fgl": [(2e-11, 0.8, 3e-5, 1.1, 0.6), (2e-11, 0.8, 0.0, 1.1, 0.5)],
    "super_exp_cutoff_power_law_4fgl_dr3": [
        (2e-11, 0.8, 0.4, 2.0, 0.6),
        (2e-11, 0.8, 0.4, 2.0, 0.0),
        (2e-11, 0.8, 0.4, 2.0, 1e-4),
        (2e-11, 0.8, 0.4, 2.0, -0.03),
    ],
    "meyer_crab": [(0.7,)],
    "scale": [(0.8,)],
    "power_law_norm": [(1.2, 0.1, 2.0)],
    "log_parabola_norm": [(1.2, 2.0, 0.1, -0.03)],
    "exp_cutoff_power_law_norm": [(0.2, 1.2, 2.0, 0.05, 1.0), (0.2, 1.2, 2.0, 0.05, 1.4)],
    "piecewise_norm": [(0.7, 1.1, 2.0, 1.6, 0.4)],
    "ebl_absorption": [(0.07, 1.0), (0.31, 0.6), (0.004, 1.2), (0.61, 1.3), (0.31, 0.0)],
}
# where the default is no point at which a derivative exists: the two indices are equal, and the model jumps there
NO_DERIVATIVE = {"smooth_broken_power_law"}


def options_of(plugin: Plugin) -> list[dict[str, Any]]:
    """Every combination of the choices of a plug-in's options; those without a default from `OPTIONS`."""
    given = OPTIONS.get(plugin.name, {})
    choices: dict[str, list[Any]] = {}
    for name, (hint, default) in plugin.options.items():
        if get_origin(hint) is Literal:
            choices[name] = list(get_args(hint))
        elif name in given:
            choices[name] = [given[name]]
        else:
            assert default is not inspect.Parameter.empty, (
                f"add the option '{name}' of {plugin.name} to OPTIONS"
            )
            choices[name] = [default]
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def defaults_of(plugin: Plugin, options: dict[str, Any]) -> tuple[float, ...]:
    return tuple(float(default) for _, default in parameters_of(plugin, options).values())


def find_cases() -> Iterator[Any]:
    """Every plug-in with its options, at its defaults and at further values."""
    for plugin in ALL:
        for options in options_of(plugin):
            further = VALUES.get(plugin.name, [])
            assert further or not plugin.parameters, f"add values of {plugin.name} to VALUES"
            for n, values in enumerate([defaults_of(plugin, options), *further]):
                label = "-".join([plugin.name, *(v for v in options.values() if isinstance(v, str)), str(n)])
                yield pytest.param(plugin, options, values, id=label)


CASES = list(find_cases())


@pytest.mark.parametrize(("plugin", "options", "values"), CASES)
def test_a_spectrum_is_finite_positive_and_takes_any_shape(
    plugin: Plugin, options: dict[str, Any], values: tuple[float, ...]
) -> None:
    flux = plugin.function(ENERGY, *values, **options)
    assert flux.shape == ENERGY.shape
    assert flux.dtype == float
    assert np.isfinite(flux).all()
    assert np.all(flux >= 0) or plugin.name == "power_law"
    assert flux[len(flux) // 2] != 0
    for energy in (ENERGY[3], float(ENERGY[3])):
        one = plugin.function(energy, *values, **options)
        assert np.shape(one) == ()
        assert one == pytest.approx(flux[3], rel=1e-13)
    folded = plugin.function(ENERGY.reshape(4, 5, 2), *values, **options)
    assert folded == pytest.approx(flux.reshape(4, 5, 2), rel=1e-13)
    gradient = plugin.companions["gradient"](ENERGY.reshape(4, 5, 2), *values, **options)
    assert gradient.shape == (len(values), 4, 5, 2)
    assert plugin.companions["gradient"](ENERGY[3], *values, **options) == pytest.approx(
        gradient[:, 0, 1, 1], rel=1e-12
    )
    assert plugin.function(np.zeros(0), *values, **options).shape == (0,)


@pytest.mark.parametrize(("plugin", "options", "values"), CASES)
def test_a_gradient_agrees_with_differences(
    plugin: Plugin, options: dict[str, Any], values: tuple[float, ...]
) -> None:
    gradient = plugin.companions["gradient"](ENERGY, *values, **options)
    assert np.isfinite(gradient).all()
    if values == defaults_of(plugin, options) and plugin.name in NO_DERIVATIVE:
        return
    # divided by the flux, so that all energies of a steep spectrum count
    flux = np.abs(plugin.function(ENERGY, *values, **options))
    weight = np.where(flux > 0, 1 / np.where(flux > 0, flux, 1.0), 0.0)
    for k, name in enumerate(parameters_of(plugin, options)):
        numeric = difference(lambda *v: plugin.function(ENERGY, *v, **options), values, k) * weight
        largest = np.abs(numeric).max()
        assert largest > 0 or is_at_zero(plugin.name, k, values)
        assert gradient[k] * weight == pytest.approx(numeric, rel=0, abs=1e-6 * largest), name


def is_at_zero(name: str, k: int, values: tuple[float, ...]) -> bool:
    """True where a derivative is zero because another parameter is."""
    # place of the parameter, and of the others that make it vanish
    known = {
        "power_law": (2, [1]),
        "power_law_norm": (2, [1]),
        "log_parabola_norm": (1, [2, 3]),
        "exp_cutoff_power_law": (4, [3]),
        "exp_cutoff_power_law_norm": (2, [0]),
        "super_exp_cutoff_power_law_4fgl": (4, [2]),
        "ebl_absorption": (0, [1]),
    }
    place, others = known.get(name, (-1, []))
    return place == k and all(values[n] == 0 for n in others)


def difference(function: Any, values: tuple[float, ...], k: int) -> np.ndarray:
    """Derivative by the value ``k`` from four values around it, exact to the fourth power of the step."""
    step = 2e-5 * (abs(values[k]) or 0.01)
    nodes = []
    for n in (1, -1, 2, -2):
        moved = list(values)
        moved[k] += n * step
        nodes.append(function(*moved))
    return np.asarray((8 * (nodes[0] - nodes[1]) - (nodes[2] - nodes[3])) / (12 * step))


def test_every_kind_is_registered_once_and_its_companions_name_its_parameters() -> None:
    names = [name for registry in (SPECTRAL_MODELS, NORM_MODELS) for name in registry.entries()]
    assert len(names) == len(set(names)), "a name of a spectrum is one of a factor too"
    for plugin in ALL:
        known = set(parameters_of(plugin, options_of(plugin)[0]))
        order = plugin.companions.get("order")
        assert order is None or sorted(order) == sorted(known), plugin.name
        assert set(plugin.companions.get("frozen", ())) <= known, plugin.name


CHECKED = [plugin for plugin in ALL if "check" in plugin.companions]


@pytest.mark.parametrize("plugin", CHECKED, ids=lambda p: p.name)
def test_a_check_finds_no_fault_in_defaults_and_names_what_is_wrong(plugin: Plugin) -> None:
    check = plugin.companions["check"]
    options = options_of(plugin)[0]
    values = defaults_of(plugin, options)
    if plugin.name != "smooth_broken_power_law":
        assert check(*values, **options) is None
    for k, name in enumerate(parameters_of(plugin, options)):
        if name in ("reference", "ebreak", "ecut", "escale", "emin", "sigma", "width"):
            words = check(*values[:k], -1.0, *values[k + 1 :], **options)
            assert words, f"{plugin.name}: {name}"
            assert f"`{name}` is -1" in words or "`index1`" in words


def test_checks_of_options_and_pairs() -> None:
    def told(name: str, *values: float, **options: Any) -> str:
        plugin = next(p for p in ALL if p.name == name)
        return str(plugin.companions["check"](*values, **options))

    assert told("power_law_2", 1e-12, 2.0, 3.0, 1.0) == "`emin` is 3 TeV, and must be below `emax`, 1 TeV"
    assert "both 2," in told("smooth_broken_power_law", 2.0, 2.0, 1e-12, 1.0, 1.0, 1.0)
    assert "must list at least 2" in told("piecewise_norm", 1.0, energy=np.array([1.0]))
    assert "increasing" in told("piecewise_norm", 1.0, 1.0, energy=np.array([2.0, 1.0]))
    assert "`norm_1` is 0," in told("piecewise_norm", 1.0, 0.0, energy=np.array([1.0, 2.0]))
    assert told("piecewise_norm", 1.0, 0.0, energy=np.array([1.0, 2.0]), interp="lin") == "None"
    one = np.array([1.0, 2.0])
    assert "3 numbers for 2" in told("template", energy=one, values=np.ones(3))
    assert "not below 0" in told("template", energy=one, values=np.array([1.0, -1.0]))
    wrong = {**TABLE, "values": np.ones((2, 2))}
    assert "a row per redshift" in told("ebl_absorption", 0.1, 1.0, **wrong)
    assert "`redshift` is -0.1" in told("ebl_absorption", -0.1, 1.0, **TABLE)


def value(name: str, at: float, *values: float, **options: Any) -> float:
    registry = NORM_MODELS if name in NORM_MODELS.entries() else SPECTRAL_MODELS
    return float(registry.find(name, "").function(at, *values, **options))


def test_spectra_by_hand() -> None:
    e, ln10 = np.e, np.log(10)
    assert value("const", 7.0, 2e-12) == 2e-12
    assert value("pl", 10.0, 1e-12, 2.0, 1.0) == pytest.approx(1e-14)
    # between 1 and 10 TeV, index 2: the integral of E^-2 is 0.9
    assert value("pl-2", 1.0, 9e-13, 2.0, 1.0, 10.0) == pytest.approx(1e-12)
    assert value("pl-2", 2.0, ln10 * 1e-12, 1.0, 1.0, 10.0) == pytest.approx(5e-13)
    assert value("bpl", 0.5, 1.0, 3.0, 1e-12, 1.0) == pytest.approx(2e-12)
    assert value("bpl", 2.0, 1.0, 3.0, 1e-12, 1.0) == pytest.approx(1e-12 / 8)
    # (1 + 2^2)^-1 above a break of width 1, and 2 (1 + 2^-1)^0.5 for a spectrum that hardens
    assert value("sbpl", 2.0, 1.0, 3.0, 1e-12, 1.0, 1.0, 1.0) == pytest.approx(1e-12 / 2 / 5)
    assert value("sbpl", 2.0, 3.0, 2.0, 1e-12, 1.0, 1.0, 0.5) == pytest.approx(1e-12 / 8 * 5**0.5)
    assert value("lp", 10.0, 1e-12, 1.0, 2.0, 0.5) == pytest.approx(1e-14 * 10 ** (-0.5 * ln10))
    assert value("lp2", 10.0, 1e-12, 1.0, 2.0, 0.5, 10.0) == pytest.approx(1e-14)
    assert value("ecpl", 10.0, 1e-12, 2.0, 1.0, 0.1, 1.0) == pytest.approx(1e-14 / e)
    assert value("ecpl", 10.0, 1e-12, 2.0, 1.0, 0.2, 2.0) == pytest.approx(1e-14 / e**4)
    assert value("ecpl-3fgl", 10.0, 2.0, 1e-12, 1.0, 9.0) == pytest.approx(1e-14 / e)
    assert value("secpl-3fgl", 3.0, 1e-12, 1.0, 2.0, 0.0, 2.0) == pytest.approx(1e-12 * e ** (0.25 - 2.25))
    assert value("secpl-4fgl", 2.0, 1e-12, 1.0, 1e-6, 1.0, 1.0) == pytest.approx(5e-13 / e)
    # (E/E0)^(d/b) exp(d/b^2 (1 - (E/E0)^b)) with d = 2, b = 1
    assert value("secpl-4fgl-dr3", 3.0, 1e-12, 1.0, 2.0, 2.0, 1.0) == pytest.approx(1e-12 * e**-4)
    assert value("secpl-4fgl-dr3", 3.0, 1e-12, 1.0, 2.0, 0.0, 0.0) == pytest.approx(
        1e-12 * e ** (-(np.log(3) ** 2))
    )
    assert value("GaussianSpectralModel", 3.0, 1e-12, 2.0, 1.0) == pytest.approx(
        1e-12 / np.sqrt(2 * np.pi * e)
    )
    assert value("log_gauss", 3.0, 1e-12, 3.0, 0.5) == pytest.approx(1e-12 / (1.5 * np.sqrt(2 * np.pi)))
    # log10 of E^2 dN/dE at 1 TeV is -10.2708 in erg cm-2 s-1
    assert value("MeyerCrabSpectralModel", 1.0, 1.0) == pytest.approx(10**-10.2708 * 0.6241509, rel=1e-7)
    assert value("scale", 5.0, 3.0) == 3.0
    assert value("pl-norm", 100.0, 2.0, 0.5, 1.0) == pytest.approx(0.2)
    assert value("lp-norm", 10.0, 2.0, 1.0, 1.0, 0.0) == pytest.approx(0.2)
    assert value("ecpl-norm", 10.0, 1.0, 2.0, 1.0, 0.1, 1.0) == pytest.approx(0.2 / e)


def test_a_very_steep_spectrum_does_not_overflow() -> None:
    steep = SPECTRAL_MODELS.find("pl-2", "")
    # all of the flux at the lower end: (index - 1) / emin there
    for index in (300.0, 3000.0):
        assert value("pl-2", 0.1, 1e-12, index, 0.1, 100.0) == pytest.approx((index - 1) * 1e-11, rel=1e-9)
        assert np.isfinite(steep.companions["gradient"](ENERGY, 1e-12, index, 0.1, 100.0)).all()
    # trial steps far off: huge, but finite, and so are products of three such numbers
    for name, values in {
        "ecpl": (1e-12, 2.0, 1.0, -1e3, 7.0),
        "sbpl": (-900.0, 900.0, 1e-12, 1e-3, 1.0, 0.1),
        "bpl": (900.0, -900.0, 1e-12, 3.0),
        "lp": (1e-12, 1.0, 2.0, -1e3),
        "ecpl-3fgl": (2.0, 1e-12, 1.0, -1e-5),
        "secpl-3fgl": (1e-12, 1.0, 1e-3, 2.0, 400.0),
        "secpl-4fgl": (1e-12, 1.0, -1.0, 2.0, 90.0),
        "secpl-4fgl-dr3": (1e-12, 1.0, -1e3, 2.0, 300.0),
    }.items():
        plugin = SPECTRAL_MODELS.find(name, "")
        assert np.isfinite(plugin.function(ENERGY, *values)).all(), name
        assert np.isfinite(plugin.companions["gradient"](ENERGY, *values)).all(), name


def test_interpolations_by_hand() -> None:
    nodes = np.array([1.0, 100.0])
    steep = {"energy": nodes, "values": np.array([1e-10, 1e-14])}
    # E^-2 between the nodes, and beyond
    for energy in (1.0, 10.0, 100.0, 0.1, 1000.0):
        assert value("template", energy, **steep) == pytest.approx(1e-10 / energy**2, rel=1e-12)
    empty = {"energy": nodes, "values": np.array([1e-10, 0.0])}
    assert value("template", 100.0, **empty) == 0
    assert value("template", 5.0, energy=np.array([1.0]), values=np.array([2e-12])) == pytest.approx(2e-12)
    assert value("template_norm", 10.0, energy=nodes, values=np.array([1.0, 4.0])) == pytest.approx(2.0)
    assert value("piecewise-norm", 10.0, 1.0, 4.0, energy=nodes) == pytest.approx(2.0)
    assert value("piecewise-norm", 10.0, 1.0, 4.0, energy=nodes, interp="lin") == pytest.approx(
        1 + 3 * 9 / 99
    )
    for interp in ("log", "lin"):
        assert value("piecewise-norm", 0.1, 1.0, 4.0, energy=nodes, interp=interp) == pytest.approx(1.0)
        assert value("piecewise-norm", 900.0, 1.0, 4.0, energy=nodes, interp=interp) == pytest.approx(4.0)


def test_absorption_by_hand() -> None:
    """Optical depths 1 and 3 at 1 TeV, none at 0.01 TeV, for redshifts 0.1 and 0.3."""
    table = {
        "energy": np.array([0.01, 1.0]),
        "param": np.array([0.1, 0.3]),
        "values": np.exp(-np.array([[0.0, 1.0], [0.0, 3.0]])),
    }

    def depth(energy: float, redshift: float, alpha: float = 1.0) -> float:
        return -float(np.log(value("ebl-norm", energy, redshift, alpha, **table)))

    assert depth(1.0, 0.1) == pytest.approx(1.0)
    assert depth(1.0, 0.2) == pytest.approx(2.0)
    assert depth(0.1, 0.2) == pytest.approx(1.0)
    assert depth(1.0, 0.2, 0.5) == pytest.approx(1.0)
    # beyond the table the lines go on: to no absorption at redshift 0, never to a gain
    assert depth(1.0, 0.0) == pytest.approx(0.0, abs=1e-12)
    assert depth(100.0, 0.1) == pytest.approx(2.0)
    assert depth(1e-4, 0.3) == 0
    gradient = NORM_MODELS.find("ebl-norm", "").companions["gradient"](1.0, 0.2, 1.0, **table)
    assert gradient == pytest.approx([-10 * np.exp(-2), -2 * np.exp(-2)])
    clipped = NORM_MODELS.find("ebl-norm", "").companions["gradient"](1e-4, 0.3, 1.0, **table)
    assert clipped == pytest.approx([0, 0])


def test_limits_of_the_cutoff() -> None:
    """Derivatives by lambda at 0: -E for alpha 1, 0 above it, and finite though steep below it."""
    gradient = SPECTRAL_MODELS.find("ecpl", "").companions["gradient"]
    energy = np.array([0.5, 20.0])
    by_lambda = [gradient(energy, 1e-12, 0.0, 1.0, 0.0, alpha)[3] for alpha in (1.0, 2.0, 0.5)]
    assert by_lambda[0] == pytest.approx(-1e-12 * energy)
    assert by_lambda[1] == pytest.approx([0, 0])
    assert np.all(np.isfinite(by_lambda[2]) & (by_lambda[2] < -1e-8))
    assert gradient(energy, 1e-12, 0.0, 1.0, 0.0, 1.0)[4] == pytest.approx([0, 0])


def test_a_break_of_no_width_is_sharp() -> None:
    energy = np.array([0.5, 2.0, 3.0])
    sharp = SPECTRAL_MODELS.find("bpl", "").function(energy, 1.0, 3.0, 1e-12, 1.0)
    smooth = SPECTRAL_MODELS.find("sbpl", "")
    for beta in (1e-3, 1e-30, 0.0, -1.0):
        assert smooth.function(energy, 1.0, 3.0, 1e-12, 1.0, 1.0, beta) == pytest.approx(sharp, rel=1e-6)
        assert np.isfinite(smooth.companions["gradient"](energy, 1.0, 3.0, 1e-12, 1.0, 1.0, beta)).all()


@pytest.mark.parametrize(
    ("name", "values", "low", "high", "total"),
    [
        ("power_law_2", (3e-12, 2.4, 0.5, 8.0), 0.5, 8.0, 3e-12),
        ("power_law_2", (3e-12, 1.0, 0.5, 8.0), 0.5, 8.0, 3e-12),
        ("gauss", (3e-12, 5.0, 0.01), 4.0, 6.0, 3e-12),
        ("log_gauss", (3e-12, 5.0, 0.3), 0.1, 200.0, 3e-12),
        # from 1 to 2 TeV flat, from 2 to 4 TeV as E^-2
        ("broken_power_law", (0.0, 2.0, 1e-12, 2.0), 1.0, 4.0, 2e-12),
    ],
)
def test_integrals_split_at_the_breaks(
    name: str, values: tuple[float, ...], low: float, high: float, total: float
) -> None:
    """Gauss-Legendre with six points between the breaks, in at most four parts, is exact to 1e-6."""
    plugin = SPECTRAL_MODELS.find(name, "")
    breaks = plugin.companions["breaks"](*values) if "breaks" in plugin.companions else np.zeros(0)
    edges = np.unique([low, *np.geomspace(low, high, 9), *breaks[(breaks > low) & (breaks < high)], high])
    x, w = np.polynomial.legendre.leggauss(6)
    log = np.log(edges)
    points = np.exp((log[1:, None] + log[:-1, None] + np.diff(log)[:, None] * x) / 2)
    found = np.sum(plugin.function(points, *values) * points * np.diff(log)[:, None] / 2 * w)
    assert found == pytest.approx(total, rel=1e-6)


def component(name: str, *values: float, **options: Any) -> Component:
    plugin = next(p for p in ALL if name in (p.name, *p.tags))
    known = parameters_of(plugin, options)
    return Component(
        plugin.name,
        tuple(Parameter(n, v, unit) for (n, (unit, _)), v in zip(known.items(), values, strict=True)),
        options,
    )


PL = component("pl", 2e-12, 2.3, 0.7)
LP = component("lp", 5e-12, 1.3, 2.1, 0.3)
TILT = component("pl-norm", 1.2, 0.1, 2.0)
NODES_NORM = component("piecewise-norm", 0.7, 1.1, 2.0, 1.6, 0.4, energy=NODES)
EBL = component("ebl-norm", 0.13, 0.9, **TABLE)
TEMPLATE = component("template", **OPTIONS["template"])
COMPOUNDS = {
    "sum": compound("add", PL, LP),
    "difference": compound("sub", LP, PL),
    "absorbed": compound("mul", PL, EBL),
    "factor first": compound("mul", EBL, LP),
    "ratio": compound("truediv", LP, TILT),
    "power": compound("mul", PL, compound("pow", TILT, NODES_NORM)),
    "template times factor": compound("mul", TEMPLATE, TILT),
    "nested": compound(
        "mul", compound("add", PL, compound("mul", LP, NODES_NORM)), compound("mul", EBL, TILT)
    ),
    "flux ratio": compound("mul", PL, compound("truediv", PL, LP)),
}


def resolved(c: Component) -> tuple[ModelFunction, tuple[float, ...]]:
    return resolve(c, "spectral", "test"), tuple(p.value for p in c.parameters)


@pytest.mark.parametrize("name", COMPOUNDS)
def test_a_compound_is_what_its_operator_says(name: str) -> None:
    def by_parts(c: Component) -> np.ndarray:
        if not c.parts:
            function, values = resolved(c)
            return np.asarray(function.function(ENERGY, *values))
        one, other = (by_parts(part) for part in c.parts)
        return {
            "add": one + other,
            "sub": one - other,
            "mul": one * other,
            "truediv": one / other,
            "pow": one**other if c.options["operator"] == "pow" else one,
        }[c.options["operator"]]

    found, values = resolved(COMPOUNDS[name])
    assert len(found.units) == len(values)
    assert found.function(ENERGY, *values) == pytest.approx(by_parts(COMPOUNDS[name]), rel=1e-13)
    folded = found.companions["gradient"](ENERGY.reshape(8, 5), *values)
    assert folded.shape == (len(values), 8, 5)
    gradient = folded.reshape(len(values), 40)
    for k in range(len(values)):
        numeric = difference(lambda *v: found.function(ENERGY, *v), values, k)
        assert gradient[k] == pytest.approx(numeric, rel=1e-6, abs=1e-6 * np.abs(numeric).max())


def test_parameters_of_a_compound_have_names_of_their_own() -> None:
    assert [p.name for p in compound("add", PL, LP).parameters] == [
        *("amplitude", "index", "reference"),
        *("amplitude_2", "reference_2", "alpha", "beta"),
    ]
    thrice = compound("add", compound("add", PL, PL), PL)
    assert [p.name for p in thrice.parameters][::3] == ["amplitude", "amplitude_2", "amplitude_3"]


def test_a_compound_has_the_breaks_and_faults_of_its_parts() -> None:
    broken = component("bpl", 1.0, 2.0, 1e-12, 3.3)
    found, values = resolved(compound("mul", broken, compound("mul", NODES_NORM, TILT)))
    assert found.companions["breaks"](*values) == pytest.approx(sorted([*NODES, 3.3]))
    assert found.companions["check"](*values) is None
    wrong = (*values[:3], -3.0, *values[4:])
    assert found.companions["check"](*wrong) == "of 'broken_power_law', `ebreak` is -3, and must be above 0"
    assert "breaks" not in resolved(compound("mul", PL, TILT))[0].companions
    wrong = (*values[:-1], 0.0)
    assert "of 'power_law_norm', `reference` is 0" in found.companions["check"](*wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (compound("add", PL, TILT), "a flux and a factor: it takes two spectra, or two factors"),
        (compound("mul", PL, LP), "neither a flux nor a factor"),
        (compound("pow", PL, TILT), "it takes two factors"),
        (compound("ad", PL, LP), "unknown operator 'ad'"),
        (Component("compound", (), {"operator": "add"}, (PL,)), "has 1 parts: give it two"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_compounds_of_what_cannot_be_combined(wrong: Component, words: str) -> None:
    with pytest.raises(InputError, match="models.yaml") as raised:
        resolve(wrong, "spectral", "models.yaml")
    assert words in str(raised.value)


def test_what_a_compound_returns() -> None:
    powers = {name: flux_power(c, "") for name, c in COMPOUNDS.items()}
    assert set(powers.values()) == {1}
    assert flux_power(compound("truediv", PL, LP), "") == 0
    assert flux_power(compound("mul", TILT, EBL), "") == 0
    assert set(OPERATORS) == {c.options["operator"] for c in COMPOUNDS.values()} | {"pow"}


def test_references_stand_for_their_components() -> None:
    crab, rays = (SPECTRAL_MODELS.find(name, "") for name in ("crab", "cosmic_ray"))
    magic = crab.companions["component"](reference="magic_lp")
    assert magic.kind == "log_parabola"
    assert {p.name: (p.value, p.frozen) for p in magic.parameters} == {
        "amplitude": (3.23e-11, False),
        "reference": (1.0, True),
        "alpha": (2.47, False),
        "beta": (pytest.approx(0.104231, abs=1e-6), False),
    }
    electrons = rays.companions["component"](particle="electron")
    assert [p.name for p in electrons.parameters][3:] == ["amplitude_2", "mean", "width"]
    for plugin in (crab, rays):
        for options in options_of(plugin):
            found, values = resolved(plugin.companions["component"](**options))
            assert plugin.function(ENERGY, *values, **options) == pytest.approx(
                found.function(ENERGY, *values), rel=1e-14
            )
