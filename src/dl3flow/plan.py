"""Plan: what a checked configuration asks the workflow to make, job by job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dl3flow.data.index import ObservationEntry


@dataclass(frozen=True)
class Job:
    """What one job is given beside its files.

    Attributes
    ----------
    options : str
        The slice of the configuration that it reads, as canonical JSON.
    code : str
        Digest of the code that it runs.
    """

    options: str
    code: str


@dataclass(frozen=True, eq=False)
class DataSource:
    """A named set of DL3 data.

    Attributes
    ----------
    name : str
    root : str
        Folder of the index files.
    entries : mapping of ObservationEntry
        By obs_id, in increasing order.
    simulations : mapping of Job
        By obs_id; empty for data that exist.
    index : Job or None
        That of simulated data.
    truth : sequence of mappings
        Simulated sources, as their file says.
    inputs : mapping of tuple of str
        Files that simulations read, by role: responses, model_files, plugins.
    """

    name: str
    root: str
    entries: Mapping[int, ObservationEntry]
    simulations: Mapping[int, Job] = field(default_factory=dict)
    index: Job | None = None
    truth: Sequence[Mapping[str, Any]] = ()
    inputs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def files(self, obs_id: int) -> dict[str, list[str]]:
        """Files of one observation: that of its ``events``, and those of further ``responses``."""
        entry = self.entries[obs_id]
        events = entry.hdus["events"].path
        return {
            "events": [f"{self.root}/{events}"],
            "responses": [f"{self.root}/{path}" for path in entry.paths if path != events],
        }


@dataclass(frozen=True, eq=False)
class Further:
    """Further runs that a reduction takes its background from.

    Attributes
    ----------
    group : str
        Name of the group of observations.
    source : DataSource
    selected : tuple of int
        All runs of the group, which the models are built from.
    matched : mapping of tuple of int
        Those that serve one observation, by its obs_id; empty where models are built.
    model : Job or None
        Builds the background models.
    """

    group: str
    source: DataSource
    selected: tuple[int, ...]
    matched: Mapping[int, tuple[int, ...]]
    model: Job | None

    def files(self, obs_id: int | None) -> dict[str, list[str]]:
        """Files of the runs that serve one observation, or of all."""
        ids = self.selected if obs_id is None else self.matched.get(obs_id, ())
        found = [self.source.files(k) for k in ids]
        return {
            "off": [path for files in found for path in files["events"]],
            "off_responses": sorted({path for files in found for path in files["responses"]}),
        }


@dataclass(frozen=True, eq=False)
class Reduction:
    """One way to bin a group of observations.

    Attributes
    ----------
    name : str
    source : DataSource
    jobs : mapping of Job
        Reduction of each observation, by obs_id in increasing order.
    mask_file : tuple of str
        FITS file of the exclusion mask, if there is one.
    stack, plot : Job or None
        None where each observation has pixels of its own.
    further : Further or None
        Where the background comes from other runs.
    ogip : Job or None
        Writes the spectra as OGIP files.
    model_inputs : mapping of tuple of str
        Files that the models of known sources need, by role: ``plugins``, ``model_files``.
    told : mapping of mapping
        Options of each observation's reduction, by obs_id, as plain values.
    """

    name: str
    source: DataSource
    jobs: Mapping[int, Job]
    mask_file: tuple[str, ...]
    stack: Job | None
    plot: Job | None
    further: Further | None = None
    ogip: Job | None = None
    model_inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    told: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class External:
    """Data reduced elsewhere.

    Attributes
    ----------
    reader : str
    main : tuple of str
        Files to read.
    named : tuple of str
        Files that are read by way of them.
    """

    reader: str
    main: tuple[str, ...]
    named: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """All files."""
        return (*self.main, *self.named)

    @property
    def counts(self) -> dict[str, Any]:
        """How a step finds its files among those of all inputs."""
        return {"reader": self.reader, "main": len(self.main), "all": len(self.files)}


@dataclass(frozen=True, eq=False)
class Fit:
    """One fit.

    Attributes
    ----------
    name : str
    mode : 'joint', 'stacked' or 'grouped'
    reductions : tuple of str
    external : tuple of str
        Files of data reduced elsewhere.
    data : mapping
        What a step that reads the fit's data is told of them: ``energy`` and ``region`` (limits), ``inputs``, ``groups``.
    job, plot : Job
    free : tuple of str
        Free parameters, as far as they are known before the data are read.
    datasets : tuple of str
        Reductions and inputs, in the order of the analysis.
    """

    name: str
    mode: str
    reductions: tuple[str, ...]
    external: tuple[str, ...]
    data: Mapping[str, Any]
    job: Job
    plot: Job
    free: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SliceJob:
    """One bin of a light curve or phase curve.

    Attributes
    ----------
    step : str
    job : Job
    datasets : tuple of (str, int)
        Reduction and number of the reduced observations that it is measured from.
    files : mapping of tuple of str
        DL3 files that it is cut from, by role: ``events``, ``responses``, ``mask``, ``off``, ``off_responses``.
    models : tuple of str
        Reductions whose background models it needs, one for each of its runs.
    """

    step: str
    job: Job
    datasets: tuple[tuple[str, int], ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    models: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Estimator:
    """One table or map.

    Attributes
    ----------
    name : str
    suffix : 'ecsv' or 'fits'
        A table or a map.
    step : str
        That makes it.
    job, plot : Job
    fit, reduction : str
        What it is made from; one of the two is empty, or both for one that reads events.
    source : DataSource or None
    obs_ids : tuple of int
        Observations whose events it reads.
    slices : mapping of SliceJob
        Bins that it is joined from, by their label.
    """

    name: str
    suffix: str
    step: str
    job: Job
    plot: Job
    fit: str = ""
    reduction: str = ""
    source: DataSource | None = None
    obs_ids: tuple[int, ...] = ()
    slices: Mapping[str, SliceJob] = field(default_factory=dict)

    @property
    def events(self) -> dict[str, list[str]]:
        """Files of the observations whose events it reads, by role: ``events``, ``responses``."""
        found = [self.source.files(k) for k in self.obs_ids] if self.source else []
        return {
            "events": [path for files in found for path in files["events"]],
            "responses": sorted({path for files in found for path in files["responses"]}),
        }


@dataclass(frozen=True, eq=False)
class Analysis:
    """One analysis file, checked.

    Attributes
    ----------
    name : str
    on_error : 'stop' or 'skip'
        What to do about observations that cannot be reduced; changes no product, so it is in no job.
    selection, report : Job
    inputs, reductions, fits, estimators : mapping by name
    model_inputs : mapping of tuple of str
        Files that whoever reads the models needs, by role: ``plugins`` (the user's own models), ``model_files`` (templates).
    """

    name: str
    on_error: str
    selection: Job
    report: Job
    inputs: Mapping[str, External]
    reductions: Mapping[str, Reduction]
    fits: Mapping[str, Fit]
    estimators: Mapping[str, Estimator]
    model_inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def pictures(self) -> dict[str, Reduction | Fit | Estimator]:
        """Everything that has a plot, by name."""
        stacked = {name: r for name, r in self.reductions.items() if r.stack}
        return {**stacked, **self.fits, **self.estimators}

    @property
    def tables(self) -> list[str]:
        """Names of the estimators that give a table."""
        return [name for name, estimator in self.estimators.items() if estimator.suffix == "ecsv"]

    @property
    def maps(self) -> list[str]:
        """Names of the estimators that give sky maps."""
        return [name for name, estimator in self.estimators.items() if estimator.suffix == "fits"]


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a run of the workflow makes.

    Attributes
    ----------
    results : str
        Folder of all products.
    sources : mapping of DataSource
        Those in use, by name.
    analyses : mapping of Analysis
        By name.
    """

    results: str
    sources: Mapping[str, DataSource]
    analyses: Mapping[str, Analysis]
