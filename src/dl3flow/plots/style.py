"""One look for all pictures: palette, fonts, axes of energy and flux, titles, and bytes that depend on nothing else."""

import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import astropy.units as u
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as TickAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerErrorbar
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWNBASE
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from dl3flow.units import spoken_powers

# Okabe and Ito (2008): told apart with every common colour vision deficiency
BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
BLACK, GREY, LIGHT = "#1A1A1A", "#666666", "#D9D9D9"
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
PAGE_WIDTH = 7.2
_TITLE_LETTERS = 82
_PNG_DPI = 160

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.linewidth": 1.5,
    "image.interpolation": "nearest",
    "image.origin": "lower",
    # text as outlines: the same picture whatever fonts the reader has
    "svg.fonttype": "path",
    # ids in an SVG are random without it
    "svg.hashsalt": "dl3flow",
}


@contextmanager
def applied() -> Iterator[None]:
    """Draw in this style, whatever matplotlibrc or session settings say."""
    with matplotlib.style.context(_STYLE, after_reset=True):
        yield


def new_figure(height: float, width: float = PAGE_WIDTH) -> Figure:
    """Empty figure of page width, sizes in inches, on the Agg canvas."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: object) -> str:
    """Text from a user, so that a dollar sign starts no formula."""
    return str(text).replace("$", r"\$")


def set_title(figure: Figure, text: str) -> None:
    """Title of the whole figure, at its left, broken into lines that fit."""
    title = "\n".join(textwrap.wrap(text, _TITLE_LETTERS))
    figure.suptitle(plain(title), x=0.01, ha="left")


def name_analysis(figure: Figure, analysis: str) -> None:
    """Add to the title of which analysis the figure is."""
    with applied():
        title = " ".join(figure.get_suptitle().split("\n")).replace(r"\$", "$")
        set_title(figure, f"{title} · {analysis}" if title else analysis)


def add_note(figure: Figure, text: str) -> None:
    """Remark below all axes, for what a picture cannot show."""
    figure.supxlabel(plain("\n".join(textwrap.wrap(text, 110))), x=0.01, ha="left", fontsize=8, color=GREY)


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
        axes.set_xscale("log", nonpositive="clip")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(low, high)
    decades = math.log10(high / low)
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axis.set_minor_formatter(NullFormatter())
    if decades < 0.7:
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
    """Tick label of a small or large number: ``2 × 10⁻¹²``."""
    if value <= 0:
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
        # data before models, as one reads them
        order = sorted(range(len(handles)), key=lambda n: not isinstance(handles[n], Container))
        axes.legend(
            [handles[n] for n in order],
            [labels[n] for n in order],
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            columnspacing=1.4,
            handler_map={ErrorbarContainer: _LimitHandler()},
        )


def limit_label(meta: Mapping[str, Any]) -> str:
    """Legend of upper limits, from a product's meta."""
    if "ul_conf" in meta:
        return f"upper limits ({100 * float(meta['ul_conf']):.4g} % CL)"
    return f"upper limits ({float(meta.get('n_sigma_ul', 2)):g} σ)"


def draw_limits(
    axes: Axes, x: np.ndarray, limit: np.ndarray, half: np.ndarray, length: np.ndarray, label: str
) -> None:
    """Upper limits as bars of the bin's width with an arrow down.

    Parameters
    ----------
    x, limit, length : array, shape (n,)
        Place, upper limit, and length of the arrow below it.
    half : array, shape (2, n)
        Distance to the lower and upper edge of the bin.
    """
    look: dict[str, Any] = {"fmt": "none", "ecolor": VERMILION, "elinewidth": 1.2, "zorder": 3}
    axes.errorbar(x, limit, xerr=half, **look)
    # `color` reaches the head of the arrow, `ecolor` does not
    axes.errorbar(x, limit, yerr=length, uplims=True, capsize=3.2, color=VERMILION, label=label, **look)


class _LimitHandler(HandlerErrorbar):
    """Legend entry of upper limits: the arrow that stands in the picture."""

    def create_artists(self, legend: Any, orig_handle: Any, *args: Any) -> list[Any]:
        """Arrow where the container has limits, else matplotlib's own entry."""
        artists = list(super().create_artists(legend, orig_handle, *args))
        if not any(line.get_marker() == CARETDOWNBASE for line in orig_handle.lines[1]):
            return artists
        x0, y0, width, height, _, transform = args
        arrow = Line2D(
            [x0 + width / 2], [y0 + height / 2], marker=r"$\downarrow$", ms=9, color=VERMILION, ls="none"
        )
        arrow.set_transform(transform)
        return [arrow]


def padded_limits(
    low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray, pad: float = 0.08
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
        figure.savefig(stream, format=kind, metadata=metadata, dpi=_PNG_DPI)
    return stream.getvalue()


def save(figure: Figure, path: Path, provenance: str = "") -> None:
    """Write the picture as the path's suffix says, .svg or .png, in deterministic bytes."""
    path.write_bytes(render(figure, "svg" if path.suffix == ".svg" else "png", provenance))
