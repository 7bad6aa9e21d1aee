"""Tables of the report: their form, and those of flux points, light curves and spectra."""

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.time import Time
from markupsafe import Markup

from dl3flow.data.products import Butterfly, FluxPoints, LightCurve, ProductTable
from dl3flow.report.numbers import general, number, short, unit_text, with_errors
from dl3flow.units import FLUX

Product = FluxPoints | LightCurve | Butterfly | ProductTable

_MOST_OPEN_ROWS = 40
_LARGE_PERCENT = 1e4
_TEXT_HEADINGS = frozenset(
    {
        "Target",
        "Group",
        "Data",
        "Telescope",
        "Status",
        "Reason",
        "Result",
        "Inside 68 %?",
        "Where",
        "Datasets",
        "Observations",
        "Fit",
        "Package",
        "SHA-256",
        "Role",
    }
)


@dataclass(frozen=True)
class Table:
    """A table of the page: the first cell of each row is its heading."""

    caption: str
    headings: Sequence[str | Markup]
    rows: Sequence[Sequence[str | Markup]]
    is_open: bool = False

    @property
    def is_long(self) -> bool:
        """True for a table that stays folded until it is asked for."""
        return not self.is_open and len(self.rows) > _MOST_OPEN_ROWS

    def is_text(self, column: int) -> bool:
        """True for a column of words, which stands at the left."""
        return column == 0 or self.headings[column] in _TEXT_HEADINGS


def count_points(table: QTable) -> tuple[int, int]:
    """Numbers of measured points and of upper limits; bins without a valid result are neither."""
    is_ul = np.asarray(table["is_ul"], dtype=bool)
    value, limit = (np.isfinite(np.asarray(table[name], dtype=float)) for name in ("norm", "norm_ul"))
    return int(np.sum(~is_ul & value)), int(np.sum(is_ul & limit))


def alternative(product: Product) -> str:
    """Words in place of the picture of a product."""
    return f"{in_words(product)}; the numbers stand in the table."


def in_words(product: Product) -> str:
    """What a product holds, in numbers."""
    if isinstance(product, Butterfly):
        pivot = float(product.meta.get("pivot_energy") or np.nan)
        known = f", smallest relative error at {pivot:.3g} TeV" * bool(np.isfinite(pivot))
        return f"spectrum at {len(product.table)} energies with its 68 % band{known}"
    told = [f"{label} {_spoken(value)}" for label, value in product.meta.get("summary", [])]
    if isinstance(product, ProductTable):
        return "; ".join([f"table of {len(product.table)} rows", *told])
    measured, limits = count_points(product.table)
    noun = "flux points" if isinstance(product, FluxPoints) else "time bins"
    return "; ".join([f"{measured} {noun} and {limits} upper limits", *told])


def product_table(name: str, product: Product) -> Table:
    """Table of a product: one row per energy or time bin."""
    if isinstance(product, Butterfly):
        return _butterfly_table(name, product)
    if isinstance(product, ProductTable):
        return _plain_table(name, product)
    return (
        _flux_point_table(name, product)
        if isinstance(product, FluxPoints)
        else _light_curve_table(name, product)
    )


def _column(table: QTable, name: str) -> np.ndarray:
    """Values of a column, NaN where there is no such column."""
    return np.asarray(table[name], dtype=float) if name in table.colnames else np.full(len(table), np.nan)


def _flux_point_table(name: str, product: FluxPoints) -> Table:
    t = product.table
    energy, low, high = (t[c].to_value(u.TeV) for c in ("e_ref", "e_min", "e_max"))
    sed, minus, plus, limit = (product.e2dnde(c).value for c in ("norm", "norm_errn", "norm_errp", "norm_ul"))
    headings = [
        "Energy (TeV)",
        "From (TeV)",
        "To (TeV)",
        Markup("E² dN/dE ({})").format(unit_text(u.Unit("TeV cm-2 s-1"))),
        Markup("Upper limit ({})").format(unit_text(u.Unit("TeV cm-2 s-1"))),
        "√TS",
        "Counts",
        "Predicted",
    ]
    is_ul, sqrt_ts, counts, npred = (_column(t, c) for c in ("is_ul", "sqrt_ts", "counts", "npred"))
    rows = [
        [
            general(energy[n], 4),
            general(low[n], 4),
            general(high[n], 4),
            _measured(sed[n], minus[n], plus[n], bool(is_ul[n])),
            number(limit[n], 3),
            short(sqrt_ts[n], 2),
            short(counts[n], 0),
            short(npred[n], 1),
        ]
        for n in range(len(t))
    ]
    return Table(f"Flux points of {product.meta.get('source', 'the source')} ({name})", headings, rows)


