"""The tables of a fit in the report: parameters with their errors, datasets, systematic errors, published and simulated values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from markupsafe import Markup

from dl3flow.data.products import FitResult
from dl3flow.models.source import Parameter
from dl3flow.report.numbers import MISSING, general, number, short, unit_text, with_error, with_errors
from dl3flow.report.tables import Table

_MOST_CORRELATED = 40
_MOST_MEMBERS = 6


class Compared(NamedTuple):
    """A fitted parameter against its simulated value, given in the parameter's unit."""

    name: str
    truth: float
    pull: float

    @property
    def is_inside(self) -> bool:
        """True within one standard error."""
        return abs(self.pull) <= 1


def compare(fit: FitResult, truth: Mapping[str, Any]) -> list[Compared]:
    """Each simulated parameter that was fitted, with its true value and pull."""
    rows = []
    parameters = fit.models.parameters()
    for name, given in truth.items():
        if name in fit.free and name in parameters:
            p = parameters[name]
            value = _in_unit(given, p.unit)
            pull = (p.value - value) / p.error if p.error > 0 else math.nan
            rows.append(Compared(name, value, pull))
    return rows


def _in_unit(given: Any, unit: u.UnitBase) -> float:
    if isinstance(given, int | float):
        return float(given)
    return float(u.Quantity(given).to_value(unit))


def sentence(name: str, rows: Sequence[Compared]) -> str:
    """How many simulated parameters a fit recovers."""
    n, inside = len(rows), sum(row.is_inside for row in rows)
    noun, verb = ("parameter", "lies") if n == 1 else ("parameters", "lie")
    return f"Fit {name}: {inside} of {n} simulated {noun} {verb} within one standard error of the simulated value."


def parameter_table(name: str, fit: FitResult) -> Table:
    """Parameters of a fit, the free ones first, with MINOS errors where there are any."""
    parameters = fit.models.parameters()
    rows: list[list[str | Markup]] = []
    has_sides = bool(fit.minos)
    # scales of responses that nothing varies say nothing
    fixed = {f"{m.name}.{p.name}" for m in fit.models.responses for p in m.scale.parameters if p.frozen}
    leaders = {parameters[key].link: key for key in fit.free if key in parameters and parameters[key].link}
    for key in (*fit.free, *(k for k in parameters if k not in fit.free)):
        if key not in parameters or key in fixed:
            continue
        p, is_free = parameters[key], key in fit.free
        limits = f"{'−∞' if math.isnan(p.min) else f'{p.min:g}'} to {'∞' if math.isnan(p.max) else f'{p.max:g}'}".replace(
            "-", "−"
        )
        # one that is linked moves with the first of its label
        first = "" if p.frozen or not p.link else leaders.get(p.link, "")
        is_linked = not is_free and bool(first)
        value = with_error(p.value, p.error) if is_free or is_linked else general(p.value)
        free = (
            limits
            if is_free and not (math.isnan(p.min) and math.isnan(p.max))
            else "free"
            if is_free
            else f"that of {first}"
            if is_linked
            else "fixed"
        )
        sides = with_errors(p.value, *fit.minos[key]) if key in fit.minos else Markup(MISSING)
        rows.append([key, value, *([sides] if has_sides else []), unit_text(p.unit), free])
    headings = ["Parameter", "Value", *(["With MINOS errors"] if has_sides else []), "Unit", "Range"]
    return Table(f"Parameters of fit {name}", headings, rows)


def dataset_table(name: str, fit: FitResult) -> Table:
    """Counts and prediction per dataset, and the observations of those that hold several."""
    rows: list[list[str | Markup]] = []
    is_grouped = any(len(d.obs_ids) > 1 for d in fit.datasets)
    for d in fit.datasets:
        counts, signal, background = (
            float(np.sum(x)) for x in (d.counts_per_energy, d.signal_per_energy, d.background_per_energy)
        )
        npred = signal + background
        pull = f"{(counts - npred) / math.sqrt(npred):+.2f}".replace("-", "−") if npred > 0 else MISSING
        rows.append(
            [
                d.name,
                f"{counts:.0f}",
                f"{npred:.2f}",
                f"{signal:.2f}",
                f"{background:.2f}",
                pull,
                f"{d.stat:.2f}",
                str(d.n_bins),
                *([_members(d.obs_ids)] if is_grouped else []),
            ]
        )
    headings = [
        "Dataset",
        "Counts",
        "Predicted",
        "Signal",
        "Background",
        "(counts − pred.) / √pred.",
        "Stat",
        "Bins",
        *(["Observations"] if is_grouped else []),
    ]
    return Table(f"Counts and prediction of fit {name}", headings, rows)


def covariance_table(name: str, fit: FitResult) -> Table:
    """Covariance of the free parameters."""
    rows: list[list[str | Markup]] = [
        [key, *(number(float(v), 3) for v in fit.covariance[n])] for n, key in enumerate(fit.free)
    ]
    return Table(f"Covariance of fit {name}", ["Parameter", *fit.free], rows)


