"""An edit reruns exactly what depends on it."""

import os
import shutil

import pytest

pytestmark = pytest.mark.xdist_group("workflow")

FIT = {"Fit small/joint"}
FIT_PRODUCTS = {
    "Estimate small/sed",
    "Estimate small/curve",
    "Plot small/joint",
    "Plot small/sed",
    "Plot small/curve",
    "Measure bin 1 of small/curve",
    "Measure bin 2 of small/curve",
}
# bins of 20 minutes (TT) that are cut out of the events, with the models as they stand
CUT = ("2024-01-12T20-00-00", "2024-01-12T20-20-00", "2024-01-12T20-40-00")
PARTS = {"Estimate small/parts", "Plot small/parts"}
ALL_PARTS = PARTS | {f"Measure bin {label} of small/parts" for label in CUT}
STACK_PRODUCTS = {"Stack small/cube", "Plot small/cube", "Estimate small/sky", "Plot small/sky"}
LIST = {"List the observations of small"}
REPORT = {"Write the report of small"}
REDUCTIONS = {"Reduce observation 1 to small/cube", "Reduce observation 2 to small/cube"}
FROM_REDUCTION = LIST | STACK_PRODUCTS | FIT | FIT_PRODUCTS | REPORT
SED = {"Estimate small/sed", "Plot small/sed"} | REPORT


def test_everything_is_made(finished):
    products = finished.products()
    expected = {
        *(
            f"dl3/sim/{name}"
            for name in ("data/1.fits.gz", "data/2.fits.gz", "hdu-index.fits.gz", "obs-index.fits.gz")
        ),
        "small/observations.ecsv",
        *(f"small/dl4/cube/{name}" for name in ("1.h5", "2.h5", "stacked.fits")),
        *(
            f"small/dl5/{name}"
            for name in ("joint/fit.json", "joint/models.yaml", "joint/models_covariance.dat")
        ),
        *(f"small/dl5/{name}" for name in ("sed.ecsv", "curve.ecsv", "parts.ecsv", "sky.fits")),
        *(f"small/dl5/curve/bins/{label}.json" for label in (1, 2)),
        *(f"small/dl5/parts/bins/{label}.json" for label in CUT),
        *(
            f"small/plots/{name}.{kind}"
            for name in ("cube", "joint", "sed", "curve", "parts", "sky")
            for kind in ("svg", "png")
        ),
        "small/report.html",
    }
    assert set(products) == expected
    assert all(products.values())


def test_products_hold_no_path_of_this_machine(finished):
    texts = {name: text for name, text in finished.products().items() if not name.endswith((".gz", ".png"))}
    assert [name for name, text in texts.items() if str(finished.root).encode() in text] == []


def test_a_second_run_does_nothing(finished):
    assert finished.planned() == set()
    assert "Nothing to be done" in finished.run().stdout


def test_one_run_added(finished):
    added = '\n  - {obs_id: 3, target: crab, wobble: {offset: 0.5 deg, angle: 90 deg}, start: "2024-01-13 20:00:00", duration: 15 min}\n'
    old = 'start: "2024-01-12 20:30:00", duration: 15 min}\n'
    with finished.edited("config/simulations/small.yaml", old, old.rstrip() + added):
        planned = finished.planned()
    new = {"Simulate observation 3 of sim", "Write the index of sim", "Reduce observation 3 to small/cube"}
    # of the bins that need no fit only that of the new run is measured
    measured = {"Measure bin 3 of small/curve", "Measure bin 2024-01-13T20-00-00 of small/parts"}
    assert planned == new | FROM_REDUCTION | measured | PARTS


def test_one_run_removed(finished):
    with finished.edited(
        "config/analyses/small.yaml", "runs: {data: sim}", "runs: {data: sim, select: {obs_ids: [2]}}"
    ):
        left = finished.planned()
    # the bin from 20:20 held a part of the second run alone, as did the next one
    assert left == (FROM_REDUCTION | PARTS) - {"Measure bin 1 of small/curve"}


def test_flux_point_energies_edited(finished):
    with finished.edited(
        "config/analyses/small.yaml",
        "crab, energy: {min: 1 TeV, max: 10 TeV, nbin: 3}",
        "crab, energy: {min: 1 TeV, max: 10 TeV, nbin: 1}",
    ):
        assert finished.planned() == SED


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config/analyses/small.yaml", "models: config", "on_error: skip\nmodels: config"),
        ("config/analyses/small.yaml", "models: config", "# a comment\nmodels:    config"),
        ("config/models/crab.yaml", "components:", "# a comment\ncomponents:"),
        ("config/models/crab.yaml", "value: 1.0,", "value: 1,"),
        ("config/analyses/small.yaml", "{name: fov, exclusion:", "{exclusion:"),
        ("config/simulations/small.yaml", "seed: 7", "seed:  7  # a comment"),
    ],
)
def test_what_changes_no_product_reruns_nothing(finished, name, old, new):
    more = ('0.3)"}\n', '0.3)", name: fov}\n') if new == "{exclusion:" else (old, new)
    with finished.edited(name, old, new):
        if more != (old, new):
            with finished.edited(name, *more):
                assert finished.planned() == set()
        else:
            assert finished.planned() == set()