def _butterfly_table(name: str, product: Butterfly) -> Table:
    t = product.table
    unit = u.Unit("TeV cm-2 s-1")
    energy = t["energy"].to_value(u.TeV)
    sed, minus, plus = ((t[c] * t["energy"] ** 2).to_value(unit) for c in ("dnde", "dnde_errn", "dnde_errp"))
    headings = ["Energy (TeV)", Markup("E² dN/dE ({})").format(unit_text(unit)), "Error (%)"]
    rows = [
        [
            general(energy[n], 4),
            _measured(sed[n], minus[n], plus[n], is_limit=False),
            _percent(50 * (minus[n] + plus[n]) / sed[n] if sed[n] else np.nan),
        ]
        for n in range(len(t))
    ]
    source = product.meta.get("source", "the source")
    return Table(f"Spectrum of {source} with its 68 % band ({name})", headings, rows)


def _plain_table(name: str, product: ProductTable) -> Table:
    columns, headings = [], []
    for key in product.table.colnames:
        values = product.table[key]
        unit = getattr(values, "unit", None)
        headings.append(Markup("{} ({})").format(key, unit_text(unit)) if unit not in (None, u.one) else key)
        columns.append([_cell(value) for value in np.asarray(getattr(values, "value", values)).tolist()])
    return Table(f"{name}: {in_words(product)}.", headings, list(zip(*columns, strict=True)))


def _cell(value: object) -> str | Markup:
    return general(value) if isinstance(value, float) else _spoken(value)


def _spoken(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else "none" if value is None else str(value)


def _percent(value: float) -> str | Markup:
    return number(value, 3) if value >= _LARGE_PERCENT else short(value, 1)


def _light_curve_table(name: str, product: LightCurve) -> Table:
    t = product.table
    start, stop = (
        t[c].mjd if isinstance(t[c], Time) else np.asarray(t[c], dtype=float)
        for c in ("time_min", "time_max")
    )
    flux, minus, plus, limit = (
        (t[c] * t["ref_flux"]).to_value(FLUX) for c in ("norm", "norm_errn", "norm_errp", "norm_ul")
    )
    headings = [
        "Start (MJD, TT)",
        "Stop (MJD, TT)",
        Markup("Flux ({})").format(unit_text(FLUX)),
        Markup("Upper limit ({})").format(unit_text(FLUX)),
        "√TS",
        "Counts",
        "Predicted",
    ]
    is_ul, sqrt_ts, counts, npred = (_column(t, c) for c in ("is_ul", "sqrt_ts", "counts", "npred"))
    e_min, e_max = (t[c].to_value(u.TeV) for c in ("e_min", "e_max"))
    # of one energy band the caption tells
    of_bands = len(set(e_min.tolist())) > 1
    if of_bands:
        headings[2:2] = ["From (TeV)", "To (TeV)"]
    rows = [
        [
            f"{start[n]:.5f}",
            f"{stop[n]:.5f}",
            *([general(e_min[n], 4), general(e_max[n], 4)] if of_bands else []),
            _measured(flux[n], minus[n], plus[n], bool(is_ul[n])),
            number(limit[n], 3),
            short(sqrt_ts[n], 2),
            short(counts[n], 0),
            short(npred[n], 1),
        ]
        for n in range(len(t))
    ]
    source = product.meta.get("source", "the source")
    told = "".join(
        f" {label[0].upper()}{label[1:]}: {_spoken(value)}."
        for label, value in product.meta.get("summary", [])
    )
    energies = f"{e_min.min():.4g} to {e_max.max():.4g} TeV"
    return Table(f"Light curve of {source}, {energies} ({name}){'.' * bool(told)}{told}", headings, rows)


def _measured(value: float, minus: float, plus: float, is_limit: bool) -> Markup:
    return with_errors(value, minus, plus) + Markup(" (limit)" if is_limit else "")
