"""The report of one analysis: what was observed, reduced and fitted, what came out, and what to beware of."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dl3flow.data.products import FitResult
from dl3flow.models.source import full_names
from dl3flow.report.fits import (
    Compared,
    compare,
    correlation_table,
    covariance_table,
    dataset_table,
    minimiser_facts,
    parameter_table,
    reference_sentence,
    reference_table,
    sentence,
    systematics_table,
    truth_table,
)
from dl3flow.report.numbers import MISSING, general, short, unit_text, with_error
from dl3flow.report.svg import inline_svg
from dl3flow.report.tables import Product, Table, alternative, in_words, product_table

_MOST_IDS = 12
_CAPTIONS = {
    "dataset": "Reduced data: counts, background, exposure and safe energy bins on the sky, and events per energy.",
    "fit": "Counts and prediction per energy with their difference, the correlation of the free parameters, and where asked for "
    "likelihood profiles (dotted: parabola of the error) and contours.",
    "flux_points": "Spectral energy distribution with the best fit, its 68 % band, and the residuals from it.",
    "butterfly": "Spectral energy distribution of the best fit with its 68 % band; the dashed line is the energy of the smallest relative error.",
    "combined_flux_points": "Spectral energy distribution of all instruments together, with the best fit, its 68 % band and the residuals.",
    "light_curve": "Integral flux against time, a panel for each energy band, with the mean of the measured bins or their Bayesian blocks.",
    "phase_curve": "Integral flux against phase over two periods, a panel for each energy band.",
    "phasogram": "Events against phase over two periods; grey: the off phases.",
    "theta_squared": "Events against the squared distance from the place, and those of the off regions scaled to it.",
    "counts_table": "Counts, background and excess, and the significance of the excess.",
    "sensitivity": "Weakest flux that would be detected, and which criterion decides in each energy band.",
    "flux_profile": "Flux per solid angle against the distance, a colour for each energy band.",
    "find_sources": "Peaks of significance on the sky with the 68 % ellipses of their fitted places, and the sources known before.",
    "extension": "Likelihood against the size of the source, with the best size and its upper limit.",
    "excess_map": "Counts, background, excess, significance and flux on the sky, and the distribution of significance with its Gaussian fit.",
    "residual_map": "Counts, prediction of the fit, their difference and its significance on the sky, with its distribution and Gaussian fit.",
    "combined_significance": "Significance of all data sets and energy bands together, and how many of them say something of each pixel.",
    "ts_map": "Significance of a source put on every pixel, its flux, and the flux's error or upper limit, a row for each energy band.",
    "adaptive_smooth": "Counts and flux smoothed until each place is significant, and the scale of the smoothing, a row for each energy band.",
}
_OBSERVATION_HEADINGS = {
    "obs_id": "Observation",
    "target": "Target",
    "observations": "Group",
    "data": "Data",
    "telescope": "Telescope",
    "quality": "Quality",
    "ra": "RA (deg)",
    "dec": "Dec (deg)",
    "status": "Status",
    "livetime": "Livetime (min)",
    "ontime": "On time (min)",
    "zenith": "Zenith (deg)",
    "events": "Events",
    "binned": "In bins",
    "counts": "In safe bins",
    "background": "Background",
    "off_counts": "Off counts",
    "norm": "Background norm",
    "unsafe": "Bins left out, by reason",
    "reason": "Reason",
}
# columns that say something only where they differ between observations
_SHOWN_IF_DIFFERENT = frozenset({"observations", "data", "telescope", "quality"})
# told in the warnings, shown with another column, or of use to a program only
_NOT_SHOWN = frozenset({"selected", "norm_err", "warnings", "tstart", "tstop"})


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    svg: Markup
    caption: str


def build_report(
    analysis: Mapping[str, Any],
    observations: Sequence[Mapping[str, Any]],
    fits: Mapping[str, FitResult],
    tables: Mapping[str, Product],
    figures: Mapping[str, str],
    provenance: Mapping[str, Any],
    truth: Mapping[str, Any] | None,
    references: Sequence[Mapping[str, Any]] = (),
    maps: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """HTML page of an analysis, self-contained, the same for the same arguments.

    Parameters
    ----------
    analysis : mapping
        The configuration: ``name``, ``reductions``, ``estimators`` are told about.
    observations : list of mappings
        Rows of the observation table: ``obs_id``, ``selected`` (bool) or ``status``, ``reason`` (why it was left out
        or failed), and where known ``target``, ``livetime`` (s), ``counts``, ``background``, ``norm``, ``norm_err``,
        ``warnings`` (text); further keys become columns of their own.
    fits : mapping of fit name to FitResult
    tables : mapping of estimator name to FluxPoints, LightCurve or Butterfly
    figures : mapping of name to SVG text
        By the name of a reduction, fit or estimator.
    provenance : mapping
        ``versions``, ``code``, ``inputs`` (role to list of ``name`` and ``sha256``), ``configuration`` (YAML text).
    truth : mapping, or None
        Simulated value (number in the parameter's unit, Quantity, or text with a unit) by full parameter name.
    references : sequence of mapping
        Published values: ``fit``, ``label``, ``note``, and ``parameters``: by full name the value and its error (None where it is
        not known), in the parameter's unit.
    maps : mapping of estimator name to the meta of its sky maps
        ``warnings`` (list of sentences) and ``significance`` (of `map_meta`) are told.
    """
    sky = maps or {}
    pictures = _Pictures(analysis, figures)
    warnings = [
        # a fit that is not to be believed stands before all else
        *(f"Fit {name} failed: {_as_sentence(fit.message)}" for name, fit in fits.items() if not fit.success),
        *_observation_warnings(observations),
        *(w for name, fit in fits.items() for w in _fit_warnings(name, fit)),
        *(w for name, table in tables.items() for w in _table_warnings(name, table)),
        *(_of_product(name, text) for name, meta in sky.items() for text in meta.get("warnings", [])),
    ]
    comparisons = {name: compare(fit, truth) for name, fit in fits.items()} if truth else {}
    environment = Environment(
        loader=PackageLoader("dl3flow", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(
        title=str(analysis.get("name", "analysis")),
        css=Markup(environment.get_template("report.css").render()),
        warnings=warnings,
        summary=_summary(observations, fits, tables, sky, comparisons, references),
        observations=_observation_table(
            "Observations", [r for r in observations if _status(r) != "left out"]
        ),
        left_out=_observation_table(
            "Observations that were not selected", [r for r in observations if _status(r) == "left out"]
        ),
        counted=_counted(observations),
        reductions=[
            (name, _settings(entry), pictures.take(name))
            for name, entry in analysis.get("reductions", {}).items()
        ],
        fits=[
            {
                "name": name,
                "fit": fit,
                "message": _as_sentence(fit.message),
                "stat": f"{fit.stat:.2f}",
                "parameters": parameter_table(name, fit),
                "systematics": systematics_table(name, fit),
                "references": [
                    (reference_table(name, fit, r), _as_sentence(r.get("note", "")))
                    for r in references
                    if r["fit"] == name
                ],
                "datasets": dataset_table(name, fit),
                "covariance": covariance_table(name, fit),
                "correlation": correlation_table(name, fit),
                "truth": truth_table(name, fit, comparisons.get(name, [])),
                "sentence": sentence(name, comparisons[name]) if comparisons.get(name) else "",
                "minimiser": minimiser_facts(fit),
                "figure": pictures.take(name),
            }
            for name, fit in fits.items()
        ],
        products=[
            (name, product_table(name, table), pictures.take(name, alternative(table)))
            for name, table in tables.items()
        ],
        others=pictures.rest(),
        versions=_versions(provenance),
        inputs=_inputs(provenance),
        code=str(provenance.get("code", "")),
        configuration=str(provenance.get("configuration", "")),
    )


class _Pictures:
    """The figures of a page, each taken once, numbered in the order of the page."""

    def __init__(self, analysis: Mapping[str, Any], figures: Mapping[str, str]) -> None:
        estimators = analysis.get("estimators", {})
        self._left = dict(figures)
        self._kinds: dict[str, str] = {name: str(entry.get("name", "")) for name, entry in estimators.items()}
        self._kinds |= dict.fromkeys(analysis.get("reductions", {}), "dataset")
        self._fits = set(analysis.get("fits", {}))
        self._number = 0

    def take(self, name: str, detail: str = "") -> Figure | None:
        if name not in self._left:
            return None
        self._number += 1
        kind = "fit" if name in self._fits else self._kinds.get(name, "")
        text = _CAPTIONS.get(kind, f"Figure of {name}.")
        caption = f"Figure {self._number}, {name}. {text}"
        svg = inline_svg(self._left.pop(name), name, f"f{self._number}-", f"{text} {detail}".strip())
        return Figure(svg, caption)

    def rest(self) -> list[tuple[str, Figure]]:
        return [(name, figure) for name in list(self._left) if (figure := self.take(name)) is not None]


def _is_selected(row: Mapping[str, Any]) -> bool:
    return bool(row["selected"]) if "selected" in row else row.get("status", "selected") == "selected"


def _status(row: Mapping[str, Any]) -> str:
    return str(row.get("status") or ("selected" if _is_selected(row) else "left out"))


def _counted(observations: Sequence[Mapping[str, Any]]) -> str:
    # one observation may stand in several groups
    every = {(row.get("data"), row.get("obs_id")) for row in observations}
    if not every:
        return "No observations were reduced here."
    used = {(row.get("data"), row.get("obs_id")): row for row in observations if _is_selected(row)}
    hours = sum(float(row.get("livetime") or 0) for row in used.values()) / 3600
    livetime = f", {hours:.2f} h of livetime" if hours else ""
    return f"{len(used)} of {len(every)} observations are used{livetime}."


def _observation_warnings(observations: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence per reason, with the selected observations it concerns: first what failed, then what was noted.

    What the selection left out is no cause for alarm: the table gives the reason of each.
    """
    failed: dict[str, list[str]] = {}
    noted: dict[str, list[str]] = {}
    for row in observations:
        status, obs_id, reason = _status(row), str(row.get("obs_id", "?")), str(row.get("reason") or "")
        if status == "selected":
            for text in (reason, str(row.get("warnings") or "")):
                if text:
                    noted.setdefault(text, []).append(obs_id)
        elif status != "left out":
            failed.setdefault(reason or "no reason is recorded", []).append(obs_id)
    return [
        *(f"{_named(ids)} failed: {reason.rstrip('.')}." for reason, ids in failed.items()),
        *(f"{_named(ids)}: {reason.rstrip('.')}." for reason, ids in noted.items()),
    ]


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
    return f"Observation{'s' if len(ids) > 1 else ''} {', '.join(ids[:_MOST_IDS])}{more}"


def _fit_warnings(name: str, fit: FitResult) -> list[str]:
    found = []
    at_limit = list(fit.minimiser.get("at_limit", []))
    parameters = fit.models.parameters()
    for key in at_limit:
        p = parameters.get(key)
        found.append(
            f"Fit {name}: parameter {key} is at its limit"
            + (f" ({p.value:.6g} {p.unit}).".replace(" )", ")") if p else ".")
        )
    found += [f"Fit {name}: {text}" for text in fit.minimiser.get("warnings", [])]
    for key in fit.free:
        error = parameters[key].error if key in parameters else math.nan
        if key not in at_limit and not (math.isfinite(error) and error > 0):
            found.append(f"Fit {name}: the free parameter {key} has no error.")
    return found


def _table_warnings(name: str, table: Product) -> list[str]:
    told = [_of_product(name, text) for text in table.meta.get("warnings", [])]
    if "success" in table.table.colnames:
        n_failed = int((~np.asarray(table.table["success"], dtype=bool)).sum())
        told += [f"{name}: {n_failed} of {len(table.table)} bins have no valid result."] if n_failed else []
    return told


def _observation_table(caption: str, observations: Sequence[Mapping[str, Any]]) -> Table:
    keys = list(
        dict.fromkeys(["obs_id", "status", *_OBSERVATION_HEADINGS, *(k for row in observations for k in row)])
    )
    shown = [key for key in keys if key not in _NOT_SHOWN and _tells(observations, key)]
    order = [key for key in _OBSERVATION_HEADINGS if key in shown and key != "reason"]
    others = [key for key in shown if key not in _OBSERVATION_HEADINGS]
    columns = [*order, *others, *(["reason"] if "reason" in shown else [])]
    rows = [[_observation_cell(row, key) for key in columns] for row in observations]
    return Table(caption, [_OBSERVATION_HEADINGS.get(k, k.replace("_", " ")) for k in columns], rows)


def _tells(observations: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether a column is worth its place."""
    if key in _SHOWN_IF_DIFFERENT:
        return len({str(row.get(key)) for row in observations}) > 1
    return key in ("obs_id", "status") or any(not _is_missing(row.get(key)) for row in observations)


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or value is np.ma.masked
        or value == ""
        or (isinstance(value, float) and not math.isfinite(value))
    )


def _observation_cell(row: Mapping[str, Any], key: str) -> str | Markup:
    if key == "status":
        return _status(row)
    value: Any = row.get(key)
    if isinstance(value, np.generic):
        value = value.item()
    if _is_missing(value):
        return MISSING if key != "reason" else ""
    if key in ("livetime", "ontime"):
        return f"{float(value) / 60:.2f}"
    if key == "norm":
        return with_error(float(value), float(row.get("norm_err") or math.nan))
    if key == "background":
        return f"{float(value):.1f}"
    if key in ("events", "binned", "counts", "off_counts"):
        return f"{float(value):.0f}"
    if key in ("ra", "dec"):
        return short(float(value), 3)
    return general(value) if isinstance(value, float) else str(value)


def _settings(entry: Any) -> list[tuple[str, str]]:
    """What a section of the configuration says, flat, one line per key."""
    if not isinstance(entry, Mapping):
        return []
    return [(str(key).replace("_", " "), _spoken(value)) for key, value in entry.items()]


def _spoken(value: Any) -> str:
    if isinstance(value, Mapping):
        name = str(value["name"]) if "name" in value else ""
        rest = ", ".join(f"{key} {_spoken(item)}" for key, item in value.items() if key != "name")
        return f"{name} ({rest})" if name and rest else name or rest
    if isinstance(value, list | tuple):
        return "; ".join(_spoken(item) for item in value)
    return str(value)


def _summary(
    observations: Sequence[Mapping[str, Any]],
    fits: Mapping[str, FitResult],
    tables: Mapping[str, Product],
    maps: Mapping[str, Mapping[str, Any]],
    comparisons: Mapping[str, Sequence[Compared]],
    references: Sequence[Mapping[str, Any]],
) -> Table:
    rows: list[list[str | Markup]] = [["Observations", _counted(observations), ""]]
    for name, fit in fits.items():
        counts, npred = (
            sum(float(np.sum(getattr(d, f"{k}_per_energy"))) for d in fit.datasets)
            for k in ("counts", "background")
        )
        signal = sum(float(np.sum(d.signal_per_energy)) for d in fit.datasets)
        rows.append(
            [
                "Counts",
                f"{counts:.0f} counted; predicted {signal:.1f} signal and {npred:.1f} background",
                f"fit {name}",
            ]
        )
        ts = fit.minimiser.get("ts", {})
        for source in fit.models.sources:
            if source.name in ts:
                # not finite, or null in the file, where the fit without the source found no minimum
                found = ts[source.name]
                is_known = found is not None and math.isfinite(found)
                value = f"{found:.1f} (√TS = {math.sqrt(max(found, 0.0)):.1f})" if is_known else MISSING
                rows.append([f"{source.name} test statistic", value, f"fit {name}"])
            for names, component in zip(full_names(source).values(), source.parts.values(), strict=True):
                for full, p in zip(names, component.parameters, strict=True):
                    if full in fit.free:
                        value = with_error(p.value, p.error) + Markup(" ") + unit_text(p.unit)
                        rows.append([full, value, f"fit {name}"])
    for name, table in tables.items():
        rows.append([name, in_words(table), f"table {name}"])
    for name, meta in maps.items():
        fitted = (meta.get("significance") or {}).get("fit")
        if fitted:
            told = Markup("mean {} σ, width {} σ").format(
                *(with_error(fitted[key], fitted[f"{key}_err"]) for key in ("mean", "width"))
            )
            rows.append([f"Significance {meta['significance']['where']}", told, f"map {name}"])
    rows += [
        ["Published", reference_sentence(fits[r["fit"]], r), f"fit {r['fit']}"]
        for r in references
        if r["fit"] in fits
    ]
    rows += [["Simulated truth", sentence(n, r), f"fit {n}"] for n, r in comparisons.items() if r]
    return Table("Key results", ["Quantity", "Result", "Where"], rows, is_open=True)


def _of_product(name: str, text: str) -> str:
    """Sentence that begins with the name of a product, which keeps its letters."""
    return f"{name}: {text.strip().rstrip('.')}."


def _as_sentence(text: str) -> str:
    stripped = text.strip()
    return (
        f"{stripped[:1].upper()}{stripped[1:]}{'' if stripped.endswith(('.', '!', '?')) else '.'}"
        if stripped
        else ""
    )


def _versions(provenance: Mapping[str, Any]) -> Table:
    rows = [[str(k), str(v)] for k, v in provenance.get("versions", {}).items()]
    return Table("Versions", ["Package", "Version"], rows)


def _inputs(provenance: Mapping[str, Any]) -> Table:
    rows = [
        [str(entry.get("name", "")), str(role), str(entry.get("sha256", ""))]
        for role, entries in provenance.get("inputs", {}).items()
        for entry in entries
    ]
    return Table("Inputs", ["File", "Role", "SHA-256"], rows)
