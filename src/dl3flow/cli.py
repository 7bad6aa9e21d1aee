"""The command line: every workflow step as ``python -m dl3flow STEP``, and the commands ``check`` and ``inspect``."""

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl3flow import __version__
from dl3flow.errors import InputError, choices

STEPS = {
    "simulate_dl3": "write one simulated observation as GADF DL3",
    "index_dl3": "write the observation and HDU index of simulated data",
    "reduce_observation": "bin one observation, with its responses, safe mask and background",
    "model_background": "build background models from further runs",
    "fake_datasets": "draw counts of models in place of those of a dataset",
    "export_ogip": "write reduced spectra as OGIP files",
    "select_observations": "list the observations, those left out with the reason",
    "stack_observations": "sum the reduced observations",
    "fit_datasets": "fit the models to the datasets",
    "estimate_table": "flux points or a light curve from a fit",
    "estimate_events": "a table of events, such as their distribution in phase",
    "estimate_map": "excess, significance or residual maps",
    "measure_datasets": "one bin of a light curve, of reduced runs",
    "measure_runs": "one bin of a light curve or phase curve, cut out of the events",
    "join_slices": "the table of a light curve or phase curve",
    "plot_product": "draw one product",
    "summarise": "write the report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit status 0, 1 for wrong input (one sentence on stderr), 2 for a wrong command."""
    warnings.showwarning = _say_warning
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and not words[0].startswith("-"):
            if words[0] in COMMANDS:
                return COMMANDS[words[0]](words[1:])
            return _run_step(words[0], words[1:])
        return _describe(words)
    except InputError as error:
        print(f"dl3flow: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # the reader of the output, such as `head`, has seen enough; nothing more can be printed, also not at exit
        sys.stdout = None  # type: ignore[assignment]
        return 0


def _describe(words: list[str]) -> int:
    steps = "\n".join(f"  {name:20} {does}" for name, does in STEPS.items())
    parser = argparse.ArgumentParser(
        prog="dl3flow",
        description="From DL3 gamma-ray data to published results. The workflow itself is started by `snakemake`.",
        epilog=f"commands:\n  check ANALYSIS.yaml  validate a configuration and the DL3 files that it uses\n"
        f"  inspect FILE         what a DL3, DL4 or DL5 file holds, in a table\n"
        f"\nworkflow steps (STEP --help says more):\n{steps}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args(words)
    parser.print_help()
    return 0


def _run_step(step: str, words: list[str]) -> int:
    if step not in STEPS:
        print(f"dl3flow: unknown command '{step}': {choices(step, [*COMMANDS, *STEPS])}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"dl3flow.steps.{step}")
    parser = argparse.ArgumentParser(
        prog=f"dl3flow {step}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for role in ("input", "output"):
        parser.add_argument(
            f"--{role}",
            metavar=("NAME", "PATH"),
            nargs="+",
            action="append",
            default=[],
            help=f"{role} by name",
        )
    parser.add_argument(
        "--options", default="{}", metavar="JSON", help="options; `-` reads them from standard input"
    )
    parser.add_argument(
        "--setting", metavar="NAME=VALUE", action="append", default=[], help="option that changes no product"
    )
    parser.add_argument("--code", default="", help="digest of the code, for the provenance")
    given = parser.parse_args(words)

    from dl3flow.io.provenance import collect_provenance

    inputs = _Roles("input", {name: [Path(path) for path in paths] for name, *paths in given.input})
    outputs = _Roles("output", {name: Path(*paths) for name, *paths in given.output if paths})
    settings = dict((*item.split("=", 1), "")[:2] for item in given.setting)
    options = _options(sys.stdin.read() if given.options == "-" else given.options)
    provenance = collect_provenance(step, given.code, options, inputs)
    if inputs.get("plugins"):
        from dl3flow.plugins import load_plugins

        load_plugins(inputs["plugins"])
    module.run(inputs, outputs, _Roles("option", {**settings, **options}), provenance)
    return 0


class _Roles(dict[str, Any]):
    """Inputs, outputs or options of a step by name; a missing one is the caller's mistake, told in a sentence."""

    def __init__(self, kind: str, given: dict[str, Any]) -> None:
        super().__init__(given)
        self._kind = kind

    def __missing__(self, name: str) -> Any:
        how = (
            f"in the JSON of --options: {choices(name, self)}"
            if self._kind == "option"
            else f"as `--{self._kind} {name} PATH`"
        )
        raise InputError(f"the step needs the {self._kind} '{name}': give it {how}")


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--options: not JSON ({error})") from None
    if not isinstance(options, dict):
        raise InputError('--options: expected a JSON object such as `{"name": "flux_points"}`')
    return options


def _check(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dl3flow check",
        description="Validate an analysis and every DL3 file that it uses; nothing is written.",
    )
    parser.add_argument("analysis", type=Path, help="analysis file, such as config/analyses/demo.yaml")
    parser.add_argument(
        "--config", type=Path, default=Path("config/config.yaml"), help="where the data are named"
    )
    given = parser.parse_args(words)

    from dl3flow.findings import check_analysis

    findings = check_analysis(given.analysis, given.config)
    wrong = [finding for finding in findings if not finding.startswith("warning: ")]
    end = [] if wrong else [f"{given.analysis}: all is well{', with warnings' if findings else ''}"]
    print("\n".join([*findings, *end]))
    return 1 if wrong else 0


def _inspect(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dl3flow inspect", description="Say what a DL3, DL4 or DL5 file holds; nothing is written."
    )
    parser.add_argument("file", type=Path, help="such as results/demo/dl4/cube/1001.h5")
    parser.add_argument(
        "--plugins", type=Path, nargs="+", default=[], help="your own models that the file was made with"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PICTURE",
        help="draw the content into this .svg or .png instead of telling it",
    )
    parser.add_argument(
        "--style", type=Path, metavar="FILE", help="matplotlib style file with which the picture is drawn"
    )
    given = parser.parse_args(words)

    from dl3flow.plugins import load_plugins

    load_plugins(given.plugins)
    if given.plot is not None:
        return _draw(given.file, given.plot, given.style)

    from dl3flow.io.inspection import inspect_file

    rows = inspect_file(given.file)
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:{width}}  {text}" for name, text in rows))
    return 0


def _draw(path: Path, picture: Path, style_file: Path | None) -> int:
    from dl3flow.io.files import check_regular_file, read_text, write_product
    from dl3flow.pictures import read_for_picture
    from dl3flow.plots import PLOTS, style
    from dl3flow.plots.style_file import parse_style, split_style

    if picture.suffix not in (".svg", ".png"):
        raise InputError(f"--plot: '{picture}' is no picture: give it the ending .svg or .png")
    settings = {} if style_file is None else split_style(read_text(style_file), str(style_file))
    name, product = read_for_picture(check_regular_file(path))
    if name not in PLOTS.names():
        raise InputError(f"{path}: there is no plot for '{name}': {choices(name, PLOTS.names())}")
    with style.restyled(parse_style(settings, str(style_file))):
        figure = PLOTS.find(name, "plot")(product, None)
        style.name_analysis(figure, path.name)
        write_product(picture, lambda temporary: style.save(figure, temporary))
    print(picture)
    return 0


COMMANDS = {"check": _check, "inspect": _inspect}


def _say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"dl3flow: warning: {message}", file=sys.stderr)
