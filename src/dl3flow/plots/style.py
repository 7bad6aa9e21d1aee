"""One look for all pictures: palette, fonts, axes of energy and flux, titles, and bytes that depend on nothing else."""

import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import astropy.units as u
import matplotlib.style
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis as TickAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerErrorbar
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWNBASE
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from dl3flow.units import spoken_powers

DIVERGING = "RdBu_r"
_PAGE = (7.2, 4.2)
_PNG_DPI = 160
# margin of a linear axis beyond what it shows
PAD = 0.08
# part of its size that a letter is wide, on average
_LETTER = 0.575

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "mathtext.fontset": "dejavusans",
    # Okabe and Ito (2008): told apart with every common colour vision deficiency
    "axes.prop_cycle": cycler(color=["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"]),
    "text.color": "#1A1A1A",
    "axes.labelcolor": "#1A1A1A",
    "axes.facecolor": "white",
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.8,
    "axes.titlesize": "medium",
    "axes.labelsize": "medium",
    "axes.unicode_minus": True,
    "grid.color": "#D9D9D9",
    "grid.linewidth": 0.5,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "legend.fontsize": "small",
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.figsize": _PAGE,
    "figure.titlesize": "large",
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": _PNG_DPI,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.2,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
    "image.origin": "lower",
    # text as outlines: the same picture whatever fonts the reader has
    "svg.fonttype": "path",
    # ids in an SVG are random without it
    "svg.hashsalt": "dl3flow",
}
_CYCLE = ("BLUE", "VERMILION", "GREEN", "ORANGE", "PURPLE", "SKY")
_NAMED = {
    "BLACK": "text.color",
    "GREY": "axes.edgecolor",
    "LIGHT": "grid.color",
    "PAPER": "axes.facecolor",
    "SEQUENTIAL": "image.cmap",
}
_CHOSEN: ContextVar[Mapping[str, Any] | None] = ContextVar("chosen style", default=None)


def __getattr__(name: str) -> str:
    """Colour of the palette by its name, such as ``BLUE``: that of the house, or what a style file puts in its place."""
    if name in _CYCLE:
        return cycle(len(_CYCLE))[_CYCLE.index(name)]
    if name in _NAMED:
        return str(_settings()[_NAMED[name]])
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def cycle(n: int) -> list[str]:
    """As many colours of the palette, from the first again where they do not suffice."""
    colours = _settings()["axes.prop_cycle"].by_key().get("color", ["black"])
    return [str(colours[k % len(colours)]) for k in range(n)]


def _settings() -> dict[str, Any]:
    return {**_STYLE, **(_CHOSEN.get() or {})}


@contextmanager
def restyled(settings: Mapping[str, Any]) -> Iterator[None]:
    """Draw with the settings of a style file (see `parse_style`) over those of the house."""
    token = _CHOSEN.set(settings)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


@contextmanager
def applied() -> Iterator[None]:
    """Draw in this style, whatever matplotlibrc or session settings say."""
    with matplotlib.style.context(_settings(), after_reset=True):
        yield


def new_figure(height: float, width: float | None = None) -> Figure:
    """Empty figure of page width on the Agg canvas.

    Parameters
    ----------
    height, width : float
        In inches on the page of the house; a style file's ``figure.figsize`` scales both.
    """
    page = _settings()["figure.figsize"]
    size = ((width or _PAGE[0]) * page[0] / _PAGE[0], height * page[1] / _PAGE[1])
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _fold(figure: Figure, text: str, size: str) -> str:
    """Text in lines that fit on the page, in a size such as ``small``."""
    points = FontProperties(size=size).get_size_in_points()
    letters = max(10, int(72 * figure.get_figwidth() / (_LETTER * points)))
    return "\n".join(textwrap.wrap(text, letters))


def plain(text: object) -> str:
    """Text from a user, so that a dollar sign starts no formula."""
    return str(text).replace("$", r"\$")


