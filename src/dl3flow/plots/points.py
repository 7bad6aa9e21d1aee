"""Measured points with asymmetric errors, and upper limits where nothing was measured: one look for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dl3flow.plots import style

# length of the arrow of a limit: part of a linear axis, decades of a logarithmic one
ARROW, LOG_ARROW = 0.08, 0.25
# height of its head below its end, part of the axis
_HEAD = 0.04


@dataclass(frozen=True, eq=False)
class Points:
    """Values with errors, or their limits, in bins of something.

    Attributes
    ----------
    x, low, high : array, shape (n,)
        Place and ends of each bin.
    value, errn, errp, limit : array, shape (n,)
        NaN where there is none.
    is_ul : bool array, shape (n,)
        Whether the limit is to be shown in place of the value.
    is_log : bool
        Whether the axis is logarithmic: a value at or below zero has no place on it, its limit has.
    """

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    value: np.ndarray
    errn: np.ndarray
    errp: np.ndarray
    limit: np.ndarray
    is_ul: np.ndarray
    is_log: bool = False

    @property
    def is_point(self) -> np.ndarray:
        """Bins that are drawn as a point."""
        good = ~self.is_ul & np.isfinite(self.value)
        return np.asarray(good & (self.value > 0) if self.is_log else good)

    @property
    def is_limit(self) -> np.ndarray:
        """Bins that are drawn as a limit."""
        good = np.isfinite(self.limit)
        return np.asarray(~self.is_point & good & (self.limit > 0) if self.is_log else self.is_ul & good)

    @property
    def n_missing(self) -> int:
        """Bins of which nothing is drawn."""
        return int((~self.is_point & ~self.is_limit).sum())

    @property
    def bottom(self) -> np.ndarray:
        """Lower ends of what is drawn; on a logarithmic axis an error bar is cut at a fifth of its point."""
        ends = self.value - np.nan_to_num(self.errn)
        if self.is_log:
            ends = np.maximum(ends, 0.2 * self.value)
            arrows = self.limit * 10**-LOG_ARROW
        else:
            # on an axis from here to the highest, with its margins, arrows and their heads have room
            part = (ARROW + _HEAD) * (1 + 2 * style.PAD) - style.PAD
            arrows = (self.limit - part * np.max(self.top, initial=0.0)) / (1 - part)
        return np.concatenate([ends[self.is_point], arrows[self.is_limit]])

    @property
    def top(self) -> np.ndarray:
        """Upper ends of what is drawn."""
        ends = self.value + np.nan_to_num(self.errp)
        return np.concatenate([ends[self.is_point], self.limit[self.is_limit]])

    def over(self, factor: float) -> "Points":
        """The same with all values in units of ``factor``."""
        names = ("value", "errn", "errp", "limit")
        return replace(self, **{name: getattr(self, name) / factor for name in names})

    def on_scale(self, origin: float, unit: float) -> "Points":
        """The same with places and ends counted from an origin in a unit."""
        names = ("x", "low", "high")
        return replace(self, **{name: (getattr(self, name) - origin) / unit for name in names})

    def shifted(self, by: np.ndarray) -> "Points":
        """The same with the places moved, the ends of the bins left where they are."""
        return replace(self, x=self.x + by)

    def where(self, chosen: np.ndarray) -> "Points":
        """Some of the bins."""
        names = ("x", "low", "high", "value", "errn", "errp", "limit", "is_ul")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})


def draw_points(
    axes: Axes,
    points: Points,
    label: str,
    limits: str = "",
    *,
    colour: str = "",
    limit_colour: str = "",
    marker: str = "o",
    height: float = 1.0,
) -> None:
    """Points with error bars, and limits with arrows.

    Parameters
    ----------
    axes : Axes
    points : Points
    label, limits : str
        What the legend calls the points and the limits; empty for no entry.
    colour, limit_colour : str, optional
        By default the first and the second of the palette.
    marker : str
    height : float
        Of a linear axis, of which an arrow is a part.
    """
    x, span = points.x, np.array([points.x - points.low, points.high - points.x])
    shown, limited = points.is_point, points.is_limit
    if shown.any():
        axes.errorbar(
            x[shown],
            points.value[shown],
            xerr=span[:, shown],
            yerr=np.nan_to_num([points.errn[shown], points.errp[shown]]),
            fmt=marker,
            color=colour or style.BLUE,
            elinewidth=1.2,
            label=label or None,
            zorder=3,
        )
    if limited.any():
        limit = points.limit[limited]
        length = limit * (1 - 10**-LOG_ARROW) if points.is_log else np.full(len(limit), ARROW * height)
        style.draw_limits(
            axes, x[limited], limit, span[:, limited], length, limits, limit_colour or style.VERMILION
        )


def told_limits(points: Points, meta: Mapping[str, Any]) -> str:
    """Legend of the limits, empty where there is none to be drawn."""
    return style.limit_label(meta) if points.is_limit.any() else ""


def missing_note(points: Points, bins: str) -> str:
    """What to say of bins that are not drawn; empty if all are."""
    what = "neither a flux nor a limit above zero" if points.is_log else "neither a flux nor a limit"
    return f"{points.n_missing} of {len(points.x)} {bins} have {what}." if points.n_missing else ""
