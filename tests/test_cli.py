"""The command line: steps by hand, check, and sentences instead of tracebacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dl3flow.cli import STEPS, main
from dl3flow.io.gadf_index import read_index

ROOT = Path(__file__).resolve().parents[1]


def test_help_lists_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    steps = {path.stem for path in (ROOT / "src/dl3flow/steps").glob("[a-z]*.py")}
    assert steps == set(STEPS)
    assert [step for step in steps if step not in text] == []


def test_an_unknown_command_lists_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit_dataset"]) == 2
    assert (
        "unknown command 'fit_dataset': did you mean 'fit_datasets'? (choices: check, "
        in capsys.readouterr().err
    )


def test_a_step_by_hand_writes_what_the_workflow_writes(
    tmp_path: Path, demo_config: dict, demo_dl3: Path
) -> None:
    one = {**demo_config, "observations": demo_config["observations"][1:2]}
    command = [
        sys.executable,
        "-m",
        "dl3flow",
        "simulate_dl3",
        "--output",
        "events",
        str(tmp_path / "x.fits.gz"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [*command, "--options", "-"], input=json.dumps(one), text=True, check=True, env=environment
    )
    assert (tmp_path / "x.fits.gz").read_bytes() == (demo_dl3 / "data/1002.fits.gz").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "datasets", "none.h5", "--options", "{}"], "none.h5: no such file"),
        (["--options", "{"], "--options: not JSON"),
        (["--options", "[1]"], "--options: expected a JSON object"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stack_observations", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dl3flow: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def analysis(tmp_path: Path, demo_dl3: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An analysis of existing data in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(f"analyses: [other.yaml]\ndata: {{dl3: {demo_dl3}}}\n")
    path = tmp_path / "a.yaml"
    path.write_text(
        "observations: {runs: {data: dl3}}\n"
        "reductions:\n  cube:\n    observations: runs\n    recipe: {name: cube, center: {frame: icrs, lon: 83 deg, lat: 22 deg},"
        " width: 2 deg, binsz: 0.1 deg, energy: {min: 1 TeV, max: 10 TeV, nbin: 3}}\n"
    )
    return path


def test_check_finds_nothing_wrong_and_writes_nothing(
    analysis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path.cwd().rglob("*"))
    assert main(["check", "a.yaml"]) == 0
    assert capsys.readouterr().out == "a.yaml: all is well\n"
    assert sorted(Path.cwd().rglob("*")) == before


def test_check_tells_warnings_apart(
    analysis: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["warning: a header says nothing", "warning: nor does another"]
    monkeypatch.setattr("dl3flow.findings.check_analysis", lambda *_: said)
    assert main(["check", "a.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [*said, "a.yaml: all is well, with warnings"]
    monkeypatch.setattr("dl3flow.findings.check_analysis", lambda *_: [*said, "a file is wrong"])
    assert main(["check", "a.yaml"]) == 1
    assert capsys.readouterr().out.splitlines() == [*said, "a file is wrong"]


def test_check_reports_a_mistake_in_the_configuration(
    analysis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analysis.write_text(analysis.read_text().replace("binsz", "bins"))
    assert main(["check", "a.yaml"]) == 1
    assert "a.yaml: reductions.cube.recipe: unknown option 'bins'" in capsys.readouterr().out


def test_check_reports_every_bad_file(
    analysis: Path, demo_dl3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path("dl3")
    (copy / "data").mkdir(parents=True)
    for entry in read_index(demo_dl3):
        (copy / entry.paths[0]).write_bytes(
            (demo_dl3 / entry.paths[0]).read_bytes()[: 9_000 * (entry.obs_id - 1000)]
        )
    for name in ("obs-index.fits.gz", "hdu-index.fits.gz"):
        (copy / name).write_bytes((demo_dl3 / name).read_bytes())
    Path("config/config.yaml").write_text("analyses: []\ndata: {dl3: dl3}\n")
    assert main(["check", "a.yaml"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [f"{n}.fits.gz" in line for n, line in zip((1001, 1002, 1003, 1004), lines, strict=True)] == [
        True
    ] * 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit_datasets"], "the step needs the input 'datasets': give it as `--input datasets PATH`"),
        (["stack_observations", "--input", "datasets", "README.md"], "the step needs the option 'recipe'"),
        (["summarise"], "the step needs the option 'analysis'"),
    ],
)
def test_a_missing_role_is_told(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(words) == 1
    assert said in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(demo_dl3: Path) -> None:
    """As in `dl3flow inspect FILE | head -0`."""
    command = [sys.executable, "-m", "dl3flow", "inspect", str(next((demo_dl3 / "data").iterdir()))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_a_file_of_own_models_is_inspected_with_them(tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "from dl3flow.models.spectral import SPECTRAL_MODELS\n"
        "from dl3flow.units import Flux\n\n\n"
        '@SPECTRAL_MODELS.register("only-here")\n'
        "def only_here(energy, amplitude: Flux = 1e-12):\n"
        "    return amplitude * energy**-2\n"
    )
    models = tmp_path / "models.yaml"
    models.write_text("components: [{name: crab, type: SkyModel, spectral: {type: only-here}}]\n")
    assert main(["inspect", str(models), "--plugins", str(tmp_path / "own.py")]) == 0
    assert "crab.amplitude" in capsys.readouterr().out
    assert main(["inspect", str(models), "--plugins", str(tmp_path / "none.py")]) == 1
    assert "none.py: the plug-in cannot be read" in capsys.readouterr().err
