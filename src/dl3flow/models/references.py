"""Published spectra by name: the Crab nebula as several instruments saw it, and cosmic rays at Earth."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import astropy.units as u
import numpy as np

from dl3flow.models.compound import compound
from dl3flow.models.cutoffs import exp_cutoff_power_law
from dl3flow.models.source import Component, Parameter
from dl3flow.models.spectral import SPECTRAL_MODELS, log_gauss, log_parabola, power_law
from dl3flow.registry import Plugin
from dl3flow.units import Number

# Meyer, Horns & Zechlin (2010), appendix D: log10 of E^2 dN/dE in erg cm-2 s-1, powers of log10(E / TeV) from 0
_MEYER = (-10.2708, -0.53616, -0.179475, 0.0473174, 0.0, -0.00449161)
_TEV_PER_ERG = float(u.erg.to(u.TeV))
_CM2_PER_M2 = 1e4


def _meyer_gradient(energy: np.ndarray, norm: float) -> np.ndarray:
    return np.asarray(meyer_crab.function(energy, 1.0))[None]


@SPECTRAL_MODELS.register("MeyerCrabSpectralModel", gradient=_meyer_gradient, frozen=("norm",))
def meyer_crab(energy: np.ndarray, norm: Number = 1.0) -> np.ndarray:
    """The Crab nebula's inverse Compton emission from a model of its whole spectrum, times ``norm``.

    Meyer, Horns & Zechlin (2010), appendix D: a polynomial in log10(E / TeV).
    """
    polynomial = np.polynomial.polynomial.polyval(np.log10(energy), _MEYER)
    return np.asarray(norm * _TEV_PER_ERG * 10**polynomial / energy**2)


_Values = Mapping[str, float]

# hegra: Aharonian et al. (2000); hess: Aharonian et al. (2006); magic: Aleksic et al. (2015)
_CRAB: Mapping[str, tuple[Plugin, _Values]] = {
    "meyer": (meyer_crab, {}),
    "hegra": (power_law, {"amplitude": 2.83e-11, "index": 2.62}),
    "hess_pl": (power_law, {"amplitude": 3.45e-11, "index": 2.63}),
    "hess_ecpl": (exp_cutoff_power_law, {"amplitude": 3.76e-11, "index": 2.39, "lambda_": 1 / 14.3}),
    "magic_lp": (
        log_parabola,
        # published for log10
        {"amplitude": 3.23e-11, "reference": 1.0, "alpha": 2.47, "beta": 0.24 / float(np.log(10))},
    ),
    "magic_ecpl": (exp_cutoff_power_law, {"amplitude": 3.80e-11, "index": 2.21, "lambda_": 1 / 6.0}),
}
# Bernloehr et al. (2013), table 3: m-2 s-1 TeV-1 sr-1 at 1 TeV, and index
_HADRONS: Mapping[str, tuple[float, float]] = {
    "proton": (0.096, 2.70),
    "Si": (0.0284, 2.66),
    "Fe": (0.0134, 2.63),
}
_ELECTRONS = (6.85e-5, 3.21)
_ELECTRON_BUMP = 3.19e-3  # m-2 s-1 sr-1
_WHOLE_SKY = 4 * float(np.pi) / _CM2_PER_M2


def _component(plugin: Plugin, values: _Values) -> Component:
    frozen = plugin.companions.get("frozen", ())
    return Component(
        plugin.name,
        tuple(
            Parameter(name, float(values.get(name, default)), unit, frozen=name in frozen)
            for name, (unit, default) in plugin.parameters.items()
        ),
    )


def crab_component(*, reference: str = "meyer") -> Component:
    """Component of a published spectrum of the Crab nebula."""
    return _component(*_CRAB[reference])


def cosmic_ray_component(*, particle: str = "proton") -> Component:
    """Component of the flux of a kind of cosmic rays from the whole sky."""
    amplitude, index = _HADRONS.get(particle, _ELECTRONS)
    spectrum = _component(power_law, {"amplitude": amplitude * _WHOLE_SKY, "index": index})
    if particle in _HADRONS:
        return spectrum
    return compound("add", spectrum, _component(log_gauss, {"amplitude": _ELECTRON_BUMP * _WHOLE_SKY}))


def _parameters_of(component: Component) -> dict[str, tuple[u.UnitBase, float]]:
    return {p.name: (p.unit, p.value) for p in component.parameters}


def _function_of(component: Component, values: tuple[float, ...], call: Callable[..., Any]) -> list[Any]:
    """``call`` of each plug-in that the component is made of with its own values."""
    parts = component.parts or (component,)
    found, start = [], 0
    for part in parts:
        stop = start + len(part.parameters)
        found.append(call(SPECTRAL_MODELS.find(part.kind, "references"), values[start:stop]))
        start = stop
    return found


def _evaluate(component: Component, energy: np.ndarray, values: tuple[float, ...]) -> np.ndarray:
    parts = _function_of(component, values, lambda plugin, own: plugin.function(energy, *own))
    return np.asarray(np.sum(parts, axis=0))


def _gradient(component: Component, energy: np.ndarray, values: tuple[float, ...]) -> np.ndarray:
    return np.concatenate(
        _function_of(component, values, lambda plugin, own: plugin.companions["gradient"](energy, *own))
    )


@SPECTRAL_MODELS.register(
    gradient=lambda energy, *values, reference="meyer": _gradient(
        crab_component(reference=reference), energy, values
    ),
    parameters=lambda *, reference="meyer": _parameters_of(crab_component(reference=reference)),
    component=crab_component,
)
def crab(
    energy: np.ndarray,
    *values: float,
    reference: Literal["meyer", "hegra", "hess_pl", "hess_ecpl", "magic_lp", "magic_ecpl"] = "meyer",
) -> np.ndarray:
    """The Crab nebula as published: stands for the power law, log parabola... that ``reference`` names."""
    return _evaluate(crab_component(reference=reference), energy, values)


@SPECTRAL_MODELS.register(
    gradient=lambda energy, *values, particle="proton": _gradient(
        cosmic_ray_component(particle=particle), energy, values
    ),
    parameters=lambda *, particle="proton": _parameters_of(cosmic_ray_component(particle=particle)),
    component=cosmic_ray_component,
)
def cosmic_ray(
    energy: np.ndarray, *values: float, particle: Literal["proton", "Si", "Fe", "electron"] = "proton"
) -> np.ndarray:
    """Cosmic rays at Earth from the whole sky (4 pi sr): stands for the power law, or sum, of the ``particle``."""
    return _evaluate(cosmic_ray_component(particle=particle), energy, values)
