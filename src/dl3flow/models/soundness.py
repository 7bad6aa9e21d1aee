"""Whether a model does what every model must: checked at its defaults, before a fit runs into it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dl3flow.models.resolve import parameters_of
from dl3flow.registry import Plugin

_PRECISION, _STEP = 1e-5, 1e-4
_ENERGIES = np.geomspace(0.03, 30.0, 6)
# of the radius of a model, at most of half a radian, towards both coordinates
_OFFSETS = np.array([-0.62, -0.31, -0.04, 0.17, 0.45, 0.68])
_DAYS = np.array([-1.3, 0.2, 0.7, 1.1, 2.9, 6.1])
# of each value, from its default
_MOVED = 0.03
_SPOKEN = {"spectral": "energies", "norm": "energies", "spatial": "directions", "temporal": "times"}


def find_fault(plugin: Plugin, part: str) -> str:
    """What is wrong with a model at its defaults, in a few words; empty if nothing is.

    A model with an option that has no default is checked by its signature alone.

    Parameters
    ----------
    plugin : Plugin
    part : str
        spectral, norm, spatial, temporal or prior.
    """
    if part == "prior":
        return _prior_fault(plugin)
    if fault := _signature_fault(plugin, part):
        return fault
    options = {name: default for name, (_, default) in plugin.options.items()}
    if inspect.Parameter.empty in options.values():
        return ""
    parameters = parameters_of(plugin, options)
    if missing := [name for name, (_, default) in parameters.items() if default is inspect.Parameter.empty]:
        return f"the parameter `{missing[0]}` has no default: give it one"
    values = [float(default) for _, default in parameters.values()]
    check = plugin.companions.get("check")
    if check and check(*values, **options):
        # defaults that are no model by themselves, such as two equal indices
        values = [value * (1 + 0.1 * n) for n, value in enumerate(values, start=1)]
    if part == "spatial" and (fault := _spatial_fault(plugin, values, options)):
        return fault
    if plugin.companions.get("is_point"):
        return ""
    positions = _positions(plugin, part, dict(zip(parameters, values, strict=True)), options)
    with np.errstate(all="ignore"):
        return (
            _value_fault(plugin, part, positions, values, options)
            or _gradient_fault(plugin, list(parameters), positions, values, options)
            or _moved_fault(plugin, part, parameters, values, options)
        )


def _is_by_energy(plugin: Plugin, options: Mapping[str, Any]) -> bool:
    given = plugin.companions.get("by_energy", False)
    return bool(given(**options) if callable(given) else given)


def _signature_fault(plugin: Plugin, part: str) -> str:
    given = inspect.signature(plugin.function).parameters.values()
    positional = [p.name for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    n = (2 if part == "spatial" else 1) + bool(plugin.companions.get("by_energy"))
    if len(positional) < n:
        return f"it must take {_SPOKEN[part]} first, found the arguments {positional}"
    if "parameters" in plugin.companions:
        return ""
    if unknown := [name for name in positional[n:] if name not in plugin.parameters]:
        return f"the parameter `{unknown[0]}` has no unit: annotate it, such as `{unknown[0]}: Number = 1.0`"
    return ""


def _positions(
    plugin: Plugin, part: str, values: Mapping[str, float], options: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    if part == "temporal":
        days = _read_only(values.get("t_ref", 51544.0) + _DAYS)
        return (days, _read_only(_ENERGIES)) if _is_by_energy(plugin, options) else (days,)
    if part != "spatial":
        return (_read_only(_ENERGIES),)
    is_by_energy = _is_by_energy(plugin, options)
    radius = plugin.companions["radius"](*values.values(), **options, **_energies(is_by_energy))
    offsets = min(float(radius), 0.5) * _OFFSETS
    lon, lat = values.get("lon_0", 0.0), values.get("lat_0", 0.0)
    sky = (_read_only(lon + offsets), _read_only(lat + offsets[::-1]))
    return (*sky, _read_only(_ENERGIES[:2])) if is_by_energy else sky


def _energies(is_by_energy: bool) -> dict[str, np.ndarray]:
    return {"energy": _ENERGIES[:2]} if is_by_energy else {}


def _read_only(array: np.ndarray) -> np.ndarray:
    """A model that writes into its argument fails on it."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def _spatial_fault(plugin: Plugin, values: list[float], options: Mapping[str, Any]) -> str:
    for name in ("radius", *(() if plugin.companions.get("is_point") else ("resolution",))):
        companion = plugin.companions.get(name)
        if not callable(companion):
            return (
                f"it needs the companion `{name}`, a function of its parameters that returns an angle in rad"
            )
        try:
            angle = float(companion(*values, **options, **_energies(_is_by_energy(plugin, options))))
        except Exception as error:  # a user's function: whatever it raises is told
            return f"`{name}` fails at the defaults ({type(error).__name__}: {error})"
        if not angle >= 0:
            return f"`{name}` must be an angle from 0, found {angle} at the defaults"
    return ""


