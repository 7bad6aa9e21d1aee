"""What a job of the reduction loads: thousands of jobs start, and each pays for its imports."""

import subprocess
import sys

HEAVY = {
    "scipy.fft",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.special",
    "pandas",
    "iminuit",
    "gammapy",
    "snakemake",
}


def test_the_step_of_a_reduction_loads_no_heavy_library() -> None:
    code = "import sys, dl3flow.steps.reduce_observation; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(found.stdout.split()) == set()