def test_a_start_value_edited(finished):
    with finished.edited("config/models/crab.yaml", "value: 2.6", "value: 2.5"):
        assert finished.planned() == FIT | FIT_PRODUCTS | ALL_PARTS | REPORT


@pytest.mark.parametrize(
    ("module", "jobs"),
    [
        ("estimators/flux_points.py", SED),
        ("reduce/response.py", REDUCTIONS | FROM_REDUCTION | ALL_PARTS),
        (
            "estimators/variability.py",
            {f"{does} small/{name}" for does in ("Estimate", "Plot") for name in ("curve", "parts")} | REPORT,
        ),
        ("plots/light_curve.py", {"Plot small/curve", "Plot small/parts"} | REPORT),
        ("report/build.py", REPORT),
    ],
)
def test_a_line_of_the_library_edited(finished, module, jobs):
    path = finished.root / "src/dl3flow" / module
    text = path.read_text()
    path.write_text(text + "\nPLANTED = 1\n")
    try:
        assert finished.planned() == jobs
    finally:
        path.write_text(text)


def test_a_style_draws_all_pictures_anew_and_computes_nothing(finished):
    style = finished.root / "config/journal.mplstyle"
    style.write_text("font.size: 8\n")
    pictures = {f"Plot small/{name}" for name in ("cube", "joint", "sed", "curve", "parts", "sky")}
    with finished.edited(
        "config/analyses/small.yaml", "models: config", "style: config/journal.mplstyle\nmodels: config"
    ):
        assert finished.planned() == pictures | REPORT
        style.write_text("font.sise: 8\n")
        done = finished.run("--dry-run")
    assert done.returncode != 0
    assert "journal.mplstyle: 'font.sise' is no setting of a matplotlib style file" in done.stdout


def test_an_observation_is_drawn_when_asked_for(finished):
    target = "results/peeks/sim/1.png"
    assert finished.planned(target) == {"Draw observation 1 of sim"}
    done = finished.run(target)
    try:
        assert done.returncode == 0, done.stdout
        assert (finished.root / target).read_bytes().startswith(b"\x89PNG")
        assert finished.planned(target) == set()
    finally:
        shutil.rmtree(finished.root / "results/peeks", ignore_errors=True)


def test_a_comment_in_the_library_reruns_nothing(finished):
    path = finished.root / "src/dl3flow/reduce/response.py"
    text = path.read_text()
    path.write_text(text + "\n# a comment\n")
    try:
        assert finished.planned() == set()
    finally:
        path.write_text(text)


def test_touching_files_reruns_nothing(finished):
    for name in ("dl3/sim/data/1.fits.gz", "small/dl4/cube/1.h5", "small/dl5/joint/fit.json"):
        os.utime(finished.root / "results" / name)
    assert finished.planned() == set()


def test_the_root_and_the_workflow_folder_plan_the_same(finished):
    assert (
        finished.planned("--forceall")
        == finished.planned("--forceall", "--snakefile", "workflow/Snakefile")
        != set()
    )


def test_the_report_alone(finished):
    assert finished.planned("report") == set()
    assert finished.planned("--forcerun", "plot_product", "--", "report") >= REPORT


def test_as_a_module_all_paths_stay_below_its_results(finished):
    (finished.root / "Other").write_text(
        "module dl3flow:\n    snakefile: 'workflow/Snakefile'\n    config: config['gamma']\n\n\n"
        "use rule * from dl3flow as dl3flow_*\n\n\nrule all:\n    default_target: True\n    input: rules.dl3flow_targets.input\n"
    )
    (finished.root / "other.yaml").write_text(
        "gamma:\n  analyses: [config/analyses/small.yaml]\n  results: elsewhere\n"
        "  data: {sim: {simulate: config/simulations/small.yaml}}\n"
    )
    done = finished.run(
        "--dry-run",
        "--snakefile",
        "Other",
        "--configfile",
        "other.yaml",
        "--quiet",
        "host",
        "--printshellcmds",
    )
    assert done.returncode == 0, done.stdout
    assert "Stack small/cube" in done.stdout
    assert "elsewhere/small/report.html" in done.stdout
    assert " results/" not in done.stdout


def test_lint(finished):
    done = finished.run("--lint")
    assert done.returncode == 0, done.stdout
