"""Numbers for readers: two digits of the error, powers of ten where they help, units with superscripts."""

import math

import astropy.units as u
from markupsafe import Markup, escape

from dl3flow.units import spoken_powers

MISSING = "–"
_PLAIN_EXPONENTS = range(-3, 5)
_MOST_DECIMALS = 12
# between an upper and a lower error
_MOST_SKEW = 1e3
_MINUS = "\u2212"


def number(value: float, digits: int = 4) -> Markup:
    """Value to so many significant digits, with a power of ten outside 0.001 .. 99999."""
    if not math.isfinite(value):
        return Markup(MISSING)
    exponent = math.floor(math.log10(abs(value))) if value else 0
    if exponent in _PLAIN_EXPONENTS:
        return _signed(f"{value:.{max(0, digits - 1 - exponent)}f}")
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    return _signed(mantissa) + _times_ten(int(power))


def general(value: float, digits: int = 6) -> Markup:
    """Value with no more digits than it has, such as a fixed parameter: 1, 83.63, 2.5 × 10⁻¹²."""
    if not math.isfinite(value):
        return Markup(MISSING)
    exponent = math.floor(math.log10(abs(value))) if value else 0
    if exponent in _PLAIN_EXPONENTS:
        return _signed(f"{value:.{digits}g}")
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    return _signed(f"{float(mantissa):g}") + _times_ten(int(power))


def with_error(value: float, error: float) -> Markup:
    """``(4.56 ± 0.36) × 10⁻¹¹``: two significant digits of the error; the value alone if there is no error."""
    if not math.isfinite(value):
        return Markup(MISSING)
    if not (math.isfinite(error) and error > 0):
        return general(value)
    power, decimals = _scale(max(abs(value), error), error)
    if decimals > _MOST_DECIMALS:
        return Markup("{} ± {}").format(general(value), number(error, 2))
    scale = 10.0**power
    text = _signed(f"{round(value / scale, decimals):.{max(0, decimals)}f}") + Markup(
        f" ± {round(error / scale, decimals):.{max(0, decimals)}f}"
    )
    return Markup("({}){}").format(text, _times_ten(power)) if power else text


def with_errors(value: float, minus: float, plus: float) -> Markup:
    """Value with its lower and upper error set above each other."""
    errors = [e for e in (minus, plus) if math.isfinite(e) and e > 0]
    if not math.isfinite(value):
        return Markup(MISSING)
    if not errors:
        return general(value)
    power, decimals = _scale(max(abs(value), *errors), min(errors))
    scale, n = 10.0**power, max(0, decimals)
    if decimals > _MOST_DECIMALS or max(errors) > _MOST_SKEW * min(errors):
        # no power of ten suits all three
        up, down = (number(e, 2) if math.isfinite(e) and e > 0 else Markup("?") for e in (plus, minus))
        return Markup('{} <span class="errors"><sup>+{}</sup><sub>{}{}</sub></span>').format(
            number(value, 2), up, _MINUS, down
        )
    up, down = (
        Markup(f"{round(e / scale, decimals):.{n}f}" if math.isfinite(e) and e > 0 else "?")
        for e in (plus, minus)
    )
    body = _signed(f"{round(value / scale, decimals):.{n}f}") + Markup(
        f' <span class="errors"><sup>+{up}</sup><sub>{_MINUS}{down}</sub></span>'
    )
    return Markup("{}{}").format(body, _times_ten(power)) if power else body


def unit_text(unit: u.UnitBase) -> Markup:
    """Unit with superscripts, positive powers first."""
    return Markup(" ").join(
        escape(name)
        if power == 1
        else Markup("{}<sup>{}</sup>").format(name, str(power).replace("-", _MINUS))
        for name, power in spoken_powers(unit)
    )


def _scale(largest: float, error: float) -> tuple[int, int]:
    """Power of ten of the largest of a value and its errors, and decimals that show two digits of an error after it."""
    exponent = math.floor(math.log10(largest))
    power = 0 if exponent in _PLAIN_EXPONENTS else exponent
    # the error rounded first: 0.0996 has its first digit at 0.1
    first = math.floor(math.log10(float(f"{error:.1e}")))
    return power, 1 - (first - power)


def _times_ten(exponent: int) -> Markup:
    return Markup(" × 10<sup>{}</sup>").format(str(exponent).replace("-", _MINUS))


def _signed(text: str) -> Markup:
    return Markup(escape(text.replace("-", _MINUS)))


def short(value: float, decimals: int) -> str:
    """Number with so many decimals, with a true minus sign."""
    return f"{value:.{decimals}f}".replace("-", "−") if math.isfinite(value) else MISSING
