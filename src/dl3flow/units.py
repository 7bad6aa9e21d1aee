"""The one internal unit system (TeV, cm, s, rad, sr) and the annotations that cross into it.

A plug-in that annotates a parameter with one of the aliases below receives a float in internal units;
``Annotated[u.Quantity, unit]`` (astropy's ``u.Quantity[unit]``) gives it a Quantity instead.
"""

from typing import Annotated, Any

import astropy.units as u

ENERGY = u.TeV
LENGTH = u.cm
TIME = u.s
ANGLE = u.rad
SOLID_ANGLE = u.sr
DNDE = u.Unit("cm-2 s-1 TeV-1")
FLUX = u.Unit("cm-2 s-1")
EFLUX = u.Unit("TeV cm-2 s-1")
EXPOSURE = u.Unit("cm2 s")

Energy = Annotated[float, u.TeV]
InverseEnergy = Annotated[float, u.Unit("TeV-1")]
InverseSolidAngle = Annotated[float, u.Unit("sr-1")]
Angle = Annotated[float, u.rad]
Flux = Annotated[float, u.Unit("cm-2 s-1 TeV-1")]
Number = Annotated[float, u.dimensionless_unscaled]

_SPOKEN_ORDER = ("cm", "m", "s", "TeV")


def spoken_powers(unit: u.UnitBase) -> list[tuple[str, Any]]:
    """Names and powers of a unit as the field writes them, for labels: TeV cm-2 s-1, cm-2 s-1 TeV-1."""
    parts = [(base.to_string(), power) for base, power in zip(unit.bases, unit.powers, strict=True)]
    return sorted(
        parts, key=lambda part: (part[1] < 0, _SPOKEN_ORDER.index(part[0]) if part[0] in _SPOKEN_ORDER else 9)
    )
