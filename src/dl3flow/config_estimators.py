"""The section ``estimators`` of an analysis: each one checked and cut into its job, before any job starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from dl3flow.chain import Chain
from dl3flow.checks import as_choice, as_text, check_keys, find_entry
from dl3flow.config_curves import CurveOrigin, join_job, plan_slices, spelled_out
from dl3flow.config_fits import FitSection, grouping_code
from dl3flow.errors import InputError, choices
from dl3flow.estimators import EVENT_TABLES, MAPS, TABLES
from dl3flow.fit.npred import icrs_positions
from dl3flow.models.source import Models
from dl3flow.plan import Estimator, Fit, Job, Reduction
from dl3flow.registry import Plugin, Registry
from dl3flow.sources import Group, new_job

# what an estimator is made from
ORIGINS = ("fit", "reduction", "observations")
# options that name sources of a fit
_KNOWN_SOURCES = ("subtract", "spectrum", "like")
_STEPS: tuple[tuple[Registry, str], ...] = (
    (TABLES, "estimate_table"),
    (MAPS, "estimate_map"),
    (EVENT_TABLES, "estimate_events"),
)


@dataclass(frozen=True, eq=False)
class EstimatorSection:
    """What the estimators of one analysis can be made from.

    Attributes
    ----------
    path : str
        Of the analysis file, for errors.
    groups : mapping of Group
    reductions : mapping of (Reduction, Chain)
    fits : mapping of Fit
    fit_section : FitSection
    models : Models or None
    plot : function
        Job that draws a product, of its kind, the place for errors, and the positions to mark.
    models_text : object
        The section ``models`` as plain values.
    """

    path: str
    groups: Mapping[str, Group]
    reductions: Mapping[str, tuple[Reduction, Chain]]
    fits: Mapping[str, Fit]
    fit_section: FitSection
    models: Models | None
    plot: Callable[..., Job]
    models_text: Any = None

    def parse(self, name: str, entry: Any) -> Estimator:
        """One estimator.

        Raises
        ------
        InputError
        """
        where = f"{self.path}: estimators.{name}"
        check_keys(entry, None, where, required=("name",))
        kind = as_choice(
            entry["name"], [n for registry, _ in _STEPS for n in registry.names()], f"{where}.name"
        )
        registry, step = next(pair for pair in _STEPS if kind in pair[0].names())
        origin = {key: as_text(entry.get(key, ""), f"{where}.{key}") for key in ORIGINS}
        own = {key: value for key, value in entry.items() if key not in ORIGINS}
        own = spelled_out(registry.find(kind, where), own, where)
        plugin, bound = registry.bind(own, where)
        if registry is EVENT_TABLES:
            return self._of_events(name, plugin, own, origin, where)
        fit, reduction = origin["fit"], origin["reduction"]
        if origin["observations"] or bool(fit) == bool(reduction):
            raise InputError(
                f"{where}: give either `fit` {choices('', self.fits)} or `reduction` {choices('', self.reductions)}"
            )
        is_curve = "binned_by" in plugin.companions
        if reduction and not is_curve and not _takes_no_fit(plugin):
            raise InputError(
                f"{where}: '{kind}' needs a fit: give `fit` {choices('', self.fits)} instead of `reduction`"
            )
        if fit:
            find_entry(fit, self.fits, "fit", f"{where}.fit")
        else:
            find_entry(reduction, self.reductions, "reduction", f"{where}.reduction")
            if not is_curve:
                self.fit_section.check_stacked([reduction], f"{where}.reduction")
        self._check_options(bound, self.fits[fit].datasets if fit else (reduction,), where)
        self._check_known(bound, fit, where)
        if registry is MAPS or plugin.companions.get("of_maps"):
            self._check_map(kind, fit, reduction, where)
        if plugin.companions.get("region_of_maps") and bound.get("region") is None:
            self._check_region(kind, fit, reduction, where)
        if is_curve:
            return self._curve(name, plugin, own, bound, fit, reduction, where)
        data = self.fits[fit].data if fit else {"energy": {}, "region": {}}
        code = grouping_code(data.get("groups", {}))
        job = new_job(step, {"estimator": own, **data}, plugin, *code, where=where)
        sources = {} if fit or self.models is None else icrs_positions(self.models)
        suffix = "fits" if registry is MAPS else "ecsv"
        return Estimator(name, suffix, step, job, self.plot(kind, where, sources), fit, reduction)

    def _curve(
        self,
        name: str,
        plugin: Plugin,
        own: Mapping[str, Any],
        bound: Mapping[str, Any],
        fit: str,
        reduction: str,
        where: str,
    ) -> Estimator:
        """A light curve or phase curve, joined from its bins."""
        if not fit and self.models is None:
            raise InputError(
                f"{where}: '{plugin.name}' of a reduction takes the models as they stand: give the analysis `models`"
            )
        names = self.fits[fit].reductions if fit else (reduction,)
        if not names:
            raise InputError(
                f"{where}.fit: '{fit}' has data reduced elsewhere only, which have no runs: take another fit"
            )
        origin = CurveOrigin(
            self.fits[fit] if fit else None,
            {key: self.reductions[key] for key in names},
            self.models_text,
            tuple(key for key in self.fits[fit].datasets if key not in names) if fit else (),
        )
        slices = plan_slices(origin, plugin, own, bound, where)
        join = join_job(origin, plugin, own, where)
        plot = self.plot(plugin.name, where)
        return Estimator(name, "ecsv", "join_slices", join, plot, fit, reduction, slices=slices)

    def _of_events(
        self, name: str, plugin: Plugin, own: Mapping[str, Any], origin: Mapping[str, str], where: str
    ) -> Estimator:
        """An estimator of the events of a group of observations."""
        if not origin["observations"] or origin["fit"] or origin["reduction"]:
            raise InputError(
                f"{where}: '{plugin.name}' reads events: give `observations` {choices('', self.groups)} and neither `fit` nor "
                "`reduction`"
            )
        group = find_entry(
            origin["observations"], self.groups, "group of observations", f"{where}.observations"
        )
        runs = [group.run(obs_id) for obs_id in group.selected]
        job = new_job("estimate_events", {"estimator": own, "runs": runs}, plugin, where=where)
        plot = self.plot(plugin.name, where)
        return Estimator(
            name, "ecsv", "estimate_events", job, plot, source=group.source, obs_ids=group.selected
        )

    def _check_options(self, bound: Mapping[str, Any], datasets: tuple[str, ...], where: str) -> None:
        """Raise if the source is no model, or the energies hold no bin of the data."""
        if "source" in bound and self.models is not None:
            find_entry(bound["source"], [s.name for s in self.models.sources], "source", f"{where}.source")
        if "energy" in bound and bound["energy"] is not None:
            edges = bound["energy"].edges
            for key in datasets:
                self.fit_section.check_energy(key, [str(edges[0]), str(edges[-1])], f"{where}.energy")

    def _check_known(self, bound: Mapping[str, Any], fit: str, where: str) -> None:
        """Raise if an option names a source that the fit does not have, or there is no fit."""
        for key in _KNOWN_SOURCES:
            value = bound.get(key)
            for name in [value] if isinstance(value, str) else value or []:
                if not fit:
                    raise InputError(
                        f"{where}.{key}: '{name}' is known from a fit only: give `fit` {choices('', self.fits)} instead of `reduction`"
                    )
                if self.models is not None:
                    find_entry(name, [s.name for s in self.models.sources], "source", f"{where}.{key}")

    def _check_map(self, kind: str, fit: str, reduction: str, where: str) -> None:
        """Raise if some of the data are no maps."""
        used = self.fits[fit].reductions if fit else [reduction]
        spectra = [key for key in used if self.reductions[key][1].makes_spectra]
        if spectra or (fit and self.fits[fit].external):
            what = f"the spectra '{spectra[0]}'" if spectra else "data reduced elsewhere"
            raise InputError(
                f"{where}: '{kind}' is made from maps, and {what} are none: take a reduction with the recipe `cube`"
            )

    def _check_region(self, kind: str, fit: str, reduction: str, where: str) -> None:
        """Raise if some of the data are maps, of which the place is not given."""
        used = self.fits[fit].reductions if fit else [reduction]
        maps = [key for key in used if not self.reductions[key][1].makes_spectra]
        if maps:
            raise InputError(
                f"{where}: '{kind}' of the maps '{maps[0]}' needs a place: give `region`, the circle in which a source would be "
                "counted, such as `icrs;circle(83.63, 22.01, 0.1)`"
            )


def _takes_no_fit(plugin: Plugin) -> bool:
    return type(None) in get_args(get_type_hints(plugin.function).get("result"))