def truth_table(name: str, fit: FitResult, rows: Sequence[Compared]) -> Table | None:
    """Fitted against simulated values."""
    if not rows:
        return None
    parameters = fit.models.parameters()
    cells: list[list[str | Markup]] = [
        [
            row.name,
            with_error(parameters[row.name].value, parameters[row.name].error),
            general(row.truth),
            unit_text(parameters[row.name].unit),
            f"{row.pull:+.2f}".replace("-", "−") if math.isfinite(row.pull) else MISSING,
            "yes" if row.is_inside else "no",
        ]
        for row in rows
    ]
    headings = ["Parameter", "Fitted", "Simulated", "Unit", "Pull (σ)", "Inside 68 %?"]
    return Table(f"Fit {name} against the simulated truth", headings, cells)


def minimiser_facts(fit: FitResult) -> list[tuple[str, str]]:
    """What the minimiser says of its end."""
    told = [(key, fit.minimiser[key]) for key in ("name", "edm", "n_evaluations") if key in fit.minimiser]
    return [
        (str(key).replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
        for key, value in told
    ]


def _members(obs_ids: Sequence[int]) -> str:
    if len(obs_ids) > _MOST_MEMBERS:
        return f"{len(obs_ids)}, {obs_ids[0]} to {obs_ids[-1]}"
    return ", ".join(map(str, obs_ids)) or MISSING


def correlation_table(name: str, fit: FitResult) -> Table:
    """Correlation of the free parameters; of very many only those of the models' sources and systematic errors."""
    shown = [n for n, key in enumerate(fit.free) if len(fit.free) <= _MOST_CORRELATED or "-bkg." not in key]
    sigma = np.sqrt(np.maximum(np.diag(fit.covariance), 0))
    scale = np.outer(sigma, sigma)
    matrix = np.divide(fit.covariance, scale, out=np.full_like(scale, np.nan), where=scale > 0)
    rows: list[list[str | Markup]] = [
        [fit.free[n], *(short(float(matrix[n, m]), 3) for m in shown)] for n in shown
    ]
    return Table(f"Correlation in fit {name}", ["Parameter", *(fit.free[n] for n in shown)], rows)


def systematics_table(name: str, fit: FitResult) -> Table | None:
    """Systematic errors with their priors, and how far the data pull them away."""
    rows: list[list[str | Markup]] = []
    for key, datasets, p, pull in fit.systematics:
        values = {} if p.prior is None else p.prior.values
        prior = (
            Markup("{} ± {}").format(general(values["mu"]), general(values["sigma"]))
            if {"mu", "sigma"} <= set(values)
            else Markup(MISSING)
        )
        of = ", ".join(datasets) if len(datasets) <= _MOST_MEMBERS else f"{len(datasets)} datasets"
        rows.append([key, with_error(p.value, p.error), prior, _signed(pull), of or "all"])
    if not rows:
        return None
    headings = ["Parameter", "Fitted", "Prior", "Pull (σ of the prior)", "Datasets"]
    return Table(f"Systematic errors of fit {name}", headings, rows)


class Published(NamedTuple):
    """A fitted parameter beside a published value, both in the parameter's unit."""

    parameter: Parameter
    name: str
    value: float
    error: float

    @property
    def difference(self) -> float:
        """Ours less theirs, in units of their error."""
        return (self.parameter.value - self.value) / self.error if self.error > 0 else math.nan


def published(fit: FitResult, values: Mapping[str, Sequence[float | None]]) -> list[Published]:
    """Parameters of a fit beside published values (value, error or None) by full name."""
    found = []
    for name, p in fit.models.parameters().items():
        value, error = values.get(name, (None, None))
        if value is not None:
            found.append(Published(p, name, float(value), math.nan if error is None else float(error)))
    return found


def reference_table(name: str, fit: FitResult, reference: Mapping[str, Any]) -> Table:
    """Our values beside published ones, with the difference in units of the published error."""
    rows: list[list[str | Markup]] = [
        [
            row.name,
            with_error(row.parameter.value, row.parameter.error),
            with_error(row.value, row.error),
            unit_text(row.parameter.unit),
            _signed(row.difference),
            short(row.parameter.error / row.error, 2) if row.error > 0 else MISSING,
        ]
        for row in published(fit, reference["parameters"])
    ]
    headings = [
        "Parameter",
        "This fit",
        "Published",
        "Unit",
        "Difference (published σ)",
        "Errors, ours / theirs",
    ]
    return Table(f"Fit {name} beside {reference['label']}", headings, rows)


def reference_sentence(fit: FitResult, reference: Mapping[str, Any]) -> str:
    """How far a fit is from published values at most."""
    found = [row for row in published(fit, reference["parameters"]) if math.isfinite(row.difference)]
    if not found:
        return f"{reference['label']}: no published error to compare with."
    worst = max(found, key=lambda row: abs(row.difference))
    return (
        f"{reference['label']}: {len(found)} parameter{'s' if len(found) > 1 else ''}, the largest difference is {_signed(worst.difference)} published σ "
        f"({worst.name})."
    )


def _signed(value: float) -> str:
    # a zero has no sign
    return (
        f"{round(value, 2) + 0.0:+.2f}".replace("-", "−").replace("+0.00", "0.00")
        if math.isfinite(value)
        else MISSING
    )