def set_title(figure: Figure, text: str) -> None:
    """Title of the whole figure, at its left, broken into lines that fit."""
    size = _settings()["figure.titlesize"]
    figure.suptitle(plain(_fold(figure, text, size)), x=0.01, ha="left")


def name_analysis(figure: Figure, analysis: str) -> None:
    """Add to the title of which analysis the figure is."""
    with applied():
        title = " ".join(figure.get_suptitle().split("\n")).replace(r"\$", "$")
        set_title(figure, f"{title} · {analysis}" if title else analysis)


def add_note(figure: Figure, text: str) -> None:
    """Remark below all axes, for what a picture cannot show."""
    figure.supxlabel(
        plain(_fold(figure, text, "small")), x=0.01, ha="left", fontsize="small", color=__getattr__("GREY")
    )


def unit_text(unit: u.UnitBase) -> str:
    """Unit with superscripts, such as ``cm⁻² s⁻¹ TeV⁻¹``; empty for a number."""
    return " ".join(f"{name}{_superscript(power)}" for name, power in spoken_powers(unit))


_SUPERSCRIPTS = str.maketrans("0123456789-./", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·ᐟ")


def _superscript(power: Any) -> str:
    return "" if power == 1 else f"{power}".translate(_SUPERSCRIPTS)


def power_of_ten(values: np.ndarray) -> tuple[float, str]:
    """Factor that brings the largest finite value to 1 .. 1000, and its text for a label such as ``10⁻¹¹ ``."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size else 0.0
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    if -2 <= exponent <= 3:
        return 1.0, ""
    return 10.0**exponent, f"10{_superscript(exponent)} "


def set_log_axis(
    axes: Axes, which: Literal["x", "y"], low: float, high: float, label: Callable[[float], str]
) -> None:
    """Logarithmic axis from ``low`` to ``high`` with a few labelled ticks however short or long it is."""
    axis: TickAxis = axes.xaxis if which == "x" else axes.yaxis
    if which == "x":
        # limits first: without a positive value matplotlib finds none by itself
        axes.set_xlim(low, high)
        axes.set_xscale("log", nonpositive="clip")
    else:
        axes.set_ylim(low, high)
        axes.set_yscale("log", nonpositive="clip")
    decades = math.log10(high / low)
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axis.set_minor_formatter(NullFormatter())
    if decades < 0.95:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
    elif decades < 2.2:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
        axis.set_minor_locator(LogLocator(subs=tuple(range(1, 10)), numticks=30))
    else:
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_locator(LogLocator(subs=tuple(range(1, 10)), numticks=30))


def set_energy_axis(axes: Axes, low: float, high: float, name: str = "Energy") -> None:
    """Logarithmic horizontal axis of energy in TeV."""
    set_log_axis(axes, "x", low, high, lambda value: f"{value:.6g}")
    axes.set_xlabel(f"{name} (TeV)")


def power_label(value: float) -> str:
    """Tick label of a small or large number: ``2×10⁻¹²``."""
    if value <= 0 or 0.999 < value < 99.5:
        return f"{value:g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10.0**exponent
    power = f"10{_superscript(exponent)}"
    return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:.3g}×{power}"


def rounded(value: float) -> str:
    """Two decimals with a true minus sign, and none on a zero."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def count_label(value: float) -> str:
    """Tick label of a number of counts: plain up to 10,000."""
    return f"{value:g}" if value < 1e5 else power_label(value)


def legend_above(axes: Axes, columns: int = 3) -> None:
    """Legend over the axes, at the right, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            *_data_first(handles, labels),
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            columnspacing=1.4,
            handler_map={ErrorbarContainer: _LimitHandler()},
        )


def legend_across(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Legend in one line over the first of several axes in a row, which it may reach beyond."""
    # an empty title keeps the line free: the legend itself would widen the axes that it begins over
    axes.set_title(" ", fontsize="large")
    axes.legend(
        *_data_first(handles, labels),
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(labels),
        borderaxespad=0.2,
        columnspacing=1.4,
        handler_map={ErrorbarContainer: _LimitHandler()},
    ).set_in_layout(False)


def _data_first(handles: Sequence[Any], labels: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Data before models, as one reads them."""
    order = sorted(range(len(handles)), key=lambda n: not isinstance(handles[n], Container))
    return [handles[n] for n in order], [labels[n] for n in order]


def limit_label(meta: Mapping[str, Any]) -> str:
    """Legend of upper limits, from a product's meta."""
    if "ul_conf" in meta:
        return f"upper limits ({100 * float(meta['ul_conf']):.4g} % CL)"
    return f"upper limits ({float(meta.get('n_sigma_ul', 2)):g} σ)"


def draw_limits(
    axes: Axes,
    x: np.ndarray,
    limit: np.ndarray,
    half: np.ndarray,
    length: np.ndarray,
    label: str,
    colour: str = "",
) -> None:
    """Upper limits as bars of the bin's width with an arrow down.

    Parameters
    ----------
    x, limit, length : array, shape (n,)
        Place, upper limit, and length of the arrow below it.
    half : array, shape (2, n)
        Distance to the lower and upper edge of the bin.
    label, colour : str
        Of the legend's entry, empty for none; the second colour of the palette by default.
    """
    colour = colour or __getattr__("VERMILION")
    look: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 1.2, "zorder": 3}
    axes.errorbar(x, limit, xerr=half, **look)
    # `color` reaches the head of the arrow, `ecolor` does not
    axes.errorbar(x, limit, yerr=length, uplims=True, capsize=3.2, color=colour, label=label or None, **look)


class _LimitHandler(HandlerErrorbar):
    """Legend entry of upper limits: the arrow that stands in the picture."""

    def create_artists(self, legend: Any, orig_handle: Any, *args: Any) -> list[Any]:
        """Arrow where the container has limits, else matplotlib's own entry."""
        artists = list(super().create_artists(legend, orig_handle, *args))
        if not any(line.get_marker() == CARETDOWNBASE for line in orig_handle.lines[1]):
            return artists
        x0, y0, width, height, _, transform = args
        arrow = Line2D(
            [x0 + width / 2],
            [y0 + height / 2],
            marker=r"$\downarrow$",
            ms=9,
            color=orig_handle.lines[1][0].get_color(),
            ls="none",
        )
        arrow.set_transform(transform)
        return [arrow]


def padded_limits(
    low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray, pad: float = PAD
) -> tuple[float, float]:
    """Limits that hold all finite values with a margin; (0, 1) if there are none."""
    values = np.concatenate([np.ravel(low), np.ravel(high)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    bottom, top = float(values.min()), float(values.max())
    margin = pad * (top - bottom) or 0.5 * abs(top) or 1.0
    return bottom - margin, top + margin


def render(figure: Figure, kind: Literal["svg", "png"], provenance: str = "") -> bytes:
    """Bytes of the picture, the same for the same figure: no date, no name of a program.

    Parameters
    ----------
    figure : Figure
    kind : 'svg' or 'png'
    provenance : str
        Embedded as the metadata ``Description`` (SVG) or a text chunk ``provenance`` (PNG).
    """
    metadata: dict[str, Any]
    if kind == "svg":
        metadata = {"Date": None, "Creator": None, "Description": provenance or None}
    else:
        metadata = {"Software": None, "provenance": provenance or None}
    stream = io.BytesIO()
    with applied():
        # each draw moves a constrained layout a little further; the first one stands for all files of the figure
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        figure.savefig(stream, format=kind, metadata=metadata)
    return stream.getvalue()


def save(figure: Figure, path: Path, provenance: str = "") -> None:
    """Write the picture as the path's suffix says, .svg or .png, in deterministic bytes."""
    path.write_bytes(render(figure, "svg" if path.suffix == ".svg" else "png", provenance))
