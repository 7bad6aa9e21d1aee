"""DL3 to DL5: tables of events, such as their distribution in phase.

Inputs: events; responses.
Outputs: table.
Options: estimator (name and its options), runs (entry and events of each).
Settings: on_error=stop or skip.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dl3flow.estimators import EVENT_TABLES
from dl3flow.io.products import write_table
from dl3flow.io.provenance import Provenance
from dl3flow.steps.reading.runs import read_usable_runs


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Estimate one table; with the setting ``on_error=skip`` without the observations that cannot be read."""
    estimate, bound = EVENT_TABLES.bind(options["estimator"], "estimator")
    left_out: list[str] = []
    runs = read_usable_runs(options["runs"], inputs["events"], options.get("on_error", "stop"), left_out)
    product = estimate(runs, **bound)
    told = [*product.meta.get("warnings", []), *left_out]
    write_table(outputs["table"], replace(product, meta={**product.meta, "warnings": told}), provenance)
