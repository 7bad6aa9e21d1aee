"""DL4 or DL5 to a picture, as SVG and PNG.

Inputs: product; fit (a fit.json, or none).
Further inputs: plugins (the user's own models), model_files (that models are read from).
Outputs: svg, png.
Options: plot, analysis, sources (positions to mark on a map without a fit), style (settings of matplotlib).
"""

from pathlib import Path
from typing import Any

from dl3flow.io.files import write_product
from dl3flow.io.fits_datasets import read_fits_dataset
from dl3flow.io.products import read_fit, read_table
from dl3flow.io.provenance import Provenance
from dl3flow.io.skymaps import read_sky_map
from dl3flow.plots import PLOTS
from dl3flow.plots.sky import with_sources
from dl3flow.plots.style import name_analysis, restyled, save
from dl3flow.plots.style_file import parse_style

READERS: dict[str, Any] = {".json": read_fit, ".ecsv": read_table, ".fits": read_sky_map}


def run(
    inputs: dict[str, list[Path]], outputs: dict[str, Path], options: dict[str, Any], provenance: Provenance
) -> None:
    """Draw one product."""
    path = inputs["product"][0]
    read = read_fits_dataset if options["plot"] == "dataset" else READERS[path.suffix]
    product = with_sources(read(path), options["sources"])
    result = next((read_fit(path) for path in inputs["fit"]), None)
    with restyled(parse_style(options["style"], "style")):
        figure = PLOTS.find(options["plot"], "plot")(product, result)
        name_analysis(figure, f"{outputs['svg'].stem}, {options['analysis']}")
        for path in outputs.values():
            write_product(path, lambda temporary: save(figure, temporary, provenance.to_json()))
