"""Likelihood profiles and contours of a fit, as parts of its figure."""

import math

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from dl3flow.data.products import Contour, FitResult, Profile
from dl3flow.plots import style

COLUMNS = 3
PANEL_HEIGHT = 2.9
_LEVELS = (1.0, 4.0)
_WIDEST_LABEL = 24
_LINES = ("-", "--", "-.", ":")


def panel_rows(n: int) -> int:
    """Rows that so many panels take."""
    return math.ceil(n / COLUMNS)


def contour_pairs(product: FitResult) -> dict[tuple[str, str], list[Contour]]:
    """Contours of a fit by their pair of parameters, the smallest first."""
    pairs: dict[tuple[str, str], list[Contour]] = {}
    for each in sorted(product.contours, key=lambda c: c.n_sigma):
        pairs.setdefault(each.names, []).append(each)
    return pairs


def draw_profiles(parent: SubFigure, product: FitResult) -> None:
    """Statistic along each profiled parameter, with the parabola of its error."""
    panels = _panels(parent, len(product.profiles))
    for axes, (name, profile) in zip(panels, product.profiles.items(), strict=True):
        _draw_profile(axes, product, name, profile)
    panels[0].set_ylabel("Δ stat")


def _draw_profile(axes: Axes, product: FitResult, name: str, profile: Profile) -> None:
    p = product.models.parameters()[name]
    factor, power = style.power_of_ten(profile.values)
    axes.plot(profile.values / factor, profile.stat, "o-", ms=2.8, lw=1.2, color=style.BLUE)
    if p.error > 0:
        x = np.linspace(profile.values[0], profile.values[-1], 100)
        axes.plot(x / factor, ((x - p.value) / p.error) ** 2, ":", lw=1.2, color=style.GREY)
    for level in _LEVELS:
        axes.axhline(level, color=style.LIGHT, lw=1, zorder=0)
    for value in _ends(product, name, p.value):
        axes.axvline(value / factor, color=style.VERMILION, lw=0.9, ls="--")
    finite = profile.stat[np.isfinite(profile.stat)]
    axes.set_ylim(0, max(1.3, 1.05 * float(finite.max(initial=0))))
    axes.set_xlabel(_label(name, p.unit, power, is_narrow=True))
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _ends(product: FitResult, name: str, value: float) -> list[float]:
    minus, plus = product.minos.get(name, (math.nan, math.nan))
    return [end for end in (value - minus, value + plus) if math.isfinite(end)]


def draw_contours(parent: SubFigure, product: FitResult) -> None:
    """Contours of each pair of parameters around the best fit."""
    pairs = contour_pairs(product)
    parameters = product.models.parameters()
    for axes, (names, curves) in zip(_panels(parent, len(pairs)), pairs.items(), strict=True):
        every = [np.concatenate([getattr(c, which) for c in curves]) for which in ("x", "y")]
        (fx, px), (fy, py) = (style.power_of_ten(values) for values in every)
        for curve, line in zip(curves, _LINES * len(curves), strict=False):
            x, y = (np.append(v, v[:1]) for v in (curve.x, curve.y))
            axes.plot(x / fx, y / fy, line, lw=1.3, color=style.BLUE, label=f"{curve.n_sigma:g} σ")
        best = [parameters[name] for name in names]
        axes.plot(best[0].value / fx, best[1].value / fy, "+", ms=9, color=style.VERMILION)
        axes.set_xlabel(_label(names[0], best[0].unit, px, is_narrow=True))
        axes.set_ylabel(_label(names[1], best[1].unit, py))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        style.legend_above(axes, 3)


def _panels(parent: SubFigure, n: int) -> list[Axes]:
    grid = parent.add_gridspec(panel_rows(n), COLUMNS)
    return [parent.add_subplot(grid[k // COLUMNS, k % COLUMNS]) for k in range(n)]


def _label(name: str, unit: u.UnitBase, power: str, *, is_narrow: bool = False) -> str:
    text = f"{power}{style.unit_text(unit)}".strip()
    # a panel is narrower than the name of a parameter with a long unit
    gap = "\n" if is_narrow and len(name) + len(text) > _WIDEST_LABEL else " "
    return style.plain(f"{name}{gap}({text})" if text else name)
