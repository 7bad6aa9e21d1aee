"""Two fits of the same data against each other: likelihood ratios of nested models, information criteria of others.

Wilks (1938): twice the logarithm of the likelihood ratio is chi2 of as many degrees of freedom as the wider model has more
parameters, if the narrower one lies within its parameter space. On the space's edge half of the cases give nothing: Chernoff
(1954) for one parameter, Self and Liang (1987) for several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import binom, gammaincc, gammaln, log_ndtr

from dl3flow.data.products import FitResult
from dl3flow.errors import InputError
from dl3flow.models.source import Models, Parameter, Source

# functions whose further parameter at a value gives a narrower one: that parameter, the value, whether it is an edge by
# nature (others are by their limits), and parameters that go by another name
_WITHIN: Mapping[tuple[str, str], tuple[str, float, bool, Mapping[str, str]]] = {
    ("power_law", "log_parabola"): ("beta", 0.0, False, {"index": "alpha"}),
    ("power_law", "exp_cutoff_power_law"): ("lambda_", 0.0, False, {}),
    ("point", "gauss"): ("sigma", 0.0, True, {}),
    ("point", "disk"): ("r_0", 0.0, True, {}),
}
# functions in which another reference energy only rescales a parameter
_RESCALED = {"power_law": "amplitude", "exp_cutoff_power_law": "amplitude", "power_law_norm": "norm"}
# parameters without which there is no source
_STRENGTHS = ("amplitude", "norm", "const")
# a wider model that is worse by more than this was not fitted to its minimum
_WORSE = 0.01
# frozen values that differ by no more than a unit's conversion are one
_ROUNDING = 1e-9
# below exp of this a tail is computed from its asymptotic form
_LOG_SMALLEST = -600.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """An alternative fit against a null hypothesis.

    Attributes
    ----------
    ts : float
        Statistic of the null less that of the alternative.
    n_dof : int
        Further free parameters of the alternative.
    p_value : float
        Probability of such a test statistic, or a larger one, if the null is right; NaN for models that are not nested.
    sigma : float
        The same as deviations of a Gaussian variable: to one side where the null lies on an edge, to both sides otherwise,
        so that it is sqrt(ts) for one parameter in either case. NaN for models that are not nested.
    is_boundary : bool
        True where the null lies on the edge of what the alternative allows.
    delta_aic, delta_bic : float
        Criteria of Akaike and of Schwarz, alternative less null: negative where they prefer the alternative.
    sentence : str
        All this in words, with what makes it doubtful.
    """

    ts: float
    n_dof: int
    p_value: float
    sigma: float
    is_boundary: bool
    delta_aic: float
    delta_bic: float
    sentence: str


def compare(null: FitResult, alternative: FitResult, *, is_nested: bool | None = None) -> Comparison:
    """Compare two fits of the same data.

    Parameters
    ----------
    null, alternative : FitResult
        The narrower and the wider model.
    is_nested : bool or None
        Whether the null is a special case of the alternative; None finds it out: free parameters frozen or linked, a source
        or an extension or a curvature left out; what is frozen in both has to have one value.

    Returns
    -------
    comparison : Comparison

    Raises
    ------
    InputError
        If the fits are of different data, or the alternative has no further free parameter and is said to be nested.
    """
    _check_same_data(null, alternative)
    ts = null.stat - alternative.stat
    n_dof = len(alternative.free) - len(null.free)
    n = alternative.n_bins
    delta_aic, delta_bic = 2.0 * n_dof - ts, n_dof * float(np.log(max(n, 1))) - ts
    found = _narrowing(null.models, alternative.models, null.free, alternative.free)
    nested = found is not None if is_nested is None else is_nested
    doubts = _doubts(null, alternative)
    if not nested:
        better = "alternative" if delta_aic < 0 else "null"
        sentence = (
            f"the models are not nested, so a difference of {ts:.2f} in stat has no probability: the {better} is preferred by "
            f"Akaike's criterion (difference {delta_aic:.1f}; Schwarz's {delta_bic:.1f})"
        )
        return Comparison(
            ts, n_dof, np.nan, np.nan, False, delta_aic, delta_bic, "; ".join([sentence, *doubts])
        )
    if n_dof < 1:
        raise InputError(
            f"the alternative has {len(alternative.free)} free parameters and the null {len(null.free)}: give the narrower model first"
        )
    narrowing = found or _Narrowing((), ())
    n_edges = min(len(narrowing.edges), n_dof)
    log_p = log_tail(ts, n_dof, n_edges)
    sigma = _sigma(log_p, is_one_sided=n_edges > 0)
    p_value = float(np.exp(log_p))
    sentence = f"{ts:.2f} in stat for {n_dof} more free parameter{'s' * (n_dof > 1)}: p = {_written(log_p)}, {sigma:.1f} sigma"
    if n_edges:
        listed = ", ".join(narrowing.edges)
        sentence += (
            f"; the null lies at the edge of what the alternative allows ({listed}), where half of all cases give a test statistic of 0: "
            f"{_mixture(n_dof, n_edges)}"
        )
    if narrowing.undefined:
        doubts.append(
            f"without its source the parameters {', '.join(narrowing.undefined)} mean nothing, and free ones are looked for where they "
            "fit best: the true probability is larger"
        )
    if ts < -_WORSE:
        doubts.append("the alternative fits worse than the null within it: its minimum was not found")
    return Comparison(
        ts, n_dof, p_value, sigma, n_edges > 0, delta_aic, delta_bic, "; ".join([sentence, *doubts])
    )


def log_tail(ts: float, n_dof: int, n_edges: int = 0) -> float:
    """Natural logarithm of the probability of at least ``ts``.

    chi2 of ``n_dof`` degrees of freedom; with ``n_edges`` of the parameters on an edge the mean of such with 0 to n_edges
    degrees less, in binomial shares (Self and Liang 1987, case 9, for uncorrelated parameters).
    """
    if ts <= 0:
        return 0.0
    lost = np.arange(n_edges + 1)
    shares = np.log(binom(n_edges, lost)) - n_edges * np.log(2.0)
    tails = [_log_chi2_tail(ts, n_dof - int(k)) for k in lost]
    return float(np.logaddexp.reduce(shares + tails))


def _log_chi2_tail(ts: float, n_dof: int) -> float:
    if n_dof == 0:
        # chi2 of no degree of freedom is zero
        return -np.inf
    if n_dof == 1:
        return float(np.log(2.0) + log_ndtr(-np.sqrt(ts)))
    a, x = n_dof / 2, ts / 2
    if -x > _LOG_SMALLEST:
        return float(np.log(gammaincc(a, x)))
    # upper incomplete gamma function far out, Abramowitz and Stegun 6.5.32
    return float((a - 1) * np.log(x) - x - gammaln(a) + np.log1p((a - 1) / x * (1 + (a - 2) / x)))


def _sigma(log_p: float, *, is_one_sided: bool) -> float:
    """Deviations of a Gaussian variable with this probability beyond, to one side or to both."""
    target = log_p if is_one_sided else log_p - np.log(2.0)
    if target >= log_ndtr(0.0):
        return 0.0
    return float(brentq(lambda s: log_ndtr(-s) - target, 0.0, np.sqrt(-2 * target) + 1.0))


def _written(log_p: float) -> str:
    if log_p > _LOG_SMALLEST:
        return f"{np.exp(log_p):.3g}"
    power = log_p / np.log(10.0)
    return f"{10 ** (power - np.floor(power)):.2f}e{int(np.floor(power))}"


def _mixture(n_dof: int, n_edges: int) -> str:
    if n_dof == 1:
        return "the probability is half of that of chi2 with one degree of freedom (Chernoff 1954)"
    if n_edges == 1:
        return f"the probability is the mean of those of chi2 with {n_dof - 1} and {n_dof} degrees of freedom (Self and Liang 1987)"
    return (
        f"the probability is a binomial mixture of chi2 with {n_dof - n_edges} to {n_dof} degrees of freedom (Self and Liang 1987), exact "
        "for uncorrelated parameters"
    )


@dataclass(frozen=True)
class _Narrowing:
    """How a null follows from an alternative: parameters that it puts on an edge, and those that lose their meaning."""

    edges: tuple[str, ...]
    undefined: tuple[str, ...]


def _narrowing(
    null: Models, wide: Models, null_free: Sequence[str], wide_free: Sequence[str]
) -> _Narrowing | None:
    """None if the null is not found to be a special case of the alternative."""
    edges: list[str] = []
    undefined: list[str] = []
    accounted: set[str] = set()
    renamed: dict[str, str] = {}
    narrow = {s.name: s for s in null.sources}
    if not set(narrow) <= {s.name for s in wide.sources}:
        return None
    parameters, fixed = wide.parameters(), null.parameters()
    for source in wide.sources:
        own = [n for n in wide_free if n.startswith(f"{source.name}.")]
        if source.name not in narrow:
            strengths = [n for n in own if n.rsplit(".", 1)[1] in _STRENGTHS]
            if not strengths and not _is_absent(source):
                return None
            edges += [n for n in strengths if _is_edge(parameters[n], 0.0)]
            undefined += [n for n in own if n not in strengths]
            accounted.update(own)
            continue
        found = _special_case(narrow[source.name], source)
        if found is None:
            return None
        for extra, value, is_edge, names in found:
            name = f"{source.name}.{extra}"
            if name not in wide_free and parameters[name].value != value:
                return None
            accounted.add(name)
            renamed |= names
            edges += [name] * (name in wide_free and (is_edge or _is_edge(parameters[name], value)))
    free = [renamed.get(n, n) for n in null_free]
    if not set(free) <= set(wide_free) or not _agree(null, wide, renamed, wide_free):
        return None
    before = {new: old for old, new in renamed.items()}
    for name in set(wide_free) - set(free) - accounted:
        held = fixed.get(before.get(name, name))
        if held is None:
            return None
        value = float(held.quantity.to_value(parameters[name].unit))
        edges += [name] * _is_edge(parameters[name], value)
    return _Narrowing(tuple(sorted(edges)), tuple(undefined))


def _is_absent(source: Source) -> bool:
    """True if a strength of zero leaves nothing of a source."""
    return any(p.name in _STRENGTHS and p.value == 0 for p in source.spectral.parameters)


def _agree(null: Models, wide: Models, renamed: Mapping[str, str], wide_free: Sequence[str]) -> bool:
    """True if all that is frozen in both has one value, but for references that another parameter makes up for."""
    others = wide.parameters()
    kinds = {m.name: m.parts["spectral"].kind for m in null.all if "spectral" in m.parts}
    rescaled = {
        f"{model}.reference" for model, kind in kinds.items() if f"{model}.{_RESCALED.get(kind)}" in wide_free
    }
    for name, p in null.parameters().items():
        other = others.get(renamed.get(name, name))
        if other is None or not (p.frozen and other.frozen) or name in rescaled:
            continue
        value = float(p.quantity.to_value(other.unit))
        if abs(value - other.value) > _ROUNDING * max(abs(value), abs(other.value)):
            return False
    return True


def _special_case(narrower: Source, source: Source) -> list[tuple[str, float, bool, dict[str, str]]] | None:
    """Further parameter, its value in the null, whether that is an edge, and names that changed, of each part; None if it is none."""
    if set(narrower.parts) != set(source.parts):
        return None
    found = []
    for part, component in source.parts.items():
        kind = narrower.parts[part].kind
        if kind == component.kind:
            continue
        if (kind, component.kind) not in _WITHIN:
            return None
        extra, value, is_edge, same = _WITHIN[kind, component.kind]
        names = {f"{source.name}.{old}": f"{source.name}.{new}" for old, new in same.items()}
        found.append((extra, value, is_edge, names))
    return found


def _is_edge(parameter: Parameter, value: float) -> bool:
    near = 1e-9 * max(abs(value), 1e-300)
    return abs(parameter.min - value) <= near or abs(parameter.max - value) <= near


def _check_same_data(null: FitResult, alternative: FitResult) -> None:
    ours, theirs = ({d.name: d for d in result.datasets} for result in (null, alternative))
    if set(ours) != set(theirs):
        differ = sorted(set(ours) ^ set(theirs))
        raise InputError(
            f"the fits are of different data ('{differ[0]}' is in one only): fit the same to both"
        )
    for name, one in ours.items():
        other = theirs[name]
        same_bins = one.n_bins == other.n_bins and len(one.energy_edges) == len(other.energy_edges)
        if not same_bins or not np.array_equal(one.counts_per_energy, other.counts_per_energy):
            raise InputError(
                f"the fits are of different bins or counts of '{name}': use the same limits of energy and sky for both"
            )


def _doubts(null: FitResult, alternative: FitResult) -> list[str]:
    return [
        f"the fit of the {which} is doubtful ({result.message})"
        for which, result in (("null", null), ("alternative", alternative))
        if not result.success
    ]
