"""The checked configuration, and the functions that tell a job its input files.

``on_error`` decides whether a job fails, never what it writes: it reaches jobs as a resource, so that editing it reruns
nothing. No input is ``ancient``: the engine does not examine a job below an ancient input whose maker has to run.
"""

import fcntl
import os
import time
from pathlib import Path
import sys

from snakemake.exceptions import WorkflowError

try:
    from dl3flow.config import load_config
    from dl3flow.digest import digest
    from dl3flow.errors import InputError
except ModuleNotFoundError as error:
    raise WorkflowError(
        f"the Python of this snakemake has no '{error.name}': run `make` once and use `.venv/bin/snakemake`, "
        "or install dl3flow beside snakemake"
    ) from None

# jobs run with the Python of this snakemake, also where its environment is not activated
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]))

NAME = "[A-Za-z0-9][A-Za-z0-9_.+-]*"

try:
    plan = load_config(config)
except InputError as error:
    raise WorkflowError(str(error)) from None

results = plan.results
run_lock = []
started = time.time()


def lock_folder():
    """Refuse a second run in this folder.

    The profiles switch off the engine's own lock, which outlives a killed run: this one ends with the process.
    """
    run_lock.append(os.open(".snakemake/dl3flow.lock", os.O_RDWR | os.O_CREAT))
    try:
        fcntl.flock(run_lock[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError("another run is at work in this folder: wait for its end, or stop it") from None


def failures():
    """The sentences in which jobs of this run ended, each once; of a defect the place and the last line."""
    logs = sorted(path for path in Path(results, "logs").rglob("*.log") if path.stat().st_mtime >= started)
    told = []
    for path in logs:
        text = path.read_text(errors="replace")
        end = text.split("dl3flow: ")
        if "Traceback (most recent call last)" in text:
            told.append(
                f"a defect of dl3flow, please report it with the file {path}: {text.rstrip().splitlines()[-1]}"
            )
        elif len(end) > 1 and not end[-1].startswith("warning: "):
            told.append(end[-1].strip())
    return dict.fromkeys(told)


def reduction_of(wildcards):
    """The reduction that a job belongs to."""
    return plan.analyses[wildcards.analysis].reductions[wildcards.reduction]


def dl3_files(wildcards):
    """The files of one observation, or for the background models of a reduction those of all further runs."""
    reduction, given = reduction_of(wildcards), dict(wildcards.items())
    obs_id = int(given["obs_id"]) if "obs_id" in given else None
    further, none = reduction.further, {"off": [], "off_responses": []}
    models = f"{results}/{wildcards.analysis}/dl4/{wildcards.reduction}/background.fits"
    return {
        **({} if obs_id is None else reduction.source.files(obs_id)),
        **(none if further is None else further.files(obs_id)),
        "mask": list(reduction.mask_file),
        "models": [models] if further and further.model and obs_id is not None else [],
        **(model_files(reduction) if obs_id is not None else {}),
    }


def model_files(of):
    """Files that whoever reads models needs beside them: the user's own functions, and templates."""
    return {role: list(of.model_inputs.get(role, ())) for role in ("plugins", "model_files")}


def dl4_files(wildcards):
    """What a stack, a fit, an estimator or the list of observations is made from, here and elsewhere."""
    analysis, base = plan.analyses[wildcards.analysis], f"{results}/{wildcards.analysis}/dl4"
    given = dict(wildcards.items())
    runs = {
        name: [f"{base}/{name}/{obs_id}.h5" for obs_id in r.jobs] for name, r in analysis.reductions.items()
    }
    stacks = {name: [f"{base}/{name}/stacked.fits"] for name in runs}
    if "estimator" in given:
        estimator = analysis.estimators[given["estimator"]]
        given["fit"] = estimator.fit
        bins = f"{results}/{wildcards.analysis}/dl5/{estimator.name}/bins"
        own = {**estimator.events, "slices": [f"{bins}/{label}.json" for label in estimator.slices]}
        own = {**own, **fit_files(wildcards)}
        if estimator.slices or not estimator.fit:
            stack = [] if estimator.slices else stacks.get(estimator.reduction, [])
            return {"datasets": stack, "external": [], **own}
    if "fit" in given:
        fit = analysis.fits[given["fit"]]
        files = stacks if fit.mode == "stacked" else runs
        return {
            "datasets": [file for name in fit.reductions for file in files[name]],
            "external": list(fit.external),
            **model_files(analysis),
            **(own if "estimator" in given else {}),
        }
    wanted = [file for name in runs if given.get("reduction", name) == name for file in runs[name]]
    return {"datasets": wanted, "external": []}


def slice_files(wildcards):
    """What one bin of a light curve or phase curve is measured from."""
    analysis, base = plan.analyses[wildcards.analysis], f"{results}/{wildcards.analysis}"
    job = analysis.estimators[wildcards.estimator].slices[wildcards.slice]
    roles = ("events", "responses", "mask", "off", "off_responses")
    return {
        "datasets": [f"{base}/dl4/{reduction}/{obs_id}.h5" for reduction, obs_id in job.datasets],
        **{role: list(job.files.get(role, ())) for role in roles},
        "models": [f"{base}/dl4/{reduction}/background.fits" for reduction in job.models],
        **fit_files(wildcards),
    }


def fit_files(wildcards):
    """The fit that an estimator, or its picture, builds on, with what its models need; none for a map of a reduction."""
    analysis = plan.analyses[wildcards.analysis]
    name = wildcards.estimator if "estimator" in wildcards.keys() else wildcards.name
    estimator = analysis.estimators.get(name)
    if estimator is not None and estimator.slices and not estimator.fit and "estimator" in wildcards.keys():
        # the models as they stand
        return {"fit": [], **model_files(analysis)}
    fit = "" if estimator is None else estimator.fit
    if not fit:
        return {"fit": [], "plugins": [], "model_files": []}
    return {"fit": [f"{results}/{wildcards.analysis}/dl5/{fit}/fit.json"], **model_files(analysis)}


def picture_files(wildcards):
    """The product that a picture shows, and the fit that it builds on."""
    analysis, base, name = (
        plan.analyses[wildcards.analysis],
        f"{results}/{wildcards.analysis}",
        wildcards.name,
    )
    if name in analysis.reductions:
        return {"product": f"{base}/dl4/{name}/stacked.fits", **fit_files(wildcards)}
    if name in analysis.fits:
        return {"product": f"{base}/dl5/{name}/fit.json", "fit": [], **model_files(analysis)}
    product = f"{base}/dl5/{name}.{analysis.estimators[name].suffix}"
    return {"product": product, **fit_files(wildcards)}


def observation_files(wildcards):
    """The files of one observation, with its index where the data are simulated."""
    source, obs_id = plan.sources.get(wildcards.data), int(wildcards.obs_id)
    if source is None or obs_id not in source.entries:
        raise WorkflowError(
            f"there is no observation {obs_id} of the data '{wildcards.data}': name data that an analysis uses, and one of its observations"
        )
    return {**source.files(obs_id), "index": index_files(source)}


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
        "maps": [f"{base}/dl5/{name}.fits" for name in analysis.maps],
        "plots": [f"{base}/plots/{name}.svg" for name in analysis.pictures],
        **model_files(analysis),
    }


def index_files(source):
    """Index files of a simulated data source."""
    return [f"{results}/dl3/{source.name}/{kind}-index.fits.gz" for kind in ("obs", "hdu") if source.index]


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
        *(f"{base}/dl4/{reduction}/stacked.fits" for reduction, r in analysis.reductions.items() if r.stack),
        *(f"{base}/dl4/{reduction}/ogip" for reduction, r in analysis.reductions.items() if r.ogip),
        *(
            f"{base}/dl5/{fit}/{file}"
            for fit in analysis.fits
            for file in ("fit.json", "models.yaml", "models_covariance.dat")
        ),
        *(f"{base}/dl5/{e.name}.{e.suffix}" for e in analysis.estimators.values()),
        *(f"{base}/plots/{picture}.{suffix}" for picture in analysis.pictures for suffix in ("svg", "png")),
        f"{base}/report.html",
    ]
