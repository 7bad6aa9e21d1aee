"""The datasets of a fit as steps read them: reduced here or elsewhere, within the fit's energies and sky."""

from pathlib import Path
from typing import Any

from dl3flow.data.dataset import FitData
from dl3flow.fit.limits import limit_energies, limit_sky
from dl3flow.io.datasets import read_fit_datasets


def read_datasets(inputs: dict[str, list[Path]], options: dict[str, Any]) -> list[FitData]:
    """Datasets of a fit, or of an estimator that follows it."""
    external = inputs.get("external", [])
    found = read_fit_datasets(
        inputs["datasets"], options.get("on_error", "skip"), external, options.get("inputs", {})
    )
    return limit_sky(limit_energies(found, options["energy"]), options.get("region", {}))