def _value_fault(
    plugin: Plugin,
    part: str,
    positions: tuple[np.ndarray, ...],
    values: list[float],
    options: Mapping[str, Any],
) -> str:
    spoken = _SPOKEN[part]
    # a shape that depends on energy is one image per energy, before the axes of the sky
    sky, energies = (positions[:2], positions[2:]) if part == "spatial" else (positions, ())
    outer = energies[0].shape if energies else ()
    try:
        found = np.asarray(plugin.function(*positions, *values, **options))
        folded = (*(p.reshape(2, 3) for p in sky), *energies)
        images = np.asarray(plugin.function(*folded, *values, **options))
    except Exception as error:  # a user's function: whatever it raises is told
        return f"it fails at its defaults ({type(error).__name__}: {error})"
    for values_of, n, shape in ((found, "6", (6,)), (images, "2 x 3", (2, 3))):
        if values_of.shape != (*outer, *shape):
            return f"it returns the shape {values_of.shape} for {n} {spoken}: use functions of numpy, which take whole arrays"
    if not np.isfinite(found).all():
        place = int(np.argmin(np.isfinite(found))) % 6
        return f"it is {found[..., place].flat[0]} at its defaults for {_at(sky, place)}: make it finite"
    if not np.allclose(images.ravel(), found.ravel(), rtol=1e-12, atol=0):
        return f"it depends on the shape in which the {spoken} are given"
    return ""


def _at(positions: tuple[np.ndarray, ...], place: int) -> str:
    return ", ".join(f"{position[place]:g}" for position in positions)


def _gradient_fault(
    plugin: Plugin,
    names: list[str],
    positions: tuple[np.ndarray, ...],
    values: list[float],
    options: Mapping[str, Any],
) -> str:
    gradient = plugin.companions.get("gradient")
    if gradient is None:
        return ""

    def at(changed: list[float]) -> np.ndarray:
        return np.asarray(plugin.function(*positions, *changed, **options))

    try:
        rows = np.asarray(gradient(*positions, *values, **options))
    except Exception as error:  # a user's function: whatever it raises is told
        return f"its gradient fails at its defaults ({type(error).__name__}: {error})"
    if rows.shape != (len(names), *at(values).shape):
        return f"its gradient has the shape {rows.shape}, expected one row for each of {', '.join(names) or 'none'}"

    value = float(np.max(np.abs(at(values)), initial=0.0))
    for n, name in enumerate(names):
        expected = _difference(at, values, n)
        # where a function is flat its differences are their rounding
        largest = max(float(np.max(np.abs(expected), initial=0.0)), 1e-9 * value)
        if not np.allclose(rows[n], expected, rtol=_PRECISION, atol=_PRECISION * largest):
            return f"its gradient by `{name}` is {_first(rows[n])} where differences give {_first(expected)}"
    return ""


def _moved_fault(
    plugin: Plugin,
    part: str,
    parameters: Mapping[str, Any],
    values: list[float],
    options: Mapping[str, Any],
) -> str:
    """As `_gradient_fault` a few percent from the defaults, where a gradient that holds a default's number is wrong."""
    moved = [
        value * (1 + _MOVED * n) or _MOVED * n if _is_free(plugin, name) else value
        for n, (name, value) in enumerate(zip(parameters, values, strict=True), start=1)
    ]
    check = plugin.companions.get("check")
    if part == "spatial" or (check and check(*moved, **options)):
        return ""
    positions = _positions(plugin, part, dict(zip(parameters, moved, strict=True)), options)
    try:
        found = np.asarray(plugin.function(*positions, *moved, **options))
        fault = _gradient_fault(plugin, list(parameters), positions, moved, options)
    except (
        Exception
    ):  # a user's function may know its defaults alone: its own error tells whoever leaves them
        return ""
    if not np.isfinite(found).all():
        return ""
    listed = ", ".join(f"{name} = {value:g}" for name, value in zip(parameters, moved, strict=True))
    return f"{fault} (at {listed})" if fault else ""


def _is_free(plugin: Plugin, name: str) -> bool:
    return name not in plugin.companions.get("frozen", ())


def _difference(at: Callable[[list[float]], np.ndarray], values: list[float], n: int) -> np.ndarray:
    """Derivative by the parameter ``n`` from four values around it: exact to the fourth power of the step."""
    step = _STEP * min(abs(values[n]) or 1.0, 1.0)
    nodes = [at([*values[:n], values[n] + k * step, *values[n + 1 :]]) for k in (1, -1, 2, -2)]
    return np.asarray((8 * (nodes[0] - nodes[1]) - (nodes[2] - nodes[3])) / (12 * step))


def _first(row: np.ndarray) -> str:
    return f"{row.flat[0]:.6g}, {row.flat[1]:.6g}, ..."


def _prior_fault(plugin: Plugin) -> str:
    options = {name: default for name, (_, default) in plugin.options.items()}
    if inspect.Parameter.empty in options.values():
        return ""
    if missing := [name for name in ("gradient", "curvature") if not callable(plugin.companions.get(name))]:
        return f"it needs the companion `{missing[0]}`, its derivative by the value"
    limits = plugin.companions.get("limits")
    low, high = limits(**options) if limits else (0.0, 1.0)
    value, step = low + 0.37 * (high - low), 1e-3 * (high - low)
    try:
        nodes = [float(plugin.function(value + k * step, **options)) for k in (0, 1, -1)]
        slope, bend = (float(plugin.companions[n](value, **options)) for n in ("gradient", "curvature"))
    except Exception as error:  # a user's function: whatever it raises is told
        return f"it fails at its defaults ({type(error).__name__}: {error})"
    expected = (nodes[1] - nodes[2]) / (2 * step), (nodes[1] - 2 * nodes[0] + nodes[2]) / step**2
    for name, found, wanted in zip(("gradient", "curvature"), (slope, bend), expected, strict=True):
        if not abs(found - wanted) <= 1e-3 * max(abs(wanted), abs(nodes[0]), 1.0):
            return f"its {name} is {found:.6g} at {value:g} where differences give {wanted:.6g}"
    return ""
