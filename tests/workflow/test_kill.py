"""A run that is killed at any moment and started again leaves the products of an undisturbed one, bit by bit.

``DL3FLOW_KILLS=10`` sets the number of moments (3 otherwise), ``DL3FLOW_SEED`` the random numbers that choose them.
"""

import fcntl
import os
import random
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.xdist_group("kill")
KILLS = int(os.environ.get("DL3FLOW_KILLS", "3"))
SEED = int(os.environ.get("DL3FLOW_SEED", "1"))


@pytest.fixture(scope="module")
def undisturbed(make_project):
    """Products of a run from nothing, and how long it took."""
    project = make_project("undisturbed")
    start = time.monotonic()
    done = project.run()
    assert done.returncode == 0, done.stdout
    return project.products(), time.monotonic() - start


def kill_after(project, seconds):
    """Start a run and kill all its processes at once; True if it was still running."""
    with (project.root / "killed.log").open("wb") as log:
        process = subprocess.Popen(
            project.command(),
            cwd=project.root,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
    return False


def test_killed_and_started_again_gives_the_same_bytes(make_project, undisturbed):
    products, duration = undisturbed
    project = make_project("killed")
    moments = random.Random(SEED)
    # each start takes up the work where it was killed, so the moments spread over the run without being its length
    pauses = [moments.uniform(0.15, 2 / (KILLS + 1)) * duration for _ in range(KILLS)]
    killed = [kill_after(project, pause) for pause in pauses]
    assert any(killed)
    done = project.run()
    assert done.returncode == 0, done.stdout
    found = project.products()
    assert set(found) == set(products)
    assert [name for name, content in products.items() if found[name] != content] == []
    assert project.planned() == set()


def test_two_runs_in_one_folder_are_refused(make_project):
    project = make_project("twice")
    lock = project.root / ".snakemake/dl3flow.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = project.run("--until", "simulate_dl3")
        assert project.planned("--until", "simulate_dl3")
    assert refused.returncode != 0
    assert "another run is at work in this folder" in refused.stdout
    assert project.run("--until", "simulate_dl3").returncode == 0
