"""The checked configuration, and the functions that tell a job its input files."""

from snakemake.exceptions import WorkflowError

try:
    from dl3flow.config import load_config
    from dl3flow.errors import InputError
except ModuleNotFoundError as error:
    raise WorkflowError(
        f"the Python of this snakemake has no '{error.name}': run `make` once and use `.venv/bin/snakemake`, "
        "or install dl3flow beside snakemake"
    ) from None

NAME = "[A-Za-z0-9][A-Za-z0-9_.+-]*"

try:
    plan = load_config(config)
except InputError as error:
    raise WorkflowError(str(error)) from None

results = plan.results


def dl3_files(wildcards):
    """The files of one observation, and the file of the exclusion mask where there is one."""
    reduction = plan.analyses[wildcards.analysis].reductions[wildcards.reduction]
    return {
        **reduction.source.files(int(wildcards.obs_id)),
        "mask": list(reduction.mask_file),
    }


def reduced(wildcards):
    """All observations of one reduction, or of all reductions of an analysis, in the order of their ids."""
    reductions = plan.analyses[wildcards.analysis].reductions
    chosen = (
        [wildcards.reduction] if "reduction" in wildcards.keys() else list(reductions)
    )
    return [
        f"{results}/{wildcards.analysis}/dl4/{name}/{obs_id}.h5"
        for name in chosen
        for obs_id in reductions[name].jobs
    ]


def datasets(wildcards):
    """The datasets of a fit, or of an estimator's fit or reduction."""
    analysis = plan.analyses[wildcards.analysis]
    dl4 = f"{results}/{wildcards.analysis}/dl4"
    source = (
        analysis.estimators[wildcards.estimator]
        if "estimator" in wildcards.keys()
        else None
    )
    if source is not None and not source.fit:
        return [f"{dl4}/{source.reduction}/stacked.fits"]
    fit = analysis.fits[wildcards.fit if source is None else source.fit]
    if fit.mode == "stacked":
        return [f"{dl4}/{name}/stacked.fits" for name in fit.reductions]
    return [
        f"{dl4}/{name}/{obs_id}.h5"
        for name in fit.reductions
        for obs_id in analysis.reductions[name].jobs
    ]


def fit_of(wildcards):
    """The fit that an estimator, or the picture of one, builds on; none for a map of a reduction."""
    estimators = plan.analyses[wildcards.analysis].estimators
    name = wildcards.estimator if "estimator" in wildcards.keys() else wildcards.name
    fit = estimators[name].fit if name in estimators else ""
    return [f"{results}/{wildcards.analysis}/dl5/{fit}/fit.json"] if fit else []


def product(wildcards):
    """The product that a picture shows."""
    analysis, base = (
        plan.analyses[wildcards.analysis],
        f"{results}/{wildcards.analysis}",
    )
    if wildcards.name in analysis.reductions:
        return f"{base}/dl4/{wildcards.name}/stacked.fits"
    if wildcards.name in analysis.fits:
        return f"{base}/dl5/{wildcards.name}/fit.json"
    return f"{base}/dl5/{wildcards.name}.{analysis.estimators[wildcards.name].suffix}"


def report_files(wildcards):
    """What the report of an analysis shows."""
    analysis, base = (
        plan.analyses[wildcards.analysis],
        f"{results}/{wildcards.analysis}",
    )
    return {
        "observations": f"{base}/observations.ecsv",
        "fits": [f"{base}/dl5/{name}/fit.json" for name in analysis.fits],
        "tables": [f"{base}/dl5/{name}.ecsv" for name in analysis.tables],
        "plots": [f"{base}/plots/{name}.svg" for name in analysis.pictures],
    }


def index_files(source):
    """Index files of a simulated data source."""
    return [
        f"{results}/dl3/{source.name}/{kind}-index.fits.gz"
        for kind in ("obs", "hdu")
        if source.index
    ]


def products(name):
    """Everything that an analysis leaves."""
    analysis, base = plan.analyses[name], f"{results}/{name}"
    return [
        f"{base}/observations.ecsv",
        *(
            f"{base}/dl4/{reduction}/{obs_id}.h5"
            for reduction, r in analysis.reductions.items()
            for obs_id in r.jobs
        ),
        *(f"{base}/dl4/{reduction}/stacked.fits" for reduction in analysis.reductions),
        *(
            f"{base}/dl5/{fit}/{file}"
            for fit in analysis.fits
            for file in ("fit.json", "models.yaml", "models_covariance.dat")
        ),
        *(f"{base}/dl5/{e.name}.{e.suffix}" for e in analysis.estimators.values()),
        *(
            f"{base}/plots/{picture}.{suffix}"
            for picture in analysis.pictures
            for suffix in ("svg", "png")
        ),
        f"{base}/report.html",
    ]
