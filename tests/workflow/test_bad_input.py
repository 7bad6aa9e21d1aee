"""Wrong input ends in sentences: before the jobs start, or as a record beside the good observations."""

import gzip
import shutil

import pytest

from dl3flow.io.hdf5 import read_failure
from dl3flow.io.products import read_fit, read_light_curve, read_observation_table

pytestmark = pytest.mark.xdist_group("bad input")


@pytest.fixture(scope="module")
def broken(make_project, demo_dl3):
    """A project on four observations of which one is cut short and one has no events HDU."""
    project = make_project("broken")
    shutil.copytree(demo_dl3, project.root / "dl3")
    cut = project.root / "dl3/data/1002.fits.gz"
    cut.write_bytes(cut.read_bytes()[:5000])
    renamed = project.root / "dl3/data/1003.fits.gz"
    content = gzip.decompress(renamed.read_bytes())
    assert content.count(b"EXTNAME = 'EVENTS  '") == 1
    renamed.write_bytes(
        gzip.compress(content.replace(b"EXTNAME = 'EVENTS  '", b"EXTNAME = 'EVENTZ  '"), mtime=0)
    )
    path = project.root / "config/config.yaml"
    path.write_text(path.read_text().replace("{simulate: config/simulations/small.yaml}", "{path: dl3}"))
    return project


def test_stop_lists_all_bad_observations_at_once(broken):
    done = broken.run("--quiet", "host", "rules")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    log = (broken.root / "results/logs/select_observations/small.log").read_text()
    first, *listed = log.rstrip().split("\n")
    assert first.startswith(
        "dl3flow: 2 of 4 observations could not be reduced; repair them, leave them out in `select`"
    )
    assert [line.split(":")[0].strip() for line in listed] == ["cube/1002", "cube/1003"]
    assert "1002.fits.gz" in listed[0]
    assert "1003.fits.gz" in listed[1]
    assert "EVENTS" in listed[1]
    # no fit is made, nor what follows from it; the bins of a light curve without a fit record what they lack
    assert sorted(path.name for path in (broken.root / "results/small/dl5").iterdir()) == [
        "parts",
        "parts.ecsv",
    ]
    assert read_light_curve(broken.root / "results/small/dl5/parts.ecsv").meta["warnings"]
    assert read_failure(broken.root / "results/small/dl4/cube/1003.h5") in listed[1]
    assert read_failure(broken.root / "results/small/dl4/cube/1001.h5") is None


def test_skip_goes_on_without_them_and_says_so(broken):
    with broken.edited("config/analyses/small.yaml", "models: config", "on_error: skip\nmodels: config"):
        done = broken.run()
    assert done.returncode == 0, done.stdout
    rows = {
        row["obs_id"]: row for row in read_observation_table(broken.root / "results/small/observations.ecsv")
    }
    assert {obs_id: row["status"] for obs_id, row in rows.items()} == {
        1001: "selected",
        1002: "failed",
        1003: "failed",
        1004: "selected",
    }
    assert "EVENTS" in rows[1003]["reason"]
    fit = read_fit(broken.root / "results/small/dl5/joint/fit.json")
    assert [dataset.name for dataset in fit.datasets] == ["cube-1001", "cube-1004"]
    assert "EVENTS" in (broken.root / "results/small/report.html").read_text()
    assert broken.planned() == set()


def test_a_typo_fails_a_dry_run_with_one_sentence(make_project):
    project = make_project("typo")
    with project.edited("config/analyses/small.yaml", "binsz: 0.1 deg", "bins: 0.1 deg"):
        done = project.run("--dry-run")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert (
        "small.yaml: reductions.cube.recipe: unknown option 'bins' of 'cube': did you mean 'binsz'? (choices:"
        in done.stdout
    )
