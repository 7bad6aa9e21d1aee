"""All products of an analysis to its report.

Inputs: observations, fits, tables, maps, plots.
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: report.
Options: analysis, truth, references.
"""

from pathlib import Path
from typing import Any

from dl3flow.io.files import read_text, write_text
from dl3flow.io.products import read_fit, read_observation_table, read_table
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_sky_map
from dl3flow.io.yaml import dump_yaml
from dl3flow.report.build import build_report


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Write one page that needs no other file."""
    analysis = options["analysis"]
    page = build_report(
        analysis,
        read_observation_table(inputs["observations"][0]),
        {path.parent.name: read_fit(path) for path in inputs["fits"]},
        {path.stem: read_table(path) for path in inputs["tables"]},
        {path.stem: read_text(path) for path in inputs["plots"]},
        {**provenance.to_mapping(), "configuration": dump_yaml(analysis)},
        options["truth"] or None,
        options.get("references", []),
        {path.stem: read_sky_map(path).meta for path in inputs["maps"]},
    )
    write_text(outputs["report"], page)
